//! Rules that settings must fulfil, beyond each having the right form: ranges, and what depends on
//! other settings.

mod keys;
mod limits;
mod listeners;
mod principals;
mod tokens;
mod warnings;

use std::time::Duration;

use crate::{
    audit,
    config::{
        Settings,
        fault::{ConfigFault, InvalidSettings},
    },
};

impl Settings {
    /// What is wrong, but for what follows from settings that are `invalid` by themselves.
    pub(in crate::config) fn rule_faults(&self, invalid: &InvalidSettings) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut fault = |setting: &str, text: String| {
            if !invalid.covers(setting) {
                faults.push(self.origins.fault(setting, text));
            }
        };
        let in_region = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.region.is_empty() || !self.region.bytes().all(in_region) {
            let text = "is no region: it must be lowercase letters, digits and -, as in us-west-2";
            fault("region", format!("{:?} {text}", self.region));
        }
        if self.drain_timeout > Duration::from_secs(3600) {
            fault("drain_timeout", "it must be at most 1h".into());
        }
        for (within, text) in self.traces.faults() {
            fault(&format!("traces.{within}"), text);
        }
        for (setting, text) in self.audit.iter().flat_map(audit::Settings::faults) {
            fault(&format!("audit.{setting}"), text);
        }
        self.seal_faults(&mut fault, invalid);
        self.grpc_faults(&mut fault);
        self.aws_faults(&mut fault);
        self.token_faults(&mut fault, invalid);
        self.key_faults(&mut fault, invalid);
        self.principal_faults(&mut fault, invalid);
        self.limit_faults(&mut fault);
        faults
    }

    fn seal_faults(&self, fault: &mut impl FnMut(&str, String), invalid: &InvalidSettings) {
        match self.seal_key() {
            Ok(None) => {}
            Ok(Some(key)) => self.unknown_token("audit.seal_token", &key.token, fault, invalid),
            // Nobody knows which tokens there are.
            Err(("seal_token", _)) if invalid.covers("token") => {}
            Err((setting, text)) => fault(&format!("audit.{setting}"), text),
        }
    }
}
