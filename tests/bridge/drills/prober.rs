//! A prober like Kubernetes's over hsmac in every kind of trouble: it must never restart a front that heals.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    operator::{Operator, with_faults},
    support::{Server, Token, long, request, signal, until},
};

/// What Kubernetes does with `periodSeconds: 1`, `failureThreshold: 3`. Its `timeoutSeconds` is 1 by default: five
/// allow for machines that do something else for seconds.
const PERIOD: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);
const FAILURES: usize = 3;

/// What goes wrong, and how: rules of the fault token, or something else.
const TROUBLES: [(&str, Trouble); 9] = [
    ("C_Sign hangs", Trouble::Rules("hang C_Sign")),
    ("every call hangs", Trouble::Rules("hang C_*")),
    ("C_Sign crashes", Trouble::Rules("crash C_Sign every 3")),
    (
        "no host can start",
        Trouble::RulesAndKill("crash C_Initialize"),
    ),
    ("the token is away", Trouble::Rules("hide token")),
    (
        "the device fails",
        Trouble::Rules("return C_Sign CKR_DEVICE_ERROR"),
    ),
    ("hosts stand still", Trouble::Signal("STOP")),
    ("hosts are killed", Trouble::Signal("KILL")),
    ("the configuration is broken", Trouble::Configuration),
];

#[derive(Clone, Copy)]
enum Trouble {
    Rules(&'static str),
    RulesAndKill(&'static str),
    Signal(&'static str),
    Configuration,
}

/// What a prober has seen of one path.
#[derive(Default)]
struct Probes {
    count: usize,
    slowest: Duration,
    /// Failures in a row: now, and at most.
    failing: usize,
    most_failing: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prober_like_kubernetes_never_restarts_a_front_that_heals() {
    let token = Token::with_key();
    let settings = "hosts = 2\nsessions = 2\ncall_timeout = \"1s\"\n";
    let server = token.serve(&with_faults(&token, settings)).await;
    let operator = Operator::new(&token, &server).await;
    operator.until_ready(200).await;
    let ended = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (mut client, ended) = (server.mac().await, Arc::clone(&ended));
        callers.spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                // What they are told is other drills' affair.
                let _ = client.generate_mac(request(b"x")).await;
            }
        });
    }
    let prober = {
        let (address, ended) = (operator.tcp.clone(), Arc::clone(&ended));
        thread::spawn(move || probe(&address, &ended))
    };
    let (held, until_then) = if long() {
        (Duration::from_secs(15), Duration::from_mins(10))
    } else {
        (Duration::from_secs(2), Duration::ZERO)
    };
    let began = Instant::now();
    let config = std::fs::read_to_string(token.path("hsmac.toml")).unwrap();
    loop {
        for (name, trouble) in TROUBLES {
            let seen = in_trouble(trouble, held, &token, &server, &operator, &config).await;
            let back = Instant::now();
            operator.until_ready(200).await;
            println!(
                "{name}: /readyz said {seen:?}, and 200 again {:.1} s after its end",
                back.elapsed().as_secs_f64()
            );
        }
        if began.elapsed() >= until_then {
            break;
        }
    }
    ended.store(true, Ordering::Relaxed);
    let probes = prober.join().unwrap();
    println!(
        "{} probes of /livez in {:.0} s, the slowest took {:.3} s, {} failed in a row",
        probes.count,
        began.elapsed().as_secs_f64(),
        probes.slowest.as_secs_f64(),
        probes.most_failing
    );
    assert!(probes.most_failing < FAILURES, "{}", server.log());
    while callers.join_next().await.is_some() {}
    assert!(server.terminate().await.success());
}

/// Puts something wrong for a while, and right again. Gives what `/readyz` said meanwhile, each once.
async fn in_trouble(
    trouble: Trouble,
    held: Duration,
    token: &Token,
    server: &Server,
    operator: &Operator,
    config: &str,
) -> Vec<u16> {
    let hosts = server.hosts();
    match trouble {
        Trouble::Rules(rules) => token.rules(rules),
        Trouble::RulesAndKill(rules) => {
            token.rules(rules);
            hosts.iter().for_each(|host| signal(*host, "KILL"));
        }
        Trouble::Signal(name) => hosts.iter().for_each(|host| signal(*host, name)),
        Trouble::Configuration => {
            std::fs::write(token.path("hsmac.toml"), "nonsense = ").unwrap();
            signal(server.child.id(), "HUP");
        }
    }
    let until_then = Instant::now() + held;
    let mut seen = Vec::new();
    until("the time is over", || {
        let status = operator.ask_tcp("/readyz").status;
        if !seen.contains(&status) {
            seen.push(status);
        }
        (Instant::now() >= until_then).then_some(())
    })
    .await;
    token.rules("");
    if matches!(trouble, Trouble::Configuration) {
        std::fs::write(token.path("hsmac.toml"), config).unwrap();
        signal(server.child.id(), "HUP");
    }
    seen
}

/// Asks `/livez` again and again. Shares no code with the server, nor with the operator of the other tests.
fn probe(address: &str, ended: &AtomicBool) -> Probes {
    let mut probes = Probes::default();
    while !ended.load(Ordering::Relaxed) {
        let began = Instant::now();
        let is_alive = is_alive(address).unwrap_or(false);
        let took = began.elapsed();
        probes.count += 1;
        probes.slowest = probes.slowest.max(took);
        probes.failing = if is_alive { 0 } else { probes.failing + 1 };
        probes.most_failing = probes.most_failing.max(probes.failing);
        thread::park_timeout(PERIOD.saturating_sub(took));
    }
    probes
}

fn is_alive(address: &str) -> std::io::Result<bool> {
    let address = address.parse().expect("an address and a port");
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("alive\n"))
}
