//! Why a policy says what it says, for people. Uses what [`decide`](super::decide) uses; that one stops
//! at the first thing that does not fit, this one names them all.

use super::{Effect, Policy, Question, Statement, Values, principal::How};

/// A statement, put to a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// Its `Sid`, if it has one.
    pub sid: Option<String>,
    /// What it would do.
    pub effect: Effect,
    /// What it does.
    pub says: Says,
}

/// What a statement says to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Says {
    /// It allows the caller itself.
    Allows,
    /// It allows the caller's account, whose other policies must allow the caller.
    AllowsAccount,
    /// It denies.
    Denies,
    /// It does not apply, for all these reasons.
    Nothing(Vec<Misfit>),
}

/// Why a statement does not apply.
#[derive(Clone, Debug, PartialEq)]
pub enum Misfit {
    /// It is about other principals.
    Principal,
    /// It is about other actions.
    Action,
    /// It is about other resources.
    Resource,
    /// A condition does not hold.
    Condition {
        /// As the document writes it, `StringEquals`.
        operator: String,
        /// As the document writes it, `kms:KeySpec`.
        key: String,
        /// What the document gives.
        wanted: Vec<String>,
        /// What the request has.
        seen: Values,
    },
}

impl Policy {
    /// What each statement says to a question, in the order of the document.
    pub fn explain(&self, question: &Question<'_>) -> Vec<Explained> {
        let explained = |statement: &Statement| Explained {
            sid: statement.sid.clone(),
            effect: statement.effect,
            says: statement.says(question),
        };
        self.statements.iter().map(explained).collect()
    }
}

impl Statement {
    fn says(&self, question: &Question<'_>) -> Says {
        let how = self.principals.include(question.caller);
        let mut misfits = Vec::new();
        if how.is_none() {
            misfits.push(Misfit::Principal);
        }
        if !self.has_action(question) {
            misfits.push(Misfit::Action);
        }
        if !self.has_resource(question) {
            misfits.push(Misfit::Resource);
        }
        let conditions = self.conditions.iter();
        misfits.extend(conditions.filter_map(|condition| condition.unmet(question.context)));
        match (self.effect, how) {
            _ if !misfits.is_empty() => Says::Nothing(misfits),
            (Effect::Deny, _) => Says::Denies,
            (Effect::Allow, Some(How::ByItsAccount)) => Says::AllowsAccount,
            (Effect::Allow, Some(How::Itself) | None) => Says::Allows,
        }
    }
}
