//! Limits on a clock that tests can move, and on the real one.

use std::{num::NonZeroU32, thread, time::Instant};

use governor::clock::FakeRelativeClock;

use super::*;

const BILLING: &str = "arn:aws:iam::111122223333:user/billing";
const BATCH: &str = "arn:aws:iam::111122223333:role/batch";

fn settings(text: &str) -> LimitsSettings {
    serde_json::from_str(text).unwrap()
}

/// Limits in force for both principals, and the two.
fn limits(text: &str) -> (Limits, Caller, Caller) {
    let limits = Limits::default();
    reload(&limits, text);
    let of = |arn: &str| limits.table.load().in_flow(Caller::parse(arn).unwrap());
    let (billing, batch) = (of(BILLING), of(BATCH));
    (limits, billing, batch)
}

fn reload(limits: &Limits, text: &str) {
    let table = limits.prepare(&settings(text), [BILLING, BATCH, BILLING].into_iter());
    limits.replace(table);
}

fn pause(refused: Result<CallPermit, Error>) -> Duration {
    let refused = refused.err().unwrap();
    assert_eq!(refused.kind(), Kind::Throttling);
    assert!(refused.say().starts_with("You have exceeded the rate"));
    refused.pause().unwrap()
}

#[test]
fn each_principal_is_over_its_own_rate_alone_and_by_quota() {
    let text = r#"{"default": {"rates": {"create_key": {"rate": 1, "per": "100s", "burst": 2}}}}"#;
    let (limits, billing, batch) = limits(text);
    let create = Quota::try_from("create_key".to_owned()).unwrap();
    for _ in 0..2 {
        let _ = limits.admit(&billing, create).unwrap();
    }
    let wait = pause(limits.admit(&billing, create));
    assert!(
        wait > Duration::from_secs(99) && wait <= Duration::from_secs(100),
        "{wait:?}"
    );
    let _ = limits.admit(&batch, create).unwrap();
    let _ = limits.admit(&billing, Quota::SYMMETRIC).unwrap();
    let seen = limits.snapshot();
    let throttled: Vec<_> = seen
        .throttled
        .iter()
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(throttled, [&("create_key", 1)]);
    let of: Vec<_> = seen
        .principals
        .iter()
        .map(|one| (one.arn.as_str(), one.quota, one.count))
        .collect();
    assert_eq!(of, [(BILLING, "create_key", 1)]);
}

#[test]
fn a_caller_who_waits_as_long_as_told_is_admitted() {
    let clock = FakeRelativeClock::default();
    for (rate, per, burst) in [
        (5, 1, None),
        (1, 4, None),
        (999, 1, Some(7)),
        (7, 3600, Some(1_000_000)),
        (1_000_000, 1, Some(1)),
    ] {
        let rate = Rate {
            rate,
            per: Duration::from_secs(per),
            burst: burst.and_then(NonZeroU32::new),
        };
        let limiter = limiter(rate, clock.clone()).unwrap();
        while wait(&limiter, &clock).is_none() {}
        for _ in 0..20 {
            let told = wait(&limiter, &clock).unwrap();
            clock.advance(told);
            assert_eq!(
                wait(&limiter, &clock),
                None,
                "{rate:?}: {told:?} was too short"
            );
            assert!(wait(&limiter, &clock).is_some());
        }
    }
}

#[test]
fn over_a_long_time_as_many_calls_are_admitted_as_the_rate_says() {
    let clock = FakeRelativeClock::default();
    for (calls, burst) in [(5, 1_u32), (100, 100), (10_000, 20_000), (333_333, 300)] {
        let rate = Rate {
            rate: calls,
            per: Duration::from_secs(1),
            burst: NonZeroU32::new(burst),
        };
        let limiter = limiter(rate, clock.clone()).unwrap();
        let mut admitted = 0;
        for _ in 0..20_000 {
            clock.advance(Duration::from_micros(500));
            admitted += (0..400)
                .take_while(|_| wait(&limiter, &clock).is_none())
                .count();
        }
        let wanted = f64::from(calls) * 10.0 + f64::from(burst);
        let off = (admitted as f64 - wanted).abs();
        assert!(
            off <= 1.0 + wanted / 100.0,
            "{admitted} in ten seconds, of {wanted}"
        );
    }
}

#[test]
fn the_rate_holds_on_the_real_clock_and_many_threads() {
    let text = r#"{"default": {"rates": {"cryptographic_operations_symmetric": {"rate": 2000, "burst": 4000}}}}"#;
    let (limits, billing, _) = limits(text);
    let (began, ends) = (Instant::now(), Duration::from_millis(1500));
    // What was let in, and since when it is known that no more could be.
    let count = || {
        let (mut admitted, mut refused) = (0_u32, Duration::ZERO);
        while began.elapsed() < ends {
            let now = began.elapsed();
            match limits.admit(&billing, Quota::SYMMETRIC) {
                Ok(_permit) => admitted += 1,
                Err(_) => refused = now,
            }
        }
        (admitted, refused)
    };
    let counts: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        let counts = threads.into_iter().map(|thread| thread.join().unwrap());
        counts.collect()
    });
    let admitted: u32 = counts.iter().map(|(admitted, _)| admitted).sum();
    let until = counts.iter().map(|(_, refused)| *refused).max().unwrap();
    let wanted = 4000.0 + 2000.0 * until.as_secs_f64();
    let off = (f64::from(admitted) - wanted).abs() / wanted;
    assert!(off < 0.05, "{admitted} were admitted, of {wanted}");
}

#[test]
fn calls_at_a_time_are_counted_until_they_are_answered() {
    let own = format!(r#"{{"arn": "{BATCH}", "concurrent": 0}}"#);
    let text = format!(r#"{{"principal": [{own}], "default": {{"concurrent": 2}}}}"#);
    let (limits, billing, batch) = limits(&text);
    let held: Vec<_> = (0..2)
        .map(|_| limits.admit(&billing, Quota::SYMMETRIC).unwrap())
        .collect();
    assert_eq!(
        pause(limits.admit(&billing, Quota::SYMMETRIC)),
        CONCURRENT_PAUSE
    );
    assert!(
        limits.admit(&billing, Quota::OTHER).is_err(),
        "whatever they are"
    );
    let free: Result<Vec<_>, _> = (0..100)
        .map(|_| limits.admit(&batch, Quota::SYMMETRIC))
        .collect();
    assert!(free.is_ok());
    // A reload forgets no call that is under way.
    reload(&limits, r#"{"default": {"concurrent": 1}}"#);
    drop(held);
    let one = limits.admit(&billing, Quota::SYMMETRIC).unwrap();
    assert!(limits.admit(&billing, Quota::SYMMETRIC).is_err());
    drop(one);
    assert!(limits.admit(&billing, Quota::SYMMETRIC).is_ok());
}

#[test]
fn a_reload_gives_nobody_a_burst_whose_rate_is_the_same() {
    let text = r#"{"default": {"rates": {"list_keys": {"rate": 1, "per": "100s", "burst": 3}}}}"#;
    let (limits, billing, batch) = limits(text);
    let list = Quota::try_from("list_keys".to_owned()).unwrap();
    while limits.admit(&billing, list).is_ok() {}
    reload(
        &limits,
        &text.replace("\"rates\"", "\"weight\": 7, \"rates\""),
    );
    assert!(limits.admit(&billing, list).is_err());
    let table = limits.table.load();
    let heavier = table.in_flow(billing.clone());
    assert_eq!(heavier.flow(), Flow::new(billing.flow().number(), 7));
    assert_ne!(heavier.flow().number(), batch.flow().number());
    let stranger = Caller::parse("arn:aws:iam::111122223333:user/nobody").unwrap();
    assert_eq!(table.in_flow(stranger).flow(), Flow::OWN);
    // Another rate is another beginning, and no rate is no limit.
    reload(
        &limits,
        r#"{"default": {"rates": {"list_keys": {"rate": 1, "per": "50s", "burst": 1}}}}"#,
    );
    assert!(limits.admit(&billing, list).is_ok() && limits.admit(&billing, list).is_err());
    reload(
        &limits,
        r#"{"default": {"rates": {"list_keys": {"rate": 0}}}}"#,
    );
    assert!((0..1000).all(|_| limits.admit(&billing, list).is_ok()));
}
