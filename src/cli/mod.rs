//! The command line.
//!
//! Promises: help that teaches, exit codes that scripts can rely on (see [`CliError`]), nothing on
//! stdout but what was asked for. Each subcommand is a file: its arguments and its `run`.

mod admin_socket;
mod audit;
mod bench;
mod bench_token;
mod check;
mod client;
mod dev;
mod error;
mod kms;
mod log_level;
mod paint;
mod policy;
mod seeds;
mod serve;
mod settings_manual;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod token;
mod token_host;
mod top;

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

pub use self::error::{CliError, ExitCodes};
use crate::{
    config::{Loaded, Settings},
    kms::DeclaredRights,
    telemetry,
};

/// Runs what the arguments say; the first of them is the program's name.
///
/// # Errors
/// [`CliError`] for everything but success; [`CliError::Arguments`] stands for `--help` and
/// `--version` too.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Result<(), CliError> {
    let arguments: Vec<OsString> = arguments.collect();
    let verbs = if arguments.get(1).is_some_and(|verb| verb == "kms") {
        ExitCodes::Aws
    } else {
        ExitCodes::Sysexits
    };
    let cli = Cli::try_parse_from(arguments).map_err(|error| CliError::Arguments(error, verbs))?;
    match cli.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Kms(arguments) => kms::run(arguments),
        Command::Bench(BenchCommand::Token(arguments)) => bench_token::run(&arguments),
        Command::Bench(BenchCommand::Grpc(arguments)) => bench::grpc::run(&arguments),
        Command::Bench(BenchCommand::Aws(arguments)) => bench::aws::run(&arguments),
        Command::Token(TokenCommand::Unlock(arguments)) => token::unlock(&arguments),
        Command::Token(TokenCommand::Kick(arguments)) => token::kick(&arguments),
        Command::Policy(PolicyCommand::Simulate(arguments)) => policy::simulate(&arguments),
        Command::Store(StoreCommand::Check(arguments)) => store::check(&arguments),
        Command::Store(StoreCommand::Backup(arguments)) => store::backup(&arguments),
        Command::Store(StoreCommand::Restore(arguments)) => store::restore(&arguments),
        Command::Store(StoreCommand::Confirm(arguments)) => store::confirm(&arguments),
        Command::Audit(AuditCommand::Verify(arguments)) => audit::verify(&arguments),
        Command::Audit(AuditCommand::Tail(arguments)) => audit::tail(&arguments),
        Command::Audit(AuditCommand::Export(arguments)) => audit::export(&arguments),
        Command::Audit(AuditCommand::Prove(arguments)) => audit::prove(&arguments),
        Command::LogLevel(arguments) => log_level::run(&arguments),
        Command::Completions { shell } => completions(shell),
        Command::Man { dir: None } => man(),
        Command::Man { dir: Some(dir) } => man_pages(&dir),
        Command::TokenHost(arguments) => token_host::run(&arguments),
        Command::TokenProvision(arguments) => token_host::provision(&arguments),
    }
}

/// HMACs made inside a PKCS#11 token, over gRPC and AWS's own wire, with AWS KMS's contract.
///
/// hsmac stands between services and an HSM: a client sends a message and a key ID, the token makes
/// the MAC, the key never leaves it.
#[derive(Debug, Parser)]
#[command(name = "hsmac", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  hsmac dev                    try it: a SoftHSM token, a key, a server
  hsmac kms generate-mac --key-id alias/demo --message 'Hello World' \\
      --mac-algorithm HMAC_SHA_256
  hsmac check && hsmac serve   with /etc/hsmac/hsmac.toml

Exit codes: 0 done; 64 usage; 69 token or store away; 70 a bug of hsmac;
78 configuration.
`hsmac policy simulate` ends with 1 if the answer is no, `hsmac status` if
hsmac is not ready.
`hsmac kms` ends as `aws` does: 252 usage, 254 service error,
255 not reachable.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve MACs over gRPC, and to AWS's clients if `[aws]` is set, until SIGTERM.
    ///
    /// Reads the configuration, starts a host process for each token, listens. What only an edit of
    /// the configuration cures ends it with 78, all faults at once; a token that is away does not:
    /// hsmac says NOT_SERVING and keeps trying.
    #[command(after_help = "\
Examples:
  hsmac serve --config /etc/hsmac/hsmac.toml
  hsmac serve --config hsmac.toml --set grpc.listen=127.0.0.1:50052 \\
      --set log.level=debug
  HSMAC__LOG__FORMAT=json hsmac serve --config hsmac.toml")]
    Serve(serve::Arguments),

    /// Look at configuration, tokens and keys, and explain what is wrong.
    ///
    /// Loads each module, logs in once, makes a MAC with each declared key and prints the check
    /// values to pin. Ends with 0, 78 (edit the configuration) or 69 (a token is away).
    #[command(after_help = "\
Example:
  hsmac check --config /etc/hsmac/hsmac.toml")]
    Check(check::Arguments),

    /// Say how a running hsmac is: ready or why not, tokens, keys in trouble, what comes, what failed.
    ///
    /// Asks the socket of operators (`[admin] socket`), which answers while tokens hang. Asks no token and
    /// changes nothing.
    #[command(after_help = status::EXAMPLES)]
    Status(status::Arguments),

    /// Look at a running hsmac, each second anew: calls, times, tokens, hosts, faults.
    ///
    /// Asks the socket of operators, as `hsmac status` does, once a second.
    #[command(after_help = top::EXAMPLES)]
    Top(top::Arguments),

    /// Make a SoftHSM token with a demo key, and serve it: for trying out and for tests.
    ///
    /// Loopback only; callers of gRPC need no proof, AWS's clients sign with the access key of AWS's
    /// documentation; both may do everything. Account 000000000000, region us-east-1. The folder
    /// holds an ordinary hsmac.toml to learn from; a second start uses what is there.
    #[command(after_help = "\
Examples:
  hsmac dev
  hsmac dev --dir /tmp/try --grpc 127.0.0.1:50052")]
    Dev(dev::Arguments),

    /// Call a server: verbs, flags and output are those of `aws kms`.
    Kms(kms::Arguments),

    /// Measure how fast a token or a server is.
    #[command(subcommand)]
    Bench(BenchCommand),

    /// Look after a token.
    #[command(subcommand)]
    Token(TokenCommand),

    /// Find out who may do what, and why.
    #[command(subcommand)]
    Policy(PolicyCommand),

    /// Look after the catalogue: check it, copy it, bring a copy back.
    #[command(subcommand)]
    Store(StoreCommand),

    /// Verify, print and prove the log of who did what.
    #[command(subcommand)]
    Audit(AuditCommand),

    /// Show what a running hsmac logs, or have it log more or less for a time.
    ///
    /// Asks it through its socket for operators, `[admin] socket`. The level ends by itself; log.level and
    /// a reload change it for good.
    #[command(after_help = "\
Examples:
  hsmac log-level
  hsmac log-level debug --for 10m
  hsmac log-level info,hsmac::token=debug --socket /run/hsmac/admin.sock
  hsmac log-level --end")]
    LogLevel(log_level::Arguments),

    /// Print the completions of a shell.
    #[command(after_help = "\
Example:
  hsmac completions bash > /etc/bash_completion.d/hsmac")]
    Completions {
        /// Whose completions.
        shell: Shell,
    },

    /// Print the man page, or write one for each command into a folder.
    #[command(after_help = "\
Examples:
  hsmac man | man -l -
  hsmac man --dir /usr/local/share/man/man1")]
    Man {
        /// The folder for hsmac.1, hsmac-serve.1 and so on, and hsmac.toml.5. It must be there.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },

    /// A token's host process; `serve` starts it, its socket is its stdin.
    #[command(hide = true)]
    TokenHost(token_host::Arguments),

    /// Makes a token for `dev` and for tests, in a process of its own.
    #[command(hide = true)]
    TokenProvision(token_host::ProvisionArguments),
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Measure the token alone, in this process: what the hardware gives without hsmac.
    Token(bench_token::Arguments),
    /// Measure a server over gRPC: calls per second, latencies, this process's own CPU share.
    #[command(after_help = bench::grpc::EXAMPLES)]
    Grpc(bench::grpc::Arguments),
    /// Measure a server as AWS's clients see it: HTTP/1.1, each request signed.
    #[command(after_help = bench::aws::EXAMPLES)]
    Aws(bench::aws::Arguments),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Let hsmac try the PIN again after the token refused it.
    ///
    /// After a refused PIN hsmac does not log in any more until the PIN file changes, because tokens
    /// lock themselves after a few wrong tries. This forgets the refusal; correct the PIN first.
    #[command(after_help = "\
Example:
  hsmac token unlock primary --config /etc/hsmac/hsmac.toml")]
    Unlock(token::UnlockArguments),

    /// Let hsmac ask a token now that is away.
    ///
    /// A token that is away is asked again after pauses that grow to 30 s. This ends the pause. A PIN
    /// that was refused is not tried by it.
    #[command(after_help = "\
Example:
  hsmac token kick primary --config /etc/hsmac/hsmac.toml")]
    Kick(token::KickArguments),
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Say whether a principal may do something, which statement decides, or what is missing.
    ///
    /// Decides as the server does, from the configuration and from the store as it is now. Asks no
    /// token and no network, changes nothing, and may run while hsmac serves. Rights alone: a key
    /// that is disabled is noted.
    #[command(after_help = policy::EXAMPLES)]
    Simulate(policy::SimulateArguments),
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Examine the catalogue, page by page and record by record.
    ///
    /// Says what is in it, which process uses it, and whether a restore waits to be confirmed. Writes
    /// nothing and disturbs nobody, so it may run while hsmac serves. Ends with 0, 78 (damaged, of a
    /// newer version, not a catalogue) or 69 (the disk refuses).
    #[command(after_help = "\
Example:
  hsmac store check --config /etc/hsmac/hsmac.toml")]
    Check(store::CheckArguments),

    /// Copy the catalogue to a new file, while hsmac serves or not.
    ///
    /// The copy is the catalogue at one moment, examined and synced before this ends, mode 0600. A file
    /// that is there already is not touched. Keys are not in it: they never leave the token, and the
    /// token's own backup must be of the same time or later.
    #[command(after_help = "\
Example:
  hsmac store backup /backup/catalogue-$(date +%F).db")]
    Backup(store::BackupArguments),

    /// Put a backup in the catalogue's place. hsmac must not be running.
    ///
    /// The catalogue that was there is kept beside it (….before-restore-TIME). What comes out of a
    /// backup may be long out of date: keys that were disabled since would be enabled again, grants
    /// that were revoked would be back. So hsmac opens it with every key disabled and holds deletions
    /// that are due, until `hsmac store confirm`.
    #[command(after_help = "\
Example:
  systemctl stop hsmac
  hsmac store restore /backup/catalogue-2026-01-31.db
  systemctl start hsmac       # look at the keys: none of them serves yet
  systemctl stop hsmac
  hsmac store confirm --config /etc/hsmac/hsmac.toml
  systemctl start hsmac")]
    Restore(store::RestoreArguments),

    /// Let keys serve again after a restore. hsmac must not be running.
    ///
    /// From its next start on, keys are enabled or disabled as the backup has them, and deletions
    /// whose time has come are carried out. Look first, with hsmac serving: `hsmac kms list-keys`.
    #[command(after_help = "\
Example:
  hsmac store confirm --config /etc/hsmac/hsmac.toml")]
    Confirm(store::ConfirmArguments),
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Read a whole audit log and say whether it is as it was written.
    ///
    /// Checks every record, that none is missing, and that the tree is what each checkpoint says. Prints the
    /// newest checkpoint: whoever keeps it elsewhere finds any later change of what was there by then. May run
    /// while hsmac serves. Ends with 0, or 1 if something is wrong.
    #[command(after_help = "\
Examples:
  hsmac audit verify /var/lib/hsmac/audit
  hsmac audit verify /var/lib/hsmac/audit --since checkpoint-of-monday
  hsmac audit verify /var/lib/hsmac/audit --seals --config hsmac.toml")]
    Verify(audit::VerifyArguments),

    /// Print the newest calls of an audit log, one a line, and those that come.
    ///
    /// Begins with the last ten; colours on a terminal. Ends with Ctrl-C, or `--no-follow`.
    #[command(after_help = "\
Examples:
  hsmac audit tail /var/lib/hsmac/audit
  hsmac audit tail /var/lib/hsmac/audit --outcome failed -n 50
  hsmac audit tail /var/lib/hsmac/audit --principal user/billing --no-follow")]
    Tail(audit::TailArguments),

    /// Print the calls of an audit log, a JSON object a line.
    ///
    /// In the form of AWS CloudTrail's events, with each record's place in the tree. May run while hsmac serves.
    #[command(after_help = "\
Examples:
  hsmac audit export /var/lib/hsmac/audit --outcome AccessDeniedException
  hsmac audit export /var/lib/hsmac/audit --format json --from 1000")]
    Export(audit::ExportArguments),

    /// Print the proof that a record is in an audit log (RFC 6962).
    #[command(after_help = "\
Example:
  hsmac audit prove /var/lib/hsmac/audit 1234")]
    Prove(audit::ProveArguments),
}

/// Which configuration.
#[derive(Args, Debug)]
struct Configuration {
    /// The configuration file (TOML). Default: $HSMAC_CONFIG, else /etc/hsmac/hsmac.toml.
    #[arg(long, value_name = "FILE", default_value_os_t = usual_configuration(), hide_default_value = true)]
    config: PathBuf,
    /// Override a setting, over file and environment (HSMAC__SECTION__KEY); may be given again.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl Configuration {
    /// # Errors
    /// [`CliError::Config`], with every fault there is.
    fn load(&self) -> Result<Loaded, CliError> {
        let loaded = Settings::load(&self.config, &self.set, environment());
        loaded.map_err(|faults| {
            let fault = CliError::from(faults);
            if self.config.exists() {
                fault
            } else {
                fault.then(
                    "name another file with --config FILE, or try hsmac without one: hsmac dev",
                )
            }
        })
    }

    /// How to log, whatever is wrong with the rest.
    fn log(&self) -> telemetry::Settings {
        Settings::log_settings(&self.config, &self.set, environment())
    }

    /// Loads the settings and the policies alone: not modules, PINs and other secrets.
    ///
    /// # Errors
    /// [`CliError::Config`], with every fault there is.
    fn load_policies(&self) -> Result<(Settings, DeclaredRights), CliError> {
        Ok(Settings::load_policies(
            &self.config,
            &self.set,
            environment(),
        )?)
    }
}

fn usual_configuration() -> PathBuf {
    let named = env::var_os("HSMAC_CONFIG").filter(|path| !path.is_empty());
    named.map_or_else(|| "/etc/hsmac/hsmac.toml".into(), PathBuf::from)
}

fn environment() -> impl Iterator<Item = (String, String)> {
    // `env::vars` would panic at a variable that is no UTF-8, even one that hsmac does not use.
    env::vars_os().filter_map(|(name, value)| {
        Some((
            name.into_string().ok()?,
            value.to_string_lossy().into_owned(),
        ))
    })
}

fn completions(shell: Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hsmac", &mut script);
    print(&script)
}

/// One page for all commands: hsmac(1), then each subcommand.
fn man() -> Result<(), CliError> {
    let mut root = Cli::command();
    root.build();
    let mut page = Vec::new();
    render(&root, &mut page)?;
    print(&page)
}

/// hsmac.1, a page for each command such as hsmac-store-restore.1, and hsmac.toml.5.
fn man_pages(dir: &Path) -> Result<(), CliError> {
    let root = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(root, dir)
        .and_then(|()| fs::write(dir.join("hsmac.toml.5"), settings_manual::page()))
        .map_err(|error| CliError::Usage(format!("{}: {error}", dir.display())))
}

fn render(command: &clap::Command, page: &mut Vec<u8>) -> Result<(), CliError> {
    clap_mangen::Man::new(command.clone())
        .render(page)
        .map_err(|error| CliError::Bug(error.to_string()))?;
    command
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
        .try_for_each(|verb| render(verb, page))
}

/// Writes to stdout. A closed pipe (`hsmac man | head`) is not an error.
///
/// # Errors
/// [`CliError::Bug`]: stdout cannot be written.
fn print(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::Bug(format!("cannot write to stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
