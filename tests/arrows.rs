//! The source tree has rooms and arrows (`src/lib.rs` draws them): which room may use which, and inside
//! the big rooms, which part may use which.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read its sources has failed"
)]

mod events;

use std::{fs, path::Path};

/// Each room with the rooms that it may use. Sources outside of these rooms fail the test.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    // `token_host` for its entry points alone; `proto` since `kms` and `bench` are clients.
    (
        "cli",
        &[
            "admin",
            "app",
            "audit",
            "config",
            "kms",
            "model",
            "proto",
            "store",
            "telemetry",
            "token",
            "token_host",
        ],
    ),
    (
        "app",
        &[
            "admin",
            "audit",
            "config",
            "front",
            "kms",
            "model",
            "store",
            "telemetry",
            "token",
        ],
    ),
    (
        "admin",
        &[
            "audit",
            "error",
            "front",
            "kms",
            "metrics",
            "telemetry",
            "token",
        ],
    ),
    // Parts own their settings; this composes them.
    (
        "config",
        &[
            "admin",
            "audit",
            "front",
            "kms",
            "model",
            "store",
            "telemetry",
            "token",
        ],
    ),
    (
        "front",
        &[
            "audit",
            "error",
            "kms",
            "metrics",
            "model",
            "proto",
            "telemetry",
        ],
    ),
    (
        "kms",
        &[
            "audit",
            "error",
            "metrics",
            "model",
            "store",
            "telemetry",
            "token",
        ],
    ),
    ("audit", &["error", "metrics", "model", "proto"]),
    ("store", &["error", "metrics", "model"]),
    (
        "token",
        &["metrics", "model", "proto", "host_ipc", "telemetry"],
    ),
    ("token_host", &["model", "proto", "host_ipc"]),
    ("telemetry", &["metrics"]),
    ("metrics", &[]),
    ("host_ipc", &["proto"]),
    ("proto", &[]),
    ("error", &[]),
    ("model", &[]),
    ("lib", &[]),
];

/// The parts of big rooms from the top down: each may use those that stand below it in its list.
/// `mod` is the room's own page, which names what the room offers: nothing inside uses it.
const PARTS: &[(&str, &[&str])] = &[
    (
        "front",
        &[
            "mod",
            "fuzz",
            "grpc",
            "aws",
            "listener",
            "auth",
            "tls",
            "receive_budget",
            "recording",
            "metrics",
            "limits",
            "settings",
            "recent",
            "call",
            "log_limit",
        ],
    ),
    (
        "kms",
        &[
            "mod",
            "tools",
            "operations",
            "overview",
            "key_watch",
            "service",
            "lifecycle",
            "authorization",
            "groups",
            "catalogue",
            "serving",
            "metrics",
            "settings",
            "principals",
            "policy_documents",
            "grant_token",
            "errors",
        ],
    ),
    (
        "token",
        &[
            "mod",
            "roster",
            "host",
            "dispatch",
            "metrics",
            "status",
            "settings",
            "uri",
            "key",
            "simulated",
            "level",
            "locks",
        ],
    ),
];

#[test]
fn every_arrow_is_allowed() {
    let mut arrows = 0;
    let mut faults = Vec::new();
    for file in sources() {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == file.room()) else {
            faults.push(format!("{}: {} is no room", file.path, file.room()));
            continue;
        };
        for used in file.uses() {
            let target = used[0].as_str();
            arrows += usize::from(target != file.room());
            // Names of the crate's root are macros.
            let is_room = ARROWS.iter().any(|(name, _)| *name == target);
            if is_room && target != file.room() && !allowed.contains(&target) {
                faults.push(format!("{}: {} uses {target}", file.path, file.room()));
            }
        }
    }
    assert!(faults.is_empty(), "illegal arrows:\n{}", faults.join("\n"));
    assert!(arrows > 200, "the walk saw {arrows} arrows only");
}

#[test]
fn no_arrow_inside_a_room_runs_back_up() {
    let mut arrows = 0;
    let mut faults = Vec::new();
    for (room, parts) in PARTS {
        let place = |part: &str| parts.iter().position(|known| *known == part);
        for file in sources().iter().filter(|file| file.room() == *room) {
            let part = file.part();
            if matches!(part, "testing" | "simulation") {
                continue;
            }
            let Some(from) = place(part) else {
                faults.push(format!("{}: {part} is no part of {room}", file.path));
                continue;
            };
            for used in file.uses().iter().filter(|used| used[0] == *room) {
                // What is not a module of its own is the room's page.
                let target = used.get(1).map_or("mod", String::as_str);
                let target = place(target).map_or("mod", |at| parts[at]);
                let to = place(target).unwrap();
                arrows += usize::from(target != part);
                if to < from {
                    faults.push(format!("{}: {part} uses {target}", file.path));
                }
            }
        }
    }
    assert!(faults.is_empty(), "illegal arrows:\n{}", faults.join("\n"));
    assert!(arrows > 50, "the walk saw {arrows} arrows only");
}

#[test]
fn unsafe_code_is_in_one_file() {
    let with_unsafe: Vec<_> = sources()
        .into_iter()
        .filter(|file| {
            file.text
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains("unsafe {"))
        })
        .map(|file| file.path)
        .collect();
    assert_eq!(with_unsafe, ["token_host/raw.rs"]);
}

#[test]
fn every_file_has_a_page() {
    for file in sources() {
        assert!(file.text.starts_with("//!"), "{} has no page", file.path);
    }
}

/// One file of `src/`.
struct Source {
    /// Below `src/`.
    path: String,
    text: String,
}

impl Source {
    fn module(&self) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        path.split('/').map(str::to_owned).collect()
    }

    fn room(&self) -> &str {
        let end = self.path.find(['/', '.']).unwrap();
        &self.path[..end]
    }

    fn part(&self) -> &str {
        let inside = self.path[self.room().len()..].trim_start_matches('/');
        &inside[..inside.find(['/', '.']).unwrap_or(inside.len())]
    }

    /// Everything of the crate that the file names, by its whole path: after `crate::`, `super::` and
    /// `self::`, in `use` lines, braces and paths alike. Tests may name what they like.
    fn uses(&self) -> Vec<Vec<String>> {
        let module = self.module();
        if module
            .iter()
            .any(|part| matches!(part.as_str(), "tests" | "testing" | "fuzz"))
        {
            return Vec::new();
        }
        let mut code = String::new();
        for line in self.text.lines() {
            if line == "#[cfg(test)]" {
                break;
            }
            code.push_str(line.split("//").next().unwrap());
            code.push('\n');
        }
        let mut found = Vec::new();
        for start in ["crate::", "super::", "self::"] {
            for (at, _) in code.match_indices(start) {
                // `super::super::` and `pub(in crate::…)` are no use of their own.
                if code[..at].ends_with("::") || code[..at].ends_with("in ") {
                    continue;
                }
                let mut paths = Vec::new();
                tree(&code[at..], &mut Vec::new(), &mut paths);
                found.extend(paths.into_iter().filter_map(|path| whole(&module, path)));
            }
        }
        found
    }
}

/// Reads `a::{b, c::d}` as the paths a::b and a::c::d; gives the rest of the text.
fn tree<'a>(text: &'a str, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            match rest.strip_prefix('}') {
                Some(after) => return after,
                None if rest.is_empty() => return rest,
                None => rest = tree(rest, prefix, paths),
            }
        }
    }
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if word.is_empty() {
        return text.get(1..).unwrap_or_default();
    }
    prefix.push(word.to_owned());
    let rest = match rest.strip_prefix("::") {
        Some(more) => tree(more, prefix, paths),
        None => {
            paths.push(prefix.clone());
            rest
        }
    };
    prefix.pop();
    rest
}

/// The path from the crate's root on.
fn whole(module: &[String], path: Vec<String>) -> Option<Vec<String>> {
    let mut base = match path[0].as_str() {
        "crate" => Vec::new(),
        _ => module.to_vec(),
    };
    for word in path {
        match word.as_str() {
            "crate" | "self" => {}
            "super" => {
                base.pop();
            }
            _ => base.push(word),
        }
    }
    (!base.is_empty()).then_some(base)
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &src, &mut files);
    assert!(files.len() > 150, "the walk saw {} files only", files.len());
    files
}

fn collect(src: &Path, folder: &Path, files: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(src, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(Source {
                path: path.strip_prefix(src).unwrap().display().to_string(),
                text: fs::read_to_string(&path).unwrap(),
            });
        }
    }
}

#[test]
fn use_trees_are_read_whole() {
    let mut paths = Vec::new();
    let text = "crate::{\n    error::Error,\n    kms::{a::B, c},\n};\n other::D";
    let rest = tree(text, &mut Vec::new(), &mut paths);
    assert_eq!(rest, ";\n other::D");
    let paths: Vec<_> = paths.iter().map(|path| path.join("::")).collect();
    assert_eq!(
        paths,
        ["crate::error::Error", "crate::kms::a::B", "crate::kms::c"]
    );
    let module = ["kms", "operations", "mac"].map(str::to_owned);
    let path = ["super", "super", "errors", "internal"].map(str::to_owned);
    assert_eq!(
        whole(&module, path.to_vec()).unwrap(),
        ["kms", "errors", "internal"]
    );
}
