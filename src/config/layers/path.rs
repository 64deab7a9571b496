//! Paths of settings, such as `key[0].aliases[1]`, and what stands at one in the tree.

use std::fmt;

use config::{Value, ValueKind};
use serde_path_to_error::Segment;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum PathSegment {
    Key(String),
    Element(usize),
}

impl fmt::Display for PathSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => f.write_str(key),
            Self::Element(index) => write!(f, "[{index}]"),
        }
    }
}

pub(super) fn joined(steps: &[PathSegment]) -> String {
    let mut path = String::new();
    for step in steps {
        if matches!(step, PathSegment::Key(_)) && !path.is_empty() {
            path.push('.');
        }
        path.push_str(&step.to_string());
    }
    path
}

pub(super) fn steps(path: &serde_path_to_error::Path) -> Vec<PathSegment> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Map { key } => Some(PathSegment::Key(key.clone())),
            Segment::Seq { index } => Some(PathSegment::Element(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

pub(super) fn find<'a>(tree: &'a mut Value, steps: &[PathSegment]) -> Option<&'a mut Value> {
    steps
        .iter()
        .try_fold(tree, |value, step| match (&mut value.kind, step) {
            (ValueKind::Table(table), PathSegment::Key(key)) => table.get_mut(key),
            (ValueKind::Array(list), PathSegment::Element(index)) => list.get_mut(*index),
            _ => None,
        })
}
