//! The listeners, who is authenticated on them, and the APIs that answer.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::info;

use super::AppError;
use crate::{
    config::{LoadedFiles, Settings},
    front::{self, AccessKeys, Authenticator},
    kms::{DeclaredKey, DeclaredRights, Kms, TokenGroups},
    model::Caller,
};

/// The bound listeners. Clients may connect; they wait until they are served.
pub(super) struct Listeners {
    pub(super) grpc: front::Listener,
    pub(super) aws: Option<front::Listener>,
}

impl Listeners {
    pub(super) fn bind(settings: &Settings) -> Result<Self, AppError> {
        let grpc = &settings.grpc;
        let aws = settings.aws.as_ref();
        Ok(Self {
            grpc: front::bind("grpc", &grpc.listen, grpc.mode, grpc.max_connections)
                .map_err(|fault| AppError::Configuration(format!("grpc.listen: {fault}")))?,
            aws: aws
                .map(|aws| front::bind("aws", &aws.listen, aws.mode, aws.max_connections))
                .transpose()
                .map_err(|fault| AppError::Configuration(format!("aws.listen: {fault}")))?,
        })
    }
}

impl Listeners {
    /// The connections of each.
    pub(super) fn connections(&self) -> Vec<front::Connections> {
        let all = [Some(&self.grpc), self.aws.as_ref()];
        all.into_iter()
            .flatten()
            .map(front::Listener::connections)
            .collect()
    }

    /// For health: whether each listener has as many connections as it may have.
    pub(super) fn conditions(&self) -> Vec<front::grpc::Condition> {
        let listeners = [("grpc", Some(&self.grpc)), ("aws", self.aws.as_ref())];
        let full = |(section, listener): (&str, Option<&front::Listener>)| {
            Some(front::grpc::Condition {
                name: format!("hsmac.listener.{section}"),
                trouble: listener?.full(),
            })
        };
        listeners.into_iter().filter_map(full).collect()
    }
}

/// How callers are authenticated and what they may do, from files that were read at one time.
pub(super) struct Access {
    pub(super) callers: front::Access,
    pub(super) limits: front::LimitTable,
    pub(super) keys: Vec<DeclaredKey>,
    pub(super) rights: DeclaredRights,
}

impl Access {
    /// # Errors
    /// A sentence that names an access key with two principals.
    pub(super) fn new(
        settings: &Settings,
        files: LoadedFiles,
        limits: &front::Limits,
    ) -> Result<Self, String> {
        let LoadedFiles {
            grpc_tls,
            aws_tls,
            mut access_keys,
            rights,
        } = files;
        let mut principals = settings.principal.clone();
        let anonymous = settings.grpc.anonymous.as_ref();
        let arns = principals.iter().map(|principal| &principal.arn);
        let arns = arns.chain(anonymous).map(|arn| arn.0.arn());
        let limits = limits.prepare(&settings.limits, arns);
        let known = |caller: &Caller| limits.in_flow(rights.authenticate(caller));
        for principal in &mut principals {
            principal.arn.0 = known(&principal.arn.0);
        }
        for (_, caller, _) in &mut access_keys {
            *caller = known(caller);
        }
        let anonymous = anonymous.map(|one| known(&one.0));
        let access_keys = AccessKeys::new(access_keys, aws_tls.is_some())
            .map_err(|text| format!("principal: {text}"))?;
        let mut grpc = Authenticator::new(grpc_tls, &principals, anonymous.as_ref());
        let is_socket = matches!(settings.grpc.listen, front::Listen::Unix(_));
        if is_socket && settings.grpc.secure_unix_socket {
            grpc = grpc.over_secure_socket();
        }
        let callers = front::Access {
            grpc,
            aws: Authenticator::by_certificate(aws_tls, &principals),
            access_keys,
        };
        Ok(Self {
            callers,
            limits,
            keys: settings.key.clone(),
            rights,
        })
    }
}

/// The APIs that answer on the listeners.
pub(super) struct Apis {
    access: watch::Sender<Arc<front::Access>>,
    pub(super) limits: Arc<front::Limits>,
    pub(super) grpc: Arc<front::grpc::Api>,
    pub(super) aws: Option<Arc<front::aws::Api>>,
    kms: Arc<Kms>,
}

impl Apis {
    /// The APIs, and gRPC's health.
    pub(super) async fn new(
        kms: &Arc<Kms>,
        settings: &Settings,
        callers: front::Access,
        limits: Arc<front::Limits>,
    ) -> (Self, front::grpc::Health) {
        let (access, watched) = watch::channel(Arc::new(callers));
        let (grpc, health) = front::grpc::Api::new(
            Arc::clone(kms),
            &settings.grpc,
            watched.clone(),
            limits.clone(),
        )
        .await;
        let aws = settings.aws.as_ref().map(|aws| {
            let region = &settings.region;
            front::aws::Api::new(
                Arc::clone(kms),
                aws,
                region,
                watched.clone(),
                limits.clone(),
            )
        });
        let apis = Self {
            access,
            limits,
            grpc,
            aws,
            kms: Arc::clone(kms),
        };
        (apis, health)
    }

    /// Who authenticates callers, now and after each reload.
    pub(super) fn access(&self) -> watch::Receiver<Arc<front::Access>> {
        self.access.subscribe()
    }

    /// Replaces what authenticates callers of both listeners, with their rights, in one step; then the declared
    /// keys, and the `tokens` if they are others. Connections are judged again; none is dropped for it whose caller is still known. Gives what is
    /// wrong with declared keys.
    pub(super) async fn admit(&self, access: Access, tokens: Option<TokenGroups>) -> Vec<String> {
        let Access {
            callers,
            limits,
            keys,
            rights,
        } = access;
        self.limits.replace(limits);
        // Security: callers carry the rights that they were authenticated with, and what `declare` says
        // of them counts besides. So nobody has more than before or more than after at any moment.
        self.access.send_replace(Arc::new(callers));
        self.kms.declare(&keys, rights, tokens).await
    }

    /// Serves AWS's clients until the end is asked for; gives the number of connections that had to
    /// be dropped.
    pub(super) async fn serve_aws(
        &self,
        listener: Option<front::Listener>,
        mut ended: watch::Receiver<bool>,
        grace: Duration,
    ) -> usize {
        let (Some(listener), Some(api)) = (listener, &self.aws) else {
            return 0;
        };
        info!(event = "listening", address = %listener.address(), listener = "aws",  "listening for AWS's clients");
        // An error says that nobody can ask for the end any more: the process is ending.
        let shutdown = async move { drop(ended.wait_for(|ended| *ended).await) };
        front::serve(listener, api.clone(), shutdown, grace).await
    }
}
