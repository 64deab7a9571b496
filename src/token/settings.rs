use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::TokenUri;
use crate::{proto, wire::BUILD_ID};

/// `[token.NAME]`: one token, the hosts that serve it, and their limits.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// NAME; not a setting of its own.
    #[serde(skip)]
    pub name: String,
    /// Which token of which module (RFC 7512): `pkcs11:token=LABEL?module-path=/path/module.so`.
    pub uri: TokenUri,
    /// The file that holds the user PIN, readable by hsmac alone. May be left out for a token that
    /// needs no login.
    pub pin_file: Option<PathBuf>,
    /// Tokens of one group hold the same keys: any of them serves, and keys name the group.
    pub group: Option<String>,
    /// Who brings a new key to the other tokens of the group: `"vendor"` if the HSMs do it themselves.
    /// Without it no key is made in a group of several tokens. The same for all of them.
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
    /// How often a working copy is proved against its token object. Default 30 s.
    #[serde(default = "thirty_seconds", with = "humantime_serde")]
    pub reprove_interval: Duration,
    /// How long a host may take to load the module and to log in. Default 60 s.
    #[serde(default = "sixty_seconds", with = "humantime_serde")]
    pub start_timeout: Duration,
    /// How long one MAC or random call may take before its host is killed and replaced. Default 10 s.
    #[serde(default = "ten_seconds", with = "humantime_serde")]
    pub call_timeout: Duration,
    /// The same for searches. Default 120 s.
    #[serde(default = "two_minutes", with = "humantime_serde")]
    pub slow_timeout: Duration,
    /// How long a MAC may stay without an answer before it is given to another host or another token
    /// of the group as well; half the time left if that is less. 0 s: never. Default 250 ms.
    #[serde(default = "quarter_second", with = "humantime_serde")]
    pub hedge_after: Duration,
    /// How often the sessions of a host that has nothing to do are asked for a sign of life, so that
    /// one that was dropped is replaced before a caller meets it. 0 s: never. Default 30 s.
    #[serde(default = "thirty_seconds", with = "humantime_serde")]
    pub probe_interval: Duration,
    /// Calls that may wait for the token, 1 to 100,000; one more is refused at once. Default 1,024.
    #[serde(default = "queue")]
    pub queue: u32,
    /// Environment of this token's hosts, besides the inherited one.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// A string for C_Initialize's pReserved, for modules that want one (NSS).
    pub init_reserved: Option<String>,
    /// The longest message that this token can take, if it is less than KMS's 4,096 bytes.
    pub max_message_bytes: Option<u32>,
}

/// Who keeps the tokens of a group alike.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum ReplicatedBy {
    /// The HSMs themselves.
    Vendor,
}

impl Settings {
    /// What a host of this generation must know.
    pub fn for_host(&self, generation: u32) -> proto::host::Settings {
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
            pin_file: self
                .pin_file
                .as_ref()
                .map(|p| p.display().to_string())
                .unwrap_or_default(),
            sessions: self.sessions,
            read_write: self.read_write,
            working_copies: self.working_copies,
            reprove_interval_ms: milliseconds(self.reprove_interval),
            call_timeout_ms: milliseconds(self.call_timeout),
            slow_timeout_ms: milliseconds(self.slow_timeout),
            init_reserved: self.init_reserved.clone().unwrap_or_default(),
        }
    }

    /// What is out of range, as (setting, sentence).
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        for (setting, value, most) in [
            ("hosts", self.hosts, 16),
            ("sessions", self.sessions, 256),
            ("queue", self.queue, 100_000),
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
