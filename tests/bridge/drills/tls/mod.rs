//! TLS: certificates that are wrong, clients that stall, and what changes under live connections. No
//! call of anybody else fails meanwhile.

mod handshakes;
mod reloads;
mod withdrawals;

use super::*;
use crate::support::{
    pki::{Pair, client},
    signal,
    tls::{Client, Place, Running, principal},
};

const BILLING: &str = "arn:aws:iam::111122223333:user/billing";
const STEADY: &str = "arn:aws:iam::111122223333:user/steady";

/// A place over a token with the two keys of the load.
fn place() -> Place {
    let token = Token::with_key();
    token.import("other", "02", &OTHER_KEY);
    Place::new(token)
}

/// A configuration with the two keys, and two principals: the load's, and the one whom something
/// happens to.
fn config(place: &Place, tls: &str) -> String {
    let billing = principal(BILLING, "billing", Some("caller.json"));
    config_with(place, tls, &billing)
}

fn config_with(place: &Place, tls: &str, principals: &str) -> String {
    let rest = principal(STEADY, "steady", Some("caller.json"))
        + principals
        + &declare(KEY_ID, "mac", "HMAC_256", "alias/test")
        + &declare(OTHER_ID, "other", "HMAC_256", "alias/other");
    place.config(tls, &rest).replace(
        "default_deadline = \"30s\"",
        &format!("default_deadline = \"{}ms\"", DEADLINE.as_millis()),
    )
}

fn shown(place: &Place, name: &str) -> Pair {
    client().dns(name).signed_by(&place.clients)
}

/// A load of sixteen callers, each on a connection of its own that must last.
struct Steady {
    load: Load,
    client: Client,
}

impl Steady {
    async fn start(place: &Place, running: &Running<'_>) -> Self {
        let client = running.client(Some(&shown(place, "steady")));
        let mut clients = Vec::new();
        for _ in 0..16 {
            clients.push(client.mac().await);
        }
        let load = Load::with(clients);
        load.goes_on(200).await;
        Self { load, client }
    }

    /// No call has failed, and no connection had to be made anew.
    async fn end(self, drill: &str, healed: &[Duration], running: &Running<'_>) {
        self.load.goes_on(200).await;
        let failed = self.load.end(drill, healed).await;
        assert_eq!(failed, BTreeMap::new(), "{}", running.server.log());
        assert_eq!(self.client.connections.load(Ordering::Relaxed), 16);
    }
}

/// How often the log has these words.
fn logged(running: &Running<'_>, words: &str) -> usize {
    running.server.log().matches(words).count()
}

const RELOADED: &str = " reloaded ";
const NOT_RELOADED: &str = "not reloaded: the old settings stay";

/// Asks for a reload, and waits until the log says how it went; gives how long that took.
async fn hang_up(running: &Running<'_>, words: &str) -> Duration {
    let (before, began) = (logged(running, words), Instant::now());
    signal(running.server.child.id(), "HUP");
    until_logged(running, words, before).await;
    began.elapsed()
}

async fn until_logged(running: &Running<'_>, words: &str, before: usize) {
    let began = Instant::now();
    while logged(running, words) <= before {
        let log = running.server.log();
        assert!(
            began.elapsed() < LIMIT,
            "the log has no more {words:?}:\n{log}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
