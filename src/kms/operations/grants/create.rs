//! CreateGrant.

use std::time::Instant;

use super::{
    super::{
        MemberValue, dry_run,
        validate::{self, CREATE_GRANT, check_members},
    },
    principal,
};
use crate::{
    error::{Error, Kind},
    kms::{
        authorization::{NewGrant, RequestContext, Subject},
        catalogue::{KeyRecord, stored},
        errors::internal,
        grant_token::{GrantTokenKey, NamedGrant, random},
        lifecycle::{Decided, may_change},
        principals::Principals,
        service::{Kms, check_state},
    },
    model::{Caller, Date, Grant, GrantId, GrantOperations, KeyUsage, Operation},
    store::{Change, Expect},
};

/// KMS: CreateGrantRequest.
#[derive(Clone, Debug, Default)]
pub struct CreateGrant {
    /// Key ID or key ARN.
    pub key_id: Option<String>,
    /// Who gets the rights: the ARN of a user, a role, a session or an account's root, or an immutable ID.
    pub grantee_principal: Option<String>,
    /// Who may retire the grant besides.
    pub retiring_principal: Option<String>,
    /// KMS's names, of CreateGrant, RetireGrant, DescribeKey, GenerateMac and VerifyMac.
    pub operations: Option<Vec<String>>,
    /// On which condition.
    pub constraints: Option<GrantConstraints>,
    /// Grants that the caller relies on.
    pub grant_tokens: Vec<String>,
    /// A request with the same name and otherwise the same makes no second grant.
    pub name: Option<String>,
    /// Do everything but that, then answer with an error.
    pub dry_run: bool,
    /// An AWS service; none is a caller here.
    pub grantee_service_principal: Option<String>,
    /// An AWS service; none is a caller here.
    pub retiring_service_principal: Option<String>,
}

/// KMS: GrantConstraints.
#[derive(Clone, Debug, Default)]
pub struct GrantConstraints {
    /// How many pairs EncryptionContextSubset has; HMAC keys take none.
    pub encryption_context_subset: usize,
    /// How many pairs EncryptionContextEquals has; HMAC keys take none.
    pub encryption_context_equals: usize,
    /// The AWS resource for whose sake a service must ask. No request here comes for one, so that such
    /// a grant allows nothing here.
    pub source_arn: Option<String>,
}

/// KMS: CreateGrantResponse.
#[derive(Clone, Debug)]
pub struct GrantCreated {
    /// 64 lowercase hex digits.
    pub grant_id: GrantId,
    /// A token of the grant, another one each time.
    pub grant_token: String,
}

impl Kms {
    /// Lets a principal do something with a key, from the answer on.
    ///
    /// # Errors
    /// KMS's for CreateGrant: [`Kind::Validation`], [`Kind::AccessDenied`], [`Kind::NotFound`],
    /// [`Kind::InvalidArn`], [`Kind::InvalidGrantToken`], [`Kind::Disabled`], [`Kind::InvalidState`],
    /// [`Kind::LimitExceeded`], [`Kind::DryRun`], [`Kind::UnsupportedOperation`],
    /// [`Kind::DependencyTimeout`], [`Kind::Internal`].
    pub async fn create_grant(
        &self,
        caller: &Caller,
        request: &CreateGrant,
        until: Instant,
    ) -> Result<GrantCreated, Error> {
        let mut broken = Vec::new();
        check_members(CREATE_GRANT, &request.members(), &mut broken);
        let grantee = request.grantee_principal.as_deref();
        let grantee_service = request.grantee_service_principal.as_deref();
        if grantee.is_none() && grantee_service.is_none() {
            validate::missing("granteePrincipal", &mut broken);
        }
        let (Some(key_id), true) = (request.key_id.as_deref(), broken.is_empty()) else {
            return Err(validate::refuse(broken));
        };

        let context = RequestContext {
            grant_tokens: &request.grant_tokens,
            new_grant: Some(request.new_grant()),
            ..RequestContext::default()
        };
        let lifecycle = self.lifecycle()?;
        // Until the catalogue shows the grant: it has its place among the 50,000.
        let mut place = None;
        let changed = lifecycle.change(until, || {
            let operation = Operation::CreateGrant;
            let authorized = self.require(caller, operation, Subject::Key(key_id), context)?;
            let record = authorized
                .key
                .ok_or_else(|| internal("a key was authorised and not found"))?;
            let expect = may_change(&record)?;
            check_state(operation, &record)?;
            let parent = authorized.grant;
            let grant = Grant {
                parent: parent.as_ref().map(|parent| parent.id),
                ..request.grant(caller, &self.principals())?
            };
            let (account, key_id_of) = (&record.body.account, &record.body.key_id);
            let named = |grant_id| NamedGrant {
                account: account.clone(),
                key_id: key_id_of.clone(),
                grant_id,
            };
            if let Some(same) = record.grants.same_as(&grant) {
                refuse_dry_run(request)?;
                return Ok(Decided::Done(named(same.id)));
            }
            drop(place.take());
            let free = record.grants.place(MOST_GRANTS);
            place = Some(free.ok_or_else(|| too_many(&record))?);
            refuse_dry_run(request)?;

            let id = GrantId::new(random());
            let mut change = Change::new()
                // Nobody has disabled the key meanwhile, or begun to delete it.
                .require(stored::key_name(account, key_id_of), expect)
                .put(
                    stored::grant_name(account, key_id_of, &id),
                    stored::write(&grant),
                    Expect::Absent,
                );
            if let Some(name) = stored::grant_request_name(account, key_id_of, &grant) {
                change = change.put(name, stored::write(&id), Expect::Absent);
            }
            if let Some(parent) = &parent {
                // Security: nor has anybody revoked the grant that lets the caller make this one.
                let name = stored::grant_name(account, key_id_of, &parent.id);
                change = change.require(name, Expect::At(parent.revision));
            }
            if self.catalogue.grant_token_key().is_none() {
                let key = stored::write(&GrantTokenKey::generate());
                change = change.put(stored::grant_token_key_name(), key, Expect::Absent);
            }
            Ok(Decided::Commit(change, named(id)))
        });
        let made = changed.await;
        drop(place);
        let made = made?;
        let key = self.catalogue.grant_token_key();
        let key = key.ok_or_else(|| internal("there is a grant, and no key for its token"))?;
        Ok(GrantCreated {
            grant_id: made.grant_id,
            grant_token: key.token_of(&made),
        })
    }
}

impl CreateGrant {
    /// In the order of [`CREATE_GRANT`].
    fn members(&self) -> Vec<Option<MemberValue>> {
        let text = |text: &Option<String>| text.clone().map(MemberValue::Text);
        let texts = |texts: &[String]| {
            MemberValue::List(texts.iter().cloned().map(MemberValue::Text).collect())
        };
        let constraints = self.constraints.as_ref();
        vec![
            text(&self.key_id),
            text(&self.grantee_principal),
            text(&self.retiring_principal),
            self.operations.as_deref().map(texts),
            constraints.map(|it| MemberValue::Structure(vec![None, None, text(&it.source_arn)])),
            Some(texts(&self.grant_tokens)),
            text(&self.name),
            None,
            text(&self.grantee_service_principal),
            text(&self.retiring_service_principal),
        ]
    }

    /// What conditions of policies see of it.
    fn new_grant(&self) -> NewGrant<'_> {
        let constraints = self.constraints.as_ref();
        let has = |pairs: fn(&GrantConstraints) -> usize| {
            constraints.is_some_and(|constraints| pairs(constraints) > 0)
        };
        let source_arn = constraints.and_then(|it| it.source_arn.as_deref());
        let constraint_type = [
            (
                "EncryptionContextEquals",
                has(|it| it.encryption_context_equals),
            ),
            (
                "EncryptionContextSubset",
                has(|it| it.encryption_context_subset),
            ),
            ("SourceArn", source_arn.is_some()),
        ];
        let constraint_type = constraint_type.into_iter().find(|(_, has)| *has);
        NewGrant {
            operations: self.operations.as_deref().unwrap_or_default(),
            grantee_principal: self.grantee_principal.as_deref(),
            grantee_service_principal: self.grantee_service_principal.as_deref(),
            retiring_principal: self.retiring_principal.as_deref(),
            retiring_service_principal: self.retiring_service_principal.as_deref(),
            constraint_type: constraint_type.map(|(name, _)| name),
            source_arn,
        }
    }

    /// The grant that it asks for, by whoever lets its caller make it.
    ///
    /// # Errors
    /// What HMAC keys have no grants for, and principals that there are none of.
    fn grant(&self, caller: &Caller, principals: &Principals) -> Result<Grant, Error> {
        let asked = self.operations.as_deref().unwrap_or_default();
        let is_known = |name: &&String| GrantOperations::named([name.as_str()]).is_some();
        let foreign: Vec<_> = asked
            .iter()
            .filter(|name| !is_known(name))
            .cloned()
            .collect();
        if !foreign.is_empty() || asked.is_empty() {
            return Err(Error::new(Kind::Validation, unsupported(&foreign)));
        }
        let operations = GrantOperations::named(asked.iter().map(String::as_str))
            .ok_or_else(|| internal("known operations are none of a grant"))?;
        let constraints = self.constraints.clone().unwrap_or_default();
        if constraints.encryption_context_equals + constraints.encryption_context_subset > 0 {
            return Err(Error::new(
                Kind::Validation,
                "EncryptionContext is supported only when creating a grant for a symmetric encryption KMS key.",
            ));
        }
        if self.grantee_principal.is_some() && self.grantee_service_principal.is_some() {
            return Err(one_of_two("GranteePrincipal", "GranteeServicePrincipal"));
        }
        if self.retiring_principal.is_some() && self.retiring_service_principal.is_some() {
            return Err(one_of_two("RetiringPrincipal", "RetiringServicePrincipal"));
        }
        let service = |member: &str| {
            Error::new(
                Kind::InvalidArn,
                format!("{member} does not refer to a valid principal."),
            )
        };
        let Some(grantee) = &self.grantee_principal else {
            return Err(service("GranteeServicePrincipal"));
        };
        let grantee = principal(principals, "GranteePrincipal", grantee)?;
        if self.retiring_service_principal.is_some() {
            return Err(service("RetiringServicePrincipal"));
        }
        let retiring = self.retiring_principal.as_deref();
        let retiring = retiring.map(|text| principal(principals, "RetiringPrincipal", text));
        Ok(Grant {
            name: self.name.clone(),
            grantee,
            retiring: retiring.transpose()?,
            operations,
            source_arn: constraints.source_arn,
            issuer: caller.account().clone(),
            parent: None,
            // KMS tells whole seconds of a grant.
            created: Date::of_millis(Date::now().millis() / 1000 * 1000),
        })
    }
}

fn refuse_dry_run(request: &CreateGrant) -> Result<(), Error> {
    if request.dry_run {
        return Err(dry_run());
    }
    Ok(())
}

fn unsupported(foreign: &[String]) -> String {
    let valid = GrantOperations::ALL.map(Operation::name).join(", ");
    format!(
        "Operations [{}] are not supported when creating a grant for a symmetric KMS key with key usage {}. Valid operations are [{valid}]",
        foreign.join(", "),
        KeyUsage::GenerateVerifyMac.name(),
    )
}

fn one_of_two(one: &str, other: &str) -> Error {
    Error::new(
        Kind::Validation,
        format!("You cannot specify {one} and {other} in the same request."),
    )
}

fn too_many(record: &KeyRecord) -> Error {
    Error::new(
        Kind::LimitExceeded,
        format!(
            "{} has {MOST_GRANTS} grants, the most that a key can have.",
            record.arn
        ),
    )
}

/// KMS: how many grants a key can have.
const MOST_GRANTS: usize = 50_000;
