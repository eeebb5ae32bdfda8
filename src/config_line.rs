//! Where in a configuration file a key stands, for errors about values that are well-formed and yet
//! wrong.
//!
//! Leaves to others: errors of form, which carry their line (`toml`).

use std::{fs, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// `file:line`, if the file says something of this key; its own value or the closest part above it.
pub(crate) fn place_of(file: &Path, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = line_of(&text, key)?;
    Some(format!("{}:{line}", file.display()))
}

/// The line, from 1. Keys are like `timeouts.idle_ms` and `site[0].hosts`.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let mut at = None;
    let mut here = Here::Table(table.get_ref());
    for step in key.split(['.', '[']) {
        let next = match step.strip_suffix(']') {
            Some(index) => here.item(index.parse().ok()?),
            None => here.key(step),
        };
        let Some((begin, value)) = next else { break };
        at = Some(begin);
        here = Here::Value(value);
    }
    Some(text.get(..at?)?.matches('\n').count() + 1)
}

#[derive(Clone, Copy)]
enum Here<'a> {
    Table(&'a DeTable<'a>),
    Value(&'a DeValue<'a>),
}

impl<'a> Here<'a> {
    /// Where the key begins, and its value.
    fn key(self, name: &str) -> Option<(usize, &'a DeValue<'a>)> {
        let table = match self {
            Self::Table(table) | Self::Value(DeValue::Table(table)) => table,
            Self::Value(_) => return None,
        };
        let found = |(key, _): &(&Spanned<_>, _)| AsRef::<str>::as_ref(key.get_ref()) == name;
        let (key, value) = table.iter().find(found)?;
        Some((key.span().start, value.get_ref()))
    }

    /// Where an item of an array begins, and the item.
    fn item(self, index: usize) -> Option<(usize, &'a DeValue<'a>)> {
        let Self::Value(DeValue::Array(items)) = self else { return None };
        let item = items.get(index)?;
        Some((item.span().start, item.get_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_is_written() {
        let text = "id = \"a\"\n\n[timeouts]\nidle_ms = 0\n\n[[site]]\nname = \"x\"\n\n\
                    [[site]]\nname = \"y\"\nhosts = [\"a b\"]\n";
        assert_eq!(line_of(text, "id"), Some(1));
        assert_eq!(line_of(text, "timeouts.idle_ms"), Some(4));
        assert_eq!(line_of(text, "site[1].hosts"), Some(11));
        assert_eq!(line_of(text, "site[0].hosts"), Some(6), "the table it should be in");
        assert_eq!(line_of(text, "listen"), None);
    }
}
