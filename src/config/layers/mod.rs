//! Merges file, environment and `--set`, and reads the result so that one fault does not hide the
//! next: a wrong value is reported and removed, and the rest is read again.

pub(super) mod lines;
mod path;
mod tree;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use config::{ConfigError, File, FileFormat, Map, Source as _, Value, ValueKind};
use toml_edit::Document;

use self::{
    lines::record_lines,
    path::{PathSegment, find, joined, steps},
    tree::{loosely_typed, merge},
};
use super::{
    Settings,
    fault::{
        self, ConfigFault, ConfigFaults, InvalidSettings, SettingOrigin, SettingOrigins, nearest,
    },
};
use crate::telemetry;

/// The merged layers as one tree, and where each leaf came from.
pub(super) struct Layers {
    tree: Value,
    origins: SettingOrigins,
    faults: Vec<ConfigFault>,
}

/// The settings that were read; none if a fault could not be removed.
pub(super) struct LayeredSettings {
    pub(super) settings: Option<Settings>,
    pub(super) invalid: InvalidSettings,
    pub(super) faults: Vec<ConfigFault>,
    pub(super) origins: SettingOrigins,
    /// A hash of each value, by its path.
    pub(super) written: BTreeMap<String, u64>,
}

impl Layers {
    /// Merges the layers.
    ///
    /// # Errors
    /// [`ConfigFaults`] with one fault: the file is not TOML.
    pub(super) fn new(
        file: &Path,
        text: &str,
        sets: &[String],
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigFaults> {
        let document = Document::parse(text)
            .map_err(|error| ConfigFaults::one(fault::syntax(file, text, &error)))?;
        let tree = File::from_str(text, FileFormat::Toml)
            .collect()
            .map_err(|error| ConfigFaults::one(format!("{}: {error}", file.display())))?;
        let mut lines = BTreeMap::new();
        record_lines(text, "", document.as_table(), &mut lines);
        let origins = SettingOrigins {
            file: file.to_owned(),
            lines,
            ..SettingOrigins::default()
        };
        let mut layers = Self {
            tree: tree.into(),
            origins,
            faults: Vec::new(),
        };
        for (name, value) in environment {
            layers.apply_variable(name, value);
        }
        for set in sets {
            layers.apply_set(set);
        }
        Ok(layers)
    }

    /// `[log]` as far as it can be understood.
    pub(super) fn log(&self) -> telemetry::Settings {
        let Some(ValueKind::Table(log)) = self.under("log") else {
            return telemetry::Settings::default();
        };
        let text = |name: &str| log.get(name)?.clone().into_string().ok();
        telemetry::Settings {
            format: text("format")
                .and_then(|text| text.try_into().ok())
                .unwrap_or_default(),
            level: text("level")
                .and_then(|text| text.try_into().ok())
                .unwrap_or_default(),
        }
    }

    /// `admin.socket`, if it is set.
    pub(super) fn admin_socket(&self) -> Option<PathBuf> {
        let Some(ValueKind::Table(admin)) = self.under("admin") else {
            return None;
        };
        let socket = admin.get("socket")?.clone().into_string().ok()?;
        Some(socket.into())
    }

    /// Reads the settings, and removes each fault on the way.
    pub(super) fn read(mut self) -> LayeredSettings {
        let mut written = BTreeMap::new();
        tree::hash_leaves(&self.tree, &mut Vec::new(), &mut written);
        let mut invalid = InvalidSettings::default();
        let mut settings = None;
        // Each round removes one wrong value, or adds one placeholder.
        for _ in 0..1000 {
            match serde_path_to_error::deserialize::<_, Settings>(self.tree.clone()) {
                Ok(read) => {
                    settings = Some(read);
                    break;
                }
                Err(error) => {
                    let steps = steps(error.path());
                    let error = innermost(error.into_inner());
                    let removed = if let ConfigError::NotFound(field) = &error {
                        self.add_placeholder(steps, field, &mut invalid)
                    } else {
                        self.remove_invalid(steps, &error, &mut invalid)
                    };
                    if !removed {
                        break;
                    }
                }
            }
        }
        let mut loose = Vec::new();
        loosely_typed(&self.tree, &mut Vec::new(), &mut loose);
        for (setting, text) in loose {
            self.faults.push(self.origins.fault(&setting, text));
        }
        LayeredSettings {
            settings,
            invalid,
            faults: self.faults,
            origins: self.origins,
            written,
        }
    }

    fn apply_variable(&mut self, name: &str, value: &str) {
        let origin = || SettingOrigin::Environment(name.to_owned());
        let Some(rest) = name.strip_prefix("HSMAC__") else {
            return;
        };
        let parts: Vec<&str> = rest.split("__").collect();
        let mut steps: Vec<String> = parts.iter().map(|part| part.to_lowercase()).collect();
        if let [section, token, ..] = &mut steps[..]
            && section == "token"
            && let Some(ValueKind::Table(tokens)) = self.under("token")
            && let Some(named) = tokens
                .keys()
                .find(|key| key.to_lowercase().replace('-', "_") == *token)
        {
            token.clone_from(named);
        }
        // The names in a token's `env` are variables themselves: their case is kept.
        if let ([section, _, table, _, ..], Some(variable)) = (&steps[..], parts.get(3..))
            && section == "token"
            && table == "env"
        {
            let variable = variable.join("__");
            steps.truncate(3);
            steps.push(variable);
        }
        self.put(steps, value, origin(), "the environment");
    }

    fn apply_set(&mut self, set: &str) {
        let Some((path, value)) = set.split_once('=') else {
            // Security: without a `=` the text may be a secret, and is not repeated.
            let text = "one has no = in it; write --set section.key=value";
            self.faults.push(self.origins.fault_at(
                SettingOrigin::Set("section.key".into()),
                "",
                text,
            ));
            return;
        };
        let steps = path.trim().split('.').map(str::to_owned).collect();
        self.put(
            steps,
            value,
            SettingOrigin::Set(path.trim().to_owned()),
            "--set",
        );
    }

    fn put(&mut self, steps: Vec<String>, value: &str, origin: SettingOrigin, layer: &str) {
        if steps.iter().any(String::is_empty) {
            let text = "no such setting; a part of its name is empty";
            self.faults.push(self.origins.fault_at(origin, "", text));
            return;
        }
        let is_list = match &steps[..] {
            [section, ..] if matches!(section.as_str(), "key" | "principal") => true,
            [section, list, ..] => section == "limits" && list == "principal",
            [] | [_] => false,
        };
        if is_list {
            let text = format!("{layer} does not reach the [[…]] lists; write them in the file");
            self.faults.push(self.origins.fault_at(origin, "", text));
            return;
        }
        let path = steps.join(".");
        let leaf = Value::new(None, value);
        let branch = steps.into_iter().rev().fold(leaf, |below, step| {
            Value::new(None, ValueKind::Table(Map::from_iter([(step, below)])))
        });
        merge(&mut self.tree, branch);
        match origin {
            SettingOrigin::File(_) => {}
            SettingOrigin::Environment(name) => {
                self.origins.environment.insert(path, name);
            }
            SettingOrigin::Set(_) => {
                self.origins.sets.insert(path);
            }
        }
    }

    fn under(&self, section: &str) -> Option<&ValueKind> {
        let ValueKind::Table(sections) = &self.tree.kind else {
            return None;
        };
        sections.get(section).map(|value| &value.kind)
    }

    /// Reports a wrong value and removes it. False if there is nothing to remove.
    fn remove_invalid(
        &mut self,
        mut steps: Vec<PathSegment>,
        error: &ConfigError,
        invalid: &mut InvalidSettings,
    ) -> bool {
        while !steps.is_empty() && find(&mut self.tree, &steps).is_none() {
            steps.pop();
        }
        let path = joined(&steps);
        let value = match find(&mut self.tree, &steps).map(|value| &value.kind) {
            Some(ValueKind::String(text)) => Some(text.clone()),
            Some(_) | None => None,
        };
        let text = fault::wording(&path, value.as_deref(), error);
        self.faults.push(self.origins.fault(&path, text));
        // The whole list is removed: the other elements must keep their numbers.
        while matches!(steps.last(), Some(PathSegment::Element(_))) {
            steps.pop();
        }
        invalid.0.insert(joined(&steps));
        let Some(PathSegment::Key(last)) = steps.pop() else {
            return false;
        };
        match find(&mut self.tree, &steps).map(|value| &mut value.kind) {
            Some(ValueKind::Table(table)) => table.remove(&last).is_some(),
            Some(_) | None => false,
        }
    }

    /// Reports that a required setting is missing, unless it was removed, and adds a placeholder, so
    /// that reading goes on. Settings with a placeholder are never returned from this room.
    fn add_placeholder(
        &mut self,
        mut steps: Vec<PathSegment>,
        field: &str,
        invalid: &mut InvalidSettings,
    ) -> bool {
        // `config` puts its own path before the name, and forgets the dot after an element.
        let field = field.rsplit(['.', ']']).next().unwrap_or(field);
        let Some((_, text)) = PLACEHOLDERS.iter().find(|(name, _)| *name == field) else {
            return false;
        };
        // A path that ends in the missing field itself names it twice.
        if matches!(steps.last(), Some(PathSegment::Key(last)) if last == field) {
            steps.pop();
        }
        let Some(ValueKind::Table(table)) =
            find(&mut self.tree, &steps).map(|value| &mut value.kind)
        else {
            return false;
        };
        let table_with = |setting: &str| {
            ValueKind::Table(Map::from_iter([(
                setting.to_owned(),
                Value::new(None, *text),
            )]))
        };
        let value = match field {
            "grpc" => table_with("listen"),
            "sqlite" => table_with("path"),
            _ => (*text).into(),
        };
        table.insert(field.to_owned(), Value::new(None, value));
        steps.push(PathSegment::Key(field.to_owned()));
        let path = joined(&steps);
        if invalid.0.insert(path.clone()) {
            self.faults
                .push(self.origins.fault(&path, "required, but not set"));
        }
        true
    }
}

/// Required settings, each with a placeholder that can be read in its place.
const PLACEHOLDERS: [(&str, &str); 12] = [
    ("account", "000000000000"),
    ("arn", "arn:aws:iam::000000000000:root"),
    ("directory", "/none"),
    ("grpc", "127.0.0.1:0"),
    ("key_id", "00000000-0000-0000-0000-000000000000"),
    ("key_spec", "HMAC_256"),
    ("listen", "127.0.0.1:0"),
    ("object", "pkcs11:object=none"),
    ("path", "/none"),
    ("region", "none"),
    ("sqlite", "/none"),
    ("uri", "pkcs11:token=none?module-path=/none"),
];

/// Variables that are no settings, though they begin as settings do: warned of, since one may be meant as a
/// setting. Kubernetes sets many for each Service, after its name.
pub(super) fn stray_variables(
    environment: &BTreeMap<String, String>,
    origins: &SettingOrigins,
) -> Vec<ConfigFault> {
    let strays = environment.keys().filter(|name| {
        name.starts_with("HSMAC_")
            && !name.starts_with("HSMAC__")
            && !CLIENT_VARIABLES.contains(&name.as_str())
    });
    let (injected, others): (Vec<&String>, Vec<&String>) =
        strays.partition(|name| is_of_kubernetes(name));
    let mut warnings = Vec::new();
    if let Some(first) = injected.first() {
        let text = format!(
            "this and {} more are not used: Kubernetes sets such names for a Service called hsmac; \
             enableServiceLinks: false leaves them out",
            injected.len() - 1
        );
        let origin = SettingOrigin::Environment((*first).clone());
        warnings.push(origins.fault_at(origin, "", text));
    }
    for name in others {
        let text = match nearest(name, VARIABLES.into_iter()) {
            Some(right) => format!("not used: no such setting; did you mean {right}?"),
            None => "not used: no such setting; they are named HSMAC__SECTION__KEY".into(),
        };
        let origin = SettingOrigin::Environment(name.clone());
        warnings.push(origins.fault_at(origin, "", text));
    }
    warnings
}

/// `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`, `NAME_SERVICE_PORT_GRPC`, `NAME_PORT`, `NAME_PORT_50051_TCP_ADDR`;
/// the Service may be called hsmac-something.
fn is_of_kubernetes(name: &str) -> bool {
    let is_port = |rest: &str| {
        let mut words = rest.split('_');
        let number = words.next().unwrap_or_default();
        !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.contains("_SERVICE_PORT")
        || name
            .split_once("_PORT_")
            .is_some_and(|(_, rest)| is_port(rest))
}

fn innermost(mut error: ConfigError) -> ConfigError {
    while let ConfigError::At { error: within, .. } = error {
        error = *within;
    }
    error
}

/// What `hsmac kms` and other clients of this binary read.
const CLIENT_VARIABLES: [&str; 7] = [
    "HSMAC_CA_BUNDLE",
    "HSMAC_CERTIFICATE",
    "HSMAC_CONFIG",
    "HSMAC_ENDPOINT",
    "HSMAC_KEY",
    "HSMAC_PROFILE",
    "HSMAC_PROFILES",
];

/// Variables that "did you mean" suggests for a misspelt one.
const VARIABLES: [&str; 24] = [
    "HSMAC_ENDPOINT",
    "HSMAC__ACCOUNT",
    "HSMAC__ALLOW_READABLE_SECRETS",
    "HSMAC__AUDIT__DIRECTORY",
    "HSMAC__AUDIT__DURABILITY",
    "HSMAC__AUDIT__ON_FAILURE",
    "HSMAC__AWS__CLOCK_SKEW",
    "HSMAC__AWS__DEADLINE",
    "HSMAC__AWS__LISTEN",
    "HSMAC__DRAIN_TIMEOUT",
    "HSMAC__GRPC__ANONYMOUS",
    "HSMAC__GRPC__DEFAULT_DEADLINE",
    "HSMAC__GRPC__LISTEN",
    "HSMAC__GRPC__MAX_CONNECTIONS",
    "HSMAC__GRPC__MAX_STREAMS",
    "HSMAC__GRPC__REFLECTION",
    "HSMAC__LIMITS__DEFAULT__CONCURRENT",
    "HSMAC__LIMITS__DEFAULT__WEIGHT",
    "HSMAC__LOG__FORMAT",
    "HSMAC__LOG__LEVEL",
    "HSMAC__NEW_KEYS",
    "HSMAC__REGION",
    "HSMAC__STATE_DIR",
    "HSMAC__STORE__SQLITE__PATH",
];
