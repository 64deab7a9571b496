//! A configuration folder of the tests, and what is said of settings that are wrong.

mod tls;

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const GOOD: &str = r#"account = "111122223333"
region = "us-west-2"

[grpc]
listen = "127.0.0.1:50051"
anonymous = "arn:aws:iam::111122223333:user/local"

[token.primary]
uri = "pkcs11:token=hsmac?module-path=module.so"
pin_file = "pin"

[[key]]
key_id = "1234abcd-12ab-34cd-56ef-1234567890ab"
object = "pkcs11:object=payments-mac"
key_spec = "HMAC_256"
aliases = ["alias/payments"]
"#;

const BILLING: &str = r#"
[[principal]]
arn = "arn:aws:iam::111122223333:user/billing"
access_key_id = "AKIDEXAMPLE"
secret_access_key_file = "billing.secret"
"#;

struct ConfigFolder {
    folder: TempDir,
    file: PathBuf,
}

fn place(text: &str) -> ConfigFolder {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("hsmac.toml");
    fs::write(&file, text).unwrap();
    fs::write(folder.path().join("module.so"), "").unwrap();
    let pin = folder.path().join("pin");
    fs::write(&pin, "1234").unwrap();
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o400)).unwrap();
    let secret = folder.path().join("billing.secret");
    fs::write(&secret, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o400)).unwrap();
    ConfigFolder { folder, file }
}

impl ConfigFolder {
    fn load(
        &self,
        sets: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<(Settings, Vec<ConfigWarning>), ConfigFaults> {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        let environment: Vec<(String, String)> = environment
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let loaded = Settings::load(&self.file, &sets, environment.into_iter())?;
        Ok((loaded.settings, loaded.warnings))
    }

    /// The faults, without the folder's name in them.
    fn faults(&self, sets: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
        let faults = self
            .load(sets, environment)
            .map(|_| ())
            .unwrap_err()
            .to_string();
        let folder = format!("{}/", self.folder.path().display());
        faults
            .replace(&folder, "")
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

/// GOOD gives nobody a policy, and says so.
fn only_the_warning_of_missing_policies(warnings: &[ConfigWarning]) -> bool {
    matches!(warnings, [one] if one.to_string().contains(":6: grpc.anonymous: no [[principal]] with this arn has a policy_file"))
}

fn faults(text: &str) -> Vec<String> {
    place(text).faults(&[], &[])
}

#[test]
fn a_good_file_is_read_whole() {
    let place = place(GOOD);
    let (settings, warnings) = place.load(&[], &[]).unwrap();
    assert!(
        only_the_warning_of_missing_policies(&warnings),
        "{warnings:?}"
    );
    let token = &settings.token["primary"];
    assert_eq!(token.name, "primary");
    assert_eq!(token.uri.module_path, place.folder.path().join("module.so"));
    assert_eq!(token.pin_file, Some(place.folder.path().join("pin")));
    assert_eq!(settings.state_dir, place.folder.path().join("state"));
    assert_eq!(settings.drain_timeout, Duration::from_secs(20));
    assert_eq!(settings.key.len(), 1);
}

#[test]
fn set_beats_environment_beats_file() {
    let place = place(&format!("{GOOD}[log]\nformat = \"text\"\n"));
    let environment = [
        ("HSMAC__REGION", "eu-west-1"),
        ("HSMAC__GRPC__MAX_CONNECTIONS", "7"),
        ("HSMAC__TOKEN__PRIMARY__ENV__SOFTHSM2_CONF", "/x"),
        ("HSMAC_ENDPOINT", "unix:/x"),
        ("STATE_DIRECTORY", "/var/lib/hsmac:/var/lib/other"),
    ];
    let (settings, _) = place.load(&["region=eu-west-2"], &environment).unwrap();
    assert_eq!(settings.region, "eu-west-2");
    assert_eq!(settings.grpc.max_connections, 7);
    assert_eq!(settings.token["primary"].env["SOFTHSM2_CONF"], "/x");
    assert_eq!(settings.state_dir, PathBuf::from("/var/lib/hsmac"));
}

#[test]
fn variables_that_only_look_like_settings_are_warned_of() {
    let environment = [
        ("HSMAC_SERVICE_HOST", "10.0.0.1"),
        ("HSMAC_SERVICE_PORT", "50051"),
        ("HSMAC_SERVICE_PORT_GRPC", "50051"),
        ("HSMAC_PORT", "tcp://10.0.0.1:50051"),
        ("HSMAC_PORT_50051_TCP_ADDR", "10.0.0.1"),
        ("HSMAC_ADMIN_SERVICE_HOST", "10.0.0.2"),
        ("HSMAC_ENDPOINT", "unix:/x"),
        ("HSMAC_GRPC_LISTEN", "x"),
        ("HSMAC_ENDPIONT", "unix:/y"),
        ("HSMACX", "another program's"),
    ];
    let (_, warnings) = place(GOOD).load(&[], &environment).unwrap();
    let warnings = warnings.iter().map(ToString::to_string);
    let warnings: Vec<String> = warnings
        .filter(|warning| warning.starts_with("environment"))
        .collect();
    assert_eq!(
        warnings,
        [
            "environment HSMAC_ADMIN_SERVICE_HOST: this and 5 more are not used: Kubernetes sets such names \
             for a Service called hsmac; enableServiceLinks: false leaves them out",
            "environment HSMAC_ENDPIONT: not used: no such setting; did you mean HSMAC_ENDPOINT?",
            "environment HSMAC_GRPC_LISTEN: not used: no such setting; did you mean HSMAC__GRPC__LISTEN?",
        ]
    );
}

#[test]
fn all_faults_of_all_layers_come_at_once() {
    let text = GOOD
        .replace("[grpc]", "[grpc]\nmax_conections = 5")
        .replace("account = \"111122223333\"", "account = \"12\"")
        .replace("key_spec = \"HMAC_256\"", "key_spec = \"HMAC_257\"");
    let found = place(&text).faults(
        &["grpc.listen=here", "nonsense", "key.x=1"],
        &[("HSMAC__GRPC__MAX_STREAMS", "many"), ("HSMAC__KEY__X", "y")],
    );
    assert_eq!(
        found,
        [
            "hsmac.toml:1: account: \"12\" is no account: it must be 12 digits",
            "hsmac.toml:5: grpc.max_conections: no such setting; did you mean max_connections?",
            "hsmac.toml:16: key[0].key_spec: \"HMAC_257\" is no key spec; there are HMAC_224, HMAC_256, HMAC_384 and HMAC_512",
            "environment HSMAC__GRPC__MAX_STREAMS: \"many\" is not a whole number",
            "environment HSMAC__KEY__X: the environment does not reach the [[…]] lists; write them in the file",
            "--set grpc.listen: \"here\" is no address; write 127.0.0.1:50051 or unix:/run/hsmac/grpc.sock",
            "--set key.x: --set does not reach the [[…]] lists; write them in the file",
            "--set section.key: one has no = in it; write --set section.key=value",
        ]
    );
}

#[test]
fn a_missing_setting_is_reported_once() {
    assert_eq!(
        faults("[token.a]\n[[key]]\n"),
        [
            "hsmac.toml: account: required, but not set",
            "hsmac.toml: grpc: required, but not set",
            "hsmac.toml: region: required, but not set",
            "hsmac.toml:1: token.a.uri: required, but not set",
            "hsmac.toml:2: key[0].key_id: required, but not set",
            "hsmac.toml:2: key[0].key_spec: required, but not set",
            "hsmac.toml:2: key[0].object: required, but not set",
        ]
    );
    assert_eq!(
        faults("account = \"111122223333\"\nregion = \"us-west-2\"\n[grpc]\n"),
        [
            "hsmac.toml: token: there is none; add [token.NAME] with its uri and pin_file",
            "hsmac.toml:3: grpc.anonymous: required, but not set: without it nobody could call; set anonymous = \"arn:aws:iam::111122223333:user/local\", or listen on a Unix socket and give a [[principal]] a unix_uid, or set grpc.tls.client_ca and give a [[principal]] a certificate_uri or certificate_dns",
            "hsmac.toml:3: grpc.listen: required, but not set",
        ]
    );
}

#[test]
fn settings_of_later_versions_are_refused_as_not_there_yet() {
    let text = GOOD.replace("pin_file", "run_as = \"u\"\npin_file")
        + "[spawner]\n[store]\netcd = 1\nsqlite = { path = \"c.db\" }\n";
    let found = faults(&text);
    assert_eq!(found.len(), 3, "{found:#?}");
    for fault in found {
        assert!(
            fault.ends_with("this version of hsmac does not have it yet"),
            "{fault}"
        );
    }
}

#[test]
fn a_uid_is_of_one_principal_and_stands_in_for_the_anonymous_caller() {
    let one = |name: &str, uid: u32| {
        format!(
            "[[principal]]\narn = \"arn:aws:iam::111122223333:user/{name}\"\nunix_uid = {uid}\n"
        )
    };
    let unix = GOOD.replace("127.0.0.1:50051", "unix:/run/hsmac/grpc.sock");
    let nobody: String = unix
        .lines()
        .filter(|line| !line.starts_with("anonymous"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(faults(&nobody)[0].contains("grpc.anonymous: required, but not set"));
    let (settings, _) = place(&(nobody.clone() + &one("a", 1000)))
        .load(&[], &[])
        .unwrap();
    assert_eq!(settings.principal[0].unix_uid, Some(1000));
    // A uid proves nothing over TCP.
    let tcp = nobody.replace("unix:/run/hsmac/grpc.sock", "127.0.0.1:50051");
    let found = faults(&(tcp + &one("a", 1000)));
    assert!(
        found[0].contains("listen on a Unix socket and give a [[principal]] a unix_uid"),
        "{found:?}"
    );
    let found = faults(&(nobody + &one("a", 1000) + &one("b", 1000)));
    assert!(
        found[0].ends_with("principal[1].unix_uid: 1000 is the uid of principal[0] already"),
        "{found:?}"
    );
}

#[test]
fn policy_files_are_relative_to_the_file_and_checked() {
    let text = GOOD.replace("key_spec", "policy_file = \"key.json\"\nkey_spec")
        + "[[principal]]\narn = \"arn:aws:iam::111122223333:user/local\"\npolicy_file = \"own.json\"\n";
    let place = place(&text);
    let found = place.faults(&[], &[]);
    assert_eq!(
        found,
        [
            "hsmac.toml:15: key[0].policy_file: key.json: No such file or directory (os error 2)",
            "hsmac.toml:20: principal[0].policy_file: own.json: No such file or directory (os error 2)",
        ]
    );
    let write = |name: &str, statement: &str| {
        let text = format!(r#"{{"Statement":{{"Effect":"Allow",{statement}}}}}"#);
        fs::write(place.folder.path().join(name), text).unwrap();
    };
    let own = place.folder.path().join("own.json");
    fs::create_dir(&own).unwrap();
    assert!(place.faults(&[], &[])[1].ends_with("own.json is not a regular file"));
    fs::remove_dir(&own).unwrap();
    fs::write(&own, " ".repeat((32 << 10) + 1)).unwrap();
    assert!(place.faults(&[], &[])[1].ends_with("a policy has at most 32768 bytes"));

    write("key.json", r#""Action":"kms:*","Resource":"*""#);
    write(
        "own.json",
        r#""Principal":"*","Action":"kms:*","Resource":"*""#,
    );
    let found = place.faults(&[], &[]);
    assert!(found[0].ends_with("key.json: Policy contains a statement with no principal."));
    assert!(found[1].contains("own.json: An identity policy must not say Principal"));

    write(
        "key.json",
        r#""Principal":"*","Action":"kms:*","Resource":"*""#,
    );
    write("own.json", r#""Action":"kms:*","Resource":"*""#);
    let (_, warnings) = place.load(&[], &[]).unwrap();
    assert_eq!(warnings, []);
}

#[test]
fn the_store_s_path_is_relative_to_the_file() {
    let place = place(&format!("{GOOD}[store.sqlite]\npath = \"catalogue.db\"\n"));
    let (settings, _) = place.load(&[], &[]).unwrap();
    assert_eq!(
        settings.store.unwrap().sqlite.path,
        place.folder.path().join("catalogue.db")
    );
    let variable = [("HSMAC__STORE__SQLITE__PATH", "/var/lib/hsmac/c.db")];
    let (settings, _) = place.load(&[], &variable).unwrap();
    let path = settings.store.unwrap().sqlite.path;
    assert_eq!(path, PathBuf::from("/var/lib/hsmac/c.db"));
    for (text, expected) in [
        ("[store]", "17: store.sqlite: required, but not set"),
        (
            "[store.sqlite]",
            "17: store.sqlite.path: required, but not set",
        ),
        (
            "[store.sqlite]\npaht = \"x\"\npath = \"x\"",
            "18: store.sqlite.paht: no such setting; did you mean path?",
        ),
        (
            "[store]\nsqlite = \"x\"",
            "18: store.sqlite: it must be a table",
        ),
    ] {
        let found = faults(&format!("{GOOD}{text}\n"));
        assert!(
            found[0].ends_with(&format!("hsmac.toml:{expected}")),
            "{found:?}"
        );
    }
}

#[test]
fn syntax_has_line_and_column() {
    let found = faults("account = \"1\"\npin = '1234\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("hsmac.toml:2:"), "{found:?}");
    assert!(!found[0].contains("1234"), "{found:?}");
    assert!(faults("a = 1\na = 2\n")[0].starts_with("hsmac.toml:2:1: duplicate key"));
}

#[test]
fn wrong_types_are_named() {
    let text = "account = []\nregion = \"us-west-2\"\ndrain_timeout = \"soon\"\nkey = 5\n[grpc]\n\
        listen = \"127.0.0.1:1\"\nanonymous = \"me\"\nreflection = \"perhaps\"\nmax_streams = -1\n\
        [token]\na = 5\n[log]\nformat = \"xml\"\nlevel = \"x=loud\"\n";
    let found = faults(text);
    let expected = [
        "hsmac.toml:1: account: a list stands where a string is wanted",
        "hsmac.toml:3: drain_timeout: \"soon\" is no time; write \"10s\" or \"250ms\"",
        "hsmac.toml:4: key: it must be a list",
        "hsmac.toml:7: grpc.anonymous: \"me\" is no principal ARN; write arn:aws:iam::ACCOUNT:user/NAME",
        "hsmac.toml:8: grpc.reflection: \"perhaps\" is not true or false",
        "hsmac.toml:9: grpc.max_streams: -1 is out of range",
        "hsmac.toml:11: token.a: it must be a table",
        "hsmac.toml:13: log.format: \"xml\" is no format; there are text and json",
        "hsmac.toml:14: log.level: nothing logs as \"x\"; there are hsmac, its parts such as hsmac::token, and h2, hyper, hyper_util, mio, rustls, scratchstack_aws_signature, tokio, tokio_rustls, tonic, tonic_health, tonic_reflection, tower, tracing, webpki",
    ];
    assert_eq!(found, expected);
}

#[test]
fn values_of_another_type_are_refused() {
    let text = GOOD.replace(
        "[grpc]",
        "[grpc]\nmax_streams = true\nmax_connections = 1.5\nreflection = true",
    );
    assert_eq!(
        faults(&text),
        [
            "hsmac.toml:5: grpc.max_streams: true stands where a text or a number is wanted",
            "hsmac.toml:6: grpc.max_connections: it must not be a fraction",
        ]
    );
}

#[test]
fn faults_of_rules_have_line_and_setting() {
    let text = GOOD
        .replace("us-west-2", "US West")
        .replace("region", "new_keys = \"primry\"\nregion")
        .replace("127.0.0.1:50051", "0.0.0.0:50051")
        .replace("pin_file = \"pin\"", "pin_file = \"pin\"\nhosts = 17")
        + "check_value = \"00112233445566778899aabbccddeeff00112233445566778899aabb\"\n\
           [[key]]\nkey_id = \"1234abcd-12ab-34cd-56ef-1234567890ab\"\nobject = \"pkcs11:object=a\"\n\
           key_spec = \"HMAC_256\"\ntoken = \"other\"\naliases = [\"alias/payments\",\n\"payments\"]\n";
    assert_eq!(
        faults(&text),
        [
            "hsmac.toml:2: new_keys: no token \"primry\"; did you mean \"primary\"?",
            "hsmac.toml:3: region: \"US West\" is no region: it must be lowercase letters, digits and -, as in us-west-2",
            "hsmac.toml:6: grpc.listen: other machines reach this address: set [grpc.tls] with certificate, key and client_ca, or listen on loopback or a Unix socket",
            "hsmac.toml:7: grpc.anonymous: callers without proof are allowed on loopback or a Unix socket only",
            "hsmac.toml:12: token.primary.hosts: 17 is out of range; it must be 1 to 16",
            "hsmac.toml:19: key[0].check_value: it has 56 hex digits; a key of HMAC_256 has 64",
            "hsmac.toml:21: key[1].key_id: 1234abcd-12ab-34cd-56ef-1234567890ab is there twice",
            "hsmac.toml:24: key[1].token: no token \"other\"; there are: primary",
            "hsmac.toml:25: key[1].aliases[0]: alias/payments is an alias of key[0] already",
            "hsmac.toml:26: key[1].aliases[1]: \"payments\" is no alias: it must be alias/ and letters, digits, /, _ and -, at most 256 characters",
        ]
    );
}

#[test]
fn several_tokens_must_be_told_apart() {
    let text = GOOD.replace(
        "[[key]]",
        "[token.second]\nuri = \"pkcs11:token=b?module-path=module.so\"\n[token.\"a b\"]\nuri = \"pkcs11:token=c?module-path=module.so\"\n[[key]]",
    );
    assert_eq!(
        faults(&text),
        [
            "hsmac.toml: new_keys: required, but not set: there are several tokens; name one",
            "hsmac.toml:14: token.a b: a token's name has only letters, digits, - and _",
            "hsmac.toml:16: key[0].token: required, but not set: there are several tokens; name one",
        ]
    );
}

#[test]
fn tokens_of_one_group_count_as_one_and_keys_name_the_group() {
    let second =
        "[token.second]\nuri = \"pkcs11:token=b?module-path=module.so\"\ngroup = \"pay\"\n[[key]]";
    let grouped = GOOD
        .replace("pin_file", "group = \"pay\"\npin_file")
        .replace("[[key]]", second);
    place(&grouped).load(&[], &[]).unwrap();
    let named = grouped.replace("key_spec", "token = \"pay\"\nkey_spec");
    place(&named).load(&[], &[]).unwrap();
    let member = grouped.replace("key_spec", "token = \"second\"\nkey_spec");
    assert_eq!(
        faults(&member),
        [
            "hsmac.toml:19: key[0].token: the token \"second\" belongs to the group \"pay\"; name the group"
        ]
    );
    let taken = grouped.replace("group = \"pay\"", "group = \"second\"");
    assert_eq!(
        faults(&taken),
        [
            "hsmac.toml:10: token.primary.group: \"second\" is a token's name; a group needs a name of its own",
            "hsmac.toml:15: token.second.group: \"second\" is a token's name; a group needs a name of its own",
        ]
    );
}

#[test]
fn tokens_of_one_group_agree_on_who_replicates() {
    let second = "[token.second]\nuri = \"pkcs11:token=b?module-path=module.so\"\ngroup = \"pay\"\n\
                  replicated_by = \"vendor\"\n[[key]]";
    let one = GOOD
        .replace("pin_file", "group = \"pay\"\npin_file")
        .replace("[[key]]", second);
    assert_eq!(
        faults(&one),
        [
            "hsmac.toml:8: token.primary.replicated_by: the token \"second\" of the same group does not say the same",
            "hsmac.toml:16: token.second.replicated_by: the token \"primary\" of the same group does not say the same",
        ]
    );
    let both = one.replace("pin_file", "replicated_by = \"vendor\"\npin_file");
    place(&both).load(&[], &[]).unwrap();
}

#[test]
fn module_and_pin_files_are_checked() {
    let place = place(GOOD);
    let pin = place.folder.path().join("pin");
    fs::remove_file(&pin).unwrap();
    fs::remove_file(place.folder.path().join("module.so")).unwrap();
    assert_eq!(
        place.faults(&[], &[]),
        [
            "hsmac.toml:9: token.primary.uri: the module module.so: no such file",
            "hsmac.toml:10: token.primary.pin_file: pin: no such file",
        ]
    );
    fs::create_dir(&pin).unwrap();
    assert!(place.faults(&[], &[])[1].ends_with("pin is not a regular file"));
}

#[test]
fn an_access_key_is_whole_and_of_one_principal() {
    let place = place(&format!("{GOOD}{BILLING}"));
    let (settings, warnings) = place.load(&[], &[]).unwrap();
    assert!(
        only_the_warning_of_missing_policies(&warnings),
        "{warnings:?}"
    );
    assert_eq!(
        settings.principal[0].secret_access_key_file,
        Some(place.folder.path().join("billing.secret"))
    );
    // Two access keys of one principal, while one takes the place of the other; and none at all.
    let second = BILLING.replace("AKIDEXAMPLE", "AKIDSECOND");
    let bare = "[[principal]]\narn = \"arn:aws:iam::111122223333:user/bare\"\n";
    let text = format!("{GOOD}{BILLING}{second}{bare}");
    self::place(&text).load(&[], &[]).unwrap();
    assert_eq!(
        faults(&format!(
            "{GOOD}{BILLING}{BILLING}{bare}access_key_id = \"A\"\n\
             {bare}secret_access_key_file = \"billing.secret\"\n"
        )),
        [
            "hsmac.toml:25: principal[1].access_key_id: AKIDEXAMPLE is the access key of principal[0] already",
            "hsmac.toml:27: principal[2].secret_access_key_file: required, but not set: access_key_id is of no use without it",
            "hsmac.toml:30: principal[3].access_key_id: required, but not set: secret_access_key_file is of no use without it",
        ]
    );
    assert_eq!(
        faults(&format!(
            "{GOOD}[[principal]]\n[[principal]]\narn = \"billing\"\n{bare}access_key_id = \"A/B\"\n"
        )),
        [
            "hsmac.toml:17: principal[0].arn: required, but not set",
            "hsmac.toml:19: principal[1].arn: \"billing\" is no principal ARN; write arn:aws:iam::ACCOUNT:user/NAME",
            "hsmac.toml:22: principal[2].access_key_id: \"A/B\" is no access key ID: it must be 1 to 128 letters, digits and _",
        ]
    );
}

#[test]
fn secret_access_key_files_are_checked() {
    let place = place(&format!("{GOOD}{BILLING}"));
    let secret = place.folder.path().join("billing.secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&secret, "too-short").unwrap();
    assert_eq!(
        place.faults(&[], &[]),
        [
            "hsmac.toml:21: principal[0].secret_access_key_file: billing.secret holds no secret access key: that is 40 printable characters, and nothing else but a line's end"
        ]
    );
    fs::remove_file(&secret).unwrap();
    assert_eq!(
        place.faults(&[], &[]),
        ["hsmac.toml:21: principal[0].secret_access_key_file: billing.secret: no such file"]
    );
    fs::create_dir(&secret).unwrap();
    assert!(place.faults(&[], &[])[0].ends_with("billing.secret is not a regular file"));
}

#[test]
fn secrets_that_others_can_read_are_refused_unless_the_settings_allow_them() {
    let text = format!("{GOOD}{BILLING}").replace(
        "pin_file = \"pin\"",
        "pin_file = \"pin\"\nnext_pin_file = \"next\"",
    );
    let place = place(&text);
    let path = |name: &str| place.folder.path().join(name);
    fs::write(path("next"), "4321").unwrap();
    for (name, mode) in [("pin", 0o644), ("next", 0o640), ("billing.secret", 0o606)] {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let told = [
        "hsmac.toml:10: token.primary.pin_file: pin has mode 0644: others than its owner can read or write the PIN; run chmod 0400 pin",
        "hsmac.toml:11: token.primary.next_pin_file: next has mode 0640: others than its owner can read or write the PIN; run chmod 0400 next",
        "hsmac.toml:22: principal[0].secret_access_key_file: billing.secret has mode 0606: others than its owner can read or write the secret; run chmod 0400 billing.secret",
    ];
    let refused = told.map(|told| format!("{told}; or set allow_readable_secrets = true"));
    assert_eq!(place.faults(&[], &[]), refused);

    let (_, warnings) = place
        .load(&[], &[("HSMAC__ALLOW_READABLE_SECRETS", "true")])
        .unwrap();
    let folder = format!("{}/", place.folder.path().display());
    let warnings = warnings
        .iter()
        .map(|warning| warning.to_string().replace(&folder, ""));
    let warnings: Vec<_> = warnings
        .filter(|warning| warning.contains("mode"))
        .collect();
    assert_eq!(warnings, told);
}

#[test]
fn risky_settings_are_warned_of() {
    let text = GOOD
        .replace("user/local", "root")
        .replace("token=hsmac", "slot-id=0");
    let (_, warnings) = place(&text).load(&[], &[]).unwrap();
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings[0].contains(":6: grpc.anonymous: callers without proof are the account's root")
    );
    assert!(warnings[1].contains(":9: token.primary.uri: slot-id alone names the token"));
}

#[test]
fn secrets_are_never_shown() {
    let text = GOOD.replace(
        "pin_file",
        "pin = \"s3cr3t\"\nuser_password = \"s3cr3t\"\npin_file",
    );
    let place = place(&format!("{text}{BILLING}secret_access_key = \"s3cr3t\"\n"));
    let found = place.faults(
        &[
            "token.primary.pin=s3cr3t",
            "token.primary.uri=pkcs1:token=a?pin-value=s3cr3t",
            "s3cr3t",
        ],
        &[
            ("HSMAC__TOKEN__PRIMARY__SECRET", "s3cr3t"),
            ("HSMAC_PIN", "s3cr3t"),
        ],
    );
    assert!(found.len() >= 6, "{found:#?}");
    assert!(!found.concat().contains("s3cr3t"), "{found:#?}");
}

#[test]
fn a_file_that_is_not_there() {
    let faults = Settings::load(Path::new("/nowhere/hsmac.toml"), &[], std::iter::empty())
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        faults.to_string(),
        "/nowhere/hsmac.toml: No such file or directory (os error 2)"
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = place(&text).load(&[], &[]);
    }

    #[test]
    fn no_toml_panics(
        lines in prop::collection::vec(
            r#"(account|region|key|token|grpc|"a\[99999999999\]"|"a.b"|grpc\.listen|token\.a|token\.a\.uri|log\.level) = (1|-1|1\.5|true|\[\]|\[1, "a"\]|\{\}|\{ a = 1 \}|"x"|2020-01-01)|\[(grpc|token|token\.a|log|key|aws)\]|\[\[(key|token|grpc|principal)\]\]|(uri|listen|hosts|key_id|object|aliases|env|arn|access_key_id|secret_access_key_file) = (1|"x"|\[5\]|\{ A = "b" \})"#,
            0..8,
        ),
        set in r"[a-z._=]{0,20}",
    ) {
        let _ = place(&lines.join("\n")).load(&[&set], &[("HSMAC__TOKEN__A__HOSTS", "x")]);
    }
}

#[test]
fn limits_are_of_principals_that_there_are_and_in_range() {
    let limits = r#"
[limits.default]
concurrent = 256
rates.create_key = { rate = 5 }
rates.cryptographic_operations_symmetric = { rate = 10000, burst = 20000 }
[[limits.principal]]
arn = "arn:aws:iam::111122223333:user/billing"
weight = 3
rates.create_key = { rate = 1, per = "4s" }
"#;
    let good = format!("{GOOD}{BILLING}{limits}");
    place(&good).load(&[], &[]).unwrap();
    for (right, wrong, said) in [
        (
            "rate = 5 ",
            "rate = 2000000 ",
            "limits.default.rates.create_key.rate: it must be 1 to",
        ),
        (
            "create_key = { rate = 5",
            "make_key = { rate = 5",
            "\"make_key\" is no quota; they are",
        ),
        (
            "burst = 20000",
            "burst = 0",
            "limits.default.rates.cryptographic_operations_symmetric.burst",
        ),
        ("burst", "bursts", "bursts"),
        (
            "weight = 3",
            "weight = 0",
            "limits.principal[0].weight: it must be 1 to 100",
        ),
        (
            "concurrent = 256",
            "concurrent = -1",
            "limits.default.concurrent",
        ),
        (
            "billing\"\nweight",
            "bill\"\nweight",
            "there is no [[principal]] with the arn",
        ),
        (
            "\"4s\"",
            "\"4ms\"",
            "limits.principal[0].rates.create_key.per: it must be 1s to 1h",
        ),
        (
            "[[limits.principal]]\n",
            "[[limits.principal]]\narn = \"arn:aws:iam::111122223333:user/billing\"\n[[limits.principal]]\n",
            "limits.principal[0] has the limits of this principal",
        ),
    ] {
        assert!(good.contains(right), "{right}");
        let found = place(&good.replacen(right, wrong, 1)).faults(&[], &[]);
        assert!(
            found.iter().any(|fault| fault.contains(said)),
            "{wrong}: {found:#?}"
        );
        assert_eq!(found.len(), 1, "{found:#?}");
    }
    let set = "limits.default.rates.create_key.rate=7";
    let (settings, _) = place(&good).load(&[set], &[]).unwrap();
    assert_ne!(
        settings.limits,
        place(&good).load(&[], &[]).unwrap().0.limits
    );
    let list = place(&good).faults(&["limits.principal.weight=7"], &[]);
    assert!(
        list[0].contains("does not reach the [[…]] lists"),
        "{list:?}"
    );
}
