use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
};

use tonic::server::NamedService as _;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as Service, HealthServer},
    server::{HealthReporter, health_reporter},
};

use super::{key::Key, mac::Mac};
use crate::{
    kms::Serving,
    proto::v1::{key_service_server::KeyServiceServer, mac_service_server::MacServiceServer},
};

/// What `grpc.health.v1` says: `hsmac.token.NAME` serves while the token can answer; the server
/// itself and both services serve while any token can.
pub struct Health {
    reporter: HealthReporter,
    tokens: Vec<Serving>,
    said: Vec<bool>,
}

impl Health {
    /// Everything NOT_SERVING: the library's own reporter is born SERVING.
    pub(super) async fn new(tokens: Vec<Serving>) -> (Self, HealthServer<impl Service>) {
        let (reporter, server) = health_reporter();
        let said = vec![true; tokens.len() + 1];
        let mut health = Self {
            reporter,
            tokens,
            said,
        };
        health.say(|_| false).await;
        (health, server)
    }

    /// Follows the tokens until `stopping`, then says NOT_SERVING for good and returns.
    pub async fn follow(mut self, stopping: impl Future<Output = ()>) {
        let mut stopping = pin!(stopping);
        loop {
            self.say(Serving::is_up).await;
            tokio::select! {
                () = any_change(&mut self.tokens) => {}
                () = &mut stopping => break,
            }
        }
        self.say(|_| false).await;
    }

    /// Says only what is new: each time, watchers are told.
    async fn say(&mut self, is_up: impl Fn(&mut Serving) -> bool) {
        let up: Vec<bool> = self.tokens.iter_mut().map(is_up).collect();
        let now = || up.iter().copied().chain([up.contains(&true)]);
        for (index, up) in now()
            .enumerate()
            .filter(|(index, up)| self.said[*index] != *up)
        {
            let status = if up {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            let token = self
                .tokens
                .get(index)
                .map(|token| format!("hsmac.token.{}", token.token()));
            let names = match &token {
                Some(token) => &[token.as_str()][..],
                None => &[
                    "",
                    MacServiceServer::<Mac>::NAME,
                    KeyServiceServer::<Key>::NAME,
                ],
            };
            for name in names {
                self.reporter.set_service_status(name, status).await;
            }
        }
        self.said = now().collect();
    }
}

async fn any_change(tokens: &mut [Serving]) {
    let mut changes: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = Vec::new();
    for token in tokens {
        changes.push(Box::pin(token.changed()));
    }
    poll_fn(|context| {
        if changes
            .iter_mut()
            .any(|change| change.as_mut().poll(context).is_ready())
        {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tonic::Request;
    use tonic_health::{pb::HealthCheckRequest, server::HealthService};

    use super::*;

    /// Waits until a service has this status; ends a hang after ten seconds.
    async fn wait_for(health: &HealthService, service: &str, status: ServingStatus) {
        let wanted = tonic_health::pb::health_check_response::ServingStatus::from(status) as i32;
        let same = async {
            let request = || {
                Request::new(HealthCheckRequest {
                    service: service.into(),
                })
            };
            while health.check(request()).await.unwrap().into_inner().status != wanted {
                tokio::task::yield_now().await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(10), same).await;
        assert!(found.is_ok(), "{service:?} does not become {status:?}");
    }

    #[tokio::test]
    async fn the_server_serves_while_any_token_does_and_not_before_nor_after() {
        let ((a, first), (b, second)) = (Serving::scripted("a"), Serving::scripted("b"));
        let (health, _) = Health::new(vec![first, second]).await;
        let service = HealthService::from_health_reporter(health.reporter.clone());
        let all = [
            "",
            "hsmac.v1.MacService",
            "hsmac.v1.KeyService",
            "hsmac.token.a",
            "hsmac.token.b",
        ];
        for name in all {
            wait_for(&service, name, ServingStatus::NotServing).await;
        }
        let (stop, stopping) = oneshot::channel::<()>();
        let following = tokio::spawn(health.follow(async move { drop(stopping.await) }));

        b(true);
        wait_for(&service, "hsmac.token.b", ServingStatus::Serving).await;
        wait_for(&service, "", ServingStatus::Serving).await;
        wait_for(&service, "hsmac.token.a", ServingStatus::NotServing).await;
        a(true);
        wait_for(&service, "hsmac.token.a", ServingStatus::Serving).await;
        b(false);
        wait_for(&service, "hsmac.token.b", ServingStatus::NotServing).await;
        wait_for(&service, "hsmac.v1.MacService", ServingStatus::Serving).await;

        drop(stop);
        following.await.unwrap();
        for name in all {
            wait_for(&service, name, ServingStatus::NotServing).await;
        }
    }
}
