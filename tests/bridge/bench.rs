//! `hsmac bench` against the real thing.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::Value;

use crate::support::{CALLER, Output, Server, Token};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

struct Place {
    token: Token,
    _server: Server,
}

impl Place {
    async fn new() -> Self {
        let token = Token::with_key();
        let secret = token.path("secret");
        fs::write(&secret, SECRET).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o400)).unwrap();
        let config = format!(
            "{}[aws]\nlisten = \"{}\"\n[[principal]]\narn = \"{CALLER}\"\naccess_key_id = \"AKIDEXAMPLE\"\n\
             secret_access_key_file = \"secret\"\n",
            token.config(),
            endpoint(&token),
        );
        let server = token.serve(&config).await;
        Self {
            token,
            _server: server,
        }
    }

    fn bench(&self, more: &[&str]) -> Output {
        let secret = self.token.path("secret");
        let endpoint = endpoint(&self.token);
        let mut arguments = vec!["bench", "aws", "--endpoint", &endpoint, "--key-id"];
        arguments.extend(["1234abcd-12ab-34cd-56ef-1234567890ab", "--json"]);
        arguments.extend([
            "--connections",
            "3",
            "--warmup",
            "50ms",
            "--duration",
            "300ms",
        ]);
        arguments.extend(["--access-key-id", "AKIDEXAMPLE", "--secret-access-key-file"]);
        arguments.push(secret.to_str().unwrap());
        self.token.hsmac(&[&arguments, more].concat())
    }
}

fn endpoint(token: &Token) -> String {
    format!("unix:{}", token.path("aws.sock").display())
}

#[tokio::test]
async fn signed_calls_are_answered_closed_and_open() {
    let place = Place::new().await;
    for rate in [&[][..], &["--rate", "200"]] {
        let output = place.bench(&[&["--region", "us-west-2"], rate].concat());
        assert!(output.status.success(), "{output:?}");
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        assert!(report["calls"].as_u64().unwrap() > 10, "{report}");
        assert_eq!(report["errors"], serde_json::json!({}));
        assert_eq!(report["conditions"]["connections"], 3);
        assert!(report["conditions"].get("streams").is_none());
    }
}

#[tokio::test]
async fn a_call_that_is_refused_is_a_sentence() {
    let place = Place::new().await;
    let output = place.bench(&["--region", "eu-west-1"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(
        output.stderr.contains(
            "InvalidSignatureException: Credential should be scoped to a valid region, not 'eu-west-1'."
        ),
        "{output:?}"
    );
}
