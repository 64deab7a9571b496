//! Every line of the log at info and above names its event, and `docs/events.md` says of each event at which
//! levels it is logged, with which fields, and what is to be done.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::sources;

/// What is known of an event.
#[derive(Debug, Default, Eq, PartialEq)]
struct Known {
    levels: BTreeSet<String>,
    fields: BTreeSet<String>,
}

#[test]
fn every_line_at_info_and_above_is_an_event_of_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut logged: BTreeMap<String, Known> = BTreeMap::new();
    let mut nameless = Vec::new();
    for file in sources() {
        for (level, parts) in records(&file.text) {
            let event = parts.first().and_then(|part| {
                let name = part.strip_prefix("event = \"")?;
                Some(name.strip_suffix('"')?.to_owned())
            });
            let Some(event) = event else {
                nameless.push(format!("{}: {level}: {}", file.path, parts.join(", ")));
                continue;
            };
            let known = logged.entry(event).or_default();
            known.levels.insert(level);
            known
                .fields
                .extend(parts[1..].iter().filter_map(|part| field(part)));
        }
    }
    assert!(
        nameless.is_empty(),
        "these name no event:\n{}",
        nameless.join("\n")
    );
    assert!(
        logged.len() > 50,
        "the scanner has lost its way: {}",
        logged.len()
    );

    let table = fs::read_to_string(root.join("docs/events.md")).unwrap();
    let told = told(&table);
    let names = |events: &BTreeMap<String, Known>| events.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(
        names(&logged),
        names(&told),
        "events of the code, and of the table"
    );
    for (event, known) in &logged {
        assert_eq!(
            known, &told[event],
            "{event}: in the code, and in the table"
        );
    }
}

/// The level and the comma-separated parts of each `info!`, `warn!` and `error!` outside of tests.
fn records(text: &str) -> Vec<(String, Vec<String>)> {
    // A test module at the end may log what it likes; one that is a file of its own is only named.
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let text = &text[..end];
    let mut found = Vec::new();
    for level in ["error", "warn", "info"] {
        let opening = format!("{level}!(");
        for (at, _) in text.match_indices(&opening) {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            let line = text[..at].rsplit('\n').next().unwrap_or_default();
            // Another macro's name ends in the same way, or it is a comment.
            if before.is_alphanumeric() || before == '_' || line.trim_start().starts_with("//") {
                continue;
            }
            found.push((level.to_owned(), parts(&text[at + opening.len()..])));
        }
    }
    found
}

/// What stands between the commas, up to the parenthesis that closes.
fn parts(text: &str) -> Vec<String> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for letter in text.chars() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(letter);
    }
    parts.push(part);
    let parts = parts.into_iter().map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

/// The name of a field; none: it is the message, or what is put into it.
fn field(part: &str) -> Option<String> {
    let name = part.split('=').next().unwrap_or(part).trim();
    let name = name.trim_start_matches(['%', '?']);
    let is_name = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter == '_')
    };
    is_name(name).then(|| name.to_owned())
}

/// The rows of the table: `| event | LEVEL | fields | … |`.
fn told(table: &str) -> BTreeMap<String, Known> {
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let words = |cell: &str| -> BTreeSet<String> {
        let words = cell.split(',').map(|word| word.trim().trim_matches('`'));
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(
            cells.len(),
            7,
            "event, level, fields, meaning, what to do: {row}"
        );
        let known = Known {
            levels: words(&cells[2].to_lowercase()),
            fields: words(cells[3]),
        };
        (cells[1].trim_matches('`').to_owned(), known)
    })
    .collect()
}

#[test]
fn the_scanner_sees_what_is_wrong() {
    let text = "fn f() {\n    warn!(event = \"full\", %path, n = g(1, 2), ?x, name, \"a, ({\\\" b\");\n}\n";
    let found = records(text);
    assert_eq!(found.len(), 1);
    let fields: Vec<String> = found[0].1[1..]
        .iter()
        .filter_map(|part| field(part))
        .collect();
    assert_eq!(fields, ["path", "n", "x", "name"]);
    let table = "| `full` | WARN, ERROR | path, n | The disk. | Make room. |\n| other |\n";
    let told = told(table);
    assert_eq!(told.len(), 1);
    assert!(told["full"].levels.contains("warn") && !told["full"].fields.contains("x"));
}
