//! The tree of settings: how layers are merged, and which values `config` converts too freely.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use config::{Value, ValueKind};

use super::path::{PathSegment, joined};

/// Merges `over` into `under`, table by table. `config`'s own merge would not do: it reads top-level names as
/// paths, and a name such as `"a[999999999]"` makes it allocate that many elements.
pub(super) fn merge(under: &mut Value, over: Value) {
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

/// Hashes every value that is no table and no list, by its path.
pub(super) fn hash_leaves(
    tree: &Value,
    path: &mut Vec<PathSegment>,
    hashes: &mut BTreeMap<String, u64>,
) {
    match &tree.kind {
        ValueKind::Table(table) => {
            for (key, value) in table {
                path.push(PathSegment::Key(key.clone()));
                hash_leaves(value, path, hashes);
                path.pop();
            }
        }
        ValueKind::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                path.push(PathSegment::Element(index));
                hash_leaves(value, path, hashes);
                path.pop();
            }
        }
        ValueKind::Nil
        | ValueKind::Boolean(_)
        | ValueKind::I64(_)
        | ValueKind::I128(_)
        | ValueKind::U64(_)
        | ValueKind::U128(_)
        | ValueKind::Float(_)
        | ValueKind::String(_) => {
            let mut hasher = DefaultHasher::new();
            tree.to_string().hash(&mut hasher);
            hashes.insert(joined(path), hasher.finish());
        }
    }
}

/// Finds values that `config` would convert: it takes `true` for 1 and for "true", and rounds 1.5.
pub(super) fn loosely_typed(
    tree: &Value,
    path: &mut Vec<PathSegment>,
    loose: &mut Vec<(String, String)>,
) {
    match &tree.kind {
        ValueKind::Table(table) => {
            for (key, value) in table {
                path.push(PathSegment::Key(key.clone()));
                loosely_typed(value, path, loose);
                path.pop();
            }
        }
        ValueKind::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                path.push(PathSegment::Element(index));
                loosely_typed(value, path, loose);
                path.pop();
            }
        }
        ValueKind::Float(_) => loose.push((joined(path), "it must not be a fraction".into())),
        ValueKind::Boolean(value) => {
            let last = path.last().map(PathSegment::to_string).unwrap_or_default();
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

/// Settings that are true or false.
const SWITCHES: [&str; 6] = [
    "allow_readable_secrets",
    "enabled",
    "read_write",
    "reflection",
    "seals",
    "working_copies",
];
