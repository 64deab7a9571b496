//! GenerateMac, VerifyMac and GenerateRandom: JSON members to requests of `kms`, and its answers back.

use serde::Serialize;

use super::{
    super::json::{base64, bytes},
    Answered, Bytes, Call,
};
use crate::{
    error::Error,
    kms::{GenerateMac, GenerateRandom, RECIPIENT, VerifyMac},
    model::MacAlgorithm,
};

impl Call<'_> {
    pub(super) async fn generate_mac(mut self) -> Answered {
        let request = self.mac_members()?;
        let made = self
            .kms
            .generate_mac(self.caller, request, self.until)
            .await?;
        Ok(bytes(&GenerateMacResponse {
            key_id: &made.key_id,
            mac: made.mac,
            mac_algorithm: made.mac_algorithm.name(),
        }))
    }

    pub(super) async fn verify_mac(mut self) -> Answered {
        let request = VerifyMac {
            of: self.mac_members()?,
            mac: self.members.blob("Mac")?,
        };
        let verified = self
            .kms
            .verify_mac(self.caller, request, self.until)
            .await?;
        Ok(bytes(&VerifyMacResponse {
            key_id: &verified.key_id,
            mac_algorithm: verified.mac_algorithm.name(),
            mac_valid: true,
        }))
    }

    pub(super) async fn generate_random(mut self) -> Answered {
        let request = GenerateRandom {
            number_of_bytes: self.members.number("NumberOfBytes")?,
            custom_key_store_id: self.members.text("CustomKeyStoreId")?,
            recipient: self.members.value(&RECIPIENT)?,
        };
        let plaintext = self
            .kms
            .generate_random(self.caller, request, self.until)
            .await?;
        Ok(bytes(&GenerateRandomResponse { plaintext }))
    }

    /// What GenerateMac and VerifyMac both have.
    fn mac_members(&mut self) -> Result<GenerateMac, Error> {
        let members = &mut self.members;
        Ok(GenerateMac {
            key_id: members.text("KeyId")?,
            message: members.blob("Message")?,
            mac_algorithm: members.named("MacAlgorithm", &MacAlgorithm::ALL, MacAlgorithm::name)?,
            grant_tokens: members.texts("GrantTokens")?,
            dry_run: members.flag("DryRun")?,
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GenerateMacResponse<'a> {
    key_id: &'a str,
    #[serde(serialize_with = "base64")]
    mac: Bytes,
    mac_algorithm: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct VerifyMacResponse<'a> {
    key_id: &'a str,
    mac_algorithm: &'a str,
    mac_valid: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GenerateRandomResponse {
    #[serde(serialize_with = "base64")]
    plaintext: Bytes,
}
