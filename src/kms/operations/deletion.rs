//! ScheduleKeyDeletion and CancelKeyDeletion.

use std::{sync::Arc, time::Instant};

use super::validate;
use crate::{
    error::{Error, Kind},
    kms::{
        authorization::{DEFAULT_WINDOW_IN_DAYS, RequestContext},
        catalogue::stored::StoredState,
        service::Kms,
    },
    model::{Caller, Date, KeyState, Operation},
};

/// KMS: ScheduleKeyDeletionRequest.
#[derive(Clone, Debug)]
pub struct ScheduleKeyDeletion {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// 7 to 30; 30 if absent.
    pub pending_window_in_days: Option<i64>,
}

/// KMS: ScheduleKeyDeletionResponse.
#[derive(Clone, Debug)]
pub struct DeletionScheduled {
    /// The key's ARN.
    pub key_id: Arc<str>,
    /// From then on the key is deleted.
    pub deletion_date: Date,
    /// Always pending deletion.
    pub key_state: KeyState,
    /// As asked for.
    pub pending_window_in_days: u32,
}

/// KMS: CancelKeyDeletionRequest.
#[derive(Clone, Debug)]
pub struct CancelKeyDeletion {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
}

impl Kms {
    /// Stops a key from serving, as DisableKey does, and has it deleted when the window is over.
    ///
    /// # Errors
    /// KMS's for ScheduleKeyDeletion: [`Kind::Validation`], [`Kind::AccessDenied`],
    /// [`Kind::NotFound`], [`Kind::InvalidArn`], [`Kind::InvalidState`],
    /// [`Kind::UnsupportedOperation`], [`Kind::DependencyTimeout`], [`Kind::Internal`].
    pub async fn schedule_key_deletion(
        &self,
        caller: &Caller,
        request: &ScheduleKeyDeletion,
        until: Instant,
    ) -> Result<DeletionScheduled, Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        let days = validate::number(
            "pendingWindowInDays",
            request
                .pending_window_in_days
                .unwrap_or_else(|| DEFAULT_WINDOW_IN_DAYS.into()),
            1..=365,
            &mut broken,
        )
        .and_then(|days| u32::try_from(days).ok());
        let (Some(key_id), Some(days)) = (key_id, days) else {
            return Err(validate::refuse(broken));
        };
        if !(7..=30).contains(&days) {
            return Err(Error::new(
                Kind::Validation,
                "PendingWindowInDays must be between 7 and 30 (inclusive).",
            ));
        }

        let context = RequestContext {
            pending_window_in_days: Some(days),
            ..RequestContext::default()
        };
        let mut deletion_date = Date::default();
        let record = self
            .change_key(
                caller,
                Operation::ScheduleKeyDeletion,
                key_id,
                context,
                until,
                |_, body| {
                    deletion_date = Date::now().plus_days(days);
                    body.state = StoredState::PendingDeletion {
                        deletion_date,
                        pending_window_in_days: days,
                    };
                    Ok(())
                },
            )
            .await?;
        self.lifecycle()?.fence(&record).await;
        Ok(DeletionScheduled {
            key_id: record.arn.clone(),
            deletion_date,
            key_state: KeyState::PendingDeletion,
            pending_window_in_days: days,
        })
    }

    /// Keeps a key that was to be deleted. It is disabled then, as in KMS. Gives its ARN.
    ///
    /// # Errors
    /// KMS's for CancelKeyDeletion: [`Kind::Validation`], [`Kind::AccessDenied`],
    /// [`Kind::NotFound`], [`Kind::InvalidArn`], [`Kind::InvalidState`],
    /// [`Kind::UnsupportedOperation`], [`Kind::DependencyTimeout`], [`Kind::Internal`].
    pub async fn cancel_key_deletion(
        &self,
        caller: &Caller,
        request: &CancelKeyDeletion,
        until: Instant,
    ) -> Result<Arc<str>, Error> {
        let key_id = validate::only_key_id(request.key_id.as_deref())?;
        self.change_key(
            caller,
            Operation::CancelKeyDeletion,
            key_id,
            RequestContext::default(),
            until,
            |_, body| {
                body.state = StoredState::Disabled;
                Ok(())
            },
        )
        .await
        .map(|record| record.arn.clone())
    }
}
