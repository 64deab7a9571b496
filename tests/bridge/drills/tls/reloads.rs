use super::*;
use crate::support::tls::chain;

/// Callers who come anew for each call: they handshake, ask once, check the MAC, and go.
struct Newcomers {
    ended: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    callers: JoinSet<()>,
}

impl Newcomers {
    fn start(client: &Client) -> Self {
        let mut newcomers = Self {
            ended: Arc::default(),
            served: Arc::default(),
            callers: JoinSet::new(),
        };
        for _ in 0..4 {
            let (client, ended) = (client.clone(), newcomers.ended.clone());
            let served = newcomers.served.clone();
            newcomers.callers.spawn(async move {
                while !ended.load(Ordering::Relaxed) {
                    let mut macs = client.mac().await;
                    let answer = macs.generate_mac(request(b"new")).await.unwrap();
                    assert_eq!(answer.into_inner().mac, hmac_sha256(&KEY, b"new"));
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        newcomers
    }

    /// Every one of them was served; how many there were.
    async fn end(mut self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        while let Some(caller) = self.callers.join_next().await {
            caller.unwrap();
        }
        self.served.load(Ordering::Relaxed)
    }
}

/// Whether a new connection sees this certificate.
async fn sees(client: &Client, pair: &Pair) -> bool {
    let stream = client.connect().await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap() == chain(pair)
}

/// The server's certificate is replaced again and again: no call fails, no connection ends, and
/// whoever comes then sees the new one.
#[tokio::test]
async fn certificates_are_replaced_under_load_and_nobody_notices() {
    let place = place();
    let running = place.serve(&config(&place, "")).await;
    let steady = Steady::start(&place, &running).await;
    let billing = running.client(Some(&shown(&place, "billing")));
    let newcomers = Newcomers::start(&billing);
    let mut took = Vec::new();
    for _ in 0..much(20) {
        let pair = place.servers.server();
        place.write_server(&pair);
        took.push(hang_up(&running, RELOADED).await);
        assert!(sees(&billing, &pair).await);
    }
    // Without being told, within about five seconds.
    let pair = place.servers.server();
    let (began, before) = (Instant::now(), logged(&running, RELOADED));
    place.write_server(&pair);
    until_logged(&running, RELOADED, before).await;
    let noticed = began.elapsed();
    assert!(sees(&billing, &pair).await);
    println!(
        "{} reloads by SIGHUP, then one that was noticed after {noticed:.1?}; {} newcomers, all served",
        took.len(),
        newcomers.end().await
    );
    assert_eq!(logged(&running, NOT_RELOADED), 0);
    steady
        .end("certificates replaced under load", &took, &running)
        .await;
}

/// A certificate with the key of another one is not taken over: an alarm, once, and the old pair
/// stays until a good one is there.
#[tokio::test]
async fn a_bad_pair_keeps_the_old_one() {
    let place = place();
    let running = place.serve(&config(&place, "")).await;
    let steady = Steady::start(&place, &running).await;
    let billing = running.client(Some(&shown(&place, "billing")));
    let newcomers = Newcomers::start(&billing);
    let old = place.servers.server();
    place.write_server(&old);
    hang_up(&running, RELOADED).await;

    let (new, other) = (place.servers.server(), place.servers.server());
    let bad: [(&str, &dyn Fn()); 4] = [
        ("server.key does not fit", &|| {
            place.write("server.pem", &new.certificate);
            place.write("server.key", &other.key);
        }),
        ("server.pem holds no certificate in PEM", &|| {
            place.write("server.pem", "")
        }),
        ("server.pem: No such file", &|| {
            fs::remove_file(place.token.path("server.pem")).unwrap();
        }),
        ("hsmac.toml:", &|| {
            place.write("hsmac.toml", "account = 7\n")
        }),
    ];
    let good = fs::read_to_string(place.token.path("hsmac.toml")).unwrap();
    for (number, (reason, break_it)) in (1..).zip(bad) {
        break_it();
        hang_up(&running, NOT_RELOADED).await;
        let log = running.server.log();
        let line = log
            .lines()
            .rfind(|line| line.contains(NOT_RELOADED))
            .unwrap();
        println!("{line}");
        assert!(line.contains("ERROR") && line.contains(reason), "{line}");
        assert!(!log.contains("PRIVATE KEY"), "Security: a key in the log");
        // Said once: the next look finds the same.
        signal(running.server.child.id(), "HUP");
        for _ in 0..3 {
            assert!(sees(&billing, &old).await, "{reason}");
        }
        assert_eq!(logged(&running, NOT_RELOADED), number);
    }
    place.write("hsmac.toml", &good);
    place.write_server(&new);
    let healed = hang_up(&running, RELOADED).await;
    assert_eq!(logged(&running, NOT_RELOADED), 4);
    assert!(sees(&billing, &new).await);
    println!("{} newcomers, all served", newcomers.end().await);
    steady
        .end("bad files at a reload", &[healed], &running)
        .await;
}
