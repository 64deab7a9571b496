//! The rotation family: an HMAC key cannot be rotated, and KMS says so in a way of its own for each
//! of them.

use std::{convert::Infallible, sync::Arc};

use super::{EnumMember, marker::only_page, validate};
use crate::{
    error::{Error, Kind},
    kms::{
        authorization::RequestContext,
        catalogue::KeyRecord,
        errors::wrong_origin,
        service::{Kms, check_state},
    },
    model::{Caller, Operation, Origin},
};

/// KMS: ListKeyRotationsRequest.
#[derive(Clone, Debug)]
pub struct ListKeyRotations {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// Which rotations to tell of.
    pub include_key_material: EnumMember<IncludeKeyMaterial>,
    /// 1 to 1,000.
    pub limit: Option<i64>,
    /// There is never a second page, so no marker is one of ours.
    pub marker: Option<String>,
}

/// KMS: EnableKeyRotationRequest.
#[derive(Clone, Debug)]
pub struct EnableKeyRotation {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// 90 to 2,560.
    pub rotation_period_in_days: Option<i64>,
}

/// KMS: IncludeKeyMaterial.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IncludeKeyMaterial {
    /// Material that was never rotated to as well; for symmetric keys only.
    AllKeyMaterial,
    /// KMS's default.
    RotationsOnly,
}

impl IncludeKeyMaterial {
    /// In KMS's order.
    pub const ALL: [Self; 2] = [Self::AllKeyMaterial, Self::RotationsOnly];

    /// KMS's name, `ALL_KEY_MATERIAL`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllKeyMaterial => "ALL_KEY_MATERIAL",
            Self::RotationsOnly => "ROTATIONS_ONLY",
        }
    }
}

impl Kms {
    /// KMS: GetKeyRotationStatus. Gives the key's ARN: rotation is never enabled.
    ///
    /// # Errors
    /// KMS's for GetKeyRotationStatus: [`Kind::Validation`], [`Kind::AccessDenied`],
    /// [`Kind::NotFound`], [`Kind::InvalidArn`], [`Kind::InvalidState`] while the key is being made.
    pub fn key_rotation_status(
        &self,
        caller: &Caller,
        key_id: Option<&str>,
    ) -> Result<Arc<str>, Error> {
        let key_id = validate::only_key_id(key_id)?;
        let record = self.rotated(caller, Operation::GetKeyRotationStatus, key_id)?;
        Ok(record.arn.clone())
    }

    /// KMS: ListKeyRotations. There are none.
    ///
    /// # Errors
    /// KMS's for ListKeyRotations: [`Kind::Validation`], [`Kind::AccessDenied`],
    /// [`Kind::NotFound`], [`Kind::InvalidArn`], [`Kind::InvalidState`], [`Kind::InvalidMarker`].
    pub fn list_key_rotations(
        &self,
        caller: &Caller,
        request: &ListKeyRotations,
    ) -> Result<(), Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        let marker = request.marker.as_deref();
        validate::page(request.limit, marker, &mut broken);
        validate::include_key_material(&request.include_key_material, &mut broken);
        let (Some(key_id), true) = (key_id, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };

        self.rotated(caller, Operation::ListKeyRotations, key_id)?;
        if request.include_key_material == EnumMember::Known(IncludeKeyMaterial::AllKeyMaterial) {
            return Err(Error::new(
                Kind::Validation,
                "Input parameter includeKeyMaterial can only be used with symmetric keys.",
            ));
        }
        only_page(marker)
    }

    /// KMS: DisableKeyRotation, which is done already.
    ///
    /// # Errors
    /// KMS's for DisableKeyRotation: [`Kind::Validation`], [`Kind::AccessDenied`],
    /// [`Kind::NotFound`], [`Kind::InvalidArn`], [`Kind::Disabled`], [`Kind::InvalidState`],
    /// [`Kind::UnsupportedOperation`]. Imported keys cannot even be asked.
    pub fn disable_key_rotation(&self, caller: &Caller, key_id: Option<&str>) -> Result<(), Error> {
        let key_id = validate::only_key_id(key_id)?;
        let record = self.rotated(caller, Operation::DisableKeyRotation, key_id)?;
        require_own_material(&record)
    }

    /// KMS: EnableKeyRotation.
    ///
    /// # Errors
    /// Always: [`Kind::UnsupportedOperation`] if nothing else is wrong.
    pub fn enable_key_rotation(
        &self,
        caller: &Caller,
        request: &EnableKeyRotation,
    ) -> Result<Infallible, Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        if let Some(days) = request.rotation_period_in_days {
            validate::number("rotationPeriodInDays", days, 90..=2560, &mut broken);
        }
        let (Some(key_id), true) = (key_id, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };
        let record = self.rotated(caller, Operation::EnableKeyRotation, key_id)?;
        require_own_material(&record)?;
        Err(Error::new(Kind::UnsupportedOperation, ""))
    }

    /// KMS: RotateKeyOnDemand.
    ///
    /// # Errors
    /// Always: [`Kind::UnsupportedOperation`] if nothing else is wrong.
    pub fn rotate_key_on_demand(
        &self,
        caller: &Caller,
        key_id: Option<&str>,
    ) -> Result<Infallible, Error> {
        let key_id = validate::only_key_id(key_id)?;
        self.rotated(caller, Operation::RotateKeyOnDemand, key_id)?;
        Err(Error::new(Kind::UnsupportedOperation, ""))
    }

    /// The key that one of the family asks about.
    fn rotated(
        &self,
        caller: &Caller,
        operation: Operation,
        key_id: &str,
    ) -> Result<Arc<KeyRecord>, Error> {
        let record = self.require_key(caller, operation, key_id, RequestContext::default())?;
        check_state(operation, &record)?;
        Ok(record)
    }
}

/// Imported material is rotated by importing other material, never by KMS.
fn require_own_material(record: &KeyRecord) -> Result<(), Error> {
    match record.body.origin {
        Origin::AwsKms | Origin::AwsCloudHsm => Ok(()),
        Origin::External => Err(wrong_origin(Origin::External, &record.arn)),
    }
}
