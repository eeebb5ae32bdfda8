//! Query parameters and cursor paging. An unknown parameter is an error: a misspelt `dry_run` must
//! not write.

use super::{problem::Failure, types::List};
use crate::{limits, store::sqlite::read::After};

/// The parameters that the API knows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    /// Do all but write.
    pub dry_run: bool,
    /// Items on one page of a list.
    pub limit: Option<usize>,
    /// Where a list goes on.
    pub cursor: Option<After>,
    /// Whether a feed sends retained events again.
    pub history: bool,
}

impl Query {
    /// Reads the text after `?`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut query = Self::default();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "dry_run" => query.dry_run = flag("?dry_run", value)?,
                "history" => query.history = flag("?history", value)?,
                "limit" => {
                    let limit =
                        value.parse().ok().filter(|n| (1..=limits::LIST_ITEMS_MAX).contains(n));
                    let refusal = || Failure::bad_request("?limit", "number", "1 to 500");
                    query.limit = Some(limit.ok_or_else(refusal)?);
                }
                "cursor" => {
                    let refusal =
                        || Failure::bad_request("?cursor", "cursor", "a next_cursor of this list");
                    query.cursor = Some(read_cursor(value).ok_or_else(refusal)?);
                }
                name => {
                    let name: String = name.chars().take(40).collect();
                    let expected = "one of dry_run, limit, cursor, history";
                    return Err(Failure::bad_request(&format!("?{name}"), "unknown", expected));
                }
            }
        }
        Ok(query)
    }

    /// How many items to read: one more than are shown, to know whether more follow.
    pub fn read_limit(&self) -> usize {
        self.shown() + 1
    }

    fn shown(&self) -> usize {
        self.limit.unwrap_or(limits::LIST_ITEMS_DEFAULT)
    }

    /// A page of a list from [`Query::read_limit`] items, each with where it stands.
    pub fn list<T, U>(
        &self,
        mut items: Vec<T>,
        at: impl Fn(&T) -> After,
        show: impl Fn(T) -> U,
    ) -> List<U> {
        let more = items.len() > self.shown();
        items.truncate(self.shown());
        let next_cursor = items.last().filter(|_| more).map(&at).map(|at| write_cursor(&at));
        List { items: items.into_iter().map(show).collect(), next_cursor }
    }
}

fn flag(name: &str, value: &str) -> Result<bool, Failure> {
    match value {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(Failure::bad_request(name, "boolean", "true or false")),
    }
}

fn write_cursor(after: &After) -> String {
    format!("{}-{}", after.rank, after.id)
}

fn read_cursor(text: &str) -> Option<After> {
    let (rank, id) = text.split_once('-')?;
    let id_ok = id.len() <= 512 && id.bytes().all(|b| b.is_ascii_alphanumeric());
    let rank = rank.parse().ok()?;
    id_ok.then(|| After { rank, id: id.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_mistakes_named() {
        let query = Query::parse("dry_run=true&limit=2&cursor=7-abc").expect("valid");
        assert!(query.dry_run && query.limit == Some(2) && query.cursor.is_some());
        for (text, pointer) in [
            ("dryrun=true", "?dryrun"),
            ("dry_run=yes", "?dry_run"),
            ("limit=0", "?limit"),
            ("limit=501", "?limit"),
            ("cursor=x", "?cursor"),
        ] {
            let failure = Query::parse(text).expect_err("refused");
            assert_eq!(failure.errors[0].pointer, pointer);
        }
    }

    #[test]
    fn a_list_says_where_it_goes_on_only_if_it_does() {
        let query = Query { limit: Some(2), ..Query::default() };
        let at = |n: &u64| After { rank: *n, id: "i".into() };
        let list = query.list(vec![1, 2, 3], at, |n| n);
        assert_eq!((list.items, list.next_cursor.as_deref()), (vec![1, 2], Some("2-i")));
        assert_eq!(query.list(vec![1, 2], at, |n| n).next_cursor, None);
    }
}
