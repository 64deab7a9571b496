//! `grpc.health.v1`: which tokens can answer, and whether the server itself can.

use std::{
    collections::BTreeMap,
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
    kms::{Serving, TokenChanges},
    proto::v1::{key_service_server::KeyServiceServer, mac_service_server::MacServiceServer},
};

/// What `grpc.health.v1` says: `hsmac.token.NAME` serves while the token can answer; the server
/// itself and both services serve while any token can. [`Condition`]s have names of their own.
pub struct Health {
    reporter: HealthReporter,
    tokens: Box<Tokens>,
    conditions: Vec<Condition>,
    /// By the names of services of health.
    said: BTreeMap<String, bool>,
}

/// Whether each token serves, and what tells that there are others.
type Tokens = dyn Fn() -> (TokenChanges, Vec<Serving>) + Send + Sync;

/// Something about the server that somebody should know of, and that is no token's.
pub struct Condition {
    /// Its name as a service of health.
    pub name: String,
    /// True while there is trouble: NOT_SERVING.
    pub trouble: watch::Receiver<bool>,
}

impl Health {
    /// Everything NOT_SERVING: the library's own reporter is born SERVING.
    pub(super) async fn new(
        tokens: impl Fn() -> (TokenChanges, Vec<Serving>) + Send + Sync + 'static,
    ) -> (Self, HealthServer<impl Service>) {
        let (reporter, server) = health_reporter();
        let (_, now) = tokens();
        let mut health = Self {
            reporter,
            tokens: Box::new(tokens),
            conditions: Vec::new(),
            said: BTreeMap::new(),
        };
        health.say(&now, |_| false).await;
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
            let (mut changes, mut tokens) = (self.tokens)();
            let up: Vec<bool> = tokens.iter_mut().map(Serving::is_up).collect();
            self.say(&tokens, |at| up[at]).await;
            self.say_conditions().await;
            tokio::select! {
                () = any_change(&mut tokens, &mut self.conditions) => {}
                () = changes.changed() => {}
                () = &mut stopping => break,
            }
        }
        let (_, tokens) = (self.tokens)();
        self.say(&tokens, |_| false).await;
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

    /// Says only what is new: each time, watchers are told. Of a token that is gone nothing is known any more.
    async fn say(&mut self, tokens: &[Serving], is_up: impl Fn(usize) -> bool) {
        let up: Vec<bool> = (0..tokens.len()).map(is_up).collect();
        let any = up.contains(&true);
        let named = tokens.iter().zip(&up);
        let of_tokens = named.map(|(token, up)| (format!("hsmac.token.{}", token.token()), *up));
        let own = [
            "",
            MacServiceServer::<MacApi>::NAME,
            KeyServiceServer::<KeyApi>::NAME,
        ];
        let own = own.map(|name| (name.to_owned(), any));
        let now: BTreeMap<String, bool> = of_tokens.chain(own).collect();
        for (name, up) in now
            .iter()
            .filter(|(name, up)| self.said.get(*name) != Some(*up))
        {
            let status = match up {
                true => ServingStatus::Serving,
                false => ServingStatus::NotServing,
            };
            self.reporter.set_service_status(name, status).await;
        }
        for gone in self.said.keys().filter(|name| !now.contains_key(*name)) {
            // Who watches it hears a last word.
            let status = ServingStatus::NotServing;
            self.reporter.set_service_status(gone, status).await;
            self.reporter.clear_service_status(gone).await;
        }
        self.said = now;
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
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

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
        let (changes, tokens) = (
            watch::Sender::new(0),
            Arc::new(Mutex::new(vec![first, second])),
        );
        let source = (changes.clone(), Arc::clone(&tokens));
        let (health, _) = Health::new(move || {
            let (changes, tokens) = &source;
            (
                TokenChanges::scripted(changes),
                tokens.lock().unwrap().clone(),
            )
        })
        .await;
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

        // A reload: one comes, one goes.
        let (c, third) = Serving::scripted("c");
        {
            let mut tokens = tokens.lock().unwrap();
            tokens.remove(1);
            tokens.push(third);
        }
        changes.send_replace(1);
        wait_for(&service, "hsmac.token.c", ServingStatus::NotServing).await;
        c(true);
        wait_for(&service, "hsmac.token.c", ServingStatus::Serving).await;
        let request = HealthCheckRequest {
            service: "hsmac.token.b".into(),
        };
        let gone = service.check(Request::new(request)).await.unwrap_err();
        assert_eq!(gone.code(), tonic::Code::NotFound);

        drop(stop);
        following.await.unwrap();
        for name in &all[..4] {
            wait_for(&service, name, ServingStatus::NotServing).await;
        }
    }
}
