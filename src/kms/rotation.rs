//! The rotation family: an HMAC key cannot be rotated, and KMS says so in a way of its own for each
//! of them.

use std::sync::Arc;

use super::{Kms, Named, Record, change::check_state, rights::Asks, validate};
use crate::{
    error::{Error, Kind},
    model::{Caller, Operation, Origin},
};

/// KMS: ListKeyRotationsRequest.
#[derive(Clone, Debug)]
pub struct ListKeyRotations {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// Which rotations to tell of.
    pub include_key_material: Named<IncludeKeyMaterial>,
    /// 1 to 1,000.
    pub limit: Option<i64>,
    /// There is never a second page, so no marker is one of ours.
    pub marker: Option<String>,
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
    /// Those of KMS's GetKeyRotationStatus.
    pub fn key_rotation_status(
        &self,
        caller: &Caller,
        key_id: Option<&str>,
    ) -> Result<Arc<str>, Error> {
        let record = self.rotated(caller, Operation::GetKeyRotationStatus, key_id)?;
        Ok(record.arn.clone())
    }

    /// KMS: ListKeyRotations. There are none.
    ///
    /// # Errors
    /// Those of KMS's ListKeyRotations.
    pub fn list_key_rotations(
        &self,
        caller: &Caller,
        request: &ListKeyRotations,
    ) -> Result<(), Error> {
        let mut broken = Vec::new();
        let key_id = validate::key_id(request.key_id.as_deref(), &mut broken);
        validate::limit(request.limit, 100, 1000, &mut broken);
        if let Some(marker) = &request.marker {
            validate::marker(marker, &mut broken);
        }
        validate::include_key_material(&request.include_key_material, &mut broken);
        let (Some(key_id), true) = (key_id, broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };

        self.rotated(caller, Operation::ListKeyRotations, Some(key_id))?;
        if request.include_key_material == Named::Known(IncludeKeyMaterial::AllKeyMaterial) {
            return Err(Error::new(
                Kind::Validation,
                "Input parameter includeKeyMaterial can only be used with symmetric keys.",
            ));
        }
        match request.marker {
            None => Ok(()),
            Some(_) => Err(Error::new(Kind::InvalidMarker, "")),
        }
    }

    /// KMS: DisableKeyRotation, which is done already.
    ///
    /// # Errors
    /// Those of KMS's DisableKeyRotation; imported keys cannot even be asked.
    pub fn disable_key_rotation(&self, caller: &Caller, key_id: Option<&str>) -> Result<(), Error> {
        let record = self.rotated(caller, Operation::DisableKeyRotation, key_id)?;
        require_own_material(&record)
    }

    /// KMS: EnableKeyRotation.
    ///
    /// # Errors
    /// Always: [`Kind::UnsupportedOperation`] if nothing else is wrong.
    pub fn enable_key_rotation(&self, caller: &Caller, key_id: Option<&str>) -> Result<(), Error> {
        let record = self.rotated(caller, Operation::EnableKeyRotation, key_id)?;
        require_own_material(&record)?;
        Err(Error::new(Kind::UnsupportedOperation, ""))
    }

    /// KMS: RotateKeyOnDemand.
    ///
    /// # Errors
    /// Always: [`Kind::UnsupportedOperation`] if nothing else is wrong.
    pub fn rotate_key_on_demand(&self, caller: &Caller, key_id: Option<&str>) -> Result<(), Error> {
        self.rotated(caller, Operation::RotateKeyOnDemand, key_id)?;
        Err(Error::new(Kind::UnsupportedOperation, ""))
    }

    /// The key that one of the family asks about.
    fn rotated(
        &self,
        caller: &Caller,
        operation: Operation,
        key_id: Option<&str>,
    ) -> Result<Arc<Record>, Error> {
        let record = self.admit(
            caller,
            operation,
            validate::only_key_id(key_id)?,
            &Asks::default(),
        )?;
        check_state(operation, &record)?;
        Ok(record)
    }
}

/// Imported material is rotated by importing other material, never by KMS.
fn require_own_material(record: &Record) -> Result<(), Error> {
    match record.body.origin {
        Origin::AwsKms | Origin::AwsCloudHsm => Ok(()),
        Origin::External => Err(Error::new(
            Kind::UnsupportedOperation,
            format!(
                "{} origin is EXTERNAL which is not valid for this operation.",
                record.arn
            ),
        )),
    }
}
