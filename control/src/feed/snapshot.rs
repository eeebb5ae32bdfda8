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
        let routes: usize = site.routes.iter().map(|route| route.prefix.len() + 40).sum();
        let origins: usize = site.origins.iter().map(|origin| origin.url.len() + 12).sum();
        let full = self.room(100 + site.name.len() + routes + origins + host_bytes(&site.hosts));
        self.sites.push(site);
        full
    }

    /// Adds a page; returns a part that is full without it.
    pub fn page(&mut self, page: site::Page) -> Option<Record> {
        let full = self.room(60 + page.id.len() + page.slug.len() + host_bytes(&page.hosts));
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

    fn room(&mut self, bytes: usize) -> Option<Record> {
        let full = self.bytes > 0 && self.bytes + bytes > limits::SNAPSHOT_PART_BYTES_MAX;
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

fn host_bytes(hosts: &[String]) -> usize {
    hosts.iter().map(|host| host.len() + 3).sum()
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

    #[test]
    fn a_snapshot_of_nothing_is_one_last_part() {
        let Record::Snapshot(snapshot) = Parts::default().last(replica()) else { panic!("a part") };
        assert_eq!((snapshot.part, snapshot.last), (0, true));
    }
}
