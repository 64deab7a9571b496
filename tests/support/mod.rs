//! A fresh token, a real `hsmac serve` over it, and a client: what every test of the bridge needs.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod helper;
pub mod ordinary;
pub mod pki;
pub mod rights;
pub mod tls;
mod token_tool;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use hsmac::{
    proto::v1::{
        CreateKeyRequest, GenerateMacRequest, KeySpec, KeyUsage, ListKeysRequest, MacAlgorithm,
        VerifyMacRequest, key_service_client::KeyServiceClient,
        mac_service_client::MacServiceClient,
    },
    store::{self, Change, Expect, Name, Prefix, Store},
};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

pub const PIN: &str = "73219846";
pub const TOKEN: &str = "hsmac-test";
pub const CALLER: &str = "arn:aws:iam::111122223333:user/local";
/// An identity policy that allows everything.
const MAY_ALL: &str = r#"{"Statement": {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}}"#;
pub const KEY_ID: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
pub const KEY_ARN: &str =
    "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
/// The 32 bytes of the usual test key.
pub const KEY: [u8; 32] = *b"an HMAC key for tests, 32 bytes.";

/// The time limit of everything that a test waits for: it ends a hang, it measures nothing.
pub const LIMIT: Duration = Duration::from_secs(60);

const SPIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/pkcs11-spy.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so",
    "/usr/lib64/pkcs11/pkcs11-spy.so",
];

/// A folder with a token of its own, and the files of a bridge over it.
pub struct Token {
    dir: TempDir,
    module: PathBuf,
}

impl Token {
    /// A fresh token with the usual PIN and nothing in it.
    pub fn new() -> Self {
        let token = Self::empty();
        token.script(&format!("init {TOKEN} {PIN}\n"));
        token
    }

    /// A fresh token with the usual key, labelled `mac`.
    pub fn with_key() -> Self {
        let token = Self::new();
        token.import("mac", "01", &KEY);
        token
    }

    /// A place for tokens without any.
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tokens = dir.path().join("tokens");
        fs::create_dir(&tokens).unwrap();
        fs::write(
            dir.path().join("softhsm2.conf"),
            format!(
                "directories.tokendir = {}\nlog.level = ERROR\n",
                tokens.display()
            ),
        )
        .unwrap();
        let token = Self {
            dir,
            module: module(),
        };
        token.write_pin(PIN);
        fs::write(token.path("caller.json"), MAY_ALL).unwrap();
        token
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn module(&self) -> &Path {
        &self.module
    }

    /// What the fault token wraps: the module under test, unless that is the fault token itself.
    pub fn wrapped(&self) -> PathBuf {
        if self.module.file_name() == fault_module().file_name() {
            softhsm()
        } else {
            self.module.clone()
        }
    }

    pub fn write_pin(&self, pin: &str) {
        self.write_pin_file("pin", pin);
    }

    /// Puts a PIN into a file of this name.
    pub fn write_pin_file(&self, name: &str, pin: &str) {
        // Written anew and renamed, as an operator's tools do: another inode.
        let new = self.path("pin.new");
        fs::write(&new, format!("{pin}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    /// Runs lines of `token_tool.rs` and gives what it printed.
    pub fn script(&self, lines: &str) -> String {
        token_tool::script(&self.module, &self.path("softhsm2.conf"), lines)
    }

    /// Runs lines of the tool, logged in to the usual token, and gives what it printed.
    pub fn inside(&self, lines: &str) -> String {
        self.script(&format!("login {TOKEN} {PIN}\n{lines}"))
    }

    /// The objects in the usual token, each as `LABEL ID-HEX`, sorted.
    pub fn objects(&self) -> Vec<String> {
        let mut objects: Vec<String> = self.inside("objects\n").lines().map(Into::into).collect();
        objects.sort();
        objects
    }

    /// Replaces the rules of the fault token.
    pub fn rules(&self, rules: &str) {
        let new = self.path("control.new");
        fs::write(&new, format!("{rules}\n")).unwrap();
        fs::rename(new, self.path("control")).unwrap();
        // The fault token looks at most once a millisecond.
        let renamed = Instant::now();
        while renamed.elapsed() < Duration::from_millis(2) {
            std::thread::yield_now();
        }
    }

    /// What a host over the fault token needs in its environment.
    pub fn fault_environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("FAULT_TOKEN_MODULE", self.wrapped()),
            ("FAULT_TOKEN_CONTROL", self.path("control")),
            ("FAULT_TOKEN_LOG", self.path("fault.log")),
        ]
    }

    pub fn import(&self, label: &str, id: &str, value: &[u8]) {
        self.inside(&format!("generic {label} {id} {}\n", hex(value)));
    }

    /// The usual configuration: one token, one key, a Unix socket.
    pub fn config(&self) -> String {
        self.config_with(
            "hosts = 1\nsessions = 2\n",
            &declare(KEY_ID, "mac", "HMAC_256", "alias/test"),
        )
    }

    /// A configuration with the given lines in `[token.primary]` and the given keys.
    pub fn config_with(&self, token: &str, keys: &str) -> String {
        let dir = self.dir.path().display();
        let module = self.module.display();
        format!(
            r#"account = "111122223333"
region = "us-west-2"

[grpc]
listen = "unix:{dir}/grpc.sock"
anonymous = "{CALLER}"
reflection = true
# For machines with much else to do.
default_deadline = "30s"

[[principal]]
arn = "{CALLER}"
policy_file = "caller.json"

[token.primary]
uri = "pkcs11:token={TOKEN}?module-path={module}"
pin_file = "pin"
env = {{ SOFTHSM2_CONF = "{dir}/softhsm2.conf" }}
{token}
{keys}"#
        )
    }

    /// A configuration with pkcs11-spy between host and module, and where the spy writes what
    /// the module is asked.
    pub fn spied(&self, config: &str) -> (String, PathBuf) {
        let spy = spy().display();
        let (module, calls) = (self.module.display(), self.path("calls"));
        let config = config
            .replace(
                &format!("module-path={module}"),
                &format!("module-path={spy}"),
            )
            .replace(
                "env = { ",
                &format!(
                    "env = {{ PKCS11SPY = \"{module}\", PKCS11SPY_OUTPUT = \"{}\", ",
                    calls.display()
                ),
            );
        (config, calls)
    }

    /// The lines that give a configuration a store.
    pub fn store(&self) -> String {
        "[store.sqlite]\npath = \"catalogue.db\"\n".into()
    }

    /// Writes a record into the store, while no server has it.
    pub async fn write(&self, name: &str, value: serde_json::Value, expect: Expect) {
        let change = Change::new().put(Name::new(name).unwrap(), value.to_string(), expect);
        self.commit(change).await;
    }

    async fn commit(&self, change: Change) {
        let store = Store::open(&store::Settings {
            sqlite: store::SqliteSettings {
                path: self.path("catalogue.db"),
            },
        })
        .unwrap();
        store.commit(change).await.unwrap();
        store.close().await;
    }

    /// The records of the store under a prefix, by name; a server may have it meanwhile.
    pub async fn records(&self, under: &str) -> BTreeMap<String, serde_json::Value> {
        let settings = |name: &str| store::Settings {
            sqlite: store::SqliteSettings {
                path: self.path(name),
            },
        };
        let copy = format!("copy-{}.db", uuid::Uuid::new_v4());
        store::backup(&settings("catalogue.db"), &self.path(&copy)).unwrap();
        let store = Store::open(&settings(&copy)).unwrap();
        let listed = store
            .list(&Prefix::new(under).unwrap(), None, 1000)
            .await
            .unwrap();
        store.close().await;
        listed
            .into_iter()
            .map(|record| {
                let value = serde_json::from_slice(&record.value).unwrap();
                (record.name.as_str().to_owned(), value)
            })
            .collect()
    }

    /// Puts an HMAC_256 key into the store, as creation would, whose object has this CKA_ID.
    pub async fn seed(&self, key_id: &str, cka_id: &str, life: &str) {
        let (name, record) = key_record(key_id, cka_id, life);
        self.write(&name, record, Expect::Absent).await;
    }

    /// Puts so many enabled keys into the store in one transaction. Key number N has the key ID
    /// `many_id(N)`, and its object has N as CKA_ID, in 8 hex digits.
    pub async fn seed_many(&self, keys: usize) {
        let mut change = Change::new();
        for number in 0..keys {
            let (name, record) = key_record(&many_id(number), &format!("{number:08x}"), "Enabled");
            let name = Name::new(&name).unwrap();
            change = change.put(name, record.to_string(), Expect::Absent);
        }
        self.commit(change).await;
    }

    /// Starts `hsmac serve` and returns at once.
    pub fn spawn(&self, config: &str) -> Server {
        self.spawn_with(config, &[])
    }

    /// The same, with more variables in its environment.
    pub fn spawn_with(&self, config: &str, environment: &[(&str, &str)]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hsmac"));
        command.envs(environment.iter().copied());
        self.spawn_command(command, config)
    }

    /// Starts `serve` where a disk is mounted.
    pub fn spawn_on(&self, disk: &Disk, config: &str) -> Server {
        let mut command = disk.command("nsenter");
        command.arg(env!("CARGO_BIN_EXE_hsmac"));
        self.spawn_command(command, config)
    }

    /// Starts `serve` by a command that is hsmac, or becomes it with the arguments that follow.
    pub fn spawn_command(&self, mut command: Command, config: &str) -> Server {
        let file = self.path("hsmac.toml");
        fs::write(&file, config).unwrap();
        // Of a server that ran before there are lines already.
        let log_from = fs::metadata(self.path("log")).map_or(0, |log| log.len());
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        // Neither of these variables may reach a host, whose library is somebody else's code.
        let mut chosen = command.get_envs();
        if !chosen.any(|(name, _)| name == "HSMAC__LOG__FORMAT") {
            command.env("HSMAC__LOG__FORMAT", "text");
        }
        let child = command
            .args(["serve", "--config"])
            .arg(&file)
            .env("AWS_SECRET_ACCESS_KEY", "of no host's business")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Server {
            child,
            socket: self.path("grpc.sock"),
            log: self.path("log"),
            log_from: usize::try_from(log_from).unwrap(),
        }
    }

    /// Starts `hsmac serve` and waits until its token is up and its socket is there.
    pub async fn serve(&self, config: &str) -> Server {
        let mut server = self.spawn(config);
        server.until_log("the token is up").await;
        server.until_log("listening").await;
        server
    }

    /// Runs a subcommand to its end.
    pub fn hsmac(&self, args: &[&str]) -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_hsmac"))
            .args(args)
            .current_dir(self.dir.path())
            .env(
                "HSMAC_ENDPOINT",
                format!("unix:{}", self.path("grpc.sock").display()),
            )
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `hsmac check` over a configuration.
    pub fn check(&self, config: &str) -> Output {
        fs::write(self.path("hsmac.toml"), config).unwrap();
        self.hsmac(&["check", "--config", "hsmac.toml"])
    }
}

/// A small disk on a folder, in a mount namespace of its own: what is started on it sees it, and so
/// does nobody else.
pub struct Disk {
    holder: Child,
    folder: PathBuf,
}

impl Disk {
    /// A tmpfs of 64 KiB.
    pub fn on(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let script = "mount -t tmpfs -o size=64k none \"$1\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 8];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(&said, b"mounted\n");
        Self { holder, folder }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-t", &self.holder.id().to_string(), "-m", "--"]);
        command
    }

    fn run(&self, script: &str) -> Output {
        let output = self
            .command("nsenter")
            .args(["sh", "-c", script, "sh"])
            .arg(&self.folder)
            .output()
            .unwrap();
        Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Takes all room but what a file's name needs.
    pub fn fill(&self) {
        self.run("head -c 100000 /dev/zero >\"$1/ballast\"");
    }

    /// Copies what is on it to a folder that everybody sees.
    pub fn copy_to(&self, folder: &Path) {
        let script = format!("cp -a \"$1\"/. '{}'", folder.display());
        let done = self.run(&script);
        assert!(done.status.success(), "{done:?}");
    }

    /// Gives the room back.
    pub fn free(&self) {
        assert!(self.run("rm \"$1/ballast\"").status.success());
    }

    /// Lets nobody write, whatever is open meanwhile.
    pub fn read_only(&self) {
        let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\"";
        let done = self.run(script);
        assert!(done.status.success(), "{done:?}");
    }

    /// Lets everybody write again.
    pub fn writable(&self) {
        let done = self.run("umount \"$1\"");
        assert!(done.status.success(), "{done:?}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The key ID of a key of [`Token::seed_many`].
pub fn many_id(number: usize) -> String {
    format!("{number:08x}-0000-4000-8000-00000000cafe")
}

fn key_record(key_id: &str, cka_id: &str, life: &str) -> (String, serde_json::Value) {
    let account = "111122223333";
    let record = serde_json::json!({
        "key_id": key_id,
        "account": account,
        "spec": "HMAC_256",
        "origin": "AWS_KMS",
        "life": life,
        "description": "",
        "created": 1_700_000_000_123_u64,
        "tags": [],
        "policy": "",
        "check_value": null,
        "locator": { "token": "primary", "cka_id": cka_id, "label": null },
        "epoch": 1,
    });
    (format!("key/{account}/{key_id}"), record)
}

/// What a subcommand said.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A `[[key]]`.
pub fn declare(key_id: &str, label: &str, spec: &str, alias: &str) -> String {
    format!(
        "[[key]]\nkey_id = \"{key_id}\"\nobject = \"pkcs11:object={label}\"\nkey_spec = \"{spec}\"\naliases = [\"{alias}\"]\n"
    )
}

/// A running `hsmac serve`; killed when it is dropped.
pub struct Server {
    pub child: Child,
    socket: PathBuf,
    log: PathBuf,
    log_from: usize,
}

impl Server {
    pub async fn channel(&self) -> Channel {
        self.try_channel().await.unwrap()
    }

    /// A connection, or why there is none: the server may be gone.
    pub async fn try_channel(&self) -> Result<Channel, tonic::transport::Error> {
        let socket = self.socket.clone();
        tonic::transport::Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(move |_| {
                let socket = socket.clone();
                async move {
                    Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(
                        UnixStream::connect(socket).await?,
                    ))
                }
            }))
            .await
    }

    pub async fn mac(&self) -> MacServiceClient<Channel> {
        MacServiceClient::new(self.channel().await)
    }

    pub async fn keys(&self) -> KeyServiceClient<Channel> {
        KeyServiceClient::new(self.channel().await)
    }

    /// Asks for a new HMAC_256 key.
    pub async fn create(&self) -> Result<String, Status> {
        let request = CreateKeyRequest {
            key_usage: KeyUsage::GenerateVerifyMac.into(),
            key_spec: KeySpec::Hmac256.into(),
            ..CreateKeyRequest::default()
        };
        let made = self.keys().await.create_key(request).await?;
        Ok(made.into_inner().key_metadata.unwrap().key_id)
    }

    /// The MAC of a message with a key.
    pub async fn mac_with(&self, key_id: &str, message: &[u8]) -> Result<Vec<u8>, Status> {
        let mut request = request(message);
        request.key_id = key_id.into();
        let made = self.mac().await.generate_mac(request).await?;
        Ok(made.into_inner().mac.to_vec())
    }

    /// The IDs of all keys.
    pub async fn key_ids(&self) -> Vec<String> {
        let listed = self
            .keys()
            .await
            .list_keys(ListKeysRequest::default())
            .await
            .unwrap();
        let keys = listed.into_inner().keys.into_iter();
        keys.map(|key| key.key_id).collect()
    }

    /// What this server has logged.
    pub fn log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.log_from..).unwrap_or_default()).into_owned()
    }

    /// A field of the first line of the log with these words: `words name=value`.
    pub fn field(&self, words: &str, name: &str) -> String {
        let log = self.log();
        let line = log.lines().find(|line| line.contains(words)).unwrap();
        let (_, value) = line.split_once(&format!("{name}=")).unwrap();
        value.split(' ').next().unwrap().to_owned()
    }

    /// Waits until the log has a line with these words; fails at once if the server ends instead.
    pub async fn until_log(&mut self, words: &str) {
        let began = Instant::now();
        while !self.log().contains(words) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < LIMIT,
                "the log has no {words:?} after {:?} (end: {ended:?}):\n{}",
                began.elapsed(),
                self.log(),
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until so many hosts have logged in and serve, and gives their process IDs.
    pub async fn serving(&self, hosts: usize) -> Vec<u32> {
        until("all hosts serve", || {
            (self.log().matches("a host serves").count() >= hosts).then_some(())
        })
        .await;
        self.hosts()
    }

    /// The process IDs of the hosts.
    pub fn hosts(&self) -> Vec<u32> {
        children(self.child.id())
    }

    /// Ends the server as a service manager does and returns its exit status.
    pub async fn terminate(mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        self.ended().await
    }

    /// Whether it has come to its end.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the end of the server", || child.try_wait().unwrap()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How often each C function was called, by what pkcs11-spy wrote: lines such as `12: C_SignInit`.
pub fn calls(spied: &Path) -> BTreeMap<String, u32> {
    let mut calls = BTreeMap::new();
    for line in fs::read_to_string(spied).unwrap_or_default().lines() {
        let function = line
            .split_once(": ")
            .filter(|(number, _)| number.parse::<u32>().is_ok());
        if let Some((_, function)) = function.filter(|(_, function)| function.starts_with("C_")) {
            *calls.entry(function.trim().to_owned()).or_default() += 1;
        }
    }
    calls
}

/// pkcs11-spy, which writes down what a module is asked.
pub fn spy() -> &'static Path {
    let mut known = SPIES.iter().map(Path::new);
    known
        .find(|path| path.exists())
        .expect("opensc-pkcs11 is installed")
}

/// The module that misbehaves on demand; cargo puts it beside the tests.
pub fn fault_module() -> PathBuf {
    let module = std::env::current_exe()
        .unwrap()
        .with_file_name("libfault_token.so");
    assert!(module.exists(), "{} is not built", module.display());
    module
}

/// Waits for a condition, and fails with its name and the wait's limit.
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(met) = condition() {
            return met;
        }
        assert!(began.elapsed() < LIMIT, "not seen within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// The children of a process.
pub fn children(process: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(
            list.split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
    }
    children
}

pub fn request(message: &[u8]) -> GenerateMacRequest {
    GenerateMacRequest {
        key_id: KEY_ID.into(),
        message: message.to_vec().into(),
        mac_algorithm: MacAlgorithm::HmacSha256.into(),
        ..GenerateMacRequest::default()
    }
}

pub fn verify_request(message: &[u8], mac: &[u8]) -> VerifyMacRequest {
    VerifyMacRequest {
        key_id: KEY_ID.into(),
        message: message.to_vec().into(),
        mac_algorithm: MacAlgorithm::HmacSha256.into(),
        mac: mac.to_vec().into(),
        ..VerifyMacRequest::default()
    }
}

/// The reference: HMAC-SHA-256 by another implementation.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// What a failed call says, in one line: code, reason and message.
pub fn said(status: &Status) -> String {
    let info = status.get_details_error_info();
    let reason = info
        .as_ref()
        .map_or("no ErrorInfo", |info| info.reason.as_str());
    format!("{:?} {reason}: {}", status.code(), status.message())
}

/// Asserts code, reason and a part of the message, and that there is a request ID.
pub fn assert_status(status: &Status, code: Code, reason: &str, message: &str) {
    let said = said(status);
    assert_eq!(status.code(), code, "{said}");
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("{said}"));
    assert_eq!(info.reason, reason, "{said}");
    assert_eq!(info.domain, "hsmac");
    assert!(info.metadata["exception"].ends_with("Exception"), "{said}");
    assert!(status.message().contains(message), "{said}");
    assert!(status.metadata().contains_key("x-request-id"), "{said}");
    for vendor in ["CKR_", "C_Sign", "softhsm", "libsofthsm", PIN] {
        assert!(!status.message().contains(vendor), "Security: {said}");
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The PKCS#11 module under test.
fn module() -> PathBuf {
    if let Some(module) = std::env::var_os("TEST_PKCS11_MODULE") {
        return module.into();
    }
    softhsm()
}

fn softhsm() -> PathBuf {
    [
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    ]
    .iter()
    .map(PathBuf::from)
    .find(|path| path.exists())
    .expect("SoftHSM2 is not installed; run softhsm/test, or set TEST_PKCS11_MODULE")
}

/// Whether drills run in full length (`softhsm/test --long`).
pub fn long() -> bool {
    std::env::var_os("TEST_LONG").is_some()
}

/// What a process takes, so that growth is seen.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub kib: u64,
    pub threads: u64,
    pub descriptors: usize,
}

impl Usage {
    pub fn of(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let descriptors = fs::read_dir(Path::new("/proc").join(process.to_string()).join("fd"));
        Self {
            kib: field("VmRSS:"),
            threads: field("Threads:"),
            descriptors: descriptors.unwrap().count(),
        }
    }
}
