//! What `[limits]` must fulfil: each value in its range, and no limits of a principal that there is not.

use crate::config::Settings;

impl Settings {
    pub(super) fn limit_faults(&self, fault: &mut impl FnMut(&str, String)) {
        for (setting, text) in self.limits.faults() {
            fault(&setting, text);
        }
        let principals = self.principal.iter().map(|principal| &principal.arn);
        let known = || principals.clone().chain(&self.grpc.anonymous);
        for (index, limits) in self.limits.principal.iter().enumerate() {
            if !known().any(|arn| arn.0.arn() == limits.arn.0.arn()) {
                let text = format!("there is no [[principal]] with the arn {}", limits.arn.0);
                fault(&format!("limits.principal[{index}].arn"), text);
            }
        }
    }
}
