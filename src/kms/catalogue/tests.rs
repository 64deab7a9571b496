//! The catalogue of declared keys, and what other tests of the room build on.

use super::{
    super::{
        principals::PrincipalPolicies,
        settings::{DeclaredKey, DeclaredRights, Settings},
    },
    *,
};
use crate::model::{KeySpec, PrincipalAttributes, policy::PolicyKind};

pub(in crate::kms) const ACCOUNT: &str = "111122223333";
pub(in crate::kms) const FIRST: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
pub(in crate::kms) const DISABLED: &str = "2234abcd-12ab-34cd-56ef-1234567890ab";
const MISSING: &str = "9234abcd-12ab-34cd-56ef-1234567890ab";

/// Two tokens, `a` and `b`; an HMAC_256 key with two aliases, a disabled HMAC_512 key.
pub(in crate::kms) fn settings() -> Settings {
    settings_with(vec![PrincipalPolicies {
        attributes: PrincipalAttributes::default(),
        caller: caller(ACCOUNT),
        policies: vec![policy(ALL)],
    }])
}

/// [`settings`] with these principals in place of the one that may do everything.
pub(in crate::kms) fn settings_with(principals: Vec<PrincipalPolicies>) -> Settings {
    let account = ACCOUNT.parse().unwrap();
    let keys = vec![
        declared(DISABLED, "b", KeySpec::Hmac512, &[], false),
        declared(
            FIRST,
            "a",
            KeySpec::Hmac256,
            &["alias/pay", "alias/x/y"],
            true,
        ),
    ];
    let policies = keys.iter().map(|key| key.read_policy(&account).unwrap());
    Settings {
        region: "us-west-2".into(),
        new_keys: None,
        rights: DeclaredRights::new(principals, None, policies.collect()),
        account,
        keys,
    }
}

/// An identity policy of one statement.
pub(in crate::kms) fn policy(statement: &str) -> Policy {
    let text = format!(r#"{{"Version":"2012-10-17","Statement":{statement}}}"#);
    Policy::parse(&text, PolicyKind::Identity).unwrap()
}

pub(in crate::kms) const ALL: &str = r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#;

pub(in crate::kms) fn caller(account: &str) -> Caller {
    Caller::parse(&format!("arn:aws:iam::{account}:user/billing")).unwrap()
}

fn declared(
    key_id: &str,
    token: &str,
    key_spec: KeySpec,
    aliases: &[&str],
    enabled: bool,
) -> DeclaredKey {
    DeclaredKey {
        key_id: key_id.parse().unwrap(),
        token: Some(token.into()),
        object: format!("pkcs11:object={key_id}").try_into().unwrap(),
        key_spec,
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        description: String::new(),
        check_value: None,
        policy_file: None,
        enabled,
    }
}

impl Catalogue {
    pub(in crate::kms) fn any(&self) -> Arc<KeyRecord> {
        let keys = self.read();
        let accounts = keys.accounts.values();
        let mut records =
            accounts.flat_map(|own| own.keys().keys().filter_map(|id| own.record(id)));
        records.next().unwrap().clone()
    }
}

fn catalogue(settings: Settings) -> Result<Catalogue, String> {
    Catalogue::new(settings, &["a".to_owned(), "b".to_owned()])
}

fn fault(key_id: &str) -> (Kind, String) {
    let catalogue = catalogue(settings()).unwrap();
    let error = catalogue
        .resolve(&caller(ACCOUNT), Operation::GenerateMac, key_id)
        .err()
        .unwrap_or_else(|| panic!("{key_id} is found"));
    (error.kind(), error.say().to_owned())
}

#[test]
fn a_key_is_found_by_its_four_kinds_of_names() {
    let catalogue = catalogue(settings()).unwrap();
    for name in [
        FIRST,
        &format!("arn:aws:kms:us-west-2:{ACCOUNT}:key/{FIRST}"),
        "alias/pay",
        "alias/x/y",
        &format!("arn:aws:kms:us-west-2:{ACCOUNT}:alias/pay"),
    ] {
        let found = catalogue.resolve(&caller(ACCOUNT), Operation::VerifyMac, name);
        let Ok(record) = found else {
            panic!("{name} is not found")
        };
        assert_eq!(record.body.key_id.as_str(), FIRST);
        assert_eq!(record.group, Some(0));
    }
}

#[test]
fn what_finds_nothing_is_told_as_kms_tells_it() {
    for (key_id, say) in [
        ("key_id", "Invalid keyId 'key_id'".to_owned()),
        (
            MISSING,
            format!("Key 'arn:aws:kms:us-west-2:{ACCOUNT}:key/{MISSING}' does not exist"),
        ),
        (
            &format!("arn:aws:kms:us-west-2:{ACCOUNT}:key/{MISSING}"),
            format!("Key 'arn:aws:kms:us-west-2:{ACCOUNT}:key/{MISSING}' does not exist"),
        ),
        (
            &format!("arn:aws:kms:eu-west-1:{ACCOUNT}:key/{FIRST}"),
            "Invalid arn eu-west-1".to_owned(),
        ),
        (
            "alias/no",
            format!("Alias arn:aws:kms:us-west-2:{ACCOUNT}:alias/no is not found."),
        ),
        (
            "arn:aws:s3:::bucket",
            "Invalid arn arn:aws:s3:::bucket".to_owned(),
        ),
    ] {
        assert_eq!(fault(key_id), (Kind::NotFound, say));
    }
    assert!(fault(&"ü".repeat(2048)).1.len() < 2100);
}

#[test]
fn another_account_s_key_is_found_by_its_arn_alone_and_only_to_be_judged() {
    let catalogue = catalogue(settings()).unwrap();
    let stranger = caller("444455556666");
    let resolve = |operation, key_id: &str| catalogue.resolve(&stranger, operation, key_id);
    let arn = |id| format!("arn:aws:kms:us-west-2:{ACCOUNT}:key/{id}");
    let alias = format!("arn:aws:kms:us-west-2:{ACCOUNT}:alias/pay");
    for name in [arn(FIRST), alias] {
        let found = resolve(Operation::GenerateMac, &name).ok().unwrap();
        assert_eq!(found.body.key_id.as_str(), FIRST);
    }
    for (operation, id) in [
        (Operation::GenerateMac, MISSING),
        (Operation::DisableKey, FIRST),
        (Operation::DisableKey, MISSING),
    ] {
        let error = resolve(operation, &arn(id)).err().unwrap();
        assert_eq!(error.kind(), Kind::AccessDenied);
        assert_eq!(
            error.say(),
            format!(
                "User: arn:aws:iam::444455556666:user/billing is not authorized to perform: {} on this resource because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access",
                operation.action()
            )
        );
    }
    for name in [FIRST, "alias/pay"] {
        let error = resolve(Operation::GenerateMac, name).err().unwrap();
        assert_eq!(error.kind(), Kind::NotFound, "{name}");
    }
    assert!(catalogue.page(stranger.account(), None, 10).0.is_empty());
}

#[test]
fn contradictions_between_declarations_are_named() {
    let refused = |change: fn(&mut Settings)| {
        let mut settings = settings();
        change(&mut settings);
        catalogue(settings).err().unwrap()
    };
    let fault = refused(|s| s.keys[0].key_id = s.keys[1].key_id.clone());
    assert!(fault.contains(FIRST), "{fault}");
    let fault = refused(|s| s.keys[0].aliases = vec!["alias/pay".into()]);
    assert!(
        fault.contains("alias/pay") && fault.contains(DISABLED),
        "{fault}"
    );
    let fault = refused(|s| s.keys[0].aliases = vec!["pay".into()]);
    assert!(fault.contains("must be alias/"), "{fault}");
    let fault = refused(|s| s.keys[0].token = Some("c".into()));
    assert!(fault.contains("\"c\""), "{fault}");
    let fault = refused(|s| s.keys[0].token = None);
    assert!(fault.contains("names no token"), "{fault}");
}

/// A declaration that is taken away takes the key and its aliases away; one that comes back serves again, by
/// another key: what was closed stays closed.
#[test]
fn declared_keys_and_aliases_come_change_and_go() {
    let groups = ["a".to_owned(), "b".to_owned()];
    let catalogue = Catalogue::new(settings(), &groups).unwrap();
    let first: KeyId = FIRST.parse().unwrap();
    let again = |edit: &dyn Fn(&mut Vec<DeclaredKey>)| {
        let mut keys = settings().keys;
        edit(&mut keys);
        let account = settings().account;
        let policies = keys.iter().map(|key| key.read_policy(&account).unwrap());
        let policies = policies.collect();
        let outcome = catalogue.declare(&keys, policies, None);
        assert_eq!(outcome.faults, [""; 0]);
        let counts = (outcome.added, outcome.changed, outcome.removed);
        (counts, outcome.retired)
    };
    let found = |name: &str| {
        let found = catalogue.resolve(&caller(ACCOUNT), Operation::GenerateMac, name);
        found.ok()
    };
    let mine = |keys: &mut Vec<DeclaredKey>| {
        let mut keys = std::mem::take(keys).into_iter();
        keys.find(|key| key.key_id == first).unwrap()
    };
    let before = found("alias/pay").unwrap();
    let (counts, retired) = again(&|_| {});
    assert_eq!(
        (counts, retired.len()),
        ((0, 0, 0), 0),
        "nothing has changed"
    );
    assert!(Arc::ptr_eq(&found("alias/pay").unwrap(), &before));

    // Words and names cost nobody anything.
    let (counts, retired) = again(&|keys| {
        for key in keys.iter_mut().filter(|key| key.key_id == first) {
            key.description = "others".into();
            key.aliases = vec!["alias/new".into(), "alias/pay".into()];
        }
    });
    assert_eq!((counts, retired.len()), ((0, 1, 0), 0));
    let renamed = found("alias/new").unwrap();
    assert!(Arc::ptr_eq(&renamed.key, &before.key));
    assert!(found("alias/pay").is_some() && found("alias/x/y").is_none());

    // Another object: what calls held of the old one is closed.
    let (counts, retired) = again(&|keys| {
        for key in keys.iter_mut().filter(|key| key.key_id == first) {
            key.object = "pkcs11:object=another".to_owned().try_into().unwrap();
            key.token = Some("b".into());
        }
    });
    assert_eq!(counts, (0, 1, 0));
    assert!(matches!(&retired[..], [(0, Retirement::Key(key))] if Arc::ptr_eq(key, &before.key)));
    let moved = found("alias/pay").unwrap();
    assert_eq!(
        (moved.group, moved.body.locator.token.as_str()),
        (Some(1), "b")
    );

    let (counts, retired) = again(&|keys| {
        for key in keys.iter_mut().filter(|key| key.key_id == first) {
            key.enabled = false;
        }
    });
    assert_eq!((counts, retired.len()), ((0, 1, 0), 1));
    assert_eq!(found(FIRST).unwrap().configured_state(), KeyState::Disabled);

    let others = settings().keys.len() - 1;
    let (counts, _) = again(&|keys| *keys = vec![mine(keys)]);
    assert_eq!(counts, (0, 1, others));
    let (counts, retired) = again(&|keys| keys.clear());
    assert_eq!((counts, retired.len()), ((0, 0, 1), 1));
    assert!(found(FIRST).is_none() && found("alias/pay").is_none());
    let (counts, retired) = again(&|_| {});
    assert_eq!((counts, retired.len()), ((others + 1, 0, 0), 0));
    let back = found("alias/x/y").unwrap();
    assert_eq!(back.configured_state(), KeyState::Enabled);
    assert!(!Arc::ptr_eq(&back.key, &before.key));
}

/// What cannot be in force is told, and leaves the rest in force.
#[test]
fn a_declaration_that_names_no_token_leaves_its_key_where_it_is() {
    let groups = ["a".to_owned(), "b".to_owned()];
    let catalogue = Catalogue::new(settings(), &groups).unwrap();
    let mut keys = settings().keys;
    for key in &mut keys {
        key.token = Some("c".into());
        key.enabled = false;
    }
    let count = keys.len();
    let outcome = catalogue.declare(&keys, settings().rights.keys, None);
    assert_eq!(outcome.faults.len(), count, "{:?}", outcome.faults);
    assert!(
        outcome.faults[0].contains("there is no token or group"),
        "{:?}",
        outcome.faults
    );
    // Security: who may not use it any more may not, wherever it is.
    let declared = catalogue.declared();
    assert_eq!(declared.len(), count);
    for record in declared {
        assert_eq!(record.configured_state(), KeyState::Disabled);
        assert!(record.body.locator.token != "c");
    }
}

/// The keys of a group that is gone are unavailable, and serve by others when it is back; what was closed stays
/// closed, and what was trusted first goes on to be.
#[test]
fn keys_of_a_group_that_is_gone_are_unavailable_until_it_is_back() {
    let catalogue = Catalogue::new(settings(), &["a".to_owned(), "b".to_owned()]).unwrap();
    let keys = settings().keys;
    let declare = |groups: &[Option<&str>]| {
        let groups = groups.iter().map(|name| name.map(str::to_owned)).collect();
        catalogue.declare(&keys, settings().rights.keys, Some(groups))
    };
    let found = || {
        let found = catalogue.resolve(&caller(ACCOUNT), Operation::GenerateMac, FIRST);
        found.unwrap()
    };
    let before = found();
    assert_eq!((before.group, before.state()), (Some(0), KeyState::Enabled));
    let same = declare(&[Some("a"), Some("b")]);
    assert!(same.without_group.is_empty() && Arc::ptr_eq(&found(), &before));

    let outcome = declare(&[None, Some("b")]);
    let gone = found();
    assert_eq!((gone.group, gone.state()), (None, KeyState::Unavailable));
    let closed = outcome.without_group.iter();
    let closed: Vec<_> = closed
        .filter(|(_, key)| Arc::ptr_eq(key, &before.key))
        .collect();
    assert!(matches!(closed[..], [(0, _)]));
    // Its declaration names a group that is not there, and is told.
    assert!(
        outcome.faults.iter().any(|fault| fault.contains("\"a\"")),
        "{:?}",
        outcome.faults
    );
    assert_eq!(
        catalogue.count_without_group("a"),
        outcome.without_group.len()
    );

    let outcome = declare(&[None, Some("b"), Some("a")]);
    assert!(outcome.without_group.is_empty() && outcome.faults.is_empty());
    let back = found();
    assert_eq!((back.group, back.state()), (Some(2), KeyState::Enabled));
    assert!(!Arc::ptr_eq(&back.key, &before.key));
    assert_eq!(back.key.check_value(), before.key.check_value());
}
