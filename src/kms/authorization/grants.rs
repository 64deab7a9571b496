//! The grants on a key, as a decision asks for them.

use std::{cell::OnceCell, sync::Arc};

use super::context::RequestContext;
use crate::{
    kms::catalogue::{GrantRecord, KeyGrants},
    model::{
        Bearer, Caller, GrantOperations, GrantedTo, Operation,
        policy::{Grants, PolicyRequest},
    },
};

/// The grants on the key of a request, of which one may allow it.
pub(super) struct GrantSearch<'a> {
    pub(super) grants: &'a KeyGrants,
    pub(super) bearer: Bearer<'a>,
    pub(super) request: RequestContext<'a>,
    found: OnceCell<Option<(Arc<GrantRecord>, GrantedTo)>>,
}

impl<'a> GrantSearch<'a> {
    /// `ids` are the immutable IDs of the caller: when it was authenticated, and now.
    pub(super) fn new(
        grants: &'a KeyGrants,
        (caller, ids): (&'a Caller, [Option<&'a str>; 2]),
        request: RequestContext<'a>,
    ) -> Self {
        Self {
            grants,
            bearer: Bearer { caller, ids },
            request,
            found: OnceCell::new(),
        }
    }

    /// The grant that allowed the request, if one was asked for.
    pub(super) fn found(&self) -> Option<&Arc<GrantRecord>> {
        let (grant, _) = self.found.get()?.as_ref()?;
        Some(grant)
    }

    fn search(&self, operation: Operation) -> Option<(Arc<GrantRecord>, GrantedTo)> {
        if operation == Operation::RetireGrant {
            // Only the grant that is to go says who may retire it.
            let grant = self.grants.find(&self.request.retired?.id)?;
            let how = grant.body.retired_by(&self.bearer)?;
            return Some((grant, how));
        }
        if !GrantOperations::ALL.contains(&operation) {
            return None;
        }
        // No request here comes for the sake of an AWS resource.
        let source_arn = None;
        let child = self.request.new_grant.map(|child| {
            let operations = child.operations.iter().map(String::as_str);
            (GrantOperations::named(operations), child.source_arn)
        });
        self.grants.of_caller(&self.bearer, |grant| {
            grant.body.covers(operation, source_arn)
                && child.is_none_or(|(operations, source_arn)| {
                    // Security: nobody passes on more than they were given.
                    operations.is_some_and(|all| grant.body.is_wider_than(all, source_arn))
                })
        })
    }
}

impl Grants for GrantSearch<'_> {
    fn allow(&self, request: &PolicyRequest<'_>) -> Option<GrantedTo> {
        let found = self.found.get_or_init(|| self.search(request.operation));
        found.as_ref().map(|(_, how)| *how)
    }
}
