//! Operations that no HMAC key can do: KMS's refusals, so that whoever mixes up two keys is told so.

use super::{Kms, change::check_state, rights::Asks, validate};
use crate::{
    error::{Error, Kind},
    model::{Caller, Foreign, KeyUsage, Operation},
};

impl Kms {
    /// Why a key cannot do this: the key is looked up first, and its state checked, as KMS does.
    /// `key_id` is the key that the request names; where KMS reads it from the ciphertext, none.
    pub fn refuse_foreign(
        &self,
        caller: &Caller,
        operation: Foreign,
        key_id: Option<&str>,
    ) -> Error {
        match self.refused(caller, operation, key_id) {
            Ok(error) | Err(error) => error,
        }
    }

    /// The refusal of a key that is there (inner), or an earlier one.
    fn refused(
        &self,
        caller: &Caller,
        operation: Foreign,
        key_id: Option<&str>,
    ) -> Result<Error, Error> {
        let decrypts = matches!(operation, Foreign::Decrypt | Foreign::ReEncrypt);
        if decrypts && key_id.is_none() {
            // No key of ours has ever made a ciphertext.
            return Ok(Error::new(Kind::InvalidCiphertext, ""));
        }
        let asked = Operation::Foreign(operation);
        let record = self.admit(
            caller,
            asked,
            validate::only_key_id(key_id)?,
            &Asks::default(),
        )?;
        check_state(asked, &record)?;
        Ok(match operation {
            Foreign::Decrypt | Foreign::ReEncrypt => Error::new(
                Kind::IncorrectKey,
                "The key ID in the request does not identify a CMK that can perform this operation.",
            ),
            Foreign::GetPublicKey => Error::new(Kind::UnsupportedOperation, ""),
            Foreign::DeriveSharedSecret
            | Foreign::Encrypt
            | Foreign::GenerateDataKey
            | Foreign::GenerateDataKeyPair
            | Foreign::GenerateDataKeyPairWithoutPlaintext
            | Foreign::GenerateDataKeyWithoutPlaintext
            | Foreign::Sign
            | Foreign::Verify => Error::new(
                Kind::InvalidKeyUsage,
                format!(
                    "{} key usage is {} which is not valid for {}.",
                    record.arn,
                    KeyUsage::GenerateVerifyMac.name(),
                    operation.name()
                ),
            ),
        })
    }
}
