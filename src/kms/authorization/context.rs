//! What conditions of policies compare: values of the request, its caller, its key, and the time.

use std::{borrow::Cow, cell::OnceCell};

use crate::{
    kms::{
        catalogue::{Catalogue, GrantRecord, KeyRecord},
        principals::Principals,
    },
    model::{
        AccountId, Caller, Date, KeySpec, KeyUsage, MacAlgorithm, Operation, Organization, Origin,
        Principal, PrincipalAttributes, Tags, alias_in,
        policy::{Context, ContextKey, Values},
    },
};

/// What a request says besides its key, as far as conditions ask for it.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::kms) struct RequestContext<'a> {
    /// The key as the request names it.
    pub(in crate::kms) key_id: Option<&'a str>,
    pub(in crate::kms) grant_tokens: &'a [String],
    pub(in crate::kms) mac_algorithm: Option<MacAlgorithm>,
    pub(in crate::kms) tags: Option<&'a Tags>,
    pub(in crate::kms) tag_keys: Option<&'a [String]>,
    pub(in crate::kms) pending_window_in_days: Option<u32>,
    /// Of the key that CreateKey is to make.
    pub(in crate::kms) new_key_spec: Option<KeySpec>,
    pub(in crate::kms) policy_name: Option<&'a str>,
    pub(in crate::kms) bypass_lockout_check: Option<bool>,
    /// Of CreateGrant.
    pub(in crate::kms) new_grant: Option<NewGrant<'a>>,
    /// Of RetireGrant: the grant that the request means, once it was found.
    pub(in crate::kms) retired: Option<&'a GrantRecord>,
    /// Of the operations on grants: whether an AWS service asks, which none ever does here.
    pub(in crate::kms) is_for_aws_resource: Option<bool>,
    /// The time of the request, in seconds since 1970; now, if absent.
    pub(in crate::kms) at: Option<u64>,
}

/// What a request says of the grant that it wants, as it says it.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::kms) struct NewGrant<'a> {
    pub(in crate::kms) operations: &'a [String],
    pub(in crate::kms) grantee_principal: Option<&'a str>,
    pub(in crate::kms) grantee_service_principal: Option<&'a str>,
    pub(in crate::kms) retiring_principal: Option<&'a str>,
    pub(in crate::kms) retiring_service_principal: Option<&'a str>,
    /// KMS's name of the constraint: `SourceArn`.
    pub(in crate::kms) constraint_type: Option<&'a str>,
    pub(in crate::kms) source_arn: Option<&'a str>,
}

impl RequestContext<'_> {
    /// Only what an operation's request can say, with KMS's defaults. Operations and simulations both
    /// pass through here, so that a condition cannot see in one what the other does not have.
    pub(in crate::kms) fn of(self, operation: Operation) -> Self {
        use Operation::{
            CreateGrant, CreateKey, GenerateMac, GetKeyPolicy, ListGrants, PutKeyPolicy,
            RevokeGrant, ScheduleKeyDeletion, TagResource, UntagResource, VerifyMac,
        };
        let only = |these: &[Operation]| these.contains(&operation).then_some(());
        Self {
            key_id: self.key_id,
            grant_tokens: self.grant_tokens,
            at: self.at,
            mac_algorithm: only(&[GenerateMac, VerifyMac]).and(self.mac_algorithm),
            tags: only(&[CreateKey, TagResource]).and(self.tags),
            tag_keys: only(&[UntagResource]).and(self.tag_keys),
            pending_window_in_days: only(&[ScheduleKeyDeletion]).map(|()| {
                self.pending_window_in_days
                    .unwrap_or(DEFAULT_WINDOW_IN_DAYS)
            }),
            new_key_spec: only(&[CreateKey]).and(self.new_key_spec),
            policy_name: only(&[GetKeyPolicy, PutKeyPolicy])
                .map(|()| self.policy_name.unwrap_or(DEFAULT_POLICY_NAME)),
            bypass_lockout_check: only(&[CreateKey, PutKeyPolicy])
                .map(|()| self.bypass_lockout_check.unwrap_or(false)),
            new_grant: only(&[CreateGrant]).map(|()| self.new_grant.unwrap_or_default()),
            retired: self.retired,
            is_for_aws_resource: only(&[CreateGrant, ListGrants, RevokeGrant]).map(|()| false),
        }
    }
}

/// KMS: how long ScheduleKeyDeletion waits if the request does not say.
pub(in crate::kms) const DEFAULT_WINDOW_IN_DAYS: u32 = 30;

/// The name of the one policy that a key has.
pub(in crate::kms) const DEFAULT_POLICY_NAME: &str = "default";

/// Where conditions get their values from.
pub(super) struct ConditionContext<'a> {
    pub(super) catalogue: &'a Catalogue,
    pub(super) principals: &'a Principals,
    pub(super) caller: &'a Caller,
    /// What is declared of the caller.
    pub(super) principal: Option<&'a Principal>,
    pub(super) record: Option<&'a KeyRecord>,
    pub(super) request: RequestContext<'a>,
    /// The peer's address as text, once it was asked for: many statements may.
    pub(super) source_ip: OnceCell<Option<String>>,
}

impl Context for ConditionContext<'_> {
    fn values(&self, key: &ContextKey) -> Values<'_> {
        use ContextKey as K;
        let request = &self.request;
        match key {
            // Date operators read both forms of a time.
            K::CurrentTime | K::EpochTime => {
                let now = || Date::now().millis() / 1000;
                shown(Some(request.at.unwrap_or_else(now)))
            }
            K::PrincipalAccount | K::CallerAccount => named(Some(self.caller.account().as_str())),
            K::PrincipalArn => self.principal_arn(),
            K::PrincipalOrgId => named(self.organization().map(|one| &*one.id)),
            K::PrincipalOrgPaths => several(self.organization().map(|one| &*one.paths)),
            K::PrincipalTag(name) => named(self.attributes().and_then(|attributes| {
                let mut tags = attributes.tags.iter();
                let (_, value) = tags.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                Some(value.as_str())
            })),
            K::PrincipalType => named(Some(self.caller.kind())),
            K::SourceIdentity => {
                let attributes = self.attributes();
                named(attributes.and_then(|attributes| attributes.source_identity.as_deref()))
            }
            K::UserId => self.user_id(),
            K::Username => named(self.caller.user_name()),
            // No AWS service is a caller here, or calls in a principal's place.
            K::PrincipalIsAwsService | K::ViaAwsService => named(Some("false")),
            K::RequestedRegion => named(Some(self.catalogue.region())),
            K::ResourceAccount => named(Some(self.resource_account().as_str())),
            K::ResourceOrgId => named(self.resource_organization().map(|one| &*one.id)),
            K::ResourceOrgPaths => several(self.resource_organization().map(|one| &*one.paths)),
            K::ResourceTag(name) => {
                named(self.record.and_then(|record| tag(&record.body.tags, name)))
            }
            K::RequestTag(name) => named(request.tags.and_then(|tags| tag(tags, name))),
            K::TagKeys => match (request.tags, request.tag_keys) {
                (Some(tags), _) => {
                    let keys = tags.as_slice().iter().map(|tag| tag.key().into());
                    Values::Several(keys.collect())
                }
                (None, keys) => several(keys),
            },
            K::SecureTransport => shown(Some(self.caller.origin().is_secure)),
            K::SourceIp => named(self.source_ip()),
            K::UserAgent => named(self.caller.origin().user_agent.as_deref()),
            K::TokenIssueTime => shown(self.caller.origin().proof_issued),
            K::KeyOrigin => named(match self.record {
                Some(record) => Some(record.body.origin.name()),
                None => request.new_key_spec.map(|_| Origin::AwsKms.name()),
            }),
            K::KeySpec => named(self.key_spec().map(KeySpec::name)),
            K::KeyUsage => named(self.key_spec().map(|_| KeyUsage::GenerateVerifyMac.name())),
            K::MultiRegion => named(self.key_spec().map(|_| "false")),
            K::ResourceAliases => self.resource_aliases(),
            K::MacAlgorithm => named(request.mac_algorithm.map(MacAlgorithm::name)),
            K::PolicyName => named(request.policy_name),
            K::BypassPolicyLockoutSafetyCheck => shown(request.bypass_lockout_check),
            K::ScheduleKeyDeletionPendingWindowInDays => shown(request.pending_window_in_days),
            K::RequestAlias => named(request.key_id.and_then(alias_in)),
            K::GrantIsForAwsResource => shown(request.is_for_aws_resource),
            K::GrantOperations => several(request.new_grant.map(|grant| grant.operations)),
            K::GranteePrincipal => named(request.new_grant.and_then(|it| it.grantee_principal)),
            K::GranteeServicePrincipal => named(
                request
                    .new_grant
                    .and_then(|it| it.grantee_service_principal),
            ),
            K::RetiringPrincipal => named(request.new_grant.and_then(|it| it.retiring_principal)),
            K::RetiringServicePrincipal => named(
                request
                    .new_grant
                    .and_then(|it| it.retiring_service_principal),
            ),
            K::GrantConstraintType => named(request.new_grant.and_then(|it| it.constraint_type)),
            K::GrantConstraintSourceArn => named(request.new_grant.and_then(|it| it.source_arn)),
            K::NeverPresent(_) => Values::Absent,
        }
    }
}

impl ConditionContext<'_> {
    fn source_ip(&self) -> Option<&str> {
        let address = self.caller.origin().source_ip;
        let shown = self
            .source_ip
            .get_or_init(|| address.map(|ip| ip.to_string()));
        shown.as_deref()
    }

    fn attributes(&self) -> Option<&PrincipalAttributes> {
        self.principal.map(|principal| &principal.attributes)
    }

    fn organization(&self) -> Option<&Organization> {
        let own = self.attributes().and_then(|own| own.organization.as_ref());
        own.or_else(|| self.principals.organization(self.caller.account()))
    }

    /// Of a session it is the role's, which is known with its path if it is declared.
    fn principal_arn(&self) -> Values<'_> {
        let Some(role) = self.caller.session_role_arn() else {
            return named(Some(self.caller.arn()));
        };
        let declared = self
            .principal
            .and_then(|principal| principal.role_arn.as_deref());
        Values::One(declared.map_or(Cow::Owned(role), Cow::Borrowed))
    }

    fn user_id(&self) -> Values<'_> {
        let id = self.principal.and_then(Principal::id);
        match (id, self.caller.session_name()) {
            (Some(id), Some(session)) => shown(Some(format!("{id}:{session}"))),
            (Some(id), None) => named(Some(id)),
            (None, _) if self.caller.is_root() => named(Some(self.caller.account().as_str())),
            (None, _) => Values::Absent,
        }
    }

    /// The spec of the key, or of the one that is to be made.
    fn key_spec(&self) -> Option<KeySpec> {
        let there = self.record.map(|record| record.body.spec);
        there.or(self.request.new_key_spec)
    }

    fn resource_aliases(&self) -> Values<'_> {
        let Some(record) = self.record else {
            return Values::Absent;
        };
        let (account, key_id) = (&record.body.account, &record.body.key_id);
        let aliases = self.catalogue.aliases_of(account, key_id).into_iter();
        Values::Several(aliases.map(|(name, _)| name.to_string().into()).collect())
    }

    /// The account of the key; where there is none yet, or none at all, the caller's.
    fn resource_account(&self) -> &AccountId {
        self.record
            .map_or_else(|| self.caller.account(), |record| &record.body.account)
    }

    fn resource_organization(&self) -> Option<&Organization> {
        self.principals.organization(self.resource_account())
    }
}

fn named(value: Option<&str>) -> Values<'_> {
    value.map_or(Values::Absent, |value| Values::One(Cow::Borrowed(value)))
}

fn shown<'a>(value: Option<impl ToString>) -> Values<'a> {
    value.map_or(Values::Absent, |value| {
        Values::One(value.to_string().into())
    })
}

fn several(values: Option<&[String]>) -> Values<'_> {
    values.map_or(Values::Absent, |values| {
        Values::Several(values.iter().map(|value| value.as_str().into()).collect())
    })
}

/// The value of a tag, whose name conditions compare in small letters.
fn tag<'a>(tags: &'a Tags, name: &str) -> Option<&'a str> {
    let tag = tags
        .as_slice()
        .iter()
        .find(|tag| tag.key().eq_ignore_ascii_case(name))?;
    Some(tag.value())
}
