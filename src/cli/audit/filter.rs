//! Which records somebody wants to see.

use crate::{
    audit::Names,
    proto::audit::{Entry, entry::Entry as Leaf},
};

#[derive(clap::Args, Debug)]
pub(super) struct Filter {
    /// Only calls about this key: what its ARN ends with, such as its ID.
    #[arg(long)]
    key: Option<String>,
    /// Only calls of this principal: what its ARN ends with, such as `user/billing`.
    #[arg(long)]
    principal: Option<String>,
    /// Only calls that ended with this exception, such as `AccessDeniedException`; or `ok`, or `failed`.
    #[arg(long)]
    outcome: Option<String>,
}

impl Filter {
    /// Whether a record is wanted; what is no call is, unless calls are looked for.
    pub(super) fn wants(&self, entry: &Entry, names: &Names) -> bool {
        let Some(Leaf::Call(call)) = &entry.entry else {
            return self.key.is_none() && self.principal.is_none() && self.outcome.is_none();
        };
        let name = |place| names.name(place).unwrap_or_default();
        let ends_as = |wanted: &Option<String>, name: &str| {
            let wanted = wanted.as_ref();
            wanted.is_none_or(|end| name == end || is_end(name, end))
        };
        let exception = name(call.exception_ref);
        let has_ended_so = self
            .outcome
            .as_ref()
            .is_none_or(|wanted| match wanted.as_str() {
                "ok" => exception.is_empty(),
                "failed" => !exception.is_empty(),
                wanted => exception == wanted,
            });
        ends_as(&self.key, name(call.key_ref))
            && ends_as(&self.principal, name(call.principal_ref))
            && has_ended_so
    }
}

/// Whether an ARN ends with these whole parts.
fn is_end(arn: &str, end: &str) -> bool {
    let before = arn.strip_suffix(end);
    before.is_some_and(|before| before.ends_with([':', '/']))
}
