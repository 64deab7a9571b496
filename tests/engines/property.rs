//! Random changes: the engines are equal at each step, and after each reopening.

use hsmac::store::{Change, Expect, Prefix, Revision, Store};
use proptest::prelude::*;

use crate::{Place, name};

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Part>),
    Reopen,
}

/// Of eight names, so that they meet.
#[derive(Clone, Debug)]
struct Part {
    verb: Verb,
    name: u8,
    expect: Expectation,
}

#[derive(Clone, Debug)]
enum Verb {
    Delete,
    Put(Vec<u8>),
    Require,
}

#[derive(Clone, Debug)]
enum Expectation {
    Absent,
    Any,
    /// That revision, or one near it.
    Near(u64),
    /// What the record has now.
    Now,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verb = prop_oneof![
        Just(Verb::Delete),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Verb::Put),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Verb::Put),
        Just(Verb::Require),
    ];
    let expect = prop_oneof![
        2 => Just(Expectation::Absent),
        4 => Just(Expectation::Any),
        1 => (0..4_u64).prop_map(Expectation::Near),
        6 => Just(Expectation::Now),
    ];
    let part = (verb, 0..8_u8, expect).prop_map(|(verb, name, expect)| Part { verb, name, expect });
    let step = prop_oneof![
        20 => prop::collection::vec(part, 0..4).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

async fn change(parts: &[Part], store: &Store) -> Change {
    let latest = store.revision().await.unwrap().0;
    let mut change = Change::new();
    for part in parts {
        let which = name(&format!("n/{}", part.name));
        let expect = match part.expect {
            Expectation::Absent => Expect::Absent,
            Expectation::Any => Expect::Any,
            Expectation::Near(back) => Expect::At(Revision(latest.saturating_sub(back))),
            Expectation::Now => match store.read(&which).await.unwrap() {
                Some(record) => Expect::At(record.revision),
                None => Expect::Absent,
            },
        };
        change = match &part.verb {
            Verb::Delete => change.delete(which, expect),
            Verb::Put(value) => change.put(which, value.clone(), expect),
            Verb::Require => change.require(which, expect),
        };
    }
    change
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_engines_are_equal_at_each_step(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let place = Place::new();
            let (memory, mut sqlite) = (Store::memory(), place.open());
            let mut told = memory.watch(Revision(0)).await.unwrap();
            let mut told_too = sqlite.watch(Revision(0)).await.unwrap();
            let mut seen = Revision(0);
            for step in steps {
                match step {
                    Step::Commit(parts) => {
                        let change = change(&parts, &memory).await;
                        let outcome = memory.commit(change.clone()).await;
                        prop_assert_eq!(&outcome, &sqlite.commit(change).await);
                        if outcome.as_ref().is_ok_and(|revision| *revision > seen) {
                            seen = outcome.unwrap();
                            prop_assert_eq!(told.next().await, told_too.next().await);
                        }
                    }
                    Step::Reopen => {
                        sqlite.close().await;
                        sqlite = place.open();
                        told_too = sqlite.watch(seen).await.unwrap();
                    }
                }
                let all = memory.list(&Prefix::all(), None, usize::MAX).await;
                prop_assert_eq!(all, sqlite.list(&Prefix::all(), None, usize::MAX).await);
                prop_assert_eq!(memory.revision().await, sqlite.revision().await);
            }
            Ok(())
        })?;
    }
}
