//! One caller has a thousand calls in flight; ten others, who have one each, hardly notice.

use tokio::time::timeout;

use super::*;
use crate::support::{
    pki::client,
    tls::{Client, Place, Running, principal},
};

/// So many calls of the greedy caller are in flight.
const CROWD: usize = 1000;
const MODEST: usize = 10;

fn arn(name: &str) -> String {
    format!("arn:aws:iam::111122223333:user/{name}")
}

/// A server for the greedy caller and the modest ones, each with a certificate of its own.
fn config(place: &Place, token: &str) -> String {
    let mut principals = principal(&arn("greedy"), "greedy", Some("caller.json"));
    for number in 0..MODEST {
        let name = format!("modest-{number}");
        principals += &principal(&arn(&name), &name, Some("caller.json"));
    }
    let key = declare(KEY_ID, "mac", "HMAC_256", "alias/test");
    let config = place.config("", "");
    let (head, _) = config.split_once("[token.primary]").unwrap();
    format!("{head}{token}{principals}{key}")
}

fn known(place: &Place, running: &Running<'_>, name: &str) -> Client {
    running.client(Some(&client().dns(name).signed_by(&place.clients)))
}

/// What the modest callers met with: how long each call took, and how many calls of the greedy one were
/// answered meanwhile. Both sorted.
async fn ask(
    place: &Place,
    running: &Running<'_>,
    greedy: &Arc<AtomicU64>,
) -> (Vec<Duration>, Vec<u64>) {
    let time = Duration::from_secs(if long() { 20 } else { 3 });
    let mut callers = JoinSet::new();
    for number in 0..MODEST {
        let mut mac = known(place, running, &format!("modest-{number}"))
            .mac()
            .await;
        let greedy = Arc::clone(greedy);
        callers.spawn(async move {
            let (began, mut seen) = (Instant::now(), Vec::new());
            while began.elapsed() < time {
                let (asked, before) = (Instant::now(), greedy.load(Ordering::Relaxed));
                let message = (seen.len() as u64).to_be_bytes();
                let made = mac.generate_mac(request(&message)).await;
                let made = made.unwrap_or_else(|status| panic!("{}", said(&status)));
                assert_eq!(made.into_inner().mac, hmac_sha256(&KEY, &message));
                seen.push((asked.elapsed(), greedy.load(Ordering::Relaxed) - before));
            }
            seen
        });
    }
    let seen: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    let (mut took, mut beside): (Vec<_>, Vec<_>) = seen.into_iter().unzip();
    took.sort_unstable();
    beside.sort_unstable();
    (took, beside)
}

/// Prints what ten modest callers meet with alone and beside a greedy one; none of their calls may fail. Gives
/// how many of the greedy one's calls are typically answered during one of theirs.
async fn drill(what: &str, token: Token, section: &str, patience: Duration) -> u64 {
    let place = Place::new(token);
    let running = place.serve(&config(&place, section)).await;
    let answered = Arc::<AtomicU64>::default();
    let (alone, _) = ask(&place, &running, &answered).await;
    let ended = Arc::<AtomicBool>::default();
    let greedy = known(&place, &running, "greedy");
    // On a thread of its own: the modest callers must not wait for the crowd in this process.
    let crowd = {
        let (ended, answered) = (ended.clone(), answered.clone());
        std::thread::spawn(move || crowd(&greedy, patience, &ended, &answered))
    };
    until("the crowd to be served", || {
        (answered.load(Ordering::Relaxed) > CROWD as u64).then_some(())
    })
    .await;
    let (beside, before) = ask(&place, &running, &answered).await;
    ended.store(true, Ordering::Relaxed);
    crowd.join().unwrap();
    let of = |sorted: &[Duration], percent: usize| sorted[sorted.len() * percent / 100];
    let typical = before[before.len() / 2];
    let line = format!(
        "{what}: ten modest callers alone p50 {:.1?} p99 {:.1?}, beside {CROWD} calls of another in flight p50 {:.1?} p99 {:.1?}; {typical} of its calls are answered during one of theirs, {} in one of a hundred",
        of(&alone, 50),
        of(&alone, 99),
        of(&beside, 50),
        of(&beside, 99),
        before[before.len() * 99 / 100],
    );
    println!("{line}");
    typical
}

/// A thousand calls at a time on eight connections; each is waited for so long and made again.
fn crowd(greedy: &Client, patience: Duration, ended: &Arc<AtomicBool>, answered: &Arc<AtomicU64>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut crowd = JoinSet::new();
        for _ in 0..8 {
            let mac = greedy.mac().await;
            for number in 0..CROWD / 8 {
                let (mut mac, ended, answered) = (mac.clone(), ended.clone(), answered.clone());
                crowd.spawn(async move {
                    let message = number.to_be_bytes();
                    while !ended.load(Ordering::Relaxed) {
                        let made = timeout(patience, mac.generate_mac(request(&message))).await;
                        // Of an impatient one the queue is full, and its calls alone may be refused.
                        if let Ok(Err(status)) = made
                            && patience == LIMIT
                        {
                            panic!("{}", said(&status));
                        }
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        crowd.join_all().await;
    });
}

#[tokio::test]
async fn a_thousand_calls_of_one_caller_on_a_token_of_two_milliseconds() {
    let member = Member::new("primary");
    let section = member.section("hosts = 2\nsessions = 4\n");
    member.rules("delay C_Sign 2ms");
    let typical = drill("2 ms a MAC", member.token, &section, LIMIT).await;
    // Not by time: a busy machine is slow to both.
    assert!(
        typical < CROWD as u64 / 4,
        "{typical} calls of the crowd are answered during one of theirs: they wait behind it"
    );
}

#[tokio::test]
async fn a_thousand_calls_of_one_caller_on_a_quick_token() {
    let member = Member::new("primary");
    let section = member.section("hosts = 2\nsessions = 4\n");
    // Here the processor is what they share, not the queue: what comes of it is printed.
    drill("SoftHSM2", member.token, &section, LIMIT).await;
}

/// Whoever leaves takes their place in the queue with them: no call of the others fails for it.
#[tokio::test]
async fn a_caller_who_cancels_a_thousand_calls_again_and_again() {
    let member = Member::new("primary");
    let section = member.section("hosts = 2\nsessions = 4\nqueue = 64\n");
    member.rules("delay C_Sign 2ms");
    let patience = Duration::from_millis(20);
    drill("cancelled calls", member.token, &section, patience).await;
}
