//! What `[grpc]`, `[aws]` and their TLS must fulfil: who can reach a listener, and who could call.

use std::time::Duration;

use crate::{
    config::Settings,
    front::{Listen, PrincipalSettings, TlsSettings},
};

impl Settings {
    pub(super) fn grpc_faults(&self, fault: &mut impl FnMut(&str, String)) {
        let exposed = is_exposed(&self.grpc.listen);
        let client_ca = self
            .grpc
            .tls
            .as_ref()
            .and_then(|tls| tls.client_ca.as_ref());
        if exposed && client_ca.is_none() {
            fault(
                "grpc.listen",
                "other machines reach this address: set [grpc.tls] with certificate, key and client_ca, \
                 or listen on loopback or a Unix socket"
                    .into(),
            );
        }
        tls_faults("grpc", &self.grpc.listen, self.grpc.tls.as_ref(), fault);
        let has_certificate = |one: &PrincipalSettings| {
            one.certificate_uri.is_some() || one.certificate_dns.is_some()
        };
        let proven = match &self.grpc.listen {
            Listen::Unix(_) => self.principal.iter().any(|one| one.unix_uid.is_some()),
            Listen::Tcp(_) => client_ca.is_some() && self.principal.iter().any(has_certificate),
        };
        match &self.grpc.anonymous {
            None if proven => {}
            None => fault(
                "grpc.anonymous",
                format!(
                    "required, but not set: without it nobody could call; set anonymous = \
                     \"arn:aws:iam::{}:user/local\", or listen on a Unix socket and give a \
                     [[principal]] a unix_uid, or set grpc.tls.client_ca and give a [[principal]] a \
                     certificate_uri or certificate_dns",
                    self.account
                ),
            ),
            // Security: a caller without proof must at least be on this machine.
            Some(_) if exposed => fault(
                "grpc.anonymous",
                "callers without proof are allowed on loopback or a Unix socket only".into(),
            ),
            Some(_) => {}
        }
        for (setting, value) in [
            ("grpc.max_connections", self.grpc.max_connections),
            ("grpc.max_streams", self.grpc.max_streams),
        ] {
            count_fault(setting, value, fault);
        }
        deadline_fault("grpc.default_deadline", self.grpc.default_deadline, fault);
    }

    pub(super) fn aws_faults(&self, fault: &mut impl FnMut(&str, String)) {
        let Some(aws) = &self.aws else {
            return;
        };
        // Security: a signature does not encrypt; without TLS others could read messages and MACs.
        if is_exposed(&aws.listen) && aws.tls.is_none() {
            fault(
                "aws.listen",
                "other machines reach this address: set [aws.tls] with certificate and key, or listen \
                 on loopback or a Unix socket"
                    .into(),
            );
        }
        tls_faults("aws", &aws.listen, aws.tls.as_ref(), fault);
        let trusts_certificates = aws.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let could_call = |one: &PrincipalSettings| {
            let certificate = one.certificate_uri.is_some() || one.certificate_dns.is_some();
            one.access_key_id.is_some() || (trusts_certificates && certificate)
        };
        if !self.principal.iter().any(could_call) {
            fault(
                "aws",
                "nobody could call: add a [[principal]] with arn, access_key_id and secret_access_key_file"
                    .into(),
            );
        }
        let range = Duration::from_secs(1)..=Duration::from_mins(15);
        if !range.contains(&aws.clock_skew) {
            fault("aws.clock_skew", "it must be 1s to 15m".into());
        }
        deadline_fault("aws.deadline", aws.deadline, fault);
        count_fault("aws.max_connections", aws.max_connections, fault);
        for (index, name) in aws.host_names.iter().enumerate() {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            let is_name = !name.is_empty() && name.bytes().all(plain);
            if !is_name && name.parse::<std::net::Ipv6Addr>().is_err() {
                fault(
                    &format!("aws.host_names[{index}]"),
                    format!("{name:?} is no host name; write it without scheme and port"),
                );
            }
        }
    }
}

/// Whether other machines can reach a listener.
fn is_exposed(listen: &Listen) -> bool {
    match listen {
        Listen::Tcp(address) => !address.ip().is_loopback(),
        Listen::Unix(_) => false,
    }
}

fn tls_faults(
    section: &str,
    listen: &Listen,
    tls: Option<&TlsSettings>,
    fault: &mut impl FnMut(&str, String),
) {
    let Some(tls) = tls else { return };
    if matches!(listen, Listen::Unix(_)) {
        fault(
            &format!("{section}.tls"),
            "a Unix socket has no TLS: the kernel says who its callers are; remove this section"
                .into(),
        );
    }
    if tls.client_crl.is_some() && tls.client_ca.is_none() {
        fault(
            &format!("{section}.tls.client_ca"),
            "required, but not set: client_crl is of no use without it".into(),
        );
    }
}

fn count_fault(setting: &str, value: u32, fault: &mut impl FnMut(&str, String)) {
    if !(1..=65_536).contains(&value) {
        fault(
            setting,
            format!("{value} is out of range; it must be 1 to 65536"),
        );
    }
}

fn deadline_fault(setting: &str, value: Duration, fault: &mut impl FnMut(&str, String)) {
    if !(Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&value) {
        fault(setting, "it must be 1ms to 1h".into());
    }
}
