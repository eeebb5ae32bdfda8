//! Random histories against the rules of RFC 9111 in their own words: one request after the other,
//! each answered before the next, so that a slow and plain reference can say what must come out.
//!
//! What [`super::cache_ops`] leaves out: freshness fields of every kind, `Age`, statuses, request
//! directives, HEAD, POST and what it outdates, groups, ranges, 304, encodings, eviction. What it
//! has and this leaves out: several requests at a time. Neither stores parts (206).
//!
//! The reference keeps each stored response as the numbers that its fields were made from, never as
//! text that would have to be read again.

use std::{collections::BTreeMap, sync::Arc};

use cache::{
    Answer, Asking, Cache, Coding, Compression, Config, Decision, FieldSource, Freshness,
    HeadOutcome, Hit, Lease, Method, Near, Piece, Request, Response, Waiter,
};
use proto::{
    feed::record::{Purge, Scope},
    field::date,
};

/// How often each rule decided; by its name.
pub type Coverage = BTreeMap<&'static str, u64>;

/// Requests and other steps of one history.
const STEPS: usize = 120;
const TARGETS: u64 = 4;
const SHARDS: u64 = 2;
const START_MS: u64 = 784_111_777_000;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn seconds(&mut self) -> u64 {
        [0, 1, 2, 5, 20, 100][self.below(6) as usize]
    }

    fn maybe(&mut self, one_in: u64) -> Option<u64> {
        self.one_in(one_in).then(|| self.seconds())
    }
}

/// What the origin says, as numbers.
#[derive(Clone, Debug)]
struct Said {
    status: u16,
    max_age_s: Option<u64>,
    s_maxage_s: Option<u64>,
    /// `CDN-Cache-Control: max-age`.
    targeted_s: Option<u64>,
    expires_after_s: Option<u64>,
    /// `Last-Modified` lies so long before `Date`.
    modified_before_s: Option<u64>,
    age_s: u64,
    no_store: bool,
    private: bool,
    no_cache: bool,
    must_revalidate: bool,
    while_revalidating_s: Option<u64>,
    has_etag: bool,
}

impl Said {
    fn draw(dice: &mut Dice) -> Self {
        let statuses = [200, 200, 200, 200, 200, 203, 301, 302, 404, 410, 501];
        Self {
            status: statuses[dice.below(11) as usize],
            max_age_s: dice.maybe(2),
            s_maxage_s: dice.maybe(5),
            targeted_s: dice.maybe(6),
            expires_after_s: dice.maybe(4),
            modified_before_s: dice.one_in(4).then(|| 1000 * dice.below(3)),
            age_s: dice.maybe(4).unwrap_or(0),
            no_store: dice.one_in(12),
            private: dice.one_in(14),
            no_cache: dice.one_in(10),
            must_revalidate: dice.one_in(8),
            while_revalidating_s: dice.maybe(6),
            has_etag: !dice.one_in(4),
        }
    }

    /// Directives of `Cache-Control` count only without a targeted field (RFC 9213 §2.2).
    fn is_targeted(&self) -> bool {
        self.targeted_s.is_some()
    }

    fn forbids_storing(&self) -> bool {
        !self.is_targeted() && (self.no_store || self.private)
    }

    fn needs_validation(&self) -> bool {
        !self.is_targeted() && self.no_cache
    }

    fn forbids_stale(&self) -> bool {
        !self.is_targeted() && (self.must_revalidate || self.no_cache)
    }

    /// RFC 9111 §5.2.2.10: s-maxage has the meaning of proxy-revalidate; what the same response
    /// allows by name is allowed all the same (docs/rfc9111.md).
    fn allows_max_stale(&self) -> bool {
        self.is_targeted() || self.s_maxage_s.is_none()
    }

    /// RFC 9111 §4.2.1, §4.2.2; `None` where nothing is said and nothing may be guessed.
    fn lifetime_ms(&self) -> Option<u64> {
        if let Some(targeted_s) = self.targeted_s {
            return Some(targeted_s * 1000);
        }
        let said = self.s_maxage_s.or(self.max_age_s).or(self.expires_after_s);
        let is_known = matches!(self.status, 200 | 203 | 204 | 301 | 404 | 405 | 410 | 414 | 501);
        let guessed_ms = self.modified_before_s.filter(|_| is_known).map(|it| it * 100);
        said.map(|said_s| said_s * 1000).or(guessed_ms)
    }

    fn fields(&self, version: usize, now_ms: u64, is_varying: bool) -> Vec<(String, String)> {
        let mut control: Vec<String> = Vec::new();
        let mut say = |name: &str, seconds: Option<u64>| {
            control.extend(seconds.map(|seconds| format!("{name}={seconds}")));
        };
        say("max-age", self.max_age_s);
        say("s-maxage", self.s_maxage_s);
        say("stale-while-revalidate", self.while_revalidating_s);
        for (name, is_said) in [
            ("no-store", self.no_store),
            ("private", self.private),
            ("no-cache", self.no_cache),
            ("must-revalidate", self.must_revalidate),
        ] {
            control.extend(is_said.then(|| name.to_owned()));
        }
        // An explicit 0: what may be served because an origin failed is another test's.
        control.push("stale-if-error=0".into());
        let text_of = |ms: u64| String::from_utf8_lossy(&date::format((ms / 1000) as i64)).into();
        let mut fields: Vec<(String, String)> = vec![
            ("Date".into(), text_of(now_ms)),
            ("X-Version".into(), version.to_string()),
            ("Content-Type".into(), "text/plain".into()),
            ("Cache-Control".into(), control.join(", ")),
        ];
        let mut add = |name: &str, value: Option<String>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        add("CDN-Cache-Control", self.targeted_s.map(|s| format!("max-age={s}, stale-if-error=0")));
        add("Expires", self.expires_after_s.map(|after_s| text_of(now_ms + after_s * 1000)));
        add("Last-Modified", self.modified_before_s.map(|s| text_of(now_ms - s * 1000)));
        add("Age", (self.age_s > 0).then(|| self.age_s.to_string()));
        add("ETag", self.has_etag.then(|| format!("\"v{version}\"")));
        add("Vary", is_varying.then(|| "Accept-Language".into()));
        add("Cache-Groups", Some(format!("\"g{}\"", version % 2)));
        fields
    }
}

/// What the reference holds of one target and language.
#[derive(Clone, Debug)]
struct Stored {
    said: Said,
    version: usize,
    /// The body is that of this version: a 304 keeps it.
    body: usize,
    arrived_ms: u64,
    is_soft: bool,
}

impl Stored {
    fn age_ms(&self, now_ms: u64) -> u64 {
        // Date is the time of arrival, so the apparent age is 0 (RFC 9111 §4.2.3).
        self.said.age_s * 1000 + (now_ms - self.arrived_ms)
    }

    fn lifetime_ms(&self) -> u64 {
        self.said.lifetime_ms().unwrap_or(0)
    }

    fn is_fresh(&self, now_ms: u64) -> bool {
        self.age_ms(now_ms) < self.lifetime_ms()
    }
}

/// What a request asks for.
#[derive(Clone, Debug, Default)]
struct Asks {
    head: bool,
    no_cache: bool,
    no_store: bool,
    only_if_cached: bool,
    max_age_s: Option<u64>,
    min_fresh_s: Option<u64>,
    max_stale_s: Option<u64>,
    range: Option<(u64, u64)>,
    /// `If-None-Match` with the validator of this version.
    knows: Option<usize>,
    gzip: bool,
}

impl Asks {
    fn draw(dice: &mut Dice, versions: usize) -> Self {
        if dice.one_in(3) {
            return Self::default();
        }
        let first = dice.below(200);
        Self {
            head: dice.one_in(8),
            no_cache: dice.one_in(14),
            no_store: dice.one_in(20),
            only_if_cached: dice.one_in(20),
            max_age_s: dice.maybe(12),
            min_fresh_s: dice.maybe(12),
            max_stale_s: dice.maybe(10),
            range: dice.one_in(6).then(|| (first, first + dice.below(300))),
            knows: dice.one_in(6).then(|| dice.below(versions.max(1) as u64) as usize),
            gzip: dice.one_in(3),
        }
    }

    fn fields(&self, language: u64) -> Vec<(String, String)> {
        let mut control: Vec<String> = Vec::new();
        control.extend(self.no_cache.then(|| "no-cache".into()));
        control.extend(self.no_store.then(|| "no-store".into()));
        control.extend(self.only_if_cached.then(|| "only-if-cached".into()));
        control.extend(self.max_age_s.map(|s| format!("max-age={s}")));
        control.extend(self.min_fresh_s.map(|s| format!("min-fresh={s}")));
        control.extend(self.max_stale_s.map(|s| format!("max-stale={s}")));
        let mut fields = vec![("Accept-Language".to_owned(), format!("l{language}"))];
        if !control.is_empty() {
            fields.push(("Cache-Control".into(), control.join(", ")));
        }
        let range = self.range.map(|(first, last)| format!("bytes={first}-{last}"));
        fields.extend(range.map(|range| ("Range".into(), range)));
        fields.extend(self.knows.map(|it| ("If-None-Match".into(), format!("\"v{it}\""))));
        fields.extend(self.gzip.then(|| ("Accept-Encoding".into(), "gzip".into())));
        fields
    }
}

/// What must come of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Must {
    Fresh,
    StaleAsAsked,
    StaleWhileRevalidating,
    Fetch,
    Unsatisfiable,
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
    format!("body {body}; ").repeat(10 + body % 20).into_bytes()
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
        let place = (target, if is_varying(target) { language } else { 0 });
        let must = self.must(place, &asks);
        let fields = asks.fields(language);
        let fields = lend(&fields);
        let name = format!("/{target}");
        let cache = Arc::clone(&self.cache);
        let cache_key = cache.cache_key("site", b"host", name.as_bytes());
        let method = if asks.head { Method::Head } else { Method::Get };
        let shown = &&fields[..];
        let request = Request::new(method, cache_key, shown);
        let waiter = Waiter { shard: shard as u16, id: 1 };
        let asking = Asking { now_ms: self.now_ms, waiter, min_version: None, waits: 0 };
        let decision = cache.lookup(&mut self.near[shard], &request, &asking);
        let context = format!("{must:?} for {asks:?} of {:?}", self.stored.get(&place));
        match (decision, must) {
            (Decision::Hit(hit), Must::Fresh) => {
                self.note("fresh: served");
                self.check(hit, place, &asks, Freshness::Fresh);
            }
            (Decision::Stale { hit, revalidate: None }, Must::StaleAsAsked) => {
                self.note("stale: max-stale");
                self.check(hit, place, &asks, Freshness::MaxStale);
            }
            (Decision::Stale { hit, revalidate: Some(lease) }, Must::StaleWhileRevalidating) => {
                self.note("stale: while revalidating");
                self.check(hit, place, &asks, Freshness::WhileRevalidating);
                self.fetched(lease, place, shown);
            }
            (Decision::Unsatisfiable, Must::Unsatisfiable) => self.note("only-if-cached: 504"),
            (Decision::Bypass(_), Must::Fetch) if asks.no_store => self.note("no-store: bypass"),
            (Decision::Miss(lease), Must::Fetch) => {
                self.note("miss");
                self.fetched(lease, place, shown);
            }
            (Decision::Revalidate(lease), Must::Fetch) => {
                let known = lease.stored().map(|entry| version_of(entry));
                let own = self.stored.get(&place).map(|stored| stored.version);
                assert!(known == own, "{known:?} is validated: {context}");
                self.note("revalidation");
                self.fetched(lease, place, shown);
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
                self.check(hit, place, &asks, Freshness::OriginFailed);
            }
            // Evicted: the reference forgets it, too.
            (Decision::Miss(lease), _) if self.is_small => {
                self.note("evicted");
                self.stored.remove(&place);
                self.fetched(lease, place, shown);
            }
            (Decision::Unsatisfiable | Decision::Bypass(_), _) if self.is_small => {
                self.note("evicted");
                self.stored.remove(&place);
            }
            (found, _) => panic!("{context}: {found:?}"),
        }
    }

    /// RFC 9111 §4, §4.2.4, §5.2.1, RFC 5861 §3.
    fn must(&self, place: (u64, u64), asks: &Asks) -> Must {
        let otherwise = if asks.only_if_cached { Must::Unsatisfiable } else { Must::Fetch };
        let Some(stored) = self.stored.get(&place) else { return otherwise };
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
        match window_s {
            Some(window_s) if staleness_ms < window_s * 1000 && !asks.only_if_cached => {
                Must::StaleWhileRevalidating
            }
            _ => otherwise,
        }
    }

    /// What is served is what the reference holds, in age, content and status.
    fn check(&mut self, hit: Hit, place: (u64, u64), asks: &Asks, freshness: Freshness) {
        let stored = self.stored[&place].clone();
        assert_eq!(hit.freshness, freshness);
        assert_eq!(version_of(hit.local.entry()), stored.version);
        assert_eq!(hit.age_s, stored.age_ms(self.now_ms) / 1000);
        let is_200 = stored.said.status == 200;
        let whole = text_of(stored.body);
        let is_known = is_200 && asks.knows.is_some() && asks.knows == etag_of(&stored);
        let length = whole.len() as u64;
        let content = hit.local.entry().get("Content-Encoding").is_some();
        match (&hit.answer, asks.range.filter(|_| is_200 && !asks.head)) {
            (Answer::NotModified, _) if is_known => self.note("condition: 304"),
            (answer, _) if is_known => panic!("known, and yet {answer:?}"),
            (Answer::Unsatisfiable(told), Some((first, _))) if first >= length => {
                assert_eq!(*told, length);
                self.note("range: 416");
            }
            (Answer::Parts(parts), Some((first, last))) if first < length => {
                let part = parts[0];
                assert_eq!((part.first, part.last), (first, last.min(length - 1)));
                assert!(!content && parts.len() == 1 && read(&hit) == whole);
                self.note("range: 206");
            }
            (Answer::Full, None) if content => {
                assert!(asks.gzip && read(&hit) == encoded(stored.body));
                self.note("encoding: served");
            }
            (Answer::Full, None) => assert!(read(&hit) == whole),
            (answer, range) => panic!("{answer:?} for {range:?} of {length}"),
        }
        if let Some(order) = hit.order {
            assert!(asks.gzip && !content);
            match self.dice.below(3) {
                0 => self.cache.decline_encoding(&order),
                _ => drop(self.cache.take_encoding(&order, encoded(stored.body))),
            }
            self.note("encoding: ordered");
        }
    }

    /// The origin answers: anew, that nothing has changed, or with an error.
    fn fetched(&mut self, lease: Lease, place: (u64, u64), request: &dyn FieldSource) {
        if self.dice.one_in(12) {
            self.failed_ms.insert(place.0, self.now_ms);
            let stale = lease.fail(self.now_ms, &mut Vec::new());
            self.note("origin: failed");
            if let Some(entry) = stale {
                // Explicit 0 (RFC 5861 §4): only what is fresh all the same.
                let stored = &self.stored[&place];
                assert!(stored.is_fresh(self.now_ms), "{:?} for {stored:?}", version_of(&entry));
                self.note("origin: failed, something fresh served");
            }
            return;
        }
        let stored = self.stored.get(&place).cloned();
        let mut conditions = Vec::new();
        lease.conditional_fields(&mut conditions);
        let conditions = String::from_utf8_lossy(&conditions).into_owned();
        let is_conditional = conditions.contains("If-None-Match");
        let is_whole = lease.method() == Method::Get && !conditions.contains("Range:");
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
                false => format!("\"v{}\"", stored_tag(&conditions)),
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
        let is_plain_get = !is_head && (is_whole || is_same);
        let outcome = lease.head(request, &response, &mut Vec::new());
        match outcome {
            HeadOutcome::Fill { mut writer, not_stored, entry, .. } => {
                assert!(not_stored.is_none() && !said.forbids_storing(), "{said:?}");
                writer.append(&text, &mut Vec::new()).unwrap_or_default();
                drop(entry);
                if writer.finish(&mut Vec::new()).is_err() {
                    assert!(self.is_small, "there is room");
                    self.forget(place);
                    return;
                }
                self.note("stored");
                self.put(place, said, (version, version));
            }
            HeadOutcome::Updated { entry, .. } => {
                assert!(is_same, "{said:?}");
                match said.forbids_storing() {
                    true => {
                        assert!(entry.is_dead(), "it may not be stored any more: {said:?}");
                        self.forget(place);
                        self.note("304: not stored any more");
                    }
                    false if entry.is_dead() => self.forget(place),
                    false => {
                        self.note("304: updated");
                        self.put(place, said, (version, body));
                    }
                }
            }
            HeadOutcome::NotStored(reason) => {
                self.note("not stored");
                let is_useful = said.lifetime_ms().is_some_and(|it| it > said.age_s * 1000);
                let must = is_plain_get && is_useful && !said.forbids_storing() && !self.is_small;
                let by_request = matches!(reason, cache::NoStoreReason::RequestNoStore);
                assert!(!must || by_request, "{reason:?} for {said:?}");
                // An error says nothing of what is stored.
                if said.status < 500 {
                    self.forget(place);
                }
            }
            HeadOutcome::Stale(_) => {
                assert!(said.status >= 500, "{said:?}");
                self.note("origin: error, something stored served");
            }
            HeadOutcome::Again => panic!("nothing partial is stored"),
        }
    }

    fn put(&mut self, place: (u64, u64), said: Said, (version, body): (usize, usize)) {
        let stored = Stored { said, version, body, arrived_ms: self.now_ms, is_soft: false };
        self.stored.insert(place, stored);
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

impl Said {
    /// What a 304 does not say stays as it was (RFC 9111 §3.2). `Cache-Control` is always said.
    fn keep_unsaid(&mut self, older: &Stored, now_ms: u64) {
        // Moments stay where they are, though `Date` is a new one.
        let passed_s = now_ms / 1000 - older.arrived_ms / 1000;
        let older = &older.said;
        let expires = older.expires_after_s.map(|after_s| after_s.saturating_sub(passed_s));
        let modified = older.modified_before_s.map(|before_s| before_s + passed_s);
        self.targeted_s = self.targeted_s.or(older.targeted_s);
        self.modified_before_s = self.modified_before_s.or(modified);
        self.expires_after_s = self.expires_after_s.or(expires);
    }
}

impl Stored {
    fn group(&self) -> usize {
        self.version % 2
    }
}

/// The version that the stored validator names: that of the body.
fn etag_of(stored: &Stored) -> Option<usize> {
    stored.said.has_etag.then_some(stored.body)
}

/// The number in `If-None-Match: "v7"`.
fn stored_tag(conditions: &str) -> String {
    let tag = conditions.split("\"v").nth(1).unwrap_or_default();
    tag.split('"').next().unwrap_or_default().to_owned()
}

fn version_of(entry: &cache::Entry) -> usize {
    let value = entry.get("X-Version").expect("every answer has one");
    std::str::from_utf8(value).expect("digits").parse().expect("a number")
}

fn read(hit: &Hit) -> Vec<u8> {
    let mut found = Vec::new();
    while let Piece::Bytes(piece) = hit.local.piece_at(found.len() as u64) {
        found.extend_from_slice(&piece);
    }
    found
}
