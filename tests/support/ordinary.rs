//! Ordinary key policies, and whom of three callers each lets make MACs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
pub struct Table {
    /// ARNs by the names that `allowed` uses.
    pub callers: BTreeMap<String, String>,
    pub policies: Vec<Row>,
}

#[derive(Deserialize)]
pub struct Row {
    /// Who may, if their identity policies let them.
    pub allowed: Vec<String>,
    statements: Vec<Value>,
}

pub fn table() -> Table {
    serde_json::from_str(include_str!("../policies/ordinary.json")).unwrap()
}

impl Row {
    /// The policy's text.
    pub fn policy(&self) -> String {
        json!({ "Version": "2012-10-17", "Id": "key-policy", "Statement": self.statements })
            .to_string()
    }
}
