//! `hsmac.v1.MacService`: protobuf messages to requests of `kms`, and its answers back. Decides nothing.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use tonic::{Request, Response, Status, Streaming};

use super::{
    call_context::CallContext,
    streams::{Answers, Streams},
};
use crate::{
    error::{Error, Violation},
    kms::{EnumMember, GenerateMac, GenerateRandom, Kms, VerifyMac},
    model::{self, Caller},
    proto::v1::{self, mac_service_server::MacService},
};

/// The implementation of MacService.
pub(super) struct MacApi {
    pub(super) kms: Arc<Kms>,
    pub(super) streams: Streams,
}

#[tonic::async_trait]
impl MacService for MacApi {
    async fn generate_mac(
        self: Arc<Self>,
        request: Request<v1::GenerateMacRequest>,
    ) -> Result<Response<v1::GenerateMacResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let made = generate_mac(&self.kms, &caller, request, context.until).await;
        context.reply(made, |made| made)
    }

    async fn verify_mac(
        self: Arc<Self>,
        request: Request<v1::VerifyMacRequest>,
    ) -> Result<Response<v1::VerifyMacResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let verified = verify_mac(&self.kms, &caller, request, context.until).await;
        context.reply(verified, |verified| verified)
    }

    type GenerateMacsStream = Answers<v1::GenerateMacsResponse>;

    async fn generate_macs(
        self: Arc<Self>,
        request: Request<Streaming<v1::GenerateMacsRequest>>,
    ) -> Result<Response<Self::GenerateMacsStream>, Status> {
        self.streams.open(self.kms.clone(), request)
    }

    type VerifyMacsStream = Answers<v1::VerifyMacsResponse>;

    async fn verify_macs(
        self: Arc<Self>,
        request: Request<Streaming<v1::VerifyMacsRequest>>,
    ) -> Result<Response<Self::VerifyMacsStream>, Status> {
        self.streams.open(self.kms.clone(), request)
    }

    async fn generate_random(
        self: Arc<Self>,
        request: Request<v1::GenerateRandomRequest>,
    ) -> Result<Response<v1::GenerateRandomResponse>, Status> {
        let (context, caller, request) = CallContext::take(request)?;
        let request = GenerateRandom {
            number_of_bytes: request.number_of_bytes.map(i64::from),
            ..GenerateRandom::default()
        };
        match self
            .kms
            .generate_random(&caller, request, context.until)
            .await
        {
            Ok(plaintext) => Ok(Response::new(v1::GenerateRandomResponse { plaintext })),
            Err(error) => Err(context.status(&error)),
        }
    }
}

/// GenerateMac, as a call or as an item of a stream.
pub(super) async fn generate_mac(
    kms: &Kms,
    caller: &Caller,
    request: v1::GenerateMacRequest,
    until: Instant,
) -> Result<v1::GenerateMacResponse, Error> {
    let verified = is_intact("message", &request.message, request.message_crc32c)?;
    let request = GenerateMac {
        key_id: Some(request.key_id),
        message: Some(request.message),
        mac_algorithm: named(request.mac_algorithm),
        grant_tokens: request.grant_tokens,
        dry_run: request.dry_run,
    };
    let made = kms.generate_mac(caller, request, until).await?;
    Ok(v1::GenerateMacResponse {
        mac_crc32c: Some(crc32c::crc32c(&made.mac)),
        mac: made.mac,
        mac_algorithm: algorithm_to_proto(made.mac_algorithm).into(),
        key_id: made.key_id.as_ref().to_owned(),
        verified_message_crc32c: verified,
    })
}

/// VerifyMac, as a call or as an item of a stream.
pub(super) async fn verify_mac(
    kms: &Kms,
    caller: &Caller,
    request: v1::VerifyMacRequest,
    until: Instant,
) -> Result<v1::VerifyMacResponse, Error> {
    let verified_message = is_intact("message", &request.message, request.message_crc32c)?;
    let verified_mac = is_intact("mac", &request.mac, request.mac_crc32c)?;
    let request = VerifyMac {
        of: GenerateMac {
            key_id: Some(request.key_id),
            message: Some(request.message),
            mac_algorithm: named(request.mac_algorithm),
            grant_tokens: request.grant_tokens,
            dry_run: request.dry_run,
        },
        mac: Some(request.mac),
    };
    let verified = kms.verify_mac(caller, request, until).await?;
    Ok(v1::VerifyMacResponse {
        key_id: verified.key_id.as_ref().to_owned(),
        mac_valid: true,
        mac_algorithm: algorithm_to_proto(verified.mac_algorithm).into(),
        verified_message_crc32c: verified_message,
        verified_mac_crc32c: verified_mac,
    })
}

pub(super) fn algorithm_to_proto(algorithm: model::MacAlgorithm) -> v1::MacAlgorithm {
    match algorithm {
        model::MacAlgorithm::HmacSha224 => v1::MacAlgorithm::HmacSha224,
        model::MacAlgorithm::HmacSha256 => v1::MacAlgorithm::HmacSha256,
        model::MacAlgorithm::HmacSha384 => v1::MacAlgorithm::HmacSha384,
        model::MacAlgorithm::HmacSha512 => v1::MacAlgorithm::HmacSha512,
    }
}

fn named(number: i32) -> EnumMember<model::MacAlgorithm> {
    match v1::MacAlgorithm::try_from(number) {
        Ok(v1::MacAlgorithm::Unspecified) => EnumMember::Absent,
        Ok(v1::MacAlgorithm::HmacSha224) => EnumMember::Known(model::MacAlgorithm::HmacSha224),
        Ok(v1::MacAlgorithm::HmacSha256) => EnumMember::Known(model::MacAlgorithm::HmacSha256),
        Ok(v1::MacAlgorithm::HmacSha384) => EnumMember::Known(model::MacAlgorithm::HmacSha384),
        Ok(v1::MacAlgorithm::HmacSha512) => EnumMember::Known(model::MacAlgorithm::HmacSha512),
        Err(_) => EnumMember::Unknown(number.to_string()),
    }
}

/// Whether a checksum came with a field; it is judged before the token sees anything.
fn is_intact(field: &str, bytes: &Bytes, checksum: Option<u32>) -> Result<bool, Error> {
    match checksum {
        None => Ok(false),
        Some(checksum) if checksum == crc32c::crc32c(bytes) => Ok(true),
        Some(checksum) => {
            let member = if field == "mac" {
                "macCrc32c"
            } else {
                "messageCrc32c"
            };
            let must = format!("Member must be the CRC32C of the {field} that arrived");
            let violation = Violation::new(member, must).of(checksum.to_string());
            Err(Error::violations(vec![violation]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_checksum_that_does_not_match_is_told_by_field() {
        // RFC 3720's test vector: 32 bytes of zero.
        let zeros = Bytes::from_static(&[0; 32]);
        assert!(is_intact("message", &zeros, Some(0x8a91_36aa)).unwrap());
        assert!(!is_intact("message", &zeros, None).unwrap());
        let error = is_intact("mac", &zeros, Some(1)).unwrap_err();
        assert_eq!(error.kind(), Kind::Validation);
        assert_eq!(error.field_violations()[0].member(), "macCrc32c");
    }

    #[test]
    fn algorithms_keep_their_numbers() {
        for algorithm in model::MacAlgorithm::ALL {
            let number = algorithm_to_proto(algorithm);
            assert_eq!(number.as_str_name(), algorithm.name());
            assert_eq!(named(number.into()), EnumMember::Known(algorithm));
        }
        assert_eq!(named(0), EnumMember::Absent);
        assert_eq!(named(9), EnumMember::Unknown("9".into()));
    }
}
