//! Random histories against a slow model: look-ups on several shards, fetches of every outcome,
//! bodies that fill and fail, purges in slices, invalidations, a clock that passes.
//!
//! The model keeps every version the origin ever gave, with the moment its fetch began, and says of
//! each answer whether it was allowed, and of each fetch whether it was needed:
//!
//! * nothing purged is served to a request that came after the purge was done;
//! * nothing soft-purged is served as fresh;
//! * fresh means younger than its lifetime, and the newest that is stored;
//! * bodies are what the origin sent; variants do not mix, nor do parts of different bodies;
//! * what is stored, fresh and unpurged is a hit;
//! * one fetch at a time for what can be shared;
//! * every waiter is woken exactly once, no byte is accounted when everything is gone.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use cache::{
    Answer, Asking, Cache, Config, Decision, FieldSource, Freshness, HeadOutcome, Hit, Lease,
    Method, Near, Piece, PurgeCursor, Request, Response, Waiter, Wake, WakeWith, Writer,
};
use proto::feed::record::{Purge, Scope};

/// Shards that ask.
pub const SHARDS: usize = 3;
/// Targets that are asked for.
pub const TARGETS: usize = 3;
/// The last target varies by language.
const VARYING: usize = TARGETS - 1;

/// What can happen.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Op {
    Get { shard: usize, target: usize, language: usize, no_cache: bool, range: Range },
    Answer { which: usize, kind: Kind },
    FailLease { which: usize },
    DropLease { which: usize },
    Append { which: usize },
    Finish { which: usize },
    FailBody { which: usize },
    DropBody { which: usize },
    BeginPurge { scope: usize, target: usize, soft: bool },
    StepPurge { which: usize, budget: usize },
    Invalidate { target: usize },
    Pass { ms: u64 },
    Sweep { shard: usize },
}

/// Which of [`RANGES`] is asked for, or none of them.
pub type Range = Option<usize>;

/// They overlap, touch, and lie apart. The shortest body has 176 bytes.
pub const RANGES: [(usize, usize); 4] = [(0, 59), (60, 119), (30, 89), (130, 149)];

/// How the origin answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    Fresh {
        max_age_s: u64,
        announced: bool,
    },
    NoCache,
    Private,
    Error,
    NotModified,
    /// Part of what is asked for, where that is a range.
    Part {
        max_age_s: u64,
        of: PartOf,
    },
}

/// What a part is of, and what is odd about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum PartOf {
    TheSame,
    Another,
    TheSameAndShorter,
    TheSameAndMistaken,
}

/// One answer of the origin, or an update of one.
#[derive(Clone, Debug)]
struct Version {
    target: usize,
    language: usize,
    /// When its fetch began, in operations.
    began: usize,
    fresh_until_ms: u64,
    /// Whether it is stored as far as the model can tell, and since when.
    stored: Option<usize>,
    body: usize,
    /// It may lack bytes.
    is_part: bool,
}

struct Fetch {
    lease: Lease,
    target: usize,
    language: usize,
    /// What its request wants; others may want the same, or any part of the whole.
    range: Range,
    began: usize,
    /// Whether it began when its target could be shared: only then may others join it.
    is_joinable: bool,
}

struct Filling {
    writer: Writer,
    version: usize,
    body: String,
    written: usize,
}

struct PurgeState {
    cursor: Option<PurgeCursor>,
    reached: Vec<usize>,
    /// By a surrogate key, so that it may reach what is not known yet.
    is_by_key: bool,
    soft: bool,
    began: usize,
    done: Option<usize>,
}

#[derive(Clone, Copy)]
struct Waiting {
    shard: usize,
    target: usize,
    language: usize,
    range: Range,
    asked: usize,
}

struct Model {
    cache: Arc<Cache>,
    near: Vec<Near>,
    now_ms: u64,
    wakes: Vec<Wake>,
    waiters: u64,
    now: usize,
    versions: Vec<Version>,
    fetches: Vec<Fetch>,
    fillings: Vec<Filling>,
    purges: Vec<PurgeState>,
    waiting: HashMap<u64, Waiting>,
    unshared_until_ms: HashMap<usize, u64>,
    bodies: usize,
}

/// Runs a history to its end.
pub fn run_ops(ops: impl IntoIterator<Item = Op>) {
    let mut model = Model::new();
    for op in ops {
        model.run(op);
    }
    model.end();
}

/// Runs one input: three bytes an operation, at most [`OPS_MAX`] of them.
pub fn run(data: &[u8]) {
    run_ops(
        data.chunks_exact(3).take(OPS_MAX).map(|bytes| Op::decode([bytes[0], bytes[1], bytes[2]])),
    );
}

/// Operations of one input. More only makes the fuzzer slower.
const OPS_MAX: usize = 400;

impl Op {
    fn decode([op, a, b]: [u8; 3]) -> Self {
        let (which, shard, target) =
            (usize::from(a), usize::from(b) % SHARDS, usize::from(a) % TARGETS);
        match op % 32 {
            0..=9 => {
                let (language, no_cache) = (usize::from(b / 3) % 2, b >= 230);
                let range = (a >= 128).then_some(usize::from(a / 3) % RANGES.len());
                Self::Get { shard, target, language, no_cache, range }
            }
            10..=15 => {
                let max_age_s = 1 + u64::from(b % 5);
                let kind = match b / 5 % 8 {
                    0 | 1 => Kind::Fresh { max_age_s, announced: b >= 128 },
                    2 | 3 => {
                        let of = match b / 40 {
                            0..=2 => PartOf::TheSame,
                            3 => PartOf::Another,
                            4 => PartOf::TheSameAndShorter,
                            _ => PartOf::TheSameAndMistaken,
                        };
                        Kind::Part { max_age_s, of }
                    }
                    4 => Kind::NoCache,
                    5 => Kind::Private,
                    6 => Kind::Error,
                    _ => Kind::NotModified,
                };
                Self::Answer { which, kind }
            }
            16 => Self::FailLease { which },
            17 => Self::DropLease { which },
            18 => Self::Append { which },
            19..=21 => Self::Finish { which },
            22 => Self::FailBody { which },
            23 => Self::DropBody { which },
            24 | 25 => Self::BeginPurge { scope: usize::from(b) % 4, target, soft: b >= 128 },
            26 | 27 => Self::StepPurge { which, budget: [1, 700, 100_000][usize::from(b) % 3] },
            28 => Self::Invalidate { target },
            29 | 30 => Self::Pass { ms: u64::from(a) * 12 + 1 },
            _ => Self::Sweep { shard },
        }
    }
}

fn target_name(target: usize) -> String {
    format!("/{target}")
}

fn language_name(language: usize) -> &'static str {
    ["de", "en"][language]
}

fn body_text(body: usize) -> String {
    // Several in turn are of one length, so that only their validators tell them apart.
    format!("body {body:04}; ").repeat(16 + body / 4 % 3)
}

impl Model {
    fn new() -> Self {
        Self {
            cache: Cache::new(Config::new(64 << 20, 42)),
            near: (0..SHARDS).map(|_| Near::new(64)).collect(),
            now_ms: 784_111_777_000,
            wakes: Vec::new(),
            waiters: 0,
            now: 0,
            versions: Vec::new(),
            fetches: Vec::new(),
            fillings: Vec::new(),
            purges: Vec::new(),
            waiting: HashMap::new(),
            unshared_until_ms: HashMap::new(),
            bodies: 0,
        }
    }

    fn run(&mut self, op: Op) {
        self.now += 1;
        match op {
            Op::Get { shard, target, language, no_cache, range } => {
                let asked = Waiting { shard, target, language, range, asked: self.now };
                let decision = self.ask(&asked, no_cache, None);
                if !no_cache {
                    self.check_needed(&decision, target, language);
                }
                self.take(decision, asked);
            }
            Op::Answer { which, kind } => {
                if let Some(fetch) = take_one(&mut self.fetches, which) {
                    self.answer(fetch, kind);
                }
            }
            Op::FailLease { which } => {
                if let Some(fetch) = take_one(&mut self.fetches, which) {
                    let now_ms = self.now_ms;
                    let stale = fetch.lease.fail(now_ms, 502, &mut self.wakes);
                    self.check_failure(fetch.target, fetch.began);
                    if let Some(entry) = stale {
                        let version = version_of(&entry);
                        self.check_purged(version, fetch.began, false);
                    }
                }
            }
            Op::DropLease { which } => drop(take_one(&mut self.fetches, which)),
            Op::Append { which } => {
                if !self.fillings.is_empty() {
                    let at = which % self.fillings.len();
                    self.append(at, 50);
                }
            }
            Op::Finish { which } => {
                if !self.fillings.is_empty() {
                    let at = which % self.fillings.len();
                    self.append(at, usize::MAX);
                    let filling = self.fillings.swap_remove(at);
                    filling.writer.finish(&mut Vec::new()).expect("whole");
                }
            }
            Op::FailBody { which } => {
                if let Some(filling) = take_one(&mut self.fillings, which) {
                    self.versions[filling.version].stored = None;
                    filling.writer.fail(&mut Vec::new());
                }
            }
            Op::DropBody { which } => {
                if let Some(filling) = take_one(&mut self.fillings, which) {
                    self.versions[filling.version].stored = None;
                }
            }
            Op::BeginPurge { scope, target, soft } => self.begin_purge(scope, target, soft),
            Op::StepPurge { which, budget } => {
                if !self.purges.is_empty() {
                    let at = which % self.purges.len();
                    self.step_purge(at, budget);
                }
            }
            Op::Invalidate { target } => {
                let name = target_name(target);
                let cache_key = self.cache.cache_key("site", b"host", name.as_bytes());
                self.cache.invalidate(&cache_key);
                self.purges.push(PurgeState {
                    cursor: None,
                    reached: vec![target],
                    is_by_key: false,
                    soft: false,
                    began: self.now,
                    done: Some(self.now),
                });
            }
            Op::Pass { ms } => self.now_ms += ms,
            Op::Sweep { shard } => {
                let near = &mut self.near[shard];
                near.sweep(near.bucket_count());
            }
        }
        self.deliver();
    }

    fn ask(&mut self, asked: &Waiting, no_cache: bool, woken: Option<&WakeWith>) -> Decision {
        let Waiting { shard, target, language, range, .. } = *asked;
        let wanted = range.map(|range| RANGES[range]);
        let wanted = wanted.map(|(first, last)| format!("bytes={first}-{last}"));
        let mut fields = vec![("Accept-Language", language_name(language))];
        fields.extend(no_cache.then_some(("Cache-Control", "no-cache")));
        fields.extend(wanted.as_deref().map(|wanted| ("Range", wanted)));
        let fields = &fields[..];
        let name = target_name(target);
        let cache_key = self.cache.cache_key("site", b"host", name.as_bytes());
        let request = Request::new(Method::Get, cache_key, &fields);
        self.waiters += 1;
        let waiter = Waiter { shard: shard as u16, id: self.waiters };
        let waits = u8::from(woken.is_some());
        let asking = Asking { now_ms: self.now_ms, waiter, min_version: None, waits };
        let near = &mut self.near[shard];
        match woken {
            None => self.cache.lookup(near, &request, &asking),
            Some(with) => self.cache.lookup_woken(near, &request, &asking, with),
        }
    }

    fn append(&mut self, at: usize, len: usize) {
        let filling = &mut self.fillings[at];
        let rest = &filling.body.as_bytes()[filling.written..];
        let piece = &rest[..len.min(rest.len())];
        filling.written += piece.len();
        filling.writer.append(piece, &mut Vec::new()).expect("room");
    }

    fn take(&mut self, decision: Decision, asked: Waiting) {
        match decision {
            Decision::Hit(hit) | Decision::Stale { hit, revalidate: None } => {
                self.check_hit(&hit, asked);
            }
            Decision::Miss(lease) | Decision::Revalidate(lease) => {
                self.check_alone(asked.target, asked.range);
                let Waiting { target, language, range, .. } = asked;
                let (is_joinable, began) = (self.is_shared(target), self.now);
                self.fetches.push(Fetch { lease, target, language, range, began, is_joinable });
            }
            Decision::Wait => {
                let is_new = self.waiting.insert(self.waiters, asked).is_none();
                assert!(is_new);
            }
            other => panic!("not among the answers to these requests: {other:?}"),
        }
    }

    fn answer(&mut self, fetch: Fetch, kind: Kind) {
        let Fetch { lease, target, language, began, range, .. } = fetch;
        let stored = lease.stored().map(|entry| version_of(entry));
        let version = self.versions.len();
        let now_ms = self.now_ms;
        let wanted = wanted_of(&lease);
        // A 304 that nobody asked for tells of nothing that is stored, and takes nothing away.
        let is_unasked = kind == Kind::NotModified && stored.is_some() && !is_conditional(&lease);
        let kind = match (kind, stored, &wanted) {
            (Kind::NotModified, None, _) => Kind::Fresh { max_age_s: 3, announced: true },
            (Kind::Part { max_age_s, .. }, _, None) => Kind::Fresh { max_age_s, announced: true },
            (kind, ..) => kind,
        };
        let (status, control, lifetime_s) = match kind {
            Kind::Fresh { max_age_s, .. } => (200, format!("max-age={max_age_s}"), max_age_s),
            Kind::Part { max_age_s, .. } => (206, format!("max-age={max_age_s}"), max_age_s),
            Kind::NotModified => (304, "max-age=3".into(), 3),
            Kind::NoCache => (200, "no-cache".into(), 0),
            Kind::Private => (200, "private".into(), 0),
            Kind::Error => (503, "no-store".into(), 0),
        };
        let is_same = match kind {
            Kind::NotModified => true,
            Kind::Part { of, .. } => of != PartOf::Another,
            _ => false,
        };
        let body = match stored.filter(|_| is_same) {
            Some(stored) => self.versions[stored].body,
            None => {
                self.bodies += 1;
                self.bodies - 1
            }
        };
        let mut text = body_text(body);
        let mut told = String::new();
        if let (Kind::Part { of, .. }, Some(wanted)) = (kind, &wanted) {
            (text, told) = part_of(&text, wanted, of);
        }
        let (number, body_number) = (version.to_string(), body.to_string());
        let (group, tag) = (format!("k{}", target % 2), format!("\"e{body}\""));
        let mut fields = vec![
            ("Cache-Control", control.as_str()),
            ("X-Version", number.as_str()),
            ("X-Body", body_number.as_str()),
            ("ETag", tag.as_str()),
            ("Surrogate-Key", group.as_str()),
        ];
        if !told.is_empty() {
            fields.push(("Content-Range", told.as_str()));
        }
        if target == VARYING {
            fields.push(("Vary", "Accept-Language"));
        }
        let length = match kind {
            Kind::Fresh { announced: false, .. } => None,
            Kind::NotModified => Some(0),
            _ => Some(text.len() as u64),
        };
        let request = [("Accept-Language", language_name(language))];
        let response = Response {
            status,
            reason: b"OK",
            fields: &&fields[..],
            length,
            request_at_ms: now_ms,
            response_at_ms: now_ms,
            append: b"",
        };
        let outcome = lease.head(&&request[..], &response, &mut self.wakes);
        let is_part = matches!(kind, Kind::Part { .. })
            || kind == Kind::NotModified && stored.is_some_and(|it| self.versions[it].is_part);
        self.versions.push(Version {
            target,
            language,
            began,
            fresh_until_ms: now_ms + lifetime_s * 1000,
            stored: None,
            body,
            is_part,
        });
        if is_unasked || matches!(kind, Kind::NoCache | Kind::Private | Kind::Error) {
            self.unshared_until_ms.insert(target, now_ms + 60_000);
        }
        let is_mistaken = matches!(kind, Kind::Part { of: PartOf::TheSameAndMistaken, .. });
        match outcome {
            HeadOutcome::Fill { writer, not_stored, .. } => {
                assert!(!is_mistaken, "{told} {}", text.len());
                self.versions[version].stored = not_stored.is_none().then_some(self.now);
                self.fillings.push(Filling { writer, version, body: text, written: 0 });
            }
            HeadOutcome::Updated { entry, .. } => {
                assert_eq!((kind, wanted), (Kind::NotModified, None));
                assert_eq!(version_of(&entry), version);
                // Whether it was put into the index is the cache's to say; hits on it are checked.
                self.versions[version].stored = None;
                match entry.is_dead() {
                    true => self.forget(stored),
                    // It has come last, so it has the place of whatever came meanwhile, too.
                    false => self.forget_all(target, language),
                }
            }
            HeadOutcome::Stale(entry) => {
                assert_eq!(kind, Kind::Error);
                self.check_failure(target, began);
                self.check_purged(version_of(&entry), began, false);
            }
            HeadOutcome::NotStored(_) => {
                let is_part = matches!(kind, Kind::Part { .. });
                let may_be = is_part || is_unasked;
                assert!(may_be || matches!(kind, Kind::Private | Kind::Error), "{kind:?}");
                // What was fresh, and still is, stays: the answer is for the one who reloaded.
                let is_word = kind != Kind::Error && !is_unasked;
                if is_word && !stored.is_some_and(|it| self.is_surely_fresh(it)) {
                    self.forget(stored);
                }
            }
            HeadOutcome::Again => {
                let is_part = matches!(kind, Kind::Part { .. } | Kind::NotModified);
                assert!(wanted.is_some() && is_part && stored.is_some(), "{kind:?}");
                let asked = Waiting { shard: 0, target, language, range, asked: self.now };
                let decision = self.ask(&asked, false, None);
                self.take(decision, asked);
            }
        }
    }

    /// Whether a version is fresh, as far as no purge may have reached it.
    fn is_surely_fresh(&self, number: usize) -> bool {
        let version = &self.versions[number];
        let mut purges = self.purges_since(version.target, version.began);
        self.now_ms < version.fresh_until_ms && purges.next().is_none()
    }

    /// This version is outdated, and so is every one before it.
    fn forget(&mut self, version: Option<usize>) {
        let Some(version) = version else { return };
        let Version { target, language, stored, .. } = self.versions[version];
        let is_same = |known: &Version| {
            known.target == target && (target != VARYING || known.language == language)
        };
        for known in self.versions.iter_mut().filter(|known| is_same(known)) {
            if known.stored <= stored {
                known.stored = None;
            }
        }
    }

    /// Nothing that came before is there any more.
    fn forget_all(&mut self, target: usize, language: usize) {
        let is_same = |known: &&mut Version| {
            known.target == target && (target != VARYING || known.language == language)
        };
        self.versions.iter_mut().filter(is_same).for_each(|known| known.stored = None);
    }

    fn begin_purge(&mut self, scope: usize, target: usize, soft: bool) {
        let site = String::from("site");
        let name = target_name(target);
        let is_by_key = scope == 1;
        let (scope, reached) = match scope {
            0 => (Scope::Url { site, target: name }, vec![target]),
            1 => {
                let same = (0..TARGETS).filter(|at| at % 2 == target % 2).collect();
                (Scope::Key { site: Some(site), key: format!("k{}", target % 2) }, same)
            }
            2 => (Scope::Prefix { site, prefix: name }, vec![target]),
            _ => (Scope::Everything, (0..TARGETS).collect()),
        };
        let cursor = self.cache.purge(&Purge { position: 1, scope, soft });
        let (began, done, cursor) = (self.now, None, Some(cursor));
        self.purges.push(PurgeState { cursor, reached, is_by_key, soft, began, done });
    }

    fn step_purge(&mut self, at: usize, budget: usize) {
        let cache = self.cache.clone();
        let purge = &mut self.purges[at];
        if let (Some(cursor), None) = (&mut purge.cursor, purge.done)
            && cursor.step(&cache, budget).done
        {
            purge.done = Some(self.now);
        }
    }

    /// Carries the wakes to their requests, which ask again.
    fn deliver(&mut self) {
        loop {
            let mut wakes = std::mem::take(&mut self.wakes);
            wakes.extend(self.cache.take_orphans());
            if wakes.is_empty() {
                return;
            }
            for Wake { waiter, with } in wakes {
                let asked = self.waiting.remove(&waiter.id).expect("woken once, and waiting");
                assert_eq!(asked.shard, usize::from(waiter.shard));
                if matches!(with, WakeWith::Failed { .. }) {
                    continue;
                }
                let decision = self.ask(&asked, false, Some(&with));
                self.take(decision, asked);
            }
        }
    }

    fn check_hit(&self, hit: &Hit, asked: Waiting) {
        let entry = hit.local.entry();
        let number = version_of(entry);
        let version = &self.versions[number];
        assert_eq!(version.target, asked.target);
        assert!(asked.target != VARYING || version.language == asked.language);
        if hit.freshness == Freshness::Fresh {
            assert!(self.now_ms < version.fresh_until_ms, "{version:?}");
            self.check_newest(version, asked);
        }
        let is_fresh = !hit.freshness.is_stale();
        self.check_purged(number, asked.asked, is_fresh);
        let text = body_text(version.body);
        let (first, last) = match (&hit.answer, asked.range) {
            (Answer::Full, None) => (0, text.len() - 1),
            // How long it is is not known yet, so all of it is sent (RFC 9110 §14.2).
            (Answer::Full, Some(_)) if entry.length().is_none() => (0, text.len() - 1),
            (Answer::Parts(parts), Some(range)) => {
                let part = (parts[0].first as usize, parts[0].last as usize);
                assert_eq!((parts.len(), part), (1, RANGES[range]));
                part
            }
            (answer, range) => panic!("{answer:?} for {range:?}"),
        };
        let mut found = Vec::new();
        let end = loop {
            match hit.local.piece_at((first + found.len()) as u64) {
                Piece::Bytes(piece) => found.extend_from_slice(&piece),
                end => break end,
            }
        };
        let wanted = &text.as_bytes()[first..=last];
        found.truncate(wanted.len());
        assert!(wanted.starts_with(&found));
        assert!(end != Piece::End || found == wanted);
    }

    /// Nothing newer was stored when the request came (RFC 9111 §4: the most recent one is used).
    fn check_newest(&self, version: &Version, asked: Waiting) {
        let is_newer = |known: &&Version| {
            known.target == version.target
                && (version.target != VARYING || known.language == version.language)
                && known.stored > version.stored
                && known.stored.is_some_and(|stored| stored < asked.asked)
                // A purge in slices may have taken it, and be on its way to the older one.
                && self.purges_since(known.target, known.began).all(|purge| purge.soft)
        };
        let newer = self.versions.iter().find(is_newer);
        assert!(version.stored.is_none() || newer.is_none(), "{version:?} is older than {newer:?}");
    }

    /// A fetch that failed says nothing to who came after a purge that it began before.
    fn check_failure(&self, target: usize, began: usize) {
        let failed =
            |wake: &&Wake| matches!(wake.with, WakeWith::Failed { .. } | WakeWith::Stale(_));
        for wake in self.wakes.iter().filter(failed) {
            let asked = self.waiting[&wake.waiter.id].asked;
            let is_between = |purge: &PurgeState| purge.done.is_some_and(|done| done < asked);
            assert!(!self.purges_since(target, began).any(is_between), "{asked} joined {began}");
        }
    }

    /// No purge that reaches this version was done when the request came, apart from soft ones
    /// where it is not served as fresh.
    fn check_purged(&self, number: usize, asked: usize, is_fresh: bool) {
        let version = &self.versions[number];
        for purge in self.purges_since(version.target, version.began) {
            let is_too_late = purge.done.is_some_and(|done| done < asked);
            assert!(
                !is_too_late || (purge.soft && !is_fresh),
                "version {number} was purged before it was asked for"
            );
        }
    }

    fn purges_since(&self, target: usize, began: usize) -> impl Iterator<Item = &PurgeState> {
        let reaches = move |purge: &&PurgeState| purge.reached.contains(&target);
        self.purges.iter().filter(reaches).filter(move |purge| purge.began > began)
    }

    /// What is stored, fresh and not purged must be a hit.
    fn check_needed(&self, decision: &Decision, target: usize, language: usize) {
        let fits = |version: &&Version| {
            version.target == target && (target != VARYING || version.language == language)
        };
        let newest = self.versions.iter().filter(fits).max_by_key(|version| version.stored);
        let Some(version) = newest else { return };
        let is_untouched = self
            .purges
            .iter()
            .filter(|purge| purge.reached.contains(&target))
            .all(|purge| purge.done.is_some_and(|done| done < version.began));
        let is_fresh = self.now_ms < version.fresh_until_ms;
        if version.stored.is_some() && !version.is_part && is_untouched && is_fresh {
            assert!(matches!(decision, Decision::Hit(_)), "{version:?} is there: {decision:?}");
        }
    }

    /// One fetch at a time for what can be shared.
    fn check_alone(&self, target: usize, range: Range) {
        if target != VARYING && self.is_shared(target) {
            let brings = |fetch: &Fetch| fetch.range.is_none() || fetch.range == range;
            let is_other = |fetch: &&Fetch| {
                fetch.target == target
                    && brings(fetch)
                    && fetch.is_joinable
                    && !self.is_outdated(fetch)
            };
            let others = self.fetches.iter().filter(is_other).count();
            assert_eq!(others, 0, "two fetches for {target}");
        }
    }

    /// Whether a purge has come since it began that may reach what it brings: by its target, or by
    /// any surrogate key, since those of its answer are not known yet.
    fn is_outdated(&self, fetch: &Fetch) -> bool {
        let is_since = |purge: &&PurgeState| purge.done.is_none_or(|done| done >= fetch.began);
        self.purges
            .iter()
            .filter(is_since)
            .any(|purge| purge.reached.contains(&fetch.target) || purge.is_by_key)
    }

    /// Whether no answer lately said that the target is not for sharing.
    fn is_shared(&self, target: usize) -> bool {
        self.unshared_until_ms.get(&target).is_none_or(|&until_ms| self.now_ms >= until_ms)
    }

    fn end(mut self) {
        self.now += 1;
        self.fetches.clear();
        for filling in std::mem::take(&mut self.fillings) {
            self.versions[filling.version].stored = None;
        }
        self.deliver();
        // Those who were woken may have got leases of their own.
        while !self.fetches.is_empty() {
            self.fetches.clear();
            self.deliver();
        }
        let left: HashSet<_> = self.waiting.keys().collect();
        assert!(left.is_empty(), "never woken: {left:?}");
        let everything = Purge { position: 1, scope: Scope::Everything, soft: false };
        let mut cursor = self.cache.purge(&everything);
        while !cursor.step(&self.cache, 7).done {}
        for near in &mut self.near {
            near.sweep(near.bucket_count());
        }
        self.purges.clear();
        let stats = self.cache.stats();
        assert_eq!((stats.entries, stats.used_bytes, stats.dead_bytes), (0, 0, 0));
    }
}

/// Whether the origin was asked on condition.
fn is_conditional(lease: &Lease) -> bool {
    let mut fields = Vec::new();
    lease.conditional_fields(&mut fields);
    fields.starts_with(b"If-None-Match")
}

/// What the origin is asked for, if not for the whole: first and last.
fn wanted_of(lease: &Lease) -> Option<(usize, usize)> {
    let mut fields = Vec::new();
    lease.conditional_fields(&mut fields);
    let fields = String::from_utf8(fields).expect("text");
    let (_, value) = fields.split_once("Range: bytes=")?;
    let (first, last) = value.lines().next()?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().unwrap_or(usize::MAX)))
}

/// What a 206 brings of a text, and what its `Content-Range` says.
fn part_of(text: &str, &(first, last): &(usize, usize), of: PartOf) -> (String, String) {
    let length = text.len();
    let mut last = last.min(length - 1);
    if of == PartOf::TheSameAndShorter {
        last = first + (last - first) / 2;
    }
    let shown = if of == PartOf::TheSameAndMistaken { last + 1 } else { last };
    (text[first..=last].to_owned(), format!("bytes {first}-{shown}/{length}"))
}

fn version_of(entry: &cache::Entry) -> usize {
    let value = entry.get("X-Version").expect("every answer has one");
    std::str::from_utf8(value).expect("digits").parse().expect("a number")
}

fn take_one<T>(list: &mut Vec<T>, which: usize) -> Option<T> {
    (!list.is_empty()).then(|| list.swap_remove(which % list.len()))
}
