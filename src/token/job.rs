//! A unit of work for one session, and the caller who waits for it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{Destroyed, Fault, Key, KeyFacts};

/// So many hosts may come to an end with a job in the library's hands.
const MOST_CHARGES: u8 = 2;

/// `until` travels with the work: when the caller has given up, computing the MAC would only delay
/// those still waiting.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) until: Instant,
    /// Hosts that are not to have it, since they have its twin.
    missed: Vec<u32>,
    /// The one token of the group that is meant, by its place.
    member: Option<usize>,
    /// Set when a host gets it, for a caller who must know. A MAC has none.
    sent: Option<Arc<AtomicBool>>,
    reply: Reply,
}

pub(super) enum Work {
    Mac {
        key: Arc<Key>,
        message: Bytes,
    },
    Random {
        number_of_bytes: u32,
    },
    Describe {
        key: Arc<Key>,
    },
    /// Whether a token has a key's object yet, or still. A miss is an answer and says nothing bad of
    /// the key.
    Seek {
        key: Arc<Key>,
    },
    /// Makes the object inside the token.
    Generate {
        key: Arc<Key>,
    },
    /// Makes the object from given material.
    Import {
        key: Arc<Key>,
        material: Zeroizing<Vec<u8>>,
    },
    /// Destroys the object; an orphan goes by its name alone.
    Destroy {
        key: Arc<Key>,
        orphan: bool,
    },
    /// A look at a host's token, with a key's check value if there is a key. Nobody waits for it.
    Probe {
        key: Option<Arc<Key>>,
    },
}

pub(super) enum Answer {
    Bytes(Bytes),
    Facts(KeyFacts),
    Destroyed(Destroyed),
}

/// What a caller gets in the end.
pub(super) type Outcome = Result<Answer, Fault>;

enum Reply {
    Sole {
        caller: oneshot::Sender<Outcome>,
        charges: u8,
    },
    Twin(Arc<Twins>),
}

/// One caller behind two jobs: the first good answer is his.
struct Twins {
    caller: Mutex<Option<oneshot::Sender<Outcome>>>,
    charges: AtomicU8,
    unanswered: AtomicU8,
}

impl Job {
    pub(super) fn new(work: Work, until: Instant) -> (Self, oneshot::Receiver<Outcome>) {
        let (caller, answer) = oneshot::channel();
        (
            Self {
                work,
                until,
                missed: Vec::new(),
                member: None,
                sent: None,
                reply: Reply::Sole { caller, charges: 0 },
            },
            answer,
        )
    }

    /// The same job for one token of the group alone.
    pub(super) fn only_for(mut self, member: usize) -> Self {
        self.member = Some(member);
        self
    }

    /// The same job, which sets `sent` when it is on its way to a host.
    pub(super) fn telling(mut self, sent: &Arc<AtomicBool>) -> Self {
        self.sent = Some(Arc::clone(sent));
        self
    }

    /// It is on its way to a host. Said before it is written to the host's socket.
    pub(super) fn tell_sent(&self) {
        if let Some(sent) = &self.sent {
            sent.store(true, Ordering::SeqCst);
        }
    }

    /// The key that the job is about.
    pub(super) fn key(&self) -> Option<&Arc<Key>> {
        match &self.work {
            Work::Mac { key, .. }
            | Work::Describe { key }
            | Work::Seek { key }
            | Work::Generate { key }
            | Work::Import { key, .. }
            | Work::Destroy { key, .. } => Some(key),
            Work::Probe { key } => key.as_ref(),
            Work::Random { .. } => None,
        }
    }

    /// Whether a host may have the job, as far as is known.
    pub(super) fn suits(&self, host: u32, member: usize) -> bool {
        self.member.is_none_or(|only| only == member)
            && !self.missed.contains(&host)
            && self.key().is_none_or(|key| !key.is_absent_from(host))
    }

    /// Whether there may be hosts that the job does not suit.
    pub(super) fn is_picky(&self) -> bool {
        self.member.is_some()
            || !self.missed.is_empty()
            || self.key().is_some_and(|key| key.is_absent_somewhere())
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        let gone = match &self.reply {
            Reply::Sole { caller, .. } => caller.is_closed(),
            Reply::Twin(twins) => {
                let caller = twins.caller.lock().expect(UNPOISONED);
                caller.as_ref().is_none_or(oneshot::Sender::is_closed)
            }
        };
        gone || Instant::now() >= self.until
    }

    /// A host came to its end with the job in the library's hands; false if that was once too often.
    pub(super) fn charge(&mut self) -> bool {
        let charges = match &mut self.reply {
            Reply::Sole { charges, .. } => {
                *charges += 1;
                *charges
            }
            Reply::Twin(twins) => twins.charges.fetch_add(1, Ordering::Relaxed) + 1,
        };
        charges < MOST_CHARGES
    }

    /// The same work for another host than `host`, which has it already. Both share their charges,
    /// so that a poison message does not kill twice as many hosts.
    ///
    /// `None` for what changes the token: nobody knows what came of a first time, so there is no
    /// second.
    pub(super) fn twin(&mut self, host: u32) -> Option<Self> {
        let work = self.work.again()?;
        let twins = match std::mem::replace(&mut self.reply, Reply::Twin(Arc::default())) {
            Reply::Sole { caller, charges } => Arc::new(Twins {
                caller: Mutex::new(Some(caller)),
                charges: AtomicU8::new(charges),
                unanswered: AtomicU8::new(1),
            }),
            Reply::Twin(twins) => twins,
        };
        twins.unanswered.fetch_add(1, Ordering::Relaxed);
        self.reply = Reply::Twin(Arc::clone(&twins));
        let mut missed = self.missed.clone();
        missed.push(host);
        Some(Self {
            work,
            until: self.until,
            missed,
            member: self.member,
            sent: self.sent.clone(),
            reply: Reply::Twin(twins),
        })
    }

    /// A fault of one twin is the caller's only if the other has failed too, or must fail.
    pub(super) fn reply(self, outcome: Outcome) {
        // A caller that has gone away is no fault.
        match self.reply {
            Reply::Sole { caller, .. } => {
                let _ = caller.send(outcome);
            }
            Reply::Twin(twins) => {
                let last = twins.unanswered.fetch_sub(1, Ordering::AcqRel) == 1;
                let charged = twins.charges.load(Ordering::Relaxed) >= MOST_CHARGES;
                let settled = matches!(outcome, Ok(_) | Err(Fault::Message(_) | Fault::Closed));
                if (last || charged || settled)
                    && let Some(caller) = twins.caller.lock().expect(UNPOISONED).take()
                {
                    let _ = caller.send(outcome);
                }
            }
        }
    }
}

impl Work {
    /// Whether it changes the token.
    pub(super) fn changes(&self) -> bool {
        match self {
            Self::Generate { .. } | Self::Import { .. } | Self::Destroy { .. } => true,
            Self::Mac { .. }
            | Self::Random { .. }
            | Self::Describe { .. }
            | Self::Seek { .. }
            | Self::Probe { .. } => false,
        }
    }

    /// The same work, if doing it twice does no more than doing it once.
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
            Self::Probe { key } => Self::Probe { key: key.clone() },
            Self::Generate { .. } | Self::Import { .. } | Self::Destroy { .. } => return None,
        })
    }
}

impl Default for Twins {
    /// Nobody's.
    fn default() -> Self {
        Self {
            caller: Mutex::new(None),
            charges: AtomicU8::new(0),
            unanswered: AtomicU8::new(0),
        }
    }
}

const UNPOISONED: &str = "no holder of a caller's lock panics";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{model::KeySpec, token::Locator};

    fn random() -> (Job, oneshot::Receiver<Outcome>) {
        let until = Instant::now() + Duration::from_secs(60);
        Job::new(Work::Random { number_of_bytes: 1 }, until)
    }

    fn bytes(byte: u8) -> Outcome {
        Ok(Answer::Bytes(vec![byte].into()))
    }

    #[test]
    fn the_first_good_answer_of_two_twins_is_the_caller_s() {
        let (mut job, mut answer) = random();
        let twin = job.twin(1).unwrap();
        assert!(
            !twin.suits(1, 0) && twin.suits(2, 0),
            "another host gets the twin"
        );
        job.reply(Err(Fault::Internal("a fault of one".into())));
        assert!(answer.try_recv().is_err(), "the other may still answer");
        assert!(!twin.is_abandoned());
        twin.reply(bytes(7));
        assert!(matches!(answer.try_recv().unwrap(), Ok(Answer::Bytes(bytes)) if *bytes == [7]));
    }

    #[test]
    fn an_answered_twin_is_abandoned_by_the_other() {
        let (mut job, mut answer) = random();
        let twin = job.twin(1).unwrap();
        twin.reply(bytes(1));
        assert!(job.is_abandoned());
        job.reply(bytes(2));
        assert!(matches!(answer.try_recv().unwrap(), Ok(Answer::Bytes(bytes)) if *bytes == [1]));
    }

    #[test]
    fn two_twins_that_fail_are_a_fault() {
        let (mut job, mut answer) = random();
        let twin = job.twin(1).unwrap();
        job.reply(Err(Fault::Internal("one".into())));
        twin.reply(Err(Fault::Internal("two".into())));
        let fault = answer.try_recv().unwrap().err().unwrap();
        assert_eq!(fault, Fault::Internal("two".into()));
    }

    #[test]
    fn twins_share_their_charges() {
        let (mut job, _answer) = random();
        let mut twin = job.twin(1).unwrap();
        assert!(job.charge());
        assert!(!twin.charge(), "the second host that fails is the last");
    }

    #[test]
    fn what_changes_the_token_has_no_twin() {
        let key = Arc::new(Key::new(
            "1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap(),
            KeySpec::Hmac256,
            Locator::default(),
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
            assert!(job.twin(1).is_none());
            assert!(job.suits(1, 0), "it may still go to any host");
            job.reply(Err(Fault::Unknown("the host died".into())));
            assert!(answer.try_recv().unwrap().is_err());
        }
        assert!(!Work::Seek { key }.changes());
    }

    #[test]
    fn a_job_for_one_token_suits_no_other() {
        let (job, _answer) = random();
        assert!(!job.is_picky());
        let job = job.only_for(1);
        assert!(job.suits(7, 1) && !job.suits(7, 0) && job.is_picky());
    }
}
