//! What an operator should know of the policies of stored keys, which clients have written.
//!
//! Does not: look at policies in files; who reads those warns of them.

use super::Simulator;
use crate::kms::service::Kms;

impl Kms {
    /// A sentence for each statement that can never apply here, and for each principal that was replaced
    /// by another one of its ARN, with the key that has the policy.
    pub fn stored_policy_warnings(&self) -> Vec<String> {
        let principals = self.principals();
        let region = self.catalogue.region();
        let mut warnings = Vec::new();
        for record in self.catalogue.stored() {
            let policy = &record.policy;
            let never = policy.warnings(region).into_iter();
            let orphans = policy.orphans(|arn| principals.id_of(arn));
            let named = |text| format!("{}: {text}", record.arn);
            warnings.extend(never.chain(orphans).map(named));
        }
        warnings
    }
}

impl Simulator {
    /// [`Kms::stored_policy_warnings`], and policies that cannot be read.
    pub fn stored_policy_warnings(&self) -> Vec<String> {
        let kms = self.kms();
        let records = kms.catalogue.stored().into_iter();
        let unreadable = records.filter_map(|record| {
            let fault = record.unreadable_policy.as_deref()?;
            Some(format!(
                "{}: this version cannot read its policy, so only its account's root may put another one: {fault}",
                record.arn
            ))
        });
        unreadable.chain(kms.stored_policy_warnings()).collect()
    }

    /// How many keys the store has.
    pub fn stored_keys(&self) -> usize {
        self.kms().catalogue.stored().len()
    }
}
