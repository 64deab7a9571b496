//! The listeners, and who may come in by them.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tracing::info;

use super::Fault;
use crate::{
    config::Settings,
    front::{self, Gate, aws::AccessKeys},
    kms::{DeclaredRights, Kms, Principal},
};

/// The bound listeners. Clients may connect; they wait until they are served.
pub(super) struct Wires {
    pub(super) grpc: front::Listener,
    pub(super) aws: Option<front::Listener>,
}

impl Wires {
    pub(super) fn bind(settings: &Settings) -> Result<Self, Fault> {
        let grpc = &settings.grpc;
        let aws = settings.aws.as_ref();
        Ok(Self {
            grpc: front::bind(&grpc.listen, grpc.mode, grpc.max_connections)
                .map_err(|fault| Fault::Configuration(format!("grpc.listen: {fault}")))?,
            aws: aws
                .map(|aws| front::bind(&aws.listen, aws.mode, aws.max_connections))
                .transpose()
                .map_err(|fault| Fault::Configuration(format!("aws.listen: {fault}")))?,
        })
    }
}

/// Who may come in, and what each may do, read from the files that the settings name, at one time.
pub(super) struct Access {
    pub(super) gates: Gates,
    pub(super) rights: DeclaredRights,
}

/// Who may come in by each listener.
pub(super) struct Gates {
    grpc: Gate,
    aws: Option<(Gate, AccessKeys)>,
}

impl Access {
    /// # Errors
    /// A sentence that names the setting, or the file.
    pub(super) fn read(settings: &Settings) -> Result<Self, String> {
        let tls = |section, settings: Option<&_>, protocol| {
            settings
                .map(|settings| front::Tls::load(settings, protocol))
                .transpose()
                .map_err(|fault| format!("{section}.tls.{}: {}", fault.setting, fault.text))
        };
        let principals = &settings.principal;
        let grpc = Gate::new(
            tls("grpc", settings.grpc.tls.as_ref(), front::grpc::ALPN)?,
            principals,
            settings.grpc.anonymous.as_ref().map(|one| &one.0),
        );
        let aws = match &settings.aws {
            Some(aws) => {
                let tls = tls("aws", aws.tls.as_ref(), front::aws::ALPN)?;
                let access_keys = AccessKeys::load(principals, tls.is_some())
                    .map_err(|text| format!("principal: {text}"))?;
                Some((Gate::by_certificate(tls, principals), access_keys))
            }
            None => None,
        };
        let policies = read_principals(settings)?;
        Ok(Self {
            gates: Gates { grpc, aws },
            rights: DeclaredRights::read(&settings.account, policies, &settings.key)?,
        })
    }
}

/// The principals with their policies.
pub(super) fn read_principals(settings: &Settings) -> Result<Vec<Principal>, String> {
    let declared = settings.principal.iter();
    declared
        .map(|one| Principal::read(&one.arn.0, one.policy_file.as_deref()))
        .collect()
}

/// What answers on the listeners.
pub(super) struct Apis {
    pub(super) grpc: Arc<front::grpc::Api>,
    pub(super) aws: Option<Arc<front::aws::Api>>,
    kms: Arc<Kms>,
}

impl Apis {
    /// The APIs, and gRPC's health.
    pub(super) async fn new(
        kms: &Arc<Kms>,
        settings: &Settings,
        gates: Gates,
    ) -> (Self, front::grpc::Health) {
        let (grpc, health) =
            front::grpc::Api::new(Arc::clone(kms), &settings.grpc, gates.grpc).await;
        let aws = settings.aws.as_ref().zip(gates.aws);
        let aws = aws.map(|(aws, (gate, access_keys))| {
            front::aws::Api::new(Arc::clone(kms), aws, &settings.region, gate, access_keys)
        });
        let kms = Arc::clone(kms);
        (Self { grpc, aws, kms }, health)
    }

    /// From now on these may come in, and have these rights.
    pub(super) fn admit(&self, access: Access) {
        let Access { gates, rights } = access;
        self.kms.declare(rights);
        self.grpc.admit(gates.grpc);
        if let (Some(api), Some((gate, access_keys))) = (&self.aws, gates.aws) {
            api.admit(gate, access_keys);
        }
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
        info!(address = %listener.address(), "listening for AWS's clients");
        // An error says that nobody can ask for the end any more: the process is ending.
        let shutdown = async move { drop(ended.wait_for(|ended| *ended).await) };
        front::serve(listener, api.clone(), shutdown, grace).await
    }
}
