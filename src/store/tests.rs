//! What all engines share. How an engine behaves is in `tests/engines`.

use super::{
    Change, Changes, CommitFault, Committed, Expect, Fault, Name, Prefix, Record, Revision, Store,
    WatchFault, history::History,
};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn names_are_visible_ascii_and_prefixes_end_with_a_slash() {
    for good in ["clock", "key/1/a", "alias/1/alias/a//b/", &"x".repeat(1024)] {
        assert_eq!(name(good).as_str(), good);
    }
    for bad in ["", "a b", "a\n", "ä", "a\0", &"x".repeat(1025)] {
        assert!(Name::new(bad).is_err(), "{bad:?}");
    }
    assert!(Prefix::new("key/1/").unwrap().covers(&name("key/1/a")));
    assert!(!Prefix::new("key/1/").unwrap().covers(&name("key/11/a")));
    assert!(Prefix::all().covers(&name("clock")));
    for bad in ["key", "key/1", "ä/", "a b/"] {
        assert!(Prefix::new(bad).is_err(), "{bad:?}");
    }
}

fn written(revision: u64, records: usize) -> Committed {
    let record = |number: usize| Record {
        name: name(&format!("a/{number}")),
        value: "v".into(),
        revision: Revision(revision),
    };
    Committed {
        revision: Revision(revision),
        puts: (0..records).map(record).collect(),
        deletes: Vec::new(),
    }
}

async fn revisions(changes: &mut Changes, count: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(changes.next().await.unwrap().revision.0);
    }
    seen
}

#[tokio::test]
async fn a_watcher_gets_every_change_or_is_told_to_list_again() {
    let history = History::after(Revision(10));
    assert_eq!(
        history.watch(Revision(9)).unwrap_err(),
        WatchFault::TooOld,
        "before the history begins"
    );
    assert_eq!(
        history.watch(Revision(11)).unwrap_err(),
        WatchFault::TooOld,
        "of another store"
    );
    let mut fast = history.watch(Revision(10)).unwrap();
    let mut slow = history.watch(Revision(10)).unwrap();
    history.publish(written(11, 1));
    history.publish(written(12, 1));
    assert_eq!(revisions(&mut fast, 2).await, [11, 12]);

    history.publish(written(13, 4095));
    assert_eq!(revisions(&mut fast, 1).await, [13]);
    assert_eq!(slow.next().await, Err(WatchFault::TooOld), "11 is gone");
    let mut late = history.watch(Revision(11)).unwrap();
    assert_eq!(revisions(&mut late, 2).await, [12, 13]);

    history.publish(written(14, 10_000));
    assert_eq!(revisions(&mut fast, 1).await, [14], "the last one is kept");

    history.reset(Revision(14));
    assert!(history.watch(Revision(14)).is_ok());
    assert_eq!(late.next().await, Err(WatchFault::TooOld));
}

#[tokio::test]
async fn a_waiting_watcher_is_woken() {
    let store = Store::memory();
    let mut changes = store.watch(Revision(0)).await.unwrap();
    let watcher = tokio::spawn(async move { (changes.next().await, changes.next().await) });
    tokio::task::yield_now().await;
    let change = Change::new().put(name("a"), "1", Expect::Absent);
    assert_eq!(store.commit(change).await, Ok(Revision(1)));
    tokio::task::yield_now().await;
    store.close().await;
    let (first, end) = watcher.await.unwrap();
    assert_eq!(first.unwrap().puts[0].name, name("a"));
    assert_eq!(end, Err(WatchFault::Store(Fault::Closed)));
    assert_eq!(store.read(&name("a")).await, Err(Fault::Closed));
    assert_eq!(
        store.commit(Change::new()).await,
        Err(CommitFault::Store(Fault::Closed))
    );
}

#[tokio::test]
async fn a_commit_with_a_stale_expectation_writes_nothing() {
    let store = Store::memory();
    let put = |expect| {
        Change::new()
            .put(name("b"), "2", Expect::Any)
            .put(name("a"), "1", expect)
    };
    assert_eq!(store.commit(put(Expect::Absent)).await, Ok(Revision(1)));
    for expect in [
        Expect::Absent,
        Expect::At(Revision(0)),
        Expect::At(Revision(2)),
    ] {
        assert_eq!(
            store.commit(put(expect)).await,
            Err(CommitFault::Stale { name: name("a") })
        );
    }
    assert_eq!(store.revision().await, Ok(Revision(1)));
    assert_eq!(
        store.commit(put(Expect::At(Revision(1)))).await,
        Ok(Revision(2))
    );
    let nothing = Change::new()
        .require(name("a"), Expect::At(Revision(2)))
        .delete(name("c"), Expect::Absent);
    assert_eq!(store.commit(nothing).await, Ok(Revision(2)));
}
