//! What origin and client say, as numbers, and what the reference holds of it.

use proto::field::date;

use super::{
    parts::{Held, Selected, Wanted},
    text_of,
};

/// SplitMix64.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(super) fn seconds(&mut self) -> u64 {
        [0, 1, 2, 5, 20, 100][self.below(6) as usize]
    }

    /// One of the newest of so many versions: others are gone.
    pub(super) fn version(&mut self, versions: usize) -> usize {
        versions.saturating_sub(1 + self.below(6) as usize)
    }

    pub(super) fn maybe(&mut self, one_in: u64) -> Option<u64> {
        self.one_in(one_in).then(|| self.seconds())
    }
}

/// What the origin says, as numbers.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) max_age_s: Option<u64>,
    pub(super) s_maxage_s: Option<u64>,
    /// `CDN-Cache-Control: max-age`.
    pub(super) targeted_s: Option<u64>,
    pub(super) expires_after_s: Option<u64>,
    /// `Last-Modified` lies so long before `Date`.
    pub(super) modified_before_s: Option<u64>,
    pub(super) age_s: u64,
    pub(super) no_store: bool,
    pub(super) private: bool,
    pub(super) no_cache: bool,
    pub(super) must_revalidate: bool,
    pub(super) while_revalidating_s: Option<u64>,
    pub(super) has_etag: bool,
}

impl Said {
    pub(super) fn draw(dice: &mut Dice) -> Self {
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
    pub(super) fn is_targeted(&self) -> bool {
        self.targeted_s.is_some()
    }

    pub(super) fn forbids_storing(&self) -> bool {
        !self.is_targeted() && (self.no_store || self.private)
    }

    /// RFC 9111 §3.5: whether what came to one with credentials may be given to others.
    pub(super) fn shares_authorized(&self) -> bool {
        !self.is_targeted() && (self.must_revalidate || self.s_maxage_s.is_some())
    }

    /// Whether it may not be stored as the answer to this request.
    pub(super) fn is_refused_to(&self, asks: &Asks) -> bool {
        self.forbids_storing() || asks.authorization && !self.shares_authorized()
    }

    pub(super) fn needs_validation(&self) -> bool {
        !self.is_targeted() && self.no_cache
    }

    pub(super) fn forbids_stale(&self) -> bool {
        !self.is_targeted() && (self.must_revalidate || self.no_cache)
    }

    /// RFC 9111 §5.2.2.10: s-maxage has the meaning of proxy-revalidate; what the same response
    /// allows by name is allowed all the same (docs/rfc9111.md).
    pub(super) fn allows_max_stale(&self) -> bool {
        self.is_targeted() || self.s_maxage_s.is_none()
    }

    /// RFC 9111 §4.2.1, §4.2.2; `None` where nothing is said and nothing may be guessed.
    pub(super) fn lifetime_ms(&self) -> Option<u64> {
        if let Some(targeted_s) = self.targeted_s {
            return Some(targeted_s * 1000);
        }
        let said = self.s_maxage_s.or(self.max_age_s).or(self.expires_after_s);
        let is_known = matches!(self.status, 200 | 203 | 204 | 301 | 404 | 405 | 410 | 414 | 501);
        let guessed_ms = self.modified_before_s.filter(|_| is_known).map(|it| it * 100);
        said.map(|said_s| said_s * 1000).or(guessed_ms)
    }

    pub(super) fn fields(
        &self,
        version: usize,
        now_ms: u64,
        is_varying: bool,
    ) -> Vec<(String, String)> {
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
pub(super) struct Stored {
    pub(super) said: Said,
    pub(super) version: usize,
    /// The body is that of this version: a 304 keeps it.
    pub(super) body: usize,
    pub(super) arrived_ms: u64,
    pub(super) is_soft: bool,
    /// What came of asking for what is missing of it was of no use: it is not asked for again.
    pub(super) is_doubted: bool,
    /// Which of its bytes are there; `None` for all, stored whole.
    pub(super) held: Option<Held>,
}

impl Stored {
    /// Of a version, with the body of one.
    pub(super) fn new(
        said: Said,
        (version, body): (usize, usize),
        arrived_ms: u64,
        held: Option<Held>,
    ) -> Self {
        Self { said, version, body, arrived_ms, is_soft: false, is_doubted: false, held }
    }

    pub(super) fn group(&self) -> usize {
        self.version % 2
    }

    /// The version that its entity tag names: that of the body.
    pub(super) fn etag(&self) -> Option<usize> {
        self.said.has_etag.then_some(self.body)
    }

    /// When `Last-Modified` was, in whole seconds.
    pub(super) fn modified_s(&self) -> Option<u64> {
        self.said.modified_before_s.map(|before_s| self.arrived_ms / 1000 - before_s)
    }

    /// Whether a validator stands for exactly these bytes (RFC 9110 §8.8.2.2, §8.8.3).
    pub(super) fn is_strong(&self) -> bool {
        self.said.has_etag || self.said.modified_before_s.is_some_and(|it| it >= 60)
    }

    /// Whether there is anything to validate it by (RFC 9111 §4.3.1).
    pub(super) fn can_validate(&self) -> bool {
        !self.is_doubted && (self.said.has_etag || self.said.modified_before_s.is_some())
    }

    /// Whether the validators of `said` are strong and its own (RFC 9110 §15.3.7.3).
    pub(super) fn is_same_as(&self, said: &Said, now_ms: u64) -> bool {
        let modified_s = said.modified_before_s.map(|before_s| now_ms / 1000 - before_s);
        self.is_strong()
            && self.said.has_etag == said.has_etag
            && (said.has_etag || self.modified_s() == modified_s)
    }

    /// Whether it could be used again without being asked about.
    pub(super) fn must_be_stored(&self) -> bool {
        let is_useful = self.said.lifetime_ms().is_some_and(|it| it > self.said.age_s * 1000);
        is_useful && !self.said.forbids_storing()
    }

    /// What a request wants of it: parts, nothing that is there, or the whole (RFC 9110 §14.2).
    pub(super) fn selects(&self, asks: &Asks) -> Selected {
        let holds = asks.if_range.is_none_or(|version| Some(version) == self.etag());
        match &asks.wanted {
            Some(wanted) if holds && self.said.status == 200 && !asks.head => {
                wanted.of(text_of(self.body).len() as u64)
            }
            _ => Selected::Whole,
        }
    }

    /// Whether `If-None-Match` names it.
    pub(super) fn is_known(&self, asks: &Asks) -> bool {
        self.said.status == 200 && asks.knows.is_some() && asks.knows == self.etag()
    }

    /// The bytes that a request wants and that are not there, as one range.
    pub(super) fn missing(&self, asks: &Asks) -> Option<(u64, u64)> {
        let held = self.held.as_ref()?;
        if self.is_known(asks) || asks.head {
            return None;
        }
        match self.selects(asks) {
            Selected::Whole => held.missing(0, held.len() - 1),
            Selected::Nothing => None,
            Selected::Parts(parts) => {
                if parts.iter().all(|&(first, last)| held.missing(first, last).is_none()) {
                    return None;
                }
                let first = parts.iter().map(|part| part.0).min()?;
                held.missing(first, parts.iter().map(|part| part.1).max()?)
            }
        }
    }

    pub(super) fn age_ms(&self, now_ms: u64) -> u64 {
        // Date is the time of arrival, so the apparent age is 0 (RFC 9111 §4.2.3).
        self.said.age_s * 1000 + (now_ms - self.arrived_ms)
    }

    pub(super) fn lifetime_ms(&self) -> u64 {
        self.said.lifetime_ms().unwrap_or(0)
    }

    /// Whether this answer, though it may not be stored, ends what is stored: it is not only for
    /// the one who asked, what is stored was not fresh, and it is the resource's word
    /// (docs/rfc9111.md, §4.3.3).
    pub(super) fn is_outdated_by(&self, status: u16, asks: &Asks, now_ms: u64) -> bool {
        let is_fresh = self.is_fresh(now_ms) && !self.is_soft && !self.said.needs_validation();
        let is_word = status < 400 || matches!(status, 404 | 410 | 451);
        !asks.authorization && !asks.no_store && !is_fresh && is_word
    }

    pub(super) fn is_fresh(&self, now_ms: u64) -> bool {
        self.age_ms(now_ms) < self.lifetime_ms()
    }
}

/// What a request asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Asks {
    pub(super) head: bool,
    pub(super) no_cache: bool,
    pub(super) no_store: bool,
    pub(super) only_if_cached: bool,
    pub(super) authorization: bool,
    pub(super) max_age_s: Option<u64>,
    pub(super) min_fresh_s: Option<u64>,
    pub(super) max_stale_s: Option<u64>,
    pub(super) wanted: Option<Wanted>,
    /// `If-Range` with the validator of this version; only with a range.
    pub(super) if_range: Option<usize>,
    /// `If-None-Match` with the validator of this version.
    pub(super) knows: Option<usize>,
    pub(super) gzip: bool,
}

impl Asks {
    pub(super) fn draw(dice: &mut Dice, versions: usize) -> Self {
        if dice.one_in(3) {
            return Self::default();
        }
        let wanted = dice.one_in(3).then(|| Wanted::draw(dice));
        let if_range = wanted.as_ref().and_then(|_| dice.one_in(5).then(|| dice.version(versions)));
        Self {
            head: dice.one_in(8),
            no_cache: dice.one_in(14),
            no_store: dice.one_in(20),
            only_if_cached: dice.one_in(20),
            authorization: dice.one_in(8),
            max_age_s: dice.maybe(12),
            min_fresh_s: dice.maybe(12),
            max_stale_s: dice.maybe(10),
            wanted,
            if_range,
            knows: dice.one_in(6).then(|| dice.version(versions)),
            gzip: dice.one_in(3),
        }
    }

    pub(super) fn fields(&self, language: u64) -> Vec<(String, String)> {
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
        fields.extend(self.authorization.then(|| ("Authorization".into(), "x".into())));
        fields.extend(self.wanted.as_ref().map(|it| ("Range".into(), it.to_value())));
        fields.extend(self.if_range.map(|it| ("If-Range".into(), format!("\"v{it}\""))));
        fields.extend(self.knows.map(|it| ("If-None-Match".into(), format!("\"v{it}\""))));
        fields.extend(self.gzip.then(|| ("Accept-Encoding".into(), "gzip".into())));
        fields
    }
}

impl Said {
    /// Of a part: the validators are those of `same`, or none that `stored` has.
    pub(super) fn is_of(&mut self, same: Option<&Stored>, stored: Option<&Stored>, now_ms: u64) {
        let Some(same) = same else { return self.differ_from(stored, now_ms) };
        self.has_etag = same.said.has_etag;
        if !self.has_etag {
            self.modified_before_s = same.modified_s().map(|at_s| now_ms / 1000 - at_s);
        }
    }

    /// Another representation has another `Last-Modified` than the stored one.
    pub(super) fn differ_from(&mut self, stored: Option<&Stored>, now_ms: u64) {
        let modified_s = self.modified_before_s.map(|before_s| now_ms / 1000 - before_s);
        if modified_s.is_some() && modified_s == stored.and_then(Stored::modified_s) {
            self.modified_before_s = None;
        }
    }

    /// The fields of a 206 with a part of this body.
    pub(super) fn part_fields(
        &self,
        (version, body): (usize, usize),
        now_ms: u64,
        is_varying: bool,
        told: &str,
    ) -> Vec<(String, String)> {
        let mut fields = self.fields(version, now_ms, is_varying);
        fields.retain(|(name, _)| name != "ETag");
        fields.extend(self.has_etag.then(|| ("ETag".into(), format!("\"v{body}\""))));
        if !told.is_empty() {
            fields.push(("Content-Range".into(), told.to_owned()));
        }
        fields
    }

    /// What a 304 does not say stays as it was (RFC 9111 §3.2). `Cache-Control` is always said.
    pub(super) fn keep_unsaid(&mut self, older: &Stored, now_ms: u64) {
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
