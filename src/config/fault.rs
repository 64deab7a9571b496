//! Faults of the configuration: where each one is, and a sentence that says how to correct it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use config::ConfigError;

/// A fault of one setting. Its Display is one line: where, which setting, what is wrong.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ConfigFault {
    origin: SettingOrigin,
    setting: String,
    line: String,
}

impl ConfigFault {
    /// The setting's dotted path; empty if the fault is about none.
    pub(super) fn setting(&self) -> &str {
        &self.setting
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// A risk that an operator should know of, though hsmac can start.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ConfigWarning(pub(super) ConfigFault);

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// All faults of one run, one line each.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigFaults(Vec<ConfigFault>);

impl ConfigFaults {
    pub(super) fn new(mut faults: Vec<ConfigFault>) -> Self {
        faults.sort();
        faults.dedup();
        Self(faults)
    }

    pub(super) fn one(line: String) -> Self {
        Self(vec![ConfigFault {
            origin: SettingOrigin::File(0),
            setting: String::new(),
            line,
        }])
    }

    /// Each of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigFault> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigFaults {}

/// Where a value came from; in the order in which faults are reported.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum SettingOrigin {
    /// A line of the file; 0 if the fault is at no line.
    File(usize),
    /// A variable.
    Environment(String),
    /// A path given to `--set`.
    Set(String),
}

/// Where every setting came from, by dotted path (`key[0].aliases[1]`).
#[derive(Clone, Debug, Default)]
pub(super) struct SettingOrigins {
    pub(super) file: PathBuf,
    pub(super) lines: BTreeMap<String, usize>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) sets: BTreeSet<String>,
}

impl SettingOrigins {
    pub(super) fn fault(&self, setting: &str, text: impl fmt::Display) -> ConfigFault {
        self.fault_at(self.origin(setting), setting, text)
    }

    pub(super) fn fault_at(
        &self,
        origin: SettingOrigin,
        setting: &str,
        text: impl fmt::Display,
    ) -> ConfigFault {
        let file = self.file.display();
        let line = match &origin {
            SettingOrigin::File(0) => format!("{file}: {setting}: {text}"),
            SettingOrigin::File(line) => format!("{file}:{line}: {setting}: {text}"),
            SettingOrigin::Environment(name) => format!("environment {name}: {text}"),
            SettingOrigin::Set(path) => format!("--set {path}: {text}"),
        };
        ConfigFault {
            origin,
            setting: setting.to_owned(),
            line,
        }
    }

    fn origin(&self, setting: &str) -> SettingOrigin {
        let set = |path: &String| SettingOrigin::Set(path.clone());
        let variable = |(_, name): (&String, &String)| SettingOrigin::Environment(name.clone());
        let inside = |path: &str| {
            path.strip_prefix(setting)
                .is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        // The setting itself, highest layer first; then what stands in it (an unknown table of the
        // environment); then the table that it is missing from.
        self.sets
            .get(setting)
            .map(set)
            .or_else(|| self.environment.get_key_value(setting).map(variable))
            .or_else(|| {
                self.lines
                    .get(setting)
                    .map(|line| SettingOrigin::File(*line))
            })
            .or_else(|| self.sets.iter().find(|path| inside(path)).map(set))
            .or_else(|| {
                self.environment
                    .iter()
                    .find(|(path, _)| inside(path))
                    .map(variable)
            })
            .or_else(|| {
                let mut around = setting;
                loop {
                    around = &around[..around.rfind(['.', '['])?];
                    if let Some(line) = self.lines.get(around) {
                        return Some(SettingOrigin::File(*line));
                    }
                }
            })
            .unwrap_or(SettingOrigin::File(0))
    }
}

/// Settings whose fault is reported already: faults that follow from it are not reported as well.
#[derive(Debug, Default)]
pub(super) struct InvalidSettings(pub(super) BTreeSet<String>);

impl InvalidSettings {
    /// Whether the setting, or a table around it, is invalid.
    pub(super) fn covers(&self, setting: &str) -> bool {
        self.0.iter().any(|path| {
            setting
                .strip_prefix(path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// Whether something in the setting, or the setting, is invalid.
    pub(super) fn within(&self, setting: &str) -> bool {
        self.covers(setting)
            || self.0.iter().any(|path| {
                path.strip_prefix(setting)
                    .is_some_and(|rest| rest.starts_with(['.', '[']))
            })
    }
}

/// Where TOML's syntax is broken: `file:line:column: message`. toml_edit's own Display
/// would show the line, which may hold what must not be shown.
pub(super) fn syntax(file: &Path, text: &str, error: &toml_edit::TomlError) -> String {
    let before = error
        .span()
        .and_then(|span| text.get(..span.start))
        .unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!(
        "{}:{line}:{column}: {}",
        file.display(),
        error.message().replace('\n', "; ")
    )
}

/// Says what is wrong with the value at `setting`; `value` is what stands there, if it is a text.
pub(super) fn wording(setting: &str, value: Option<&str>, error: &ConfigError) -> String {
    let text = if let ConfigError::Type {
        unexpected,
        expected,
        ..
    } = error
    {
        mismatch(&unexpected.to_string(), expected)
    } else {
        let text = error.to_string();
        match text.strip_prefix("unknown field `") {
            Some(rest) => unknown_setting(setting, rest),
            None => unpack(&text),
        }
    };
    let shows = value.is_some_and(|value| text.contains(value.trim()));
    // Security: no message repeats a value that may be a PIN or a secret.
    if is_secret(setting) && shows {
        return "this value cannot stand here (it is not shown: it may be a secret)".into();
    }
    let holds_pin = value.is_some_and(|value| value.to_lowercase().contains("pin-"));
    if holds_pin && !text.ends_with("set pin_file instead") {
        return "this is no URI that hsmac understands (it is not shown: it may hold a PIN)".into();
    }
    text
}

/// `unknown field` as serde words it, less its beginning: NAME`, expected one of `a`, `b`.
fn unknown_setting(setting: &str, rest: &str) -> String {
    if not_yet(setting) {
        return "this version of hsmac does not have it yet".into();
    }
    let mut ticked = rest.split('`');
    let wrong = ticked.next().unwrap_or_default();
    let known: Vec<&str> = ticked.skip(1).step_by(2).collect();
    match nearest(wrong, known.iter().copied()) {
        Some(right) => format!("no such setting; did you mean {right}?"),
        None => format!("no such setting; there are {}", known.join(", ")),
    }
}

/// Settings that the design has and this version has not.
fn not_yet(setting: &str) -> bool {
    let steps: Vec<&str> = setting.split('.').collect();
    match steps[..] {
        [section] => section == "spawner",
        ["store", "etcd"] | ["token", _, "run_as"] => true,
        _ => false,
    }
}

/// The name that was probably meant.
pub(crate) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (strsim::jaro_winkler(wrong, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

/// Words a value of the wrong type; both texts come from the `config` crate.
fn mismatch(found: &str, expected: &str) -> String {
    let wanted = match expected {
        text if text.contains("integer") => "a whole number",
        "a boolean" => "true or false",
        text => text,
    };
    if let Some(text) = found.strip_prefix("string ") {
        return format!("{text} is not {wanted}");
    }
    match found {
        "map" => format!("a table stands where {wanted} is wanted"),
        "sequence" => format!("a list stands where {wanted} is wanted"),
        number if number.contains("integer") && expected.contains("integer") => {
            format!(
                "{} is out of range",
                number.split('`').nth(1).unwrap_or(number)
            )
        }
        other => format!(
            "{} is not {wanted}",
            other.split('`').nth(1).unwrap_or(other)
        ),
    }
}

/// Shortens serde's own sentences; other texts stay as they are.
fn unpack(text: &str) -> String {
    let Some((found, expected)) = text
        .strip_prefix("invalid type: ")
        .or_else(|| text.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    else {
        return text.to_owned();
    };
    match expected {
        "a map" => "it must be a table".into(),
        "a sequence" => "it must be a list".into(),
        table if table.starts_with("struct ") => "it must be a table".into(),
        "a duration" => {
            format!(
                "{} is no time; write \"10s\" or \"250ms\"",
                found.trim_start_matches("string ")
            )
        }
        other => mismatch(found, other),
    }
}

/// Whether a setting's name says that its value is secret.
fn is_secret(setting: &str) -> bool {
    let name = setting.rsplit('.').next().unwrap_or(setting).to_lowercase();
    ["pin", "secret", "passw", "passphrase"]
        .iter()
        .any(|word| name.contains(word))
}
