//! Rules that a seed draws for the site, and what they promise a visitor, by a slow reading of
//! their own: nothing of `dataplane::shard::rule` is used.
//!
//! Leaves to others: asking and checking (`visitor`), seeing what reaches the origin (`origin`).

use proto::feed::{
    rule::{FieldMatch, KeyRule, LifetimeRule, Match, OriginWord, QueryRule, Rule},
    site::Policy,
};

use crate::{peer::origin::manner, sim::rng::Rng};

/// Host names of the site.
pub const HOSTS: [&str; 2] = ["site.example", "alt.example"];
/// A field that rules may put into the key. The origin answers `X-For` with its value.
pub const TENANT: &str = "X-Tenant";
/// A field that rules look for.
pub const SESSION: &str = "X-Session";

/// The rules of a run, in order.
#[derive(Debug)]
pub struct SiteRules(Vec<Drawn>);

/// One rule, as what it means.
#[derive(Clone, Debug)]
struct Drawn {
    host: Option<&'static str>,
    path: Path,
    /// Whether `X-Session` must be there, or must not.
    session: Option<bool>,
    does: Does,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Path {
    All,
    /// `/o/1*`
    Ones,
    /// `*5`
    Fives,
}

#[derive(Clone, Debug)]
enum Does {
    Pass,
    Caches { fresh: Option<(u64, OriginWord)>, drops_query: bool, by_tenant: bool },
}

/// What a rule looks at of a request for an object.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Which object.
    pub object: u32,
    /// One of [`HOSTS`].
    pub host: &'static str,
    /// Whether it has [`SESSION`].
    pub session: bool,
}

/// What is promised of its answer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Promise {
    /// Never looked up, never stored.
    pub is_passed: bool,
    /// A hit is younger than this, s.
    pub younger_than_s: Option<u64>,
    /// What the origin forbids to be shared may be shared all the same.
    pub ignores_origin: bool,
    /// Who differs in [`TENANT`] gets an answer of its own.
    pub by_tenant: bool,
    /// What is dropped of the query does not reach the origin.
    pub drops_query: bool,
}

impl SiteRules {
    /// One to four.
    pub fn draw(rng: &mut Rng) -> Self {
        Self((0..rng.between(1, 4)).map(|_| Drawn::draw(rng)).collect())
    }

    /// As the feed says them.
    pub fn to_json(&self) -> String {
        let rules: Vec<Rule> =
            self.0.iter().enumerate().map(|(at, drawn)| drawn.to_rule(at)).collect();
        assert!(rules.iter().all(|rule| rule.faults().is_empty()), "{rules:?}");
        serde_json::to_string(&rules).expect("rules have a text")
    }

    /// Of the first that fits. What another rule, or none, has stored under the same key is shared:
    /// `X-Session` is in no key, so nothing is promised of lifetimes where it decides.
    pub fn promise(&self, request: Request) -> Promise {
        let of = |request| self.0.iter().position(|rule| rule.fits(request));
        let others = Request { session: !request.session, ..request };
        let (own, other) = (of(request), of(others));
        let mut promise = self.promise_of(own);
        if own != other {
            promise.younger_than_s = None;
            promise.ignores_origin |= self.promise_of(other).ignores_origin;
        }
        promise
    }

    fn promise_of(&self, rule: Option<usize>) -> Promise {
        let Some(rule) = rule.map(|at| &self.0[at]) else { return Promise::default() };
        match rule.does {
            Does::Pass => Promise { is_passed: true, ..Promise::default() },
            Does::Caches { fresh, drops_query, by_tenant } => Promise {
                is_passed: false,
                younger_than_s: fresh.filter(|it| it.1 != OriginWord::Honour).map(|it| it.0),
                ignores_origin: fresh.is_some_and(|it| it.1 == OriginWord::Ignore),
                by_tenant,
                drops_query,
            },
        }
    }

    /// The target that a purge of an object names: any form of its URL will do.
    pub fn purge_target(&self, object: u32) -> String {
        let drops = |rule: &Drawn| matches!(rule.does, Does::Caches { drops_query: true, .. });
        let is_dropped = self.0.iter().any(|rule| rule.path.fits(object) && drops(rule));
        let query = if is_dropped && object.is_multiple_of(2) { "?utm_q=purge" } else { "" };
        format!("/o/{object}{query}")
    }
}

impl Drawn {
    fn draw(rng: &mut Rng) -> Self {
        let does = match rng.below(5) {
            0 => Does::Pass,
            1 => Does::Caches { fresh: Some(fresh(rng)), drops_query: false, by_tenant: false },
            2 => Does::Caches { fresh: None, drops_query: true, by_tenant: false },
            3 => Does::Caches { fresh: None, drops_query: rng.chance(500), by_tenant: true },
            _ => Does::Caches { fresh: Some(fresh(rng)), drops_query: true, by_tenant: true },
        };
        Self {
            host: rng.chance(250).then(|| *rng.pick(&HOSTS)),
            path: *rng.pick(&[Path::All, Path::Ones, Path::Ones, Path::Fives]),
            session: rng.chance(300).then(|| rng.chance(500)),
            does,
        }
    }

    fn fits(&self, request: Request) -> bool {
        self.host.is_none_or(|host| host == request.host)
            && self.path.fits(request.object)
            && self.session.is_none_or(|session| session == request.session)
    }

    fn to_rule(&self, at: usize) -> Rule {
        let paths = match self.path {
            Path::All => vec![],
            Path::Ones => vec!["/o/1*".into()],
            Path::Fives => vec!["*5".into(), "/nothing".into()],
        };
        let session = self.session.map(|is_there| FieldMatch {
            name: SESSION.into(),
            value: None,
            absent: !is_there,
        });
        let matching = Match {
            hosts: self.host.iter().map(ToString::to_string).collect(),
            paths,
            methods: Vec::new(),
            fields: session.into_iter().collect(),
        };
        let rule = Rule { name: format!("r{at}"), matching, ..Rule::default() };
        match self.does {
            Does::Pass => Rule { policy: Some(Policy::Pass), ..rule },
            Does::Caches { fresh, drops_query, by_tenant } => Rule {
                lifetime: fresh.map(|(fresh_s, origin)| LifetimeRule {
                    fresh_s: Some(fresh_s),
                    origin,
                    ..LifetimeRule::default()
                }),
                key: (drops_query || by_tenant).then(|| KeyRule {
                    query: drops_query
                        .then(|| QueryRule { drop: vec!["utm_*".into()], ..QueryRule::default() }),
                    fields: if by_tenant { vec![TENANT.into()] } else { vec![] },
                    cookies: Vec::new(),
                }),
                ..rule
            },
        }
    }
}

impl Path {
    fn fits(self, object: u32) -> bool {
        let digits = object.to_string();
        match self {
            Self::All => true,
            Self::Ones => digits.starts_with('1'),
            Self::Fives => digits.ends_with('5'),
        }
    }
}

fn fresh(rng: &mut Rng) -> (u64, OriginWord) {
    let words = [OriginWord::Override, OriginWord::Honour, OriginWord::Ignore];
    (*rng.pick(&[1, 5, 30, 120]), *rng.pick(&words))
}

/// An answer, as far as a promise is about it.
#[derive(Clone, Copy, Debug)]
pub struct Got<'a> {
    /// Which object.
    pub object: u32,
    /// `X-Cache-Status`.
    pub outcome: &'a str,
    /// `Age`, s.
    pub age_s: u64,
    /// `X-For`: whom the origin made it for.
    pub made_for: &'a str,
    /// Who asked.
    pub tenant: &'a str,
}

impl Promise {
    /// What is wrong with an answer; `Ok` with the rules that it shows at work.
    pub fn check(&self, got: Got<'_>) -> Result<Option<&'static str>, String> {
        let is_hit = got.outcome == "HIT";
        let forbids = manner(got.object).cache_control.starts_with("no-");
        if self.is_passed != (got.outcome == "PASS") {
            return Err(format!("a rule says pass or not, and yet {got:?}, {self:?}"));
        }
        if is_hit && self.younger_than_s.is_some_and(|limit_s| got.age_s >= limit_s) {
            return Err(format!("older than the rule lets it be: {got:?}, {self:?}"));
        }
        if is_hit && forbids && !self.ignores_origin {
            return Err(format!("the origin forbids it, and no rule else: {got:?}, {self:?}"));
        }
        if self.by_tenant && got.made_for != got.tenant {
            return Err(format!("an answer that was made for another: {got:?}, {self:?}"));
        }
        Ok(match () {
            () if self.is_passed => Some("rule: passed"),
            () if is_hit && forbids => Some("rule: hit on what the origin forbids"),
            () if is_hit && self.by_tenant => Some("rule: hit by a key with a field"),
            () if is_hit && self.younger_than_s.is_some() => Some("rule: hit by its lifetime"),
            () if is_hit && self.drops_query => Some("rule: hit by a key without the query"),
            () => None,
        })
    }
}
