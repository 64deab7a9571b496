//! The house has rooms and arrows (`src/lib.rs` draws them): which room may use which.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read its sources has failed"
)]

use std::{collections::BTreeMap, fs, path::Path};

/// Each room with the rooms that it may use. Sources outside of these rooms fail the test.
const ARROWS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    // `token_host` for its entry points alone; `proto` since `kms` and `bench` are clients.
    (
        "cli",
        &[
            "app",
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
    ("app", &["config", "front", "kms", "store", "token"]),
    // Parts own their settings; this composes them.
    (
        "config",
        &["front", "kms", "model", "store", "telemetry", "token"],
    ),
    ("front", &["error", "kms", "model", "proto"]),
    ("kms", &["error", "model", "store", "token"]),
    ("store", &["error", "model"]),
    ("token", &["model", "proto", "wire"]),
    ("token_host", &["model", "proto", "wire"]),
    ("telemetry", &[]),
    ("wire", &["proto"]),
    ("proto", &[]),
    ("error", &[]),
    ("model", &[]),
    ("lib", &[]),
];

#[test]
fn every_arrow_is_allowed() {
    let mut used = BTreeMap::new();
    walk(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path(),
        &mut used,
    );
    let mut faults = Vec::new();
    for ((room, target), file) in &used {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| name == room) else {
            faults.push(format!("{file}: {room} is no room of the house"));
            continue;
        };
        if room != target && !allowed.contains(&target.as_str()) {
            faults.push(format!("{file}: {room} uses {target}"));
        }
    }
    assert!(faults.is_empty(), "illegal arrows:\n{}", faults.join("\n"));
    assert!(used.len() > 20, "the walk saw {} arrows only", used.len());
}

#[test]
fn unsafe_code_is_in_one_file() {
    let mut files = Vec::new();
    sources(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src").as_path(),
        &mut files,
    );
    let with_unsafe: Vec<_> = files
        .iter()
        .filter(|file| {
            let text = fs::read_to_string(file).unwrap();
            text.lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains("unsafe {"))
        })
        .collect();
    assert_eq!(with_unsafe.len(), 1, "{with_unsafe:?}");
    assert!(with_unsafe[0].ends_with("src/token_host/raw.rs"));
}

fn walk(src: &Path, used: &mut BTreeMap<(String, String), String>) {
    let mut files = Vec::new();
    sources(src, &mut files);
    for file in files {
        let inside = file.strip_prefix(src).unwrap();
        let first = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_string_lossy();
        let room = first.trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).unwrap();
        // Every mention of `crate::room`, in `use` lines, braces and paths alike.
        for (_, rest) in text
            .match_indices("crate::")
            .map(|(at, found)| text.split_at(at + found.len()))
        {
            for target in targets(rest) {
                used.entry((room.clone(), target))
                    .or_insert_with(|| inside.display().to_string());
            }
        }
        if room == "main" {
            used.insert((room, "cli".into()), inside.display().to_string());
        }
    }
}

/// `a::…` names a; `{a::…, b}` names a and b.
fn targets(rest: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect()
    };
    let Some(list) = rest.strip_prefix('{') else {
        return vec![word(rest)]
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect();
    };
    let mut depth = 0;
    let mut found = vec![word(list)];
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.push(word(&list[at + 1..])),
            _ => {}
        }
    }
    found.retain(|word| !word.is_empty());
    found
}

fn sources(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
