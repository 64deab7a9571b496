//! Statements that no request to hsmac can meet, for whoever wrote them: IAM takes such statements
//! without a word.

use super::{
    Effect, Patterns, Policy, Resource, Statement,
    condition::Condition,
    pattern::fits,
    principal::{Principal, Principals},
};
use crate::model::AccountId;

impl Policy {
    /// [`Policy::warnings`], each after the name of the policy's place.
    pub fn named_warnings(&self, region: &str) -> Vec<String> {
        let warnings = self.warnings(region).into_iter();
        warnings
            .map(|text| format!("{}: {text}", self.name()))
            .collect()
    }

    /// A sentence for each statement that can never apply here, or that denies more than it seems to;
    /// `region` is the one whose keys are served.
    pub fn warnings(&self, region: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        for (at, statement) in self.statements.iter().enumerate() {
            let name = self.statement_name(at);
            if let Some(reason) = statement.never_applies(region) {
                warnings.push(format!("statement {name} never applies here: {reason}"));
            }
            for principal in statement.left_out() {
                warnings.push(format!(
                    "statement {name} denies {principal} too, as IAM may: NotPrincipal must name its account's root beside it"
                ));
            }
        }
        warnings
    }
}

impl Policy {
    /// A sentence for each principal that it means by an ARN and an immutable ID, and that has this ID no
    /// more. `id_of` gives the ID that the principal of an ARN has now.
    pub fn orphans<'a>(&self, id_of: impl Fn(&str) -> Option<&'a str>) -> Vec<String> {
        let mut orphans = Vec::new();
        for (at, statement) in self.statements.iter().enumerate() {
            for principal in statement.principals.named() {
                let Principal::Arn {
                    arn,
                    id: Some(then),
                } = principal
                else {
                    continue;
                };
                let now = match id_of(arn) {
                    Some(now) if now == then => continue,
                    Some(now) => format!("has the ID {now}"),
                    None => "has no ID".to_owned(),
                };
                orphans.push(format!(
                    "statement {} means the principal with the ID {then}, and {arn} {now} now: put the policy again if it is meant",
                    self.statement_name(at)
                ));
            }
        }
        orphans
    }
}

impl Statement {
    fn never_applies(&self, region: &str) -> Option<String> {
        if let Principals::These(these) = &self.principals
            && these.iter().all(|one| *one == Principal::Foreign)
        {
            return Some("its principals are services, federated or canonical users, and no caller of hsmac is one".into());
        }
        if self.actions.is_empty() {
            return Some("it has no action that hsmac's keys take part in".into());
        }
        if let Patterns::Any(resources) = &self.resources
            && !resources.iter().any(|one| one.can_be(region))
        {
            return Some(format!(
                "none of its resources can be a key or an alias in {region}"
            ));
        }
        self.conditions.iter().find_map(Condition::never_holds)
    }

    /// The users, roles and sessions that NotPrincipal leaves out in vain.
    fn left_out(&self) -> Vec<&str> {
        let (Principals::AllBut(these), Effect::Deny) = (&self.principals, self.effect) else {
            return Vec::new();
        };
        let has_root = |account: &str| {
            these.iter().any(|one| match one {
                Principal::Account(known) => known.as_str() == account,
                Principal::Anyone => true,
                Principal::Arn { .. } | Principal::Foreign => false,
            })
        };
        let left_out = these.iter().filter_map(|one| match one {
            Principal::Arn { arn, .. } => {
                let account: AccountId = arn.split(':').nth(4)?.parse().ok()?;
                (!has_root(account.as_str())).then_some(arn.as_str())
            }
            Principal::Anyone | Principal::Account(_) | Principal::Foreign => None,
        });
        left_out.collect()
    }
}

impl Resource {
    /// Whether it may be a key or an alias in a region.
    fn can_be(&self, region: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Arn(pattern) => {
                let (service, of_region) = pattern.service_and_region();
                service.may_fit("kms") && of_region.may_fit(region)
            }
        }
    }
}

impl super::pattern::Pattern {
    /// Whether a text fits in some request.
    fn may_fit(&self, text: &str) -> bool {
        match self {
            Self::Plain(pattern) | Self::Wild(pattern) => fits(pattern, text),
            Self::Template(_) => true,
        }
    }
}
