//! All principals that are declared: their identity policies, and what else policies ask of them.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use crate::{
    kms::policy_documents,
    model::{
        AccountId, Caller, Organization, Principal, PrincipalAttributes,
        policy::{Policy, PolicyKind},
    },
};

/// A principal, and what is declared of it in one place.
#[derive(Clone, Debug)]
pub struct PrincipalPolicies {
    /// Who it is.
    pub caller: Caller,
    /// Its identity policies.
    pub policies: Vec<Policy>,
    /// What else policies ask of it.
    pub attributes: PrincipalAttributes,
}

impl PrincipalPolicies {
    /// Reads the identity policy of a principal, if it has one.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub fn read(
        caller: &Caller,
        file: Option<&Path>,
        attributes: &PrincipalAttributes,
    ) -> Result<Self, String> {
        let policies = file.map(|file| policy_documents::read_policy(file, PolicyKind::Identity));
        Ok(Self {
            caller: caller.clone(),
            policies: policies.transpose()?.into_iter().collect(),
            attributes: attributes.clone(),
        })
    }

    /// What their author should know of the policies, by statement.
    pub fn warnings(&self, region: &str) -> Vec<String> {
        let named = |policy: &Policy| policy.named_warnings(region);
        self.policies.iter().flat_map(named).collect()
    }

    fn add_to(&self, principal: &mut Principal) {
        principal.policies.extend_from_slice(&self.policies);
        if self.attributes != PrincipalAttributes::default() {
            principal.attributes.clone_from(&self.attributes);
        }
    }
}

/// All principals that are declared.
#[derive(Debug, Default)]
pub(in crate::kms) struct Principals {
    /// By ARN. A session has what its role has, and its own.
    own: HashMap<String, Arc<Principal>>,
    /// By a role's account and name: what sessions have that are not declared themselves.
    roles: HashMap<(AccountId, String), Arc<Principal>>,
    /// The ARNs of those that have an immutable ID, by that.
    ids: HashMap<String, String>,
    /// The accounts that have a principal.
    accounts: HashSet<AccountId>,
    /// The account whose organization is known, and that.
    organization: Option<(AccountId, Organization)>,
}

impl Principals {
    /// `organization` is the one of this account.
    pub(in crate::kms) fn new(
        principals: &[PrincipalPolicies],
        organization: Option<(AccountId, Organization)>,
    ) -> Self {
        let mut roles: HashMap<_, Principal> = HashMap::new();
        for declared in principals {
            if let Some(role) = declared.caller.role() {
                let role = (declared.caller.account().clone(), role.to_owned());
                let role = roles.entry(role).or_default();
                declared.add_to(role);
                role.role_arn = Some(declared.caller.arn().to_owned());
            }
        }
        let shared = |(name, principal)| (name, Arc::new(principal));
        let all = Self {
            roles: roles.into_iter().map(shared).collect(),
            own: HashMap::new(),
            ids: HashMap::new(),
            accounts: HashSet::new(),
            organization,
        };
        let mut own: HashMap<_, Principal> = HashMap::new();
        for declared in principals {
            let caller = &declared.caller;
            let of_role = || {
                let role = all.find_role(caller);
                role.map_or_else(Principal::default, |role| Principal::clone(role))
            };
            let own = own.entry(caller.arn().to_owned()).or_insert_with(of_role);
            declared.add_to(own);
            if caller.role().is_some() {
                own.role_arn = Some(caller.arn().to_owned());
            }
        }
        let with_id = |(arn, principal): (&String, &Principal)| {
            // A session has its role's, and the ID means the role.
            let caller = Caller::parse(arn).ok()?;
            let is_session = caller.session_role().is_some();
            let id = principal.id().filter(|_| !is_session)?;
            Some((id.to_owned(), arn.clone()))
        };
        let ids = own.iter().filter_map(with_id).collect();
        let accounts = principals.iter().map(|one| one.caller.account().clone());
        let accounts = accounts.collect();
        let shared = |(arn, principal)| (arn, Arc::new(principal));
        Self {
            ids,
            accounts,
            own: own.into_iter().map(shared).collect(),
            ..all
        }
    }

    /// Whether a principal has an entry of its own.
    pub(in crate::kms) fn has(&self, caller: &Caller) -> bool {
        self.own.contains_key(caller.arn())
    }

    /// What a principal has by now, by itself or through its role.
    pub(in crate::kms) fn of(&self, caller: &Caller) -> Option<&Principal> {
        self.find(caller).map(AsRef::as_ref)
    }

    /// What a principal has by now, and what the caller had when it was authenticated, if that is
    /// something else.
    pub(in crate::kms) fn now_and_then<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> (Option<&'a Principal>, Option<&'a Principal>) {
        let now = self.find(caller);
        let then = caller.principal().filter(|then| match now {
            Some(now) => !Arc::ptr_eq(then, now),
            None => ***then != Principal::default(),
        });
        (now.map(AsRef::as_ref), then.map(AsRef::as_ref))
    }

    /// A caller with what it has by now.
    pub(in crate::kms) fn authenticate(&self, caller: &Caller) -> Caller {
        let principal = self.find(caller).cloned().unwrap_or_default();
        caller.clone().with_principal(principal)
    }

    /// The immutable ID of the principal that has an ARN.
    pub(in crate::kms) fn id_of(&self, arn: &str) -> Option<&str> {
        let caller = Caller::parse(arn).ok()?;
        self.of(&caller)?.id()
    }

    /// The ARN of the principal that has an immutable ID.
    pub(in crate::kms) fn arn_of(&self, id: &str) -> Option<&str> {
        self.ids.get(id).map(String::as_str)
    }

    /// Whether there can be such a caller: it is declared, or a session of a role that is, or the root of
    /// an account that has principals.
    pub(in crate::kms) fn knows(&self, caller: &Caller) -> bool {
        let account = caller.account();
        self.find(caller).is_some() || caller.is_root() && self.accounts.contains(account)
    }

    /// The organization of an account, as far as it is declared.
    pub(in crate::kms) fn organization(&self, of: &AccountId) -> Option<&Organization> {
        let (account, organization) = self.organization.as_ref()?;
        (account == of).then_some(organization)
    }

    fn find(&self, caller: &Caller) -> Option<&Arc<Principal>> {
        let own = self.own.get(caller.arn());
        own.or_else(|| self.find_role(caller))
    }

    fn find_role(&self, session: &Caller) -> Option<&Arc<Principal>> {
        let role = session.session_role()?;
        self.roles
            .get(&(session.account().clone(), role.to_owned()))
    }
}
