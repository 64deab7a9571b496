//! Many writers at once.

use tokio::task::JoinSet;

use super::*;

const WRITERS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_writers_of_one_key_lose_no_update() {
    let store = Store::memory();
    seed(&store, &stored_key(ONE, StoredState::Enabled)).await;
    let kms = over(&store).await;
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let kms = kms.clone();
        writers.spawn(async move {
            let request = TagResource {
                key_id: Some(ONE.into()),
                tags: Some(vec![(
                    Some(format!("writer {number}")),
                    Some(number.to_string()),
                )]),
            };
            kms.tag_resource(&caller(ACCOUNT), request, soon()).await?;
            // The answer came after the catalogue had it.
            let request = ListResourceTags {
                key_id: Some(ONE.into()),
                limit: None,
                marker: None,
            };
            let page = kms.list_resource_tags(&caller(ACCOUNT), &request)?;
            let own = format!("writer {number}");
            assert!(page.tags.iter().any(|tag| tag.key() == own), "{own}");
            Ok::<(), Error>(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap().unwrap();
    }
    let record = kms
        .catalogue
        .record(&ACCOUNT.parse().unwrap(), &ONE.parse().unwrap())
        .unwrap();
    assert_eq!(record.body.tags.as_slice().len(), WRITERS);
    let again = over(&store).await;
    let stored = again
        .catalogue
        .record(&ACCOUNT.parse().unwrap(), &ONE.parse().unwrap())
        .unwrap();
    assert_eq!(stored.body, record.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_that_want_one_alias_one_gets_it() {
    let store = Store::memory();
    seed(&store, &stored_key(ONE, StoredState::Enabled)).await;
    seed(&store, &stored_key(TWO, StoredState::Enabled)).await;
    let kms = over(&store).await;
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let kms = kms.clone();
        writers.spawn(async move {
            let target = if number % 2 == 0 { ONE } else { TWO };
            let request = CreateAlias {
                alias_name: Some("alias/one".into()),
                target_key_id: Some(target.into()),
            };
            let made = kms.create_alias(&caller(ACCOUNT), &request, soon()).await;
            (target, made)
        });
    }
    let mut winner = None;
    while let Some(written) = writers.join_next().await {
        match written.unwrap() {
            (target, Ok(())) => assert_eq!(winner.replace(target), None),
            (_, Err(error)) => assert_eq!(error.kind(), Kind::AlreadyExists, "{error}"),
        }
    }
    let found = kms
        .catalogue
        .resolve(&caller(ACCOUNT), Operation::DescribeKey, "alias/one")
        .unwrap();
    assert_eq!(Some(found.body.key_id.as_str()), winner);
}

/// A deletion that is scheduled while aliases are made: each alias was made before it or refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_alias_is_made_for_a_key_whose_deletion_was_scheduled_first() {
    let store = Store::memory();
    seed(&store, &stored_key(ONE, StoredState::Enabled)).await;
    let kms = over(&store).await;
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let kms = kms.clone();
        writers.spawn(async move {
            if number == WRITERS / 2 {
                let request = ScheduleKeyDeletion {
                    key_id: Some(ONE.into()),
                    pending_window_in_days: Some(7),
                };
                return kms
                    .schedule_key_deletion(&caller(ACCOUNT), &request, soon())
                    .await
                    .map(drop);
            }
            let request = CreateAlias {
                alias_name: Some(format!("alias/{number}")),
                target_key_id: Some(ONE.into()),
            };
            kms.create_alias(&caller(ACCOUNT), &request, soon()).await
        });
    }
    let mut refused = 0;
    while let Some(written) = writers.join_next().await {
        if let Err(error) = written.unwrap() {
            assert_eq!(error.kind(), Kind::InvalidState, "{error}");
            refused += 1;
        }
    }
    let key = stored::key_name(&ACCOUNT.parse().unwrap(), &ONE.parse().unwrap());
    let deletion = store.read(&key).await.unwrap().unwrap().revision;
    let prefix = crate::store::Prefix::new("alias/").unwrap();
    let aliases = store.list(&prefix, None, 1000).await.unwrap();
    assert_eq!(aliases.len() + refused, WRITERS - 1);
    assert!(aliases.iter().all(|alias| alias.revision < deletion));
}

fn id(number: usize) -> String {
    format!("{number:08x}-12ab-34cd-56ef-1234567890ab")
}

/// Many changes at once, more than the store remembers, while nobody looks.
#[tokio::test]
async fn who_falls_behind_lists_again_and_misses_nothing() {
    let store = Store::memory();
    for key_id in [ONE, TWO] {
        seed(&store, &stored_key(key_id, StoredState::Enabled)).await;
    }
    let kms = over(&store).await;
    let record = |key_id: &str| {
        kms.catalogue
            .record(&ACCOUNT.parse().unwrap(), &key_id.parse().unwrap())
    };
    let first = record(ONE).unwrap().key.clone();

    // No step of these lets the follower run, and its runtime has no other thread.
    let mut again = stored_key(ONE, StoredState::Disabled);
    seed(&store, &again).await;
    again.state = StoredState::Enabled;
    again.epoch = 1;
    seed(&store, &again).await;
    let two = stored::key_name(&ACCOUNT.parse().unwrap(), &TWO.parse().unwrap());
    let gone = Change::new().delete(two, Expect::Any);
    store.commit(gone).await.unwrap();
    for number in 0..5000 {
        seed(&store, &stored_key(&id(number), StoredState::Enabled)).await;
    }
    assert!(record(TWO).is_some(), "the follower has run");

    kms.catalogue.reached(store.revision().await.unwrap()).await;
    assert!(!Arc::ptr_eq(&record(ONE).unwrap().key, &first));
    assert!(record(TWO).is_none());
    assert!(record(&id(0)).is_some() && record(&id(4999)).is_some());
    // And goes on from there.
    seed(&store, &stored_key(TWO, StoredState::Disabled)).await;
    kms.catalogue.reached(store.revision().await.unwrap()).await;
    assert!(record(TWO).is_some());
}

#[tokio::test]
async fn ten_thousand_keys_are_taken_in_and_listed() {
    const KEYS: usize = 10_000;
    let store = Store::memory();
    let mut change = Change::new();
    for number in 0..KEYS {
        let key = stored_key(&id(number), StoredState::Enabled);
        let name = stored::key_name(&key.account, &key.key_id);
        change = change.put(name, stored::write(&key), Expect::Absent);
    }
    store.commit(change).await.unwrap();
    let began = std::time::Instant::now();
    let kms = over(&store).await;
    println!("{KEYS} keys taken in within {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(30));
    let mut marker = None;
    let mut listed = 0;
    loop {
        let request = ListKeys {
            limit: Some(1000),
            marker,
            ..ListKeys::default()
        };
        let page = kms.list_keys(&caller(ACCOUNT), request).unwrap();
        listed += page.keys.len();
        marker = page.next_marker;
        if marker.is_none() {
            break;
        }
    }
    // And the two that are declared.
    assert_eq!(listed, KEYS + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_complete_while_keys_come() {
    let store = Store::memory();
    for number in 0..100 {
        seed(&store, &stored_key(&id(2 * number), StoredState::Enabled)).await;
    }
    let kms = over(&store).await;
    let came = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..100 {
                seed(
                    &store,
                    &stored_key(&id(2 * number + 1), StoredState::Enabled),
                )
                .await;
                tokio::task::yield_now().await;
            }
        }
    });
    let mut seen = Vec::new();
    let mut marker = None;
    loop {
        let request = ListKeys {
            limit: Some(7),
            marker,
            ..ListKeys::default()
        };
        let page = kms.list_keys(&caller(ACCOUNT), request).unwrap();
        seen.extend(page.keys.into_iter().map(|key| key.key_id.to_string()));
        marker = page.next_marker;
        if marker.is_none() {
            break;
        }
        tokio::task::yield_now().await;
    }
    came.await.unwrap();
    assert!(seen.is_sorted(), "and so none is there twice");
    assert_eq!(
        seen.iter().collect::<std::collections::BTreeSet<_>>().len(),
        seen.len()
    );
    for number in 0..100 {
        assert!(seen.contains(&id(2 * number)));
    }
}
