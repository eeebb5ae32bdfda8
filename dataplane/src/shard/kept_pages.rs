//! Which responses of pages are kept on disk: what may be kept at all, what takes whose place, and
//! what is left out when a file is full.
//!
//! ```text
//!   old content ─┐                ┌─ dead, or no resource of a page: not kept
//!                ├─▶ by resource ─┼─ two of one resource: never an older one for a newer one
//!   changes ─────┘                └─ too much: every page's HTML before any page's JSON
//! ```
//! A fetch that was held up may end after one that began later, and shards mail independently; so
//! the order of arrival says nothing and `Pharos-Version` decides. A visitor cannot add to a file
//! but by asking for resources that there are, and a page has few.
//!
//! Leaves to others: files and when they are written (`last_known`), their format (`kept_file`).

use std::{collections::BTreeSet, sync::Arc};

use cache::{BodyState, Entry, FieldSource};
use proto::{
    feed::cursor::VersionVector,
    http1::head::{FieldSpace, parse_response},
};

use super::{
    kept_file::{KeptPage, checksum, pages, push_page},
    request::HeadFields,
};
use crate::limits;

/// A change of what is kept.
#[derive(Debug)]
pub enum PageChange {
    /// A response was stored.
    Put(Arc<Entry>),
    /// All of a page.
    Remove(String),
}

/// When a response was rendered, in the order that a visitor may see.
#[derive(Debug)]
struct Rendered<'a> {
    version: Option<&'a VersionVector>,
    response_at_ms: u64,
}

/// Whether a response of this target is kept: the list of pages, a page, or one of its documents.
/// None of them takes a query.
pub fn is_resource(target: &[u8]) -> bool {
    rank(target).is_some()
}

/// Whether `new` takes the place of `old`, both of one resource. `store_since_ms`: since when
/// control's store is the one it is; versions of another store's responses are not compared.
pub fn replaces(new: &Entry, old: &Entry, store_since_ms: u64) -> bool {
    Rendered::of(new).replaces(&Rendered::of(old), store_since_ms)
}

/// The content of a file of pages after some changes, and how many responses found no room.
pub fn changed(old: &[u8], changes: &[PageChange], store_since_ms: u64) -> (Vec<u8>, u64) {
    let mut removed: BTreeSet<&str> = BTreeSet::new();
    let mut put: Vec<&Arc<Entry>> = Vec::new();
    for change in changes {
        match change {
            PageChange::Put(entry) => put.push(entry),
            PageChange::Remove(prefix) => {
                removed.insert(prefix);
                put.retain(|entry| !is_below(entry.cache_key().borrowed().target(), prefix));
            }
        }
    }
    let mut kept = Vec::new();
    for page in pages(old).unwrap_or_default() {
        let Some(rank) = rank(page.target) else { continue };
        if removed.iter().any(|prefix| is_below(page.target, prefix)) {
            continue;
        }
        let same = put.iter().position(|entry| {
            let key = entry.cache_key().borrowed();
            key.target() == page.target && key.host() == page.host
        });
        if let Some(at) = same {
            let version = version_of(&page);
            let old = Rendered { version: version.as_ref(), ..Rendered::at(page.response_at_ms) };
            if Rendered::of(put[at]).replaces(&old, store_since_ms) {
                continue;
            }
            put.remove(at);
        }
        let mut bytes = Vec::new();
        push_page(&mut bytes, &page);
        kept.push((rank, bytes));
    }
    let put = put.into_iter().filter_map(|entry| {
        Some((rank(entry.cache_key().borrowed().target())?, page_bytes(entry)?))
    });
    kept.extend(put);
    fitting(&kept)
}

/// All responses of a page lie in one file: `/pages/<id>/…` goes by `/pages/<id>`.
pub fn file_of(target: &[u8]) -> u8 {
    let page_end = target.iter().enumerate().filter(|(_, byte)| **byte == b'/').nth(2);
    let page = &target[..page_end.map_or(target.len(), |(at, _)| at)];
    checksum(page) as u8
}

impl<'a> Rendered<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self { version: entry.version(), ..Self::at(entry.times().response_at_ms) }
    }

    fn at(response_at_ms: u64) -> Self {
        Self { version: None, response_at_ms }
    }

    /// By what they show, where that can be compared; otherwise the later answer wins: a store that
    /// was put back from a copy numbers its changes as another replica.
    fn replaces(&self, old: &Self, store_since_ms: u64) -> bool {
        let is_later = self.response_at_ms >= old.response_at_ms;
        let [new_store, old_store] = [self, old].map(|it| it.response_at_ms >= store_since_ms);
        if new_store != old_store {
            return new_store;
        }
        match (self.version, old.version) {
            (Some(new), Some(old)) => new.covers(old) || (!old.covers(new) && is_later),
            _ => is_later,
        }
    }
}

/// What fits into a file, in the order given, which is by age. Every page's HTML goes before any
/// page's JSON, and among equals the newest; so no page's documents push out another page.
fn fitting(kept: &[(usize, Vec<u8>)]) -> (Vec<u8>, u64) {
    let mut by_worth: Vec<usize> = (0..kept.len()).rev().collect();
    by_worth.sort_by_key(|&at| kept[at].0);
    let mut left = limits::LAST_KNOWN_FILE_BYTES_MAX;
    let mut fits = vec![false; kept.len()];
    for at in by_worth {
        if let Some(rest) = left.checked_sub(kept[at].1.len()) {
            (left, fits[at]) = (rest, true);
        }
    }
    let mut content = Vec::with_capacity(limits::LAST_KNOWN_FILE_BYTES_MAX - left);
    for ((_, bytes), _) in kept.iter().zip(&fits).filter(|(_, fits)| **fits) {
        content.extend_from_slice(bytes);
    }
    (content, fits.iter().filter(|fits| !**fits).count() as u64)
}

/// A stored response as it is kept; `None` if its body is not whole.
fn page_bytes(entry: &Entry) -> Option<Vec<u8>> {
    let progress = entry.body().progress();
    if progress.state != BodyState::Complete {
        return None;
    }
    let mut body = Vec::with_capacity(progress.len as usize);
    while let Some(chunk) = entry.body().chunk_at(body.len() as u64) {
        body.extend_from_slice(chunk);
    }
    let key = entry.cache_key().borrowed();
    let mut bytes = Vec::with_capacity(body.len() + entry.head().len() + 128);
    let response_at_ms = entry.times().response_at_ms;
    let (host, target, head) = (key.host(), key.target(), entry.head());
    push_page(&mut bytes, &KeptPage { host, target, response_at_ms, head, body: &body });
    Some(bytes)
}

fn version_of(page: &KeptPage<'_>) -> Option<VersionVector> {
    let mut head = page.head.to_vec();
    head.extend_from_slice(b"\r\n");
    let mut space = FieldSpace::new();
    let (response, _) = parse_response(&head, &mut space).ok()??;
    let fields = HeadFields(response.fields);
    std::str::from_utf8(fields.get("Pharos-Version")?).ok()?.parse().ok()
}

/// How soon a resource is left out: the later the higher.
fn rank(target: &[u8]) -> Option<usize> {
    let below = target.strip_prefix(b"/pages/")?;
    if below.is_empty() {
        return Some(0);
    }
    let id_len = below.iter().position(|&byte| byte == b'/').filter(|&len| len > 0)?;
    let resource = &below[id_len + 1..];
    RESOURCES.iter().position(|known| known.as_bytes() == resource)
}

fn is_below(target: &[u8], prefix: &str) -> bool {
    target.starts_with(prefix.as_bytes())
}

/// What there is of a page.
const RESOURCES: [&str; 6] = [
    "",
    "api/v2/summary.json",
    "api/v2/status.json",
    "api/v2/incidents/unresolved.json",
    "api/v2/components.json",
    "api/v2/incidents.json",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(version: &VersionVector, response_at_ms: u64) -> Rendered<'_> {
        Rendered { version: Some(version), response_at_ms }
    }

    #[test]
    fn a_page_takes_the_place_of_one_that_it_covers_whichever_came_later() {
        let vector = |text: &str| text.parse::<VersionVector>().expect("a version");
        let (old, new) = (vector("eu-00000001:39"), vector("eu-00000001:40"));
        let other = vector("eu-00000001:30,eu-00000002:1");
        for (number, (by, at, of, of_at, since, takes)) in [
            (&new, 1, &old, 2, 0, true),
            (&old, 2, &new, 1, 0, false),
            (&new, 2, &new, 1, 0, true),
            // A store put back: neither covers the other, the later answer wins.
            (&other, 2, &new, 1, 0, true),
            (&other, 1, &new, 2, 0, false),
            // It has appended nothing yet, but it is known to be another store.
            (&old, 5, &new, 1, 4, true),
            (&new, 1, &old, 5, 4, false),
            (&old, 6, &new, 5, 4, false),
        ]
        .into_iter()
        .enumerate()
        {
            let replaces = rendered(by, at).replaces(&rendered(of, of_at), since);
            assert_eq!(replaces, takes, "case {number}");
        }
    }

    #[test]
    fn only_resources_of_pages_are_kept_and_none_with_a_query() {
        for target in ["/pages/", "/pages/p/", "/pages/p/api/v2/incidents/unresolved.json"] {
            assert!(is_resource(target.as_bytes()), "{target}");
        }
        for target in [
            "/",
            "/pages",
            "/pages/p",
            "/pages//",
            "/pages/p/?1",
            "/pages/p/x",
            "/pages/p/api/v2/summary.json?1",
        ] {
            assert!(!is_resource(target.as_bytes()), "{target}");
        }
    }

    #[test]
    fn a_full_file_leaves_out_documents_before_pages() {
        let third = limits::LAST_KNOWN_FILE_BYTES_MAX / 3;
        let piece = |rank: usize, mark: u8| (rank, vec![mark; third]);
        // Oldest first; the HTML of the oldest page stays, the newest documents go.
        let (content, left_out) =
            fitting(&[piece(0, b'a'), piece(1, b'b'), piece(0, b'c'), piece(2, b'd')]);
        assert_eq!((content.len(), left_out), (3 * third, 1));
        assert_eq!([content[0], content[third], content[2 * third]], *b"abc");
        let (content, left_out) = fitting(&[piece(0, b'a'), (0, vec![b'b'; third * 4])]);
        assert_eq!((content.len(), left_out), (third, 1), "what fits stays beside what does not");
    }
}
