//! What the store keeps, and in which form: JSON, one record a key, an alias, a key's last use.
//!
//! Reading is strict: a member too many, a value that breaks a rule, a record under another's name
//! are faults. What an older version wrote is brought to today's form by the store's migrations.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    model::{AccountId, AliasName, Date, Description, KeyId, KeySpec, Operation, Origin, Tags},
    store::{Name, Prefix, Record, Restored},
    token::{self, CheckValue},
};

/// `key/ACCOUNT/KEYID`: all of a key that is not in the token.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) key_id: KeyId,
    pub(super) account: AccountId,
    pub(super) spec: KeySpec,
    pub(super) origin: Origin,
    pub(super) life: Life,
    pub(super) description: Description,
    /// Absent for declared keys, which are in no store.
    pub(super) created: Option<Date>,
    pub(super) tags: Tags,
    /// An IAM document; empty: the default policy.
    pub(super) policy: String,
    #[serde(serialize_with = "displayed")]
    pub(super) check_value: Option<CheckValue>,
    pub(super) locator: Locator,
    /// Grows whenever the key is enabled: a [`token::Key`] lives from then until the key is fenced,
    /// and never serves again.
    pub(super) epoch: u64,
}

/// Where a stored key stands. What the token has to say comes on top.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Life {
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
pub(super) struct Locator {
    /// The token's or group's name in the configuration.
    pub(super) token: String,
    /// CKA_ID in hex.
    #[serde(with = "hex")]
    pub(super) cka_id: Option<Vec<u8>>,
    /// CKA_LABEL
    pub(super) label: Option<String>,
}

/// `alias/ACCOUNT/alias/NAME`
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alias {
    pub(super) target: KeyId,
    pub(super) created: Date,
    pub(super) updated: Date,
}

/// `usage/ACCOUNT/KEYID`: the last MAC that was made or checked, to the minute.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Usage {
    pub(super) operation: UsedBy,
    pub(super) at: Date,
}

/// The operations that count as a use.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) enum UsedBy {
    GenerateMac,
    VerifyMac,
}

/// `usage-tracking`: since when uses are recorded.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tracking {
    pub(super) since: Date,
}

/// A record, by its name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Named {
    Key(AccountId, KeyId),
    Alias(AccountId, AliasName),
    Usage(AccountId, KeyId),
    /// The mark of a restore that no operator has confirmed.
    Restored,
    /// None of the catalogue's.
    Other,
}

impl Named {
    pub(super) fn of(name: &Name) -> Self {
        let text = name.as_str();
        if text == Restored::NAME {
            return Self::Restored;
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
            Some(("alias", rest)) => of_account(rest)
                .and_then(|(account, alias)| Some(Self::Alias(account, alias.parse().ok()?))),
            Some(_) | None => None,
        };
        named.unwrap_or(Self::Other)
    }

    /// Whether a name that says nothing to us looks as if it should.
    pub(super) fn is_lost(name: &Name) -> bool {
        Self::of(name) == Self::Other
            && ["key/", "alias/", "usage/"]
                .iter()
                .any(|begin| name.as_str().starts_with(begin))
    }
}

pub(super) fn key_name(account: &AccountId, key_id: &KeyId) -> Name {
    name(&format!("key/{account}/{key_id}"))
}

pub(super) fn alias_name(account: &AccountId, alias: &AliasName) -> Name {
    name(&format!("alias/{account}/{alias}"))
}

pub(super) fn usage_name(account: &AccountId, key_id: &KeyId) -> Name {
    name(&format!("usage/{account}/{key_id}"))
}

pub(super) fn tracking_name() -> Name {
    name("usage-tracking")
}

/// All records.
pub(super) fn everything() -> Prefix {
    Prefix::all()
}

/// A record's value.
pub(super) fn write(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record)
        .expect("records are texts, numbers and lists, which have a JSON form")
}

/// Reads a key's record.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn read_key(record: &Record, account: &AccountId, id: &KeyId) -> Result<Key, String> {
    let key: Key = read(record)?;
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
pub(super) fn read<T: for<'de> Deserialize<'de>>(record: &Record) -> Result<T, String> {
    serde_json::from_slice(&record.value).map_err(|error| error.to_string())
}

impl Key {
    /// The key as its token knows it; each is another one, even with the same locator.
    pub(super) fn token_key(&self) -> token::Key {
        token::Key::new(
            self.key_id.clone(),
            self.spec,
            token::Locator {
                id: self.locator.cka_id.clone(),
                label: self.locator.label.clone(),
            },
            self.check_value.clone(),
        )
    }

    /// Whether a [`token::Key`] that was made for `other` stands for this record too.
    pub(super) fn is_same_object(&self, other: &Self) -> bool {
        self.epoch == other.epoch
            && self.spec == other.spec
            && self.locator == other.locator
            && self.check_value == other.check_value
    }
}

impl UsedBy {
    pub(super) fn operation(self) -> Operation {
        match self {
            Self::GenerateMac => Operation::GenerateMac,
            Self::VerifyMac => Operation::VerifyMac,
        }
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("accounts, key IDs and alias names are visible ASCII, and short")
}

fn displayed<S: Serializer>(value: &Option<CheckValue>, to: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(ToString::to_string).serialize(to)
}

mod hex {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let text = bytes.as_ref().map(|bytes| {
            let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            digits.concat()
        });
        text.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        let byte = |pair: &[u8]| {
            let digits = std::str::from_utf8(pair).ok()?;
            let plain = pair.len() == 2 && pair.iter().all(u8::is_ascii_hexdigit);
            u8::from_str_radix(digits, 16).ok().filter(|_| plain)
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        match bytes {
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

    fn read_it(value: String) -> Result<Key, String> {
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
        for life in [
            Life::Enabled,
            Life::Disabled,
            Life::PendingImport,
            Life::Deleting,
        ] {
            let other = Key {
                life,
                ..key.clone()
            };
            let text = String::from_utf8(write(&other)).unwrap();
            assert!(text.contains(&format!("\"life\":\"{life:?}\"")), "{text}");
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
                Named::Key(account.clone(), id.clone()),
            ),
            (
                usage_name(&account, &id),
                Named::Usage(account.clone(), id.clone()),
            ),
            (
                alias_name(&account, &alias),
                Named::Alias(account.clone(), alias),
            ),
            (Restored::name(), Named::Restored),
            (tracking_name(), Named::Other),
            (Name::new("intent/x").unwrap(), Named::Other),
            (Name::new("key/1/2").unwrap(), Named::Other),
        ] {
            assert_eq!(Named::of(&name), named);
            assert_eq!(Named::is_lost(&name), name.as_str() == "key/1/2");
        }
        assert_eq!(
            alias_name(&account, &"alias/a/b".parse().unwrap()).as_str(),
            "alias/111122223333/alias/a/b"
        );
    }
}
