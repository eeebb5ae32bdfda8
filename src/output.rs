//! What the program prints: data as a table or as JSON on stdout, talk on stderr.
//!
//! A closed pipe on stdout (`| head`) is a normal end, not an error.

use std::io::{self, ErrorKind, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::exit::Failure;

/// How data is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs: what control answered.
    Json,
}

/// A column: its title, and where its text is found in an item.
pub(crate) type Column = (&'static str, fn(&Value) -> String);

impl Format {
    /// Prints one item: as JSON an object, as a table one row.
    pub(crate) fn item(self, columns: &[Column], item: &Value) -> Result<(), Failure> {
        match self {
            Self::Json => json(item),
            Self::Table => data(&table(columns, std::slice::from_ref(item))),
        }
    }

    /// Prints a list: as JSON an array, as a table a row for each.
    pub(crate) fn list(self, columns: &[Column], items: &[Value]) -> Result<(), Failure> {
        match self {
            Self::Json => json(&Value::from(items)),
            Self::Table => data(&table(columns, items)),
        }
    }
}

/// Prints a document for programs.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    data(&format!("{value:#}\n"))
}

/// Prints data on stdout.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::because("writing to stdout", &error))
        }
        _ => Ok(()),
    }
}

/// Prints a line of talk on stderr. If even that cannot be written there is nobody left to tell.
pub(crate) fn talk(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The text at a JSON pointer; empty for `null` and what is not there. Control characters, which
/// could drive the operator's terminal, are replaced.
pub(crate) fn text(item: &Value, pointer: &str) -> String {
    let text = match item.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            items.iter().map(|item| text(item, "")).collect::<Vec<_>>().join(" ")
        }
        Some(other) => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn table(columns: &[Column], items: &[Value]) -> String {
    let titles = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(titles)
        .chain(items.iter().map(|item| columns.iter().map(|(_, cell)| cell(item)).collect()))
        .collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut printed = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        printed.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        printed.push('\n');
    }
    printed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let columns: &[Column] = &[("A", |i| text(i, "/a")), ("LONG", |i| text(i, "/b"))];
        let items = [json!({"a": "größe", "b": null}), json!({"a": 1, "b": ["x", "y"]})];
        assert_eq!(table(columns, &items), "A      LONG\ngröße\n1      x y\n");
    }

    #[test]
    fn what_others_wrote_cannot_drive_the_terminal() {
        assert_eq!(text(&json!({"title": "a\u{1b}[2Jb\nc"}), "/title"), "a [2Jb c");
    }
}
