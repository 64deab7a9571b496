//! The command line as clap reads it, its help, its exit codes.

#[path = "../../../tests/support/pki.rs"]
pub(super) mod pki;
mod service;
mod tls;

use std::ffi::OsString;

use super::*;

fn stop(arguments: &[&str]) -> CliError {
    let arguments = std::iter::once("hsmac")
        .chain(arguments.iter().copied())
        .map(OsString::from);
    run(arguments).unwrap_err()
}

#[test]
fn clap_accepts_the_command_tree() {
    Cli::command().debug_assert();
}

#[test]
fn help_names_every_subcommand_and_hides_the_inner_ones() {
    let help = stop(&["--help"]);
    assert_eq!(help.exit_code(), 0);
    let help = help.to_string();
    for verb in [
        "serve",
        "check",
        "status",
        "top",
        "dev",
        "kms",
        "bench",
        "token",
        "policy",
        "completions",
        "man",
    ] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}\n{help}");
    }
    assert!(
        !help.contains("token-host") && !help.contains("token-provision"),
        "{help}"
    );
    assert!(
        help.contains("Examples:") && help.contains("Exit codes:"),
        "{help}"
    );
}

#[test]
fn every_subcommand_has_help_with_an_example() {
    for verbs in [
        &["serve"][..],
        &["check"],
        &["status"],
        &["top"],
        &["dev"],
        &["kms"],
        &["bench", "grpc"],
        &["bench", "aws"],
        &["token", "unlock"],
        &["policy", "simulate"],
        &["completions"],
        &["man"],
    ] {
        let help = stop(&[verbs, &["--help"]].concat());
        assert_eq!(help.exit_code(), 0);
        assert!(help.to_string().contains("Example"), "{verbs:?}\n{help}");
    }
    let help = stop(&["kms", "--help"]).to_string();
    for verb in [
        "generate-mac",
        "verify-mac",
        "generate-random",
        "create-key",
        "describe-key",
        "list-keys",
        "update-key-description",
        "enable-key",
        "disable-key",
        "schedule-key-deletion",
        "cancel-key-deletion",
        "get-key-last-usage",
        "create-alias",
        "update-alias",
        "delete-alias",
        "list-aliases",
        "tag-resource",
        "untag-resource",
        "list-resource-tags",
        "create-grant",
        "list-grants",
        "list-retirable-grants",
        "retire-grant",
        "revoke-grant",
    ] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}\n{help}");
    }
}

#[test]
fn exit_codes_are_sysexits_and_under_kms_those_of_aws() {
    assert_eq!(stop(&["serve", "--config"]).exit_code(), 64);
    assert_eq!(
        stop(&["serve", "--config", "/nowhere/h.toml"]).exit_code(),
        78
    );
    assert_eq!(stop(&["srve"]).exit_code(), 64);
    assert_eq!(stop(&[]).exit_code(), 64);
    assert_eq!(stop(&["kms", "generate-mac"]).exit_code(), 252);
    assert_eq!(
        stop(&["kms", "generate-random", "--number-of-bytes", "x"]).exit_code(),
        252
    );
    assert_eq!(stop(&["--version"]).exit_code(), 0);
    assert_eq!(CliError::Config(String::new()).exit_code(), 78);
    assert_eq!(CliError::Away(String::new()).exit_code(), 69);
    assert_eq!(CliError::Bug(String::new()).exit_code(), 70);
    assert_eq!(CliError::Denied.exit_code(), 1);
    assert_eq!(CliError::NotReady.exit_code(), 1);
}

#[test]
fn a_server_that_is_not_there_is_255() {
    let gone = stop(&["kms", "list-keys", "--endpoint", "unix:/nowhere/grpc.sock"]);
    assert_eq!(gone.exit_code(), 255);
    assert!(
        gone.to_string()
            .starts_with("Could not connect to the endpoint URL: \"unix:/nowhere/grpc.sock\""),
        "{gone}"
    );
}

#[test]
fn command_lines_of_aws_kms_are_accepted() {
    let parse = |arguments: &[&str]| {
        Cli::try_parse_from(["hsmac", "kms"].iter().chain(arguments)).map(|_| ())
    };
    let mac = [
        "--key-id",
        "alias/a",
        "--message",
        "hi",
        "--mac-algorithm",
        "HMAC_SHA_256",
    ];
    for verb in [
        &["generate-mac"][..],
        &["generate-mac", "--dry-run"],
        &[
            "generate-mac",
            "--no-dry-run",
            "--grant-tokens",
            "a",
            "b",
            "--output",
            "text",
        ],
        &[
            "verify-mac",
            "--mac",
            "aGk=",
            "--endpoint-url",
            "http://127.0.0.1:1",
        ],
    ] {
        parse(&[verb, &mac].concat()).unwrap();
    }
    parse(&[
        "list-keys",
        "--limit",
        "5",
        "--marker",
        "m",
        "--timeout",
        "3",
    ])
    .unwrap();
    assert!(parse(&[&["verify-mac", "--mac", "?"][..], &mac].concat()).is_err());
    for line in [
        "create-key --key-spec HMAC_256 --key-usage GENERATE_VERIFY_MAC --description d --tags TagKey=a,TagValue=b TagKey=c,TagValue= --no-multi-region",
        "create-key",
        "update-key-description --key-id k --description d",
        "enable-key --key-id k",
        "disable-key --key-id k",
        "schedule-key-deletion --key-id k --pending-window-in-days 7",
        "cancel-key-deletion --key-id k",
        "get-key-last-usage --key-id k --output text",
        "create-alias --alias-name alias/a --target-key-id k",
        "update-alias --alias-name alias/a --target-key-id k",
        "delete-alias --alias-name alias/a",
        "list-aliases",
        "list-aliases --key-id k --limit 5",
        "list-keys --max-items 3 --page-size 2 --region us-east-1 --no-cli-pager --query Keys[].KeyId --output table",
        "list-keys --starting-token eyJtYXJrZXIiOm51bGwsInByaW50ZWQiOjN9 --output yaml --profile dc1",
        "tag-resource --key-id k --tags TagKey=a,TagValue=b",
        "tag-resource --key-id k --tags [{\"TagKey\":\"a\",\"TagValue\":\"b\"}]",
        "untag-resource --key-id k --tag-keys a b",
        "list-resource-tags --key-id k",
        "create-grant --key-id k --grantee-principal p --operations GenerateMac VerifyMac --name n --dry-run",
        "create-grant --key-id k --grantee-principal p --retiring-principal q --operations GenerateMac --constraints {\"SourceArn\":\"a\"}",
        "list-grants --key-id k --grantee-principal p --limit 5",
        "list-retirable-grants --retiring-principal p",
        "retire-grant --grant-token t",
        "retire-grant --key-id k --grant-id g --no-dry-run",
        "revoke-grant --key-id k --grant-id g",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        parse(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    for line in [
        "create-key --key-spec RSA_2048",
        "tag-resource --key-id k",
        "tag-resource --key-id k --tags a=b",
        "list-keys --max-items 3 --limit 5",
        "list-keys --max-items 0",
        "list-keys --starting-token nonsense",
        "enable-key",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(parse(&words).is_err(), "{line}");
    }
}

/// Whoever pastes an example pastes it as it stands: on 80 columns clap breaks no line of it.
#[test]
fn no_example_is_wider_than_a_terminal() {
    fn look(command: &clap::Command, seen: &mut usize) {
        let help = command.get_after_help().map(ToString::to_string);
        for line in help.unwrap_or_default().lines() {
            let is_example = line.starts_with("  ");
            assert!(!is_example || line.chars().count() <= 79, "{line}");
            *seen += usize::from(is_example);
        }
        for verb in command.get_subcommands() {
            look(verb, seen);
        }
    }
    let mut seen = 0;
    look(&Cli::command(), &mut seen);
    assert!(seen > 30, "{seen}");
}

#[test]
fn there_is_a_man_page_for_each_command_and_one_for_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    run(["hsmac", "man", "--dir", dir].map(Into::into).into_iter()).unwrap();
    let page = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    for name in [
        "hsmac.1",
        "hsmac-serve.1",
        "hsmac-store-restore.1",
        "hsmac-kms-list-keys.1",
    ] {
        assert!(page(name).contains(".TH"), "{name}");
    }
    let settings = page("hsmac.toml.5");
    assert!(settings.starts_with(".TH hsmac.toml 5"), "{settings}");
    for words in [
        "[token.NAME]",
        "hedge_after",
        "[[principal]]",
        "certificate_uri",
        "[log]",
    ] {
        let words = words.replace('-', "\\-");
        assert!(settings.contains(&words), "{words}");
    }
    let names = fs::read_dir(folder.path()).unwrap();
    assert!(names.count() < 70, "help has no pages of its own");
}

#[test]
fn the_man_page_and_the_completions_know_the_verbs() {
    let mut page = Vec::new();
    let mut root = Cli::command();
    root.build();
    render(&root, &mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    for verb in [
        "hsmac serve",
        "hsmac kms generate\\-mac",
        "hsmac bench grpc",
    ] {
        assert!(page.contains(verb), "{verb}");
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "hsmac", &mut script);
        assert!(String::from_utf8(script).unwrap().contains("generate-mac"));
    }
}
