//! GenerateMac, VerifyMac and GenerateRandom.

use std::{cell::Cell, sync::Arc, time::Instant};

use bytes::Bytes;
use subtle::ConstantTimeEq as _;
use tokio::task::yield_now;

use super::{EnumMember, MemberValue, RECIPIENT, dry_run, validate};
use crate::{
    error::{Error, Kind, Violation},
    kms::{
        authorization::{RequestContext, Subject},
        catalogue::{KeyRecord, stored::UsedBy},
        errors::{asked_by, from_key, from_token, internal, unavailable, wrong_state},
        service::Kms,
    },
    metrics::one_in,
    model::{Caller, Flow, KeyState, MacAlgorithm, Operation, Refusal},
    token,
};

thread_local! {
    /// Requests for MACs whose rights were judged, to time one in sixteen.
    static JUDGED: Cell<u32> = const { Cell::new(0) };
}

/// KMS: GenerateMacRequest.
#[derive(Clone, Debug)]
pub struct GenerateMac {
    /// Key ID, key ARN, alias name or alias ARN.
    pub key_id: Option<String>,
    /// 1 to 4,096 bytes.
    pub message: Option<Bytes>,
    /// The algorithm, which must be the one of the key's spec.
    pub mac_algorithm: EnumMember<MacAlgorithm>,
    /// Grants that the caller relies on.
    pub grant_tokens: Vec<String>,
    /// Do everything, then answer with an error.
    pub dry_run: bool,
}

/// KMS: GenerateMacResponse.
#[derive(Clone, Debug)]
pub struct MacMade {
    /// The whole digest.
    pub mac: Bytes,
    /// As asked for.
    pub mac_algorithm: MacAlgorithm,
    /// The key's ARN.
    pub key_id: Arc<str>,
}

/// KMS: VerifyMacRequest.
#[derive(Clone, Debug)]
pub struct VerifyMac {
    /// What [`GenerateMac`] has too.
    pub of: GenerateMac,
    /// 1 to 6,144 bytes; only one of the algorithm's full length can match.
    pub mac: Option<Bytes>,
}

/// KMS: VerifyMacResponse, whose MacValid is always true.
#[derive(Clone, Debug)]
pub struct MacVerified {
    /// As asked for.
    pub mac_algorithm: MacAlgorithm,
    /// The key's ARN.
    pub key_id: Arc<str>,
}

/// KMS: GenerateRandomRequest.
#[derive(Clone, Debug, Default)]
pub struct GenerateRandom {
    /// 1 to 1,024.
    pub number_of_bytes: Option<i64>,
    /// There are no custom key stores.
    pub custom_key_store_id: Option<String>,
    /// Of [`RECIPIENT`](super::RECIPIENT), for which nothing is encrypted here.
    pub recipient: Option<MemberValue>,
}

impl Kms {
    /// Makes the MAC of a message.
    ///
    /// # Errors
    /// KMS's for GenerateMac: [`Kind::Validation`], [`Kind::NotFound`], [`Kind::AccessDenied`],
    /// [`Kind::InvalidGrantToken`], [`Kind::Disabled`], [`Kind::InvalidState`],
    /// [`Kind::InvalidKeyUsage`], [`Kind::Throttling`], [`Kind::KeyUnavailable`],
    /// [`Kind::DependencyTimeout`], [`Kind::DryRun`], [`Kind::Internal`]. By `until` at the latest.
    pub async fn generate_mac(
        &self,
        caller: &Caller,
        request: GenerateMac,
        until: Instant,
    ) -> Result<MacMade, Error> {
        let mut broken = Vec::new();
        let Some(checked) = self.checked(&request, &mut broken) else {
            return Err(validate::refuse(broken));
        };

        let operation = Operation::GenerateMac;
        let (record, mac) = self.mac(caller, operation, &checked, until).await?;
        if request.dry_run {
            return Err(dry_run());
        }
        record.last_use.note(UsedBy::GenerateMac);
        Ok(MacMade {
            mac,
            mac_algorithm: checked.algorithm,
            key_id: record.arn.clone(),
        })
    }

    /// Checks the MAC of a message.
    ///
    /// # Errors
    /// KMS's for VerifyMac: [`Kind::Validation`], [`Kind::NotFound`], [`Kind::AccessDenied`],
    /// [`Kind::InvalidGrantToken`], [`Kind::Disabled`], [`Kind::InvalidState`],
    /// [`Kind::InvalidKeyUsage`], [`Kind::InvalidMac`], [`Kind::Throttling`],
    /// [`Kind::KeyUnavailable`], [`Kind::DependencyTimeout`], [`Kind::DryRun`], [`Kind::Internal`].
    /// [`Kind::InvalidMac`] if it does not match; by `until` at the latest.
    pub async fn verify_mac(
        &self,
        caller: &Caller,
        request: VerifyMac,
        until: Instant,
    ) -> Result<MacVerified, Error> {
        let mut broken = Vec::new();
        let checked = self.checked(&request.of, &mut broken);
        let given = validate::blob("mac", request.mac.as_ref(), 6144, &mut broken);
        let (Some(checked), Some(given)) = (checked, given) else {
            return Err(validate::refuse(broken));
        };

        let operation = Operation::VerifyMac;
        let (record, right) = self.mac(caller, operation, &checked, until).await?;
        if !is_same_mac(&right, given) {
            self.metrics.mac_mismatches.increment();
            return Err(Error::new(Kind::InvalidMac, ""));
        }
        if request.of.dry_run {
            return Err(dry_run());
        }
        record.last_use.note(UsedBy::VerifyMac);
        Ok(MacVerified {
            mac_algorithm: checked.algorithm,
            key_id: record.arn.clone(),
        })
    }

    /// Random bytes from the token's generator.
    ///
    /// # Errors
    /// KMS's for GenerateRandom: [`Kind::Validation`], [`Kind::AccessDenied`],
    /// [`Kind::UnsupportedOperation`], [`Kind::Throttling`], [`Kind::KeyUnavailable`],
    /// [`Kind::DependencyTimeout`], [`Kind::Internal`]. By `until` at the latest.
    pub async fn generate_random(
        &self,
        caller: &Caller,
        request: GenerateRandom,
        until: Instant,
    ) -> Result<Bytes, Error> {
        let mut broken = Vec::new();
        let number = request
            .number_of_bytes
            .and_then(|number| validate::number("numberOfBytes", number, 1..=1024, &mut broken));
        let store = request.custom_key_store_id.as_deref();
        validate::custom_key_store_id(store, &mut broken);
        let recipient = std::slice::from_ref(&request.recipient);
        validate::check_members(&[RECIPIENT], recipient, &mut broken);
        if !broken.is_empty() {
            return Err(validate::refuse(broken));
        }
        let Some(number) = number else {
            return Err(Error::new(Kind::Validation, "NumberOfBytes is required."));
        };
        let context = RequestContext::default();
        self.require(caller, Operation::GenerateRandom, Subject::Account, context)?;
        for (member, is_there) in [
            ("CustomKeyStoreId", store.is_some()),
            ("Recipient", request.recipient.is_some()),
        ] {
            if is_there {
                return Err(Error::new(
                    Kind::UnsupportedOperation,
                    format!("The parameter {member} is not supported."),
                ));
            }
        }
        loop {
            let Some(group) = self.random_group() else {
                return Err(Error::new(
                    Kind::UnsupportedOperation,
                    "There are several tokens and none is chosen for GenerateRandom; the operator must set new_keys.",
                ));
            };
            match group.random(number, caller.flow(), until).await {
                // A reload has taken these tokens away, and others make random bytes now.
                Err(token::Fault::Closed) if Instant::now() < until => yield_now().await,
                made => return made.map_err(|fault| asked_by(caller, from_token(fault))),
            }
        }
    }

    /// The constraints that both operations have.
    fn checked<'a>(
        &self,
        request: &'a GenerateMac,
        broken: &mut Vec<Violation>,
    ) -> Option<MacRequest<'a>> {
        let before = broken.len();
        let key_id = validate::key_id(request.key_id.as_deref(), broken);
        let message = validate::blob("message", request.message.as_ref(), 4096, broken);
        let algorithm = validate::mac_algorithm(&request.mac_algorithm, broken);
        validate::grant_tokens(&request.grant_tokens, broken);
        self.refuse_reserved(request.message.as_deref(), broken);
        if broken.len() > before {
            return None;
        }
        Some(MacRequest {
            key_id: key_id?,
            message: message?,
            algorithm: algorithm?,
            grant_tokens: &request.grant_tokens,
        })
    }

    /// The work of both operations, from the key's name to the right MAC.
    async fn mac(
        &self,
        caller: &Caller,
        operation: Operation,
        request: &MacRequest<'_>,
        until: Instant,
    ) -> Result<(Arc<KeyRecord>, Bytes), Error> {
        let timed = one_in(16, &JUDGED).then(Instant::now);
        let mut admitted = self.admit(caller, operation, request)?;
        if let Some(began) = timed {
            self.metrics.authorization.observe(began.elapsed());
        }
        for _ in 0..ADMISSIONS {
            let (record, key) = &admitted;
            let made = self
                .mac_with(record, key, (operation, caller.flow()), request, until)
                .await;
            match made.map_err(|error| asked_by(caller, error))? {
                Ok(mac) => return Ok((admitted.0, mac)),
                // The key was closed while this call was under way, or another policy or the end of a
                // grant has closed it for this caller. What the record says now is the answer; if the
                // caller is let in again, that is by another token::TokenKey.
                Err(fault) => {
                    tracing::debug!(%caller, %fault, "the caller's right is looked at again");
                    admitted = self.admit(caller, operation, request)?;
                }
            }
        }
        let (record, _) = admitted;
        require_able(&record, operation)?;
        Err(wrong_state(Refusal::Disabled, &record.arn).because("it was closed again and again"))
    }

    /// The key of a request, by the right that lets the caller use it now.
    fn admit(
        &self,
        caller: &Caller,
        operation: Operation,
        request: &MacRequest<'_>,
    ) -> Result<(Arc<KeyRecord>, Arc<token::TokenKey>), Error> {
        let subject = Subject::Key(request.key_id);
        let authorized = self.require(caller, operation, subject, request.context())?;
        let record = authorized
            .key
            .ok_or_else(|| internal("a key was authorised and not found"))?;
        // Security: who came by a grant alone has the key no longer than the grant.
        let key = match &authorized.grant {
            Some(grant) => Arc::new(record.key.under_grant(&grant.fence)),
            None => Arc::clone(&record.key),
        };
        Ok((record, key))
    }

    /// The inner error: the key was closed.
    async fn mac_with(
        &self,
        record: &KeyRecord,
        key: &Arc<token::TokenKey>,
        (operation, flow): (Operation, Flow),
        request: &MacRequest<'_>,
        until: Instant,
    ) -> Result<Result<Bytes, token::Fault>, Error> {
        if record.configured_state() == KeyState::PendingDeletion {
            self.metrics.pending_deletion_calls.increment();
        }
        require_able(record, operation)?;
        if request.algorithm != record.body.spec.mac_algorithm() {
            return Err(Error::new(
                Kind::InvalidKeyUsage,
                format!(
                    "Algorithm {} is incompatible with key spec {}.",
                    request.algorithm, record.body.spec
                ),
            ));
        }
        let Some(group) = self.group(record) else {
            if self.is_outdated(record) {
                return Ok(Err(token::Fault::Closed));
            }
            let reason = "the configuration has no such token any more";
            return Err(unavailable(&record.arn).because(reason));
        };
        if let Some(max) = group
            .max_message_bytes()
            .filter(|max| request.message.len() > *max)
        {
            return Err(validate::refuse(vec![Violation::new(
                "message",
                format!(
                    "Member must have length less than or equal to {max}, the limit of the key's token"
                ),
            )]));
        }
        let message = request.message.clone();
        match group.mac(key, message, flow, until).await {
            Ok(mac) => Ok(Ok(mac)),
            Err(fault @ token::Fault::Closed) => Ok(Err(fault)),
            Err(fault) => Err(from_key(fault, &record.arn)),
        }
    }
}

/// How often a call whose right ended under way is let in by another one. A policy, or a grant, must end
/// each time.
const ADMISSIONS: usize = 8;

/// Refuses what the key's state does not allow. A key that the token could not use is refused for a
/// while only: whoever mends its object need not restart hsmac.
fn require_able(record: &KeyRecord, operation: Operation) -> Result<(), Error> {
    operation
        .check(record.configured_state())
        .map_err(|refusal| wrong_state(refusal, &record.arn))?;
    match record.key.refusal() {
        Some(reason) => Err(unavailable(&record.arn).because(reason)),
        None => Ok(()),
    }
}

/// A request of GenerateMac or VerifyMac whose constraints hold.
struct MacRequest<'a> {
    key_id: &'a str,
    message: &'a Bytes,
    algorithm: MacAlgorithm,
    grant_tokens: &'a [String],
}

impl MacRequest<'_> {
    fn context(&self) -> RequestContext<'_> {
        RequestContext {
            grant_tokens: self.grant_tokens,
            mac_algorithm: Some(self.algorithm),
            ..RequestContext::default()
        }
    }
}

/// Security: the comparison takes as long for the first wrong byte as for the last, so that nobody
/// can guess a MAC byte by byte. Only the length, which is no secret, ends it early.
fn is_same_mac(right: &[u8], given: &[u8]) -> bool {
    right.len() == given.len() && bool::from(right.ct_eq(given))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kms::{
        catalogue::tests::{ACCOUNT, DISABLED, FIRST, caller},
        testing::without_tokens,
    };
    use crate::model::RESERVED_PREFIX;

    fn request(key_id: &str) -> GenerateMac {
        GenerateMac {
            key_id: Some(key_id.into()),
            message: Some(Bytes::from_static(b"Hello World")),
            mac_algorithm: EnumMember::Known(MacAlgorithm::HmacSha256),
            grant_tokens: Vec::new(),
            dry_run: false,
        }
    }

    async fn refusal(kms: &Kms, request: GenerateMac) -> Error {
        let until = Instant::now() + Duration::from_secs(1);
        let verify = VerifyMac {
            of: request.clone(),
            mac: Some(Bytes::from_static(&[0; 32])),
        };
        let verified = kms
            .verify_mac(&caller(ACCOUNT), verify, until)
            .await
            .unwrap_err();
        let made = kms
            .generate_mac(&caller(ACCOUNT), request, until)
            .await
            .unwrap_err();
        assert_eq!((made.kind(), made.say()), (verified.kind(), verified.say()));
        made
    }

    #[tokio::test]
    async fn checks_come_in_kms_s_order() {
        let kms = without_tokens();
        // Constraints before the key.
        let error = refusal(
            &kms,
            GenerateMac {
                message: None,
                ..request("key_id")
            },
        )
        .await;
        assert_eq!(error.kind(), Kind::Validation);
        // The key before rights (grant tokens).
        let token = vec!["token".to_owned()];
        let error = refusal(
            &kms,
            GenerateMac {
                grant_tokens: token.clone(),
                ..request("key_id")
            },
        )
        .await;
        assert_eq!(error.kind(), Kind::NotFound);
        // Rights before the state.
        let error = refusal(
            &kms,
            GenerateMac {
                grant_tokens: token,
                ..request(DISABLED)
            },
        )
        .await;
        assert_eq!(error.kind(), Kind::InvalidGrantToken);
        // The state before the algorithm: the disabled key is an HMAC_512.
        let error = refusal(&kms, request(DISABLED)).await;
        assert_eq!(error.kind(), Kind::Disabled);
        assert_eq!(
            error.say(),
            format!("arn:aws:kms:us-west-2:{ACCOUNT}:key/{DISABLED} is disabled.")
        );
        // The algorithm before the dry run.
        let algorithm = EnumMember::Known(MacAlgorithm::HmacSha512);
        let error = refusal(
            &kms,
            GenerateMac {
                mac_algorithm: algorithm,
                dry_run: true,
                ..request(FIRST)
            },
        )
        .await;
        assert_eq!(error.kind(), Kind::InvalidKeyUsage);
        assert_eq!(
            error.say(),
            "Algorithm HMAC_SHA_512 is incompatible with key spec HMAC_256."
        );
    }

    #[tokio::test]
    async fn several_broken_constraints_are_told_together() {
        let error = refusal(
            &without_tokens(),
            GenerateMac {
                key_id: Some(String::new()),
                message: Some(Bytes::new()),
                mac_algorithm: EnumMember::Absent,
                grant_tokens: vec![String::new()],
                dry_run: false,
            },
        )
        .await;
        assert!(
            error
                .say()
                .starts_with("4 validation errors detected: Value '' at 'keyId'")
        );
        let members: Vec<_> = error
            .field_violations()
            .iter()
            .map(Violation::member)
            .collect();
        assert_eq!(members, ["keyId", "message", "macAlgorithm", "grantTokens"]);
    }

    #[tokio::test]
    async fn no_client_gets_a_mac_of_a_reserved_message() {
        let kms = without_tokens();
        let message = [RESERVED_PREFIX.as_slice(), b"key check v1"].concat();
        let error = refusal(
            &kms,
            GenerateMac {
                message: Some(message.into()),
                ..request(FIRST)
            },
        )
        .await;
        assert_eq!(error.kind(), Kind::Validation);
        assert_eq!(kms.reserved_messages(), 2);
    }

    #[tokio::test]
    async fn random_bytes_need_a_number_and_a_token() {
        let kms = without_tokens();
        for (number_of_bytes, say) in [
            (None, "NumberOfBytes is required."),
            (
                Some(0),
                "1 validation error detected: Value '0' at 'numberOfBytes' failed to satisfy constraint: Member must have value greater than or equal to 1",
            ),
            (
                Some(1025),
                "1 validation error detected: Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024",
            ),
        ] {
            let request = GenerateRandom {
                number_of_bytes,
                ..GenerateRandom::default()
            };
            let error = kms
                .generate_random(&caller(ACCOUNT), request, Instant::now())
                .await;
            assert_eq!(error.unwrap_err().say(), say);
        }
        let request = GenerateRandom {
            number_of_bytes: Some(16),
            ..GenerateRandom::default()
        };
        let error = kms
            .generate_random(&caller(ACCOUNT), request, Instant::now())
            .await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::UnsupportedOperation);
        assert!(error.say().contains("new_keys"));
    }

    #[test]
    fn only_the_whole_mac_matches_and_the_comparison_tells_nothing_of_where_it_differs() {
        let right = [7; 32];
        assert!(is_same_mac(&right, &right));
        for byte in 0..right.len() {
            let mut wrong = right;
            wrong[byte] ^= 1;
            assert!(!is_same_mac(&right, &wrong));
        }
        assert!(!is_same_mac(&right, &right[..31]));
        assert!(!is_same_mac(&right, &[7; 33]));
        assert!(!is_same_mac(&right, &[]));
    }
}
