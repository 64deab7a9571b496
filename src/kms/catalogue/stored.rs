//! What the store keeps, and in which form: JSON, one record a key, an alias, a grant, a key's last use.
//!
//! Reading is strict: a member too many, a value that breaks a rule, a record under another's name
//! are faults. What an older version wrote is brought to today's form by the store's migrations.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

use std::collections::BTreeMap;

use super::GrantRecord;
use crate::{
    model::{
        AccountId, AliasName, Date, Description, Grant, GrantId, KeyId, KeySpec, Operation, Origin,
        Tags, decode_hex, encode_hex,
    },
    store::{Change, Expect, Name, Prefix, Record, Restored},
    token::{self, CheckValue},
};

/// `key/ACCOUNT/KEYID`: all of a key that is not in the token.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::kms) struct StoredKey {
    pub(in crate::kms) key_id: KeyId,
    pub(in crate::kms) account: AccountId,
    pub(in crate::kms) spec: KeySpec,
    pub(in crate::kms) origin: Origin,
    #[serde(rename = "life")]
    pub(in crate::kms) state: StoredState,
    pub(in crate::kms) description: Description,
    /// Absent for declared keys, which are in no store.
    pub(in crate::kms) created: Option<Date>,
    pub(in crate::kms) tags: Tags,
    /// An IAM document; empty: the default policy.
    pub(in crate::kms) policy: String,
    /// The immutable IDs, by ARN, of principals that the policy named when it was written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::kms) policy_principals: BTreeMap<String, String>,
    #[serde(serialize_with = "displayed")]
    pub(in crate::kms) check_value: Option<CheckValue>,
    pub(in crate::kms) locator: StoredLocator,
    /// Grows whenever the key is enabled or gets a policy: who was admitted before is not admitted now. A
    /// [`token::TokenKey`] lives for one epoch, and its object from one EnableKey to the next.
    pub(in crate::kms) epoch: u64,
}

/// Where a stored key stands. What the token has to say comes on top.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::kms) enum StoredState {
    Enabled,
    Disabled,
    PendingImport,
    PendingDeletion {
        deletion_date: Date,
        pending_window_in_days: u32,
    },
    /// The object is being destroyed; there is no way back. Clients see no such key.
    Deleting,
}

/// Where a key's object is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::kms) struct StoredLocator {
    /// The token's or group's name in the configuration.
    pub(in crate::kms) token: String,
    /// CKA_ID in hex.
    #[serde(with = "hex")]
    pub(in crate::kms) cka_id: Option<Vec<u8>>,
    /// CKA_LABEL
    pub(in crate::kms) label: Option<String>,
}

/// `alias/ACCOUNT/alias/NAME`
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::kms) struct StoredAlias {
    pub(in crate::kms) target: KeyId,
    pub(in crate::kms) created: Date,
    pub(in crate::kms) updated: Date,
}

/// `usage/ACCOUNT/KEYID`: the last MAC that was made or checked, to the minute.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::kms) struct StoredUsage {
    pub(in crate::kms) operation: UsedBy,
    pub(in crate::kms) at: Date,
}

/// The operations that count as a use.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(in crate::kms) enum UsedBy {
    GenerateMac,
    VerifyMac,
}

/// `usage-tracking`: since when uses are recorded.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::kms) struct UsageTracking {
    pub(in crate::kms) since: Date,
}

/// A record, by its name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(in crate::kms) enum RecordName {
    Key(AccountId, KeyId),
    Alias(AccountId, AliasName),
    Grant(AccountId, KeyId, GrantId),
    /// What makes and checks grant tokens.
    GrantTokenKey,
    Usage(AccountId, KeyId),
    /// The mark of a restore that no operator has confirmed.
    Restored,
    /// None of the catalogue's.
    Other,
}

impl RecordName {
    pub(in crate::kms) fn of(name: &Name) -> Self {
        let text = name.as_str();
        if text == Restored::NAME {
            return Self::Restored;
        }
        if text == GRANT_TOKEN_KEY {
            return Self::GrantTokenKey;
        }
        let of_account = |rest: &str| -> Option<(AccountId, String)> {
            let (account, rest) = rest.split_once('/')?;
            Some((account.parse().ok()?, rest.to_owned()))
        };
        let keyed = |rest: &str| -> Option<(AccountId, KeyId)> {
            let (account, id) = of_account(rest)?;
            Some((account, id.parse().ok()?))
        };
        let named = match text.split_once('/') {
            Some(("key", rest)) => keyed(rest).map(|(account, id)| Self::Key(account, id)),
            Some(("usage", rest)) => keyed(rest).map(|(account, id)| Self::Usage(account, id)),
            Some(("grant", rest)) => rest.rsplit_once('/').and_then(|(rest, id)| {
                let (account, key_id) = keyed(rest)?;
                Some(Self::Grant(account, key_id, id.parse().ok()?))
            }),
            Some(("alias", rest)) => of_account(rest)
                .and_then(|(account, alias)| Some(Self::Alias(account, alias.parse().ok()?))),
            Some(_) | None => None,
        };
        named.unwrap_or(Self::Other)
    }

    /// Whether a name that says nothing to us looks as if it should.
    pub(in crate::kms) fn is_lost(name: &Name) -> bool {
        Self::of(name) == Self::Other
            && ["key/", "alias/", "grant/", "usage/"]
                .iter()
                .any(|begin| name.as_str().starts_with(begin))
    }
}

pub(in crate::kms) fn key_name(account: &AccountId, key_id: &KeyId) -> Name {
    name(&format!("key/{account}/{key_id}"))
}

pub(in crate::kms) fn alias_name(account: &AccountId, alias: &AliasName) -> Name {
    name(&format!("alias/{account}/{alias}"))
}

pub(in crate::kms) fn usage_name(account: &AccountId, key_id: &KeyId) -> Name {
    name(&format!("usage/{account}/{key_id}"))
}

/// `grant/ACCOUNT/KEYID/GRANTID`: a [`Grant`].
pub(in crate::kms) fn grant_name(account: &AccountId, key_id: &KeyId, id: &GrantId) -> Name {
    name(&format!("grant/{account}/{key_id}/{id}"))
}

/// `grant-request/ACCOUNT/KEYID/HASH`: that there is a grant of this name and these parameters. Of two
/// who ask for one at once the second finds this record, and then the grant.
pub(in crate::kms) fn grant_request_name(
    account: &AccountId,
    key_id: &KeyId,
    grant: &Grant,
) -> Option<Name> {
    grant.name.as_ref()?;
    let asked = Grant {
        parent: None,
        created: Date::default(),
        ..grant.clone()
    };
    let hash = encode_hex(&Sha256::digest(write(&asked)));
    Some(name(&format!("grant-request/{account}/{key_id}/{hash}")))
}

/// A change that takes a grant away too, with all that is kept of it.
pub(in crate::kms) fn without_grant(change: Change, grant: &GrantRecord, expect: Expect) -> Change {
    let GrantRecord {
        id,
        account,
        key_id,
        body,
        ..
    } = grant;
    let change = change.delete(grant_name(account, key_id, id), expect);
    match grant_request_name(account, key_id, body) {
        Some(name) => change.delete(name, Expect::Any),
        None => change,
    }
}

pub(in crate::kms) fn grant_token_key_name() -> Name {
    name(GRANT_TOKEN_KEY)
}

pub(in crate::kms) fn tracking_name() -> Name {
    name("usage-tracking")
}

/// All records.
pub(in crate::kms) fn everything() -> Prefix {
    Prefix::all()
}

/// A record's value.
pub(in crate::kms) fn write(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record)
        .expect("records are texts, numbers and lists, which have a JSON form")
}

/// Reads a key's record.
///
/// # Errors
/// Why it cannot be read.
pub(in crate::kms) fn read_key(
    record: &Record,
    account: &AccountId,
    id: &KeyId,
) -> Result<StoredKey, String> {
    let key: StoredKey = read(record)?;
    if key.account != *account || key.key_id != *id {
        return Err(format!(
            "it is the record of key {} of account {}",
            key.key_id, key.account
        ));
    }
    let length = key.spec.mac_algorithm().mac_len();
    if key
        .check_value
        .as_ref()
        .is_some_and(|value| value.bytes().len() != length)
    {
        return Err("its check value has not the length of its key spec".into());
    }
    if key.locator.cka_id.is_none() && key.locator.label.is_none() {
        return Err("it has neither CKA_ID nor label".into());
    }
    Ok(key)
}

/// Reads any other record.
///
/// # Errors
/// Why it cannot be read.
pub(in crate::kms) fn read<T: for<'de> Deserialize<'de>>(record: &Record) -> Result<T, String> {
    serde_json::from_slice(&record.value).map_err(|error| error.to_string())
}

impl StoredKey {
    /// The key as its token knows it; each is another one, even with the same locator.
    pub(in crate::kms) fn token_key(&self) -> token::TokenKey {
        token::TokenKey::new(
            self.key_id.clone(),
            self.spec,
            token::ObjectLocator {
                id: self.locator.cka_id.clone(),
                label: self.locator.label.clone(),
            },
            self.check_value.clone(),
        )
    }

    /// Whether it is the object of `other`, whoever may use it.
    pub(in crate::kms) fn is_same_object(&self, other: &Self) -> bool {
        self.spec == other.spec
            && self.locator == other.locator
            && self.check_value == other.check_value
    }
}

impl UsedBy {
    pub(in crate::kms) fn operation(self) -> Operation {
        match self {
            Self::GenerateMac => Operation::GenerateMac,
            Self::VerifyMac => Operation::VerifyMac,
        }
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("accounts, key IDs and alias names are visible ASCII, and short")
}

const GRANT_TOKEN_KEY: &str = "grant-token-key";

fn displayed<S: Serializer>(value: &Option<CheckValue>, to: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(ToString::to_string).serialize(to)
}

mod hex {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(encode_hex).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        match decode_hex(&text) {
            Some(bytes) if !bytes.is_empty() => Ok(Some(bytes)),
            Some(_) | None => Err(D::Error::custom(format!("{text:?} is no CKA_ID in hex"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Revision;

    const ACCOUNT: &str = "111122223333";
    const ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

    fn golden() -> String {
        format!(
            concat!(
                r#"{{"key_id":"{id}","account":"{account}","spec":"HMAC_256","origin":"AWS_KMS","#,
                r#""life":{{"PendingDeletion":{{"deletion_date":1700000000000,"pending_window_in_days":7}}}},"#,
                r#""description":"for bills","created":1690000000000,"tags":[{{"key":"a","value":"b"}}],"#,
                r#""policy":"","check_value":"{value}","#,
                r#""locator":{{"token":"primary","cka_id":"0aff","label":null}},"epoch":3}}"#
            ),
            id = ID,
            account = ACCOUNT,
            value = "0f".repeat(32),
        )
    }

    fn record(value: String) -> Record {
        Record {
            name: key_name(&ACCOUNT.parse().unwrap(), &ID.parse().unwrap()),
            value: value.into(),
            revision: Revision(1),
        }
    }

    fn read_it(value: String) -> Result<StoredKey, String> {
        read_key(
            &record(value),
            &ACCOUNT.parse().unwrap(),
            &ID.parse().unwrap(),
        )
    }

    #[test]
    fn a_key_s_record_keeps_its_form() {
        let key = read_it(golden()).unwrap();
        assert_eq!(key.locator.cka_id, Some(vec![0x0a, 0xff]));
        assert_eq!(String::from_utf8(write(&key)).unwrap(), golden());
        for state in [
            StoredState::Enabled,
            StoredState::Disabled,
            StoredState::PendingImport,
            StoredState::Deleting,
        ] {
            let other = StoredKey {
                state,
                ..key.clone()
            };
            let text = String::from_utf8(write(&other)).unwrap();
            assert!(text.contains(&format!("\"life\":\"{state:?}\"")), "{text}");
            assert_eq!(read_it(text).unwrap(), other);
        }
    }

    #[test]
    fn what_is_not_exactly_a_record_is_not_read() {
        for (right, wrong) in [
            ("\"epoch\":3", "\"epoch\":3,\"more\":1"),
            ("\"epoch\":3", "\"epoch\":-3"),
            (",\"policy\":\"\"", ""),
            ("\"HMAC_256\"", "\"HMAC_512\""),
            ("\"HMAC_256\"", "\"HMAC_255\""),
            ("\"AWS_KMS\"", "\"KMS\""),
            ("PendingDeletion\":", "Pending\":"),
            ("\"deletion_date\":1700000000000,", ""),
            ("\"deletion_date\"", "\"more\":1,\"deletion_date\""),
            ("\"0aff\"", "\"0af\""),
            ("\"0aff\"", "\"+aff\""),
            ("\"0aff\"", "\"\""),
            ("\"0aff\"", "null"),
            (ID, "2234abcd-12ab-34cd-56ef-1234567890ab"),
            (ACCOUNT, "111122224444"),
            ("}", ""),
        ] {
            let text = golden().replacen(right, wrong, 1);
            assert_ne!(text, golden());
            assert!(read_it(text.clone()).is_err(), "{text}");
        }
    }

    #[test]
    fn names_tell_what_a_record_is() {
        let (account, id): (AccountId, KeyId) = (ACCOUNT.parse().unwrap(), ID.parse().unwrap());
        let alias: AliasName = "alias/a/b".parse().unwrap();
        for (name, named) in [
            (
                key_name(&account, &id),
                RecordName::Key(account.clone(), id.clone()),
            ),
            (
                usage_name(&account, &id),
                RecordName::Usage(account.clone(), id.clone()),
            ),
            (
                alias_name(&account, &alias),
                RecordName::Alias(account.clone(), alias),
            ),
            (
                grant_name(&account, &id, &GrantId::new([7; 32])),
                RecordName::Grant(account.clone(), id.clone(), GrantId::new([7; 32])),
            ),
            (grant_token_key_name(), RecordName::GrantTokenKey),
            (Name::new("grant-request/1/2").unwrap(), RecordName::Other),
            (Restored::name(), RecordName::Restored),
            (tracking_name(), RecordName::Other),
            (Name::new("intent/x").unwrap(), RecordName::Other),
            (Name::new("key/1/2").unwrap(), RecordName::Other),
        ] {
            assert_eq!(RecordName::of(&name), named);
            assert_eq!(RecordName::is_lost(&name), name.as_str() == "key/1/2");
        }
        assert_eq!(
            alias_name(&account, &"alias/a/b".parse().unwrap()).as_str(),
            "alias/111122223333/alias/a/b"
        );
    }
}
