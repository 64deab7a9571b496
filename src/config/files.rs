//! The files that settings name: read once, checked, and handed on.

use std::{fs, io::ErrorKind, path::Path, sync::Arc};

use super::{
    Settings,
    fault::{ConfigFault, ConfigWarning},
};
use crate::{
    front::{self, AccessKeyId, SecretAccessKey, Tls},
    kms::{DeclaredRights, PrincipalPolicies},
    model::Caller,
};

/// What the files hold that settings name, read at one time.
#[derive(Clone, Debug, Default)]
pub struct LoadedFiles {
    /// `[grpc.tls]`
    pub grpc_tls: Option<Arc<Tls>>,
    /// `[aws.tls]`
    pub aws_tls: Option<Arc<Tls>>,
    /// The access keys of the principals that have one.
    pub access_keys: Vec<(AccessKeyId, Caller, Arc<SecretAccessKey>)>,
    /// The policies of the principals and of the declared keys.
    pub rights: DeclaredRights,
}

/// What was found while files were read. `files` is complete only if there is no fault.
#[derive(Debug, Default)]
pub(super) struct ReadFiles {
    pub(super) files: LoadedFiles,
    pub(super) faults: Vec<ConfigFault>,
    pub(super) warnings: Vec<ConfigWarning>,
}

impl ReadFiles {
    fn take(&mut self, policies: ReadPolicies) {
        self.files.rights = policies.rights;
        self.faults.extend(policies.faults);
        self.warnings.extend(policies.warnings);
    }
}

/// What the policies are that the settings name.
pub(super) struct ReadPolicies {
    pub(super) rights: DeclaredRights,
    pub(super) faults: Vec<ConfigFault>,
    /// Statements that never apply here.
    pub(super) warnings: Vec<ConfigWarning>,
}

/// Whether a PIN file that is not there is a fault.
#[derive(Clone, Copy, Eq, PartialEq)]
enum PinFiles {
    MustExist,
    /// Hosts that are logged in go on without it.
    MayBeAway,
}

impl Settings {
    /// Reads TLS files, secrets and policies, and looks at modules and PINs. A PIN is not read: the
    /// token's host does that.
    pub(super) fn read_files(&self) -> ReadFiles {
        let mut read = ReadFiles::default();
        self.check_tokens(&mut read);
        read.files.grpc_tls = self.read_tls("grpc", front::grpc::ALPN, None, &mut read);
        read.files.aws_tls = self.read_tls("aws", front::aws::ALPN, None, &mut read);
        self.read_secrets(&[], &mut read);
        read.take(self.read_policies());
        read
    }

    /// Reads TLS files, secrets and policies again. In the place of each that is broken stands what it
    /// held in `last`, if it was there: the others take effect all the same. Modules have no part in it,
    /// and of PINs only who can read them.
    pub(super) fn read_files_again(&self, last: &LoadedFiles) -> ReadFiles {
        let mut read = ReadFiles::default();
        self.check_pins(PinFiles::MayBeAway, &mut read);
        let (grpc, aws) = (last.grpc_tls.as_ref(), last.aws_tls.as_ref());
        read.files.grpc_tls = self.read_tls("grpc", front::grpc::ALPN, grpc, &mut read);
        read.files.aws_tls = self.read_tls("aws", front::aws::ALPN, aws, &mut read);
        self.read_secrets(&last.access_keys, &mut read);
        read.take(self.read_policies_or(|caller, file| {
            // Security: none at all would be more than before, if it denies something.
            last.rights.policies_of(caller, file)
        }));
        read
    }

    fn check_tokens(&self, read: &mut ReadFiles) {
        for (name, token) in &self.token {
            let module = &token.uri.module_path;
            if let Some(text) = match fs::metadata(module) {
                Err(error) => Some(format!("the module {}: {}", module.display(), said(&error))),
                Ok(found) if !found.is_file() => {
                    Some(format!("the module {} is not a file", module.display()))
                }
                Ok(_) => None,
            } {
                let setting = format!("token.{name}.uri");
                read.faults.push(self.origins.fault(&setting, text));
            }
        }
        self.check_pins(PinFiles::MustExist, read);
    }

    /// Security: hosts read the PINs; that nobody else can is looked at here.
    fn check_pins(&self, wanted: PinFiles, read: &mut ReadFiles) {
        for (name, token) in &self.token {
            let next = token
                .next_pin_file
                .iter()
                .map(|file| ("next_pin_file", file));
            let next = next.filter(|(_, file)| file.exists());
            let own = token.pin_file.iter().map(|file| ("pin_file", file));
            let own = own.filter(|(_, file)| wanted == PinFiles::MustExist || file.exists());
            for (which, file) in own.chain(next) {
                let setting = format!("token.{name}.{which}");
                self.check_secret_file(&setting, file, "the PIN", read);
            }
        }
    }

    fn read_tls(
        &self,
        section: &str,
        protocol: &[u8],
        last: Option<&Arc<Tls>>,
        read: &mut ReadFiles,
    ) -> Option<Arc<Tls>> {
        let (_, tls) = self.tls().into_iter().find(|(name, _)| *name == section)?;
        let setting = |name: &str| format!("{section}.tls.{name}");
        let is_secret = self.check_secret_file(&setting("key"), &tls.key, "the private key", read);
        let (loaded, faults) = match last {
            Some(last) if is_secret => Tls::reload(tls, protocol, last),
            Some(last) => Tls::reload_clients(tls, protocol, last),
            None if is_secret => match Tls::load(tls, protocol) {
                Ok(loaded) => (loaded, Vec::new()),
                Err(fault) => {
                    let setting = setting(fault.setting);
                    read.faults.push(self.origins.fault(&setting, fault.text));
                    return None;
                }
            },
            None => return None,
        };
        for fault in faults {
            let setting = setting(fault.setting);
            read.faults.push(self.origins.fault(&setting, fault.text));
        }
        read.warnings
            .extend(self.validity_warnings(section, &loaded));
        Some(Arc::new(loaded))
    }

    fn read_secrets(
        &self,
        last: &[(AccessKeyId, Caller, Arc<SecretAccessKey>)],
        read: &mut ReadFiles,
    ) {
        for (index, principal) in self.principal.iter().enumerate() {
            let Some(file) = &principal.secret_access_key_file else {
                continue;
            };
            let setting = format!("principal[{index}].secret_access_key_file");
            let mut secret = None;
            if self.check_secret_file(&setting, file, "the secret", read) {
                match SecretAccessKey::read(file) {
                    Ok(new) => secret = Some(Arc::new(new)),
                    Err(text) => read.faults.push(self.origins.fault(&setting, text)),
                }
            }
            let Some(id) = &principal.access_key_id else {
                continue;
            };
            let caller = &principal.arn.0;
            // Security: an access key that has gone to another principal proves nothing of before.
            let same = |(other, of, _): &&(AccessKeyId, Caller, Arc<SecretAccessKey>)| {
                other == id && of == caller
            };
            let secret = secret.or_else(|| Some(last.iter().find(same)?.2.clone()));
            if let Some(secret) = secret {
                read.files
                    .access_keys
                    .push((id.clone(), caller.clone(), secret));
            }
        }
    }

    /// Reads the policies that settings name.
    pub(super) fn read_policies(&self) -> ReadPolicies {
        self.read_policies_or(|_, _| None)
    }

    /// Reads the policies that settings name; in the place of a principal's that is broken stands what
    /// `or` gives. A declared key whose policy is broken is left out: it keeps the one that it has.
    fn read_policies_or(
        &self,
        or: impl Fn(&Caller, &Path) -> Option<PrincipalPolicies>,
    ) -> ReadPolicies {
        let (mut principals, mut keys) = (Vec::new(), Vec::new());
        let (mut faults, mut warnings) = (Vec::new(), Vec::new());
        let mut warn = |setting: &str, texts: Vec<String>| {
            let faults = texts
                .into_iter()
                .map(|text| self.origins.fault(setting, text));
            warnings.extend(faults.map(ConfigWarning));
        };
        for (index, principal) in self.principal.iter().enumerate() {
            let policy = principal.policy_file.as_deref();
            let attributes = &principal.attributes;
            let setting = format!("principal[{index}].policy_file");
            match PrincipalPolicies::read(&principal.arn.0, policy, attributes) {
                Ok(policies) => {
                    warn(&setting, policies.warnings(&self.region));
                    principals.push(policies);
                }
                Err(text) => {
                    faults.push(self.origins.fault(&setting, text));
                    principals.extend(policy.and_then(|file| or(&principal.arn.0, file)));
                }
            }
        }
        for (index, key) in self.key.iter().enumerate() {
            let setting = format!("key[{index}].policy_file");
            match key.read_policy(&self.account) {
                Ok(policy) => {
                    warn(&setting, policy.warnings(&self.region));
                    keys.push(policy);
                }
                Err(text) => {
                    faults.push(self.origins.fault(&setting, text));
                }
            }
        }
        let organization = self.organization.clone();
        let organization = organization.map(|one| (self.account.clone(), one));
        let rights = DeclaredRights::new(principals, organization, keys);
        ReadPolicies {
            rights,
            faults,
            warnings,
        }
    }

    /// Which certificates and revocation lists of the listeners have expired, expire soon or are not
    /// valid yet; reads their files.
    pub fn tls_warnings(&self) -> Vec<ConfigWarning> {
        let loaded = self.tls().into_iter().filter_map(|(section, tls)| {
            // Files that cannot be read are reported when they are loaded to be used.
            Some((section, Tls::load(tls, b"").ok()?))
        });
        loaded
            .flat_map(|(section, tls)| self.validity_warnings(section, &tls))
            .collect()
    }

    fn validity_warnings(&self, section: &str, tls: &Tls) -> Vec<ConfigWarning> {
        let warnings = tls.warnings().into_iter();
        warnings
            .map(|(name, text)| {
                ConfigWarning(self.origins.fault(&format!("{section}.tls.{name}"), text))
            })
            .collect()
    }

    /// Each listener in one line: its address, its certificate, which client certificates it trusts.
    pub fn listeners(&self, files: &LoadedFiles) -> Vec<String> {
        let grpc = &self.grpc;
        let aws = self.aws.as_ref();
        let listeners = [
            ("grpc", Some((&grpc.listen, &grpc.tls)), &files.grpc_tls),
            (
                "aws",
                aws.map(|aws| (&aws.listen, &aws.tls)),
                &files.aws_tls,
            ),
        ];
        let mut lines = Vec::new();
        for (section, listener, loaded) in listeners {
            let Some((listen, tls)) = listener else {
                continue;
            };
            let mut line = format!("{section:<5} {listen}");
            if let (Some(settings), Some(tls)) = (tls, loaded) {
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
}

pub(super) fn said(error: &std::io::Error) -> String {
    if error.kind() == ErrorKind::NotFound {
        "no such file".into()
    } else {
        error.to_string()
    }
}
