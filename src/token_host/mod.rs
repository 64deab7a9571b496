//! A token host: the child process that holds one PKCS#11 module, its sessions and the PIN.
//!
//! Hides: everything of PKCS#11. Promises: one C_Initialize and one C_Login in its life; a MAC is
//! made with a proved key by C_SignInit and C_Sign; what a fresh session cannot cure ends the
//! process, and its front starts another. Does not: retry a PIN, heal in place, talk to anybody but
//! the front, whose end of the socket is this process's stdin.
//!
//! Threads: the main thread manages (login, searches, on the keeper session); each session has a
//! thread that takes jobs from the socket itself, so that there is no hand-over on the way of a
//! MAC; one thread watches the socket and ends the process at once when the front is gone.

#[cfg(all(feature = "drill-unbound-handles", not(debug_assertions)))]
compile_error!("drill-unbound-handles makes MACs with wrong keys: it is for one drill alone");

mod faults;
mod jobs;
mod keys;
mod measure;
mod module;
mod objects;
mod provision;
mod raw;

use std::{
    io::{self, Read as _, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{Arc, Mutex, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit},
};

pub use measure::{Measurement, measure};
pub use provision::{NewKey, Provision, provision};

use self::{
    faults::{Class, Trouble},
    jobs::Host,
    keys::{Copies, Keys},
    module::Module,
    objects::Templates,
};
use crate::{
    proto::host::{Failed, FromHost, Hello, Ready, Settings, ToHost, from_host, to_host},
    wire::{BUILD_ID, Board, Inbox, put},
};

/// How long a planned end may try to be tidy.
const TIDY: Duration = Duration::from_secs(1);

/// `hsmac token-host`: serves the front at the other end of stdin until it hangs up.
///
/// # Errors
/// Stdin is no front's socket, or the front breaks the wire's rules.
pub fn run() -> io::Result<()> {
    harden()?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let board = Board::receive(&socket).map_err(|error| {
        io::Error::other(format!(
            "stdin is no front ({error}); hsmac starts this command itself"
        ))
    })?;
    let over = Arc::new(OnceLock::new());
    watch(socket.try_clone()?, Arc::clone(&over));

    let mut front = Front {
        socket,
        inbox: Inbox::default(),
    };
    let to_host::Frame::Settings(settings) = front.next()? else {
        return Err(io::Error::other("the front did not begin with settings"));
    };
    front.say(from_host::Frame::Hello(Hello {
        build_id: BUILD_ID.to_owned(),
    }))?;
    match start(&mut front, &settings) {
        Ok(started) => manage(front, settings, board, started, over),
        Err(trouble) => front.say(from_host::Frame::Failed(Failed {
            fault: Some(trouble.fault()),
        })),
    }
}

/// What a start yields: the module, the keeper session, and the sessions that will serve.
struct Started {
    module: Module,
    keeper: cryptoki::session::Session,
    sessions: Vec<cryptoki::session::Session>,
}

fn start(front: &mut Front, settings: &Settings) -> Result<Started, Trouble> {
    let wire = |error: io::Error| Trouble::new(Class::Bug, error.to_string());
    if settings.build_id != BUILD_ID {
        return Err(Trouble::new(
            Class::Configuration,
            "the hsmac binary was replaced while hsmac runs: restart hsmac",
        ));
    }
    let (mut module, found) = Module::start(settings)?;
    front
        .say(from_host::Frame::TokenFound(found))
        .map_err(wire)?;
    let to_host::Frame::LogIn(_) = front.next().map_err(wire)? else {
        return Err(Trouble::new(
            Class::Bug,
            "the front did not let this host log in",
        ));
    };
    let keeper = module.log_in(&settings.pin_file)?;
    let sessions = module.open_sessions(settings.sessions)?;
    let mut warnings = Vec::new();
    if (sessions.len() as u64) < u64::from(settings.sessions) {
        warnings.push(format!(
            "the token allows {} of the {} sessions that are set",
            sessions.len(),
            settings.sessions
        ));
    }
    let ready = Ready {
        sessions: u32::try_from(sessions.len()).unwrap_or(u32::MAX),
        two_calls: module.has_two_calls(),
        digest_bits: module
            .algorithms()
            .iter()
            .map(|algorithm| algorithm.digest_bits())
            .collect(),
        module: module.describe(),
        warnings,
    };
    front.say(from_host::Frame::Ready(ready)).map_err(wire)?;
    Ok(Started {
        module,
        keeper,
        sessions,
    })
}

/// Serves jobs until the end, then closes the sessions and finalises, for a second at most.
fn manage(
    front: Front,
    settings: Settings,
    board: Board,
    started: Started,
    over: Arc<OnceLock<Instant>>,
) -> io::Result<()> {
    let Started {
        module,
        keeper,
        sessions,
    } = started;
    let (tasks, inbox) = mpsc::channel();
    let copies = if settings.working_copies {
        Copies::Reproved(Duration::from_millis(settings.reprove_interval_ms))
    } else {
        Copies::None
    };
    let host = Arc::new(Host {
        module,
        keys: Keys::new(copies),
        templates: Templates::default(),
        generation: settings.generation,
        call_timeout: Duration::from_millis(settings.call_timeout_ms),
        slow_timeout: Duration::from_millis(settings.slow_timeout_ms),
        board,
        outlet: Mutex::new(front.socket.try_clone()?),
        intake: Mutex::new(front),
        tasks,
        over,
    });
    let mut threads = Vec::new();
    for (index, session) in (1..).zip(sessions) {
        let host = Arc::clone(&host);
        let name = format!("session-{index}");
        threads.push(
            thread::Builder::new()
                .name(name)
                .spawn(move || host.serve(session, index))?,
        );
    }
    host.manage(&keeper, &inbox);

    // Nobody takes a job any more; a thread inside a vendor call cannot be waited for.
    let until = Instant::now() + TIDY;
    while !threads.iter().all(thread::JoinHandle::is_finished) {
        if Instant::now() > until {
            return Ok(());
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    for thread in threads {
        let _ = thread.join();
    }
    drop(keeper);
    if let Some(host) = Arc::into_inner(host) {
        host.module.finalize();
    }
    Ok(())
}

/// The front's end of the socket, while one thread alone uses it.
struct Front {
    socket: UnixStream,
    inbox: Inbox,
}

impl Front {
    fn next(&mut self) -> io::Result<to_host::Frame> {
        loop {
            if let Some(frame) = self.inbox.take::<ToHost>().map_err(io::Error::other)? {
                return frame
                    .frame
                    .ok_or_else(|| io::Error::other("an empty frame"));
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.socket.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.inbox.space().extend_from_slice(&chunk[..length]);
                Ok(())
            }
        }
    }

    fn say(&mut self, frame: from_host::Frame) -> io::Result<()> {
        let mut out = BytesMut::new();
        put(&FromHost { frame: Some(frame) }, &mut out);
        self.socket.write_all(&out)
    }
}

/// No core dump, no debugger, no early end: this process will hold the PIN.
fn harden() -> io::Result<()> {
    // Security: before the PIN is read, nobody else may read this process's memory.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    // A terminal's Ctrl-C and a service manager's SIGTERM are for the front; it ends its hosts.
    let ignored = Arc::default();
    for signal in [
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
    ] {
        signal_hook::flag::register(signal, Arc::clone(&ignored))?;
    }
    Ok(())
}

/// Ends this process when the front is gone, even while a vendor call is stuck.
fn watch(socket: UnixStream, over: Arc<OnceLock<Instant>>) {
    thread::spawn(move || {
        #[cfg(target_os = "linux")]
        let gone = PollFlags::RDHUP | PollFlags::HUP;
        #[cfg(not(target_os = "linux"))]
        let gone = PollFlags::HUP;
        while let Ok(0) | Err(rustix::io::Errno::INTR) =
            poll(&mut [PollFd::new(&socket, gone)], None)
        {}
        if over.get().is_some() {
            thread::sleep(TIDY + TIDY);
        }
        // Not `exit`: a vendor library's exit handlers may hang as its calls do.
        let _ = kill_process(getpid(), Signal::KILL);
    });
}
