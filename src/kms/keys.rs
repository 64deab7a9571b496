//! The keys in memory: found by every name that a client may use, listed in the order of their IDs.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use super::{Settings, settings::DeclaredKey, validate::echo};
use crate::{
    error::{Error, Kind},
    model::{
        AccountId, Caller, KeyId, KeyReference, KeySpec, KeyState, Operation, Origin,
        ReferenceFault, alias_arn, key_arn,
    },
    token,
};

/// What is known of one key.
pub(super) struct Record {
    pub(super) key_id: KeyId,
    pub(super) account: AccountId,
    /// Ready for answers: the hot path does not format it.
    pub(super) arn: Arc<str>,
    pub(super) spec: KeySpec,
    pub(super) enabled: bool,
    pub(super) origin: Origin,
    pub(super) description: String,
    /// Which of the groups of tokens has it.
    pub(super) group: usize,
    pub(super) key: Arc<token::Key>,
}

impl Record {
    /// Disabled hides that the token has trouble with the key: the operator's word comes first.
    pub(super) fn state(&self) -> KeyState {
        if !self.enabled {
            KeyState::Disabled
        } else if self.key.trouble().is_some() {
            KeyState::Unavailable
        } else {
            KeyState::Enabled
        }
    }
}

/// All keys. Built once; a store's watch will replace records behind their `Arc`s.
pub(super) struct Catalogue {
    region: String,
    accounts: HashMap<AccountId, Account>,
}

/// The keys of one account.
#[derive(Default)]
struct Account {
    /// By key ID, key ARN, alias name and alias ARN, so that a request costs one look-up and no
    /// parsing. Only a name that is not here is taken apart, to tell what is wrong with it.
    names: HashMap<Box<str>, Arc<Record>>,
    keys: BTreeMap<KeyId, Arc<Record>>,
}

impl Catalogue {
    pub(super) fn new(settings: Settings, groups: &[String]) -> Result<Self, String> {
        let Settings {
            account,
            region,
            new_keys: _,
            keys,
        } = settings;
        let mut own = Account::default();
        for declared in keys {
            let DeclaredKey {
                key_id,
                key_spec,
                aliases,
                ..
            } = &declared;
            let group = group_of(&declared, groups)?;
            let arn: Arc<str> = key_arn(&region, &account, key_id).into();
            let key = declared.token_key();
            let record = Arc::new(Record {
                key_id: key_id.clone(),
                account: account.clone(),
                arn: arn.clone(),
                spec: *key_spec,
                enabled: declared.enabled,
                origin: Origin::AwsCloudHsm,
                description: declared.description.clone(),
                group,
                key: Arc::new(key),
            });
            if own.keys.insert(key_id.clone(), record.clone()).is_some() {
                return Err(format!("two keys are declared with the key_id {key_id}"));
            }
            own.names.insert(key_id.as_str().into(), record.clone());
            own.names.insert((&*arn).into(), record.clone());
            for alias in aliases {
                if !matches!(alias.parse(), Ok(KeyReference::Alias(_))) {
                    return Err(format!(
                        "the alias {alias:?} of key {key_id} must be alias/ and letters, digits, /, _ or -; at most 256 characters"
                    ));
                }
                let full = alias_arn(&region, &account, alias);
                own.names.insert(full.into(), record.clone());
                if let Some(other) = own.names.insert(alias.as_str().into(), record.clone()) {
                    return Err(format!(
                        "the alias {alias} is declared for key {} and for key {key_id}",
                        other.key_id
                    ));
                }
            }
        }
        Ok(Self {
            region,
            accounts: HashMap::from([(account, own)]),
        })
    }

    /// The key that a caller means.
    pub(super) fn resolve(
        &self,
        caller: &Caller,
        operation: Operation,
        key_id: &str,
    ) -> Result<&Arc<Record>, Error> {
        // Security: only the names of the caller's own account are looked at, so that neither a key
        // ID nor an ARN reaches another account's key.
        self.accounts
            .get(caller.account())
            .and_then(|account| account.names.get(key_id))
            .ok_or_else(|| self.explain(caller, operation, key_id))
    }

    /// Up to `limit` keys of an account after a key ID, and whether there are more.
    pub(super) fn page(
        &self,
        account: &AccountId,
        after: Option<&KeyId>,
        limit: usize,
    ) -> (Vec<&Arc<Record>>, bool) {
        let Some(account) = self.accounts.get(account) else {
            return (Vec::new(), false);
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = account
            .keys
            .range((from, Bound::Unbounded))
            .map(|(_, record)| record);
        let page = rest.by_ref().take(limit).collect();
        (page, rest.next().is_some())
    }

    /// Why a name finds nothing: first its form, then its region, then its account, as KMS.
    fn explain(&self, caller: &Caller, operation: Operation, key_id: &str) -> Error {
        let not_found = |say: String| Error::new(Kind::NotFound, say);
        let no_key = |id: &KeyId| {
            let arn = key_arn(&self.region, caller.account(), id);
            not_found(format!("Key '{arn}' does not exist"))
        };
        let no_alias = |name: &str| {
            let arn = alias_arn(&self.region, caller.account(), name);
            not_found(format!("Alias {arn} is not found."))
        };
        let reference = match key_id.parse() {
            Ok(reference) => reference,
            Err(ReferenceFault::KeyId) => {
                return not_found(format!("Invalid keyId '{}'", echo(key_id, KEY_ID_ECHO)));
            }
            // GenerateMac and VerifyMac have no InvalidArnException in KMS's model.
            Err(ReferenceFault::Arn) => {
                return not_found(format!("Invalid arn {}", echo(key_id, KEY_ID_ECHO)));
            }
        };
        match &reference {
            KeyReference::Arn(place, _) | KeyReference::AliasArn(place, _)
                if place.region != self.region =>
            {
                not_found(format!("Invalid arn {}", place.region))
            }
            KeyReference::Arn(place, _) | KeyReference::AliasArn(place, _)
                if place.account != *caller.account() =>
            {
                // Security: the same words whether the key exists or not.
                Error::new(
                    Kind::AccessDenied,
                    format!(
                        "User: {caller} is not authorized to perform: kms:{} on this resource because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access",
                        operation.name()
                    ),
                )
            }
            KeyReference::Id(id) | KeyReference::Arn(_, id) => no_key(id),
            KeyReference::Alias(name) | KeyReference::AliasArn(_, name) => no_alias(name),
        }
    }

    #[cfg(test)]
    pub(super) fn any(&self) -> &Arc<Record> {
        self.accounts
            .values()
            .flat_map(|account| account.keys.values())
            .next()
            .unwrap()
    }
}

fn group_of(declared: &DeclaredKey, groups: &[String]) -> Result<usize, String> {
    let key_id = &declared.key_id;
    match (&declared.token, groups) {
        (Some(name), _) => groups
            .iter()
            .position(|group| group == name)
            .ok_or_else(|| {
                format!("key {key_id} names {name:?}, but there is no token or group of this name")
            }),
        (None, [_]) => Ok(0),
        (None, _) => Err(format!(
            "key {key_id} names no token, and there are {}; set token = \"…\" in its [[key]]",
            groups.len()
        )),
    }
}

/// The longest key ID, if it is plain ASCII.
const KEY_ID_ECHO: usize = 2048;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const ACCOUNT: &str = "111122223333";
    pub(crate) const FIRST: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
    pub(crate) const DISABLED: &str = "2234abcd-12ab-34cd-56ef-1234567890ab";
    const MISSING: &str = "9234abcd-12ab-34cd-56ef-1234567890ab";

    /// Two tokens, `a` and `b`; an HMAC_256 key with two aliases, a disabled HMAC_512 key.
    pub(crate) fn settings() -> Settings {
        Settings {
            account: ACCOUNT.parse().unwrap(),
            region: "us-west-2".into(),
            new_keys: None,
            keys: vec![
                declared(DISABLED, "b", KeySpec::Hmac512, &[], false),
                declared(
                    FIRST,
                    "a",
                    KeySpec::Hmac256,
                    &["alias/pay", "alias/x/y"],
                    true,
                ),
            ],
        }
    }

    pub(crate) fn caller(account: &str) -> Caller {
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
            enabled,
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
            assert_eq!(record.key_id.as_str(), FIRST);
            assert_eq!(record.group, 0);
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
    fn another_account_s_key_cannot_be_reached_nor_probed() {
        let catalogue = catalogue(settings()).unwrap();
        let stranger = caller("444455556666");
        for id in [FIRST, MISSING] {
            let arn = format!("arn:aws:kms:us-west-2:{ACCOUNT}:key/{id}");
            let error = catalogue
                .resolve(&stranger, Operation::GenerateMac, &arn)
                .err()
                .unwrap();
            assert_eq!(error.kind(), Kind::AccessDenied);
            assert_eq!(
                error.say(),
                "User: arn:aws:iam::444455556666:user/billing is not authorized to perform: kms:GenerateMac on this resource because the resource does not exist in this Region, no resource-based policies allow access, or a resource-based policy explicitly denies access"
            );
            let error = catalogue
                .resolve(&stranger, Operation::GenerateMac, id)
                .err()
                .unwrap();
            assert_eq!(
                error.say(),
                format!("Key 'arn:aws:kms:us-west-2:444455556666:key/{id}' does not exist")
            );
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
}
