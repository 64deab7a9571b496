//! What a client takes from the environment and from a file of profiles, where the command line says nothing.
//!
//! `HSMAC_ENDPOINT`, `HSMAC_CA_BUNDLE`, `HSMAC_CERTIFICATE`, `HSMAC_KEY` count more than the profile, and the command
//! line counts more than both. The file is `$HSMAC_PROFILES`, else `$XDG_CONFIG_HOME/hsmac/profiles.toml`, else
//! `~/.config/hsmac/profiles.toml`; the profile is `--profile`, else `$HSMAC_PROFILE`, else `default`.

use std::{
    collections::BTreeMap,
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Alpn, Endpoint, Server, TlsFlags};

/// A server, as one profile names it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Profile {
    endpoint: Option<String>,
    ca_bundle: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// The server that a client means: by what was typed, by the environment, by its profile.
///
/// # Errors
/// A sentence: there is no such profile, the file of profiles is wrong, an endpoint is none, or what
/// [`Server::new`] says.
pub(in crate::cli) fn server(
    endpoint: Option<&Endpoint>,
    tls: &TlsFlags,
    profile: Option<&str>,
    alpn: Alpn,
) -> Result<Server, String> {
    let variable = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
    let profile = chosen(profile.map(str::to_owned), &variable)?;
    let endpoint = match (endpoint, variable("HSMAC_ENDPOINT"), &profile.endpoint) {
        (Some(typed), _, _) => typed.clone(),
        (None, Some(text), _) => text
            .parse()
            .map_err(|fault| format!("HSMAC_ENDPOINT: {fault}"))?,
        (None, None, Some(text)) => text
            .parse()
            .map_err(|fault| format!("the profile's endpoint: {fault}"))?,
        (None, None, None) => Endpoint::usual(),
    };
    let mut tls = tls.clone();
    // What is not typed is for endpoints that have a use for it.
    if endpoint.is_tls() {
        let file = |name: &str| variable(name).map(PathBuf::from);
        let or = |typed: Option<PathBuf>, name: &str, of_profile: Option<PathBuf>| {
            typed.or_else(|| file(name)).or(of_profile)
        };
        // A certificate and a key belong together: those of one place, not one of each.
        if tls.certificate.is_none() && tls.key.is_none() {
            let pair = (file("HSMAC_CERTIFICATE"), file("HSMAC_KEY"));
            (tls.certificate, tls.key) = match pair {
                (None, None) => (profile.certificate, profile.key),
                pair => pair,
            };
        }
        tls.ca_bundle = or(tls.ca_bundle, "HSMAC_CA_BUNDLE", profile.ca_bundle);
    }
    Server::new(endpoint, &tls, alpn)
}

fn chosen(
    typed: Option<String>,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Profile, String> {
    let named = typed.or_else(|| variable("HSMAC_PROFILE"));
    let file = variable("HSMAC_PROFILES").map(PathBuf::from).or_else(|| {
        let folder = variable("XDG_CONFIG_HOME").map(PathBuf::from);
        let folder = folder.or_else(|| Some(Path::new(&variable("HOME")?).join(".config")));
        Some(folder?.join("hsmac/profiles.toml"))
    });
    let Some(file) = file else {
        return match named {
            Some(name) => Err(format!(
                "profile {name}: HSMAC_PROFILES names no file of profiles"
            )),
            None => Ok(Profile::default()),
        };
    };
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        // Most have none.
        Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => {
            return Ok(Profile::default());
        }
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    read(&text, &file, named.as_deref())
}

fn read(text: &str, file: &Path, named: Option<&str>) -> Result<Profile, String> {
    let wrong = |text: String| format!("{}: {text}", file.display());
    let source = config::File::from_str(text, config::FileFormat::Toml);
    let profiles: BTreeMap<String, Profile> = config::Config::builder()
        .add_source(source)
        .build()
        .and_then(config::Config::try_deserialize)
        .map_err(|error| wrong(error.to_string()))?;
    let beside = file.parent().unwrap_or_else(|| Path::new("/"));
    let found = profiles.get(named.unwrap_or("default")).cloned();
    match (found, named) {
        (Some(mut profile), _) => {
            let files = [
                &mut profile.ca_bundle,
                &mut profile.certificate,
                &mut profile.key,
            ];
            for path in files.into_iter().flatten() {
                *path = beside.join(&*path);
            }
            Ok(profile)
        }
        (None, None) => Ok(Profile::default()),
        (None, Some(name)) => {
            let known: Vec<&str> = profiles.keys().map(String::as_str).collect();
            Err(wrong(format!(
                "there is no profile {name}; there is {}",
                known.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[default]\nendpoint = \"unix:/run/hsmac/grpc.sock\"\n\
        [dc1]\nendpoint = \"https://hsmac.dc1.example:50051\"\nca_bundle = \"dc1.pem\"\n\
        certificate = \"/etc/me.pem\"\nkey = \"/etc/me.key\"\n";

    #[test]
    fn a_profile_names_a_server_and_files_beside_it() {
        let file = Path::new("/home/me/.config/hsmac/profiles.toml");
        let named = read(FILE, file, Some("dc1")).unwrap();
        assert_eq!(
            named.endpoint.as_deref(),
            Some("https://hsmac.dc1.example:50051")
        );
        let bundle = named.ca_bundle.unwrap();
        assert_eq!(bundle, Path::new("/home/me/.config/hsmac/dc1.pem"));
        assert_eq!(named.key.unwrap(), Path::new("/etc/me.key"));
        let usual = read(FILE, file, None).unwrap();
        assert_eq!(usual.endpoint.as_deref(), Some("unix:/run/hsmac/grpc.sock"));
        assert_eq!(read("", file, None), Ok(Profile::default()));
        let missing = read(FILE, file, Some("dc2")).unwrap_err();
        assert!(
            missing.ends_with("there is no profile dc2; there is dc1, default"),
            "{missing}"
        );
        let wrong = read("[default]\nendpiont = \"x\"\n", file, None).unwrap_err();
        assert!(wrong.contains("endpiont"), "{wrong}");
    }

    #[test]
    fn a_profile_that_is_named_must_be_there_and_the_usual_one_need_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hsmac/profiles.toml");
        let variable = |name: &str| {
            let home = folder.path().display().to_string();
            (name == "XDG_CONFIG_HOME").then_some(home)
        };
        assert_eq!(chosen(None, &variable), Ok(Profile::default()));
        assert!(chosen(Some("dc1".into()), &variable).is_err());
        fs::create_dir(folder.path().join("hsmac")).unwrap();
        fs::write(&path, FILE).unwrap();
        assert!(chosen(None, &variable).unwrap().endpoint.is_some());
        assert!(chosen(Some("dc1".into()), &variable).unwrap().key.is_some());
    }
}
