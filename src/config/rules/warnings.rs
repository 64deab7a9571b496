//! Risks that an operator should know of, though hsmac can start.

use crate::config::{Settings, fault::ConfigWarning, layers::stray_variables};

impl Settings {
    pub(in crate::config) fn rule_warnings(&self) -> Vec<ConfigWarning> {
        let strays = stray_variables(&self.source.environment, &self.origins);
        let mut warnings: Vec<ConfigWarning> = strays.into_iter().map(ConfigWarning).collect();
        if self
            .grpc
            .anonymous
            .as_ref()
            .is_some_and(|principal| principal.0.is_root())
        {
            warnings.push(ConfigWarning(self.origins.fault(
                "grpc.anonymous",
                "callers without proof are the account's root, which has all rights; name a user instead",
            )));
        }
        if let Some(anonymous) = &self.grpc.anonymous
            && !anonymous.0.is_root()
            && !self
                .principal
                .iter()
                .any(|principal| principal.arn.0 == anonymous.0 && principal.policy_file.is_some())
        {
            warnings.push(ConfigWarning(self.origins.fault(
                "grpc.anonymous",
                "no [[principal]] with this arn has a policy_file: these callers may do what key policies allow them, and nothing else",
            )));
        }
        if !self.tls().iter().any(|(_, tls)| tls.client_ca.is_some()) {
            for (index, principal) in self.principal.iter().enumerate() {
                let proofs = [
                    ("certificate_uri", principal.certificate_uri.is_some()),
                    ("certificate_dns", principal.certificate_dns.is_some()),
                ];
                for (name, _) in proofs.into_iter().filter(|(_, is_set)| *is_set) {
                    warnings.push(ConfigWarning(self.origins.fault(
                        &format!("principal[{index}].{name}"),
                        "no listener asks for certificates: set client_ca in [grpc.tls] or [aws.tls]",
                    )));
                }
            }
        }
        if self.audit.as_ref().is_some_and(|audit| !audit.seals) {
            warnings.push(ConfigWarning(self.origins.fault(
                "audit.seals",
                "no token seals the audit log: whoever may write its files can change what is in it, unless checkpoints are kept elsewhere",
            )));
        }
        for (name, token) in &self.token {
            if token.uri.slot_id.is_some()
                && token.uri.label.is_none()
                && token.uri.serial.is_none()
            {
                warnings.push(ConfigWarning(self.origins.fault(
                    &format!("token.{name}.uri"),
                    "slot-id alone names the token, and slot numbers move; add token=LABEL or serial=NUMBER",
                )));
            }
        }
        warnings
    }
}
