//! Limits of principals, over the network: who is over them is told when to come again, and nobody else
//! notices.

use std::time::{Duration, Instant};

use hsmac::proto::v1::{CreateKeyRequest, ListKeysRequest};
use tokio::{task::JoinSet, time::sleep};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    KEY_ID, LIMIT, Token, declare,
    pki::client,
    request, signal,
    tls::{Client, Place, Running, principal},
};

const GREEDY: &str = "arn:aws:iam::111122223333:user/greedy";
const MODEST: &str = "arn:aws:iam::111122223333:user/modest";

/// Two principals, one key, and these limits.
fn config(place: &Place, limits: &str) -> String {
    let principals = [(GREEDY, "greedy"), (MODEST, "modest")];
    let principals = principals.map(|(arn, name)| principal(arn, name, Some("caller.json")));
    let key = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
    place.config("", &format!("{}{limits}\n{key}", principals.concat()))
}

fn known(place: &Place, running: &Running<'_>, name: &str) -> Client {
    running.client(Some(&client().dns(name).signed_by(&place.clients)))
}

/// After how long a refusal says to come again; the header that gRPC's own retries go by says the same.
fn told(status: &Status) -> Duration {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "THROTTLING");
    assert_eq!(
        status.message(),
        "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls."
    );
    let told = details.retry_info().unwrap().retry_delay.unwrap();
    let pushback = status.metadata().get("grpc-retry-pushback-ms").unwrap();
    assert_eq!(pushback.to_str().unwrap(), told.as_millis().to_string());
    told
}

#[tokio::test]
async fn a_principal_over_its_rate_is_let_in_when_it_was_told_and_nobody_else_notices() {
    let place = Place::new(Token::with_key());
    let limits = format!(
        "[[limits.principal]]\narn = \"{GREEDY}\"\nrates.cryptographic_operations_symmetric = {{ rate = 20, burst = 60 }}\nrates.create_key = {{ rate = 1, per = \"1h\" }}"
    );
    let running = place.serve(&config(&place, &limits)).await;
    let greedy = known(&place, &running, "greedy");
    let mut modest = known(&place, &running, "modest").mac().await;
    // Several connections count as one.
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let mut mac = greedy.mac().await;
        callers.spawn(async move {
            let (mut admitted, mut refused) = (0_u32, Duration::ZERO);
            while began.elapsed() < Duration::from_secs(3) {
                let asked = began.elapsed();
                match mac.generate_mac(request(b"x")).await {
                    Ok(_) => admitted += 1,
                    Err(status) => {
                        assert!(told(&status) <= Duration::from_millis(50), "{status:?}");
                        refused = asked;
                    }
                }
            }
            (admitted, refused)
        });
    }
    modest.generate_mac(request(b"x")).await.unwrap();
    let counts = callers.join_all().await;
    let admitted: u32 = counts.iter().map(|(admitted, _)| admitted).sum();
    // Up to the last refusal as many were let in as could be, and not many more since.
    let refused = counts.iter().map(|(_, refused)| *refused).max().unwrap();
    let (least, most) = (
        60.0 + 20.0 * refused.as_secs_f64(),
        60.0 + 20.0 * began.elapsed().as_secs_f64(),
    );
    println!("{admitted} calls were let in, of {least:.0} to {most:.0}");
    let admitted = f64::from(admitted);
    assert!(admitted >= 0.95 * least && admitted <= 1.05 * most);

    let mut mac = greedy.mac().await;
    for _ in 0..5 {
        let wait = loop {
            if let Err(status) = mac.generate_mac(request(b"x")).await {
                break told(&status);
            }
        };
        sleep(wait).await;
        mac.generate_mac(request(b"x")).await.unwrap();
    }
    // A call that breaks constraints counts as well, and is told of the rate first.
    let mut keys = greedy.keys().await;
    let broken = CreateKeyRequest::default();
    let first = keys.create_key(broken.clone()).await.unwrap_err();
    assert_ne!(first.code(), Code::ResourceExhausted, "{first:?}");
    let second = keys.create_key(broken).await.unwrap_err();
    let hour = told(&second);
    assert!(hour > Duration::from_secs(3500) && hour <= Duration::from_secs(3600));
    keys.list_keys(ListKeysRequest::default()).await.unwrap();
    let log = running.server.log();
    assert!(log.contains("throttled") && log.contains(GREEDY), "{log}");
    assert!(!log.contains("a call failed"), "{log}");
}

#[tokio::test]
async fn limits_change_with_a_reload() {
    let place = Place::new(Token::with_key());
    let strict =
        "[limits.default.rates]\ncryptographic_operations_symmetric = { rate = 1, per = \"1h\" }";
    let running = place.serve(&config(&place, "")).await;
    let mut mac = known(&place, &running, "greedy").mac().await;
    for _ in 0..50 {
        mac.generate_mac(request(b"x")).await.unwrap();
    }
    let reload = |limits: &str| {
        place.write("hsmac.toml", &config(&place, limits));
        signal(running.server.child.id(), "HUP");
    };
    reload(strict);
    let began = Instant::now();
    while mac.generate_mac(request(b"x")).await.is_ok() {
        assert!(began.elapsed() < LIMIT, "{}", running.server.log());
    }
    reload("");
    while mac.generate_mac(request(b"x")).await.is_err() {
        assert!(began.elapsed() < LIMIT, "{}", running.server.log());
    }
}
