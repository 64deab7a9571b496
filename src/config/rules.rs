//! What settings must fulfil together, beyond each having the right form.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use super::{
    Settings,
    fault::{Fault, Spoiled, Warning, nearest},
};
use crate::{
    front::{DeclaredPrincipal, Listen, Tls, TlsSettings, aws::SecretAccessKey},
    kms::Principal,
    model::KeyReference,
    token,
};

impl Settings {
    /// Looks at the files that settings name: modules, PINs, secrets. May be asked again while hsmac
    /// runs.
    pub fn check_files(&self) -> (Vec<Fault>, Vec<Warning>) {
        let (mut faults, mut warnings) = (Vec::new(), Vec::new());
        for (name, token) in &self.token {
            let module = &token.uri.module_path;
            if let Some(text) = match fs::metadata(module) {
                Err(error) => Some(format!("the module {}: {}", module.display(), said(&error))),
                Ok(found) if !found.is_file() => {
                    Some(format!("the module {} is not a file", module.display()))
                }
                Ok(_) => None,
            } {
                faults.push(self.origins.fault(&format!("token.{name}.uri"), text));
            }
            if let Some(pin_file) = &token.pin_file {
                let setting = format!("token.{name}.pin_file");
                match self.secret_file(&setting, pin_file, "the PIN") {
                    Ok(warning) => warnings.extend(warning),
                    Err(fault) => faults.push(fault),
                }
            }
        }
        for (section, tls) in self.tls() {
            let setting = |name: &str| format!("{section}.tls.{name}");
            match self.secret_file(&setting("key"), &tls.key, "the private key") {
                Ok(warning) => warnings.extend(warning),
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            }
            match Tls::load(tls, b"") {
                Ok(loaded) => warnings.extend(self.ends(section, &loaded)),
                Err(fault) => {
                    faults.push(self.origins.fault(&setting(fault.setting), fault.text));
                }
            }
        }
        for (index, principal) in self.principal.iter().enumerate() {
            let Some(file) = &principal.secret_access_key_file else {
                continue;
            };
            let setting = format!("principal[{index}].secret_access_key_file");
            match self.secret_file(&setting, file, "the secret") {
                Ok(warning) => warnings.extend(warning),
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            }
            if let Err(text) = SecretAccessKey::read(file) {
                faults.push(self.origins.fault(&setting, text));
            }
        }
        faults.extend(self.check_policies());
        (faults, warnings)
    }

    /// Looks at the policies that settings name.
    pub(super) fn check_policies(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (index, principal) in self.principal.iter().enumerate() {
            let policy = principal.policy_file.as_deref();
            if let Err(text) = Principal::read(&principal.arn.0, policy) {
                let setting = format!("principal[{index}].policy_file");
                faults.push(self.origins.fault(&setting, text));
            }
        }
        for (index, key) in self.key.iter().enumerate() {
            if let Err(text) = key.policy() {
                let setting = format!("key[{index}].policy_file");
                faults.push(self.origins.fault(&setting, text));
            }
        }
        faults
    }

    /// What of the listeners' certificates and lists has ended or ends soon.
    pub fn tls_warnings(&self) -> Vec<Warning> {
        let loaded = self.tls().into_iter().filter_map(|(section, tls)| {
            // What cannot be read is told by who wants to use it.
            Some((section, Tls::load(tls, b"").ok()?))
        });
        loaded
            .flat_map(|(section, tls)| self.ends(section, &tls))
            .collect()
    }

    fn ends(&self, section: &str, tls: &Tls) -> Vec<Warning> {
        let warnings = tls.warnings().into_iter();
        warnings
            .map(|(name, text)| Warning(self.origins.fault(&format!("{section}.tls.{name}"), text)))
            .collect()
    }

    /// Each listener in one line: its address, its certificate, whose certificates it believes.
    pub fn listeners(&self) -> Vec<String> {
        let listens = [
            ("grpc", Some((&self.grpc.listen, &self.grpc.tls))),
            ("aws", self.aws.as_ref().map(|aws| (&aws.listen, &aws.tls))),
        ];
        let mut lines = Vec::new();
        for (section, listener) in listens {
            let Some((listen, tls)) = listener else {
                continue;
            };
            let mut line = format!("{section:<5} {listen}");
            if let Some(settings) = tls
                && let Ok(tls) = Tls::load(settings, b"")
            {
                let names = tls.names().join(", ");
                line += &format!(", TLS as {names} until {}", tls.ends());
                if let Some(file) = &settings.client_ca {
                    line += &format!(", client certificates of {}", file.display());
                }
                if let Some(file) = &settings.client_crl {
                    line += &format!(" but for those in {}", file.display());
                }
            }
            lines.push(line);
        }
        lines
    }

    /// Whether a file can be read, and by whom.
    fn secret_file(
        &self,
        setting: &str,
        file: &Path,
        holds: &str,
    ) -> Result<Option<Warning>, Fault> {
        let shown = file.display();
        let unreadable = |error| {
            let text = format!("{shown}: {}", said(&error));
            self.origins.fault(setting, text)
        };
        // Its metadata first: to open a FIFO would wait for a writer.
        let found = fs::metadata(file).map_err(unreadable)?;
        if !found.is_file() {
            let text = format!("{shown} is not a regular file");
            return Err(self.origins.fault(setting, text));
        }
        File::open(file).map_err(unreadable)?;
        let mode = found.permissions().mode() & 0o7777;
        // systemd's credentials show their ACL's mask as the group's bits; the folder is what keeps
        // others out.
        let credentials = env::var_os("CREDENTIALS_DIRECTORY");
        let kept = credentials.is_some_and(|folder| file.starts_with(folder));
        let open = mode & 0o066 != 0 && !kept;
        Ok(open.then(|| {
            let text = format!(
                "{shown} has mode {mode:04o}: others than its owner can read or write {holds}; run \
                 chmod 0400 {shown}"
            );
            Warning(self.origins.fault(setting, text))
        }))
    }

    pub(super) fn rule_faults(&self, spoiled: &Spoiled) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |setting: &str, text: String| {
            if !spoiled.covers(setting) {
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
        self.grpc_faults(&mut fault);
        self.aws_faults(&mut fault);
        self.token_faults(&mut fault, spoiled);
        self.key_faults(&mut fault, spoiled);
        self.principal_faults(&mut fault, spoiled);
        faults
    }

    pub(super) fn rule_warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if self
            .grpc
            .anonymous
            .as_ref()
            .is_some_and(|principal| principal.0.is_root())
        {
            warnings.push(Warning(self.origins.fault(
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
            warnings.push(Warning(self.origins.fault(
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
                    warnings.push(Warning(self.origins.fault(
                        &format!("principal[{index}].{name}"),
                        "no listener asks for certificates: set client_ca in [grpc.tls] or [aws.tls]",
                    )));
                }
            }
        }
        for (name, token) in &self.token {
            if token.uri.slot_id.is_some()
                && token.uri.label.is_none()
                && token.uri.serial.is_none()
            {
                warnings.push(Warning(self.origins.fault(
                    &format!("token.{name}.uri"),
                    "slot-id alone names the token, and slot numbers move; add token=LABEL or serial=NUMBER",
                )));
            }
        }
        warnings
    }

    fn grpc_faults(&self, fault: &mut impl FnMut(&str, String)) {
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
        let has_certificate = |one: &DeclaredPrincipal| {
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
            // Security: who cannot prove anything must at least be on this machine.
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

    fn aws_faults(&self, fault: &mut impl FnMut(&str, String)) {
        let Some(aws) = &self.aws else {
            return;
        };
        // Security: what is signed is not secret; without TLS others could read messages and MACs.
        if is_exposed(&aws.listen) && aws.tls.is_none() {
            fault(
                "aws.listen",
                "other machines reach this address: set [aws.tls] with certificate and key, or listen \
                 on loopback or a Unix socket"
                    .into(),
            );
        }
        tls_faults("aws", &aws.listen, aws.tls.as_ref(), fault);
        let believes = aws.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let could_call = |one: &DeclaredPrincipal| {
            let certificate = one.certificate_uri.is_some() || one.certificate_dns.is_some();
            one.access_key_id.is_some() || (believes && certificate)
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

    fn token_faults(&self, fault: &mut impl FnMut(&str, String), spoiled: &Spoiled) {
        if self.token.is_empty() && !spoiled.within("token") {
            fault(
                "token",
                "there is none; add [token.NAME] with its uri and pin_file".into(),
            );
        }
        for (name, token) in &self.token {
            let setting = format!("token.{name}");
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            if name.is_empty() || !name.bytes().all(plain) {
                fault(
                    &setting,
                    "a token's name has only letters, digits, - and _".into(),
                );
            }
            for (within, text) in token.faults() {
                fault(&format!("{setting}.{within}"), text);
            }
            if let Some(group) = &token.group {
                let setting = format!("{setting}.group");
                if group.is_empty() || !group.bytes().all(plain) {
                    fault(
                        &setting,
                        "a group's name has only letters, digits, - and _".into(),
                    );
                } else if self.token.contains_key(group) {
                    fault(
                        &setting,
                        format!("{group:?} is a token's name; a group needs a name of its own"),
                    );
                }
            }
            let disagrees = |other: &&token::Settings| {
                other.group() == token.group() && other.replicated_by != token.replicated_by
            };
            if let Some(other) = self.token.values().find(disagrees) {
                fault(
                    &format!("{setting}.replicated_by"),
                    format!(
                        "the token {:?} of the same group does not say the same",
                        other.name
                    ),
                );
            }
        }
        match &self.new_keys {
            Some(name) => self.unknown_token("new_keys", name, fault, spoiled),
            None if self.groups().len() > 1 => {
                fault(
                    "new_keys",
                    "required, but not set: there are several tokens; name one".into(),
                );
            }
            None => {}
        }
    }

    /// What keys can name: groups, and tokens without one.
    fn groups(&self) -> BTreeSet<&str> {
        self.token.values().map(token::Settings::group).collect()
    }

    fn key_faults(&self, fault: &mut impl FnMut(&str, String), spoiled: &Spoiled) {
        let mut ids = BTreeSet::new();
        let mut aliases = BTreeMap::new();
        for (index, key) in self.key.iter().enumerate() {
            let setting = |name: &str| format!("key[{index}].{name}");
            if !spoiled.covers(&setting("key_id")) && !ids.insert(&key.key_id) {
                fault(&setting("key_id"), format!("{} is there twice", key.key_id));
            }
            match &key.token {
                Some(name) => self.unknown_token(&setting("token"), name, fault, spoiled),
                None if self.groups().len() > 1 => fault(
                    &setting("token"),
                    "required, but not set: there are several tokens; name one".into(),
                ),
                None => {}
            }
            for (number, alias) in key.aliases.iter().enumerate() {
                let setting = format!("{}[{number}]", setting("aliases"));
                if !matches!(alias.parse(), Ok(KeyReference::Alias(_))) {
                    fault(
                        &setting,
                        format!(
                            "{alias:?} is no alias: it must be alias/ and letters, digits, /, _ and -, \
                             at most 256 characters"
                        ),
                    );
                } else if let Some(first) = aliases.insert(alias, index) {
                    fault(
                        &setting,
                        format!("{alias} is an alias of key[{first}] already"),
                    );
                }
            }
            if key.description.chars().count() > 8192 {
                fault(
                    &setting("description"),
                    "it must be at most 8192 characters".into(),
                );
            }
            let mac_len = key.key_spec.mac_algorithm().mac_len();
            if let Some(value) = &key.check_value
                && !spoiled.covers(&setting("key_spec"))
                && value.bytes().len() != mac_len
            {
                fault(
                    &setting("check_value"),
                    format!(
                        "it has {} hex digits; a key of {} has {}",
                        value.bytes().len() * 2,
                        key.key_spec,
                        mac_len * 2
                    ),
                );
            }
        }
    }

    fn principal_faults(&self, fault: &mut impl FnMut(&str, String), spoiled: &Spoiled) {
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
                && !spoiled.covers(&setting(missing))
            {
                fault(
                    &setting(missing),
                    format!("required, but not set: {other} is of no use without it"),
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

    fn unknown_token(
        &self,
        setting: &str,
        name: &str,
        fault: &mut impl FnMut(&str, String),
        spoiled: &Spoiled,
    ) {
        let known = self.groups();
        if known.contains(name) || spoiled.covers(&format!("token.{name}")) {
            return;
        }
        if let Some(group) = self.token.get(name).and_then(|token| token.group.as_ref()) {
            return fault(
                setting,
                format!("the token {name:?} belongs to the group {group:?}; name the group"),
            );
        }
        match nearest(name, known.iter().copied()) {
            Some(right) => fault(
                setting,
                format!("no token {name:?}; did you mean {right:?}?"),
            ),
            None => {
                let known: Vec<&str> = known.into_iter().collect();
                fault(
                    setting,
                    format!("no token {name:?}; there are: {}", known.join(", ")),
                );
            }
        }
    }
}

/// Whether others than this machine reach a listener.
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

fn said(error: &std::io::Error) -> String {
    if error.kind() == ErrorKind::NotFound {
        "no such file".into()
    } else {
        error.to_string()
    }
}
