//! What GenerateMacs and VerifyMacs differ in.

use std::time::Instant;

use prost::Message;

use super::super::{super::metrics::CalledOperation, GENERATE_MACS, VERIFY_MACS, mac};
use crate::{error::Error, kms::Kms, model::Caller, proto::v1};

/// An item of a stream.
pub(in crate::front::grpc) trait StreamItem:
    Message + Default + 'static
{
    /// What the client reads for each item.
    type Answer: Message + 'static;
    /// The answer of the call that an item stands for.
    type Response: Send;
    /// What items are counted under.
    const OPERATION: CalledOperation;
    /// The stream's path.
    const PATH: &'static str;

    /// The client's name for the item.
    fn id(&self) -> u64;

    /// Asks what the call alone would ask.
    fn ask(
        self,
        kms: &Kms,
        caller: &Caller,
        until: Instant,
    ) -> impl Future<Output = Result<Self::Response, Error>> + Send;

    /// What the client reads.
    fn answer(id: u64, outcome: Result<Self::Response, v1::ItemError>) -> Self::Answer;
}

impl StreamItem for v1::GenerateMacsRequest {
    type Answer = v1::GenerateMacsResponse;
    type Response = v1::GenerateMacResponse;
    const OPERATION: CalledOperation = CalledOperation::GENERATE_MACS;
    const PATH: &'static str = GENERATE_MACS;

    fn id(&self) -> u64 {
        self.id
    }

    async fn ask(
        self,
        kms: &Kms,
        caller: &Caller,
        until: Instant,
    ) -> Result<Self::Response, Error> {
        // An item without a request breaks the constraints of an empty one.
        mac::generate_mac(kms, caller, self.request.unwrap_or_default(), until).await
    }

    fn answer(id: u64, outcome: Result<Self::Response, v1::ItemError>) -> Self::Answer {
        use v1::generate_macs_response::Outcome;
        let outcome = outcome.map_or_else(Outcome::Error, Outcome::Response);
        v1::GenerateMacsResponse {
            id,
            outcome: Some(outcome),
        }
    }
}

impl StreamItem for v1::VerifyMacsRequest {
    type Answer = v1::VerifyMacsResponse;
    type Response = v1::VerifyMacResponse;
    const OPERATION: CalledOperation = CalledOperation::VERIFY_MACS;
    const PATH: &'static str = VERIFY_MACS;

    fn id(&self) -> u64 {
        self.id
    }

    async fn ask(
        self,
        kms: &Kms,
        caller: &Caller,
        until: Instant,
    ) -> Result<Self::Response, Error> {
        mac::verify_mac(kms, caller, self.request.unwrap_or_default(), until).await
    }

    fn answer(id: u64, outcome: Result<Self::Response, v1::ItemError>) -> Self::Answer {
        use v1::verify_macs_response::Outcome;
        let outcome = outcome.map_or_else(Outcome::Error, Outcome::Response);
        v1::VerifyMacsResponse {
            id,
            outcome: Some(outcome),
        }
    }
}
