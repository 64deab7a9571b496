//! Policy variables: `${aws:username}`, `${aws:PrincipalTag/team, 'none'}`, and `${*}`, `${?}`, `${$}`
//! for the characters themselves (IAM: "Policy elements: variables and tags").

use std::fmt;

use super::context::{ContextKey, context_key};

/// One piece of a text with variables.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    /// `*` and `?` are wildcards here, where wildcards are.
    Text(String),
    /// They mean themselves.
    Literal(String),
    Variable(Variable),
}

/// A condition key whose value stands in a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Variable {
    pub(super) key: ContextKey,
    /// What stands there if the request has no such value.
    pub(super) default: Option<String>,
    /// As the document writes it.
    written: String,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Literal(text) => write!(f, "${{{text}}}"),
            Self::Variable(variable) => write!(f, "${{{}}}", variable.written),
        }
    }
}

/// Parts a text at its variables.
///
/// # Errors
/// A sentence that quotes a variable without an end, of a name that is no condition key, or of a key
/// with several values.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once("${") {
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let (inside, after) = from
            .split_once('}')
            .ok_or_else(|| format!("{text:?} has a policy variable without its }}."))?;
        pieces.push(match inside {
            "*" | "?" | "$" => Piece::Literal(inside.to_owned()),
            inside => Piece::Variable(variable(inside)?),
        });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

fn variable(inside: &str) -> Result<Variable, String> {
    let (name, default) = match inside.split_once(',') {
        None => (inside, None),
        Some((name, default)) => {
            let quoted = default.trim();
            let quoted = quoted
                .strip_prefix('\'')
                .and_then(|rest| rest.strip_suffix('\''));
            let default = quoted.ok_or_else(|| {
                format!("The default of the policy variable \"${{{inside}}}\" must stand in single quotes.")
            })?;
            (name, Some(default.to_owned()))
        }
    };
    let key = context_key(name.trim())
        .map_err(|_| format!("\"${{{inside}}}\" is no policy variable that IAM or KMS know."))?;
    if key.has_several_values() {
        return Err(format!(
            "\"${{{inside}}}\" has several values, so that it can be no policy variable."
        ));
    }
    Ok(Variable {
        key,
        default,
        written: inside.to_owned(),
    })
}
