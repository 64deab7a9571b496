//! hsmac.toml(5): the settings, as their own comments in the source say.
//!
//! The sources are compiled in, so that the page cannot say something else than they do.

use std::fmt::Write as _;

/// A section: how it is written in the file, the source that has it, and the struct that it is.
const SECTIONS: [(&str, &str, &str); 15] = [
    ("", include_str!("../config/mod.rs"), "Settings"),
    ("[grpc]", FRONT, "GrpcSettings"),
    ("[grpc.tls], [aws.tls]", FRONT, "TlsSettings"),
    ("[aws]", FRONT, "AwsSettings"),
    ("[[principal]]", FRONT, "PrincipalSettings"),
    ("[limits.default]", LIMITS, "DefaultLimits"),
    ("[[limits.principal]]", LIMITS, "OwnLimits"),
    (
        "[token.NAME]",
        include_str!("../token/settings.rs"),
        "Settings",
    ),
    (
        "[store.sqlite]",
        include_str!("../store/settings.rs"),
        "SqliteSettings",
    ),
    ("[audit]", include_str!("../audit/settings.rs"), "Settings"),
    ("[[key]]", include_str!("../kms/settings.rs"), "DeclaredKey"),
    (
        "[organization]",
        include_str!("../model/principal.rs"),
        "Organization",
    ),
    ("[admin]", include_str!("../admin/settings.rs"), "Settings"),
    ("[log]", include_str!("../telemetry/mod.rs"), "Settings"),
    (
        "[traces]",
        include_str!("../telemetry/traces/mod.rs"),
        "Settings",
    ),
];
const FRONT: &str = include_str!("../front/settings.rs");
const LIMITS: &str = include_str!("../front/limits/settings.rs");

/// The page, in roff.
pub(super) fn page() -> String {
    let mut page = format!(
        ".TH hsmac.toml 5 \"\" \"hsmac {}\"\n.SH NAME\nhsmac.toml \\- the configuration of hsmac\n.SH DESCRIPTION\n",
        env!("CARGO_PKG_VERSION")
    );
    page.push_str(
        "TOML. Every setting but those of the lists may be given in the environment too, as \
         HSMAC__SECTION__KEY, and by \\-\\-set section.key=value, which counts most. Paths are relative to the \
         file's folder, times are texts such as \"10s\" or \"250ms\".\n",
    );
    for (section, source, name) in SECTIONS {
        let settings = settings_of(source, name);
        let heading = if section.is_empty() {
            "TOP LEVEL"
        } else {
            section
        };
        // A String takes every text.
        let _ = writeln!(page, ".SH \"{}\"", escaped(heading));
        for (setting, comment) in settings {
            // Tables have sections of their own.
            if comment.starts_with("`[") && !comment.contains(' ') {
                continue;
            }
            let _ = writeln!(
                page,
                ".TP\n\\fB{}\\fR\n{}",
                escaped(&setting),
                escaped(&comment)
            );
        }
    }
    page.push_str(".SH SEE ALSO\nhsmac(1), hsmac\\-check(1), hsmac\\-serve(1)\n");
    page
}

/// The public fields of a struct, each with its comment in one line.
fn settings_of(source: &str, name: &str) -> Vec<(String, String)> {
    let opening = format!("pub struct {name} {{");
    let body = source.split_once(&opening).map_or("", |(_, body)| body);
    let body = body.split_once("\n}").map_or("", |(body, _)| body);
    let (mut settings, mut comment) = (Vec::new(), String::new());
    for line in body.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            if !comment.is_empty() {
                comment.push(' ');
            }
            comment.push_str(words.trim());
        } else if let Some(field) = line.strip_prefix("pub ")
            && let Some((field, _)) = field.split_once(':')
        {
            settings.push((field.to_owned(), std::mem::take(&mut comment)));
        } else if !line.starts_with('#') && !line.is_empty() {
            comment.clear();
        }
    }
    settings
}

/// As roff wants it: no escape but ours, no line that is a request.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_section_has_settings_and_each_setting_a_comment() {
        for (section, source, name) in SECTIONS {
            let settings = settings_of(source, name);
            assert!(!settings.is_empty(), "{section}: no {name} in its source");
            for (setting, comment) in settings {
                assert!(!comment.is_empty(), "{section} {setting}");
            }
        }
        let page = page();
        assert!(
            page.contains("\\fBdrain_timeout\\fR\nHow long calls in flight"),
            "{page}"
        );
        assert!(
            !page.lines().any(|line| line.starts_with("\\fBgrpc\\fR")),
            "{page}"
        );
    }

    #[test]
    fn what_roff_would_obey_is_escaped() {
        assert_eq!(escaped(".TH a\\b-c"), "\\&.TH a\\eb\\-c");
    }
}
