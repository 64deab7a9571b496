//! `grpc.health.v1`: which tokens can answer, and whether the server itself can.

use std::{
    future::{pending, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

use tokio::sync::watch;
use tonic::server::NamedService as _;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as Service, HealthServer},
    server::{HealthReporter, health_reporter},
};

use super::{key::KeyApi, mac::MacApi};
use crate::{
    kms::Serving,
    proto::v1::{key_service_server::KeyServiceServer, mac_service_server::MacServiceServer},
};

/// What `grpc.health.v1` says: `hsmac.token.NAME` serves while the token can answer; the server
/// itself and both services serve while any token can. [`Condition`]s have names of their own.
pub struct Health {
    reporter: HealthReporter,
    tokens: Vec<Serving>,
    conditions: Vec<Condition>,
    said: Vec<bool>,
}

/// Something about the server that somebody should know of, and that is no token's.
pub struct Condition {
    /// Its name as a service of health.
    pub name: String,
    /// True while there is trouble: NOT_SERVING.
    pub trouble: watch::Receiver<bool>,
}

impl Health {
    /// Everything NOT_SERVING: the library's own reporter is born SERVING.
    pub(super) async fn new(tokens: Vec<Serving>) -> (Self, HealthServer<impl Service>) {
        let (reporter, server) = health_reporter();
        let said = vec![true; tokens.len() + 1];
        let mut health = Self {
            reporter,
            tokens,
            conditions: Vec::new(),
            said,
        };
        health.say(|_| false).await;
        (health, server)
    }

    /// Tells of these conditions too.
    pub fn with_conditions(mut self, conditions: Vec<Condition>) -> Self {
        self.conditions = conditions;
        self
    }

    /// Follows the tokens and the conditions until `stopping`, then says NOT_SERVING for good and returns.
    pub async fn follow(mut self, stopping: impl Future<Output = ()>) {
        let mut stopping = pin!(stopping);
        loop {
            self.say(Serving::is_up).await;
            self.say_conditions().await;
            tokio::select! {
                () = any_change(&mut self.tokens, &mut self.conditions) => {}
                () = &mut stopping => break,
            }
        }
        self.say(|_| false).await;
    }

    async fn say_conditions(&mut self) {
        for condition in &mut self.conditions {
            let status = if *condition.trouble.borrow_and_update() {
                ServingStatus::NotServing
            } else {
                ServingStatus::Serving
            };
            self.reporter
                .set_service_status(&condition.name, status)
                .await;
        }
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
                    MacServiceServer::<MacApi>::NAME,
                    KeyServiceServer::<KeyApi>::NAME,
                ],
            };
            for name in names {
                self.reporter.set_service_status(name, status).await;
            }
        }
        self.said = now().collect();
    }
}

async fn any_change(tokens: &mut [Serving], conditions: &mut [Condition]) {
    let mut changes: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = Vec::new();
    for token in tokens {
        changes.push(Box::pin(token.changed()));
    }
    for condition in conditions {
        changes.push(Box::pin(async {
            // An error says that it will never change again.
            if condition.trouble.changed().await.is_err() {
                pending().await
            }
        }));
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
            while health
                .check(request())
                .await
                .map(|it| it.into_inner().status)
                .ok()
                != Some(wanted)
            {
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
        let full = watch::Sender::new(false);
        let health = health.with_conditions(vec![Condition {
            name: "hsmac.listener.aws".into(),
            trouble: full.subscribe(),
        }]);
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

        full.send_replace(true);
        wait_for(&service, "hsmac.listener.aws", ServingStatus::NotServing).await;
        full.send_replace(false);
        wait_for(&service, "hsmac.listener.aws", ServingStatus::Serving).await;

        drop(stop);
        following.await.unwrap();
        for name in all {
            wait_for(&service, name, ServingStatus::NotServing).await;
        }
    }
}
