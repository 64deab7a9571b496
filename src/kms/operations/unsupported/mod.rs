//! Operations that no HMAC key can do: KMS's refusals, so that clients which mix up two keys are told so.

mod requests;

pub use requests::RECIPIENT;

use super::{
    MemberValue,
    validate::{check_members, refuse},
};
use crate::{
    error::{Error, Kind},
    kms::{
        authorization::RequestContext,
        catalogue::KeyRecord,
        errors::wrong_origin,
        service::{Kms, check_state},
    },
    model::{Caller, KeyUsage, Operation, Origin, UnsupportedOperation as Op},
};

impl Kms {
    /// Why a key cannot do this: the request's members are checked first, then the key is looked up, and
    /// its state checked, as KMS does. `members` are the values of [`Op::members`]; where KMS reads the
    /// key from the ciphertext, none names it.
    pub fn refuse_unsupported(
        &self,
        caller: &Caller,
        operation: Op,
        members: &[Option<MemberValue>],
    ) -> Error {
        match self.refused(caller, operation, members) {
            Ok(error) | Err(error) => error,
        }
    }

    /// The refusal of a key that is there (inner), or an earlier one.
    fn refused(
        &self,
        caller: &Caller,
        operation: Op,
        members: &[Option<MemberValue>],
    ) -> Result<Error, Error> {
        let mut broken = Vec::new();
        check_members(operation.members(), members, &mut broken);
        if !broken.is_empty() {
            return Err(refuse(broken));
        }
        let Some(key_id) = key_id(operation, members) else {
            // No key of ours has ever made a ciphertext.
            return Ok(Error::new(Kind::InvalidCiphertext, ""));
        };
        let requested = Operation::Unsupported(operation);
        let record = self.require_key(caller, requested, key_id, RequestContext::default())?;
        check_state(requested, &record)?;
        Ok(refusal(operation, &record))
    }
}

/// The key that a request names; Decrypt and ReEncrypt need not.
fn key_id(operation: Op, members: &[Option<MemberValue>]) -> Option<&str> {
    let mut named = operation.members().iter().zip(members);
    let (_, value) = named.find(|(member, _)| matches!(member.name, "keyId" | "sourceKeyId"))?;
    match value {
        Some(MemberValue::Text(key_id)) => Some(key_id),
        Some(_) | None => None,
    }
}

/// Why this key cannot do this.
fn refusal(operation: Op, record: &KeyRecord) -> Error {
    let arn = &record.arn;
    match operation {
        Op::Decrypt | Op::ReEncrypt => Error::new(
            Kind::IncorrectKey,
            "The key ID in the request does not identify a CMK that can perform this operation.",
        ),
        Op::DeleteImportedKeyMaterial | Op::GetParametersForImport | Op::ImportKeyMaterial => {
            match record.body.origin {
                Origin::AwsKms | Origin::AwsCloudHsm => wrong_origin(record.body.origin, arn),
                Origin::External => Error::new(
                    Kind::UnsupportedOperation,
                    "This version of hsmac cannot import key material.",
                ),
            }
        }
        Op::GetPublicKey => Error::new(Kind::UnsupportedOperation, ""),
        // KMS's words, of a replica and of a key that has none.
        Op::ReplicateKey | Op::UpdatePrimaryRegion => Error::new(
            Kind::UnsupportedOperation,
            format!("{arn} is not a multi-region primary key."),
        ),
        Op::Decapsulate
        | Op::DeriveSharedSecret
        | Op::Encapsulate
        | Op::Encrypt
        | Op::GenerateDataKey
        | Op::GenerateDataKeyPair
        | Op::GenerateDataKeyPairWithoutPlaintext
        | Op::GenerateDataKeyWithoutPlaintext
        | Op::Sign
        | Op::Verify => Error::new(
            Kind::InvalidKeyUsage,
            format!(
                "{arn} key usage is {} which is not valid for {}.",
                KeyUsage::GenerateVerifyMac.name(),
                operation.name()
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::MemberType, *};

    /// Where a request's key is found, and that no member is there twice.
    #[test]
    fn every_request_can_name_a_key() {
        for operation in Operation::ALL {
            let Operation::Unsupported(operation) = operation else {
                continue;
            };
            let members = operation.members();
            let values: Vec<_> = members
                .iter()
                .map(|member| {
                    let is_text = matches!(member.of, MemberType::Text(_));
                    is_text.then(|| MemberValue::Text(member.name.into()))
                })
                .collect();
            let found = key_id(operation, &values).unwrap();
            assert_eq!(found == "sourceKeyId", operation == Op::ReEncrypt);
            let mut names: Vec<_> = members.iter().map(|member| member.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), members.len(), "{operation:?}");
        }
    }
}
