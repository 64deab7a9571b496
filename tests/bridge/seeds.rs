//! `hsmac dev --seed`: keys with fixed IDs, names and given material, over restarts.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::support::{KEY, Token, hex, hmac_sha256, signal, until};

const GIVEN: &str = "11111111-2222-4333-8444-555555555555";
const MADE: &str = "11111111-2222-4333-8444-666666666666";

fn seeds(material: &[u8], description: &str) -> String {
    format!(
        "[[key]]\nkey_id = \"{GIVEN}\"\nkey_spec = \"HMAC_256\"\naliases = [\"alias/given\"]\n\
         description = \"{description}\"\ntags = {{ team = \"billing\" }}\nmaterial_hex = \"{}\"\n\
         [[key]]\nkey_id = \"{MADE}\"\nkey_spec = \"HMAC_512\"\naliases = [\"alias/made\"]\n",
        hex(material)
    )
}

/// A running `hsmac dev`; killed when it is dropped.
struct Dev {
    child: Child,
    endpoint: String,
}

impl Dev {
    async fn start(token: &Token, seeds: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let address = port.unwrap().to_string();
        let mut child = Self::spawn(token, seeds, &address);
        until("hsmac dev to serve", || {
            assert!(child.try_wait().unwrap().is_none(), "{}", said(token));
            said(token).contains(&address).then_some(())
        })
        .await;
        let endpoint = format!("http://{address}");
        Self { child, endpoint }
    }

    fn spawn(token: &Token, seeds: &str, address: &str) -> Child {
        fs::write(token.path("seeds.toml"), seeds).unwrap();
        let words = fs::File::create(token.path("dev.said")).unwrap();
        Command::new(env!("CARGO_BIN_EXE_hsmac"))
            .args(["dev", "--grpc", address, "--aws", "127.0.0.1:0", "--dir"])
            .arg(token.path("dev"))
            .arg("--seed")
            .arg(token.path("seeds.toml"))
            .arg("--module")
            .arg(token.module())
            .stdin(Stdio::null())
            .stdout(words.try_clone().unwrap())
            .stderr(words)
            .spawn()
            .unwrap()
    }

    fn kms(&self, token: &Token, arguments: &[&str]) -> serde_json::Value {
        let mut all = vec!["kms", arguments[0], "--endpoint", &self.endpoint];
        all.extend(&arguments[1..]);
        let output = token.hsmac(&all);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_str(&output.stdout).unwrap()
    }

    fn mac(&self, token: &Token, key: &str, algorithm: &str) -> Vec<u8> {
        let arguments = [
            "generate-mac",
            "--key-id",
            key,
            "--message",
            "hello",
            "--mac-algorithm",
            algorithm,
        ];
        let told = self.kms(token, &arguments);
        BASE64_STANDARD
            .decode(told["Mac"].as_str().unwrap())
            .unwrap()
    }

    async fn end(mut self) {
        signal(self.child.id(), "TERM");
        until("the end of hsmac dev", || self.child.try_wait().unwrap()).await;
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said(token: &Token) -> String {
    fs::read_to_string(token.path("dev.said")).unwrap_or_default()
}

#[tokio::test]
async fn seeded_keys_are_the_same_after_every_restart() {
    let token = Token::empty();
    let mut made = None;
    for description in ["first", "first", "second"] {
        let dev = Dev::start(&token, &seeds(&KEY, description)).await;
        for key in [GIVEN, "alias/given"] {
            let mac = dev.mac(&token, key, "HMAC_SHA_256");
            assert_eq!(mac, hmac_sha256(&KEY, b"hello"));
        }
        let mac = dev.mac(&token, "alias/made", "HMAC_SHA_512");
        assert_eq!(*made.get_or_insert_with(|| mac.clone()), mac);
        let told = dev.kms(&token, &["describe-key", "--key-id", GIVEN]);
        assert_eq!(told["KeyMetadata"]["Description"], description);
        assert_eq!(told["KeyMetadata"]["Origin"], "EXTERNAL");
        let tags = dev.kms(&token, &["list-resource-tags", "--key-id", GIVEN]);
        assert_eq!(tags["Tags"][0]["TagValue"], "billing");
        dev.end().await;
    }
}

#[tokio::test]
async fn a_short_secret_is_the_same_key_as_elsewhere() {
    let token = Token::empty();
    let dev = Dev::start(&token, &seeds(b"key", "")).await;
    let mac = dev.mac(&token, GIVEN, "HMAC_SHA_256");
    assert_eq!(mac, hmac_sha256(b"key", b"hello"));
}

#[tokio::test]
async fn seeds_that_are_wrong_or_contradict_what_is_there_are_refused() {
    let token = Token::empty();
    let wrong = seeds(&KEY, "").replace("HMAC_512", "HMAC_1");
    let mut child = Dev::spawn(&token, &wrong, "127.0.0.1:0");
    let ended = until("the end", || child.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(78));
    assert!(
        said(&token).contains("seeds.toml:10: key[1].key_spec: "),
        "{}",
        said(&token)
    );
    assert!(!token.path("dev").exists());

    Dev::start(&token, &seeds(&KEY, "")).await.end().await;
    for (seeds, words) in [
        (seeds(b"another key", ""), "is there with other material"),
        (
            seeds(&KEY, "").replace("HMAC_512", "HMAC_384"),
            "is there with the key spec HMAC_512",
        ),
    ] {
        let mut child = Dev::spawn(&token, &seeds, "127.0.0.1:0");
        let ended = until("the end", || child.try_wait().unwrap()).await;
        assert_eq!(ended.code(), Some(78), "{}", said(&token));
        assert!(said(&token).contains(words), "{}", said(&token));
        assert!(!said(&token).contains(&hex(&KEY)));
    }
    let dev = Dev::start(&token, &seeds(&KEY, "")).await;
    assert_eq!(
        dev.mac(&token, GIVEN, "HMAC_SHA_256"),
        hmac_sha256(&KEY, b"hello")
    );
}
