//! A token host: the child process that holds one PKCS#11 module, its sessions and the PIN.
//!
//! Hides: everything of PKCS#11. Promises: one C_Initialize and one C_Login in its life; a MAC is
//! made with a proved key by C_SignInit and C_Sign; what a fresh session cannot cure ends the
//! process, and its front starts another. Does not: retry a PIN, heal in place, talk to anybody but
//! the front, whose end of the socket is this process's stdin.
//!
//! Threads: the main thread manages (login, searches, on the login session); each session has a
//! thread that takes jobs from the socket itself, so that there is no hand-over on the way of a
//! MAC; one thread watches the socket and ends the process at once when the front is gone.

#[cfg(all(feature = "drill-unbound-handles", not(debug_assertions)))]
compile_error!("drill-unbound-handles makes MACs with wrong keys: it is for one drill alone");

mod error;
mod front;
mod host_key;
mod keys;
mod login_session;
mod measure;
mod module;
mod objects;
mod output;
mod pin;
mod provision;
mod raw;
mod runtime;
mod search;
mod session;
mod tasks;
mod templates;
mod token_info;
mod witness;
mod work_session;

use std::{
    io,
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cryptoki::session::Session;
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit},
};

pub use measure::{Bench, Measurement};
pub use provision::{NewKey, Provision, provision};

use self::{
    error::{Class, HostError},
    front::FrontConnection,
    keys::{Keys, WorkingCopies},
    module::Module,
    output::OutputFilter,
    pin::Pins,
    runtime::HostRuntime,
    tasks::TaskQueue,
    templates::AcceptedTemplates,
    witness::Witness,
};
use crate::{
    host_ipc::{BUILD_ID, InFlightTable, Inbox},
    proto::host::{
        Failed, Hello, LogIn, LoggedIn, LoginMode, Ready, Settings, TokenFound, from_host, to_host,
    },
};

/// Why a lock is never poisoned.
const UNPOISONED: &str = "nobody panics while holding a lock of the host";

/// How long a planned end may try to be tidy.
const TIDY: Duration = Duration::from_secs(1);
/// How long a change of the token that is under way, or a login, may go on when the front is gone. Hosts
/// are gone within a second of their front.
const LAST_CHANGE: Duration = Duration::from_millis(900);

/// `hsmac token-host`: serves the front at the other end of stdin until it hangs up.
///
/// # Errors
/// Stdin is no front's socket, or the front breaks the wire's rules.
pub fn run() -> io::Result<()> {
    // What `ps -C`, `pgrep` and `top` show; the kernel would call it "exe", after /proc/self/exe.
    #[cfg(target_os = "linux")]
    rustix::thread::set_name(c"hsmac-host")?;
    harden()?;
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let in_flight = InFlightTable::receive(&socket).map_err(|error| {
        io::Error::other(format!(
            "stdin is no front ({error}); hsmac starts this command itself"
        ))
    })?;
    let ended = Arc::new(OnceLock::new());
    let changing = Arc::new(AtomicBool::new(false));
    watch(
        socket.try_clone()?,
        Arc::clone(&ended),
        Arc::clone(&changing),
    );

    let mut front = FrontConnection {
        socket,
        inbox: Inbox::default(),
    };
    let to_host::Frame::Settings(settings) = front.next()? else {
        return Err(io::Error::other("the front did not begin with settings"));
    };
    front.send(from_host::Frame::Hello(Hello {
        build_id: BUILD_ID.to_owned(),
    }))?;
    let output = OutputFilter::install()?;
    let result = match start(&mut front, &settings, &output, &changing) {
        Ok(started) => manage(front, settings, in_flight, started, ended, changing),
        Err(failed_start) => {
            let FailedStart { failed, module } = *failed_start;
            let sent = front.send(from_host::Frame::Failed(failed));
            // Whatever was begun is ended: tokens count clients that go without a word.
            let _ = ended.set(Instant::now());
            if let Some(module) = module {
                module.finalize();
            }
            sent
        }
    };
    drop(output);
    result
}

/// What a start yields: the module, the login session, and the sessions that will serve.
struct Started {
    module: Module,
    login_session: Session,
    sessions: Vec<Session>,
}

/// What a start that came to nothing leaves: the last word, and a module to finalise.
struct FailedStart {
    failed: Failed,
    module: Option<Module>,
}

fn start(
    front: &mut FrontConnection,
    settings: &Settings,
    output: &OutputFilter,
    changing: &AtomicBool,
) -> Result<Started, Box<FailedStart>> {
    let fail = |failed, module| Box::new(FailedStart { failed, module });
    if settings.build_id != BUILD_ID {
        let error = HostError::new(
            Class::Configuration,
            "the hsmac binary was replaced while hsmac runs: restart hsmac",
        );
        return Err(fail(failed(error), None));
    }
    let (mut module, found) = Module::start(settings).map_err(|error| fail(failed(error), None))?;
    match get_ready(front, settings, output, changing, &mut module, found) {
        Ok((login_session, sessions)) => Ok(Started {
            module,
            login_session,
            sessions,
        }),
        Err(failed) => Err(fail(failed, Some(module))),
    }
}

/// From the module's start to sessions that serve.
fn get_ready(
    front: &mut FrontConnection,
    settings: &Settings,
    output: &OutputFilter,
    changing: &AtomicBool,
    module: &mut Module,
    found: TokenFound,
) -> Result<(Session, Vec<Session>), Failed> {
    if settings.login() == LoginMode::Unspecified && found.login_required {
        return Err(failed(HostError::new(
            Class::Configuration,
            "the token wants a PIN (CKF_LOGIN_REQUIRED): set pin_file, or login = \"none\"",
        )));
    }
    front
        .send(from_host::Frame::TokenFound(found))
        .map_err(broken)?;
    let (pins, log_in) = told_to_log_in(front, settings, output)?;
    let login_session = module.open_session().map_err(failed)?;
    changing.store(true, Ordering::SeqCst);
    let logged_in = module.log_in(&login_session, pins.pin(log_in.pin));
    changing.store(false, Ordering::SeqCst);
    logged_in.map_err(|login| Failed {
        login: Some(login.failure),
        ..failed(login.error)
    })?;
    // The PIN was taken, whatever comes next.
    front
        .send(from_host::Frame::LoggedIn(LoggedIn {}))
        .map_err(broken)?;
    drop(pins);
    module.examine(&login_session).map_err(failed)?;
    let sessions = module.open_sessions(log_in.sessions).map_err(failed)?;
    let ready = ready(module, &sessions, settings);
    front.send(from_host::Frame::Ready(ready)).map_err(broken)?;
    Ok((login_session, sessions))
}

/// Waits until the front lets this host log in; it may have the PINs fingerprinted before.
fn told_to_log_in(
    front: &mut FrontConnection,
    settings: &Settings,
    output: &OutputFilter,
) -> Result<(Pins, LogIn), Failed> {
    let mut pins = Pins::default();
    loop {
        match front.next().map_err(broken)? {
            to_host::Frame::ReadPins(read_pins) => {
                let (read, told) = Pins::read(settings, &read_pins.salts);
                // Security: before the module can have seen a PIN.
                output.hide(&read.all());
                pins = read;
                front
                    .send(from_host::Frame::PinsRead(told))
                    .map_err(broken)?;
            }
            to_host::Frame::LogIn(log_in) => {
                if settings.login() == LoginMode::Pin && pins.pin(log_in.pin).is_none() {
                    let reason = "the front wants a login with a PIN that was not read";
                    return Err(failed(HostError::new(Class::Bug, reason)));
                }
                return Ok((pins, log_in));
            }
            to_host::Frame::Settings(_)
            | to_host::Frame::Job(_)
            | to_host::Frame::DefineKey(_)
            | to_host::Frame::ForgetKey(_)
            | to_host::Frame::End(_) => {
                let reason = "the front did not let this host log in";
                return Err(failed(HostError::new(Class::Bug, reason)));
            }
        }
    }
}

fn ready(module: &Module, sessions: &[Session], settings: &Settings) -> Ready {
    let mut warnings = Vec::new();
    if (sessions.len() as u64) < u64::from(settings.sessions) {
        warnings.push(format!(
            "the token allows {} of the {} sessions that are set",
            sessions.len(),
            settings.sessions
        ));
    }
    Ready {
        sessions: u32::try_from(sessions.len()).unwrap_or(u32::MAX),
        two_calls: module.has_two_calls(),
        digest_bits: module
            .algorithms()
            .iter()
            .map(|algorithm| algorithm.digest_bits())
            .collect(),
        module: module.describe(),
        warnings,
    }
}

fn failed(error: HostError) -> Failed {
    Failed {
        fault: Some(error.fault()),
        login: None,
        no_session: error.class == Class::SessionLimit,
    }
}

fn broken(error: io::Error) -> Failed {
    failed(HostError::new(Class::Bug, error.to_string()))
}

/// Serves jobs until the end, then closes the sessions and finalises, for a second at most.
fn manage(
    front: FrontConnection,
    settings: Settings,
    in_flight: InFlightTable,
    started: Started,
    ended: Arc<OnceLock<Instant>>,
    changing: Arc<AtomicBool>,
) -> io::Result<()> {
    let Started {
        module,
        login_session,
        sessions,
    } = started;
    let copies = if settings.working_copies {
        WorkingCopies::Reproved(Duration::from_millis(settings.reprove_interval_ms))
    } else {
        WorkingCopies::None
    };
    let host = Arc::new(HostRuntime {
        module,
        keys: Keys::new(copies),
        templates: AcceptedTemplates::default(),
        sessions: sessions
            .into_iter()
            .map(|session| Mutex::new(Some(session)))
            .collect(),
        generation: settings.generation,
        call_timeout: Duration::from_millis(settings.call_timeout_ms),
        slow_timeout: Duration::from_millis(settings.slow_timeout_ms),
        in_flight,
        writer: Mutex::new(front.socket.try_clone()?),
        reader: Mutex::new(front),
        tasks: TaskQueue::default(),
        witness: Witness::new(&settings.state_dir),
        served: AtomicU64::new(0),
        ended,
        changing,
    });
    let mut threads = Vec::new();
    for (index, _) in (1..).zip(&host.sessions) {
        let host = Arc::clone(&host);
        let name = format!("session-{index}");
        threads.push(
            thread::Builder::new()
                .name(name)
                .spawn(move || host.serve(index))?,
        );
    }
    host.manage(&login_session);

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
    if let Some(host) = Arc::into_inner(host) {
        // The login session outlives every other one.
        drop(host.sessions);
        drop(login_session);
        host.module.finalize();
    }
    Ok(())
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
fn watch(socket: UnixStream, ended: Arc<OnceLock<Instant>>, changing: Arc<AtomicBool>) {
    thread::spawn(move || {
        #[cfg(target_os = "linux")]
        let gone = PollFlags::RDHUP | PollFlags::HUP;
        #[cfg(not(target_os = "linux"))]
        let gone = PollFlags::HUP;
        while let Ok(0) | Err(rustix::io::Errno::INTR) =
            poll(&mut [PollFd::new(&socket, gone)], None)
        {}
        if ended.get().is_some() {
            thread::sleep(TIDY + TIDY);
        }
        // What the module writes it may write to its end: SoftHSM2 killed in a creation leaves an object
        // without a single attribute, and in a login, which it notes in the token, a token that nobody
        // can read any more.
        let until = Instant::now() + LAST_CHANGE;
        while changing.load(Ordering::SeqCst) && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
        // Not `exit`: a vendor library's exit handlers may hang as its calls do.
        let _ = kill_process(getpid(), Signal::KILL);
    });
}
