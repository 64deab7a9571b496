//! File, environment and `--set` laid over each other, and read so that one fault does not hide the
//! next: what is wrong is told, taken out, and the rest is read again.

use std::{collections::BTreeMap, fmt, path::Path};

use config::{ConfigError, File, FileFormat, Map, Source as _, Value, ValueKind};
use serde_path_to_error::Segment;
use toml_edit::{Document, Item, TableLike};

use super::{
    Settings,
    fault::{self, Fault, Faults, Origin, Origins, Spoiled, nearest},
};

/// The layers as one tree, and where each leaf came from.
pub(super) struct Layers {
    tree: Value,
    origins: Origins,
    faults: Vec<Fault>,
}

/// What reading gave. No settings if a fault could not be stepped over.
pub(super) struct Read {
    pub(super) settings: Option<Settings>,
    pub(super) spoiled: Spoiled,
    pub(super) faults: Vec<Fault>,
    pub(super) origins: Origins,
}

impl Layers {
    /// # Errors
    /// A file that is no TOML; nothing else can be said of it then.
    pub(super) fn new(
        file: &Path,
        text: &str,
        sets: &[String],
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Faults> {
        let document = Document::parse(text)
            .map_err(|error| Faults::one(fault::syntax(file, text, &error)))?;
        let tree = File::from_str(text, FileFormat::Toml)
            .collect()
            .map_err(|error| Faults::one(format!("{}: {error}", file.display())))?;
        let mut lines = BTreeMap::new();
        note_lines(text, "", document.as_table(), &mut lines);
        let origins = Origins {
            file: file.to_owned(),
            lines,
            ..Origins::default()
        };
        let mut layers = Self {
            tree: tree.into(),
            origins,
            faults: Vec::new(),
        };
        for (name, value) in environment {
            layers.lay_variable(name, value);
        }
        for set in sets {
            layers.lay_set(set);
        }
        Ok(layers)
    }

    /// Reads settings out of the tree, stepping over each fault.
    pub(super) fn read(mut self) -> Read {
        let mut spoiled = Spoiled::default();
        let mut settings = None;
        // Each round takes out one fault or puts in one stand-in.
        for _ in 0..1000 {
            match serde_path_to_error::deserialize::<_, Settings>(self.tree.clone()) {
                Ok(read) => {
                    settings = Some(read);
                    break;
                }
                Err(error) => {
                    let steps = steps(error.path());
                    let error = innermost(error.into_inner());
                    let stepped_over = if let ConfigError::NotFound(field) = &error {
                        self.stand_in(steps, field, &mut spoiled)
                    } else {
                        self.take_out(steps, &error, &mut spoiled)
                    };
                    if !stepped_over {
                        break;
                    }
                }
            }
        }
        let mut loose = Vec::new();
        loose_leaves(&self.tree, &mut Vec::new(), &mut loose);
        for (setting, text) in loose {
            self.faults.push(self.origins.fault(&setting, text));
        }
        Read {
            settings,
            spoiled,
            faults: self.faults,
            origins: self.origins,
        }
    }

    fn lay_variable(&mut self, name: &str, value: &str) {
        if !name.starts_with("HSMAC_") || name == "HSMAC_ENDPOINT" {
            return;
        }
        let origin = || Origin::Environment(name.to_owned());
        let Some(rest) = name.strip_prefix("HSMAC__") else {
            let text = match nearest(name, VARIABLES.into_iter()) {
                Some(right) => format!("no such setting; did you mean {right}?"),
                None => "no such setting; they are named HSMAC__SECTION__KEY".into(),
            };
            self.faults.push(self.origins.fault_at(origin(), "", text));
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
        // The names in a token's `env` are variables themselves: their case matters.
        if let ([section, _, table, _, ..], Some(variable)) = (&steps[..], parts.get(3..))
            && section == "token"
            && table == "env"
        {
            let variable = variable.join("__");
            steps.truncate(3);
            steps.push(variable);
        }
        self.lay(steps, value, origin(), "the environment");
    }

    fn lay_set(&mut self, set: &str) {
        let Some((path, value)) = set.split_once('=') else {
            // Security: without a `=` nobody knows where the name ends and a secret begins.
            let text = "one has no = in it; write --set section.key=value";
            self.faults.push(
                self.origins
                    .fault_at(Origin::Set("section.key".into()), "", text),
            );
            return;
        };
        let steps = path.trim().split('.').map(str::to_owned).collect();
        self.lay(steps, value, Origin::Set(path.trim().to_owned()), "--set");
    }

    fn lay(&mut self, steps: Vec<String>, value: &str, origin: Origin, layer: &str) {
        if steps.iter().any(String::is_empty) {
            let text = "no such setting; a part of its name is empty";
            self.faults.push(self.origins.fault_at(origin, "", text));
            return;
        }
        if steps
            .first()
            .is_some_and(|section| matches!(section.as_str(), "key" | "principal"))
        {
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
            Origin::File(_) => {}
            Origin::Environment(name) => {
                self.origins.environment.insert(path, name);
            }
            Origin::Set(_) => {
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

    /// Tells what is wrong and takes it out. False if there is nothing to take out.
    fn take_out(
        &mut self,
        mut steps: Vec<Step>,
        error: &ConfigError,
        spoiled: &mut Spoiled,
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
        // An element goes with its whole list: the others must keep their numbers.
        while matches!(steps.last(), Some(Step::Element(_))) {
            steps.pop();
        }
        spoiled.0.insert(joined(&steps));
        let Some(Step::Key(last)) = steps.pop() else {
            return false;
        };
        match find(&mut self.tree, &steps).map(|value| &mut value.kind) {
            Some(ValueKind::Table(table)) => table.remove(&last).is_some(),
            Some(_) | None => false,
        }
    }

    /// Tells that a required setting is missing, unless it was taken out, and puts in something
    /// that can be read, so that reading goes on. Settings with a stand-in never leave this room.
    fn stand_in(&mut self, mut steps: Vec<Step>, field: &str, spoiled: &mut Spoiled) -> bool {
        // `config` puts its own path before the name, and forgets the dot after an element.
        let field = field.rsplit(['.', ']']).next().unwrap_or(field);
        let Some((_, text)) = STAND_INS.iter().find(|(name, _)| *name == field) else {
            return false;
        };
        // A path that ends in the missing field itself names it twice.
        if matches!(steps.last(), Some(Step::Key(last)) if last == field) {
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
        steps.push(Step::Key(field.to_owned()));
        let path = joined(&steps);
        if spoiled.0.insert(path.clone()) {
            self.faults
                .push(self.origins.fault(&path, "required, but not set"));
        }
        true
    }
}

/// Settings that are true or false.
const SWITCHES: [&str; 4] = ["enabled", "read_write", "reflection", "working_copies"];

/// Required settings, each with a value that can be read in its place.
const STAND_INS: [(&str, &str); 11] = [
    ("account", "000000000000"),
    ("arn", "arn:aws:iam::000000000000:root"),
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

/// What a misspelt variable may have meant; only for "did you mean".
const VARIABLES: [&str; 18] = [
    "HSMAC_ENDPOINT",
    "HSMAC__ACCOUNT",
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
    "HSMAC__LOG__FORMAT",
    "HSMAC__LOG__LEVEL",
    "HSMAC__NEW_KEYS",
    "HSMAC__REGION",
    "HSMAC__STATE_DIR",
    "HSMAC__STORE__SQLITE__PATH",
];

#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    Key(String),
    Element(usize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key),
            Self::Element(index) => write!(f, "[{index}]"),
        }
    }
}

fn joined(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        if matches!(step, Step::Key(_)) && !path.is_empty() {
            path.push('.');
        }
        path.push_str(&step.to_string());
    }
    path
}

fn steps(path: &serde_path_to_error::Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Seq { index } => Some(Step::Element(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

fn innermost(mut error: ConfigError) -> ConfigError {
    while let ConfigError::At { error: within, .. } = error {
        error = *within;
    }
    error
}

fn find<'a>(tree: &'a mut Value, steps: &[Step]) -> Option<&'a mut Value> {
    steps
        .iter()
        .try_fold(tree, |value, step| match (&mut value.kind, step) {
            (ValueKind::Table(table), Step::Key(key)) => table.get_mut(key),
            (ValueKind::Array(list), Step::Element(index)) => list.get_mut(*index),
            _ => None,
        })
}

/// Finds what `config` reads too kindly: it takes `true` for 1 and for "true", and rounds 1.5.
fn loose_leaves(tree: &Value, path: &mut Vec<Step>, loose: &mut Vec<(String, String)>) {
    match &tree.kind {
        ValueKind::Table(table) => {
            for (key, value) in table {
                path.push(Step::Key(key.clone()));
                loose_leaves(value, path, loose);
                path.pop();
            }
        }
        ValueKind::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                path.push(Step::Element(index));
                loose_leaves(value, path, loose);
                path.pop();
            }
        }
        ValueKind::Float(_) => loose.push((joined(path), "it must not be a fraction".into())),
        ValueKind::Boolean(value) => {
            let last = path.last().map(Step::to_string).unwrap_or_default();
            if !SWITCHES.contains(&last.as_str()) {
                loose.push((
                    joined(path),
                    format!("{value} stands where a text or a number is wanted"),
                ));
            }
        }
        ValueKind::Nil
        | ValueKind::I64(_)
        | ValueKind::I128(_)
        | ValueKind::U64(_)
        | ValueKind::U128(_)
        | ValueKind::String(_) => {}
    }
}

/// Lays `over` on `under`, table by table. Not `config`'s own merge: that reads top-level names as
/// paths, and a name such as `"a[999999999]"` makes it allocate that many elements.
fn merge(under: &mut Value, over: Value) {
    match (&mut under.kind, over.kind) {
        (ValueKind::Table(under), ValueKind::Table(over)) => {
            for (key, value) in over {
                match under.get_mut(&key) {
                    Some(present) => merge(present, value),
                    None => {
                        under.insert(key, value);
                    }
                }
            }
        }
        (kind, over) => *kind = over,
    }
}

/// Notes the line of every setting of the file.
fn note_lines(text: &str, path: &str, table: &dyn TableLike, lines: &mut BTreeMap<String, usize>) {
    for (name, item) in table.iter() {
        let path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        let key = table.key(name).and_then(toml_edit::Key::span);
        // A table's own header says more than the first mention of its name.
        let span = match item {
            Item::Table(table) => table.span().or(key),
            Item::None | Item::Value(_) | Item::ArrayOfTables(_) => key.or_else(|| item.span()),
        };
        if let Some(span) = span {
            lines.insert(path.clone(), line_of(text, span.start));
        }
        if let Some(table) = item.as_table_like() {
            note_lines(text, &path, table, lines);
        }
        if let Some(tables) = item.as_array_of_tables() {
            for (index, table) in tables.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if let Some(span) = table.span() {
                    lines.insert(path.clone(), line_of(text, span.start));
                }
                note_lines(text, &path, table, lines);
            }
        }
        for (index, value) in item.as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}[{index}]");
            if let Some(span) = value.span() {
                lines.insert(path.clone(), line_of(text, span.start));
            }
            if let Some(table) = value.as_inline_table() {
                note_lines(text, &path, table, lines);
            }
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}
