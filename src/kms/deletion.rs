use std::{sync::Arc, time::Instant};

use super::{Kms, now, records::Life, rights::Asks, validate};
use crate::{
    error::{Error, Kind},
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
    /// Those of KMS's ScheduleKeyDeletion.
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
            request.pending_window_in_days.unwrap_or(30),
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

        let asks = Asks {
            pending_window_in_days: Some(days),
            ..Asks::default()
        };
        let mut deletion_date = Date::default();
        let record = self
            .change_key(
                caller,
                Operation::ScheduleKeyDeletion,
                key_id,
                &asks,
                until,
                |_, body| {
                    deletion_date = now().plus_days(days);
                    body.life = Life::PendingDeletion {
                        deletion_date,
                        pending_window_in_days: days,
                    };
                    Ok(())
                },
            )
            .await?;
        self.fence(&record).await;
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
    /// Those of KMS's CancelKeyDeletion.
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
            &Asks::default(),
            until,
            |_, body| {
                body.life = Life::Disabled;
                Ok(())
            },
        )
        .await
        .map(|record| record.arn.clone())
    }
}
