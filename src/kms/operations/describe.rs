//! DescribeKey and ListKeys.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{marker, validate};
use crate::{
    error::Error,
    kms::{
        authorization::{RequestContext, Subject},
        catalogue::{KeyRecord, Source, stored::StoredState},
        service::Kms,
    },
    model::{AccountId, Caller, Date, Description, KeyId, KeySpec, KeyState, Operation, Origin},
};

/// KMS: DescribeKeyRequest.
#[derive(Clone, Debug)]
pub struct DescribeKey {
    /// Key ID, key ARN, alias name or alias ARN.
    pub key_id: Option<String>,
    /// Grants that the caller relies on.
    pub grant_tokens: Vec<String>,
}

/// KMS: KeyMetadata, as far as it is not the same for every key.
#[derive(Clone, Debug)]
pub struct KeyMetadata {
    /// Whose key it is.
    pub account: AccountId,
    /// The key ID.
    pub key_id: KeyId,
    /// The key's ARN.
    pub arn: Arc<str>,
    /// Absent for declared keys: the token does not tell.
    pub created: Option<Date>,
    /// For people.
    pub description: Description,
    /// Where it stands in its life.
    pub state: KeyState,
    /// When it will be deleted, if it is pending deletion.
    pub deletion_date: Option<Date>,
    /// Where its material comes from.
    pub origin: Origin,
    /// Its length and algorithm.
    pub spec: KeySpec,
    /// What the token says of it; absent while the token cannot be asked.
    pub token: Option<TokenFacts>,
}

/// Ours: what a token says of a key's object and of itself.
#[derive(Clone, Debug)]
pub struct TokenFacts {
    /// The token's name in the configuration.
    pub name: String,
    /// CK_TOKEN_INFO.label
    pub label: String,
    /// CK_TOKEN_INFO.manufacturerID
    pub manufacturer: String,
    /// CK_TOKEN_INFO.model
    pub model: String,
    /// CK_TOKEN_INFO.serialNumber
    pub serial_number: String,
    /// CKA_SENSITIVE
    pub sensitive: bool,
    /// CKA_EXTRACTABLE is false.
    pub non_extractable: bool,
    /// CKA_NEVER_EXTRACTABLE
    pub never_extractable: bool,
    /// CKA_LOCAL
    pub local: bool,
    /// The key check value in lowercase hex.
    pub check_value: String,
    /// Whether the configuration names the check value.
    pub check_value_pinned: bool,
}

/// KMS: ListKeysRequest.
#[derive(Clone, Debug, Default)]
pub struct ListKeys {
    /// 1 to 1,000; 100 if absent.
    pub limit: Option<i64>,
    /// [`KeyPage::next_marker`] of the page before.
    pub marker: Option<String>,
    /// Whose keys: SELF, OTHER_ACCOUNTS_VIA_RAM or both. The caller's own if absent, and nobody shares
    /// any here.
    pub resource_owners: Option<Vec<String>>,
}

/// KMS: ListKeysResponse.
#[derive(Clone, Debug)]
pub struct KeyPage {
    /// In the order of their IDs.
    pub keys: Vec<ListedKey>,
    /// Where the next page begins, if there is one.
    pub next_marker: Option<String>,
}

/// KMS: KeyListEntry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListedKey {
    /// The key ID.
    pub key_id: KeyId,
    /// The key's ARN.
    pub arn: Arc<str>,
}

impl Kms {
    /// What is known of one key; works while its token is away.
    ///
    /// # Errors
    /// KMS's for DescribeKey: `Kind::Validation`, `Kind::NotFound`, `Kind::AccessDenied`,
    /// `Kind::InvalidGrantToken`.
    pub async fn describe_key(
        &self,
        caller: &Caller,
        request: DescribeKey,
        until: Instant,
    ) -> Result<KeyMetadata, Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        validate::grant_tokens(&request.grant_tokens, &mut broken);
        let (Some(key_id), true) = (key_id, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        let context = RequestContext {
            grant_tokens: &request.grant_tokens,
            ..RequestContext::default()
        };
        let record = self.require_key(caller, Operation::DescribeKey, key_id, context)?;

        Ok(self.metadata(&record, until).await)
    }

    /// What a record and, if it can be asked, the token say of a key.
    pub(super) async fn metadata(&self, record: &KeyRecord, until: Instant) -> KeyMetadata {
        // The state is read after the token was asked: what it says may be why the key cannot serve.
        let token = self
            .facts(record, until.min(Instant::now() + ASK_TOKEN))
            .await;
        let body = &record.body;
        KeyMetadata {
            account: body.account.clone(),
            key_id: body.key_id.clone(),
            arn: record.arn.clone(),
            created: body.created,
            description: body.description.clone(),
            state: record.state(),
            deletion_date: match body.state {
                StoredState::PendingDeletion { deletion_date, .. } => Some(deletion_date),
                StoredState::Enabled
                | StoredState::Disabled
                | StoredState::PendingImport
                | StoredState::Deleting => None,
            },
            origin: body.origin,
            spec: body.spec,
            token,
        }
    }

    /// The keys of the caller's account.
    ///
    /// # Errors
    /// KMS's for ListKeys: `Kind::Validation`, `Kind::InvalidMarker`, `Kind::AccessDenied`.
    pub fn list_keys(&self, caller: &Caller, request: ListKeys) -> Result<KeyPage, Error> {
        let mut broken = Vec::new();
        let limit = validate::limit(request.limit, 100, 1000, &mut broken);
        let marker = request.marker.as_deref();
        let marker = marker.filter(|marker| validate::marker(marker, &mut broken));
        let owners = request.resource_owners.as_deref();
        let has_own = validate::resource_owners(owners, &mut broken);
        let (Some(limit), true) = (limit, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        let context = RequestContext::default();
        self.require(caller, Operation::ListKeys, Subject::Account, context)?;
        let after: Option<KeyId> = marker.map(|text| marker::read(MARKER, text)).transpose()?;
        if !has_own {
            return Ok(KeyPage {
                keys: Vec::new(),
                next_marker: None,
            });
        }

        let (page, more) = self.catalogue.page(caller.account(), after.as_ref(), limit);
        let next_marker = page
            .last()
            .filter(|_| more)
            .map(|(last, _)| marker::write(MARKER, last));
        let keys = page
            .into_iter()
            .map(|(key_id, arn)| ListedKey { key_id, arn })
            .collect();
        Ok(KeyPage { keys, next_marker })
    }

    async fn facts(&self, record: &KeyRecord, until: Instant) -> Option<TokenFacts> {
        // Hosts must know nothing of a key that was disabled: to ask would open it again.
        if record.body.state != StoredState::Enabled && record.source != Source::Declared {
            return None;
        }
        let group = self.group(record)?;
        let key = match group.describe(&record.key, until).await {
            Ok(facts) => facts,
            Err(fault) => {
                let (arn, token) = (&*record.arn, group.name());
                tracing::debug!(arn, token, reason = %fault, "the token cannot describe a key");
                return None;
            }
        };
        Some(TokenFacts {
            name: key.token,
            label: key.info.label,
            manufacturer: key.info.manufacturer,
            model: key.info.model,
            serial_number: key.info.serial,
            sensitive: key.sensitive,
            non_extractable: !key.extractable,
            never_extractable: key.never_extractable,
            local: key.local,
            check_value: key.check_value.to_string(),
            check_value_pinned: record.key.is_pinned(),
        })
    }
}

/// What a marker of ListKeys begins with: one of another list is refused.
const MARKER: &str = "keys:";

/// How long DescribeKey waits for a token: what it has to say is a gift, not the answer.
const ASK_TOKEN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::kms::{
        catalogue::tests::{ACCOUNT, DISABLED, FIRST, caller},
        testing::without_tokens,
    };

    fn page(limit: Option<i64>, marker: Option<&str>) -> Result<KeyPage, Error> {
        let request = ListKeys {
            limit,
            marker: marker.map(str::to_owned),
            resource_owners: None,
        };
        without_tokens().list_keys(&caller(ACCOUNT), request)
    }

    #[test]
    fn pages_are_in_the_order_of_key_ids_and_miss_nothing() {
        let all = page(None, None).unwrap();
        let ids: Vec<_> = all.keys.iter().map(|key| key.key_id.as_str()).collect();
        assert_eq!(ids, [FIRST, DISABLED]);
        assert_eq!(all.next_marker, None);

        let first = page(Some(1), None).unwrap();
        assert_eq!(first.keys, all.keys[..1]);
        let second = page(Some(1), first.next_marker.as_deref()).unwrap();
        assert_eq!(second.keys, all.keys[1..]);
        assert_eq!(second.next_marker, None);
    }

    #[test]
    fn the_keys_of_others_are_nobody_s() {
        let listed = |owners: &[&str]| {
            let request = ListKeys {
                limit: None,
                marker: None,
                resource_owners: Some(owners.iter().map(|one| (*one).to_owned()).collect()),
            };
            without_tokens().list_keys(&caller(ACCOUNT), request)
        };
        let (own, others) = ("SELF", "OTHER_ACCOUNTS_VIA_RAM");
        for owners in [&[own][..], &[own, others], &[others, own]] {
            assert_eq!(listed(owners).unwrap().keys.len(), 2);
        }
        assert!(listed(&[others]).unwrap().keys.is_empty());
        for (owners, clause) in [
            (
                &[][..],
                "Value '[]' at 'resourceOwners' failed to satisfy constraint: Member must have length greater than or equal to 1",
            ),
            (
                &[own, others, own],
                "Value '[SELF, OTHER_ACCOUNTS_VIA_RAM, SELF]' at 'resourceOwners' failed to satisfy constraint: Member must have length less than or equal to 2",
            ),
            (
                &[own, "NOPE"],
                "Value 'NOPE' at 'resourceOwners.2.member' failed to satisfy constraint: Member must satisfy enum value set: [SELF, OTHER_ACCOUNTS_VIA_RAM]",
            ),
        ] {
            let error = listed(owners).unwrap_err();
            assert_eq!(
                error.say(),
                format!("1 validation error detected: {clause}")
            );
        }
    }

    #[test]
    fn a_foreign_marker_is_refused_and_a_long_one_is_no_marker() {
        let short = marker::write(MARKER, FIRST);
        for marker in ["x", "a2V5czp4", &short[1..], "!"] {
            assert_eq!(
                page(None, Some(marker)).unwrap_err().kind(),
                Kind::InvalidMarker
            );
        }
        let long = "a".repeat(1025);
        for (limit, marker) in [
            (Some(0), None),
            (Some(1001), None),
            (None, Some(long.as_str())),
        ] {
            assert_eq!(page(limit, marker).unwrap_err().kind(), Kind::Validation);
        }
        assert_eq!(
            page(Some(0), Some("")).unwrap_err().say(),
            "2 validation errors detected: Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1; Value '' at 'marker' failed to satisfy constraint: Member must have length greater than or equal to 1"
        );
    }
}
