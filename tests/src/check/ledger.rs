//! The one record of a run that every peer writes and every check reads.
//!
//! Truth (what the origin had from when, what control published) on one side, observations (what a
//! visitor got) on the other. Times are virtual nanoseconds.

use std::collections::BTreeMap;

use crate::sim::trace::Trace;

/// What really was, and what was seen of it.
#[derive(Default, Debug)]
pub struct Ledger {
    /// For each object, from when which generation was the origin's.
    generations: BTreeMap<u32, Vec<(u64, u32)>>,
    /// For each object, the generation below which nothing may be served to requests that start
    /// after the time: a purge whose receipt named every edge.
    purged: BTreeMap<u32, Vec<(u64, u32)>>,
    /// For each page and replica, the events control published, in order, with the time.
    published: BTreeMap<(u32, String), Vec<(u64, String)>>,
    /// For each older copy of control that came and each replica: the store's number, the replica,
    /// the last of its operations that the copy has.
    lost: Vec<(u64, String, u64)>,
    /// For each store of control and page, from which position on which version is the page's.
    pages: BTreeMap<(u64, u32), Vec<(u64, String)>>,
    /// For each edge, when it confirmed which position of which store of control.
    confirmed: BTreeMap<String, Vec<(u64, u64, u64)>>,
    /// While this is set, failures of control or origin may show as 5xx.
    pub faults_until_ns: u64,
    /// What went wrong, in words.
    pub violations: Vec<String>,
    /// Answers by what the edge said of its cache.
    pub outcomes: BTreeMap<String, u64>,
    /// How often an answer showed a rule of the site at work.
    pub shown: BTreeMap<&'static str, u64>,
    /// Requests answered in full.
    pub answered: u64,
    /// Events delivered to visitors.
    pub events: u64,
    /// Gap events told to visitors.
    pub gaps: u64,
    /// The world's trace, and what it held at the first violation.
    pub trace: Trace,
    /// The last things that happened before the first violation.
    pub before_violation: Vec<String>,
}

impl Ledger {
    /// The origin serves `generation` of `object` from now on.
    pub fn origin_has(&mut self, now_ns: u64, object: u32, generation: u32) {
        self.generations.entry(object).or_default().push((now_ns, generation));
    }

    /// The newest generation of an object.
    pub fn newest(&self, object: u32) -> u32 {
        self.generations.get(&object).and_then(|list| list.last()).map_or(0, |last| last.1)
    }

    /// Every edge has confirmed a purge that came after `generation` was put in place.
    pub fn receipt(&mut self, now_ns: u64, object: u32, generation: u32) {
        self.purged.entry(object).or_default().push((now_ns, generation));
    }

    /// Control published the next event of a page.
    pub fn publishes(&mut self, now_ns: u64, page: u32, dot: String) {
        let list = self.published.entry((page, replica_of(&dot))).or_default();
        list.push((now_ns, dot));
    }

    /// Control came back as an older copy, now called `store`: operations of `replica` beyond
    /// `kept` are gone for good.
    pub fn loses(&mut self, store: u64, replica: &str, kept: u64) {
        self.lost.push((store, replica.to_owned(), kept));
    }

    /// From this position of this store on, a page is at `version`.
    pub fn page_is(&mut self, store: u64, page: u32, position: u64, version: &str) {
        self.pages.entry((store, page)).or_default().push((position, version.to_owned()));
    }

    /// An edge said that everything up to this position holds on all its shards.
    pub fn confirms(&mut self, now_ns: u64, edge: &str, store: u64, position: u64) {
        self.confirmed.entry(edge.to_owned()).or_default().push((now_ns, store, position));
    }

    /// What of a version can still be asked of a page: not what an older copy of control has lost.
    fn still_there(&self, version: &str) -> String {
        let entries = entries(version).filter_map(|(replica, seq)| {
            let lost = self.lost.iter().filter(|(_, of, _)| of == replica);
            let seq = lost.map(|(_, _, kept)| *kept).fold(seq, u64::min);
            (seq > 0).then(|| format!("{replica}:{seq}"))
        });
        entries.collect::<Vec<_>>().join(",")
    }

    /// What of a version's text an older copy of control, which is store `upto` or an earlier one,
    /// has lost.
    fn lost_of(&self, version: &str, upto: u64) -> Option<String> {
        let is_lost = |replica: &str, seq: u64| {
            let mut lost = self.lost.iter();
            lost.any(|(since, of, kept)| *since <= upto && of == replica && seq > *kept)
        };
        let (replica, seq) = entries(version).find(|(replica, seq)| is_lost(replica, *seq))?;
        Some(format!("{replica}:{seq}"))
    }

    /// Whether a version can still be asked of anyone.
    pub fn is_there(&self, version: &str) -> bool {
        self.lost_of(version, u64::MAX).is_none()
    }

    /// An edge told a gap whose version is this. It must be one that can be fetched: nothing that
    /// was lost before the edge confirmed the store that came after.
    pub fn check_gap(&mut self, now_ns: u64, edge: &str, opened_ns: u64, version: &str) {
        let confirmed = self.confirmed.get(edge).map_or(&[][..], Vec::as_slice);
        let known = confirmed.iter().rfind(|(at, ..)| *at < opened_ns);
        let Some(&(_, store, _)) = known else { return };
        if let Some(lost) = self.lost_of(version, store) {
            let what = format!("{edge} told a gap to {version}, of which {lost} is lost for good");
            self.violation(now_ns, what);
        }
    }

    /// A visitor got `page` at `version` out of an edge; was it allowed?
    ///
    /// The page must show what the visitor had been promised, and, unless it is marked stale, what
    /// the edge had confirmed before. What an older copy of control has lost can be asked of
    /// nobody; but an edge that has confirmed a position of that copy must show nothing of it.
    pub fn check_page(&mut self, seen: &SeenPage<'_>) {
        let SeenPage { page, version, told, stale, edge, asked_ns, now_ns } = *seen;
        let told = self.still_there(told);
        if !covers(version, &told) {
            let what =
                format!("page {page} is older than {told:?}, of which an event came ({seen:?})");
            return self.violation(now_ns, what);
        }
        if stale {
            return;
        }
        let confirmed = self.confirmed.get(edge).map_or(&[][..], Vec::as_slice);
        let Some(&(_, store, position)) = confirmed.iter().rfind(|(at, ..)| *at < asked_ns) else {
            return;
        };
        let versions = self.pages.get(&(store, page)).map_or(&[][..], Vec::as_slice);
        let floor = versions.iter().rfind(|(from, _)| *from <= position);
        let floor = self.still_there(floor.map_or("", |(_, version)| version));
        if !covers(version, &floor) {
            let what = format!(
                "page {page} is older than {floor:?}, confirmed as {position} of store {store} \
                 ({seen:?})"
            );
            return self.violation(now_ns, what);
        }
        let lost = entries(version).find(|(replica, seq)| {
            let mut lost = self.lost.iter();
            lost.any(|(since, of, kept)| store >= *since && of == replica && seq > kept)
        });
        if let Some((replica, seq)) = lost {
            let what = format!(
                "page {page} shows {replica}:{seq}, which control has lost, after the edge \
                 confirmed {position} of store {store} ({seen:?})"
            );
            self.violation(now_ns, what);
        }
    }

    /// Which one in its replica's order an event of a page is, from 0.
    pub fn place_of(&self, page: u32, dot: &str) -> Option<usize> {
        let list = self.published.get(&(page, replica_of(dot)))?;
        list.iter().position(|(_, known)| known == dot)
    }

    /// The dot of an event of a page by a replica, by its place in their order.
    pub fn event_at(&self, page: u32, replica: &str, place: usize) -> Option<&str> {
        let list = self.published.get(&(page, replica.to_owned()))?;
        list.get(place).map(|(_, dot)| dot.as_str())
    }

    /// The newest event of a page by a replica: when, and which one in order.
    pub fn newest_event(&self, page: u32, replica: &str) -> Option<(u64, usize)> {
        let list = self.published.get(&(page, replica.to_owned()))?;
        list.last().map(|(at, _)| (*at, list.len() - 1))
    }

    /// An answer showed this rule at work.
    pub fn shows(&mut self, rule: &'static str) {
        *self.shown.entry(rule).or_default() += 1;
    }

    /// Notes a violation, with the time.
    pub fn violation(&mut self, now_ns: u64, what: String) {
        if self.violations.is_empty() {
            self.before_violation = self.trace.lines();
        }
        if self.violations.len() < 20 {
            self.violations.push(format!("at {:.6} s: {what}", now_ns as f64 / 1e9));
        }
    }

    /// A visitor got `generation` of `object`; was it allowed?
    ///
    /// `age_s` is the answer's Age; a fresh answer must have been the origin's at some time within
    /// it.
    pub fn check_object(&mut self, seen: &Seen) {
        let Seen { object, generation, asked_ns, now_ns, .. } = *seen;
        let floor = self.purged.get(&object).and_then(|list| {
            list.iter().filter(|(at, _)| *at < asked_ns).map(|(_, floor)| *floor).max()
        });
        if floor.is_some_and(|floor| generation < floor) {
            let floor = floor.unwrap_or(0);
            self.violation(
                now_ns,
                format!(
                    "object {object}: generation {generation} after a purge of all before {floor} \
                         was confirmed by every edge ({seen:?})"
                ),
            );
        }
        if seen.stale {
            return;
        }
        let list = self.generations.get(&object).map_or(&[][..], Vec::as_slice);
        let from = list.iter().find(|(_, known)| *known == generation).map(|(at, _)| *at);
        let until =
            list.iter().find(|(_, known)| *known > generation).map_or(u64::MAX, |(at, _)| *at);
        // Age counts whole seconds and starts when the edge asked; latency and rounding on top.
        let oldest_ns = asked_ns.saturating_sub((seen.age_s + 2) * 1_000_000_000 + SLACK_NS);
        match from {
            None => self.violation(now_ns, format!("object {object}: never was {generation}")),
            Some(_) if until < oldest_ns => self.violation(
                now_ns,
                format!(
                    "object {object}: generation {generation} called {} s old and not stale, \
                         replaced {:.3} s before the request ({seen:?})",
                    seen.age_s,
                    (asked_ns - until) as f64 / 1e9
                ),
            ),
            Some(_) => {}
        }
    }
}

/// An answer for an object.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Which object.
    pub object: u32,
    /// Which generation its body was.
    pub generation: u32,
    /// When the request was sent.
    pub asked_ns: u64,
    /// When the answer was complete.
    pub now_ns: u64,
    /// The answer's Age, s.
    pub age_s: u64,
    /// Whether it was marked stale.
    pub stale: bool,
}

/// An answer for a page.
#[derive(Clone, Copy, Debug)]
pub struct SeenPage<'a> {
    /// Which page.
    pub page: u32,
    /// Its `Pharos-Version`.
    pub version: &'a str,
    /// The version that was promised: of the event that led here, or asked for by name.
    pub told: &'a str,
    /// Whether it was marked stale.
    pub stale: bool,
    /// Which edge.
    pub edge: &'a str,
    /// When the request was sent.
    pub asked_ns: u64,
    /// When the answer was complete.
    pub now_ns: u64,
}

/// Whether version `a` has seen all that `b` has.
pub fn covers(a: &str, b: &str) -> bool {
    entries(b)
        .all(|(replica, seq)| entries(a).any(|(known, reached)| known == replica && reached >= seq))
}

/// The entries of a version vector's text.
fn entries(version: &str) -> impl Iterator<Item = (&str, u64)> {
    let entries = version.split(',').filter_map(|entry| entry.rsplit_once(':'));
    entries.filter_map(|(replica, seq)| Some((replica, seq.parse().ok()?)))
}

/// The name of an edge.
pub fn edge_name(at: usize) -> String {
    format!("edge{at}")
}

/// The replica of a dot's text.
pub fn replica_of(dot: &str) -> String {
    dot.rsplit_once(':').map_or(dot, |(replica, _)| replica).to_owned()
}

/// What latency and slow origins may add to an age.
const SLACK_NS: u64 = 30_000_000_000;
