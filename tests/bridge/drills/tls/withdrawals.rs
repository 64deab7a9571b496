//! What is taken away from a caller who is connected: its certificate, its name, its rights, its time.

use std::{error::Error as _, sync::OnceLock};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{task::JoinHandle, time::timeout};
use tokio_rustls::rustls::{self, AlertDescription};
use tonic::{Code, Request, Status};

use super::*;
use crate::support::{assert_status, pki::Authority};

#[tokio::test]
async fn a_certificate_is_revoked_while_its_holder_is_connected() {
    let (place, config) = over_faults("client_crl = \"clients.crl\"\n");
    place.write("clients.crl", &place.clients.crl(&[]));
    let pair = client().dns("billing").serial(7).signed_by(&place.clients);
    withdrawn(&place, &config, "a certificate revoked", &pair, || {
        place.write("clients.crl", &place.clients.crl(&[7]));
    })
    .await
    .is_refused_with(AlertDescription::CertificateRevoked);
}

#[tokio::test]
async fn an_authority_goes_while_one_whom_it_vouched_for_is_connected() {
    let (place, config) = over_faults("");
    let old = Authority::new("clients of before");
    place.write("clients.pem", &(place.clients.pem() + &old.pem()));
    let pair = client().dns("billing").signed_by(&old);
    withdrawn(&place, &config, "an authority removed", &pair, || {
        place.write("clients.pem", &place.clients.pem());
    })
    .await
    .is_refused_with(AlertDescription::UnknownCA);
}

#[tokio::test]
async fn a_principal_is_removed_while_it_is_connected() {
    let (place, config) = over_faults("");
    let pair = shown(&place, "billing");
    let billing = principal(BILLING, "billing", Some("caller.json"));
    let without = config.replace(&billing, "");
    assert_ne!(without, config);
    withdrawn(&place, &config, "a principal removed", &pair, || {
        place.write("hsmac.toml", &without);
    })
    .await
    .is_nobody();
}

/// A place over the fault token, and its configuration.
fn over_faults(tls: &str) -> (Place, String) {
    let member = Member::new("primary");
    let faults: Vec<String> = member
        .token
        .fault_environment()
        .iter()
        .map(|(name, value)| format!("{name} = \"{}\", ", value.display()))
        .collect();
    let module = member.token.module().display().to_string();
    let place = Place::new(member.token);
    let config = config(&place, tls)
        .replace(&module, &fault_module().display().to_string())
        .replace("env = { ", &format!("env = {{ {}", faults.concat()));
    (place, config)
}

/// How a caller is met who comes again after something was taken away from it.
struct Afterwards {
    handshake: Result<(), rustls::Error>,
    /// The last of its calls.
    said: Status,
}

impl Afterwards {
    fn is_refused_with(&self, alert: AlertDescription) {
        let handshake = self.handshake.as_ref().unwrap_err();
        assert_eq!(*handshake, rustls::Error::AlertReceived(alert));
        assert!(self.said.source().is_some(), "{:?}", self.said);
    }

    fn is_nobody(&self) {
        self.handshake.as_ref().unwrap();
        assert_nobody(&self.said);
    }
}

fn assert_nobody(status: &Status) {
    let says = "stands for no principal";
    assert_status(status, Code::Unauthenticated, "UNRECOGNIZED_CLIENT", says);
}

/// Takes something away from a caller that is connected four times. What is being answered is
/// answered; no call that begins after the reload is; who only sits there is let go in order.
async fn withdrawn(
    place: &Place,
    config: &str,
    drill: &str,
    pair: &Pair,
    change: impl Fn(),
) -> Afterwards {
    let running = place.serve(config).await;
    let steady = Steady::start(place, &running).await;
    let billing = running.client(Some(pair));
    let sits = idle(&billing).await;
    let asks = Asking::start(&billing).await;
    let mut quiet = billing.mac().await;
    quiet.generate_mac(request(b"x")).await.unwrap();

    // "wait", in the token when the reload comes.
    place
        .token
        .rules("hang C_Sign when-message-contains 77616974");
    let mut busy = billing.mac().await;
    let in_flight = tokio::spawn(async move {
        let mut request = Request::new(request(b"wait"));
        request.set_timeout(LIMIT);
        busy.generate_mac(request).await
    });
    until("a call in the token", || {
        let log = fs::read_to_string(place.token.path("fault.log")).unwrap();
        log.contains("C_Sign hang").then_some(())
    })
    .await;

    let asked = Instant::now();
    change();
    let took = hang_up(&running, RELOADED).await;
    let reloaded = Instant::now();
    let status = quiet.generate_mac(request(b"x")).await.unwrap_err();
    if status.source().is_none() {
        assert_nobody(&status);
    }
    let ended = timeout(LIMIT, sits)
        .await
        .expect("it is not let go")
        .unwrap();
    ended.unwrap_or_else(|error| panic!("not in order: {error:?}"));
    assert!(!in_flight.is_finished(), "it was not waited for");
    place.token.rules("");
    let mac = in_flight.await.unwrap().unwrap().into_inner().mac;
    assert_eq!(mac, hmac_sha256(&KEY, b"wait"));
    let said = asks.end(asked, reloaded).await;
    println!("{drill}: {said:?}");
    let handshake = billing.greet().await;
    steady.end(drill, &[took], &running).await;
    Afterwards { handshake, said }
}

/// A connection on which nothing is asked, until its end: whether it ended in order.
async fn idle(client: &Client) -> JoinHandle<hyper::Result<()>> {
    let stream = TokioIo::new(client.connect().await.unwrap());
    let (sender, connection) = http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(async move {
        let ended = connection.await;
        drop(sender);
        ended
    })
}

/// Somebody who asks again and again.
struct Asking {
    /// Set when it may stop: after a call that began later than this.
    reloaded: Arc<OnceLock<Instant>>,
    /// When each call began and ended, and why it failed if it did.
    calls: JoinHandle<Vec<(Instant, Instant, Option<Status>)>>,
}

impl Asking {
    /// Its first call is answered when this returns.
    async fn start(client: &Client) -> Self {
        let mut macs = client.mac().await;
        let began = Instant::now();
        macs.generate_mac(request(b"x")).await.unwrap();
        let mut calls = vec![(began, Instant::now(), None)];
        let reloaded = Arc::<OnceLock<Instant>>::default();
        let until = reloaded.clone();
        let calls = tokio::spawn(async move {
            loop {
                let began = Instant::now();
                let answer = macs.generate_mac(request(b"x")).await;
                calls.push((began, Instant::now(), answer.err()));
                if until.get().is_some_and(|reloaded| began > *reloaded) {
                    return calls;
                }
            }
        });
        Self { reloaded, calls }
    }

    /// Every call before `asked` was answered, none that began after `reloaded` was; gives the last
    /// one's end.
    async fn end(self, asked: Instant, reloaded: Instant) -> Status {
        self.reloaded.set(reloaded).unwrap();
        let calls = timeout(LIMIT, self.calls).await.expect("it asks again");
        let calls = calls.unwrap();
        let (mut before, mut after) = (0, 0);
        for (began, ended, failed) in &calls {
            match failed {
                Some(status) => {
                    assert!(*ended > asked, "too early: {status:?}");
                    // The connection's end may come between, or the next handshake; and who was let in
                    // before the reload may be judged after it, when its policies have gone with it.
                    let between = *began < reloaded && status.code() == Code::PermissionDenied;
                    if status.source().is_none() && !between {
                        assert_nobody(status);
                    }
                    after += 1;
                }
                None => {
                    assert!(*began < reloaded, "a MAC for whom nobody knows any more");
                    before += 1;
                }
            }
        }
        println!("{before} calls before, {after} refused after");
        calls.into_iter().last().unwrap().2.unwrap()
    }
}

/// The rights of who is connected change, and its connection stays.
#[tokio::test]
async fn a_policy_changes_while_its_principal_is_connected() {
    let place = place();
    place.write("own.json", ALLOW);
    let billing = principal(BILLING, "billing", Some("own.json"));
    let running = place.serve(&config_with(&place, "", &billing)).await;
    let steady = Steady::start(&place, &running).await;
    let billing = running.client(Some(&shown(&place, "billing")));
    let mut macs = billing.mac().await;
    let mut took = Vec::new();
    for _ in 0..3 {
        macs.generate_mac(request(b"x")).await.unwrap();
        place.write("own.json", &ALLOW.replace("Allow", "Deny"));
        took.push(hang_up(&running, RELOADED).await);
        let status = macs.generate_mac(request(b"x")).await.unwrap_err();
        let says = "with an explicit deny in an identity-based policy";
        assert_status(&status, Code::PermissionDenied, "ACCESS_DENIED", says);

        // What is no policy changes nothing.
        place.write("own.json", &ALLOW.replace("kms:*", "kms:${x}"));
        hang_up(&running, NOT_RELOADED).await;
        let status = macs.generate_mac(request(b"x")).await.unwrap_err();
        assert_status(&status, Code::PermissionDenied, "ACCESS_DENIED", says);
        place.write("own.json", ALLOW);
        took.push(hang_up(&running, RELOADED).await);
    }
    macs.generate_mac(request(b"x")).await.unwrap();
    assert_eq!(billing.connections.load(Ordering::Relaxed), 1);
    steady.end("a policy changed", &took, &running).await;
}

const ALLOW: &str = r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*"}}"#;

/// Security: a certificate's end is the end of its connection.
#[tokio::test]
async fn a_certificate_ends_while_its_holder_is_connected() {
    let place = place();
    let running = place.serve(&config(&place, "")).await;
    let steady = Steady::start(&place, &running).await;
    let began = Instant::now();
    let lasting = client().dns("billing").lasting(Duration::from_secs(6));
    let billing = running.client(Some(&lasting.signed_by(&place.clients)));
    let mut macs = billing.mac().await;
    macs.generate_mac(request(b"x")).await.unwrap();
    let sits = idle(&billing).await;
    let ended = timeout(LIMIT, sits)
        .await
        .expect("it is not let go")
        .unwrap();
    ended.unwrap();
    let lasted = began.elapsed();
    println!("a connection whose certificate was good for 6 s lasted {lasted:.1?}");
    // A certificate's times are whole seconds.
    assert!(lasted > Duration::from_secs(4), "{lasted:?}");
    let status = macs.generate_mac(request(b"x")).await.unwrap_err();
    // Its own connection may be there still, and say so; a new one is not let in.
    if status.source().is_none() {
        let says = "The caller's certificate ended at ";
        assert_status(&status, Code::Unauthenticated, "UNRECOGNIZED_CLIENT", says);
    }
    let expired = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
    assert_eq!(billing.greet().await.unwrap_err(), expired);
    steady.end("a certificate's end", &[], &running).await;
}
