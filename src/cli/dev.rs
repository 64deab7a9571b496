//! `hsmac dev`: a SoftHSM token with a demo key, and a server over it.

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf, absolute},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    CliError, print, seeds,
    serve::{begin_log, serve},
};
use crate::{
    app::App,
    config::Settings,
    kms::{EnumMember, GenerateMac, Seed},
    model::{Caller, MacAlgorithm},
    token_host::{NewKey, Provision},
};

/// The demo key has the same ID everywhere, so that examples can be pasted.
const DEMO_KEY: &str = "00000000-0000-4000-8000-000000000001";
const CALLER: &str = "arn:aws:iam::000000000000:user/dev";
const TOKEN: &str = "hsmac-dev";
/// The access key of AWS's own examples: known to everybody, and to tools that look for secrets.
pub(super) const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
pub(super) const SECRET_ACCESS_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const POLICY: &str = r#"{
  "Version": "2012-10-17",
  "Statement": { "Effect": "Allow", "Action": "kms:*", "Resource": "*" }
}
"#;
/// Where packages put SoftHSM2: Debian and Ubuntu, Fedora, Homebrew, from source.
const MODULES: [&str; 6] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Where token, PIN and configuration are kept.
    #[arg(long, value_name = "DIR", default_value = "./hsmac-dev")]
    dir: PathBuf,
    /// Where to listen for gRPC; loopback only.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    grpc: SocketAddr,
    /// Where to listen for AWS's clients (boto3, aws, AWS's SDKs); loopback only.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8460")]
    aws: SocketAddr,
    /// The SoftHSM2 library, if it is not where packages put it.
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// Keys to be there from the start: a TOML file of [[key]] with key_id, key_spec and, if wanted,
    /// aliases, description, tags, material_hex or material_base64.
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    // Read first: with a wrong file no folder is made.
    let seeds = arguments.seed.as_deref().map(seeds::read).transpose()?;
    let dir = absolute(&arguments.dir)
        .map_err(|error| CliError::Usage(format!("--dir {}: {error}", arguments.dir.display())))?;
    let config = dir.join("hsmac.toml");
    if config.exists() {
        // A folder that was moved still works: SoftHSM wants absolute paths.
        write_softhsm_conf(&dir).map_err(|error| unwritable(&dir, &error))?;
        if let Some(module) = &arguments.module {
            eprintln!(
                "hsmac: --module {} is not used: {} is there already, and its hsmac.toml names the module; edit it, or name another --dir",
                module.display(),
                dir.display()
            );
        }
    } else {
        provision(&dir, arguments.module.as_deref())?;
    }
    let mut sets = vec![
        format!("grpc.listen={}", arguments.grpc),
        format!(
            "token.dev.env.SOFTHSM2_CONF={}",
            dir.join("softhsm2.conf").display()
        ),
    ];
    // A folder of an earlier version, or one whose owner wants no such listener.
    let text = fs::read_to_string(&config).map_err(|error| unwritable(&dir, &error))?;
    if !text.contains("[[principal]]") {
        return Err(CliError::Config(format!(
            "hsmac: {} has no [[principal]], so that nobody may do anything: it was made by an earlier version; remove {} or name another --dir",
            config.display(),
            dir.display()
        )));
    }
    if text.lines().any(|line| line.trim() == "[aws]") {
        sets.push(format!("aws.listen={}", arguments.aws));
    }
    let loaded = Settings::load(&config, &sets, std::iter::empty())?;
    let endpoint = format!("http://{}", arguments.grpc);
    begin_log(&loaded.settings.log, &config);
    serve(loaded, async |app| {
        create_seeds(app, seeds.unwrap_or_default()).await?;
        print_examples(app, &endpoint, &dir).await
    })
}

/// Makes the keys of the seed file, unless they are there.
async fn create_seeds(app: &App, seeds: Vec<Seed>) -> Result<(), CliError> {
    let caller = Caller::parse(CALLER).map_err(CliError::Bug)?;
    for seed in seeds {
        let key_id = seed.key_id.clone();
        let until = Instant::now() + Duration::from_secs(30);
        app.kms()
            .seed(&caller, seed, until)
            .await
            .map_err(|error| CliError::Config(format!("hsmac: --seed: key {key_id}: {error}")))?;
    }
    Ok(())
}

/// Makes the folder's files and, in a process of its own, the token. The configuration comes last:
/// a folder that has one is complete.
fn provision(dir: &Path, module: Option<&Path>) -> Result<(), CliError> {
    let module = find_module(module)?;
    let io = |error: io::Error| unwritable(dir, &error);
    if dir
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some())
    {
        return Err(CliError::Usage(format!(
            "{} is not empty and has no hsmac.toml; name another --dir, or remove it",
            dir.display()
        )));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir.join("tokens"))
        .map_err(io)?;
    let conf = write_softhsm_conf(dir).map_err(io)?;
    let pin = format!("{:.12}", uuid::Uuid::new_v4().simple());
    write_private(&dir.join("pin"), &format!("{pin}\n")).map_err(io)?;
    let secret = format!("{SECRET_ACCESS_KEY}\n");
    write_private(&dir.join("dev.secret"), &secret).map_err(io)?;
    write_private(&dir.join("dev.policy.json"), POLICY).map_err(io)?;
    let wanted = Provision {
        module_path: module.clone(),
        label: TOKEN.into(),
        pin,
        keys: vec![NewKey {
            label: "demo".into(),
            id: vec![1],
            bytes: 32,
        }],
    };
    let own = std::env::current_exe().map_err(|error| CliError::Bug(error.to_string()))?;
    let mut child = Command::new(own)
        .arg("token-provision")
        .env("SOFTHSM2_CONF", &conf)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| CliError::Bug(format!("token-provision: {error}")))?;
    let written = child
        .stdin
        .take()
        .map(|stdin| serde_json::to_writer(stdin, &wanted));
    let status = child
        .wait()
        .map_err(|error| CliError::Bug(error.to_string()))?;
    if !status.success() || !matches!(written, Some(Ok(()))) {
        // The next start must not find half a token.
        let _ = fs::remove_dir_all(dir);
        return Err(CliError::Away(format!(
            "{} could not make a token",
            module.display()
        )));
    }
    write_private(&dir.join("hsmac.toml"), &config(&module, &conf)).map_err(io)
}

fn find_module(given: Option<&Path>) -> Result<PathBuf, CliError> {
    let known = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
    given.map(Path::to_owned).or(known).ok_or_else(|| {
        CliError::Config(
            "hsmac: SoftHSM2 is not installed: apt-get install softhsm2 (Debian, Ubuntu), dnf \
             install softhsm (Fedora), brew install softhsm (macOS); or name it with --module"
                .into(),
        )
    })
}

fn config(module: &Path, conf: &Path) -> String {
    format!(
        r#"# Made by `hsmac dev`; an ordinary configuration, to learn from and to change.
account = "000000000000"
region = "us-east-1"

[grpc]
listen = "127.0.0.1:50051"            # `hsmac dev --grpc` goes before it
anonymous = "{CALLER}"   # loopback only: who an unproven caller is
reflection = true                     # grpcurl works without the proto files

[aws]
listen = "127.0.0.1:8460"             # `hsmac dev --aws` goes before it

{admin}[[principal]]
arn = "{CALLER}"
access_key_id = "{ACCESS_KEY_ID}"     # of AWS's examples: never outside of a test
secret_access_key_file = "dev.secret"
policy_file = "dev.policy.json"       # what this principal may do: everything

[token.dev]
uri = "pkcs11:token={TOKEN}?module-path={module}"
pin_file = "pin"
hosts = 2                             # SoftHSM2 serialises inside a process: two processes, one session each
sessions = 1
working_copies = true                 # twice as fast on SoftHSM2, which re-reads its files for token objects
env = {{ SOFTHSM2_CONF = "{conf}" }}

[store.sqlite]
path = "catalogue.db"                 # keys and aliases that requests make and change

[[key]]                               # a declared key: this file alone changes it
key_id = "{DEMO_KEY}"
object = "pkcs11:object=demo;id=%01"
key_spec = "HMAC_256"
aliases = ["alias/demo"]
description = "made by hsmac dev"
"#,
        module = module.display(),
        conf = conf.display(),
        admin = admin(conf),
    )
}

/// Where operators look, if the folder's path is short enough for a socket (unix(7): 108 bytes).
fn admin(beside: &Path) -> &'static str {
    if beside.with_file_name("admin.sock").as_os_str().len() < 108 {
        "[admin]\nsocket = \"admin.sock\"                 # beside this file; asked by: hsmac status --config FILE\n\n"
    } else {
        ""
    }
}

fn write_softhsm_conf(dir: &Path) -> io::Result<PathBuf> {
    let conf = dir.join("softhsm2.conf");
    let tokens = dir.join("tokens");
    fs::write(
        &conf,
        format!(
            "directories.tokendir = {}\nlog.level = ERROR\n",
            tokens.display()
        ),
    )?;
    Ok(conf)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

fn unwritable(dir: &Path, error: &io::Error) -> CliError {
    CliError::Usage(format!("--dir {}: {error}", dir.display()))
}

/// Prints what to paste, and the first MAC.
async fn print_examples(app: &App, endpoint: &str, dir: &Path) -> Result<(), CliError> {
    for (_, state) in app.states() {
        if !state.is_serving() {
            return Err(CliError::Away(format!("the token does not serve: {state}")));
        }
    }
    let caller = Caller::parse(CALLER).map_err(CliError::Bug)?;
    let request = GenerateMac {
        key_id: Some("alias/demo".into()),
        message: Some("Hello World".into()),
        mac_algorithm: EnumMember::Known(MacAlgorithm::HmacSha256),
        grant_tokens: Vec::new(),
        dry_run: false,
    };
    let until = Instant::now() + Duration::from_secs(10);
    let made = app
        .kms()
        .generate_mac(&caller, request, until)
        .await
        .map_err(|error| CliError::Away(format!("no MAC: {error}")))?;
    let mac = BASE64_STANDARD.encode(&made.mac);
    let aws = app
        .aws_address()
        .unwrap_or_else(|| "nowhere: there is no [aws] in hsmac.toml".into());
    let address = endpoint.trim_start_matches("http://");
    let (folder, hsmac) = (dir.display(), own_command());
    print(
        format!(
            r#"
hsmac dev serves gRPC on {address} and AWS's clients on {aws}; token, PIN and hsmac.toml are in {folder}

The MAC of "Hello World" with alias/demo: {mac}

Make it yourself, in another terminal:
  {hsmac} kms generate-mac --endpoint {endpoint} --key-id alias/demo --message 'Hello World' --mac-algorithm HMAC_SHA_256

Check it:
  {hsmac} kms verify-mac --endpoint {endpoint} --key-id alias/demo --message 'Hello World' --mac-algorithm HMAC_SHA_256 --mac {mac}

See how hsmac is:
  {hsmac} status --config {folder}/hsmac.toml

boto3, and so for each AWS SDK: one line more, the endpoint. Debian lets pip install into a venv alone:
  python3 -m venv venv && venv/bin/pip install boto3
  venv/bin/python <<'END'
import boto3
kms = boto3.client("kms", endpoint_url="http://{aws}", region_name="us-east-1",
    aws_access_key_id="{ACCESS_KEY_ID}", aws_secret_access_key="{SECRET_ACCESS_KEY}")
print(kms.generate_mac(KeyId="alias/demo", Message=b"Hello World", MacAlgorithm="HMAC_SHA_256")["Mac"])
END

AWS CLI, with the same access key in its environment:
  python3 -m venv venv && venv/bin/pip install awscli
  AWS_ACCESS_KEY_ID={ACCESS_KEY_ID} AWS_SECRET_ACCESS_KEY={SECRET_ACCESS_KEY} venv/bin/aws kms generate-mac --endpoint-url http://{aws} --region us-east-1 --key-id alias/demo --message 'Hello World' --mac-algorithm HMAC_SHA_256

grpcurl:
  grpcurl -plaintext -d '{{"key_id":"alias/demo","message":"SGVsbG8gV29ybGQ=","mac_algorithm":"HMAC_SHA_256"}}' {address} hsmac.v1.MacService/GenerateMac

Python over gRPC, in a clone of hsmac's repository:
  python3 -m venv venv && venv/bin/pip install grpcio grpcio-tools
  venv/bin/python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. proto/hsmac/v1/*.proto
  venv/bin/python <<'END'
import grpc
from hsmac.v1 import mac_pb2, mac_pb2_grpc
hsmac = mac_pb2_grpc.MacServiceStub(grpc.insecure_channel("{address}"))
request = mac_pb2.GenerateMacRequest(key_id="alias/demo", message=b"Hello World", mac_algorithm="HMAC_SHA_256")
print(hsmac.GenerateMac(request).mac)
END

Ctrl-C ends it.
"#
        )
        .as_bytes(),
    )
}

/// How this program is called in a shell: by its name if the PATH finds it, else by where it is.
fn own_command() -> String {
    let Ok(own) = std::env::current_exe() else {
        return "hsmac".to_owned();
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("hsmac"))
        .find(|file| file.is_file());
    let found = found.and_then(|file| file.canonicalize().ok());
    if found.is_some() && found == own.canonicalize().ok() {
        "hsmac".to_owned()
    } else {
        shell_quoted(&own.display().to_string())
    }
}

/// As one word of a shell.
fn shell_quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-".contains(letter);
    if text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
