//! What the configuration says of one token, and what its hosts need besides.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

#[cfg(test)]
use crate::token::simulated::ModelHosts;
use crate::{host_ipc::BUILD_ID, proto, token::uri::TokenUri};

/// `[token.NAME]`: one token, the hosts that serve it, and their limits. A reload adds tokens, takes them away,
/// and has hosts with new settings take over when they serve.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// NAME; not a setting of its own.
    #[serde(skip)]
    pub name: String,
    /// Which token of which module (RFC 7512): `pkcs11:token=LABEL?module-path=/path/module.so`.
    pub uri: TokenUri,
    /// The file that holds the user PIN in one line, readable by hsmac alone. Needed with `login =
    /// "pin"`.
    pub pin_file: Option<PathBuf>,
    /// A second PIN file, for a change of the PIN: it may appear at any time, and its PIN is tried when
    /// the token has refused that of `pin_file`.
    pub next_pin_file: Option<PathBuf>,
    /// How hosts log in: `"pin"` with the PIN of `pin_file`, `"none"` not at all, `"protected-path"`
    /// with a PIN that a person enters at the token for each host. Default `"pin"`; without a `pin_file`
    /// `"none"`, and a token that says that it wants a login is an error.
    pub login: Option<Login>,
    /// Tokens of one group hold the same keys: any of them serves, and keys name the group.
    pub group: Option<String>,
    /// Who brings a new key to the other tokens of the group: `"vendor"` if the HSMs do it themselves.
    /// Without it no key is made in a group of several tokens. All tokens of a group have one value.
    pub replicated_by: Option<ReplicatedBy>,
    /// Host processes for this token, 1 to 16. Default 1. Software tokens serve faster with two.
    #[serde(default = "one")]
    pub hosts: u32,
    /// Sessions of each host that make MACs, 1 to 256; one more is kept for login and searches.
    /// Default 8. Network HSMs want many, SoftHSM2 wants 1.
    #[serde(default = "eight")]
    pub sessions: u32,
    /// Open sessions read-write, for modules that want it (AWS CloudHSM). Default false.
    #[serde(default)]
    pub read_write: bool,
    /// Work on a session-object copy of each key (`C_CopyObject`): faster on SoftHSM2; the copy
    /// outlives an object that somebody else destroys until `reprove_interval`. Default false.
    #[serde(default)]
    pub working_copies: bool,
    /// How often a working copy is proved against its token object: 100 ms to 1 h. Default 30 s.
    #[serde(default = "thirty_seconds", with = "humantime_serde")]
    pub reprove_interval: Duration,
    /// How long a host may take to load the module and to log in: 100 ms to 1 h. Default 60 s.
    #[serde(default = "sixty_seconds", with = "humantime_serde")]
    pub start_timeout: Duration,
    /// How long one MAC or random call may take before its host is killed and replaced: 100 ms to
    /// 1 h. Default 10 s.
    #[serde(default = "ten_seconds", with = "humantime_serde")]
    pub call_timeout: Duration,
    /// How long a search may take before its host is killed and replaced: 100 ms to 1 h. Default
    /// 120 s.
    #[serde(default = "two_minutes", with = "humantime_serde")]
    pub slow_timeout: Duration,
    /// How long a MAC may stay without an answer before it is given to another host or another token
    /// of the group as well; half the time left if that is less. 1 ms to 1 h,
    /// or 0 s for never. Default 250 ms.
    #[serde(default = "quarter_second", with = "humantime_serde")]
    pub hedge_after: Duration,
    /// How often the sessions of a host that has nothing to do are asked for a sign of life, so that
    /// one that was dropped is replaced before a caller meets it. 1 ms to 1 h, or 0 s for never.
    /// Default 30 s.
    #[serde(default = "thirty_seconds", with = "humantime_serde")]
    pub probe_interval: Duration,
    /// How many hosts may start within a minute, 1 to 10,000: a token that eats its hosts goes on with
    /// those that it has. Default 60.
    #[serde(default = "sixty")]
    pub max_starts_per_minute: u32,
    /// Calls that may wait for the token, 1 to 100,000. They are served in turn by caller; one more is
    /// refused at once, of the caller who has most of them. Default 1,024.
    #[serde(default = "queue")]
    pub queue: u32,
    /// Environment of this token's hosts, besides the inherited one.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// A string for C_Initialize's pReserved, for modules that want one (NSS).
    pub init_reserved: Option<String>,
    /// The longest message that this token can take, in bytes: 1 to 4,096. Default 4,096, KMS's limit.
    pub max_message_bytes: Option<u32>,
}

/// What hosts need besides their settings.
#[derive(Clone, Debug)]
pub struct HostEnvironment {
    /// What a host runs.
    pub host: HostProgram,
    /// Where the markers of login attempts are kept, and what hosts have sealed of the audit log.
    pub state_dir: PathBuf,
}

/// What a host runs.
#[derive(Clone, Debug)]
pub enum HostProgram {
    /// The `token-host` subcommand of this binary, in a process of its own.
    Binary(PathBuf),
    /// Models of hosts, in this process.
    #[cfg(test)]
    Model(std::sync::Arc<dyn ModelHosts>),
}

/// How hosts log in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Login {
    /// C_Login with the PIN of a file.
    Pin,
    /// No C_Login: the token needs none.
    None,
    /// C_Login without a PIN: the token asks a person for it (CKF_PROTECTED_AUTHENTICATION_PATH).
    ProtectedPath,
}

/// Who keeps the tokens of a group alike.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum ReplicatedBy {
    /// The HSMs themselves.
    Vendor,
}

impl Settings {
    /// What a host of this generation must know, and where it remembers what it has sealed.
    pub fn for_host(&self, generation: u32, state_dir: &Path) -> proto::host::Settings {
        let milliseconds = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        proto::host::Settings {
            build_id: BUILD_ID.to_owned(),
            generation,
            module_path: self.uri.module_path.display().to_string(),
            token_label: self.uri.label.clone(),
            token_serial: self.uri.serial.clone(),
            token_manufacturer: self.uri.manufacturer.clone(),
            token_model: self.uri.model.clone(),
            slot_id: self.uri.slot_id,
            pin_files: self
                .pin_files()
                .map(|file| file.display().to_string())
                .collect(),
            login: match (self.login, self.login()) {
                (_, Login::Pin) => proto::host::LoginMode::Pin,
                // Nobody said so: a token that wants a login is told of.
                (None, Login::None) => proto::host::LoginMode::Unspecified,
                (Some(_), Login::None) => proto::host::LoginMode::None,
                (_, Login::ProtectedPath) => proto::host::LoginMode::ProtectedPath,
            }
            .into(),
            sessions: self.sessions,
            read_write: self.read_write,
            working_copies: self.working_copies,
            reprove_interval_ms: milliseconds(self.reprove_interval),
            call_timeout_ms: milliseconds(self.call_timeout),
            slow_timeout_ms: milliseconds(self.slow_timeout),
            init_reserved: self.init_reserved.clone().unwrap_or_default(),
            state_dir: state_dir.display().to_string(),
        }
    }

    /// How hosts log in.
    pub fn login(&self) -> Login {
        let default = match self.pin_file {
            Some(_) => Login::Pin,
            None => Login::None,
        };
        self.login.unwrap_or(default)
    }

    /// Where the PIN may be, in the order in which the files are tried.
    pub fn pin_files(&self) -> impl Iterator<Item = &PathBuf> {
        self.pin_file.iter().chain(&self.next_pin_file)
    }

    /// What is out of range or does not fit together, as (setting, sentence).
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        match (self.login, &self.pin_file) {
            (Some(Login::Pin), None) => {
                faults.push(("login", "\"pin\" needs a pin_file".into()));
            }
            (Some(Login::None | Login::ProtectedPath), Some(_)) => {
                faults.push(("pin_file", "it has no use with this login".into()));
            }
            (Some(Login::Pin) | None, Some(_))
            | (Some(Login::None | Login::ProtectedPath) | None, None) => {}
        }
        if self.next_pin_file.is_some() && self.pin_file.is_none() {
            let text = "it is tried after pin_file, which is not set".into();
            faults.push(("next_pin_file", text));
        }
        for (setting, value, most) in [
            ("hosts", self.hosts, 16),
            ("sessions", self.sessions, 256),
            ("queue", self.queue, 100_000),
            ("max_starts_per_minute", self.max_starts_per_minute, 10_000),
        ] {
            if !(1..=most).contains(&value) {
                faults.push((
                    setting,
                    format!("{value} is out of range; it must be 1 to {most}"),
                ));
            }
        }
        if self
            .max_message_bytes
            .is_some_and(|bytes| !(1..=4096).contains(&bytes))
        {
            faults.push(("max_message_bytes", "it must be 1 to 4096".into()));
        }
        for (setting, value) in [
            ("start_timeout", self.start_timeout),
            ("call_timeout", self.call_timeout),
            ("slow_timeout", self.slow_timeout),
            ("reprove_interval", self.reprove_interval),
        ] {
            let range = Duration::from_millis(100)..=Duration::from_secs(3600);
            if !range.contains(&value) {
                faults.push((setting, "it must be 100ms to 1h".into()));
            }
        }
        for (setting, value) in [
            ("hedge_after", self.hedge_after),
            ("probe_interval", self.probe_interval),
        ] {
            let range = Duration::from_millis(1)..=Duration::from_secs(3600);
            if !value.is_zero() && !range.contains(&value) {
                faults.push((setting, "it must be 1ms to 1h, or 0s for never".into()));
            }
        }
        faults
    }

    /// The name under which keys find the token: its group's, or its own.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(&self.name)
    }
}

fn one() -> u32 {
    1
}

fn eight() -> u32 {
    8
}

fn sixty() -> u32 {
    60
}

fn queue() -> u32 {
    1024
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn quarter_second() -> Duration {
    Duration::from_millis(250)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

fn sixty_seconds() -> Duration {
    Duration::from_secs(60)
}

fn two_minutes() -> Duration {
    Duration::from_secs(120)
}
