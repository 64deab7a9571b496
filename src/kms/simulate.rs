//! Who may do what, asked without a client: the same decisions by the same code, with the reasons.
//!
//! Promises: what it says is what the server would do with this configuration, this store and such
//! a request. Does not: ask a token, change anything, or check what does not concern rights.

use std::{slice, sync::Arc};

use super::{
    Kms, Settings,
    catalogue::{Record, names_alias},
    open::OpenFault,
    rights::{Asks, On},
    validate,
};
use crate::{
    error::{Error, Kind},
    model::{
        AliasName, Caller, KeyId, KeySpec, MacAlgorithm, NamesKey, Operation, Tags,
        policy::{Decision, Explained, Policy, PolicyKind},
    },
    store::{Revision, Store},
};

/// The operations without tokens and network, which can be asked who may do what.
pub struct Simulator {
    kms: Kms,
    at: Option<Revision>,
}

/// A request that somebody could send.
#[derive(Clone, Debug)]
pub struct Simulate {
    /// Who asks.
    pub caller: Caller,
    /// For what.
    pub operation: Operation,
    /// The key, as the request names it; of CreateAlias and UpdateAlias, the new target.
    pub key_id: Option<String>,
    /// Of CreateAlias, UpdateAlias and DeleteAlias.
    pub alias_name: Option<AliasName>,
    /// Of GenerateMac and VerifyMac; the one of the key's spec if absent.
    pub mac_algorithm: Option<MacAlgorithm>,
    /// Of CreateKey; HMAC_256 if absent.
    pub key_spec: Option<KeySpec>,
    /// Of CreateKey and TagResource.
    pub tags: Tags,
    /// Of UntagResource.
    pub tag_keys: Vec<String>,
    /// Of ScheduleKeyDeletion; 30 if absent, as in KMS.
    pub pending_window_in_days: Option<u32>,
    /// Of CreateKey and PutKeyPolicy.
    pub bypass_policy_lockout_safety_check: bool,
    /// When, in seconds since 1970; now, if absent.
    pub at: Option<u64>,
    /// Tried in place of all policies that the caller has of its own.
    pub identity_policy: Option<Policy>,
    /// Tried in place of the policy of the key that the request names.
    pub key_policy: Option<Policy>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// The rights that the operation needs, in the order in which they are asked for, up to the first
    /// that the caller does not have.
    pub judgements: Vec<Judgement>,
    /// Whether the configuration has this principal.
    pub is_declared: bool,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// The decision on one right.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// `kms:GenerateMac`
    pub action: &'static str,
    /// The ARN of the key or alias.
    pub resource: Option<String>,
    /// None: there is no such key for this caller, so that no policy was asked.
    pub decision: Option<Decision>,
    /// The place of the policy in `policies` and of the statement in it, if one decided.
    pub decided_by: Option<(usize, usize)>,
    /// Every policy that was looked at: the key's first, then the caller's own.
    pub policies: Vec<Heard>,
    /// What the client is told: the exception's name and its text.
    pub told: Option<(&'static str, String)>,
}

/// What one policy says.
#[derive(Clone, Debug)]
pub struct Heard {
    /// On the key, or on the caller.
    pub kind: PolicyKind,
    /// Where it stands.
    pub name: String,
    /// Its statements.
    pub statements: Vec<Explained>,
}

/// Why there is no decision.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unanswered {
    /// The request is none, or names what is not there: what a client would be told.
    #[error("{0}")]
    Request(String),
    /// The store does not tell what it should.
    #[error("{0}")]
    Store(String),
}

impl Simulator {
    /// Takes in what is declared and, if there is one, what the store has. `groups` are the names of
    /// the groups of tokens, and of tokens without a group.
    ///
    /// # Errors
    /// Those of [`Kms::open`].
    pub async fn new(
        settings: Settings,
        groups: &[String],
        store: Option<&Store>,
    ) -> Result<Self, OpenFault> {
        let kms = Kms::with(settings, groups, Vec::new()).map_err(OpenFault::Contradiction)?;
        let at = match store {
            Some(store) => {
                kms.take_in(store).await?;
                Some(store.revision().await?)
            }
            None => None,
        };
        Ok(Self { kms, at })
    }

    /// The revision of the store that was taken in, if there is one.
    pub fn revision(&self) -> Option<Revision> {
        self.at
    }

    /// Decides, and says why.
    ///
    /// # Errors
    /// There is nothing to decide, since the server would refuse the request for another reason.
    pub fn ask(&self, asked: &Simulate) -> Result<Simulation, Unanswered> {
        let principals = self.kms.principals.load();
        let mut court = Court {
            kms: &self.kms,
            asked,
            identity: match &asked.identity_policy {
                Some(policy) => slice::from_ref(policy),
                None => principals.of(&asked.caller),
            },
            judgements: Vec::new(),
            notes: Vec::new(),
        };
        match court.sit() {
            Ok(()) | Err(End::Denied) => {}
            Err(End::Refused(error)) => return Err(unanswered(&error)),
        }
        Ok(Simulation {
            judgements: court.judgements,
            is_declared: principals.has(&asked.caller),
            notes: court.notes,
        })
    }
}

impl Simulation {
    /// Whether the caller has all the rights that the operation needs.
    pub fn is_allowed(&self) -> bool {
        self.judgements.iter().all(Judgement::is_allowed)
    }
}

impl Judgement {
    /// Whether the caller has this right.
    pub fn is_allowed(&self) -> bool {
        matches!(self.decision, Some(Decision::Allowed(_)))
    }
}

impl Simulate {
    /// What the operation would pass on of such a request.
    fn asks(&self, key: Option<&Record>) -> Asks<'_> {
        use Operation::{
            CreateKey, GenerateMac, GetKeyPolicy, PutKeyPolicy, ScheduleKeyDeletion, TagResource,
            UntagResource, VerifyMac,
        };
        let is = |these: &[Operation]| these.contains(&self.operation);
        let of_key = || key.map(|record| record.body.spec.mac_algorithm());
        Asks {
            mac_algorithm: is(&[GenerateMac, VerifyMac])
                .then(|| self.mac_algorithm.or_else(of_key))
                .flatten(),
            tags: is(&[CreateKey, TagResource]).then_some(&self.tags),
            tag_keys: is(&[UntagResource]).then_some(&*self.tag_keys),
            pending_window_in_days: is(&[ScheduleKeyDeletion])
                .then(|| self.pending_window_in_days.unwrap_or(30)),
            new_key: is(&[CreateKey]).then(|| self.key_spec.unwrap_or(KeySpec::Hmac256)),
            policy_name: is(&[GetKeyPolicy, PutKeyPolicy]).then_some("default"),
            bypass_lockout_check: is(&[CreateKey, PutKeyPolicy])
                .then_some(self.bypass_policy_lockout_safety_check),
            ..self.bare_asks()
        }
    }

    fn bare_asks(&self) -> Asks<'_> {
        Asks {
            at: self.at,
            ..Asks::default()
        }
    }
}

/// Why no more rights are asked for.
enum End {
    Denied,
    Refused(Error),
}

/// One simulation. Its steps are the operations' own, as far as they concern rights; a test holds
/// both against each other.
struct Court<'a> {
    kms: &'a Kms,
    asked: &'a Simulate,
    identity: &'a [Policy],
    judgements: Vec<Judgement>,
    notes: Vec<String>,
}

impl Court<'_> {
    fn sit(&mut self) -> Result<(), End> {
        let asked = self.asked;
        let operation = asked.operation;
        if operation.names_alias() {
            return self.alias();
        }
        match (operation.names_key(), &asked.key_id) {
            (NamesKey::Always, key_id) | (NamesKey::Optionally, key_id @ Some(_)) => {
                self.named_key(key_id.as_deref())
            }
            (NamesKey::Never | NamesKey::Optionally, _) => {
                let asks = asked.asks(None);
                self.hear(operation, On::Nothing, &asks, None)?;
                if operation != Operation::CreateKey || asked.tags.as_slice().is_empty() {
                    return Ok(());
                }
                let new: KeyId = NEW.parse().expect("it has the form of a UUID");
                let arn = self.kms.catalogue.key_arn(asked.caller.account(), &new);
                self.notes
                    .push(format!("{arn} stands for the key that is to be made"));
                self.hear(Operation::TagResource, On::Arn(&arn), &asks, None)
            }
        }
    }

    /// CreateAlias, UpdateAlias and DeleteAlias: the alias itself, the key that it means, the key that
    /// it is to mean.
    fn alias(&mut self) -> Result<(), End> {
        let (kms, asked, operation) = (self.kms, self.asked, self.asked.operation);
        let Some(name) = &asked.alias_name else {
            return Err(refused("AliasName is required."));
        };
        let asks = asked.bare_asks();
        let arn = kms.catalogue.alias_arn(asked.caller.account(), name);
        self.hear(operation, On::Arn(&arn), &asks, None)?;
        if operation != Operation::CreateAlias {
            let alias = kms.catalogue.alias(&asked.caller, name).ok_or_else(|| {
                End::Refused(kms.catalogue.no_alias(&asked.caller, name.as_str()))
            })?;
            let account = asked.caller.account();
            let key = alias
                .target
                .and_then(|id| kms.catalogue.record(account, &id));
            if let Some(key) = key {
                self.hear(operation, On::Key(&key), &asks, None)?;
            }
        }
        if operation == Operation::DeleteAlias {
            return Ok(());
        }
        match asked.key_id.as_deref() {
            Some(key_id) if names_alias(key_id) => {
                Err(refused("Aliases must refer to keys. Not aliases"))
            }
            key_id => self.named_key(key_id),
        }
    }

    /// The key that the request names.
    fn named_key(&mut self, key_id: Option<&str>) -> Result<(), End> {
        let (asked, operation) = (self.asked, self.asked.operation);
        let key_id = validate::only_key_id(key_id).map_err(End::Refused)?;
        let record = self.resolve(key_id)?;
        let asks = Asks {
            key_id: Some(key_id),
            ..asked.asks(Some(&record))
        };
        self.note(&record, &asks);
        self.hear(
            operation,
            On::Key(&record),
            &asks,
            asked.key_policy.as_ref(),
        )
    }

    fn resolve(&mut self, key_id: &str) -> Result<Arc<Record>, End> {
        let (asked, operation) = (self.asked, self.asked.operation);
        let found = self.kms.catalogue.resolve(&asked.caller, operation, key_id);
        found.map_err(|error| {
            if error.kind() != Kind::AccessDenied {
                return End::Refused(error);
            }
            self.judgements.push(Judgement {
                action: operation.action(),
                resource: Some(key_id.to_owned()),
                decision: None,
                decided_by: None,
                policies: Vec::new(),
                told: Some(told(&error)),
            });
            End::Denied
        })
    }

    fn hear(
        &mut self,
        operation: Operation,
        on: On<'_>,
        asks: &Asks<'_>,
        trial: Option<&Policy>,
    ) -> Result<(), End> {
        let case = self
            .kms
            .case(&self.asked.caller, operation, on, asks, self.identity);
        let (case, resource) = match (on, trial) {
            (On::Key(record), Some(policy)) => {
                (case.under(policy, &record.body.account), Some(&*record.arn))
            }
            (On::Key(record), None) => (case, Some(&*record.arn)),
            (On::Arn(arn), _) => (case, Some(arn)),
            (On::Nothing, _) => (case, None),
        };
        let decision = case.decide();
        let refusal = match decision {
            Decision::Allowed(_) => None,
            Decision::Denied(denial) => Some(case.refusal(denial)),
        };
        let question = case.question();
        let heard = |(kind, policy): (PolicyKind, &Policy)| Heard {
            kind,
            name: policy.name().to_owned(),
            statements: policy.explain(&question),
        };
        self.judgements.push(Judgement {
            action: operation.action(),
            resource: resource.map(str::to_owned),
            decision: Some(decision),
            decided_by: case.decider(decision),
            policies: case.policies().map(heard).collect(),
            told: refusal.as_ref().map(told),
        });
        match refusal {
            None => Ok(()),
            Some(_) => Err(End::Denied),
        }
    }

    /// What stands in the way of an operation besides rights.
    fn note(&mut self, record: &Record, asks: &Asks<'_>) {
        let arn = &record.arn;
        if let (Some(fault), None) = (&record.unreadable_policy, &self.asked.key_policy) {
            self.notes.push(format!(
                "{arn} has a policy that this version cannot read: {fault} Until its account's root has put another one, nobody may do anything else with it"
            ));
        }
        if let Err(refusal) = self.asked.operation.check(record.said()) {
            self.notes.push(format!(
                "besides rights, the key's state is in the way: {arn} {refusal}"
            ));
        }
        let spec = record.body.spec;
        if let Some(algorithm) = asks.mac_algorithm
            && algorithm != spec.mac_algorithm()
        {
            self.notes.push(format!(
                "besides rights, the algorithm is in the way: {algorithm} is incompatible with key spec {spec}"
            ));
        }
    }
}

fn refused(say: &'static str) -> End {
    End::Refused(Error::new(Kind::Validation, say))
}

fn told(error: &Error) -> (&'static str, String) {
    (error.kind().exception(), error.say().to_owned())
}

fn unanswered(error: &Error) -> Unanswered {
    let (exception, say) = told(error);
    match error.cause() {
        // Nothing else has one here.
        Some(cause) => Unanswered::Store(format!("{say} ({cause})")),
        None => Unanswered::Request(format!("{say} ({exception})")),
    }
}

/// The key ID of a key that has none yet.
pub(super) const NEW: &str = "00000000-0000-4000-8000-000000000000";
