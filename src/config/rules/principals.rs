//! What `[[principal]]` must fulfil: each proof is of one principal, and complete.

use std::collections::BTreeMap;

use crate::{
    config::{Settings, fault::InvalidSettings},
    front::PrincipalSettings,
    model::PrincipalAttributes,
};

impl Settings {
    pub(super) fn principal_faults(
        &self,
        fault: &mut impl FnMut(&str, String),
        invalid: &InvalidSettings,
    ) {
        let (mut first, mut first_uid) = (BTreeMap::new(), BTreeMap::new());
        let (mut first_uri, mut first_dns) = (BTreeMap::new(), BTreeMap::new());
        for (index, principal) in self.principal.iter().enumerate() {
            let setting = |name: &str| format!("principal[{index}].{name}");
            let (id, secret) = ("access_key_id", "secret_access_key_file");
            let missing = match (&principal.access_key_id, &principal.secret_access_key_file) {
                (Some(_), None) => Some((secret, id)),
                (None, Some(_)) => Some((id, secret)),
                (None, None) | (Some(_), Some(_)) => None,
            };
            if let Some((missing, other)) = missing
                && !invalid.covers(&setting(missing))
            {
                fault(
                    &setting(missing),
                    format!("required, but not set: {other} is of no use without it"),
                );
            }
            let same = |other: &PrincipalSettings| {
                other.arn == principal.arn
                    && other.attributes != principal.attributes
                    && other.attributes != PrincipalAttributes::default()
            };
            if principal.attributes != PrincipalAttributes::default()
                && self.principal[..index].iter().any(same)
            {
                fault(
                    &setting("attributes"),
                    "another [[principal]] of the same arn has other attributes".to_owned(),
                );
            }
            // Security: one proof, one principal.
            if let Some(id) = &principal.access_key_id
                && let Some(first) = first.insert(id, index)
            {
                fault(
                    &setting("access_key_id"),
                    format!(
                        "{} is the access key of principal[{first}] already",
                        id.as_str()
                    ),
                );
            }
            if let Some(uid) = principal.unix_uid
                && let Some(first) = first_uid.insert(uid, index)
            {
                fault(
                    &setting("unix_uid"),
                    format!("{uid} is the uid of principal[{first}] already"),
                );
            }
            if let Some(uri) = &principal.certificate_uri
                && let Some(first) = first_uri.insert(uri, index)
            {
                fault(
                    &setting("certificate_uri"),
                    format!("{} is of principal[{first}] already", uri.as_str()),
                );
            }
            if let Some(name) = &principal.certificate_dns
                && let Some(first) = first_dns.insert(name, index)
            {
                fault(
                    &setting("certificate_dns"),
                    format!("{} is of principal[{first}] already", name.as_str()),
                );
            }
        }
    }
}
