//! A unit of work for one session, and the caller who waits for it.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};
use zeroize::Zeroizing;

use crate::{
    host_ipc::monotonic,
    metrics::{Counter, one_in},
    model::{Checkpoint, Extension, Flow},
    telemetry::traces,
    token::{
        key::TokenKey,
        locks::UNPOISONED,
        metrics::Function,
        status::{Destroyed, Fault, KeyFacts, Sealed},
    },
};

thread_local! {
    /// Jobs that were made, to time the wait of one in four.
    static JOBS: Cell<u32> = const { Cell::new(0) };
}

/// So many hosts may come to an end with a job in the library's hands.
const MOST_CRASHES: u8 = 2;

/// `until` travels with the work: when the caller has given up, computing the MAC would only delay
/// those still waiting.
pub(in crate::token) struct Job {
    pub(in crate::token) work: Work,
    pub(in crate::token) until: Instant,
    /// With whose jobs it waits.
    pub(in crate::token) flow: Flow,
    /// When it was made, of one in four: looks at the clock add up.
    pub(in crate::token) queued: Option<Instant>,
    /// Hosts that must not have it, since the other job of the pair is with them.
    missed: Vec<u32>,
    /// The one token of the group that is meant, by its number.
    member: Option<usize>,
    /// Set when a host gets it, for a caller who must know. A MAC has none.
    sent: Option<Arc<AtomicBool>>,
    /// The host that has it; 0: none has had it yet.
    host: u32,
    /// Where it is noted who has answered, and when the job was sent.
    note: Option<Arc<JobNote>>,
    reply: Reply,
}

pub(in crate::token) enum Work {
    Mac {
        key: Arc<TokenKey>,
        message: Bytes,
    },
    Random {
        number_of_bytes: u32,
    },
    Describe {
        key: Arc<TokenKey>,
    },
    /// Whether a token has a key's object yet, or still. A miss is an answer and says nothing bad of
    /// the key.
    Seek {
        key: Arc<TokenKey>,
    },
    /// Makes the object inside the token.
    Generate {
        key: Arc<TokenKey>,
    },
    /// Makes the object from given material.
    Import {
        key: Arc<TokenKey>,
        material: Zeroizing<Vec<u8>>,
    },
    /// Destroys the object; an orphan goes by its name alone.
    Destroy {
        key: Arc<TokenKey>,
        orphan: bool,
    },
    /// Seals the audit log as it is with these leaves added.
    Seal {
        key: Arc<TokenKey>,
        origin: String,
        leaves: Extension,
    },
    /// Whether a seal of a checkpoint was made with the key.
    CheckSeal {
        key: Arc<TokenKey>,
        checkpoint: Checkpoint,
        seal: Bytes,
    },
    /// A look at a host's token, with a key's check value if there is a key. Nobody waits for it.
    Probe {
        key: Option<Arc<TokenKey>>,
        /// At each session that has no job, not at one.
        every_session: bool,
    },
}

/// What a job that was done yields; one variant for each kind of work.
pub(in crate::token) enum JobOutput {
    Mac(Bytes),
    Random(Bytes),
    Facts(KeyFacts),
    Destroyed(Destroyed),
    Sealed(Sealed),
    SealChecked(bool),
}

/// What a caller gets in the end.
pub(in crate::token) type Outcome = Result<JobOutput, Fault>;

enum Reply {
    Sole {
        caller: oneshot::Sender<Outcome>,
        crashes: u8,
    },
    Hedged {
        both: Arc<Hedged>,
        /// Of the second job alone: counts that its answer was the first.
        won: Option<Arc<Counter>>,
    },
}

/// One caller behind two jobs: the first good answer goes to them.
struct Hedged {
    caller: Mutex<Option<oneshot::Sender<Outcome>>>,
    crashes: AtomicU8,
    unanswered: AtomicU8,
}

/// What a job notes for whoever logs and traces its call.
#[derive(Debug, Default)]
pub(in crate::token) struct JobNote {
    /// The host that has answered; 0: none.
    pub(in crate::token) host: AtomicU32,
    /// When a host got it last, on the clock of [`monotonic`]; 0: it was not sent, or calls are not traced.
    pub(in crate::token) sent: AtomicU64,
}

impl Job {
    pub(in crate::token) fn new(work: Work, until: Instant) -> (Self, oneshot::Receiver<Outcome>) {
        let (caller, answer) = oneshot::channel();
        (
            Self {
                work,
                until,
                flow: Flow::OWN,
                queued: one_in(4, &JOBS).then(Instant::now),
                missed: Vec::new(),
                member: None,
                sent: None,
                host: 0,
                note: None,
                reply: Reply::Sole { caller, crashes: 0 },
            },
            answer,
        )
    }

    /// Lets the job wait with those of a flow.
    pub(in crate::token) fn in_flow(mut self, flow: Flow) -> Self {
        self.flow = flow;
        self
    }

    /// Pins the job to one token of the group.
    pub(in crate::token) fn only_for(mut self, member: usize) -> Self {
        self.member = Some(member);
        self
    }

    /// Whether the job is pinned to this token.
    pub(in crate::token) fn is_only_for(&self, member: usize) -> bool {
        self.member == Some(member)
    }

    /// Lets the job set `sent` when it is on its way to a host.
    pub(in crate::token) fn telling(mut self, sent: &Arc<AtomicBool>) -> Self {
        self.sent = Some(Arc::clone(sent));
        self
    }

    /// Lets the job note which host has answered it, and when that got it.
    pub(in crate::token) fn noting(mut self, note: &Arc<JobNote>) -> Self {
        self.note = Some(Arc::clone(note));
        self
    }

    /// It is on its way to a host. Said before it is written to the host's socket.
    pub(in crate::token) fn tell_sent(&mut self, host: u32) {
        self.host = host;
        if traces::is_on()
            && let Some(note) = &self.note
        {
            note.sent.store(monotonic(), Ordering::Relaxed);
        }
        if let Some(sent) = &self.sent {
            sent.store(true, Ordering::SeqCst);
        }
    }

    /// The key that the job is about.
    pub(in crate::token) fn key(&self) -> Option<&Arc<TokenKey>> {
        match &self.work {
            Work::Mac { key, .. }
            | Work::Describe { key }
            | Work::Seek { key }
            | Work::Generate { key }
            | Work::Import { key, .. }
            | Work::Destroy { key, .. }
            | Work::Seal { key, .. }
            | Work::CheckSeal { key, .. } => Some(key),
            Work::Probe { key, .. } => key.as_ref(),
            Work::Random { .. } => None,
        }
    }

    /// Whether a host may have the job, as far as is known.
    pub(in crate::token) fn suits(&self, host: u32, member: usize) -> bool {
        self.member.is_none_or(|only| only == member)
            && !self.missed.contains(&host)
            && self.key().is_none_or(|key| !key.is_absent_from(host))
    }

    /// Whether there may be hosts that the job does not suit.
    pub(in crate::token) fn is_pinned(&self) -> bool {
        self.member.is_some()
            || !self.missed.is_empty()
            || self.key().is_some_and(|key| key.is_absent_somewhere())
    }

    /// Whether nobody waits for the answer any more.
    pub(in crate::token) fn is_abandoned(&self) -> bool {
        self.is_abandoned_at(Instant::now())
    }

    /// As [`is_abandoned`](Self::is_abandoned), for who knows what time it is.
    pub(in crate::token) fn is_abandoned_at(&self, now: Instant) -> bool {
        let gone = match &self.reply {
            Reply::Sole { caller, .. } => caller.is_closed(),
            Reply::Hedged { both, .. } => {
                let caller = both.caller.lock().expect(UNPOISONED);
                caller.as_ref().is_none_or(oneshot::Sender::is_closed)
            }
        };
        gone || now >= self.until
    }

    fn crashes(&self) -> u8 {
        match &self.reply {
            Reply::Sole { crashes, .. } => *crashes,
            Reply::Hedged { both, .. } => both.crashes.load(Ordering::Relaxed),
        }
    }

    /// A host came to its end with the job in the library's hands; false if that was once too often.
    pub(in crate::token) fn record_crash(&mut self) -> bool {
        let crashes = match &mut self.reply {
            Reply::Sole { crashes, .. } => {
                *crashes += 1;
                *crashes
            }
            Reply::Hedged { both, .. } => both.crashes.fetch_add(1, Ordering::Relaxed) + 1,
        };
        crashes < MOST_CRASHES
    }

    /// Whether the other job of a pair is on its way too.
    pub(in crate::token) fn has_hedge(&self) -> bool {
        match &self.reply {
            Reply::Sole { .. } => false,
            Reply::Hedged { both, .. } => both.unanswered.load(Ordering::Relaxed) > 1,
        }
    }

    /// A second job for another host than `host`, which has the first. Both share their count of crashes,
    /// so that a poison message does not kill twice as many hosts. `won` counts the second jobs whose answer
    /// the caller gets.
    ///
    /// `None` for what changes the token: nobody knows what came of a first time, so there is no
    /// second. `None` too for a job that has a hedge, or that a host has failed with: a message is
    /// with two hosts at once at most, and costs two at most.
    pub(in crate::token) fn hedge(&mut self, host: u32, won: &Arc<Counter>) -> Option<Self> {
        if self.has_hedge() || self.crashes() > 0 {
            return None;
        }
        let work = self.work.again()?;
        let placeholder = Reply::Hedged {
            both: Arc::default(),
            won: None,
        };
        let (both, own) = match std::mem::replace(&mut self.reply, placeholder) {
            Reply::Sole { caller, crashes } => {
                let both = Arc::new(Hedged {
                    caller: Mutex::new(Some(caller)),
                    crashes: AtomicU8::new(crashes),
                    unanswered: AtomicU8::new(1),
                });
                (both, None)
            }
            Reply::Hedged { both, won } => (both, won),
        };
        both.unanswered.fetch_add(1, Ordering::Relaxed);
        self.reply = Reply::Hedged {
            both: Arc::clone(&both),
            won: own,
        };
        let mut missed = self.missed.clone();
        missed.push(host);
        Some(Self {
            work,
            until: self.until,
            flow: self.flow,
            queued: one_in(4, &JOBS).then(Instant::now),
            missed,
            member: self.member,
            sent: self.sent.clone(),
            host: 0,
            note: self.note.clone(),
            reply: Reply::Hedged {
                both,
                won: Some(Arc::clone(won)),
            },
        })
    }

    /// A fault of one hedge is the caller's only if the other has failed too, or must fail.
    pub(in crate::token) fn reply(self, outcome: Outcome) {
        let note = || {
            if let Some(note) = &self.note {
                note.host.store(self.host, Ordering::Relaxed);
            }
        };
        // A caller that has gone away is no fault.
        match self.reply {
            Reply::Sole { caller, .. } => {
                note();
                let _ = caller.send(outcome);
            }
            Reply::Hedged { both, won } => {
                let last = both.unanswered.fetch_sub(1, Ordering::AcqRel) == 1;
                let crashed_twice = both.crashes.load(Ordering::Relaxed) >= MOST_CRASHES;
                let settled = matches!(outcome, Ok(_) | Err(Fault::Message(_) | Fault::Closed));
                if (last || crashed_twice || settled)
                    && let Some(caller) = both.caller.lock().expect(UNPOISONED).take()
                {
                    note();
                    let is_good = outcome.is_ok();
                    if caller.send(outcome).is_ok()
                        && is_good
                        && let Some(won) = won
                    {
                        won.increment();
                    }
                }
            }
        }
    }
}

impl Work {
    /// What the token is asked for, as it is counted; none for signs of life.
    pub(in crate::token) fn function(&self) -> Option<Function> {
        Some(match self {
            Self::Mac { .. } | Self::Seal { .. } | Self::CheckSeal { .. } => Function::Mac,
            Self::Random { .. } => Function::Random,
            Self::Describe { .. } | Self::Seek { .. } => Function::Find,
            Self::Generate { .. } | Self::Import { .. } => Function::Generate,
            Self::Destroy { .. } => Function::Destroy,
            Self::Probe { .. } => return None,
        })
    }

    /// Whether a caller waits for it who can be told at once that it will be too late: MACs and random
    /// bytes, whose rate is known.
    pub(in crate::token) fn is_foreseen(&self) -> bool {
        matches!(self, Self::Mac { .. } | Self::Random { .. })
    }

    /// Whether it changes the token.
    pub(in crate::token) fn changes(&self) -> bool {
        match self {
            Self::Generate { .. } | Self::Import { .. } | Self::Destroy { .. } => true,
            Self::Mac { .. }
            | Self::Random { .. }
            | Self::Describe { .. }
            | Self::Seek { .. }
            | Self::Seal { .. }
            | Self::CheckSeal { .. }
            | Self::Probe { .. } => false,
        }
    }

    /// Whether its key was made for this job alone, as for a creation: no MAC is asked of it.
    pub(in crate::token) fn has_own_key(&self) -> bool {
        self.changes() || matches!(self, Self::Seek { .. })
    }

    /// A copy of the work, if doing it twice does no more than doing it once.
    fn again(&self) -> Option<Self> {
        Some(match self {
            Self::Mac { key, message } => Self::Mac {
                key: Arc::clone(key),
                message: message.clone(),
            },
            Self::Random { number_of_bytes } => Self::Random {
                number_of_bytes: *number_of_bytes,
            },
            Self::Describe { key } => Self::Describe {
                key: Arc::clone(key),
            },
            Self::Seek { key } => Self::Seek {
                key: Arc::clone(key),
            },
            Self::Probe { key, every_session } => Self::Probe {
                key: key.clone(),
                every_session: *every_session,
            },
            Self::Seal { .. }
            | Self::CheckSeal { .. }
            | Self::Generate { .. }
            | Self::Import { .. }
            | Self::Destroy { .. } => return None,
        })
    }
}

impl JobOutput {
    pub(in crate::token) fn mac(self) -> Result<Bytes, Fault> {
        if let Self::Mac(mac) = self {
            Ok(mac)
        } else {
            Err(Self::unexpected())
        }
    }

    pub(in crate::token) fn random(self) -> Result<Bytes, Fault> {
        if let Self::Random(bytes) = self {
            Ok(bytes)
        } else {
            Err(Self::unexpected())
        }
    }

    pub(in crate::token) fn facts(self) -> Result<KeyFacts, Fault> {
        if let Self::Facts(facts) = self {
            Ok(facts)
        } else {
            Err(Self::unexpected())
        }
    }

    pub(in crate::token) fn destroyed(self) -> Result<Destroyed, Fault> {
        if let Self::Destroyed(destroyed) = self {
            Ok(destroyed)
        } else {
            Err(Self::unexpected())
        }
    }

    pub(in crate::token) fn sealed(self) -> Result<Sealed, Fault> {
        if let Self::Sealed(sealed) = self {
            Ok(sealed)
        } else {
            Err(Self::unexpected())
        }
    }

    pub(in crate::token) fn seal_checked(self) -> Result<bool, Fault> {
        if let Self::SealChecked(is_genuine) = self {
            Ok(is_genuine)
        } else {
            Err(Self::unexpected())
        }
    }

    fn unexpected() -> Fault {
        Fault::Internal("the answer to another question".into())
    }
}

impl Default for Hedged {
    /// Nobody's.
    fn default() -> Self {
        Self {
            caller: Mutex::new(None),
            crashes: AtomicU8::new(0),
            unanswered: AtomicU8::new(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{model::KeySpec, token::key::ObjectLocator};

    fn random() -> (Job, oneshot::Receiver<Outcome>) {
        let until = Instant::now() + Duration::from_secs(60);
        Job::new(Work::Random { number_of_bytes: 1 }, until)
    }

    fn won() -> Arc<Counter> {
        Arc::default()
    }

    fn bytes(byte: u8) -> Outcome {
        Ok(JobOutput::Random(vec![byte].into()))
    }

    #[test]
    fn the_first_good_answer_of_a_hedged_job_is_the_caller_s() {
        let (mut job, mut answer) = random();
        let hedge = job.hedge(1, &won()).unwrap();
        assert!(
            !hedge.suits(1, 0) && hedge.suits(2, 0),
            "another host gets the hedge"
        );
        job.reply(Err(Fault::Internal("a fault of one".into())));
        assert!(answer.try_recv().is_err(), "the other may still answer");
        assert!(!hedge.is_abandoned());
        hedge.reply(bytes(7));
        assert!(
            matches!(answer.try_recv().unwrap(), Ok(JobOutput::Random(bytes)) if *bytes == [7])
        );
    }

    #[test]
    fn an_answered_hedge_leaves_the_other_job_abandoned_and_has_won() {
        let (mut job, mut answer) = random();
        let won = won();
        let hedge = job.hedge(1, &won).unwrap();
        hedge.reply(bytes(1));
        assert!(job.is_abandoned());
        job.reply(bytes(2));
        assert_eq!(won.get(), 1);
        // Where the first job answers first, or nobody waits any more, the hedge was for nothing.
        for outcome in [bytes(3), Err(Fault::Closed)] {
            let (mut job, answered) = random();
            let hedge = job.hedge(1, &won).unwrap();
            job.reply(outcome);
            drop(answered);
            hedge.reply(bytes(4));
        }
        let (mut job, gone) = random();
        let hedge = job.hedge(1, &won).unwrap();
        drop(gone);
        hedge.reply(bytes(5));
        assert_eq!(won.get(), 1);
        assert!(
            matches!(answer.try_recv().unwrap(), Ok(JobOutput::Random(bytes)) if *bytes == [1])
        );
    }

    #[test]
    fn a_hedged_job_fails_when_both_fail() {
        let (mut job, mut answer) = random();
        let hedge = job.hedge(1, &won()).unwrap();
        job.reply(Err(Fault::Internal("one".into())));
        hedge.reply(Err(Fault::Internal("two".into())));
        let fault = answer.try_recv().unwrap().err().unwrap();
        assert_eq!(fault, Fault::Internal("two".into()));
    }

    #[test]
    fn hedged_jobs_share_their_count_of_crashes() {
        let (mut job, _answer) = random();
        let mut hedge = job.hedge(1, &won()).unwrap();
        assert!(job.record_crash());
        assert!(
            !hedge.record_crash(),
            "the second host that fails is the last"
        );
    }

    #[test]
    fn a_job_has_one_hedge_at_once_and_none_after_a_crash() {
        let (mut job, _answer) = random();
        let mut hedge = job.hedge(1, &won()).unwrap();
        assert!(job.hedge(2, &won()).is_none() && hedge.hedge(2, &won()).is_none());
        job.reply(Err(Fault::Internal("a fault of one".into())));
        let mut again = hedge.hedge(2, &won()).unwrap();
        assert!(again.record_crash());
        again.reply(Err(Fault::Internal("a host died".into())));
        assert!(
            hedge.hedge(3, &won()).is_none(),
            "the message may be poison"
        );
    }

    #[test]
    fn a_job_that_changes_the_token_is_never_hedged() {
        let key = Arc::new(TokenKey::new(
            "1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap(),
            KeySpec::Hmac256,
            ObjectLocator::default(),
            None,
        ));
        let until = Instant::now() + Duration::from_secs(60);
        for work in [
            Work::Generate { key: key.clone() },
            Work::Import {
                key: key.clone(),
                material: Zeroizing::new(vec![7; 32]),
            },
            Work::Destroy {
                key: key.clone(),
                orphan: false,
            },
        ] {
            assert!(work.changes());
            let (mut job, mut answer) = Job::new(work, until);
            assert!(job.hedge(1, &won()).is_none());
            assert!(job.suits(1, 0), "it may still go to any host");
            job.reply(Err(Fault::Unknown("the host died".into())));
            assert!(answer.try_recv().unwrap().is_err());
        }
        assert!(!Work::Seek { key }.changes());
    }

    #[test]
    fn a_pinned_job_suits_its_token_alone() {
        let (job, _answer) = random();
        assert!(!job.is_pinned());
        let job = job.only_for(1);
        assert!(job.suits(7, 1) && !job.suits(7, 0) && job.is_pinned());
    }
}
