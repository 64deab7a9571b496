use serde::Serialize;

use super::{
    super::wire::{base64, bytes},
    Answered, Bytes, Call,
};
use crate::{
    error::Error,
    kms::{GenerateMac, GenerateRandom, VerifyMac},
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
            mac: self.asked.blob("Mac")?,
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
            number_of_bytes: self.asked.number("NumberOfBytes")?,
        };
        self.asked.refuse("CustomKeyStoreId")?;
        self.asked.refuse("Recipient")?;
        let plaintext = self
            .kms
            .generate_random(self.caller, request, self.until)
            .await?;
        Ok(bytes(&GenerateRandomResponse { plaintext }))
    }

    /// What GenerateMac and VerifyMac both have.
    fn mac_members(&mut self) -> Result<GenerateMac, Error> {
        let asked = &mut self.asked;
        Ok(GenerateMac {
            key_id: asked.text("KeyId")?,
            message: asked.blob("Message")?,
            mac_algorithm: asked.named("MacAlgorithm", &MacAlgorithm::ALL, MacAlgorithm::name)?,
            grant_tokens: asked.texts("GrantTokens")?,
            dry_run: asked.flag("DryRun")?,
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
