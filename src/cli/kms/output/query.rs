//! `--query`: JMESPath, as the AWS CLI has it.

use jmespath::{Expression, Variable};
use serde_json::Value;

/// An expression that chooses of an answer.
pub(in crate::cli::kms) struct Query {
    text: String,
    expression: Expression<'static>,
}

impl Query {
    /// # Errors
    /// The AWS CLI's sentence: the text is no expression.
    pub(in crate::cli::kms) fn compile(text: &str) -> Result<Self, String> {
        let expression = jmespath::compile(text);
        let expression = expression.map_err(|error| wrong(text, &error.reason))?;
        Ok(Self {
            text: text.to_owned(),
            expression,
        })
    }

    /// # Errors
    /// A sentence: a function of the expression got what it cannot take.
    pub(super) fn search(&self, value: &Value) -> Result<Value, String> {
        let fault = |reason: &dyn std::fmt::Display| wrong(&self.text, reason);
        let data = Variable::from_serializable(value).map_err(|error| fault(&error))?;
        let found = self
            .expression
            .search(data)
            .map_err(|error| fault(&error.reason))?;
        serde_json::to_value(&*found).map_err(|error| fault(&error))
    }
}

fn wrong(text: &str, reason: &dyn std::fmt::Display) -> String {
    format!("Bad value for --query {text}: {reason}")
}
