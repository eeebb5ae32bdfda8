//! Rules of a site: for requests that match, how long an answer is fresh, what of a request takes
//! part in the cache key, and what is never stored.
//!
//! Rules are tried in order behind the site's routes; the first one that matches decides alone.
//! Patterns are the same everywhere: `*` stands for any characters, all else for itself, so that
//! `/a` is one path, `/a/*` all below it, `*.js` all that end so.
//!
//! Leaves to others: trying them (`dataplane::shard::rule`), what a lifetime means to a cache
//! (`cache`).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::site::Policy;
use crate::{field::name::is_token, limits};

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What `pharos explain` calls it, `[a-z0-9-]{1,63}`.
    pub name: String,
    /// Which requests; all of the site without it.
    #[serde(default, rename = "match", skip_serializing_if = "is_default")]
    pub matching: Match,
    /// `pass`: never look up, never store. `cache` unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// How long answers are fresh; as the origin says without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<LifetimeRule>,
    /// What takes part in the cache key; host, path and query without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyRule>,
}

/// Which requests a rule is for: those that fit one of each list that is not empty, and all of
/// `fields`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Patterns of host names, lower case, without port.
    #[serde(default, deserialize_with = "filled", skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Patterns of paths, without query.
    #[serde(default, deserialize_with = "filled", skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Names of methods.
    #[serde(default, deserialize_with = "filled", skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Fields of the request.
    #[serde(default, deserialize_with = "filled", skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldMatch>,
}

/// What must be true of a field of the request.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldMatch {
    /// Its name.
    pub name: String,
    /// A pattern of one of its values; any value will do without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The request must not have such a field.
    #[serde(default, skip_serializing_if = "is_default")]
    pub absent: bool,
}

/// How long answers are fresh, whatever the origin says or where it says nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifetimeRule {
    /// Of answers with status 200, 203, 204, 300, 301 or 308, s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_s: Option<u64>,
    /// By status (`"404"`) or class of it (`"5xx"`), s; a status wins over its class, both over
    /// `fresh_s`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub status_fresh_s: BTreeMap<String, u64>,
    /// How long one that is stale is served while it is validated (RFC 5861 §3), s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate_s: Option<u64>,
    /// How long one that is stale is served when the origin fails (RFC 5861 §4), s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_if_error_s: Option<u64>,
    /// What the origin's own word counts for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub origin: OriginWord,
}

/// What the origin's word counts for where a rule gives a lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OriginWord {
    /// The rule's lifetime counts before the origin's; what the origin forbids (`no-store`,
    /// `private`, `no-cache`, `must-revalidate`) stays forbidden.
    #[default]
    Override,
    /// The rule counts only where the origin gives no lifetime.
    Honour,
    /// Nothing: `Cache-Control` and `Expires` are not looked at. An answer with `Set-Cookie` is not
    /// stored all the same, nor one to a request with `Authorization`.
    Ignore,
}

/// What takes part in the cache key beside host and path.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRule {
    /// What of the query; all, in its order, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<QueryRule>,
    /// Names of request fields whose values take part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Names of cookies whose values take part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<String>,
}

/// What of a query takes part in the cache key, and so reaches the origin.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryRule {
    /// Patterns of parameters that do; none of them if it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Vec<String>>,
    /// Patterns of parameters that do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
    /// Whether they are put in the order of their names.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sort: bool,
    /// Whether the origin is asked for the whole query all the same. What it makes of a parameter
    /// that is not in the key is then shared with everyone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub forward_dropped: bool,
}

/// What is wrong with a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Where in the rule: a JSON pointer (RFC 6901).
    pub at: String,
    /// Stable, machine-readable.
    pub code: &'static str,
    /// What would have been right, for people.
    pub expected: &'static str,
}

impl LifetimeRule {
    /// The lifetime of answers with this status, if the rule gives them one.
    pub fn fresh_s(&self, status: u16) -> Option<u64> {
        let named = |text: &str| self.status_fresh_s.get(text).copied();
        named(&status.to_string()).or_else(|| named(&format!("{}xx", status / 100))).or_else(|| {
            self.fresh_s.filter(|_| matches!(status, 200 | 203 | 204 | 300 | 301 | 308))
        })
    }
}

impl Rule {
    /// Everything that is wrong with it.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults(Vec::new());
        faults.note(is_label(&self.name), "/name", "name", NAME);
        self.matching.check(&mut faults);
        let is_policy = matches!(self.policy, None | Some(Policy::Cache | Policy::Pass));
        faults.note(is_policy, "/policy", "policy", POLICY);
        let acts = self.policy.is_some() || self.lifetime.is_some() || self.key.is_some();
        faults.note(acts, "", "required", ACTION);
        let is_pass = self.policy == Some(Policy::Pass);
        let is_idle = is_pass && (self.lifetime.is_some() || self.key.is_some());
        faults.note(!is_idle, "/policy", "unused", PASS_ALONE);
        if let Some(lifetime) = &self.lifetime {
            lifetime.check(&mut faults);
        }
        if let Some(key) = &self.key {
            key.check(&mut faults);
        }
        faults.0
    }
}

impl Match {
    fn check(&self, faults: &mut Faults) {
        let lists = [("hosts", &self.hosts), ("paths", &self.paths), ("methods", &self.methods)];
        for (name, list) in lists {
            let expected = if name == "hosts" { HOST } else { LIST };
            faults.list(list, &format!("/match/{name}"), expected, |text| match name {
                "hosts" => is_host_pattern(text),
                "paths" => is_pattern(text) && text.starts_with(['/', '*']) && !text.contains('?'),
                _ => is_token(text.as_bytes()),
            });
        }
        let is_few = self.fields.len() <= limits::RULE_LIST_MAX;
        faults.note(is_few, "/match/fields", "count", LIST_COUNT);
        for (nth, field) in self.fields.iter().enumerate() {
            let at = format!("/match/fields/{nth}");
            let is_name = is_token(field.name.as_bytes());
            faults.note(is_name, &format!("{at}/name"), "field", FIELD_NAME);
            let is_value = field.value.as_deref().is_none_or(is_value_pattern);
            faults.note(is_value, &format!("{at}/value"), "pattern", PATTERN);
            let is_clear = !(field.absent && field.value.is_some());
            faults.note(is_clear, &format!("{at}/absent"), "unused", ABSENT_ALONE);
        }
    }
}

impl LifetimeRule {
    fn check(&self, faults: &mut Faults) {
        let is_known = |text: &str| {
            let digits = text.strip_suffix("xx").unwrap_or(text);
            match (digits.parse::<u16>(), text.len()) {
                (Ok(2..=5), 3) => text.ends_with("xx"),
                // What these say is not of a whole representation.
                (Ok(status), 3) => {
                    (200..600).contains(&status) && !matches!(status, 206 | 304 | 412 | 416)
                }
                _ => false,
            }
        };
        for status in self.status_fresh_s.keys().filter(|status| !is_known(status)) {
            let at = format!("/lifetime/status_fresh_s/{}", status.replace('~', "~0"));
            faults.note(false, &at.replace('\n', " "), "status", STATUS);
        }
        let is_few = self.status_fresh_s.len() <= limits::RULE_LIST_MAX;
        faults.note(is_few, "/lifetime/status_fresh_s", "count", LIST_COUNT);
        let times = [
            ("fresh_s", self.fresh_s),
            ("stale_while_revalidate_s", self.stale_while_revalidate_s),
            ("stale_if_error_s", self.stale_if_error_s),
            ("status_fresh_s", self.status_fresh_s.values().max().copied()),
        ];
        for (name, seconds) in times {
            let is_fine = seconds.is_none_or(|seconds| seconds <= limits::RULE_LIFETIME_S_MAX);
            faults.note(is_fine, &format!("/lifetime/{name}"), "number", SECONDS);
        }
        let is_said = times.iter().any(|(_, seconds)| seconds.is_some());
        faults.note(is_said, "/lifetime", "required", LIFETIME);
    }
}

impl KeyRule {
    fn check(&self, faults: &mut Faults) {
        let is_name = |name: &str| is_token(name.as_bytes());
        faults.list(&self.fields, "/key/fields", FIELD_NAME, is_name);
        for (nth, name) in self.fields.iter().enumerate() {
            let is_one_of = |names: &[&str]| names.iter().any(|it| name.eq_ignore_ascii_case(it));
            let at = format!("/key/fields/{nth}");
            // A key that is a secret tells it to whoever reads keys, and shares nothing anyway.
            faults.note(!is_one_of(&SECRET_FIELDS), &at, "field", KEY_FIELD);
            faults.note(!is_one_of(&NO_KEY_FIELDS), &at, "field", NO_KEY_FIELD);
        }
        faults.list(&self.cookies, "/key/cookies", FIELD_NAME, is_name);
        let Some(query) = &self.query else { return };
        let is_either = query.keep.is_none() || query.drop.is_empty();
        faults.note(is_either, "/key/query", "unused", KEEP_OR_DROP);
        let kept = query.keep.as_deref().unwrap_or_default();
        faults.list(kept, "/key/query/keep", PATTERN, is_pattern);
        faults.list(&query.drop, "/key/query/drop", PATTERN, is_pattern);
    }
}

/// Faults of one rule, as they are found.
struct Faults(Vec<Fault>);

impl Faults {
    fn note(&mut self, is_fine: bool, at: &str, code: &'static str, expected: &'static str) {
        if !is_fine {
            self.0.push(Fault { at: at.to_owned(), code, expected });
        }
    }

    fn list(
        &mut self,
        list: &[String],
        at: &str,
        expected: &'static str,
        is_fine: impl Fn(&str) -> bool,
    ) {
        self.note(list.len() <= limits::RULE_LIST_MAX, at, "count", LIST_COUNT);
        for (nth, text) in list.iter().enumerate() {
            let at = format!("{at}/{nth}");
            self.note(text.len() <= limits::RULE_PATTERN_BYTES_MAX, &at, "length", LENGTH);
            self.note(is_fine(text), &at, "pattern", expected);
            self.note(!list[..nth].contains(text), &at, "repeated", REPEATED);
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A list that is not empty, where one that is would be read as if nothing had been said.
fn filled<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    let list = Vec::deserialize(from)?;
    if list.is_empty() { Err(D::Error::custom(FILLED)) } else { Ok(list) }
}

fn is_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(allowed)
}

/// Of a host without port: a colon stands in the brackets of an address only.
fn is_host_pattern(text: &str) -> bool {
    let allowed = |b: u8| !b.is_ascii_uppercase() && !b"/?#@".contains(&b);
    let outside = text.rsplit_once(']').map_or(text, |(_, behind)| behind);
    is_pattern(text) && text.bytes().all(allowed) && !outside.contains(':')
}

fn is_pattern(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Of a field's value, which may have spaces.
fn is_value_pattern(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= limits::RULE_PATTERN_BYTES_MAX
        && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

const SECRET_FIELDS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];
/// Part of the key anyway, of this hop only, or answered from what is stored whatever they say: in
/// a key they would keep apart what is the same.
const NO_KEY_FIELDS: [&str; 21] = [
    "host",
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "max-forwards",
    "pragma",
    "cache-control",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

const NAME: &str = "1 to 63 of a-z, 0-9 and -";
const POLICY: &str = "cache or pass; streams have a route";
const ACTION: &str = "what to do: policy, lifetime or key";
const PASS_ALONE: &str = "neither lifetime nor key beside policy pass";
const LIST: &str = "a pattern of visible ASCII, `*` for any characters, of a path that starts with \
                    / or *, without query; or the name of a method";
const HOST: &str = "a pattern of a host name in lower case, without port, `*` for any characters";
/// What is expected of a list of a match that is given and empty.
pub const FILLED: &str = "at least one item, or no list at all, which fits everything";
const LIST_COUNT: &str = "at most 64 items";
const LENGTH: &str = "at most 1,024 bytes";
const REPEATED: &str = "each value once";
const FIELD_NAME: &str = "a name: letters, digits and !#$%&'*+-.^_`|~";
const KEY_FIELD: &str = "a field that is no secret; chosen cookies by `cookies`";
const NO_KEY_FIELD: &str = "a field that tells representations apart: not the host, nor what is of \
                            one connection, one range, one condition or one request";
const PATTERN: &str = "visible ASCII, `*` for any characters";
const ABSENT_ALONE: &str = "value or absent, not both";
const STATUS: &str = "a status from 200 to 599 but 206, 304, 412 and 416, or 2xx to 5xx";
const SECONDS: &str = "seconds, at most 2,147,483,648";
const LIFETIME: &str = "at least one of fresh_s, status_fresh_s, stale_while_revalidate_s and \
                        stale_if_error_s";
const KEEP_OR_DROP: &str = "keep or drop, not both";

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).expect(json)
    }

    #[test]
    fn a_status_wins_over_its_class_and_both_over_the_rest() {
        let rule = rule(
            r#"{"name": "a", "lifetime": {"fresh_s": 60,
            "status_fresh_s": {"404": 5, "4xx": 1, "203": 2}}}"#,
        );
        let lifetime = rule.lifetime.expect("there");
        let found = [200, 203, 301, 404, 410, 302, 500].map(|status| lifetime.fresh_s(status));
        assert_eq!(found, [Some(60), Some(2), Some(60), Some(5), Some(1), None, None]);
    }

    #[test]
    fn every_fault_is_named_with_its_place() {
        for (json, expected) in [
            (r#"{"name": "A b", "policy": "pass"}"#, "/name name"),
            (r#"{"name": "a"}"#, " required"),
            (r#"{"name": "a", "policy": "stream"}"#, "/policy policy"),
            (r#"{"name": "a", "policy": "pass", "key": {}}"#, "/policy unused"),
            (r#"{"name": "a", "lifetime": {}}"#, "/lifetime required"),
            (
                r#"{"name": "a", "policy": "pass", "match": {"hosts": ["A"]}}"#,
                "/match/hosts/0 pattern",
            ),
            (
                r#"{"name": "a", "policy": "pass", "match": {"paths": ["*", "a"]}}"#,
                "/match/paths/1 pattern",
            ),
            (
                r#"{"name": "a", "policy": "pass", "match": {"paths": ["/a?b"]}}"#,
                "/match/paths/0 pattern",
            ),
            (
                r#"{"name": "a", "policy": "pass", "match": {"fields": [{"name": "a b"}]}}"#,
                "/match/fields/0/name field",
            ),
            (
                r#"{"name": "a", "policy": "pass",
                "match": {"fields": [{"name": "a", "value": "b", "absent": true}]}}"#,
                "/match/fields/0/absent unused",
            ),
            (
                r#"{"name": "a", "lifetime": {"status_fresh_s": {"206": 1}}}"#,
                "/lifetime/status_fresh_s/206 status",
            ),
            (
                r#"{"name": "a", "lifetime": {"status_fresh_s": {"7xx": 1}}}"#,
                "/lifetime/status_fresh_s/7xx status",
            ),
            (r#"{"name": "a", "lifetime": {"fresh_s": 9999999999}}"#, "/lifetime/fresh_s number"),
            (
                r#"{"name": "a", "key": {"query": {"keep": ["v"], "drop": ["w"]}}}"#,
                "/key/query unused",
            ),
            (
                r#"{"name": "a", "key": {"query": {"drop": ["v", "v"]}}}"#,
                "/key/query/drop/1 repeated",
            ),
            (
                r#"{"name": "a", "policy": "pass", "match": {"hosts": ["a:80"]}}"#,
                "/match/hosts/0 pattern",
            ),
            (
                r#"{"name": "a", "policy": "pass", "match": {"hosts": ["a", "*:8*"]}}"#,
                "/match/hosts/1 pattern",
            ),
            (r#"{"name": "a", "key": {"fields": ["Cookie"]}}"#, "/key/fields/0 field"),
            (r#"{"name": "a", "key": {"fields": ["X", "Range"]}}"#, "/key/fields/1 field"),
            (r#"{"name": "a", "key": {"fields": ["connection"]}}"#, "/key/fields/0 field"),
            (r#"{"name": "a", "key": {"fields": ["Host"]}}"#, "/key/fields/0 field"),
            (r#"{"name": "a", "key": {"cookies": ["a=b"]}}"#, "/key/cookies/0 pattern"),
        ] {
            let named: Vec<_> =
                rule(json).faults().iter().map(|it| format!("{} {}", it.at, it.code)).collect();
            assert_eq!(named, [expected], "{json}");
        }
    }

    #[test]
    fn a_list_that_is_given_and_empty_is_refused_where_nothing_said_means_any() {
        for list in ["hosts", "paths", "methods", "fields"] {
            let json = format!(r#"{{"name": "a", "policy": "pass", "match": {{"{list}": []}}}}"#);
            let error = serde_json::from_str::<Rule>(&json).expect_err("refused").to_string();
            assert!(error.contains(FILLED), "{error}");
        }
        let none = rule(r#"{"name": "a", "key": {"query": {"keep": []}}}"#);
        assert!(none.faults().is_empty(), "of a query none may be kept");
    }

    #[test]
    fn an_address_has_colons_in_its_brackets_only() {
        assert!(is_host_pattern("[2001:db8::1]") && is_host_pattern("*.b.example"));
        assert!(!is_host_pattern("[::1]:80") && !is_host_pattern("a/b") && !is_host_pattern("A"));
    }

    #[test]
    fn a_list_that_is_too_long_is_refused() {
        let mut rule = rule(r#"{"name": "a", "policy": "pass"}"#);
        rule.matching.paths = (0..=limits::RULE_LIST_MAX).map(|nth| format!("/{nth}")).collect();
        assert_eq!(rule.faults()[0].code, "count");
        rule.matching.paths = vec![format!("/{}", "a".repeat(limits::RULE_PATTERN_BYTES_MAX))];
        assert_eq!(rule.faults()[0].code, "length");
    }
}
