//! Explaining answers: what a shard keeps of each, how it is found by the request's id, and the
//! debug field that shows it to who may see it.
//!
//! ```text
//!   request ─ begins ─▶ pen ─┬─ hit at once ─────────────▶ ring of hits
//!                            └─ waits, fetches, fails ───▶ ring of stories ◀── attempts (fetch)
//!   GET /v1/explain/<id> ─mail─▶ every shard looks ─mail─▶ the newest of what was found
//! ```
//! Hits have a ring of their own, so that a flood of them does not wash out what people ask about.
//! Both are set aside at the start and never grow; the older is written over.
//!
//! While a request is handled its facts are in the pen; what it goes on with later is a number in
//! its [`Telling`]. Leaves to others: what is kept (`record`), its text (`told`), the decisions.

pub mod record;
pub mod told;

use std::{hash::BuildHasher, net::SocketAddr, rc::Rc};

use cache::{CacheKeyRef, CacheStatus, Hit};
use foldhash::fast::FixedState;
use proto::http1::head::Fields;

use self::{
    record::{Attempt, Part, Record, Ring, Story},
    told::Teller,
};
use super::{
    Edge, conn::StreamRequest, observe::Metric, outcome::Failure, request::CacheLabel,
    secret::SecretHash, stream::Opening,
};
use crate::{
    config,
    seam::{Mono, Now},
};

/// Of one shard.
#[derive(Debug)]
pub struct Explain {
    pen: Pen,
    hits: Ring<Record>,
    stories: Ring<Story>,
    shown: Shown,
    /// Whether anything is kept at all.
    is_on: bool,
}

/// The request that is handled now.
#[derive(Debug, Default)]
struct Pen {
    id: u64,
    now: Now,
    /// Whether anything is kept of it; not of the operator's.
    is_told: bool,
    rule: Option<Rc<str>>,
    telling: Telling,
    /// What was written last of it.
    written: Written,
    /// Why the edge answers itself, where that is more than its status says.
    cause: &'static str,
}

/// Where what is kept of a request is, for an answer that comes later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Telling {
    /// Number of its story; 0 for none.
    story: u64,
    /// Its answer is explained in a field.
    debug: bool,
}

/// A record, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Written {
    #[default]
    Nothing,
    Hit(u64),
    Story(u64),
}

/// To whom the debug field is shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shown {
    /// To everybody.
    pub all: bool,
    /// To who sends this key.
    pub key: Option<SecretHash>,
}

/// What one shard has found, as JSON.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// When the request began.
    pub at_ms: u64,
    /// The record.
    pub text: String,
}

impl Telling {
    /// Number of the story; 0 for none.
    pub fn story(self) -> u64 {
        self.story
    }
}

impl Shown {
    /// As configured.
    pub fn of(config: &config::Explain) -> Self {
        let key = config.debug_key_sha256.as_deref().and_then(config::sha256_of);
        Self { all: config.debug, key: key.map(SecretHash::new) }
    }

    fn to(&self, fields: &Fields<'_>) -> bool {
        self.all
            || self
                .key
                .as_ref()
                .is_some_and(|key| fields.get(DEBUG_FIELD).is_some_and(|given| key.is(given)))
    }
}

impl Explain {
    /// With this share of the memory for it.
    pub fn new(config: &config::Explain, shard_count: u16) -> Self {
        let bytes = config.memory as usize / usize::from(shard_count.max(1)) / 2;
        Self {
            pen: Pen::default(),
            hits: Ring::new(bytes / size_of::<Record>()),
            stories: Ring::new(bytes / size_of::<Story>()),
            shown: Shown::of(config),
            is_on: config.memory > 0,
        }
    }

    /// Shows the debug field to others from now on.
    pub fn set_shown(&mut self, shown: &Shown) {
        self.shown.clone_from(shown);
    }

    /// The newest record of a request with this id.
    fn find(&self, id: u64) -> Option<Story> {
        let story = self.stories.newest().find(|story| story.record.id == id).copied();
        let hit = self.hits.newest().find(|record| record.id == id).copied();
        let hit = hit.map(|record| Story { record, ..Story::EMPTY });
        story.into_iter().chain(hit).max_by_key(|story| story.record.at_ms)
    }

    /// The record to write to: that of the story, or a new one.
    #[inline]
    fn record(&mut self, is_hit: bool, watermark: u64) -> &mut Record {
        let Self { pen, hits, stories, .. } = self;
        let number = pen.telling.story;
        let record = if number > 0 && stories.get_mut(number).is_some() {
            pen.written = Written::Story(number);
            let story = stories.get_mut(number).expect("it was there just now");
            story.record.took_us = micros(story.began, pen.now.mono);
            return &mut story.record;
        } else if is_hit {
            let (number, record) = hits.next(|| Record::EMPTY);
            pen.written = Written::Hit(number);
            record
        } else {
            let (number, story) = stories.next(|| Story::EMPTY);
            (story.attempt_count, story.began) = (0, pen.now.mono);
            story.told = CacheStatus::hit(None);
            pen.written = Written::Story(number);
            &mut story.record
        };
        record.clear_text();
        (record.id, record.at_ms) = (pen.id, pen.now.wall_ms);
        (record.digest, record.watermark, record.took_us) = (0, watermark, 0);
        (record.label, record.freshness, record.tier) = (None, None, None);
        (record.status, record.waits) = (0, 0);
        if let Some(rule) = &pen.rule {
            record.push(Part::Rule, &[rule.as_bytes()]);
        }
        record
    }
}

/// While a request is handled.
impl Edge {
    /// A request has begun.
    pub(super) fn explain_begins(&mut self, now: Now, id: u64, fields: Option<&Fields<'_>>) {
        let debug = fields.is_some_and(|fields| self.explain.shown.to(fields));
        let telling = Telling { story: 0, debug };
        let is_on = self.explain.is_on;
        let pen = &mut self.explain.pen;
        (pen.id, pen.now, pen.is_told, pen.telling) = (id, now, is_on, telling);
        (pen.rule, pen.written, pen.cause) = (None, Written::Nothing, "");
    }

    /// An answer goes on, or the operator asks.
    pub(super) fn explain_resumes(&mut self, now: Now, telling: Telling) {
        let pen = &mut self.explain.pen;
        (pen.now, pen.is_told, pen.telling) = (now, telling.story > 0, telling);
        (pen.rule, pen.written, pen.cause) = (None, Written::Nothing, "");
    }

    /// Where the request is told of from now on.
    pub(super) fn telling(&self) -> Telling {
        self.explain.pen.telling
    }

    /// This rule is for it.
    pub(super) fn explain_rule(&mut self, name: &Rc<str>) {
        self.explain.pen.rule = Some(Rc::clone(name));
    }

    /// It is not answered at once: a story begins, or begins again.
    pub(super) fn explain_opens(
        &mut self,
        key: Option<&CacheKeyRef<'_>>,
        url: [&str; 2],
        waits: u8,
    ) {
        if !self.explain.pen.is_told {
            return;
        }
        let watermark = self.watermark;
        let rule = self.explain.pen.rule.clone();
        let record = self.explain.record(false, watermark);
        record.clear_text();
        record.waits = waits;
        if let Some(rule) = rule {
            record.push(Part::Rule, &[rule.as_bytes()]);
        }
        match key {
            Some(key) => record.note_key(key),
            None => record.push(Part::Key, &url.map(str::as_bytes)),
        }
        if let Written::Story(number) = self.explain.pen.written {
            self.explain.pen.telling.story = number;
        }
        self.observe.count(Metric::ExplainStories);
    }

    /// A stored response answers it.
    pub(super) fn explain_hit(
        &mut self,
        status: u16,
        hit: &Hit,
        label: CacheLabel,
        told: &CacheStatus,
    ) {
        if !self.explain.pen.is_told {
            return;
        }
        let watermark = self.watermark;
        let record = self.explain.record(label == CacheLabel::Hit, watermark);
        (record.status, record.label) = (status, Some(label));
        record.note_hit(hit);
        self.explain_told(told);
    }

    /// What `Cache-Status` says, where there is a story.
    fn explain_told(&mut self, told: &CacheStatus) {
        if let Written::Story(number) = self.explain.pen.written
            && let Some(story) = self.explain.stories.get_mut(number)
        {
            story.told = *told;
        }
    }

    /// The origin's answer is passed on.
    pub(super) fn explain_relayed(&mut self, status: u16, label: CacheLabel, told: &CacheStatus) {
        if !self.explain.pen.is_told {
            return;
        }
        let watermark = self.watermark;
        let record = self.explain.record(false, watermark);
        (record.status, record.label) = (status, Some(label));
        self.explain_told(told);
    }

    /// The edge will answer itself, because of this.
    pub(super) fn explain_cause(&mut self, cause: &'static str) {
        self.explain.pen.cause = cause;
    }

    /// The edge answers itself.
    pub(super) fn explain_own(&mut self, status: u16) {
        if self.explain.pen.is_told {
            let (watermark, detail) = (self.watermark, self.explain.pen.cause);
            self.explain.record(false, watermark).status = status;
            if !detail.is_empty() {
                self.explain_told(&CacheStatus { detail, ..CacheStatus::hit(None) });
            }
        }
    }

    /// What was decided of a request for a stream, and what it asked for.
    pub(super) fn explain_stream(
        &mut self,
        decision: &str,
        cursor: Option<&str>,
        topics: &[String],
    ) {
        if !self.explain.pen.is_told {
            return;
        }
        let watermark = self.watermark;
        let record = self.explain.record(false, watermark);
        let known = *record;
        let find = |wanted| known.parts().find(|(part, _)| *part == wanted).map(|(_, text)| text);
        record.clear_text();
        if let Some(rule) = find(Part::Rule) {
            record.push(Part::Rule, &[rule]);
        }
        record.push(Part::Stream, &[decision.as_bytes()]);
        if let Some(cursor) = cursor {
            // A query may bring any byte.
            let cursor: String = cursor.chars().filter(|c| !c.is_control()).take(48).collect();
            record.push(Part::Cursor, &[cursor.as_bytes()]);
        }
        for topic in topics {
            record.push(Part::Topic, &[topic.as_bytes()]);
        }
        // Last, because it may be long.
        if let Some(url) = find(Part::Key) {
            record.push(Part::Key, &[url]);
        }
    }

    /// A stream has begun, or was refused at the last step.
    pub(super) fn explain_opening(&mut self, opening: Opening, request: &StreamRequest) {
        if !self.explain.pen.is_told {
            return;
        }
        let topics = request.wanted.as_ref().map_or(&[][..], |wanted| &wanted.topics);
        self.explain_stream(&opening.told(), request.last_event_id.as_deref(), topics);
        self.explain_own(opening.status());
    }

    /// The debug field, for who may see it.
    #[inline]
    pub(super) fn explain_field(&mut self) -> Option<String> {
        match self.explain.pen.telling.debug {
            true => self.make_field(),
            false => None,
        }
    }

    #[cold]
    fn make_field(&mut self) -> Option<String> {
        let explain = &mut self.explain;
        let story = match explain.pen.written {
            Written::Nothing => return None,
            Written::Hit(number) => {
                let record = *explain.hits.get_mut(number)?;
                Story { record, ..Story::EMPTY }
            }
            Written::Story(number) => *explain.stories.get_mut(number)?,
        };
        Some(format!("{SHOWN_FIELD}: {}\r\n", self.teller().line(&story)))
    }

    /// What there is of a request with this id.
    pub(super) fn explain_find(&self, id: u64) -> Option<Found> {
        let story = self.explain.find(id)?;
        let text = self.teller().json(&story).to_string();
        Some(Found { at_ms: story.record.at_ms, text })
    }

    fn teller(&self) -> Teller<'_> {
        Teller {
            shard: self.settings.shard,
            origins: &self.origins,
            targets: self.cache.targets(),
            seed: self.cache.config().seed,
        }
    }
}

/// What a fetch tells of its attempts.
impl Edge {
    /// Something is asked of an origin; without an address on a kept connection.
    pub(super) fn explain_attempt(
        &mut self,
        now: Now,
        story: u64,
        row: u32,
        address: Option<SocketAddr>,
    ) {
        if let Some(story) = self.explain.stories.get_mut(story) {
            let began = now.mono;
            let attempt = Attempt { row, address, began, took_us: 0, status: 0, failure: None };
            story.push_attempt(attempt);
        }
    }

    /// The attempt under way came to this.
    pub(super) fn explain_outcome(&mut self, now: Now, story: u64, came: Result<u16, Failure>) {
        let Some(story) = self.explain.stories.get_mut(story) else { return };
        let Some(attempt) = story.attempt() else { return };
        attempt.took_us = micros(attempt.began, now.mono);
        match came {
            Ok(status) => attempt.status = status,
            Err(failure) => attempt.failure = Some(failure),
        }
    }
}

fn micros(since: Mono, now: Mono) -> u32 {
    u32::try_from(now.since_ns(since) / 1000).unwrap_or(u32::MAX)
}

/// A request's id as a number: the number behind one of ours, a hash of any other.
pub fn number_of(id: &[u8]) -> u64 {
    let is_ours = id.len() == 16 && id.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let text = std::str::from_utf8(id).ok().filter(|_| is_ours);
    match text.and_then(|text| u64::from_str_radix(text, 16).ok()) {
        Some(number) => number,
        // The same on every shard.
        None => FixedState::with_seed(0).hash_one(id),
    }
}

/// With the debug key a visitor sees how the answer came about. Never passed on to an origin.
pub const DEBUG_FIELD: &str = "Pharos-Debug";
/// What is then said in the answer.
const SHOWN_FIELD: &str = "Pharos-Explain";

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{
        super::{
            live::Live,
            testing::{End, World, page, site},
        },
        *,
    };
    use crate::seam::Control;

    fn get(target: &str, fields: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
    }

    fn id_of(answer: &str) -> &str {
        let (_, rest) = answer.split_once("X-Request-Id: ").expect("an id");
        rest.split_once("\r\n").expect("a line").0
    }

    /// What the operator is told, asked of the last shard.
    fn told(world: &mut World, id: &str) -> Value {
        let operator = world.accept(world.shards.len() - 1, 1);
        world.say(operator, &format!("GET /v1/explain/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let answer = world.take(operator);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        match head.starts_with("HTTP/1.1 200 ") {
            true => serde_json::from_str(body).expect(body),
            false => Value::String(head.lines().next().unwrap_or_default().to_owned()),
        }
    }

    fn ask(world: &mut World, client: End, request: &str) -> String {
        world.say(client, request);
        world.take(client)
    }

    #[test]
    fn a_miss_and_a_hit_are_explained_from_any_shard() {
        let mut world = World::new(3);
        let mut site = site();
        site.rules = serde_json::from_str(
            r#"[{"name": "static", "match": {"paths": ["/s/*"]}, "lifetime": {"fresh_s": 60}}]"#,
        )
        .expect("rules");
        let live = Live { sites: [site].into(), ..world.live_now() };
        world.live.put(live);
        world.control(Control::Reload);
        let client = world.connect(0);
        world.say(client, &get("/s/a?token=x&v=1", "Accept-Language: de\r\n"));
        world.wait_ms(30);
        let upstream = world.upstream();
        world.say(
            upstream,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVary: Accept-Language\r\n\r\nok",
        );
        let miss = world.take(client);
        let told_miss = told(&mut world, id_of(&miss));
        assert_eq!(told_miss["result"], "MISS");
        assert_eq!((&told_miss["rule"], &told_miss["tier"]), (&"static".into(), &"origin".into()));
        assert_eq!(told_miss["key"]["text"], "a.example/s/a?token=***&v=1");
        assert_eq!(told_miss["variant"], serde_json::json!(["accept-language: de"]));
        assert_eq!(told_miss["freshness"]["lifetime_from"], "the rule");
        assert_eq!(told_miss["forward"], "uri-miss");
        assert_eq!((&told_miss["stored"], &told_miss["took_us"]), (&true.into(), &30_000.into()));
        let attempt = serde_json::json!({"origin": "127.0.0.1:9000", "address": "127.0.0.1:9000",
            "connection": "new", "status": 200, "took_us": 30_000, "error": null});
        assert_eq!(told_miss["origin"], serde_json::json!({"attempts": [attempt], "count": 1}));
        world.wait_ms(5_000);
        let ours = "X-Request-Id: mine-7\r\nAccept-Language: de\r\n";
        ask(&mut world, client, &get("/s/a?token=x&v=1", &ours.replace('7', "6")));
        assert_eq!(told(&mut world, "mine-6")["tier"], "shared");
        ask(&mut world, client, &get("/s/a?token=x&v=1", ours));
        let told_hit = told(&mut world, "mine-7");
        assert_eq!((&told_hit["result"], &told_hit["tier"]), (&"HIT".into(), &"near".into()));
        assert_eq!(told_hit["key"]["digest"], told_miss["key"]["digest"]);
        let freshness = &told_hit["freshness"];
        assert_eq!(freshness["decision"], "fresh");
        assert_eq!(
            [&freshness["lifetime_s"], &freshness["age_s"], &freshness["left_s"]],
            [60, 5, 54]
        );
        assert_eq!(told(&mut world, "nobodys"), "HTTP/1.1 404 Not Found");
    }

    #[test]
    fn the_coding_that_an_answer_came_in_is_told() {
        let mut world = World::new(1);
        let client = world.connect(0);
        let accepts = |id: &str| format!("Accept-Encoding: br\r\nX-Request-Id: {id}\r\n");
        world.say(client, &get("/came", &accepts("miss")));
        let upstream = world.upstream();
        let fields = "Cache-Control: max-age=60\r\nContent-Type: text/plain\r\n";
        let text = "x".repeat(3000);
        let length = format!("HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n{fields}");
        world.say(upstream, &format!("{length}Content-Encoding: br\r\n\r\n{text}"));
        let came = serde_json::json!({"coding": "br", "by": "origin"});
        assert_eq!(told(&mut world, "miss")["encoding"], came);
        world.say(client, &get("/plain", &accepts("plain")));
        world.say(upstream, &format!("{length}\r\n{text}"));
        assert_eq!(told(&mut world, "plain")["encoding"], Value::Null);
    }

    #[test]
    fn every_attempt_is_told_with_why_it_failed() {
        let mut world = World::new(1);
        world.connect = Err(std::io::ErrorKind::ConnectionRefused);
        let client = world.connect(0);
        let answer = ask(&mut world, client, &get("/a", ""));
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        let found = told(&mut world, id_of(&answer));
        assert_eq!((&found["status"], &found["result"]), (&502.into(), &Value::Null));
        assert_eq!(found["key"]["text"], "a.example/a");
        let error = found["origin"]["attempts"][0]["error"].as_str().expect("a reason");
        assert!(error.contains("could not be reached"), "{error}");
        assert_eq!(found["detail"], "connection-refused");
    }

    #[test]
    fn why_there_was_no_answer_is_told_with_origin_cause_and_time() {
        let mut world = World::new(1);
        let client = world.connect(0);
        let answer = ask(&mut world, client, &get("/a", "Cache-Control: only-if-cached\r\n"));
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        let found = told(&mut world, id_of(&answer));
        assert_eq!(
            (&found["detail"], &found["origin"]["count"]),
            (&"only-if-cached".into(), &0.into())
        );
        // Silent: in time, and who has waited for that is told, too.
        let second = world.connect(0);
        world.say(client, &get("/silent", "X-Request-Id: silent\r\n"));
        world.say(second, &get("/silent", "X-Request-Id: waited\r\n"));
        world.wait_ms(5_000);
        assert!(world.take(client).starts_with("HTTP/1.1 504 "));
        assert!(world.take(second).starts_with("HTTP/1.1 504 "));
        let found = told(&mut world, "silent");
        let attempt = &found["origin"]["attempts"][0];
        assert_eq!(found["detail"], "answer-timeout");
        assert!(attempt["origin"].is_string() && attempt["address"].is_string(), "{found}");
        assert_eq!(attempt["error"], "The origin did not answer in time.");
        assert!(attempt["took_us"].as_u64() >= Some(5_000_000), "{found}");
        assert_eq!(told(&mut world, "waited")["detail"], "the-fetch-waited-for-failed");
        // What must be validated says so, and its attempt why that could not be.
        world.say(client, &get("/strict", ""));
        let upstream = world.upstream();
        let fields = "Content-Length: 2\r\nCache-Control: max-age=1, must-revalidate";
        world.say(upstream, &format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok"));
        world.take(client);
        world.eof(upstream);
        world.wait_ms(5_000);
        world.connect = Err(std::io::ErrorKind::ConnectionRefused);
        let answer = ask(&mut world, client, &get("/strict", ""));
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        let found = told(&mut world, id_of(&answer));
        assert_eq!(found["detail"], "must-revalidate");
        let error = found["origin"]["attempts"][0]["error"].as_str().expect("a reason");
        assert!(error.contains("refused"), "{found}");
    }

    #[test]
    fn who_waited_for_anothers_fetch_and_who_passed_are_told_so() {
        let mut world = World::new(1);
        let (first, second, third) = (world.connect(0), world.connect(0), world.connect(0));
        world.say(first, &get("/a", "X-Request-Id: first\r\n"));
        world.say(second, &get("/a", "X-Request-Id: second\r\n"));
        let upstream = world.upstream();
        let fields = "Content-Length: 2\r\nCDN-Cache-Control: max-age=9";
        world.say(upstream, &format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok"));
        let found = told(&mut world, "second");
        assert_eq!((&found["collapsed"], &found["result"]), (&true.into(), &"HIT".into()));
        assert_eq!(found["freshness"]["lifetime_from"], "max-age of CDN-Cache-Control");
        assert_eq!(found["origin"]["count"], 0);
        world.say(third, &get("/pass/x?y", "X-Request-Id: third\r\n"));
        world.say(upstream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let found = told(&mut world, "third");
        assert_eq!(found["result"], "PASS");
        assert_eq!(found["key"]["text"], "a.example/pass/x?y");
        assert_eq!(found["key"]["digest"], Value::Null, "no key");
        assert_eq!(found["origin"]["attempts"][0]["connection"], "kept");
        assert_eq!(found["freshness"], Value::Null);
    }

    #[test]
    fn the_debug_field_is_shown_to_nobody_but_who_has_the_key() {
        let mut world = World::new(1);
        let client = world.connect(0);
        let key = get("/a", "Pharos-Debug: foo\r\n");
        world.say(client, &key);
        let upstream = world.upstream();
        assert!(!world.take(upstream).contains("Pharos-Debug"), "not the origin's to see");
        world.say(
            upstream,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: max-age=9\r\n\r\nok",
        );
        assert!(!world.take(client).contains("Pharos-Explain"));
        let set = |world: &mut World, shown: Shown| {
            world.live.put(Live { shown, ..world.live_now() });
            world.control(Control::Reload);
        };
        let sha256 = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
        let hash = config::sha256_of(sha256).map(SecretHash::new);
        set(&mut world, Shown { all: false, key: hash });
        for wrong in ["", "Pharos-Debug: fop\r\n", "Pharos-Debug:\r\n"] {
            let answer = ask(&mut world, client, &get("/a", wrong));
            assert!(!answer.contains("Pharos-Explain"), "{answer}");
        }
        let answer = ask(&mut world, client, &key);
        let expected = "Pharos-Explain: result=\"HIT\"; rule=\"-\"; key=\"a.example/a\"; digest=\"";
        assert!(answer.contains(expected), "{answer}");
        let expected = "tier=\"near\"; freshness=\"fresh\"; lifetime=\"9 s\"; \
                        from=\"max-age of Cache-Control\"; age=\"0 s\"; left=\"9 s\"; position=\"0\"";
        assert!(answer.contains(expected), "{answer}");
        let answer = ask(&mut world, client, &key.replace("a.example", "nobody.example"));
        assert!(
            answer.contains("Pharos-Explain: result=\"OWN\"; rule=\"-\"; tier=\"edge\""),
            "{answer}"
        );
        set(&mut world, Shown { all: true, key: None });
        assert!(ask(&mut world, client, &get("/a", "")).contains("Pharos-Explain"));
    }

    #[test]
    fn the_operators_own_requests_are_not_told_and_the_unreadable_are() {
        let mut world = World::with_control(2);
        world.configure(vec![site()], vec![page()]);
        let operator = world.accept(0, 1);
        let answer = ask(&mut world, operator, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(told(&mut world, id_of(&answer)), "HTTP/1.1 404 Not Found");
        let client = world.connect(0);
        let answer = ask(&mut world, client, "nonsense\r\n\r\n");
        assert_eq!(told(&mut world, id_of(&answer))["status"], 400);
    }

    #[test]
    fn records_that_were_written_over_are_gone_and_stories_outlast_hits() {
        let config = config::Explain { memory: 8 * 1024, ..config::Explain::default() };
        let mut explain = Explain::new(&config, 1);
        let write = |explain: &mut Explain, id, is_hit| {
            (explain.pen.id, explain.pen.is_told) = (id, true);
            explain.record(is_hit, 0).status = 200;
        };
        write(&mut explain, 1, false);
        (2..100).for_each(|id| write(&mut explain, id, true));
        assert!(explain.find(1).is_some() && explain.find(99).is_some());
        assert!(explain.find(2).is_none());
    }
}
