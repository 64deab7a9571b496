//! Keys of the store: what each operation does and says.

use super::*;
use crate::{
    model::{KeyState, KeyUsage},
    store::Restored,
};

fn id(key_id: &str) -> Option<String> {
    Some(key_id.to_owned())
}

fn told(error: &Error) -> (Kind, &str) {
    (error.kind(), error.say())
}

async fn describe(kms: &Kms, key_id: &str) -> Result<KeyMetadata, Error> {
    let request = DescribeKey {
        key_id: id(key_id),
        grant_tokens: Vec::new(),
    };
    kms.describe_key(&caller(ACCOUNT), request, soon()).await
}

async fn state(kms: &Kms, key_id: &str) -> KeyState {
    describe(kms, key_id).await.unwrap().state
}

async fn enable(kms: &Kms, key_id: &str) -> Result<(), Error> {
    let request = EnableKey { key_id: id(key_id) };
    kms.enable_key(&caller(ACCOUNT), &request, soon()).await
}

async fn disable(kms: &Kms, key_id: &str) -> Result<(), Error> {
    let request = DisableKey { key_id: id(key_id) };
    kms.disable_key(&caller(ACCOUNT), &request, soon()).await
}

async fn schedule(kms: &Kms, key_id: &str, days: Option<i64>) -> Result<DeletionScheduled, Error> {
    let request = ScheduleKeyDeletion {
        key_id: id(key_id),
        pending_window_in_days: days,
    };
    kms.schedule_key_deletion(&caller(ACCOUNT), &request, soon())
        .await
}

async fn alias(kms: &Kms, name: &str, target: &str) -> Result<(), Error> {
    let request = CreateAlias {
        alias_name: id(name),
        target_key_id: id(target),
    };
    kms.create_alias(&caller(ACCOUNT), &request, soon()).await
}

async fn tag(kms: &Kms, key_id: &str, pairs: &[(&str, &str)]) -> Result<(), Error> {
    let request = TagResource {
        key_id: id(key_id),
        tags: Some(
            pairs
                .iter()
                .map(|(key, value)| (Some((*key).into()), Some((*value).into())))
                .collect(),
        ),
    };
    kms.tag_resource(&caller(ACCOUNT), request, soon()).await
}

fn tags(kms: &Kms, limit: i64, marker: Option<String>) -> TagPage {
    let request = ListResourceTags {
        key_id: id(ONE),
        limit: Some(limit),
        marker,
    };
    kms.list_resource_tags(&caller(ACCOUNT), &request).unwrap()
}

async fn one_key(state: StoredState) -> (Store, Arc<Kms>) {
    let store = Store::memory();
    seed(&store, &stored_key(ONE, state)).await;
    let kms = over(&store).await;
    (store, kms)
}

fn epoch_and_key(kms: &Kms, key_id: &str) -> (u64, Arc<crate::token::TokenKey>) {
    let record = kms
        .catalogue
        .record(&ACCOUNT.parse().unwrap(), &key_id.parse().unwrap())
        .unwrap();
    (record.body.epoch, record.key.clone())
}

#[tokio::test]
async fn a_key_that_is_enabled_again_is_another_key_to_its_token() {
    let (_, kms) = one_key(StoredState::Enabled).await;
    let (first_epoch, first) = epoch_and_key(&kms, ONE);
    enable(&kms, ONE).await.unwrap();
    tag(&kms, ONE, &[("a", "b")]).await.unwrap();
    assert!(Arc::ptr_eq(&epoch_and_key(&kms, ONE).1, &first));

    disable(&kms, ONE).await.unwrap();
    disable(&kms, ONE).await.unwrap();
    assert_eq!(state(&kms, ONE).await, KeyState::Disabled);
    assert!(Arc::ptr_eq(&epoch_and_key(&kms, ONE).1, &first));
    enable(&kms, ONE).await.unwrap();
    let (second_epoch, second) = epoch_and_key(&kms, ONE);
    assert_eq!(second_epoch, first_epoch + 1);
    assert!(!Arc::ptr_eq(&second, &first));
    assert_eq!(state(&kms, ONE).await, KeyState::Enabled);
}

#[tokio::test]
async fn a_deletion_is_scheduled_once_and_cancelled_into_disabled() {
    let (_, kms) = one_key(StoredState::Enabled).await;
    for (days, say) in [
        (
            0,
            "1 validation error detected: Value '0' at 'pendingWindowInDays' failed to satisfy constraint: Member must have value greater than or equal to 1",
        ),
        (
            6,
            "PendingWindowInDays must be between 7 and 30 (inclusive).",
        ),
        (
            31,
            "PendingWindowInDays must be between 7 and 30 (inclusive).",
        ),
    ] {
        let error = schedule(&kms, ONE, Some(days)).await.unwrap_err();
        assert_eq!(told(&error), (Kind::Validation, say));
    }
    let began = Date::now();
    let scheduled = schedule(&kms, ONE, None).await.unwrap();
    assert_eq!(&*scheduled.key_id, arn(ONE));
    assert_eq!(scheduled.pending_window_in_days, 30);
    assert!(scheduled.deletion_date >= began.plus_days(30));
    assert!(scheduled.deletion_date <= Date::now().plus_days(30));
    let described = describe(&kms, ONE).await.unwrap();
    assert_eq!(described.state, KeyState::PendingDeletion);
    assert_eq!(described.deletion_date, Some(scheduled.deletion_date));

    let pending = format!("{} is pending deletion.", arn(ONE));
    for error in [
        schedule(&kms, ONE, Some(7)).await.unwrap_err(),
        enable(&kms, ONE).await.unwrap_err(),
        disable(&kms, ONE).await.unwrap_err(),
        alias(&kms, "alias/a", ONE).await.unwrap_err(),
        tag(&kms, ONE, &[]).await.unwrap_err(),
    ] {
        assert_eq!(told(&error), (Kind::InvalidState, pending.as_str()));
    }

    let cancel = CancelKeyDeletion { key_id: id(ONE) };
    let cancelled = kms
        .cancel_key_deletion(&caller(ACCOUNT), &cancel, soon())
        .await;
    assert_eq!(&*cancelled.unwrap(), arn(ONE));
    let described = describe(&kms, ONE).await.unwrap();
    assert_eq!(described.state, KeyState::Disabled);
    assert_eq!(described.deletion_date, None);
    let again = kms
        .cancel_key_deletion(&caller(ACCOUNT), &cancel, soon())
        .await
        .unwrap_err();
    assert_eq!(
        told(&again),
        (
            Kind::InvalidState,
            format!("{} is not pending deletion.", arn(ONE)).as_str()
        )
    );
}

#[tokio::test]
async fn an_alias_is_made_moved_and_taken_away() {
    let (store, kms) = one_key(StoredState::Enabled).await;
    seed(&store, &stored_key(TWO, StoredState::Enabled)).await;
    kms.catalogue.reached(store.revision().await.unwrap()).await;

    alias(&kms, "alias/bills", ONE).await.unwrap();
    let key_id = |described: KeyMetadata| described.key_id.to_string();
    assert_eq!(key_id(describe(&kms, "alias/bills").await.unwrap()), ONE);
    let full = format!("arn:aws:kms:us-west-2:{ACCOUNT}:alias/bills");
    assert_eq!(key_id(describe(&kms, &full).await.unwrap()), ONE);
    let error = alias(&kms, "alias/bills", TWO).await.unwrap_err();
    let exists = format!("An alias with the name {full} already exists");
    assert_eq!(told(&error), (Kind::AlreadyExists, exists.as_str()));
    let error = alias(&kms, "alias/x", "alias/bills").await.unwrap_err();
    assert_eq!(
        told(&error),
        (Kind::Validation, "Aliases must refer to keys. Not aliases")
    );

    let moved = UpdateAlias {
        alias_name: id("alias/bills"),
        target_key_id: id(&arn(TWO)),
    };
    kms.update_alias(&caller(ACCOUNT), &moved, soon())
        .await
        .unwrap();
    assert_eq!(key_id(describe(&kms, "alias/bills").await.unwrap()), TWO);
    let listed = kms
        .list_aliases(
            &caller(ACCOUNT),
            &ListAliases {
                key_id: id(TWO),
                limit: None,
                marker: None,
            },
        )
        .unwrap();
    assert_eq!(listed.aliases.len(), 1);
    assert_eq!(listed.aliases[0].arn, full);
    assert!(listed.aliases[0].created.unwrap() <= listed.aliases[0].updated.unwrap());

    let gone = DeleteAlias {
        alias_name: id("alias/bills"),
    };
    kms.delete_alias(&caller(ACCOUNT), &gone, soon())
        .await
        .unwrap();
    let not_found = format!("Alias {full} is not found.");
    for error in [
        describe(&kms, "alias/bills").await.unwrap_err(),
        kms.delete_alias(&caller(ACCOUNT), &gone, soon())
            .await
            .unwrap_err(),
        kms.update_alias(&caller(ACCOUNT), &moved, soon())
            .await
            .unwrap_err(),
    ] {
        assert_eq!(told(&error), (Kind::NotFound, not_found.as_str()));
    }
}

#[tokio::test]
async fn quotas_are_fifty_aliases_and_fifty_tags_a_key() {
    let (_, kms) = one_key(StoredState::Disabled).await;
    for number in 0..50 {
        alias(&kms, &format!("alias/{number}"), ONE).await.unwrap();
        tag(&kms, ONE, &[(&number.to_string(), "")]).await.unwrap();
    }
    let error = alias(&kms, "alias/more", ONE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::LimitExceeded);
    let error = tag(&kms, ONE, &[("more", "")]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::LimitExceeded);
    tag(&kms, ONE, &[("7", "seven")]).await.unwrap();

    // Pages of both, complete although an entry that ended a page goes meanwhile.
    let first = tags(&kms, 10, None);
    let untag = UntagResource {
        key_id: id(ONE),
        tag_keys: Some(vec!["9".into(), "is not there".into()]),
    };
    kms.untag_resource(&caller(ACCOUNT), &untag, soon())
        .await
        .unwrap();
    let second = tags(&kms, 50, first.next_marker);
    let seen: Vec<_> = first
        .tags
        .iter()
        .chain(&second.tags)
        .map(|tag| tag.key().to_owned())
        .collect();
    assert_eq!(
        seen,
        (0..50).map(|n: u32| n.to_string()).collect::<Vec<_>>()
    );
    assert_eq!(second.next_marker, None);
    assert_eq!(first.tags[7].value(), "seven");

    let mut marker = None;
    let mut names = Vec::new();
    loop {
        let page = kms
            .list_aliases(
                &caller(ACCOUNT),
                &ListAliases {
                    key_id: id(&arn(ONE)),
                    limit: Some(7),
                    marker,
                },
            )
            .unwrap();
        names.extend(page.aliases.into_iter().map(|alias| alias.name.to_string()));
        marker = page.next_marker;
        if marker.is_none() {
            break;
        }
    }
    let mut wanted: Vec<_> = (0..50).map(|n| format!("alias/{n}")).collect();
    wanted.sort();
    assert_eq!(names, wanted);
}

#[tokio::test]
async fn what_the_configuration_declares_only_it_changes() {
    let (_, kms) = one_key(StoredState::Enabled).await;
    let say =
        |name: &str| format!("{name} is declared in the configuration, which alone can change it.");
    for error in [
        enable(&kms, DISABLED).await.unwrap_err(),
        disable(&kms, DISABLED).await.unwrap_err(),
        schedule(&kms, DISABLED, None).await.unwrap_err(),
        tag(&kms, DISABLED, &[]).await.unwrap_err(),
        alias(&kms, "alias/new", DISABLED).await.unwrap_err(),
    ] {
        assert_eq!(
            told(&error),
            (Kind::UnsupportedOperation, say(&arn(DISABLED)).as_str())
        );
    }
    let moved = UpdateAlias {
        alias_name: id("alias/pay"),
        target_key_id: id(ONE),
    };
    let error = kms
        .update_alias(&caller(ACCOUNT), &moved, soon())
        .await
        .unwrap_err();
    let pay = say(&format!("arn:aws:kms:us-west-2:{ACCOUNT}:alias/pay"));
    assert_eq!(told(&error), (Kind::UnsupportedOperation, pay.as_str()));
    let error = alias(&kms, "alias/pay", ONE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::AlreadyExists);
}

#[tokio::test]
async fn without_a_store_nothing_changes_and_bad_requests_are_told_as_such() {
    let kms = without_tokens();
    for error in [
        enable(&kms, FIRST).await.unwrap_err(),
        disable(&kms, ONE).await.unwrap_err(),
        alias(&kms, "alias/new", FIRST).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::UnsupportedOperation);
        assert!(error.say().contains("has no store"), "{error}");
    }
    assert_eq!(
        disable(&kms, "").await.unwrap_err().kind(),
        Kind::Validation
    );
    assert_eq!(state(&kms, DISABLED).await, KeyState::Disabled);
}

#[tokio::test]
async fn only_key_ids_and_key_arns_name_a_key_that_is_to_change() {
    let (_, kms) = one_key(StoredState::Enabled).await;
    for name in [
        "alias/pay",
        "alias/no",
        &format!("arn:aws:kms:us-west-2:{ACCOUNT}:alias/pay"),
    ] {
        let usage = GetKeyLastUsage { key_id: id(name) };
        for error in [
            enable(&kms, name).await.unwrap_err(),
            tag(&kms, name, &[]).await.unwrap_err(),
            kms.key_last_usage(&caller(ACCOUNT), &usage).unwrap_err(),
        ] {
            assert_eq!(
                told(&error),
                (
                    Kind::InvalidArn,
                    "Key Aliases are not supported for this operation."
                )
            );
        }
    }
}

#[tokio::test]
async fn what_is_declared_and_stored_is_named_at_the_start() {
    let store = Store::memory();
    seed(&store, &stored_key(FIRST, StoredState::Enabled)).await;
    let fault = bare().over_store(store).await.err().unwrap().to_string();
    assert_eq!(fault.matches(FIRST).count(), 2, "{fault}");

    let store = Store::memory();
    let alias = StoredAlias {
        target: ONE.parse().unwrap(),
        created: Date::now(),
        updated: Date::now(),
    };
    let name = stored::alias_name(&ACCOUNT.parse().unwrap(), &"alias/pay".parse().unwrap());
    write(&store, name, stored::write(&alias)).await;
    let fault = bare().over_store(store).await.err().unwrap().to_string();
    for part in ["alias/pay", FIRST, ONE] {
        assert!(fault.contains(part), "{fault}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_makes_its_key_unavailable_and_no_other() {
    let (store, kms) = one_key(StoredState::Enabled).await;
    seed(&store, &stored_key(TWO, StoredState::Enabled)).await;
    kms.catalogue.reached(store.revision().await.unwrap()).await;
    alias(&kms, "alias/two", TWO).await.unwrap();
    let name = stored::key_name(&ACCOUNT.parse().unwrap(), &TWO.parse().unwrap());
    write(&store, name, b"{}".to_vec()).await;
    kms.catalogue.reached(store.revision().await.unwrap()).await;

    let unavailable = format!("{} is unavailable.", arn(TWO));
    for again in [kms, over(&store).await] {
        assert_eq!(state(&again, ONE).await, KeyState::Enabled);
        for error in [
            describe(&again, TWO).await.unwrap_err(),
            describe(&again, "alias/two").await.unwrap_err(),
            enable(&again, TWO).await.unwrap_err(),
        ] {
            assert_eq!(told(&error), (Kind::InvalidState, unavailable.as_str()));
        }
        let request = ListKeys {
            limit: None,
            marker: None,
            ..ListKeys::default()
        };
        let keys = again.list_keys(&caller(ACCOUNT), request).unwrap().keys;
        assert!(keys.iter().any(|key| key.key_id.as_str() == TWO));
    }
    // A record that can be read again serves again.
    seed(&store, &stored_key(TWO, StoredState::Enabled)).await;
    let mended = over(&store).await;
    assert_eq!(state(&mended, TWO).await, KeyState::Enabled);
}

#[tokio::test]
async fn after_a_restore_every_stored_key_is_disabled_until_it_is_confirmed() {
    let store = Store::memory();
    seed(&store, &stored_key(ONE, StoredState::Enabled)).await;
    seed(&store, &stored_key(TWO, StoredState::Disabled)).await;
    let mark = Restored::name();
    write(&store, mark.clone(), b"{}".to_vec()).await;
    let kms = over(&store).await;
    for key_id in [ONE, TWO] {
        assert_eq!(state(&kms, key_id).await, KeyState::Disabled);
        let error = enable(&kms, key_id).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidState);
        assert!(error.say().contains("restored from a backup"), "{error}");
    }
    assert_eq!(state(&kms, FIRST).await, KeyState::Enabled);
    let create = new_hmac_key();
    let error = kms
        .create_key(&caller(ACCOUNT), create, soon())
        .await
        .unwrap_err();
    assert!(error.say().contains("restored from a backup"), "{error}");

    let confirmed = Change::new().delete(mark, Expect::Any);
    let at = store.commit(confirmed).await.unwrap();
    kms.catalogue.reached(at).await;
    assert_eq!(state(&kms, ONE).await, KeyState::Enabled);
    assert_eq!(state(&kms, TWO).await, KeyState::Disabled);
}

#[tokio::test]
async fn a_key_that_is_being_deleted_is_gone_with_its_aliases() {
    let (store, kms) = one_key(StoredState::Enabled).await;
    alias(&kms, "alias/a", ONE).await.unwrap();
    seed(&store, &stored_key(ONE, StoredState::Deleting)).await;
    kms.catalogue.reached(store.revision().await.unwrap()).await;
    for name in [ONE, "alias/a"] {
        assert_eq!(
            describe(&kms, name).await.unwrap_err().kind(),
            Kind::NotFound
        );
    }
    let all = ListAliases {
        key_id: None,
        limit: None,
        marker: None,
    };
    let listed = kms.list_aliases(&caller(ACCOUNT), &all).unwrap().aliases;
    assert!(listed.iter().all(|alias| alias.name.as_str() != "alias/a"));
}

#[tokio::test]
async fn the_last_use_outlives_the_process_and_tracking_begins_once() {
    let (store, kms) = one_key(StoredState::Enabled).await;
    let asked = GetKeyLastUsage { key_id: id(ONE) };
    let never = kms.key_last_usage(&caller(ACCOUNT), &asked).unwrap();
    assert_eq!(never.last, None);
    assert_eq!(never.key_creation, Some(Date::of_millis(1_700_000_000_123)));

    let record = kms
        .catalogue
        .resolve(&caller(ACCOUNT), Operation::VerifyMac, ONE)
        .unwrap();
    record.last_use.note(UsedBy::VerifyMac);
    let used = kms.key_last_usage(&caller(ACCOUNT), &asked).unwrap();
    assert_eq!(used.last.unwrap().0, Operation::VerifyMac);
    // A change of the record does not lose it.
    tag(&kms, ONE, &[("a", "")]).await.unwrap();
    let again = kms.key_last_usage(&caller(ACCOUNT), &asked).unwrap();
    assert_eq!(again.last, used.last);
    kms.end().await;
    let before = store.revision().await.unwrap();
    kms.end().await;
    assert_eq!(
        store.revision().await.unwrap(),
        before,
        "it is written once"
    );

    let restarted = over(&store).await;
    let known = restarted.key_last_usage(&caller(ACCOUNT), &asked).unwrap();
    assert_eq!(known.last, used.last);
    assert_eq!(known.tracking_start, never.tracking_start);
}

#[tokio::test]
async fn create_key_s_rules_are_told_before_anything_is_made() {
    let (_, kms) = one_key(StoredState::Enabled).await;
    let good = CreateKey {
        key_spec: EnumMember::Known(KeySpec::Hmac224),
        ..new_hmac_key()
    };
    for (request, kind, say) in [
        (
            CreateKey {
                key_usage: EnumMember::Absent,
                ..good.clone()
            },
            Kind::Validation,
            "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.",
        ),
        (
            CreateKey {
                key_usage: EnumMember::Unknown("ENCRYPT_DECRYPT".into()),
                ..good.clone()
            },
            Kind::Validation,
            "KeyUsage ENCRYPT_DECRYPT is not compatible with KeySpec HMAC_224",
        ),
        (
            CreateKey {
                key_spec: EnumMember::Absent,
                ..good.clone()
            },
            Kind::Validation,
            "KeyUsage GENERATE_VERIFY_MAC is not compatible with KeySpec SYMMETRIC_DEFAULT",
        ),
        (
            CreateKey {
                key_spec: EnumMember::Absent,
                key_usage: EnumMember::Absent,
                ..good.clone()
            },
            Kind::UnsupportedOperation,
            "KeySpec SYMMETRIC_DEFAULT is not supported",
        ),
        (
            CreateKey {
                customer_master_key_spec: EnumMember::Known(KeySpec::Hmac224),
                ..good.clone()
            },
            Kind::Validation,
            "You cannot specify KeySpec and CustomerMasterKeySpec in the same request.",
        ),
        // What is in no list is told before what does not go together.
        (
            CreateKey {
                customer_master_key_spec: EnumMember::Unknown("ML_DSA_44".into()),
                ..good.clone()
            },
            Kind::Validation,
            "1 validation error detected: Value 'ML_DSA_44' at 'customerMasterKeySpec'",
        ),
        (
            CreateKey {
                custom_key_store_id: Some("cks-1".into()),
                ..good.clone()
            },
            Kind::UnsupportedOperation,
            "HMAC keys in custom key stores are not supported",
        ),
        (
            CreateKey {
                custom_key_store_id: Some(String::new()),
                xks_key_id: Some("a/b".into()),
                ..good.clone()
            },
            Kind::Validation,
            "2 validation errors detected: Value '' at 'customKeyStoreId'",
        ),
        (
            CreateKey {
                origin: EnumMember::Known(Origin::External),
                ..good.clone()
            },
            Kind::UnsupportedOperation,
            "This version of hsmac cannot import key material.",
        ),
        (
            CreateKey {
                policy: Some("{}".into()),
                ..good.clone()
            },
            Kind::MalformedPolicyDocument,
            "Policy has no Statement.",
        ),
        (
            CreateKey {
                policy: Some(POLICY_FOR_OTHERS.into()),
                ..good.clone()
            },
            Kind::MalformedPolicyDocument,
            "The new key policy will not allow you to update the key policy in the future.",
        ),
        (
            CreateKey {
                policy: Some(" ".repeat((32 << 10) + 1)),
                ..good.clone()
            },
            Kind::LimitExceeded,
            "A key policy has at most 32768 bytes; this one has 32769.",
        ),
        (
            CreateKey {
                multi_region: true,
                ..good.clone()
            },
            Kind::UnsupportedOperation,
            "hsmac has no multi-Region keys.",
        ),
        (
            CreateKey {
                description: Some("d".repeat(8193)),
                tags: vec![(Some(String::new()), Some(String::new()))],
                key_spec: EnumMember::Unknown("HMAC_random".into()),
                ..good.clone()
            },
            Kind::Validation,
            "3 validation errors detected: Value 'ddd",
        ),
    ] {
        let error = kms
            .create_key(&caller(ACCOUNT), request, soon())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.say().starts_with(say), "{error}");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_an_internal_error_with_its_cause_in_the_log() {
    let (store, kms) = one_key(StoredState::Enabled).await;
    store.close().await;
    let error = disable(&kms, ONE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.cause().unwrap().to_string().contains("closed"));
    assert!(!error.say().contains("store"), "{error}");
    // What is in memory is still told.
    assert_eq!(state(&kms, ONE).await, KeyState::Enabled);
}

/// Nobody of the account may write another one.
const POLICY_FOR_OTHERS: &str = r#"{"Statement":{"Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":"kms:*","Resource":"*"}}"#;

#[tokio::test]
async fn each_key_spec_of_kms_has_its_usages_and_is_none_of_ours() {
    const USAGES: [&str; 5] = [
        "ENCRYPT_DECRYPT",
        "SIGN_VERIFY",
        "GENERATE_VERIFY_MAC",
        "KEY_AGREEMENT",
        "ENCAPSULATE_DECAPSULATE",
    ];
    let kms = over(&Store::memory()).await;
    for (specs, fitting) in [
        (&["SYMMETRIC_DEFAULT"][..], &[0][..]),
        (&["RSA_2048", "RSA_3072", "RSA_4096"], &[0, 1]),
        (
            &["ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521"],
            &[1, 3],
        ),
        (&["ECC_SECG_P256K1", "ECC_NIST_EDWARDS25519"], &[1]),
        (&["SM2"], &[0, 1, 3]),
        (&["ML_DSA_44", "ML_DSA_65", "ML_DSA_87"], &[1]),
        (&["ML_KEM_512", "ML_KEM_768", "ML_KEM_1024"], &[4]),
    ] {
        for spec in specs {
            for (at, usage) in USAGES.into_iter().enumerate() {
                let known = (usage == "GENERATE_VERIFY_MAC").then_some(KeyUsage::GenerateVerifyMac);
                let request = CreateKey {
                    policy: None,
                    description: None,
                    key_usage: known
                        .map_or_else(|| EnumMember::Unknown(usage.into()), EnumMember::Known),
                    key_spec: EnumMember::Unknown((*spec).into()),
                    customer_master_key_spec: EnumMember::Absent,
                    custom_key_store_id: None,
                    xks_key_id: None,
                    origin: EnumMember::Absent,
                    tags: Vec::new(),
                    multi_region: false,
                    bypass_policy_lockout_safety_check: false,
                };
                let made = kms.create_key(&caller(ACCOUNT), request, soon()).await;
                let error = made.unwrap_err();
                let (kind, say) = if fitting.contains(&at) {
                    let say = format!("KeySpec {spec} is not supported");
                    (Kind::UnsupportedOperation, say)
                } else {
                    let say = format!("KeyUsage {usage} is not compatible with KeySpec {spec}");
                    (Kind::Validation, say)
                };
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.say().starts_with(&say), "{error}");
            }
        }
    }
}
