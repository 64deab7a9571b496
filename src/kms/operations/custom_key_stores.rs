//! Custom key stores, of which there are none: tokens are declared in the configuration.

use super::{
    marker::only_page,
    validate::{self, text},
};
use crate::{
    error::{Error, Kind},
    kms::{
        authorization::{RequestContext, Subject},
        service::Kms,
    },
    model::{Caller, Operation},
};

/// KMS: DescribeCustomKeyStoresRequest.
#[derive(Clone, Debug, Default)]
pub struct DescribeCustomKeyStores {
    /// Only this one.
    pub custom_key_store_id: Option<String>,
    /// Only the one of this name.
    pub custom_key_store_name: Option<String>,
    /// 1 to 1,000.
    pub limit: Option<i64>,
    /// There is never a second page, so no marker is one of ours.
    pub marker: Option<String>,
}

impl Kms {
    /// KMS: DescribeCustomKeyStores. There are none.
    ///
    /// # Errors
    /// KMS's for DescribeCustomKeyStores: [`Kind::Validation`], [`Kind::AccessDenied`],
    /// [`Kind::InvalidMarker`]; [`Kind::CustomKeyStoreNotFound`] if one is asked for.
    pub fn describe_custom_key_stores(
        &self,
        caller: &Caller,
        request: &DescribeCustomKeyStores,
    ) -> Result<(), Error> {
        let mut broken = Vec::new();
        let id = request.custom_key_store_id.as_deref();
        let name = request.custom_key_store_name.as_deref();
        validate::custom_key_store_id(id, &mut broken);
        let of = &text::CUSTOM_KEY_STORE_NAME;
        validate::optional_text("customKeyStoreName", of, name, &mut broken);
        let marker = request.marker.as_deref();
        validate::page(request.limit, marker, &mut broken);
        if !broken.is_empty() {
            return Err(validate::refuse(broken));
        }
        let (operation, context) = (
            Operation::DescribeCustomKeyStores,
            RequestContext::default(),
        );
        self.require(caller, operation, Subject::Account, context)?;
        if let Some(wanted) = id.or(name) {
            return Err(Error::new(
                Kind::CustomKeyStoreNotFound,
                format!("There is no custom key store {wanted}: hsmac has tokens in their place."),
            ));
        }
        only_page(marker)
    }
}
