//! What generate-macs and verify-macs differ in.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use tonic::{Response, Status, Streaming, codegen::tokio_stream::Stream, transport::Channel};

use super::StreamArguments;
use crate::proto::v1::{self, mac_service_client::MacServiceClient};

/// What one line asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Asked {
    pub(super) message: Bytes,
    /// Of verify-macs.
    pub(super) mac: Bytes,
}

/// What became of one line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// Its MAC.
    Mac(Bytes),
    /// Its MAC is right.
    Valid,
    /// The exception's name, or none if the line is at fault, and the text.
    Failed(Option<String>, String),
}

/// An answer: an outcome that stands, or an error that has to be judged.
pub(super) type Answer = Result<Outcome, Box<v1::ItemError>>;

/// One of the two verbs.
pub(super) trait StreamVerb {
    type Item: prost::Message + 'static;
    type Answer: prost::Message + Default + 'static;
    const NAME: &'static str;
    /// Whether lines have a MAC.
    const HAS_MAC: bool;
    /// The member or column that is added.
    const ADDED: &'static str;

    fn item(&self, id: u64, asked: &Asked) -> Self::Item;

    async fn open(
        &self,
        client: MacServiceClient<Channel>,
        items: impl Stream<Item = Self::Item> + Send + 'static,
    ) -> Result<Response<Streaming<Self::Answer>>, Status>;

    /// The item's ID and outcome; none: the answer is damaged, or none of hsmac's.
    fn answer(answer: Self::Answer) -> Option<(u64, Answer)>;
}

pub(super) struct Generate<'a>(pub(super) &'a StreamArguments);

pub(super) struct Verify<'a>(pub(super) &'a StreamArguments);

impl StreamVerb for Generate<'_> {
    type Item = v1::GenerateMacsRequest;
    type Answer = v1::GenerateMacsResponse;
    const NAME: &'static str = "GenerateMacs";
    const HAS_MAC: bool = false;
    const ADDED: &'static str = "mac";

    fn item(&self, id: u64, asked: &Asked) -> Self::Item {
        let request = v1::GenerateMacRequest {
            key_id: self.0.key_id.clone(),
            message: asked.message.clone(),
            mac_algorithm: self.0.algorithm(),
            grant_tokens: self.0.grant_tokens.clone(),
            dry_run: false,
            message_crc32c: Some(crc32c::crc32c(&asked.message)),
        };
        let request = Some(request);
        v1::GenerateMacsRequest { id, request }
    }

    async fn open(
        &self,
        mut client: MacServiceClient<Channel>,
        items: impl Stream<Item = Self::Item> + Send + 'static,
    ) -> Result<Response<Streaming<Self::Answer>>, Status> {
        client.generate_macs(items).await
    }

    fn answer(answer: Self::Answer) -> Option<(u64, Answer)> {
        use v1::generate_macs_response::Outcome as Wire;
        let outcome = match answer.outcome? {
            Wire::Error(error) => Err(Box::new(error)),
            Wire::Response(made) => {
                let intact = made.verified_message_crc32c
                    && made.mac_crc32c == Some(crc32c::crc32c(&made.mac));
                Ok(Outcome::Mac(intact.then_some(made.mac)?))
            }
        };
        Some((answer.id, outcome))
    }
}

impl StreamVerb for Verify<'_> {
    type Item = v1::VerifyMacsRequest;
    type Answer = v1::VerifyMacsResponse;
    const NAME: &'static str = "VerifyMacs";
    const HAS_MAC: bool = true;
    const ADDED: &'static str = "mac_valid";

    fn item(&self, id: u64, asked: &Asked) -> Self::Item {
        let request = v1::VerifyMacRequest {
            key_id: self.0.key_id.clone(),
            message: asked.message.clone(),
            mac_algorithm: self.0.algorithm(),
            mac: asked.mac.clone(),
            grant_tokens: self.0.grant_tokens.clone(),
            dry_run: false,
            message_crc32c: Some(crc32c::crc32c(&asked.message)),
            mac_crc32c: Some(crc32c::crc32c(&asked.mac)),
        };
        let request = Some(request);
        v1::VerifyMacsRequest { id, request }
    }

    async fn open(
        &self,
        mut client: MacServiceClient<Channel>,
        items: impl Stream<Item = Self::Item> + Send + 'static,
    ) -> Result<Response<Streaming<Self::Answer>>, Status> {
        client.verify_macs(items).await
    }

    fn answer(answer: Self::Answer) -> Option<(u64, Answer)> {
        use v1::verify_macs_response::Outcome as Wire;
        let outcome = match answer.outcome? {
            Wire::Error(error) => Err(Box::new(error)),
            Wire::Response(verified) => {
                let intact = verified.verified_message_crc32c
                    && verified.verified_mac_crc32c
                    // The contract has no such answer; to read it as success would be the worst of errors.
                    && verified.mac_valid;
                Ok(intact.then_some(Outcome::Valid)?)
            }
        };
        Some((answer.id, outcome))
    }
}

impl Outcome {
    /// In a line of its own, or in a column.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Mac(mac) => STANDARD.encode(mac),
            Self::Valid => "valid".to_owned(),
            Self::Failed(Some(exception), _) => exception.clone(),
            Self::Failed(None, _) => "invalid line".to_owned(),
        }
    }
}
