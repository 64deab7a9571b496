//! `[audit]` of the configuration.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// `[audit]`: a log of every call that can be verified. Without it there is none.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The folder of the log, on a local disk, which hsmac alone may enter (mode 0700). The first start makes it,
    /// if the folder that it is in exists.
    pub directory: PathBuf,
    /// What an answered call's record survives. `written`: the end of hsmac, by `kill -9` too; a power cut may cost
    /// the last second. `synced`: a power cut too, and each call waits for the disk. Changes of keys are always
    /// synced, attempt and outcome. Default `written`.
    #[serde(default)]
    pub durability: Durability,
    /// What becomes of a call that cannot be recorded, since the disk is full, fails, or hangs. `refuse`: its caller
    /// gets KMSInternalException, and no MAC. `answer`: it is answered, and counted as not recorded. Default
    /// `refuse`.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// How much free space of the disk is kept for records of changes of keys, in MiB: 0 to 1,048,576. With less than
    /// that, MACs cannot be recorded any more, and DisableKey still can. Default 64.
    #[serde(default = "sixty_four")]
    pub reserve_mib: u32,
    /// Whether the token seals the log each second: whoever changes what was sealed, root of this machine too, is
    /// found out by `hsmac audit verify --seals`. Default true.
    #[serde(default = "yes")]
    pub seals: bool,
    /// The object that seals, an HMAC-SHA-256 key which nothing else uses: `pkcs11:object=LABEL`, or with `id`. Default:
    /// one of hsmac's own in the token of `new_keys`, which is made once. Without `new_keys` it must be said, or
    /// `seals = false`.
    pub seal_object: Option<String>,
    /// The token, or group of tokens, that has it. Default: that of `new_keys`, or the only one.
    pub seal_token: Option<String>,
    /// The Unix socket of a SIEM's collector, which gets each record as a line of JSON: `unix:/run/siem.sock`. It is
    /// connected to; while it is away, records wait in the log. Each comes at least once. Default: none.
    pub json_lines: Option<String>,
}

/// What a record survives.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The end of hsmac.
    #[default]
    Written,
    /// A power cut.
    Synced,
}

/// What becomes of a call that cannot be recorded.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is refused.
    #[default]
    Refuse,
    /// It is answered.
    Answer,
}

impl Settings {
    /// What is wrong with the settings: the name of each in `[audit]`, and a sentence.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.directory.as_os_str().is_empty() {
            faults.push((
                "directory",
                "is empty; it is the folder of the audit log".to_owned(),
            ));
        }
        if self.reserve_mib > MOST_RESERVE {
            faults.push((
                "reserve_mib",
                format!("{} is more than {MOST_RESERVE} MiB", self.reserve_mib),
            ));
        }
        if self.json_lines.is_some() && self.json_lines_socket().is_none() {
            let text = "must be unix: and the absolute path of a socket, as in unix:/run/siem.sock";
            faults.push(("json_lines", text.to_owned()));
        }
        faults
    }

    /// The path of the collector's socket.
    pub(super) fn json_lines_socket(&self) -> Option<&Path> {
        let path = self.json_lines.as_ref()?.strip_prefix("unix:")?;
        Some(Path::new(path)).filter(|path| path.is_absolute())
    }
}

const MOST_RESERVE: u32 = 1 << 20;

fn yes() -> bool {
    true
}

fn sixty_four() -> u32 {
    64
}
