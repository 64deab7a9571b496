//! What the front makes of a host that does not compare check values.

use bytes::BytesMut;
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

use super::*;
use crate::{
    host_ipc::write_frame,
    model::KeySpec,
    proto::host::{KeyOpened, Ready, TokenFound},
    token::{
        dispatch::{job::Outcome, queue::Queue},
        host::{process::HostProcess, session_share::SessionShare},
        key::ObjectLocator,
        metrics::TokenMetrics,
        settings::{HostEnvironment, HostProgram, Settings},
    },
};

const HOST: u32 = 7;

fn value(byte: u8, length: usize) -> Bytes {
    vec![byte; length].into()
}

fn key(check_value: Option<Bytes>) -> Arc<TokenKey> {
    Arc::new(TokenKey::new(
        "1234abcd-12ab-34cd-56ef-1234567890ab".parse().unwrap(),
        KeySpec::Hmac256,
        ObjectLocator::default(),
        check_value.map(CheckValue::from),
    ))
}

/// A host whose process does nothing, and the queue that it serves.
struct Idle {
    session: HostSession,
    queue: Queue,
    settings: Settings,
}

impl Idle {
    fn new() -> Self {
        let uri = serde_json::json!({ "uri": "pkcs11:token=t?module-path=/m.so" });
        let settings: Settings = serde_json::from_value(uri).unwrap();
        let environment = HostEnvironment {
            host: HostProgram::Binary("/bin/true".into()),
            state_dir: "/".into(),
        };
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let process = HostProcess::open(&settings, &environment, HOST, permit).unwrap();
        let ready = Ready {
            sessions: 1,
            ..Ready::default()
        };
        let queue = Queue::new(9);
        queue.add_member(true);
        Self {
            session: HostSession::new(process, ready, TokenFound::default()),
            queue,
            settings,
        }
    }

    /// Gives it a job about a key.
    fn job(&mut self, work: Work) -> oneshot::Receiver<Outcome> {
        let (job, answer) = Job::new(work, Instant::now() + Duration::from_secs(60));
        self.session.send(job, 1);
        answer
    }

    fn mac(&mut self, key: &Arc<TokenKey>) -> oneshot::Receiver<Outcome> {
        self.job(Work::Mac {
            key: Arc::clone(key),
            message: Bytes::from_static(b"x"),
        })
    }

    /// It says this.
    fn says(&mut self, frame: from_host::Frame) -> Result<(), HostExit> {
        let mut said = BytesMut::new();
        write_frame(&FromHost { frame: Some(frame) }, &mut said);
        let inbox = &mut self.session.process.inbox;
        inbox.space().extend_from_slice(&said);
        let context = HostContext {
            settings: &self.settings,
            queue: &self.queue,
            member: 0,
            share: &SessionShare::new(1, 1),
            metrics: &TokenMetrics::default(),
        };
        self.session.take_answers(&context)
    }

    fn opens(&mut self, key: &TokenKey, check_value: Bytes) -> Result<(), HostExit> {
        self.says(from_host::Frame::KeyOpened(KeyOpened {
            reference: key.reference(),
            check_value,
        }))
    }
}

/// Security: it was told which check value the key has, and takes another key for it.
#[tokio::test]
async fn a_host_that_opens_a_key_with_another_check_value_than_it_was_told_is_ended() {
    let key = key(Some(value(1, 32)));
    let mut host = Idle::new();
    let _answer = host.mac(&key);
    host.opens(&key, value(1, 32)).unwrap();
    let exit = host.opens(&key, value(2, 32)).unwrap_err();
    assert!(exit.accident && exit.class == host::FaultClass::Bug);
    assert!(key.failure().is_none(), "the key is as good as before");
}

/// Security: an empty one would be trusted, and no host would ever compare.
#[tokio::test]
async fn a_check_value_of_wrong_length_is_nobody_s() {
    for length in [0, 31, 64] {
        let key = key(None);
        let mut host = Idle::new();
        let _answer = host.mac(&key);
        host.opens(&key, value(1, length)).unwrap_err();
        assert!(key.check_value().is_none());
    }
}

#[tokio::test]
async fn a_host_that_could_not_know_the_check_value_loses_the_key_and_goes_on() {
    let key = key(None);
    let mut host = Idle::new();
    let _answer = host.mac(&key);
    key.verify_check_value(value(1, 32).into(), 0, HOST + 1);
    host.opens(&key, value(2, 32)).unwrap();
    assert!(host.session.was_taken(&key));
    assert!(key.failure().unwrap().contains("another key"));
}

#[tokio::test]
async fn facts_with_another_check_value_are_believed_of_no_host() {
    let key = key(Some(value(1, 32)));
    let mut host = Idle::new();
    let mut answer = host.job(Work::Describe {
        key: Arc::clone(&key),
    });
    let facts = host::KeyFacts {
        check_value: value(2, 32),
        ..host::KeyFacts::default()
    };
    let said = host.says(from_host::Frame::Answer(host::Answer {
        generation: HOST,
        slot: 0,
        sequence: 1,
        took_us: 0,
        outcome: Some(host::answer::Outcome::KeyFacts(facts)),
    }));
    assert!(said.unwrap_err().accident);
    assert!(answer.try_recv().is_err(), "another host is asked");
}
