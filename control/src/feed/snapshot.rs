//! The whole configuration in parts, for an edge that cannot resume.
//!
//! Pages and sites are read a stretch at a time, each stretch at its own moment, so that no long
//! read holds up the checkpoints of the write-ahead log. That is sound because a feed goes on after
//! a snapshot from the position at which the snapshot *began*: whatever changed meanwhile comes
//! again, and configuration replaces as a whole.

use proto::feed::{
    cursor::Replica,
    record::{Record, Snapshot},
    site,
};
use serde::Serialize;

use crate::{
    App, limits,
    store::sqlite::{StoreError, read::After},
};

/// Gathers entities into parts of bounded size.
#[derive(Default)]
pub struct Parts {
    next: u32,
    bytes: usize,
    sites: Vec<site::Site>,
    pages: Vec<site::Page>,
}

impl Parts {
    /// Adds a site; returns a part that is full without it.
    pub fn site(&mut self, site: site::Site) -> Option<Record> {
        let bytes = json_bytes(&site);
        if bytes > ENTITY_BYTES_MAX {
            // From before there was a limit. An edge that got it would get nothing else any more.
            let (site, bytes_max) = (&site.name, ENTITY_BYTES_MAX);
            tracing::error!(%site, bytes, bytes_max, "a site is too large to be told to edges");
            return None;
        }
        let full = self.room(bytes);
        self.sites.push(site);
        full
    }

    /// Adds a page; returns a part that is full without it.
    pub fn page(&mut self, page: site::Page) -> Option<Record> {
        let full = self.room(json_bytes(&page));
        self.pages.push(page);
        full
    }

    /// The last part, which may be empty: of a store that numbers operations as `replica`.
    pub fn last(mut self, replica: Replica) -> Record {
        match self.part(true) {
            Record::Snapshot(last) => Record::Snapshot(Snapshot { replica: Some(replica), ..last }),
            other => other,
        }
    }

    /// Makes room for an entity of so many bytes.
    fn room(&mut self, bytes: usize) -> Option<Record> {
        let bytes = bytes + ",".len();
        let full = self.bytes > 0 && self.bytes + bytes > ENTITIES_BYTES_MAX;
        let part = full.then(|| self.part(false));
        self.bytes += bytes;
        part
    }

    fn part(&mut self, last: bool) -> Record {
        let part = self.next;
        self.next += 1;
        self.bytes = 0;
        let (sites, pages) = (std::mem::take(&mut self.sites), std::mem::take(&mut self.pages));
        Record::Snapshot(Snapshot { part, last, sites, pages, replica: None })
    }
}

/// A stretch of a snapshot: some parts, and where to go on.
pub struct Progress {
    /// Gathered so far.
    pub parts: Parts,
    at: At,
}

enum At {
    Sites(Option<After>),
    Pages(Option<After>),
    End,
}

impl Progress {
    /// Nothing gathered yet.
    pub fn start() -> Self {
        Self { parts: Parts::default(), at: At::Sites(None) }
    }

    /// Reads a stretch; the full parts it made, or `None` when only [`Parts::last`] is left.
    pub async fn stretch(mut self, app: &App) -> Result<(Self, Option<Vec<Record>>), StoreError> {
        app.store
            .feed_reads
            .with(move |reader| {
                let mut full = Vec::new();
                self.at = match self.at {
                    At::Sites(after) => {
                        let sites = reader.sites(after.as_ref(), STRETCH)?;
                        let next = sites.last().map(|last| After {
                            rank: last.created_at_ms,
                            id: last.site.id.clone(),
                        });
                        full.extend(sites.into_iter().filter_map(|s| self.parts.site(s.site)));
                        next.map_or(At::Pages(None), |next| At::Sites(Some(next)))
                    }
                    At::Pages(after) => {
                        let pages = reader.pages(after.as_ref(), STRETCH)?;
                        let next = pages
                            .last()
                            .map(|last| After { rank: last.created_at_ms, id: last.id.clone() });
                        full.extend(pages.iter().filter_map(|p| self.parts.page(p.to_feed())));
                        next.map_or(At::End, |next| At::Pages(Some(next)))
                    }
                    At::End => return Ok((self, None)),
                };
                Ok((self, Some(full)))
            })
            .await
    }
}

/// Entities read at one moment.
const STRETCH: usize = 1_000;

/// Bytes of a part that are not its entities, at most.
const ENVELOPE_BYTES: usize = 256;
/// Bytes of the entities of a part.
const ENTITIES_BYTES_MAX: usize = limits::SNAPSHOT_PART_BYTES_MAX - ENVELOPE_BYTES;
/// Bytes of an entity that travels alone.
const ENTITY_BYTES_MAX: usize = proto::limits::RECORD_BYTES_MAX - ENVELOPE_BYTES;

const _: () = assert!(limits::SITE_BYTES_MAX < ENTITIES_BYTES_MAX, "a site fits into a part");

/// Bytes of what is really sent.
fn json_bytes(entity: &impl Serialize) -> usize {
    serde_json::to_vec(entity).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica() -> Replica {
        "eu-00000001".parse().expect("a replica")
    }

    #[test]
    fn parts_are_bounded_numbered_and_hold_everything_once() {
        let mut parts = Parts::default();
        let mut records = Vec::new();
        for nth in 0..20_000 {
            let page = site::Page {
                id: format!("id-{nth:020}"),
                slug: format!("slug-{nth}"),
                hosts: vec![format!("{nth}.example")],
            };
            records.extend(parts.page(page));
        }
        records.push(parts.last(replica()));
        assert!(records.len() > 2);
        let mut pages = 0;
        for (nth, record) in records.iter().enumerate() {
            assert!(record.data().len() <= limits::SNAPSHOT_PART_BYTES_MAX);
            let Record::Snapshot(snapshot) = record else { panic!("a part") };
            assert_eq!((snapshot.part as usize, snapshot.last), (nth, nth + 1 == records.len()));
            pages += snapshot.pages.len();
        }
        assert_eq!(pages, 20_000);
    }

    fn site_with_rules(nth: usize, rules: usize, pattern_bytes: usize) -> site::Site {
        let rule = |nth: usize| {
            serde_json::json!({
                "name": format!("rule-{nth}"),
                "match": { "paths": [format!("/{}*", "p".repeat(pattern_bytes))] },
                "lifetime": { "fresh_s": 60 },
            })
        };
        let site = serde_json::json!({
            "id": format!("id-{nth}"),
            "name": format!("site-{nth}"),
            "hosts": [format!("{nth}.example")],
            "origins": [{ "url": "http://127.0.0.1:9" }],
            "routes": [],
            "rules": (0..rules).map(rule).collect::<Vec<_>>(),
            "purge_keys": [],
        });
        serde_json::from_value(site).expect("a site")
    }

    #[test]
    fn rules_and_keys_of_sites_count_as_they_are_sent() {
        let mut parts = Parts::default();
        let mut records = Vec::new();
        for nth in 0..40 {
            // The last ones alone nearly fill a part.
            let (rules, bytes) = if nth < 35 { (10, 1_000) } else { (120, 1_000) };
            let site = site_with_rules(nth, rules, bytes);
            assert_eq!(site.rules.len(), rules);
            records.extend(parts.site(site));
        }
        records.push(parts.last(replica()));
        let mut sites = 0;
        for record in &records {
            let bytes = record.data().len();
            assert!(bytes <= limits::SNAPSHOT_PART_BYTES_MAX, "{bytes}");
            let Record::Snapshot(part) = record else { panic!("a part") };
            sites += part.sites.len();
        }
        assert_eq!(sites, 40);
    }

    #[test]
    fn a_site_that_no_edge_could_read_keeps_nothing_else_from_edges() {
        let mut parts = Parts::default();
        assert!(parts.site(site_with_rules(0, 600, 1_000)).is_none());
        assert!(parts.site(site_with_rules(1, 1, 10)).is_none());
        let Record::Snapshot(last) = parts.last(replica()) else { panic!("a part") };
        assert_eq!(last.sites.len(), 1);
    }

    #[test]
    fn a_snapshot_of_nothing_is_one_last_part() {
        let Record::Snapshot(snapshot) = Parts::default().last(replica()) else { panic!("a part") };
        assert_eq!((snapshot.part, snapshot.last), (0, true));
    }
}
