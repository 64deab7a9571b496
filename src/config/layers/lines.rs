//! The line of the file at which each setting stands.

use std::collections::BTreeMap;

use toml_edit::{Item, TableLike};

/// Records the line of every setting of the file.
pub(super) fn record_lines(
    text: &str,
    path: &str,
    table: &dyn TableLike,
    lines: &mut BTreeMap<String, usize>,
) {
    for (name, item) in table.iter() {
        let path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        let key = table.key(name).and_then(toml_edit::Key::span);
        // The line of a table's header, not that of the first mention of its name.
        let span = match item {
            Item::Table(table) => table.span().or(key),
            Item::None | Item::Value(_) | Item::ArrayOfTables(_) => key.or_else(|| item.span()),
        };
        if let Some(span) = span {
            lines.insert(path.clone(), line_of(text, span.start));
        }
        if let Some(table) = item.as_table_like() {
            record_lines(text, &path, table, lines);
        }
        if let Some(tables) = item.as_array_of_tables() {
            for (index, table) in tables.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if let Some(span) = table.span() {
                    lines.insert(path.clone(), line_of(text, span.start));
                }
                record_lines(text, &path, table, lines);
            }
        }
        for (index, value) in item.as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}[{index}]");
            if let Some(span) = value.span() {
                lines.insert(path.clone(), line_of(text, span.start));
            }
            if let Some(table) = value.as_inline_table() {
                record_lines(text, &path, table, lines);
            }
        }
    }
}

/// The line, counted from 1, of an offset in a text.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}
