//! Boxes for people: an object is a table of names and values, a list of objects one of columns, and what is
//! inside of them follows in boxes of its own.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{is_scalar, scalar};

pub(super) fn render(value: &Value) -> String {
    let mut text = String::new();
    boxes(value, "", &mut text);
    text
}

fn boxes(value: &Value, title: &str, text: &mut String) {
    match value {
        Value::Object(members) => {
            let own: Vec<Vec<String>> = members
                .iter()
                .filter(|(_, value)| is_scalar(value))
                .map(|(name, value)| vec![name.clone(), scalar(value)])
                .collect();
            if !own.is_empty() {
                draw(title, None, &own, text);
            }
            for (name, value) in members.iter().filter(|(_, value)| !is_scalar(value)) {
                boxes(value, &below(title, name), text);
            }
        }
        Value::Array(items) => {
            let objects: Vec<_> = items.iter().filter_map(Value::as_object).collect();
            let columns: BTreeSet<&String> = objects
                .iter()
                .flat_map(|members| members.iter())
                .filter(|(_, value)| is_scalar(value))
                .map(|(name, _)| name)
                .collect();
            if !columns.is_empty() {
                let rows: Vec<Vec<String>> = objects
                    .iter()
                    .map(|members| {
                        let cells = columns.iter();
                        cells
                            .map(|name| members.get(*name).map(scalar).unwrap_or_default())
                            .collect()
                    })
                    .collect();
                let head: Vec<String> = columns.into_iter().cloned().collect();
                draw(title, Some(&head), &rows, text);
            }
            let rows: Vec<Vec<String>> = items
                .iter()
                .filter_map(|item| match item.as_array() {
                    Some(cells) => {
                        let is_row = cells.iter().all(is_scalar);
                        is_row.then(|| cells.iter().map(scalar).collect())
                    }
                    None => is_scalar(item).then(|| vec![scalar(item)]),
                })
                .collect();
            if !rows.is_empty() {
                draw(title, None, &rows, text);
            }
            for (name, value) in objects.into_iter().flatten() {
                if !is_scalar(value) {
                    boxes(value, &below(title, name), text);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            draw(title, None, &[vec![scalar(value)]], text);
        }
    }
}

fn below(title: &str, name: &str) -> String {
    if title.is_empty() {
        name.to_owned()
    } else {
        format!("{title}.{name}")
    }
}

/// A title, a head and rows, each as wide as the widest.
fn draw(title: &str, head: Option<&[String]>, rows: &[Vec<String>], text: &mut String) {
    let columns = head.into_iter().chain(rows.iter().map(Vec::as_slice));
    let mut widths: Vec<usize> = Vec::new();
    for row in columns {
        for (index, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(index) {
                Some(known) => *known = (*known).max(width),
                None => widths.push(width),
            }
        }
    }
    // The title may be the widest of all: the last column makes up for it.
    let inner: usize = widths
        .iter()
        .map(|width| width + 3)
        .sum::<usize>()
        .saturating_sub(1);
    let missing = (title.chars().count() + 2).saturating_sub(inner);
    if let Some(last) = widths.last_mut() {
        *last += missing;
    }
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    let rule = format!("+{}+\n", rule.join("+"));
    let line = |row: &[String]| {
        let cells = widths.iter().enumerate().map(|(index, width)| {
            let cell = row.get(index).map_or("", String::as_str);
            format!(" {cell:<width$} ")
        });
        format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
    };
    if !title.is_empty() {
        let inner = rule.len() - 3;
        text.push_str(&format!("{}\n|{title:^inner$}|\n", "-".repeat(inner + 2)));
    }
    text.push_str(&rule);
    if let Some(head) = head {
        text.push_str(&line(head));
        text.push_str(&rule);
    }
    for row in rows {
        text.push_str(&line(row));
    }
    text.push_str(&rule);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_objects_has_columns_and_what_is_inside_follows() {
        let value = serde_json::json!({"Keys": [
            {"KeyId": "a", "Tags": [{"K": "team"}]},
            {"KeyId": "bcd", "Enabled": true},
        ]});
        assert_eq!(
            render(&value),
            "-------------------\n|      Keys       |\n+---------+-------+\n| Enabled | KeyId |\n\
             +---------+-------+\n|         | a     |\n| True    | bcd   |\n+---------+-------+\n\
             -------------\n| Keys.Tags |\n+-----------+\n| K         |\n+-----------+\n| team      |\n\
             +-----------+\n"
        );
    }
}
