//! Levels of the log: which there are, which parts may have their own, and what a wrong one was meant to be.

use std::fmt;

use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// What is logged: a level for hsmac, and others for parts of it or for libraries.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct Level {
    text: String,
    directives: Vec<(String, LevelFilter)>,
}

impl Default for Level {
    fn default() -> Self {
        Self {
            text: "info".to_owned(),
            directives: vec![(HSMAC.to_owned(), LevelFilter::INFO)],
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Level {
    /// What the subscriber looks at. A target's own directive counts more than that of what is around it;
    /// of two for one target the later counts. What nobody names is silent: `debug` is about hsmac alone.
    pub(super) fn targets(&self) -> Targets {
        Targets::new().with_targets(self.directives.iter().cloned())
    }
}

impl TryFrom<String> for Level {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut directives = vec![(HSMAC.to_owned(), LevelFilter::INFO)];
        for directive in text.split(',').map(str::trim) {
            directives.push(match directive.split_once('=') {
                None => (HSMAC.to_owned(), level(directive, &LEVELS)?),
                Some((name, of)) => (target(name.trim())?, level(of.trim(), &WITH_OFF)?),
            });
        }
        Ok(Self { text, directives })
    }
}

fn level(text: &str, known: &[&str]) -> Result<LevelFilter, String> {
    if let Some(index) = known.iter().position(|one| text.eq_ignore_ascii_case(one)) {
        return Ok(FILTERS[index]);
    }
    Err(match nearest(text, known.iter().copied()) {
        Some(right) => format!("{text:?} is no level; did you mean {right}?"),
        None => format!("{text:?} is no level; there are {}", known.join(", ")),
    })
}

fn target(name: &str) -> Result<String, String> {
    let known = || PARTS.into_iter().chain(LIBRARIES);
    // Of a library any part may be named: which there are is its own affair.
    let is_inside = |library: &str| {
        let rest = name.strip_prefix(library);
        rest.is_some_and(|rest| rest.starts_with("::"))
    };
    if known().any(|one| one == name) || LIBRARIES.into_iter().any(is_inside) {
        return Ok(name.to_owned());
    }
    Err(match nearest(name, known()) {
        Some(right) => format!("nothing logs as {name:?}; did you mean {right}?"),
        None => format!(
            "nothing logs as {name:?}; there are hsmac, its parts such as hsmac::token, and {}",
            LIBRARIES.join(", ")
        ),
    })
}

fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    known
        .map(|name| (strsim::jaro_winkler(&wrong, name), name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

const HSMAC: &str = "hsmac";
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
/// A part may be silent; all of hsmac may not: its faults would be told to nobody.
const WITH_OFF: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
/// In the order of the names above.
const FILTERS: [LevelFilter; 6] = [
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
    LevelFilter::OFF,
];

/// hsmac, its rooms, and the parts of big rooms that log.
const PARTS: [&str; 25] = [
    "hsmac",
    "hsmac::admin",
    "hsmac::app",
    "hsmac::cli",
    "hsmac::config",
    "hsmac::front",
    "hsmac::front::auth",
    "hsmac::front::aws",
    "hsmac::front::grpc",
    "hsmac::front::listener",
    "hsmac::front::tls",
    "hsmac::kms",
    "hsmac::kms::authorization",
    "hsmac::kms::catalogue",
    "hsmac::kms::lifecycle",
    "hsmac::kms::operations",
    "hsmac::store",
    "hsmac::store::sqlite",
    "hsmac::telemetry",
    "hsmac::token",
    "hsmac::token::dispatch",
    "hsmac::token::host",
    "hsmac::token::host::pin",
    "hsmac::token::key",
    "hsmac::token_host",
];

/// Security: these libraries read what peers send, and some log a line for each frame or header that
/// they dislike. A peer without a proof must not be able to fill the log: they are silent unless named.
const LIBRARIES: [&str; 14] = [
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "rustls",
    "scratchstack_aws_signature",
    "tokio",
    "tokio_rustls",
    "tonic",
    "tonic_health",
    "tonic_reflection",
    "tower",
    "tracing",
    "webpki",
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    fn read(text: &str) -> Result<Level, String> {
        Level::try_from(text.to_owned())
    }

    #[test]
    fn a_level_is_a_level_and_those_of_parts() {
        for good in [
            "info",
            "DEBUG",
            "info,hsmac=debug",
            "hsmac::token=trace",
            "warn, h2::proto=debug,hsmac::front::aws=off",
        ] {
            assert!(read(good).is_ok(), "{good}");
        }
        for (wrong, said) in [
            ("warning", "\"warning\" is no level; did you mean warn?"),
            ("wran", "\"wran\" is no level; did you mean warn?"),
            ("Infos", "\"Infos\" is no level; did you mean info?"),
            (
                "",
                "\"\" is no level; there are error, warn, info, debug, trace",
            ),
            (
                "info,",
                "\"\" is no level; there are error, warn, info, debug, trace",
            ),
            (
                "off",
                "\"off\" is no level; there are error, warn, info, debug, trace",
            ),
            (
                "hsmac=loud",
                "\"loud\" is no level; there are error, warn, info, debug, trace, off",
            ),
            ("hsmc=info", "nothing logs as \"hsmc\"; did you mean hsmac?"),
            (
                "info,hsmac::tokn=debug",
                "nothing logs as \"hsmac::tokn\"; did you mean hsmac::token?",
            ),
            ("h2x=debug", "nothing logs as \"h2x\"; did you mean h2?"),
        ] {
            assert_eq!(read(wrong).unwrap_err(), said);
        }
        let unknown = read("postgres=debug").unwrap_err();
        assert!(unknown.contains("there are hsmac, its parts such as hsmac::token, and h2"));
    }

    #[test]
    fn libraries_are_silent_unless_the_operator_names_them() {
        for (level, ours, pings, header) in [
            ("info", true, false, false),
            ("trace", true, false, false),
            ("warn,hsmac=debug", true, false, false),
            ("h2=warn,info", true, true, false),
            ("h2::proto=warn,error", false, true, false),
            ("hyper=error,hsmac=error", false, false, true),
        ] {
            let targets = read(level).unwrap().targets();
            let warn = tracing::Level::WARN;
            assert_eq!(targets.would_enable("hsmac::token", &warn), ours, "{level}");
            let told = targets.would_enable("h2::proto::ping_pong", &warn);
            assert_eq!(told, pings, "{level}");
            let told = targets.would_enable("hyper::proto::h1", &tracing::Level::ERROR);
            assert_eq!(told, header, "{level}");
        }
    }

    #[test]
    fn a_level_for_a_part_alone_leaves_the_rest_at_info() {
        let targets = read("hsmac::token=debug").unwrap().targets();
        let told = |target, level| targets.would_enable(target, &level);
        assert!(told("hsmac::token::host", tracing::Level::DEBUG));
        assert!(told("hsmac::store", tracing::Level::INFO));
        assert!(!told("hsmac::store", tracing::Level::DEBUG));
    }

    /// The modules of a folder, each as its path in Rust.
    fn modules(folder: &Path, name: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let part = path.file_stem().unwrap().to_str().unwrap();
            let module = format!("{name}::{part}");
            if path.is_dir() {
                modules(&path, &module, found);
            }
            found.insert(module);
        }
    }

    #[test]
    fn every_part_that_may_be_named_is_there() {
        let mut found = BTreeSet::from([HSMAC.to_owned()]);
        modules(
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")),
            HSMAC,
            &mut found,
        );
        for part in PARTS {
            assert!(found.contains(part), "{part}");
        }
    }
}
