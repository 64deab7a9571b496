//! GetKeyLastUsage: when a key last made or checked a MAC.

use std::sync::Arc;

use super::validate;
use crate::{
    error::Error,
    kms::{authorization::RequestContext, service::Kms},
    model::{Caller, Date, Operation},
};

/// KMS: GetKeyLastUsageRequest.
#[derive(Clone, Debug)]
pub struct GetKeyLastUsage {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
}

/// KMS: GetKeyLastUsageResponse.
#[derive(Clone, Debug)]
pub struct KeyLastUsage {
    /// The key's ARN.
    pub key_id: Arc<str>,
    /// The last successful use since tracking began, if there was one.
    pub last: Option<(Operation, Date)>,
    /// Since when uses of this key are recorded.
    pub tracking_start: Date,
    /// Absent for declared keys.
    pub key_creation: Option<Date>,
}

impl Kms {
    /// When a key last made or checked a MAC.
    ///
    /// # Errors
    /// KMS's for GetKeyLastUsage: `Kind::Validation`, `Kind::AccessDenied`, `Kind::NotFound`,
    /// `Kind::InvalidArn`.
    pub fn key_last_usage(
        &self,
        caller: &Caller,
        request: &GetKeyLastUsage,
    ) -> Result<KeyLastUsage, Error> {
        let mut broken = Vec::new();
        let Some(key_id) = validate::key_id(request.key_id.as_deref(), &mut broken) else {
            return Err(validate::refuse(broken));
        };
        let record = self.require_key(
            caller,
            Operation::GetKeyLastUsage,
            key_id,
            RequestContext::default(),
        )?;
        let key_creation = record.body.created;
        Ok(KeyLastUsage {
            key_id: record.arn.clone(),
            last: record
                .last_use
                .last()
                .map(|used| (used.operation.operation(), used.at)),
            tracking_start: key_creation
                .map_or(self.tracking_start, |made| made.max(self.tracking_start)),
            key_creation,
        })
    }
}
