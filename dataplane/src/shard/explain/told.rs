//! A record as people and programs read it: JSON for the operator, one line for a debug field.
//!
//! Leaves to others: finding it (`super`), showing it (`pharos explain`).

use std::fmt::Write;

use cache::{Freshness, LifetimeSource, Tier};
use serde_json::{Value, json};

use super::{
    super::{access, origin::Origins, request::CacheLabel, secret::short_digest},
    record::{Attempt, NONE_LEFT, Part, Record, Story},
};
use crate::seam::ShardId;

/// What text needs beside the record.
pub struct Teller<'a> {
    /// Which shard's record it is.
    pub shard: ShardId,
    /// Names of its origins.
    pub origins: &'a Origins,
    /// Targeted fields, most specific first.
    pub targets: &'a [String],
    /// Of the digests that stand for secrets; known to this process only.
    pub seed: u64,
}

impl Teller<'_> {
    /// Everything.
    pub fn json(&self, story: &Story) -> Value {
        let Story { record, told, .. } = story;
        let (rule, key, variant) = self.parts(record);
        json!({
            "at_ms": record.at_ms,
            "shard": self.shard,
            "status": (record.status != 0).then_some(record.status),
            "result": record.label.map(CacheLabel::word),
            "rule": rule,
            "key": key.map(|text| json!({
                "text": text,
                "digest": (record.digest != 0).then(|| digest(record)),
                "cut": record.is_cut,
            })),
            "variant": variant,
            "encoding": encoding(record).map(|(coding, by)| json!({"coding": coding, "by": by})),
            "tier": tier(record),
            "stream": stream(record),
            "freshness": record.freshness.map(|freshness| json!({
                "decision": decision(freshness),
                "lifetime_s": record.lifetime_s,
                "lifetime_from": self.source(record),
                "age_s": record.age_s,
                "left_s": (record.left_s != NONE_LEFT).then_some(record.left_s),
            })),
            "forward": told.forward.map(|forward| forward.as_str()),
            "detail": (!told.detail.is_empty()).then_some(told.detail),
            "stored": told.stored,
            "collapsed": told.collapsed,
            "waits": record.waits,
            "origin": json!({
                "attempts": self.attempts(story),
                "count": story.attempt_count,
            }),
            "position": record.watermark,
            "took_us": record.took_us,
        })
    }

    /// One field value.
    pub fn line(&self, story: &Story) -> String {
        let record = &story.record;
        let (rule, key, variant) = self.parts(record);
        let mut line = String::new();
        let mut put = |name: &str, text: &str| {
            let separator = if line.is_empty() { "" } else { "; " };
            let _ = write!(line, "{separator}{name}=\"");
            // What cannot stand in a string (RFC 9651 §3.3.3) is shown as such.
            line.extend(text.chars().map(|c| match c {
                '"' | '\\' => '\'',
                ' '..='~' => c,
                _ => '?',
            }));
            line.push('"');
        };
        put("result", record.label.map_or("OWN", CacheLabel::word));
        put("rule", rule.as_deref().unwrap_or("-"));
        if let Some(key) = key {
            put("key", &key.replace('\n', " | "));
        }
        if record.digest != 0 {
            put("digest", &digest(record));
        }
        if !variant.is_empty() {
            put("variant", &variant.join(", "));
        }
        if let Some((coding, by)) = encoding(record) {
            put("encoding", &format!("{coding} by the {by}"));
        }
        if let Some(stream) = stream(record) {
            put("stream", stream["decision"].as_str().unwrap_or_default());
        }
        put("tier", tier(record));
        if !story.told.detail.is_empty() {
            put("because", story.told.detail);
        }
        if let Some(freshness) = record.freshness {
            put("freshness", decision(freshness));
            put("lifetime", &format!("{} s", record.lifetime_s));
            put("from", &self.source(record));
            put("age", &format!("{} s", record.age_s));
        }
        if record.freshness.is_some() && record.left_s != NONE_LEFT {
            put("left", &format!("{} s", record.left_s));
        }
        if story.told.collapsed || record.waits > 0 {
            put("collapsed", &format!("waited {}", record.waits));
        }
        for attempt in self.attempts(story) {
            let text = |name: &str| match &attempt[name] {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            let parts = ["address", "connection", "status", "error"].map(text);
            let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            put("origin", &format!("{} {} us", parts.join(" "), text("took_us")));
        }
        put("position", &record.watermark.to_string());
        line
    }

    /// Rule, key and variant, without values of what sounds like a secret.
    fn parts(&self, record: &Record) -> (Option<String>, Option<String>, Vec<String>) {
        let (mut rule, mut key, mut variant) = (None, None, Vec::new());
        for (part, text) in record.parts() {
            let text = String::from_utf8_lossy(text);
            match part {
                Part::Rule => rule = Some(text.into_owned()),
                Part::Key => {
                    let mut lines = text.split('\n');
                    let first = access::without_secrets(lines.next().unwrap_or_default());
                    let added = lines.map(|line| self.without_secret(line));
                    key = Some([first].into_iter().chain(added).collect::<Vec<_>>().join("\n"));
                }
                Part::Variant => variant.push(self.without_secret(&text)),
                _ => {}
            }
        }
        (rule, key, variant)
    }

    /// A name and its value, or a digest of that if the name sounds like a secret's. A cookie may
    /// be one whatever its name.
    fn without_secret(&self, line: &str) -> String {
        match line.split_once([':', '=']) {
            Some((name, value)) if access::is_secret(name) => {
                format!("{name}: #{}", short_digest(self.seed, name, value))
            }
            _ => line.to_owned(),
        }
    }

    fn attempts(&self, story: &Story) -> Vec<Value> {
        let kept = usize::from(story.attempt_count).min(story.attempts.len());
        story.attempts[..kept].iter().map(|attempt| self.attempt(attempt)).collect()
    }

    fn attempt(&self, attempt: &Attempt) -> Value {
        json!({
            "origin": self.origins.name(attempt.row),
            "address": attempt.address.map(|address| address.to_string()),
            "connection": if attempt.address.is_some() { "new" } else { "kept" },
            "status": (attempt.status != 0).then_some(attempt.status),
            "took_us": attempt.took_us,
            "error": attempt.failure.map(|failure| failure.answer().1),
        })
    }

    /// Which field gave the lifetime.
    fn source(&self, record: &Record) -> String {
        let field = match record.target {
            0 => "Cache-Control",
            nth => self.targets.get(usize::from(nth) - 1).map_or("a targeted field", |name| name),
        };
        match record.source {
            LifetimeSource::SMaxage => format!("s-maxage of {field}"),
            LifetimeSource::MaxAge => format!("max-age of {field}"),
            LifetimeSource::Expires => "Expires".to_owned(),
            LifetimeSource::Heuristic => "a tenth of the time since Last-Modified".to_owned(),
            LifetimeSource::Rule => "the rule".to_owned(),
            LifetimeSource::None => "nothing: stale at once".to_owned(),
        }
    }
}

/// What was decided of a request for a stream; `None` of another request.
fn stream(record: &Record) -> Option<Value> {
    let all = |wanted| {
        let parts = record.parts().filter(move |(part, _)| *part == wanted);
        parts.map(|(_, text)| String::from_utf8_lossy(text).into_owned())
    };
    let decision = all(Part::Stream).next()?;
    let topics: Vec<_> = all(Part::Topic).collect();
    Some(json!({"decision": decision, "cursor": all(Part::Cursor).next(), "topics": topics}))
}

/// The content coding of what was sent, and who has encoded it.
fn encoding(record: &Record) -> Option<(String, &'static str)> {
    record.parts().find_map(|(part, text)| {
        let by = match part {
            Part::OwnCoding => "edge",
            Part::OriginCoding => "origin",
            _ => return None,
        };
        Some((String::from_utf8_lossy(text).into_owned(), by))
    })
}

fn digest(record: &Record) -> String {
    format!("{:016x}", record.digest)
}

fn tier(record: &Record) -> &'static str {
    match (record.label, record.tier) {
        (None, _) => "edge",
        (Some(CacheLabel::Hit | CacheLabel::Stale), Some(Tier::Near)) => "near",
        (Some(CacheLabel::Hit | CacheLabel::Stale), _) => "shared",
        _ => "origin",
    }
}

fn decision(freshness: Freshness) -> &'static str {
    match freshness {
        Freshness::Fresh => "fresh",
        Freshness::Collapsed => "fetched for others and this one",
        Freshness::MaxStale => "stale, as the request allows",
        Freshness::WhileRevalidating => "stale while it is validated",
        Freshness::OriginFailed => "stale because the origin fails",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coding_of_what_was_sent_is_told_and_who_encoded_it() {
        let mut record = Record::EMPTY;
        record.push(Part::Key, &[b"a.example", b"/x"]);
        assert_eq!(encoding(&record), None);
        record.push(Part::OwnCoding, &[b"br"]);
        assert_eq!(encoding(&record), Some(("br".into(), "edge")));
        record.clear_text();
        record.push(Part::OriginCoding, &[b"gzip"]);
        assert_eq!(encoding(&record), Some(("gzip".into(), "origin")));
    }

    #[test]
    fn of_what_may_be_a_secret_only_a_keyed_digest_is_told() {
        let origins = Origins::new(0);
        let teller = |seed| Teller { shard: 0, origins: &origins, targets: &[], seed };
        for line in [
            "cookie: sid=8f14e45f; lang=de",
            "cookie lang=8f14e45f",
            "Authorization: Basic 8f14e45f",
            "x-sid: 8f14e45f",
            "X-JWT: 8f14e45f",
            "x-csrf-token: 8f14e45f",
            "x-xsrf: 8f14e45f",
            "otp: 8f14e45f",
            "x-hmac: 8f14e45f",
        ] {
            let told = teller(1).without_secret(line);
            assert!(!told.contains("8f14e45f"), "{told}");
            let name = line.split([':', '=']).next().expect("a name");
            let digest = told.strip_prefix(&format!("{name}: #")).expect("a digest");
            assert_eq!(digest.len(), 8);
            assert_ne!(told, teller(2).without_secret(line), "keyed");
            assert_ne!(told, teller(1).without_secret(&format!("{line}0")), "of the value");
        }
        for line in ["accept-language: de", "x-a", "cookie c"] {
            assert_eq!(teller(1).without_secret(line), line);
        }
        let mut record = Record::EMPTY;
        record
            .push(Part::Key, &[b"a.example", b"/x;jsessionid=0?sid=1&JWT=2;otp=3&ticket=4&page=5"]);
        let (_, key, _) = teller(1).parts(&record);
        let key = key.expect("a key");
        assert_eq!(key, "a.example/x;jsessionid=***?sid=***&JWT=***;otp=***&ticket=***&page=5");
    }
}
