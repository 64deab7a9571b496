//! The operations without a token: what the catalogue and the store decide.

pub(crate) mod authorization;
mod generated;
mod grants;
mod key_states;
mod lifecycle_simulation;
mod simulate;
mod stored_keys;
mod writers;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    catalogue::{
        stored::{self, StoredAlias, StoredKey, StoredLocator, StoredState, UsedBy},
        tests::{ACCOUNT, DISABLED, FIRST, caller, policy, settings, settings_with},
    },
    errors::from_key,
    tools::NEW_KEY_ID,
    *,
};
use crate::{
    error::{Error, Kind},
    model::{
        Caller, Date, Grant, GrantId, GrantOperations, GrantPrincipal, KeySpec, KeyUsage,
        Operation, Origin,
    },
    store::{Change, Expect, Name, Store},
    token::Fault,
};

/// The operations with a catalogue and no token: all that is decided before a token is asked.
pub(crate) fn without_tokens() -> Arc<Kms> {
    Arc::new(Kms::with_groups(settings(), &["a".into(), "b".into()], Vec::new()).unwrap())
}

/// Of keys that the store has.
pub(super) const ONE: &str = "a234abcd-12ab-34cd-56ef-1234567890ab";
pub(super) const TWO: &str = "b234abcd-12ab-34cd-56ef-1234567890ab";

/// The operations over a store, without a token.
async fn over(store: &Store) -> Arc<Kms> {
    bare().over_store(store.clone()).await.unwrap()
}

fn bare() -> Kms {
    Kms::with_groups(settings(), &["a".into(), "b".into()], Vec::new()).unwrap()
}

/// A key as creation leaves it.
fn stored_key(key_id: &str, state: StoredState) -> StoredKey {
    StoredKey {
        policy_principals: BTreeMap::new(),
        key_id: key_id.parse().unwrap(),
        account: ACCOUNT.parse().unwrap(),
        spec: KeySpec::Hmac256,
        origin: Origin::AwsKms,
        state,
        description: Default::default(),
        created: Some(Date::of_millis(1_700_000_000_123)),
        tags: Default::default(),
        policy: String::new(),
        check_value: None,
        locator: StoredLocator {
            token: "a".into(),
            cka_id: Some(vec![1; 16]),
            label: None,
        },
        epoch: 0,
    }
}

async fn seed(store: &Store, key: &StoredKey) {
    let name = stored::key_name(&key.account, &key.key_id);
    write(store, name, stored::write(key)).await;
}

/// A grant on the key ONE, made by its account.
async fn seed_grant(store: &Store, number: u8, grantee: &str, operations: &[&str]) {
    let grant = Grant {
        name: None,
        grantee: GrantPrincipal {
            arn: grantee.into(),
            id: None,
        },
        retiring: None,
        operations: GrantOperations::named(operations.iter().copied()).unwrap(),
        source_arn: None,
        issuer: ACCOUNT.parse().unwrap(),
        parent: None,
        created: Date::now(),
    };
    let (account, key_id) = (ACCOUNT.parse().unwrap(), ONE.parse().unwrap());
    let name = stored::grant_name(&account, &key_id, &GrantId::new([number; 32]));
    write(store, name, stored::write(&grant)).await;
}

fn grant_id(number: u8) -> String {
    GrantId::new([number; 32]).to_string()
}

async fn write(store: &Store, name: Name, value: Vec<u8>) {
    let change = Change::new().put(name, value, Expect::Any);
    store.commit(change).await.unwrap();
}

/// A request for a key, as short as it may be.
fn new_hmac_key() -> CreateKey {
    CreateKey {
        policy: None,
        bypass_policy_lockout_safety_check: false,
        description: None,
        key_usage: EnumMember::Known(KeyUsage::GenerateVerifyMac),
        key_spec: EnumMember::Known(KeySpec::Hmac256),
        customer_master_key_spec: EnumMember::Absent,
        custom_key_store_id: None,
        xks_key_id: None,
        origin: EnumMember::Absent,
        tags: Vec::new(),
        multi_region: false,
    }
}

/// Far enough away for a test.
fn soon() -> std::time::Instant {
    std::time::Instant::now() + Duration::from_secs(60)
}

fn arn(key_id: &str) -> String {
    format!("arn:aws:kms:us-west-2:{ACCOUNT}:key/{key_id}")
}

#[test]
fn faults_of_the_token_keep_their_words_in_the_cause() {
    let kms = without_tokens();
    let record = &kms.catalogue.any();
    for (fault, kind) in [
        (Fault::Saturated("CKR_X".into()), Kind::Throttling),
        (Fault::Deadline("CKR_X".into()), Kind::DependencyTimeout),
        (Fault::Unknown("CKR_X".into()), Kind::DependencyTimeout),
        (Fault::Unavailable("CKR_X".into()), Kind::KeyUnavailable),
        (Fault::Key("CKR_X".into()), Kind::InvalidState),
        (Fault::Message("CKR_X".into()), Kind::Validation),
        (
            Fault::Unsupported("CKR_X".into()),
            Kind::UnsupportedOperation,
        ),
        (Fault::Internal("CKR_X".into()), Kind::Internal),
    ] {
        let cause = fault.to_string();
        let error = from_key(fault, &record.arn);
        assert_eq!(error.kind(), kind);
        assert!(
            !error.say().contains("CKR") && !error.say().is_empty(),
            "{error}"
        );
        assert_eq!(error.cause().unwrap().to_string(), cause);
        assert_eq!(error.pause().is_some(), kind == Kind::Throttling);
    }
}

#[test]
fn new_keys_must_name_a_token() {
    let named = Settings {
        new_keys: Some("c".into()),
        ..settings()
    };
    let fault = Kms::with_groups(named, &["a".into(), "b".into()], Vec::new())
        .err()
        .unwrap();
    assert!(fault.contains("\"c\""), "{fault}");
}
