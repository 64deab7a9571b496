//! Who may do what, asked without a client: the same decisions by the same code, with the reasons.
//!
//! Promises: what it says is what the server would do with this configuration, this store and such
//! a request. Does not: ask a token, change anything, or check what does not concern rights.

use std::{slice, sync::Arc};

use crate::{
    error::{Error, Kind},
    kms::{
        authorization::{
            AuthorizationRequest, Authorizer, NewGrant, RequestContext, Resource, Subject, require,
        },
        catalogue::{GrantRecord, KeyRecord},
        operations::only_key_id,
        principals::Principals,
        service::{Kms, OpenFault},
        settings::Settings,
    },
    model::{
        AliasName, Caller, GrantId, KeyId, KeySpec, MacAlgorithm, NamesKey, Operation, Tags,
        policy::{Decision, Grounds, Policy, PolicyKind, StatementTrace},
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
pub struct SimulatedRequest {
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
    /// Of CreateGrant.
    pub new_grant: SimulatedGrant,
    /// Of RetireGrant: the grant that is to go.
    pub grant_id: Option<String>,
    /// When, in seconds since 1970; now, if absent.
    pub at: Option<u64>,
    /// Tried in place of all policies that the caller has of its own.
    pub identity_policy: Option<Policy>,
    /// Tried in place of the policy of the key that the request names.
    pub key_policy: Option<Policy>,
}

/// What a request says of the grant that it wants.
#[derive(Clone, Debug, Default)]
pub struct SimulatedGrant {
    /// KMS's names.
    pub operations: Vec<String>,
    /// Who is to get it.
    pub grantee_principal: Option<String>,
    /// Who may retire it besides.
    pub retiring_principal: Option<String>,
    /// KMS: GrantConstraints.
    pub source_arn: Option<String>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// The rights that the operation needs, in the order in which they are asked for, up to the first
    /// that the caller does not have.
    pub evaluations: Vec<Evaluation>,
    /// Whether the configuration has this principal.
    pub is_declared: bool,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// The decision on one right.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// `kms:GenerateMac`
    pub action: &'static str,
    /// The ARN of the key or alias.
    pub resource: Option<String>,
    /// None: there is no such key for this caller, so that no policy was asked.
    pub decision: Option<Decision>,
    /// The place of the policy in `policies` and of the statement in it, if one decided.
    pub decided_by: Option<(usize, usize)>,
    /// The grant that allows it, if none of the policies does.
    pub grant: Option<GrantId>,
    /// Every policy that was looked at: the key's first, then the caller's own.
    pub policies: Vec<PolicyTrace>,
    /// What the client is told: the exception's name and its text.
    pub told: Option<(&'static str, String)>,
}

/// What one policy says.
#[derive(Clone, Debug)]
pub struct PolicyTrace {
    /// On the key, or on the caller.
    pub kind: PolicyKind,
    /// Where it stands.
    pub name: String,
    /// Its statements.
    pub statements: Vec<StatementTrace>,
}

/// Why there is no decision.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SimulationError {
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
    /// [`OpenFault`]
    pub async fn new(
        settings: Settings,
        groups: &[String],
        store: Option<&Store>,
    ) -> Result<Self, OpenFault> {
        let kms =
            Kms::with_groups(settings, groups, Vec::new()).map_err(OpenFault::Contradiction)?;
        let at = match store {
            Some(store) => {
                kms.load(store).await?;
                Some(store.revision().await?)
            }
            None => None,
        };
        Ok(Self { kms, at })
    }

    pub(super) fn kms(&self) -> &Kms {
        &self.kms
    }

    /// The revision of the store that was taken in, if there is one.
    pub fn revision(&self) -> Option<Revision> {
        self.at
    }

    /// Decides, and says why.
    ///
    /// # Errors
    /// There is nothing to decide, since the server would refuse the request for another reason.
    pub fn ask(&self, asked: &SimulatedRequest) -> Result<Simulation, SimulationError> {
        let principals = self.kms.principals();
        let mut evaluator = Evaluator {
            kms: &self.kms,
            request: asked,
            principals: &principals,
            evaluations: Vec::new(),
            notes: Vec::new(),
        };
        if let Err(error) = evaluator.run()
            && !evaluator.has_denied()
        {
            return Err(unanswered(&error));
        }
        Ok(Simulation {
            evaluations: evaluator.evaluations,
            is_declared: principals.has(&asked.caller),
            notes: evaluator.notes,
        })
    }
}

impl Simulation {
    /// Whether the caller has all the rights that the operation needs.
    pub fn is_allowed(&self) -> bool {
        self.evaluations.iter().all(Evaluation::is_allowed)
    }
}

impl Evaluation {
    /// Whether the caller has this right.
    pub fn is_allowed(&self) -> bool {
        matches!(self.decision, Some(Decision::Allowed(_)))
    }
}

impl SimulatedRequest {
    /// All that the request could say; what its operation does not have is left out later.
    fn context(&self) -> RequestContext<'_> {
        RequestContext {
            mac_algorithm: self.mac_algorithm,
            tags: Some(&self.tags),
            tag_keys: Some(&self.tag_keys),
            pending_window_in_days: self.pending_window_in_days,
            new_key_spec: Some(self.key_spec.unwrap_or(KeySpec::Hmac256)),
            bypass_lockout_check: Some(self.bypass_policy_lockout_safety_check),
            new_grant: Some(NewGrant {
                operations: &self.new_grant.operations,
                grantee_principal: self.new_grant.grantee_principal.as_deref(),
                retiring_principal: self.new_grant.retiring_principal.as_deref(),
                source_arn: self.new_grant.source_arn.as_deref(),
                constraint_type: self.new_grant.source_arn.as_ref().map(|_| "SourceArn"),
                ..NewGrant::default()
            }),
            at: self.at,
            ..RequestContext::default()
        }
    }
}

/// One simulation: the rights that the operation asks for, each decided and kept.
struct Evaluator<'a> {
    kms: &'a Kms,
    request: &'a SimulatedRequest,
    principals: &'a Principals,
    evaluations: Vec<Evaluation>,
    notes: Vec<String>,
}

impl Evaluator<'_> {
    /// # Errors
    /// The first denial, or why the server would refuse the request before it asks for a right.
    fn run(&mut self) -> Result<(), Error> {
        let request = self.request;
        let operation = request.operation;
        let new_key: KeyId = NEW_KEY_ID.parse().expect("it has the form of a UUID");
        let catalogue = &self.kms.catalogue;
        let new_arn = catalogue.key_arn(request.caller.account(), &new_key);
        let key_id = request.key_id.as_deref();
        let subject = match (operation.names_key(), key_id) {
            _ if operation.names_alias() => Subject::Alias {
                name: request
                    .alias_name
                    .as_ref()
                    .ok_or_else(|| Error::new(Kind::Validation, "AliasName is required."))?,
                target: if operation == Operation::DeleteAlias {
                    None
                } else {
                    Some(only_key_id(key_id)?)
                },
            },
            _ if operation == Operation::RetireGrant => Subject::Grant {
                key_id: only_key_id(key_id)?,
                grant_id: request
                    .grant_id
                    .as_deref()
                    .ok_or_else(|| Error::new(Kind::Validation, "GrantId is required."))?,
            },
            (NamesKey::Always, _) => Subject::Key(only_key_id(key_id)?),
            (NamesKey::Optionally, Some(_)) => Subject::KeyOfAccount(only_key_id(key_id)?),
            (NamesKey::Never | NamesKey::Optionally, _) if operation == Operation::CreateKey => {
                Subject::NewKey(&new_arn)
            }
            (NamesKey::Never | NamesKey::Optionally, _) => Subject::Account,
        };
        let (caller, context) = (&request.caller, request.context());
        require(self, catalogue, caller, operation, subject, context).map(drop)
    }

    fn has_denied(&self) -> bool {
        self.evaluations
            .last()
            .is_some_and(|last| !last.is_allowed())
    }

    /// The policy that is tried in the place of a key's own: of the key that the request names, and
    /// not of the one that an alias finds before it is moved.
    fn trial_policy(&self, context: &RequestContext<'_>) -> Option<&Policy> {
        context.key_id.and(self.request.key_policy.as_ref())
    }

    /// What stands in the way of an operation besides rights.
    fn note(&mut self, record: &KeyRecord, context: &RequestContext<'_>) {
        let arn = &record.arn;
        if let (Some(fault), None) = (&record.unreadable_policy, &self.request.key_policy) {
            self.notes.push(format!(
                "{arn} has a policy that this version cannot read: {fault} Until its account's root has put another one, nobody may do anything else with it"
            ));
        }
        if let Err(refusal) = self.request.operation.check(record.configured_state()) {
            self.notes.push(format!(
                "besides rights, the key's state is in the way: {arn} {refusal}"
            ));
        }
        let spec = record.body.spec;
        if let Some(algorithm) = context.mac_algorithm
            && algorithm != spec.mac_algorithm()
        {
            self.notes.push(format!(
                "besides rights, the algorithm is in the way: {algorithm} is incompatible with key spec {spec}"
            ));
        }
    }
}

impl Authorizer for Evaluator<'_> {
    fn authorize(
        &mut self,
        operation: Operation,
        resource: Resource<'_>,
        context: &RequestContext<'_>,
    ) -> Result<Option<Arc<GrantRecord>>, Error> {
        let mut context = *context;
        match resource {
            Resource::Key(record) if context.key_id.is_some() => {
                // A request that names no algorithm would be refused: the key's own is meant.
                if matches!(operation, Operation::GenerateMac | Operation::VerifyMac) {
                    let of_key = record.body.spec.mac_algorithm();
                    context.mac_algorithm = context.mac_algorithm.or(Some(of_key));
                }
                self.note(record, &context);
            }
            Resource::Arn(arn) if operation == Operation::TagResource => self
                .notes
                .push(format!("{arn} stands for the key that is to be made")),
            Resource::Key(_) | Resource::Arn(_) | Resource::Any => {}
        }
        let asked = AuthorizationRequest::new(
            (&self.kms.catalogue, self.principals),
            (
                &self.request.caller,
                self.principals.of(&self.request.caller),
            ),
            operation,
            resource,
            context,
        );
        let asked = match &self.request.identity_policy {
            Some(policy) => asked.with_identity(slice::from_ref(policy)),
            None => asked,
        };
        let (asked, name) = match (resource, self.trial_policy(&context)) {
            (Resource::Key(record), Some(policy)) => (
                asked.under(policy, &record.body.account),
                Some(&*record.arn),
            ),
            (Resource::Key(record), None) => (asked, Some(&*record.arn)),
            (Resource::Arn(arn), _) => (asked, Some(arn)),
            (Resource::Any, _) => (asked, None),
        };
        let decision = asked.decide();
        let grant = match decision {
            Decision::Allowed(Grounds::Grant(_)) => asked.grant().cloned(),
            Decision::Allowed(_) | Decision::Denied(_) => None,
        };
        let denied = match decision {
            Decision::Allowed(_) => None,
            Decision::Denied(denial) => Some(asked.denied(denial)),
        };
        let question = asked.question();
        let region = self.kms.catalogue.region();
        let of_policies = asked.policies().map(|(_, policy)| policy);
        let warnings: Vec<String> = of_policies
            .flat_map(|policy| policy.named_warnings(region))
            .collect();
        let trace = |(kind, policy): (PolicyKind, &Policy)| PolicyTrace {
            kind,
            name: policy.name().to_owned(),
            statements: policy.explain(&question),
        };
        let evaluation = Evaluation {
            action: operation.action(),
            resource: name.map(str::to_owned),
            decision: Some(decision),
            decided_by: asked.decider(decision),
            grant: grant.as_ref().map(|grant| grant.id),
            policies: asked.policies().map(trace).collect(),
            told: denied.as_ref().map(told),
        };
        self.evaluations.push(evaluation);
        for warning in warnings {
            if !self.notes.contains(&warning) {
                self.notes.push(warning);
            }
        }
        denied.map_or(Ok(grant), Err)
    }

    fn not_found(&mut self, operation: Operation, key_id: &str, error: &Error) {
        if error.kind() != Kind::AccessDenied {
            return;
        }
        self.evaluations.push(Evaluation {
            action: operation.action(),
            resource: Some(key_id.to_owned()),
            decision: None,
            decided_by: None,
            grant: None,
            policies: Vec::new(),
            told: Some(told(error)),
        });
    }
}

fn told(error: &Error) -> (&'static str, String) {
    (error.kind().exception(), error.say().to_owned())
}

fn unanswered(error: &Error) -> SimulationError {
    let (exception, say) = told(error);
    match error.cause() {
        // Nothing else has one here.
        Some(cause) => SimulationError::Store(format!("{say} ({cause})")),
        None => SimulationError::Request(format!("{say} ({exception})")),
    }
}

/// The key ID of a key that has none yet.
pub(in crate::kms) const NEW_KEY_ID: &str = "00000000-0000-4000-8000-000000000000";
