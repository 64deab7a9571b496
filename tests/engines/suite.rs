//! What every engine promises; each test runs once for each of them.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use hsmac::store::{Change, CommitFault, Expect, Fault, Prefix, Revision, Store, WatchFault};
use tokio::{sync::Barrier, time::timeout};

use crate::{Place, name, names, put};

/// Makes of each `async fn(Store)` a test for each engine.
macro_rules! each_engine {
    ($($test:ident)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::Store::memory()).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let place = super::Place::new();
                super::$test(place.open()).await;
            })*
        }
    };
}

each_engine! {
    a_closed_store_says_so
    a_watcher_sees_every_change_in_order
    an_abandoned_commit_is_made
    fifty_writers_lose_no_update
    lists_are_paged_in_order_and_within_their_prefix
    names_and_values_are_kept_as_they_are
    pages_are_complete_while_others_write
    revisions_grow_by_one_with_each_change_that_writes
    too_old_is_said
    what_is_expected_must_hold
}

async fn what_is_expected_must_hold(store: Store) {
    let commit = |change| store.commit(change);
    let stale = |text| Err(CommitFault::Stale { name: name(text) });
    assert_eq!(
        commit(put("a", "1", Expect::At(Revision(0)))).await,
        stale("a")
    );
    assert_eq!(commit(put("a", "1", Expect::Absent)).await, Ok(Revision(1)));
    assert_eq!(commit(put("a", "2", Expect::Absent)).await, stale("a"));
    assert_eq!(
        commit(put("a", "2", Expect::At(Revision(1)))).await,
        Ok(Revision(2))
    );
    assert_eq!(
        commit(put("a", "3", Expect::At(Revision(1)))).await,
        stale("a")
    );
    assert_eq!(commit(put("a", "3", Expect::Any)).await, Ok(Revision(3)));

    // Whole or not at all, and the first that does not hold is named.
    let change = |expect| {
        Change::new()
            .put(name("b"), "1", Expect::Absent)
            .delete(name("a"), Expect::At(Revision(3)))
            .require(name("c"), expect)
            .require(name("d"), expect)
    };
    assert_eq!(commit(change(Expect::At(Revision(3)))).await, stale("c"));
    assert_eq!(store.read(&name("b")).await, Ok(None));
    assert!(store.read(&name("a")).await.unwrap().is_some());
    assert_eq!(commit(change(Expect::Absent)).await, Ok(Revision(4)));
    assert_eq!(store.read(&name("a")).await, Ok(None));

    let delete = |expect| Change::new().delete(name("b"), expect);
    assert_eq!(commit(delete(Expect::At(Revision(3)))).await, stale("b"));
    assert_eq!(commit(delete(Expect::Absent)).await, stale("b"));
    assert_eq!(
        commit(delete(Expect::At(Revision(4)))).await,
        Ok(Revision(5))
    );
    assert_eq!(commit(delete(Expect::At(Revision(4)))).await, stale("b"));
    assert_eq!(store.list(&Prefix::all(), None, 10).await, Ok(vec![]));
}

async fn revisions_grow_by_one_with_each_change_that_writes(store: Store) {
    assert_eq!(store.revision().await, Ok(Revision(0)));
    assert_eq!(store.commit(Change::new()).await, Ok(Revision(0)));
    let nothing = Change::new()
        .require(name("a"), Expect::Absent)
        .delete(name("a"), Expect::Any);
    assert_eq!(store.commit(nothing).await, Ok(Revision(0)));
    let two = put("a", "1", Expect::Any).put(name("b"), "1", Expect::Any);
    assert_eq!(store.commit(two).await, Ok(Revision(1)));
    assert_eq!(store.revision().await, Ok(Revision(1)));
    // The same value once more is a change all the same.
    assert_eq!(
        store.commit(put("a", "1", Expect::Any)).await,
        Ok(Revision(2))
    );
    for (text, revision) in [("a", 2), ("b", 1)] {
        let record = store.read(&name(text)).await.unwrap().unwrap();
        assert_eq!(record.revision, Revision(revision));
    }
    // Of two writes to one name the later counts.
    let twice = put("a", "2", Expect::Any).delete(name("a"), Expect::Any);
    assert_eq!(store.commit(twice).await, Ok(Revision(3)));
    assert_eq!(store.read(&name("a")).await, Ok(None));
}

async fn names_and_values_are_kept_as_they_are(store: Store) {
    let longest = "x".repeat(1024);
    let every: String = (0x21..=0x7e_u8).map(char::from).collect();
    let value: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for text in ["a", "a//b/", &longest, &every, "A", "%", "_"] {
        let change = Change::new().put(name(text), value.clone(), Expect::Absent);
        store.commit(change).await.unwrap();
        let record = store.read(&name(text)).await.unwrap().unwrap();
        assert_eq!(
            (record.name.as_str(), &record.value[..]),
            (text, &value[..])
        );
    }
    let empty = Change::new().put(name("empty"), "", Expect::Absent);
    store.commit(empty).await.unwrap();
    assert!(
        store
            .read(&name("empty"))
            .await
            .unwrap()
            .unwrap()
            .value
            .is_empty()
    );
    assert_eq!(store.read(&name("B")).await, Ok(None));
}

async fn lists_are_paged_in_order_and_within_their_prefix(store: Store) {
    let mut change = Change::new();
    for text in [
        "key/1/b",
        "key/1/a",
        "key/1/C",
        "key/1/a/x",
        "key/11/a",
        "key/0",
        "key",
        "l",
    ] {
        change = change.put(name(text), text, Expect::Absent);
    }
    store.commit(change).await.unwrap();
    let list = async |under: &str, after: Option<&str>, limit| {
        let after = after.map(name);
        let found = store
            .list(&Prefix::new(under).unwrap(), after.as_ref(), limit)
            .await;
        names(&found.unwrap()).join(" ")
    };
    assert_eq!(
        list("key/1/", None, 9).await,
        "key/1/C key/1/a key/1/a/x key/1/b"
    );
    assert_eq!(list("key/1/", None, 2).await, "key/1/C key/1/a");
    assert_eq!(
        list("key/1/", Some("key/1/a"), 2).await,
        "key/1/a/x key/1/b"
    );
    assert_eq!(
        list("key/1/", Some("key/1/a/y"), 2).await,
        "key/1/b",
        "a name that is not there"
    );
    assert_eq!(list("key/1/", Some("key/1/b"), 2).await, "");
    assert_eq!(
        list("key/1/", Some("a"), 1).await,
        "key/1/C",
        "before the prefix"
    );
    assert_eq!(list("key/1/", Some("z"), 1).await, "", "behind it");
    assert_eq!(
        list("key/", None, 9).await,
        "key/0 key/1/C key/1/a key/1/a/x key/1/b key/11/a"
    );
    assert_eq!(list("", None, 2).await, "key key/0");
    assert_eq!(list("", Some("key/11/a"), 9).await, "l");
    assert_eq!(list("", None, 0).await, "");
    assert_eq!(list("none/", None, usize::MAX).await, "");
}

async fn pages_are_complete_while_others_write(store: Store) {
    let stays = |number: usize| name(&format!("key/{number:04}/stays"));
    let mut change = Change::new();
    for number in 0..500 {
        change = change.put(stays(number), "x", Expect::Absent);
    }
    store.commit(change).await.unwrap();
    let other = store.clone();
    let writer = tokio::spawn(async move {
        for number in 0..500 {
            let comes = name(&format!("key/{:04}/comes", number * 7 % 500));
            let change = Change::new().put(comes.clone(), "x", Expect::Absent);
            other.commit(change).await.unwrap();
            if number % 2 == 0 {
                let change = Change::new().delete(comes, Expect::Any);
                other.commit(change).await.unwrap();
            }
        }
    });
    loop {
        let done = writer.is_finished();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let under = Prefix::new("key/").unwrap();
            let page = store.list(&under, after.as_ref(), 37).await.unwrap();
            after = page.last().map(|record| record.name.clone());
            let ended = page.len() < 37;
            seen.extend(page.into_iter().map(|record| record.name));
            if ended {
                break;
            }
        }
        assert!(seen.is_sorted_by(|a, b| a < b), "in order, none twice");
        let stayed: Vec<_> = seen
            .iter()
            .filter(|one| one.as_str().ends_with("stays"))
            .collect();
        assert_eq!(stayed.len(), 500);
        if done {
            break;
        }
    }
    writer.await.unwrap();
}

async fn a_watcher_sees_every_change_in_order(store: Store) {
    store.commit(put("a", "1", Expect::Any)).await.unwrap();
    let from = store.revision().await.unwrap();
    store.commit(put("b", "2", Expect::Any)).await.unwrap();
    let mut changes = store.watch(from).await.unwrap();
    let both = put("c", "3", Expect::Any)
        .delete(name("a"), Expect::Any)
        .delete(name("never"), Expect::Any)
        .put(name("b"), "3", Expect::Any);
    store.commit(both).await.unwrap();
    store
        .commit(Change::new().delete(name("a"), Expect::Any))
        .await
        .unwrap();

    let first = changes.next().await.unwrap();
    assert_eq!(
        (first.revision, names(&first.puts)),
        (Revision(2), vec!["b"])
    );
    assert_eq!(first.puts[0], {
        let mut record = store.read(&name("b")).await.unwrap().unwrap();
        (record.value, record.revision) = ("2".into(), Revision(2));
        record
    });
    let second = changes.next().await.unwrap();
    assert_eq!(
        (second.revision, names(&second.puts)),
        (Revision(3), vec!["b", "c"])
    );
    assert_eq!(second.deletes, [name("a")]);

    // Two that watch, many that write: both see all of it.
    let more = store.watch(Revision(3)).await.unwrap();
    let watchers = [changes, more].map(|mut changes| {
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 400 {
                seen.push(changes.next().await.unwrap());
            }
            seen
        })
    });
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for step in 0..50 {
                    let change = put(&format!("w/{writer}"), &step.to_string(), Expect::Any);
                    store.commit(change).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for watcher in watchers {
        let seen = timeout(Duration::from_secs(60), watcher)
            .await
            .unwrap()
            .unwrap();
        for (number, committed) in (4..).zip(&seen) {
            assert_eq!(committed.revision, Revision(number));
        }
        for writer in 0..8 {
            let own = name(&format!("w/{writer}"));
            let steps = seen.iter().flat_map(|committed| &committed.puts);
            let steps: Vec<_> = steps
                .filter(|record| record.name == own)
                .map(|record| String::from_utf8_lossy(&record.value).into_owned())
                .collect();
            assert_eq!(
                steps,
                (0..50).map(|step| step.to_string()).collect::<Vec<_>>()
            );
        }
    }
}

async fn too_old_is_said(store: Store) {
    let many = |count: usize| {
        (0..count).fold(Change::new(), |change, number| {
            change.put(name(&format!("a/{number}")), "x", Expect::Any)
        })
    };
    store.commit(many(1)).await.unwrap();
    let mut slow = store.watch(Revision(0)).await.unwrap();
    store.commit(many(10_000)).await.unwrap();
    assert_eq!(slow.next().await, Err(WatchFault::TooOld));
    assert_eq!(
        store.watch(Revision(0)).await.unwrap_err(),
        WatchFault::TooOld
    );
    let mut last = store.watch(Revision(1)).await.unwrap();
    assert_eq!(
        last.next().await.unwrap().puts.len(),
        10_000,
        "the last change is known whole"
    );
    assert_eq!(
        store.watch(Revision(3)).await.unwrap_err(),
        WatchFault::TooOld,
        "not yet written"
    );
}

async fn fifty_writers_lose_no_update(store: Store) {
    store
        .commit(put("count", "0", Expect::Absent))
        .await
        .unwrap();
    let start = Arc::new(Barrier::new(50));
    let writers: Vec<_> = (0..50)
        .map(|writer| {
            let (store, start) = (store.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                let mut stale = 0;
                // Who is first makes the record; the others are told that it exists.
                let own = put("first", &format!("{writer}"), Expect::Absent);
                let first = store.commit(own).await;
                assert!(
                    matches!(first, Ok(_) | Err(CommitFault::Stale { .. })),
                    "{first:?}"
                );
                for _ in 0..10 {
                    loop {
                        let found = store.read(&name("count")).await.unwrap().unwrap();
                        let count: u32 = String::from_utf8_lossy(&found.value).parse().unwrap();
                        let next = (count + 1).to_string();
                        let change = put("count", &next, Expect::At(found.revision));
                        match store.commit(change).await {
                            Ok(_) => break,
                            Err(CommitFault::Stale { name: which }) => {
                                assert_eq!(which, name("count"));
                                stale += 1;
                            }
                            Err(CommitFault::Store(fault)) => panic!("{fault}"),
                        }
                    }
                }
                (first.is_ok(), stale)
            })
        })
        .collect();
    let (mut firsts, mut stale) = (0, 0);
    for writer in writers {
        let (first, lost) = timeout(Duration::from_secs(120), writer)
            .await
            .unwrap()
            .unwrap();
        firsts += u32::from(first);
        stale += lost;
    }
    println!("{stale} stale changes were done again");
    assert_eq!(firsts, 1);
    let count = store.read(&name("count")).await.unwrap().unwrap();
    assert_eq!(
        (&count.value[..], store.revision().await),
        (&b"500"[..], Ok(Revision(502)))
    );
}

async fn an_abandoned_commit_is_made(store: Store) {
    for number in 0..20 {
        let change = put(&format!("a/{number}"), "x", Expect::Absent);
        let mut begun = Box::pin(store.commit(change));
        // Polled once: it has begun. Dropped: nobody waits.
        poll_once(begun.as_mut()).await;
    }
    assert_eq!(
        store.list(&Prefix::all(), None, 100).await.unwrap().len(),
        20
    );
}

async fn poll_once(mut future: Pin<&mut impl Future>) {
    poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

async fn a_closed_store_says_so(store: Store) {
    let mut changes = store.watch(Revision(0)).await.unwrap();
    let waiting = store.clone();
    let commits: Vec<_> = (0..50)
        .map(|number| put(&format!("a/{number}"), "x", Expect::Absent))
        .map(|change| {
            let store = waiting.clone();
            tokio::spawn(async move { store.commit(change).await })
        })
        .collect();
    store.close().await;
    store.close().await;
    let mut made = 0;
    for commit in commits {
        match commit.await.unwrap() {
            Ok(_) => made += 1,
            Err(fault) => assert_eq!(fault, CommitFault::Store(Fault::Closed)),
        }
    }
    for _ in 0..made {
        assert!(changes.next().await.is_ok(), "what was made is told");
    }
    assert_eq!(changes.next().await, Err(WatchFault::Store(Fault::Closed)));
    assert_eq!(store.read(&name("a/0")).await, Err(Fault::Closed));
    assert_eq!(store.revision().await, Err(Fault::Closed));
    assert_eq!(
        store.list(&Prefix::all(), None, 1).await,
        Err(Fault::Closed)
    );
    assert!(store.watch(Revision(0)).await.is_err());
}
