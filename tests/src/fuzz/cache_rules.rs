//! Random histories against the rules of RFC 9111 in their own words: one request after the other,
//! each answered before the next, so that a slow and plain reference can say what must come out.
//!
//! What [`super::cache_ops`] leaves out: freshness fields of every kind, `Age`, statuses, request
//! directives, HEAD, POST and what it outdates, groups, ranges, 304, encodings, eviction. What it
//! has and this leaves out: several requests at a time.
//!
//! The reference keeps each stored response as the numbers that its fields were made from, never as
//! text that would have to be read again.

#[path = "cache_rules/parts.rs"]
mod parts;
#[path = "cache_rules/said.rs"]
mod said;

use std::{collections::BTreeMap, sync::Arc};

use cache::{
    Answer, Asking, Cache, Coding, Compression, Config, Decision, Entry, FieldSource, Freshness,
    HeadOutcome, Hit, Lease, Method, Near, Piece, Request, Response, Waiter,
};
use proto::feed::record::{Purge, Scope};

use self::{
    parts::{Held, Selected, Sends, Wanted, told_range},
    said::{Asks, Dice, Said, Stored},
};

/// How often each rule decided; by its name.
pub type Coverage = BTreeMap<&'static str, u64>;

/// Requests and other steps of one history.
const STEPS: usize = 120;
const TARGETS: u64 = 4;
const SHARDS: u64 = 2;
const START_MS: u64 = 784_111_777_000;

/// What must come of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Must {
    Fresh,
    StaleAsAsked,
    StaleWhileRevalidating,
    /// The same, but its request must not be the one that validates.
    StaleLeftToOthers,
    Fetch,
    Unsatisfiable,
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Done,
    /// What came was of no use with what was stored.
    Again,
}

/// The request behind a fetch.
#[derive(Clone, Copy)]
struct AskedFor<'a> {
    asks: &'a Asks,
    /// It has been answered, and what is stored is to be validated.
    is_behind: bool,
    shard: usize,
    request: &'a Request<'a>,
    fields: &'a dyn FieldSource,
}

struct World<'c> {
    dice: Dice,
    cache: Arc<Cache>,
    near: Vec<Near>,
    now_ms: u64,
    stored: BTreeMap<(u64, u64), Stored>,
    /// When the origin failed last for a target.
    failed_ms: BTreeMap<u64, u64>,
    versions: usize,
    /// Memory is short: what the reference holds may be gone.
    is_small: bool,
    coverage: &'c mut Coverage,
}

/// Runs the history of a seed.
///
/// # Panics
/// Where the cache and the reference disagree.
pub fn run(seed: u64, coverage: &mut Coverage) {
    let mut dice = Dice(seed);
    let is_small = dice.one_in(5);
    let memory_bytes = if is_small { 7 << 10 } else { 16 << 20 };
    let compression = Compression {
        codings: vec![Coding::Gzip],
        types: vec!["text/plain".into()],
        bytes_min: 1,
        bytes_max: 1 << 20,
    };
    let config = Config { compression, ..Config::new(memory_bytes, seed) };
    let near = (0..SHARDS).map(|_| Near::new(3)).collect();
    let (cache, stored, failed_ms) = (Cache::new(config), BTreeMap::new(), BTreeMap::new());
    let mut world = World {
        dice,
        cache,
        near,
        now_ms: START_MS,
        stored,
        failed_ms,
        versions: 0,
        is_small,
        coverage,
    };
    for _ in 0..STEPS {
        world.step();
    }
    world.end();
}

fn text_of(body: usize) -> Vec<u8> {
    // Several in turn are of one length, so that only their validators tell them apart.
    format!("body {body:04}; ").repeat(10 + body / 8 % 4 * 5).into_bytes()
}

fn encoded(body: usize) -> Vec<u8> {
    format!("gzip of {body}").into_bytes()
}

fn is_varying(target: u64) -> bool {
    target == TARGETS - 1
}

type Pairs<'a> = Vec<(&'a str, &'a str)>;

fn lend(fields: &[(String, String)]) -> Pairs<'_> {
    fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

impl World<'_> {
    fn note(&mut self, rule: &'static str) {
        *self.coverage.entry(rule).or_default() += 1;
    }

    fn step(&mut self) {
        match self.dice.below(20) {
            0..=12 => self.ask(),
            13..=15 => self.now_ms += [0, 300, 1000, 4000, 30_000][self.dice.below(5) as usize],
            // What was evicted outdates no group, and the reference cannot know that it was.
            16 if !self.is_small => self.post(),
            17 | 18 => self.purge(),
            _ => {
                let near = &mut self.near[self.dice.below(SHARDS) as usize];
                near.sweep(near.bucket_count());
            }
        }
    }

    fn ask(&mut self) {
        let (target, language) = (self.dice.below(TARGETS), self.dice.below(2));
        let asks = Asks::draw(&mut self.dice, self.versions);
        let shard = self.dice.below(SHARDS) as usize;
        let mut tries = 0;
        while self.ask_once((target, language), &asks, shard) == Next::Again {
            tries += 1;
            assert!(tries < 3, "nothing is left that could be joined: {asks:?}");
        }
    }

    fn ask_once(&mut self, (target, language): (u64, u64), asks: &Asks, shard: usize) -> Next {
        let place = (target, if is_varying(target) { language } else { 0 });
        let must = self.must(place, asks);
        let fields = asks.fields(language);
        let fields = lend(&fields);
        let name = format!("/{target}");
        let cache = Arc::clone(&self.cache);
        let cache_key = cache.cache_key("site", b"host", name.as_bytes());
        let method = if asks.head { Method::Head } else { Method::Get };
        let shown = &&fields[..];
        let request = Request::new(method, cache_key, shown);
        let waiter = Waiter { shard: shard as u16, id: 1 };
        let how = Asking { now_ms: self.now_ms, waiter, min_version: None, waits: 0 };
        let decision = cache.lookup(&mut self.near[shard], &request, &how);
        let asking = AskedFor { asks, is_behind: false, shard, request: &request, fields: shown };
        let context = format!("{must:?} for {asks:?} of {:?}", self.stored.get(&place));
        match (decision, must) {
            (Decision::Hit(hit), Must::Fresh) => {
                self.note("fresh: served");
                self.check(&hit, place, asks, Freshness::Fresh);
            }
            (Decision::Stale { hit, revalidate: None }, Must::StaleAsAsked) => {
                self.note("stale: max-stale");
                self.check(&hit, place, asks, Freshness::MaxStale);
            }
            (Decision::Stale { hit, revalidate: Some(lease) }, Must::StaleWhileRevalidating) => {
                self.note("stale: while revalidating");
                self.check(&hit, place, asks, Freshness::WhileRevalidating);
                let asks = Asks { authorization: asks.authorization, ..Asks::default() };
                let asking = AskedFor { asks: &asks, is_behind: true, ..asking };
                return self.fetched(lease, place, &asking);
            }
            (Decision::Stale { hit, revalidate: None }, Must::StaleLeftToOthers) => {
                self.note("stale: validation left to others");
                self.check(&hit, place, asks, Freshness::WhileRevalidating);
            }
            (Decision::Unsatisfiable, Must::Unsatisfiable) => self.note("only-if-cached: 504"),
            (Decision::Bypass(_), Must::Fetch) if asks.no_store => self.note("no-store: bypass"),
            (Decision::Miss(lease), Must::Fetch) => {
                self.note("miss");
                return self.fetched(lease, place, &asking);
            }
            (Decision::Revalidate(lease), Must::Fetch) => {
                let known = lease.stored().map(|entry| version_of(entry));
                let own = self.stored.get(&place).map(|stored| stored.version);
                assert!(known == own, "{known:?} is validated: {context}");
                self.note("revalidation");
                return self.fetched(lease, place, &asking);
            }
            (Decision::Stale { hit, revalidate: None }, Must::Fetch)
                if hit.freshness == Freshness::OriginFailed =>
            {
                // What is fresh, though not to this request's liking, while the origin fails.
                let stored = &self.stored[&place];
                assert!(stored.is_fresh(self.now_ms) && !stored.is_soft, "{context}");
                let failed_ms = self.failed_ms.get(&target).copied().unwrap_or(0);
                assert!(self.now_ms - failed_ms < 1000, "{context}");
                self.note("origin failed lately: something fresh served");
                self.check(&hit, place, asks, Freshness::OriginFailed);
            }
            // Evicted: the reference forgets it, too.
            (Decision::Miss(lease), _) if self.is_small => {
                self.note("evicted");
                self.stored.remove(&place);
                return self.fetched(lease, place, &asking);
            }
            (Decision::Unsatisfiable | Decision::Bypass(_), _) if self.is_small => {
                self.note("evicted");
                self.stored.remove(&place);
            }
            (found, _) => panic!("{context}: {found:?}"),
        }
        Next::Done
    }

    /// RFC 9111 §4, §4.2.4, §5.2.1, RFC 5861 §3.
    fn must(&self, place: (u64, u64), asks: &Asks) -> Must {
        let otherwise = if asks.only_if_cached { Must::Unsatisfiable } else { Must::Fetch };
        let Some(stored) = self.stored.get(&place) else { return otherwise };
        if stored.missing(asks).is_some() {
            return otherwise;
        }
        let (age_ms, lifetime_ms) = (stored.age_ms(self.now_ms), stored.lifetime_ms());
        if stored.is_soft || stored.said.needs_validation() || asks.no_cache {
            return otherwise;
        }
        let is_too_old = asks.max_age_s.is_some_and(|max_s| age_ms > max_s * 1000);
        let is_too_short =
            asks.min_fresh_s.is_some_and(|min_s| lifetime_ms < age_ms + min_s * 1000);
        if is_too_old || is_too_short {
            return otherwise;
        }
        if stored.is_fresh(self.now_ms) {
            return Must::Fresh;
        }
        let staleness_ms = age_ms - lifetime_ms;
        if stored.said.forbids_stale() {
            return otherwise;
        }
        let is_asked_for = asks.max_stale_s.is_some_and(|max_s| staleness_ms <= max_s * 1000);
        if is_asked_for && stored.said.allows_max_stale() {
            return Must::StaleAsAsked;
        }
        let window_s = stored.said.while_revalidating_s.filter(|_| !stored.said.is_targeted());
        // RFC 9111 §5.2.1.5, §3.5.
        let is_for_itself = asks.no_store || asks.authorization && !stored.said.shares_authorized();
        match window_s {
            Some(window_s) if staleness_ms < window_s * 1000 && !asks.only_if_cached => {
                match is_for_itself {
                    true => Must::StaleLeftToOthers,
                    false => Must::StaleWhileRevalidating,
                }
            }
            _ => otherwise,
        }
    }

    /// What is served is what the reference holds, in age, content and status.
    fn check(&mut self, hit: &Hit, place: (u64, u64), asks: &Asks, freshness: Freshness) {
        let stored = self.stored[&place].clone();
        assert_eq!(hit.freshness, freshness);
        assert_eq!(version_of(hit.local.entry()), stored.version);
        assert_eq!(hit.age_s, stored.age_ms(self.now_ms) / 1000);
        let whole = text_of(stored.body);
        let content = hit.local.entry().get("Content-Encoding").is_some();
        let is_part = stored.held.is_some();
        match (&hit.answer, stored.selects(asks)) {
            (Answer::NotModified, _) if stored.is_known(asks) => self.note("condition: 304"),
            (answer, _) if stored.is_known(asks) => panic!("known, and yet {answer:?}"),
            (Answer::Unsatisfiable(told), Selected::Nothing) => {
                assert_eq!(*told, whole.len() as u64);
                self.note("range: 416");
            }
            (Answer::Parts(parts), Selected::Parts(expected)) => {
                let parts: Vec<_> = parts.iter().map(|part| (part.first, part.last)).collect();
                assert_eq!(parts, expected);
                assert!(!content);
                for &(first, last) in &parts {
                    assert!(read(hit, first, Some(last)) == whole[first as usize..=last as usize]);
                }
                self.note(if is_part { "range: 206 of parts" } else { "range: 206" });
            }
            (Answer::Full, Selected::Whole) if content => {
                assert!(asks.gzip && !is_part && read(hit, 0, None) == encoded(stored.body));
                self.note("encoding: served");
            }
            (Answer::Full, Selected::Whole) if asks.head => {}
            (Answer::Full, Selected::Whole) => {
                assert!(read(hit, 0, None) == whole);
                self.note(if is_part { "whole: joined of parts" } else { "whole: served" });
            }
            (answer, expected) => panic!("{answer:?} for {expected:?} of {stored:?}"),
        }
        if let Some(order) = &hit.order {
            assert!(asks.gzip && !content && !is_part);
            match self.dice.below(3) {
                0 => self.cache.decline_encoding(order),
                _ => drop(self.cache.take_encoding(order, encoded(stored.body))),
            }
            self.note("encoding: ordered");
        }
    }

    /// The origin answers: anew, with a part, that nothing has changed, or with an error.
    fn fetched(&mut self, lease: Lease, place: (u64, u64), asking: &AskedFor<'_>) -> Next {
        let mut conditions = Vec::new();
        lease.conditional_fields(&mut conditions);
        let conditions = String::from_utf8_lossy(&conditions).into_owned();
        let has_use = self.stored.get(&place).is_some_and(|stored| {
            self.hole(stored, asking).is_none_or(|_| self.may_join(stored, asking))
        });
        if self.is_small && has_use && lease.stored().is_none() {
            self.note("evicted");
            self.forget(place);
        }
        let joins = self.check_wanted(&lease, place, asking, &conditions);
        if self.dice.one_in(12) {
            self.failed_ms.insert(place.0, self.now_ms);
            let stale = lease.fail(self.now_ms, 502, &mut Vec::new());
            self.note("origin: failed");
            if let Some(entry) = stale {
                // Explicit 0 (RFC 5861 §4): only what is fresh all the same.
                let stored = &self.stored[&place];
                assert!(stored.is_fresh(self.now_ms), "{:?} for {stored:?}", version_of(&entry));
                assert!(!joins, "it lacks what is wanted");
                self.note("origin: failed, something fresh served");
            }
            return Next::Done;
        }
        match field(&conditions, "Range") {
            Some(value) => self.fetched_part(lease, place, asking, &Wanted::parse(value), joins),
            None => {
                self.fetched_whole(lease, place, asking, &conditions);
                Next::Done
            }
        }
    }

    /// What the origin is asked for: the hole alone, if it can be joined with what is stored (RFC
    /// 9111 §3.4), on condition that it is still the same (RFC 9110 §13.1.5); else what the client
    /// wants. Whether it is the hole.
    fn check_wanted(
        &self,
        lease: &Lease,
        place: (u64, u64),
        asking: &AskedFor<'_>,
        conditions: &str,
    ) -> bool {
        let asks = asking.asks;
        let stored = self.stored.get(&place);
        let (wanted, if_range) = (field(conditions, "Range"), field(conditions, "If-Range"));
        let hole = stored.and_then(|it| Some((it, self.hole(it, asking)?)));
        let joined = hole.filter(|(it, _)| self.may_join(it, asking));
        if let Some((stored, (first, last))) = joined {
            let length = text_of(stored.body).len() as u64;
            let wanted = Wanted::parse(wanted.expect("the hole")).of(length);
            assert_eq!(wanted, Selected::Parts(vec![(first, last)]), "the hole of {stored:?}");
            assert_eq!(if_range.is_some(), stored.is_strong(), "{stored:?}");
            if let Some(version) = stored.etag() {
                assert_eq!(if_range, Some(&*format!("\"v{version}\"")));
            }
            return true;
        }
        // Stored whole it will be stored whole again; what can be validated is.
        let is_usable = stored.filter(|_| hole.is_none());
        let is_asked_whole = is_usable.is_some_and(|it| it.held.is_none() || it.can_validate());
        let own = asks.wanted.as_ref().filter(|it| it.is_one() && !is_asked_whole && !asks.head);
        assert_eq!(wanted, own.map(Wanted::to_value).as_deref(), "{asks:?} of {stored:?}");
        let own_if_range = own.and(asks.if_range).map(|version| format!("\"v{version}\""));
        assert_eq!(if_range, own_if_range.as_deref());
        assert!(
            lease.stored().is_none() || is_usable.is_some(),
            "{asks:?} of {stored:?}: {wanted:?} {if_range:?}"
        );
        false
    }

    /// The bytes that are wanted and not there. Who was answered already wants none.
    fn hole(&self, stored: &Stored, asking: &AskedFor<'_>) -> Option<(u64, u64)> {
        stored.missing(asking.asks).filter(|_| !asking.is_behind)
    }

    /// Whether what is asked for in its place may be joined with it. Without a validator that could
    /// tell it is tried where nothing needs validation.
    fn may_join(&self, stored: &Stored, asking: &AskedFor<'_>) -> bool {
        let is_fresh = stored.is_fresh(self.now_ms) && !asking.asks.no_cache;
        let may_be_another = asking.asks.authorization;
        let is_good = !stored.is_soft && !stored.is_doubted;
        is_good && (is_fresh || stored.is_strong()) && !may_be_another
    }

    /// What was asked for is a part: a part comes, or something else.
    fn fetched_part(
        &mut self,
        lease: Lease,
        place: (u64, u64),
        asking: &AskedFor<'_>,
        wanted: &Wanted,
        joins: bool,
    ) -> Next {
        let stored = self.stored.get(&place).cloned();
        let known = stored.as_ref().filter(|it| it.held.is_some() && it.is_strong());
        let is_same = known.is_some() && !self.dice.one_in(3);
        let (version, now_ms) = (self.versions, self.now_ms);
        let body = known.filter(|_| is_same).map_or(version, |stored| stored.body);
        let whole = text_of(body);
        let holds = match (joins, asking.asks.if_range) {
            (true, _) => is_same || known.is_none(),
            (false, if_range) => if_range.is_none_or(|version| version == body),
        };
        let sends = Sends::draw(&mut self.dice, wanted, whole.len() as u64, holds);
        let (range, told, breaks_off) = match sends {
            Sends::Part { range, told, breaks_off } => (range, told, breaks_off),
            Sends::Whole => {
                self.note("range: the whole came");
                self.fetched_whole(lease, place, asking, "");
                return Next::Done;
            }
            Sends::Nothing => return self.fetched_nothing(lease, place, asking, (416, joins)),
            Sends::NotModified => return self.fetched_nothing(lease, place, asking, (304, joins)),
        };
        self.versions += 1;
        let mut said = Said { status: 200, ..Said::draw(&mut self.dice) };
        said.is_of(known.filter(|_| is_same), stored.as_ref(), now_ms);
        let fields = said.part_fields((version, body), now_ms, is_varying(place.0), &told);
        let fields = lend(&fields);
        let content = &whole[range.0 as usize..=range.1 as usize];
        let response = Response {
            status: 206,
            reason: b"Partial Content",
            fields: &&fields[..],
            length: Some(content.len() as u64),
            request_at_ms: now_ms,
            response_at_ms: now_ms,
            append: b"",
        };
        let is_sound = told_range(&told, content.len() as u64) == Some((range, whole.len() as u64));
        // Parts are joined only where both say by a strong validator that they are of the same.
        let older = known.filter(|it| is_same && it.is_same_as(&said, now_ms)).cloned();
        let mut held = older.as_ref().and_then(|it| it.held.clone());
        held = Some(held.unwrap_or_else(|| Held::nothing(whole.len() as u64)).with(range));
        if let Some(older) = &older {
            said.keep_unsaid(older, now_ms);
        }
        let is_stored = lease.stored().is_some();
        let new = Stored::new(said, (version, body), now_ms, held);
        let context = format!("{joins} {is_same} {told:?} {range:?} {stored:?} {new:?}");
        match lease.head(asking.fields, &response, &mut Vec::new()) {
            HeadOutcome::Fill { mut writer, entry, not_stored, .. } => {
                assert!(is_sound && not_stored.is_none(), "{context}");
                assert!(!new.said.is_refused_to(asking.asks), "{context}");
                assert!(joins || asking.asks.if_range.is_none(), "{context}");
                assert!(!joins || older.is_some(), "joined with another: {context}");
                let content = if breaks_off { &content[..content.len() / 2] } else { content };
                let is_written = writer.append(content, &mut Vec::new()).is_ok();
                if breaks_off {
                    self.note("part: broke off");
                    writer.fail(&mut Vec::new());
                    return Next::Done;
                }
                if !is_written || writer.finish(&mut Vec::new()).is_err() {
                    assert!(self.is_small, "there is room");
                    self.forget(place);
                    return Next::Done;
                }
                self.note(match (joins, older.is_some()) {
                    (true, _) => "part: hole filled",
                    (_, true) => "part: joined with another",
                    _ => "part: stored",
                });
                self.stored.insert(place, new);
                self.check_parts(&entry, place, range);
                self.check_served(&entry, place, asking, range);
                Next::Done
            }
            HeadOutcome::Again => {
                assert!(joins, "{context}");
                let is_whole = new.missing(asking.asks).is_none();
                let is_good = is_sound && older.is_some() && is_whole;
                let must = is_good && new.must_be_stored() && !self.is_small;
                assert!(!must, "it could be joined: {context}");
                self.note("part: of no use, asked again");
                self.doubt(place);
                Next::Again
            }
            HeadOutcome::NotStored(reason) => {
                let is_refused = !is_sound || asking.asks.if_range.is_some() || self.is_small;
                let is_refused = is_refused || new.said.is_refused_to(asking.asks);
                let must = !is_refused && new.must_be_stored();
                assert!(!joins && !must, "{reason:?} {context}");
                self.note(if is_sound { "part: not stored" } else { "part: mistaken" });
                if is_stored {
                    self.forget_outdated(place, 206, asking.asks);
                }
                Next::Done
            }
            other => panic!("{context}: {other:?}"),
        }
    }

    /// 416, or a 304 that nobody asked for.
    fn fetched_nothing(
        &mut self,
        lease: Lease,
        place: (u64, u64),
        asking: &AskedFor<'_>,
        (status, joins): (u16, bool),
    ) -> Next {
        let fields: &[(&str, &str)] = &[("Cache-Control", "max-age=100"), ("X-Version", "0")];
        let response = Response {
            status,
            reason: b"",
            fields: &fields,
            length: Some(0),
            request_at_ms: self.now_ms,
            response_at_ms: self.now_ms,
            append: b"",
        };
        let is_stored = lease.stored().is_some();
        match lease.head(asking.fields, &response, &mut Vec::new()) {
            HeadOutcome::Again => {
                assert!(is_stored);
                self.note("part: of no use, asked again");
                self.doubt(place);
                Next::Again
            }
            HeadOutcome::NotStored(_) => {
                assert!(!joins);
                // Neither says anything of what is stored: it stays.
                self.note("part: nothing came");
                Next::Done
            }
            other => panic!("{status} for a part, {joins}: {other:?}"),
        }
    }

    /// All that is held is there, unless memory is short: then what was to be joined may have been
    /// evicted before.
    fn check_parts(&mut self, entry: &Arc<Entry>, place: (u64, u64), newest: (u64, u64)) {
        let name = format!("/{}", place.0);
        let cache_key = self.cache.cache_key("site", b"host", name.as_bytes());
        let fields: &[(&str, &str)] = &[];
        let request = Request::new(Method::Head, cache_key, &fields);
        let near = &mut self.near[0];
        let hit = self.cache.serve(near, &request, self.now_ms, entry, Freshness::Fresh);
        let stored = self.stored.get_mut(&place).expect("just stored");
        let held = stored.held.as_ref().expect("in parts");
        let is_there = |at: u64| matches!(hit.local.piece_at(at), Piece::Bytes(_));
        let mut all = (0..held.len()).filter(|&at| held.missing(at, at).is_none());
        let are_there = all.all(is_there);
        if !are_there {
            assert!(self.is_small, "{stored:?}");
            stored.held = Some(Held::nothing(held.len()).with(newest));
        }
    }

    /// The one who asked gets what it wants; where another part has come than it wants, that.
    fn check_served(
        &mut self,
        entry: &Arc<Entry>,
        place: (u64, u64),
        asking: &AskedFor<'_>,
        newest: (u64, u64),
    ) {
        let near = &mut self.near[asking.shard];
        let fresh = Freshness::Fresh;
        let hit = self.cache.serve(near, asking.request, self.now_ms, entry, fresh);
        let stored = &self.stored[&place];
        if stored.missing(asking.asks).is_none() {
            return self.check(&hit, place, asking.asks, fresh);
        }
        let (first, last) = newest;
        let part = cache::ByteRange { first, last };
        assert_eq!(hit.answer, Answer::Parts([part].into()));
        let whole = text_of(stored.body);
        assert!(read(&hit, first, Some(last)) == whole[first as usize..=last as usize]);
        self.note("part: another than asked for, passed on as it is");
    }

    /// The whole comes, or word of it.
    fn fetched_whole(
        &mut self,
        lease: Lease,
        place: (u64, u64),
        asking: &AskedFor<'_>,
        conditions: &str,
    ) {
        let stored = self.stored.get(&place).cloned();
        let is_conditional = conditions.contains("If-None-Match");
        let is_get = lease.method() == Method::Get;
        let is_stored = lease.stored().is_some();
        let (version, now_ms) = (self.versions, self.now_ms);
        self.versions += 1;
        let mut said = Said::draw(&mut self.dice);
        // HEAD that goes on to the origin tells of what is stored, or of something else (§4.3.5).
        let is_head = lease.method() == Method::Head;
        let has_etag = stored.as_ref().is_some_and(|it| it.said.has_etag && it.said.status == 200);
        let is_same = self.dice.one_in(2) && if is_head { has_etag } else { is_conditional };
        if is_head {
            said = Said { has_etag: true, modified_before_s: None, ..said };
        }
        let body = match &stored {
            Some(stored) if is_same => stored.body,
            _ => version,
        };
        if !is_same {
            said.differ_from(stored.as_ref(), now_ms);
        }
        if is_same {
            said = stored.as_ref().map_or(said.clone(), |stored| Said {
                status: stored.said.status,
                has_etag: true,
                ..said
            });
        }
        let mut fields = said.fields(version, now_ms, is_varying(place.0));
        if let Some(stored) = stored.as_ref().filter(|_| is_same) {
            // The validator is that of the body; what a 304 does not say stays as it was.
            let tag = match is_head {
                true => format!("\"v{}\"", stored.body),
                false => format!("\"v{}\"", stored_tag(conditions)),
            };
            fields.retain(|(name, _)| name != "ETag");
            fields.push(("ETag".into(), tag));
            said.keep_unsaid(stored, now_ms);
        }
        let fields = lend(&fields);
        let text = text_of(body);
        let response = Response {
            status: if is_same && !is_head { 304 } else { said.status },
            reason: b"OK",
            fields: &&fields[..],
            length: Some(if is_same && !is_head { 0 } else { text.len() as u64 }),
            request_at_ms: now_ms,
            response_at_ms: now_ms,
            append: b"",
        };
        let outcome = lease.head(asking.fields, &response, &mut Vec::new());
        match outcome {
            HeadOutcome::Fill { mut writer, not_stored, entry, .. } => {
                let is_refused = said.is_refused_to(asking.asks);
                assert!(not_stored.is_none() && !is_refused, "{said:?}");
                writer.append(&text, &mut Vec::new()).unwrap_or_default();
                drop(entry);
                if writer.finish(&mut Vec::new()).is_err() {
                    assert!(self.is_small, "there is room");
                    self.forget(place);
                    return;
                }
                self.note("stored");
                self.put(place, said, (version, version), None);
            }
            HeadOutcome::Updated { entry, .. } => {
                assert!(is_same, "{said:?}");
                match said.is_refused_to(asking.asks) {
                    true => {
                        assert!(entry.is_dead(), "it may not be stored: {said:?}");
                        self.forget_outdated(place, 304, asking.asks);
                        self.note("304: not stored");
                    }
                    // Nothing could come of keeping it.
                    false if entry.is_dead() => {
                        self.forget_outdated(place, 304, asking.asks);
                    }
                    false => {
                        self.note("304: updated");
                        let held = stored.and_then(|stored| stored.held);
                        self.put(place, said, (version, body), held);
                    }
                }
            }
            HeadOutcome::NotStored(reason) => {
                self.note("not stored");
                let is_useful = said.lifetime_ms().is_some_and(|it| it > said.age_s * 1000);
                let is_refused = said.is_refused_to(asking.asks);
                let must = is_get && is_useful && !is_refused && !self.is_small;
                assert!(!must, "{reason:?} for {said:?}");
                if is_head && said.status == 200 {
                    // It tells of something else: what is stored counts as stale (§4.3.5).
                    let stored = self.stored.get_mut(&place).filter(|_| is_stored);
                    if let Some(stored) = stored.filter(|_| !asking.asks.authorization) {
                        stored.is_soft = true;
                    }
                } else if is_stored {
                    self.forget_outdated(place, said.status, asking.asks);
                }
            }
            HeadOutcome::Stale(_) => {
                assert!(said.status >= 500, "{said:?}");
                self.note("origin: error, something stored served");
            }
            HeadOutcome::Again => panic!("what came is whole"),
        }
    }

    fn put(
        &mut self,
        place: (u64, u64),
        said: Said,
        (version, body): (usize, usize),
        held: Option<Held>,
    ) {
        let stored = Stored::new(said, (version, body), self.now_ms, held);
        self.stored.insert(place, stored);
    }

    /// An answer came that was not stored: what is stored stays, or goes.
    fn forget_outdated(&mut self, place: (u64, u64), status: u16, asks: &Asks) {
        let now_ms = self.now_ms;
        if self.stored.get(&place).is_some_and(|it| it.is_outdated_by(status, asks, now_ms)) {
            self.forget(place);
            self.note("not stored: what was stored is outdated");
        } else {
            self.note("not stored: what was stored stays");
        }
    }

    /// It stays, and is asked for as a whole from now on.
    fn doubt(&mut self, place: (u64, u64)) {
        if let Some(stored) = self.stored.get_mut(&place) {
            stored.is_doubted = true;
        }
    }

    fn forget(&mut self, place: (u64, u64)) {
        self.stored.remove(&place);
    }

    /// A POST that succeeds outdates its target, what it names, and the groups that it names.
    fn post(&mut self) {
        let (target, other) = (self.dice.below(TARGETS), self.dice.below(TARGETS));
        let name = format!("/{target}");
        let location = format!("/{other}");
        let group = format!("\"g{}\"", self.dice.below(2));
        let (names, groups) = (self.dice.one_in(3), self.dice.one_in(3));
        let mut fields: Pairs<'_> = vec![];
        if names {
            fields.push(("Location", &location));
        }
        if groups {
            fields.push(("Cache-Group-Invalidation", &group));
        }
        let cache = Arc::clone(&self.cache);
        let key = cache.cache_key("site", b"host", name.as_bytes());
        let mut purges = cache.invalidate(&key);
        for target in cache.named_targets(&key, &&fields[..]) {
            purges.extend(cache.invalidate(&cache.cache_key("site", b"host", target.as_bytes())));
        }
        purges.extend(cache.invalidate_groups(&key, &&fields[..]));
        for purge in &mut purges {
            while !purge.step(&cache, 3).done {}
        }
        self.note("post: target outdated");
        let mut gone: Vec<u64> = vec![target];
        if names {
            gone.push(other);
            self.note("post: Location outdated");
        }
        // RFC 9875 §2.2.1: what shares a group with what is outdated is outdated, too.
        let mut outdated: Vec<usize> = Vec::new();
        for (place, stored) in &self.stored {
            if gone.contains(&place.0) {
                outdated.push(stored.group());
            }
        }
        if groups {
            self.note("post: group outdated");
            outdated.push(usize::from(group == "\"g1\""));
        }
        let is_gone = |place: &(u64, u64), stored: &Stored| {
            gone.contains(&place.0) || outdated.contains(&stored.group())
        };
        self.stored.retain(|place, stored| !is_gone(place, stored));
    }

    fn purge(&mut self) {
        let target = self.dice.below(TARGETS);
        let (site, name) = ("site".to_owned(), format!("/{target}"));
        let (scope, is_all) = match self.dice.below(4) {
            0 => (Scope::Everything, true),
            1 => (Scope::Prefix { site, prefix: name }, false),
            _ => (Scope::Url { site, target: name }, false),
        };
        let soft = self.dice.one_in(2);
        let mut cursor = self.cache.purge(&Purge { position: 1, scope, soft });
        while !cursor.step(&self.cache, 3).done {}
        self.note(if soft { "purge: soft" } else { "purge: hard" });
        let is_reached = |place: &(u64, u64)| is_all || place.0 == target;
        if !soft {
            return self.stored.retain(|place, _| !is_reached(place));
        }
        for (_, stored) in self.stored.iter_mut().filter(|(place, _)| is_reached(place)) {
            stored.is_soft = true;
        }
    }

    /// When everything is gone, all memory is back.
    fn end(mut self) {
        let everything = Purge { position: 1, scope: Scope::Everything, soft: false };
        let mut cursor = self.cache.purge(&everything);
        while !cursor.step(&self.cache, 7).done {}
        self.near.iter_mut().for_each(Near::clear);
        let stats = self.cache.stats();
        assert_eq!((stats.entries, stats.used_bytes, stats.dead_bytes), (0, 0, 0));
        self.note("histories");
    }
}

/// The number in `If-None-Match: "v7"`.
fn stored_tag(conditions: &str) -> String {
    let tag = conditions.split("\"v").nth(1).unwrap_or_default();
    tag.split('"').next().unwrap_or_default().to_owned()
}

fn version_of(entry: &Entry) -> usize {
    let value = entry.get("X-Version").expect("every answer has one");
    std::str::from_utf8(value).expect("digits").parse().expect("a number")
}

/// A line of these fields.
fn field<'f>(fields: &'f str, name: &str) -> Option<&'f str> {
    let mut lines = fields.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// From the first to the last, or to the end.
fn read(hit: &Hit, first: u64, last: Option<u64>) -> Vec<u8> {
    let mut found = Vec::new();
    let bytes_max = last.map_or(usize::MAX, |last| (last - first + 1) as usize);
    while found.len() < bytes_max
        && let Piece::Bytes(piece) = hit.local.piece_at(first + found.len() as u64)
    {
        found.extend_from_slice(&piece);
    }
    found.truncate(bytes_max);
    found
}
