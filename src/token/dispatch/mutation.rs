//! Calls that change a token: made once, by one host; what came of them is told as far as it is known.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use crate::token::{
    dispatch::{
        Dispatcher, TokenStatus,
        job::{Job, JobOutput, Outcome, Work},
    },
    key::TokenKey,
    settings::ReplicatedBy,
    status::{Destroyed, Fault, KeyFacts},
};

/// How long after `slow_timeout` a host whose call did not return is gone, and its jobs answered.
const MARGIN: Duration = Duration::from_secs(5);
/// How often the other members are asked whether a change has reached them.
const POLL: Duration = Duration::from_millis(200);

impl Dispatcher {
    pub(in crate::token) async fn create(
        &self,
        work: Work,
        key: &Arc<TokenKey>,
        until: Instant,
    ) -> Result<KeyFacts, Fault> {
        let vendor =
            |token: &TokenStatus| token.settings.replicated_by == Some(ReplicatedBy::Vendor);
        let tokens = self.tokens.load_full();
        if tokens.len() > 1 && !tokens.iter().all(vendor) {
            return Err(Fault::Unsupported(format!(
                "the group {} has several tokens, and nobody brings a new key to all of them (replicated_by)",
                self.group
            )));
        }
        let facts = self.change(work, key, None, until).await?.facts()?;
        // The key that the others must have is the one that was made.
        let made = Arc::new(TokenKey::new(
            key.key_id().clone(),
            key.spec(),
            key.locator().clone(),
            Some(facts.check_value.clone()),
        ));
        let others = tokens.iter();
        for token in others.filter(|token| token.settings.name != facts.token) {
            let there = |sought: &Result<KeyFacts, Fault>| sought.is_ok();
            self.seek(&made, token, until, there).await?;
        }
        Ok(facts)
    }

    pub(in crate::token) async fn destroy(
        &self,
        key: &Arc<TokenKey>,
        orphan: bool,
        done: &mut BTreeSet<String>,
        until: Instant,
    ) -> Result<Destroyed, Fault> {
        // Nothing is begun that cannot be brought to its end: with one member away, the others would
        // be asked again and again for what they no longer have.
        let tokens = self.tokens.load_full();
        let away = tokens.iter().find(|token| {
            !done.contains(&token.settings.name) && !token.state.borrow().is_serving()
        });
        if let Some(token) = away {
            return Err(Fault::Unavailable(format!(
                "{}: {}",
                token.settings.name,
                *token.state.borrow()
            )));
        }
        let mut found = Destroyed::WasGone;
        for token in tokens.iter() {
            let name = &token.settings.name;
            if done.contains(name) {
                continue;
            }
            // Of a group that the vendor keeps alike the first destruction may reach the others
            // before we do.
            let key = match tokens.len() {
                1 => Arc::clone(key),
                _ => Arc::new(key.without_history()),
            };
            let work = Work::Destroy {
                key: Arc::clone(&key),
                orphan,
            };
            let destroyed = self.change(work, &key, Some(token.member), until).await?;
            if destroyed.destroyed()? == Destroyed::Now {
                found = Destroyed::Now;
            }
            done.insert(name.clone());
        }
        Ok(found)
    }

    /// Has one host do the work, of one token if one is named.
    async fn change(
        &self,
        work: Work,
        key: &Arc<TokenKey>,
        member: Option<usize>,
        until: Instant,
    ) -> Result<JobOutput, Fault> {
        let _using = key.begin_use().ok_or(Fault::Closed)?;
        self.available()?;
        let tokens = self.tokens.load_full();
        let sent = Arc::new(AtomicBool::new(false));
        let (job, answer) = Job::new(work, until);
        let mut job = job.telling(&sent);
        if let Some(member) = member.filter(|_| tokens.len() > 1) {
            job = job.only_for(member);
        }
        if job.is_pinned() && !self.queue.has_candidate(&job) {
            return Err(Fault::Unavailable("the token of the group is away".into()));
        }
        self.queue.push(job)?;
        let slow = tokens.iter().map(|token| token.settings.slow_timeout);
        let late = until + slow.max().unwrap_or_default() + MARGIN;
        wait(answer, &sent, until, late).await
    }

    /// Asks a token for a key until the answer is as wanted, or the deadline passes.
    async fn seek(
        &self,
        key: &Arc<TokenKey>,
        token: &TokenStatus,
        until: Instant,
        wanted: impl Fn(&Result<KeyFacts, Fault>) -> bool,
    ) -> Result<(), Fault> {
        loop {
            let (job, answer) = Job::new(
                Work::Seek {
                    key: Arc::clone(key),
                },
                until,
            );
            let job = job.only_for(token.member);
            let name = &token.settings.name;
            if self.queue.has_candidate(&job) {
                self.queue.push(job)?;
                let sought = match timeout_at(until, answer).await {
                    Ok(Ok(found)) => found.and_then(JobOutput::facts),
                    Ok(Err(_)) | Err(_) => Err(Fault::Deadline("in the token".into())),
                };
                if wanted(&sought) {
                    return Ok(());
                }
            }
            if Instant::now() + POLL >= until {
                return Err(Fault::Unavailable(format!(
                    "the token {name} of the group does not have the new key yet"
                )));
            }
            sleep(POLL).await;
        }
    }
}

/// Waits for an answer: until the deadline for a host to take the job, and until `late` for what
/// comes of it then.
async fn wait(
    mut answer: oneshot::Receiver<Outcome>,
    sent: &AtomicBool,
    until: Instant,
    late: Instant,
) -> Outcome {
    let dropped = |sent: bool| {
        if sent {
            Fault::Unknown("a job was dropped without an answer".into())
        } else {
            Fault::Deadline("in the queue".into())
        }
    };
    match timeout_at(until, &mut answer).await {
        Ok(Ok(outcome)) => return outcome,
        Ok(Err(_)) => return Err(dropped(sent.load(Ordering::SeqCst))),
        Err(_) => {}
    }
    // From here on no host takes it from the queue, and one that just did does not ask the token.
    if !sent.load(Ordering::SeqCst) {
        return Err(dropped(false));
    }
    match timeout_at(late, answer).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(dropped(true)),
        Err(_) => Err(Fault::Unknown("the host did not answer".into())),
    }
}
