//! Random histories against a slow model: look-ups on several shards, fetches of every outcome,
//! bodies that fill and fail, purges in slices, invalidations, a clock that passes.
//!
//! The model keeps every version the origin ever gave, with the moment its fetch began, and says of
//! each answer whether it was allowed, and of each fetch whether it was needed:
//!
//! * nothing purged is served to a request that came after the purge was done;
//! * nothing soft-purged is served as fresh;
//! * fresh means younger than its lifetime, and the newest that is stored;
//! * bodies are what the origin sent, variants do not mix;
//! * what is stored, fresh and unpurged is a hit;
//! * one fetch at a time for what can be shared;
//! * every waiter is woken exactly once, no byte is accounted when everything is gone.

mod world;

use std::collections::{HashMap, HashSet};

use pharos_cache::{
    Decision, FieldSource, Freshness, HeadOutcome, Hit, Lease, Piece, PurgeCursor, Wake, WakeWith,
    Writer,
};
use proptest::prelude::*;
use proto::feed::record::{Purge, Scope};
use world::{SHARDS, World, read};

const TARGETS: usize = 3;
/// The last target varies by language.
const VARYING: usize = TARGETS - 1;

#[derive(Clone, Debug)]
enum Op {
    Get { shard: usize, target: usize, language: usize, no_cache: bool },
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Fresh { max_age_s: u64, announced: bool },
    NoCache,
    Private,
    Error,
    NotModified,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => (1u64..6, any::<bool>())
            .prop_map(|(max_age_s, announced)| Kind::Fresh { max_age_s, announced }),
        1 => Just(Kind::NoCache),
        1 => Just(Kind::Private),
        1 => Just(Kind::Error),
        2 => Just(Kind::NotModified),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let which = 0usize..8;
    prop_oneof![
        12 => (0..SHARDS, 0..TARGETS, 0usize..2, prop::bool::weighted(0.1)).prop_map(
            |(shard, target, language, no_cache)| Op::Get { shard, target, language, no_cache }
        ),
        6 => (which.clone(), kind()).prop_map(|(which, kind)| Op::Answer { which, kind }),
        1 => which.clone().prop_map(|which| Op::FailLease { which }),
        1 => which.clone().prop_map(|which| Op::DropLease { which }),
        3 => which.clone().prop_map(|which| Op::Append { which }),
        4 => which.clone().prop_map(|which| Op::Finish { which }),
        1 => which.clone().prop_map(|which| Op::FailBody { which }),
        1 => which.clone().prop_map(|which| Op::DropBody { which }),
        2 => (0usize..4, 0..TARGETS, any::<bool>())
            .prop_map(|(scope, target, soft)| Op::BeginPurge { scope, target, soft }),
        4 => (which, prop_oneof![Just(1usize), Just(700), Just(100_000)])
            .prop_map(|(which, budget)| Op::StepPurge { which, budget }),
        1 => (0..TARGETS).prop_map(|target| Op::Invalidate { target }),
        3 => (1u64..3000).prop_map(|ms| Op::Pass { ms }),
        2 => (0..SHARDS).prop_map(|shard| Op::Sweep { shard }),
    ]
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
}

struct Fetch {
    lease: Lease,
    target: usize,
    language: usize,
    began: usize,
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
    soft: bool,
    began: usize,
    done: Option<usize>,
}

#[derive(Clone, Copy)]
struct Waiting {
    shard: usize,
    target: usize,
    language: usize,
    asked: usize,
}

struct Model {
    world: World,
    now: usize,
    versions: Vec<Version>,
    fetches: Vec<Fetch>,
    fillings: Vec<Filling>,
    purges: Vec<PurgeState>,
    waiting: HashMap<u64, Waiting>,
    unshared_until_ms: HashMap<usize, u64>,
    bodies: usize,
}

fn target_name(target: usize) -> String {
    format!("/{target}")
}

fn language_name(language: usize) -> &'static str {
    ["de", "en"][language]
}

fn body_text(body: usize) -> String {
    format!("body {body}; ").repeat(20 + body % 7)
}

impl Model {
    fn new() -> Self {
        Self {
            world: World::new(),
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
            Op::Get { shard, target, language, no_cache } => {
                let control: &[(&str, &str)] = &[("Cache-Control", "no-cache")];
                let fields = [("Accept-Language", language_name(language)), control[0]];
                let fields = if no_cache { &fields[..] } else { &fields[..1] };
                let decision = self.world.get(shard, &target_name(target), fields);
                let asked = Waiting { shard, target, language, asked: self.now };
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
                    let now_ms = self.world.now_ms;
                    let stale = fetch.lease.fail(now_ms, &mut self.world.wakes);
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
                let cache_key = self.world.cache.cache_key("site", b"host", name.as_bytes());
                self.world.cache.invalidate(&cache_key);
                self.purges.push(PurgeState {
                    cursor: None,
                    reached: vec![target],
                    soft: false,
                    began: self.now,
                    done: Some(self.now),
                });
            }
            Op::Pass { ms } => self.world.now_ms += ms,
            Op::Sweep { shard } => {
                let near = &mut self.world.near[shard];
                near.sweep(near.bucket_count());
            }
        }
        self.deliver();
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
                self.check_alone(asked.target);
                let Waiting { target, language, .. } = asked;
                self.fetches.push(Fetch { lease, target, language, began: self.now });
            }
            Decision::Wait => {
                let is_new = self.waiting.insert(self.world.last_waiter(), asked).is_none();
                assert!(is_new);
            }
            other => panic!("not among the answers to these requests: {other:?}"),
        }
    }

    fn answer(&mut self, fetch: Fetch, kind: Kind) {
        let Fetch { lease, target, language, began } = fetch;
        let stored = lease.stored().map(|entry| version_of(entry));
        let version = self.versions.len();
        let mut body = self.bodies;
        let now_ms = self.world.now_ms;
        let kind = match (kind, stored) {
            (Kind::NotModified, None) => Kind::Fresh { max_age_s: 3, announced: true },
            (kind, _) => kind,
        };
        let (status, control, lifetime_s) = match kind {
            Kind::Fresh { max_age_s, .. } => (200, format!("max-age={max_age_s}"), max_age_s),
            Kind::NotModified => (304, "max-age=3".into(), 3),
            Kind::NoCache => (200, "no-cache".into(), 0),
            Kind::Private => (200, "private".into(), 0),
            Kind::Error => (503, "no-store".into(), 0),
        };
        if kind == Kind::NotModified {
            body = self.versions[stored.expect("validated")].body;
        } else {
            self.bodies += 1;
        }
        let text = body_text(body);
        let (number, body_number) = (version.to_string(), body.to_string());
        let group = format!("k{}", target % 2);
        let mut fields = vec![
            ("Cache-Control", control.as_str()),
            ("X-Version", number.as_str()),
            ("X-Body", body_number.as_str()),
            ("ETag", "\"e\""),
            ("Surrogate-Key", group.as_str()),
        ];
        if target == VARYING {
            fields.push(("Vary", "Accept-Language"));
        }
        let length = match kind {
            Kind::Fresh { announced: false, .. } => None,
            Kind::NotModified => Some(0),
            _ => Some(text.len() as u64),
        };
        let request = [("Accept-Language", language_name(language))];
        let outcome = self.world.answer(lease, &request, status, &fields, length);
        self.versions.push(Version {
            target,
            language,
            began,
            fresh_until_ms: now_ms + lifetime_s * 1000,
            stored: None,
            body,
        });
        if matches!(kind, Kind::NoCache | Kind::Private | Kind::Error) {
            self.unshared_until_ms.insert(target, now_ms + 60_000);
        }
        match outcome {
            HeadOutcome::Fill { writer, not_stored, .. } => {
                self.versions[version].stored = not_stored.is_none().then_some(self.now);
                self.fillings.push(Filling { writer, version, body: text, written: 0 });
            }
            HeadOutcome::Updated(entry) => {
                assert_eq!(kind, Kind::NotModified);
                assert_eq!(version_of(&entry), version);
                // Whether it was put into the index is the cache's to say; hits on it are checked.
                self.versions[version].stored = None;
                self.forget(stored);
            }
            HeadOutcome::Stale(entry) => {
                assert_eq!(kind, Kind::Error);
                self.check_purged(version_of(&entry), began, false);
            }
            HeadOutcome::NotStored(_) => {
                assert!(matches!(kind, Kind::Private | Kind::Error), "{kind:?}");
                if kind == Kind::Private {
                    self.forget(stored);
                }
            }
        }
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

    fn begin_purge(&mut self, scope: usize, target: usize, soft: bool) {
        let site = String::from("site");
        let name = target_name(target);
        let (scope, reached) = match scope {
            0 => (Scope::Url { site, target: name }, vec![target]),
            1 => {
                let same = (0..TARGETS).filter(|at| at % 2 == target % 2).collect();
                (Scope::Key { site: Some(site), key: format!("k{}", target % 2) }, same)
            }
            2 => (Scope::Prefix { site, prefix: name }, vec![target]),
            _ => (Scope::Everything, (0..TARGETS).collect()),
        };
        let cursor = self.world.cache.purge(&Purge { position: 1, scope, soft });
        let (began, done, cursor) = (self.now, None, Some(cursor));
        self.purges.push(PurgeState { cursor, reached, soft, began, done });
    }

    fn step_purge(&mut self, at: usize, budget: usize) {
        let cache = self.world.cache.clone();
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
            let mut wakes = std::mem::take(&mut self.world.wakes);
            wakes.extend(self.world.cache.take_orphans());
            if wakes.is_empty() {
                return;
            }
            for Wake { waiter, with } in wakes {
                let asked = self.waiting.remove(&waiter.id).expect("woken once, and waiting");
                assert_eq!(asked.shard, usize::from(waiter.shard));
                if matches!(with, WakeWith::Failed) {
                    continue;
                }
                let fields = [("Accept-Language", language_name(asked.language))];
                let target = target_name(asked.target);
                let decision = self.world.woken(asked.shard, &target, &fields, &with);
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
            assert!(self.world.now_ms < version.fresh_until_ms, "{version:?}");
            self.check_newest(version, asked);
        }
        let is_fresh = !hit.freshness.is_stale();
        self.check_purged(number, asked.asked, is_fresh);
        let (found, end) = read(&hit.local);
        let text = body_text(version.body);
        assert!(text.starts_with(&found));
        assert!(end != Piece::End || found == text);
    }

    /// Nothing newer was stored when the request came (RFC 9111 §4: the most recent one is used).
    fn check_newest(&self, version: &Version, asked: Waiting) {
        let is_newer = |known: &&Version| {
            known.target == version.target
                && (version.target != VARYING || known.language == version.language)
                && known.stored > version.stored
                && known.stored.is_some_and(|stored| stored < asked.asked)
        };
        let newer = self.versions.iter().find(is_newer);
        assert!(version.stored.is_none() || newer.is_none(), "{version:?} is older than {newer:?}");
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
        let is_fresh = self.world.now_ms < version.fresh_until_ms;
        if version.stored.is_some() && is_untouched && is_fresh {
            assert!(matches!(decision, Decision::Hit(_)), "{version:?} is there: {decision:?}");
        }
    }

    /// One fetch at a time for what can be shared.
    fn check_alone(&self, target: usize) {
        let until_ms = self.unshared_until_ms.get(&target).copied().unwrap_or(0);
        if target != VARYING && self.world.now_ms >= until_ms {
            let others = self.fetches.iter().filter(|fetch| fetch.target == target).count();
            assert_eq!(others, 0, "two fetches for {target}");
        }
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
        self.world.purge(Scope::Everything, false);
        self.world.sweep_all();
        self.purges.clear();
        let stats = self.world.cache.stats();
        assert_eq!((stats.entries, stats.used_bytes, stats.dead_bytes), (0, 0, 0));
    }
}

fn version_of(entry: &pharos_cache::Entry) -> usize {
    let value = entry.get("X-Version").expect("every answer has one");
    std::str::from_utf8(value).expect("digits").parse().expect("a number")
}

fn take_one<T>(list: &mut Vec<T>, which: usize) -> Option<T> {
    (!list.is_empty()).then(|| list.swap_remove(which % list.len()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_history_is_explained_by_the_model(ops in prop::collection::vec(op(), 1..150)) {
        let mut model = Model::new();
        for op in ops {
            model.run(op);
        }
        model.end();
    }
}
