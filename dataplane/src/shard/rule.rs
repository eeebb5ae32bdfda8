//! The rules of a site as a shard uses them: which one a request is for, and the cache key that it
//! makes.
//!
//! ```text
//!   request ─▶ first rule that matches ─┬─ pass
//!                                       └─ cache: target, addition to the key, lifetime
//! ```
//! What the origin of a cached request is asked for is what stands in the key: a parameter that is
//! dropped from the key is dropped from the request, so that nobody can make the origin answer
//! others with it. A rule can say otherwise, by name. Values of fields and cookies stand in the key
//! on lines of their own, which no value can contain.
//!
//! Leaves to others: what a rule may say (`proto::feed::rule`), what its lifetime means (`cache`).

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use proto::{
    feed::{
        record::{Purge, Scope},
        rule::{KeyRule, LifetimeRule, Match, QueryRule, Rule},
        site::{Policy, Site},
    },
    field::name::Known,
    http1::head::Fields,
};

use crate::limits;

/// Of one site, in their order; cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Rules(Rc<[SiteRule]>);

/// One rule.
#[derive(Debug)]
pub struct SiteRule {
    /// What it is called.
    pub name: Rc<str>,
    /// Never look up, never store.
    pub is_pass: bool,
    /// How long answers are fresh.
    pub lifetime: Option<Arc<LifetimeRule>>,
    /// What takes part in the cache key.
    pub key: Option<KeyRule>,
    hosts: Box<[Pattern]>,
    paths: Box<[Pattern]>,
    methods: Box<[Box<str>]>,
    fields: Box<[FieldRule]>,
}

/// What must be true of a field.
#[derive(Debug)]
struct FieldRule {
    name: Box<str>,
    value: Pattern,
    absent: bool,
}

/// Text in which `*` stands for any characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// This one.
    Exact(Box<str>),
    /// All that begin so.
    Prefix(Box<str>),
    /// All that end so.
    Suffix(Box<str>),
    /// Beginning, ending, and what must stand between them, in this order.
    Parts(Box<str>, Box<str>, Box<[Box<str>]>),
}

/// What of a request rules are about.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// Lower case, with the port unless it is 80.
    pub host: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Name of the method.
    pub method: &'a str,
    /// Its fields.
    pub fields: &'a Fields<'a>,
}

/// Why a key cannot be made: what would be added to it is longer than allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong;

impl Rules {
    /// Those of a site.
    pub fn of(site: &Site) -> Self {
        Self(site.rules.iter().map(SiteRule::new).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first that matches.
    pub fn find(&self, about: About<'_>) -> Option<&SiteRule> {
        let path = path_of(about.target);
        let host = about.host.rsplit_once(':').map_or(about.host, |(host, port)| {
            if port.bytes().all(|b| b.is_ascii_digit()) { host } else { about.host }
        });
        self.0.iter().find(|rule| {
            any(&rule.paths, path)
                && any(&rule.hosts, host)
                && (rule.methods.is_empty() || rule.methods.iter().any(|it| **it == *about.method))
                && rule.fields.iter().all(|field| field.fits(about.fields))
        })
    }

    /// Every target that requests for this one may be stored under: as it is, and as any rule for
    /// its path writes it. For purges and invalidation, which know no fields.
    pub fn targets(&self, target: &str) -> Vec<String> {
        let mut targets = vec![target.to_owned()];
        let for_path = self.0.iter().filter(|rule| any(&rule.paths, path_of(target)));
        for query in for_path.filter_map(|rule| rule.key.as_ref()?.query.as_ref()) {
            let mut written = String::new();
            write_target(query, target, &mut written);
            if !targets.contains(&written) {
                targets.push(written);
            }
        }
        targets
    }

    /// Whether what is stored for a target may differ by more than its host: a purge of the whole
    /// URL finds all of it.
    pub fn adds(&self) -> bool {
        let adds = |key: &KeyRule| !(key.fields.is_empty() && key.cookies.is_empty());
        self.0.iter().filter_map(|rule| rule.key.as_ref()).any(adds)
    }
}

impl SiteRule {
    fn new(rule: &Rule) -> Self {
        let Rule { name, matching, policy, lifetime, key } = rule;
        let Match { hosts, paths, methods, fields } = matching;
        let patterns = |list: &[String]| list.iter().map(|text| Pattern::new(text)).collect();
        Self {
            name: name.as_str().into(),
            is_pass: *policy == Some(Policy::Pass),
            lifetime: lifetime.clone().map(Arc::new),
            key: key.clone(),
            hosts: patterns(hosts),
            paths: patterns(paths),
            methods: methods.iter().map(|name| name.as_str().into()).collect(),
            fields: fields
                .iter()
                .map(|field| FieldRule {
                    name: field.name.as_str().into(),
                    value: Pattern::new(field.value.as_deref().unwrap_or("*")),
                    absent: field.absent,
                })
                .collect(),
        }
    }

    /// Writes the target of a request's key, and what is added to the key.
    ///
    /// # Errors
    /// [`TooLong`]: the values of the fields and cookies are.
    pub fn write_key(
        &self,
        about: About<'_>,
        target: &mut String,
        added: &mut Vec<u8>,
    ) -> Result<(), TooLong> {
        target.clear();
        added.clear();
        let Some(key) = &self.key else {
            target.push_str(about.target);
            return Ok(());
        };
        match &key.query {
            Some(query) => write_target(query, about.target, target),
            None => target.push_str(about.target),
        }
        for name in &key.fields {
            added.push(b'\n');
            added.extend(name.bytes().map(|b| b.to_ascii_lowercase()));
            // Several lines are one list (RFC 9110 §5.3); no line says another thing than an empty
            // one.
            for (nth, value) in about.fields.get_all(name).enumerate() {
                added.extend_from_slice(if nth == 0 { b": " } else { b", " });
                added.extend_from_slice(value);
            }
        }
        for name in &key.cookies {
            added.extend_from_slice(b"\ncookie ");
            added.extend_from_slice(name.as_bytes());
            // No value has a semicolon.
            for (nth, value) in cookies(about.fields, name).enumerate() {
                added.push(if nth == 0 { b'=' } else { b';' });
                added.extend_from_slice(value);
            }
        }
        if added.len() > limits::KEY_ADDED_BYTES_MAX { Err(TooLong) } else { Ok(()) }
    }

    /// Whether the origin is asked for another target than stands in the key.
    pub fn forwards_dropped(&self) -> bool {
        let query = self.key.as_ref().and_then(|key| key.query.as_ref());
        query.is_some_and(|query| query.forward_dropped)
    }
}

impl FieldRule {
    fn fits(&self, fields: &Fields<'_>) -> bool {
        let mut values = fields.get_all(&self.name);
        let fits = values.any(|value| self.value.fits_bytes(value));
        fits != self.absent
    }
}

impl Pattern {
    /// Of its text.
    pub fn new(text: &str) -> Self {
        let Some((start, rest)) = text.split_once('*') else { return Self::Exact(text.into()) };
        match (start, rest.rsplit_once('*')) {
            (_, None) if rest.is_empty() => Self::Prefix(start.into()),
            ("", None) => Self::Suffix(rest.into()),
            (_, None) => Self::Parts(start.into(), rest.into(), [].into()),
            (_, Some((middle, end))) => {
                let parts = middle.split('*').filter(|part| !part.is_empty()).map(Into::into);
                Self::Parts(start.into(), end.into(), parts.collect())
            }
        }
    }

    /// Whether it stands for `text`.
    pub fn fits(&self, text: &str) -> bool {
        self.fits_bytes(text.as_bytes())
    }

    /// The same for what may be no text. Takes time linear in it for each part.
    pub fn fits_bytes(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(all) => all.as_bytes() == text,
            Self::Prefix(start) => text.starts_with(start.as_bytes()),
            Self::Suffix(end) => text.ends_with(end.as_bytes()),
            Self::Parts(start, end, parts) => {
                let Some(rest) = text.strip_prefix(start.as_bytes()) else { return false };
                let Some(mut rest) = rest.strip_suffix(end.as_bytes()) else { return false };
                parts.iter().all(|part| match position(rest, part.as_bytes()) {
                    Some(at) => {
                        rest = &rest[at + part.len()..];
                        true
                    }
                    None => false,
                })
            }
        }
    }
}

fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Whether one of them fits, or there are none.
fn any(patterns: &[Pattern], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(text))
}

fn path_of(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// Path, and of the query what takes part.
fn write_target(rule: &QueryRule, target: &str, to: &mut String) {
    let Some((path, query)) = target.split_once('?') else { return to.push_str(target) };
    to.push_str(path);
    let fits = |patterns: &[String], name: &str| {
        patterns.iter().any(|pattern| Pattern::new(pattern).fits(name))
    };
    let name_of = |pair: &str| pair.split_once('=').map_or(pair.len(), |(name, _)| name.len());
    let takes_part = |pair: &&str| {
        let name = &pair[..name_of(pair)];
        match &rule.keep {
            Some(keep) => fits(keep, name),
            None => !fits(&rule.drop, name),
        }
    };
    let mut pairs: Vec<&str> = query.split('&').filter(takes_part).collect();
    if rule.sort {
        // Stable: several of one name may mean another thing in another order.
        pairs.sort_by_key(|pair| &pair[..name_of(pair)]);
    }
    for (nth, pair) in pairs.iter().enumerate() {
        to.push(if nth == 0 { '?' } else { '&' });
        to.push_str(pair);
    }
}

/// The values of a cookie, all of them: which one an origin takes is not ours to know.
fn cookies<'a>(fields: &'a Fields<'a>, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = fields.known_all(Known::Cookie).flat_map(|line| line.split(|&b| b == b';'));
    pairs.filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|&b| b == b'=')?;
        (pair[..at].trim_ascii_end() == name.as_bytes()).then(|| pair[at + 1..].trim_ascii_start())
    })
}

/// A purge, once for every form of its URL.
pub fn forms_of(rules: &BTreeMap<String, Rules>, purge: Purge) -> Vec<Purge> {
    let Purge { position, scope, soft } = purge;
    let scopes = match scope {
        Scope::Url { site, target } => match rules.get(&site) {
            Some(rules) => {
                let targets = rules.targets(&target).into_iter();
                targets.map(|target| Scope::Url { site: site.clone(), target }).collect()
            }
            None => vec![Scope::Url { site, target }],
        },
        scope => vec![scope],
    };
    scopes.into_iter().map(|scope| Purge { position, scope, soft }).collect()
}

#[cfg(test)]
mod tests {
    use proto::http1::head::{FieldSpace, parse_request};

    use super::*;

    fn check_pattern(pattern: &str, text: &str, expected: bool) {
        assert_eq!(Pattern::new(pattern).fits(text), expected, "{pattern} {text}");
    }

    #[test]
    fn a_star_stands_for_any_characters_and_all_else_for_itself() {
        for (pattern, text, expected) in [
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a/*", "/a/", true),
            ("/a/*", "/a/b/c", true),
            ("/a/*", "/a", false),
            ("*.js", "/x/y.js", true),
            ("*.js", "/x/y.jsx", false),
            ("*", "", true),
            ("/a/*/b", "/a/x/y/b", true),
            ("/a/*/b", "/a/b", false),
            ("/a*a", "/a", false),
            ("/a*b*c", "/a-b-c", true),
            ("/a*b*c", "/a-c-b", false),
            ("**x**", "/x", true),
            ("*a*a*", "/a", false),
            ("*a*a*", "/aa", true),
        ] {
            check_pattern(pattern, text, expected);
        }
    }

    /// The rule that a request is for, and the key it makes.
    fn found(rules: &str, head: &str) -> Option<(String, String, String)> {
        let rules: Vec<Rule> = serde_json::from_str(rules).expect(rules);
        assert!(rules.iter().all(|rule| rule.faults().is_empty()), "{rules:?}");
        let rules = Rules(rules.iter().map(SiteRule::new).collect());
        let mut space = FieldSpace::new();
        let (head, _) = parse_request(head.as_bytes(), &mut space).expect("read").expect("whole");
        let about = About {
            host: head.authority.host,
            target: head.target.path_and_query(),
            method: head.method.as_str(),
            fields: &head.fields,
        };
        let rule = rules.find(about)?;
        let (mut target, mut added) = (String::new(), Vec::new());
        rule.write_key(about, &mut target, &mut added).expect("short");
        Some((rule.name.to_string(), target, String::from_utf8(added).expect("text")))
    }

    fn get(target: &str, fields: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
    }

    #[test]
    fn the_first_rule_that_matches_decides_alone() {
        let rules = r#"[
            {"name": "hosts", "match": {"hosts": ["*.b.example"]}, "policy": "pass"},
            {"name": "session", "match": {"fields": [{"name": "Cookie", "value": "*sid=*"}]},
             "policy": "pass"},
            {"name": "post", "match": {"methods": ["POST", "PUT"]}, "policy": "pass"},
            {"name": "plain", "match": {"paths": ["/p/*"],
             "fields": [{"name": "X-A", "absent": true}]}, "policy": "pass"},
            {"name": "rest", "match": {"paths": ["/p/*", "*.js"]}, "policy": "cache"}]"#;
        let name = |head: &str| found(rules, head).map(|(name, ..)| name);
        for (head, expected) in [
            (get("/p/x", ""), Some("plain")),
            (get("/p/x?y", "x-a: 1\r\n"), Some("rest")),
            (get("/q", ""), None),
            (get("/q.js?x", ""), Some("rest")),
            (get("/q", "Cookie: a=1; sid=7\r\n"), Some("session")),
            (get("/q", "Cookie: a=1\r\nCookie: sid=7\r\n"), Some("session")),
            (get("/p/x", "").replace("GET", "POST"), Some("post")),
            (get("/p/x", "").replace("a.example", "x.b.example"), Some("hosts")),
            (get("/p/x", "").replace("a.example", "b.example"), Some("plain")),
        ] {
            assert_eq!(name(&head).as_deref(), expected, "{head}");
        }
    }

    fn check_target(query: &str, target: &str, expected: &str) {
        let rules = format!(r#"[{{"name": "a", "key": {{"query": {query}}}}}]"#);
        let (_, written, _) = found(&rules, &get(target, "")).expect("for all");
        assert_eq!(written, expected, "{query} {target}");
    }

    #[test]
    fn a_query_is_kept_dropped_or_sorted_by_name() {
        check_target(r#"{"keep": ["v", "p*"]}"#, "/a?utm=1&v=2&px=3&V=4", "/a?v=2&px=3");
        check_target(r#"{"keep": []}"#, "/a?b=1", "/a");
        check_target(r#"{"drop": ["utm_*", "gclid"]}"#, "/a?utm_x=1&b&gclid=2&c=3", "/a?b&c=3");
        check_target(r#"{"drop": ["x"]}"#, "/a?x=1", "/a");
        check_target(r#"{"drop": ["x"]}"#, "/a", "/a");
        // What is written otherwise is another name: kept out where names are kept in.
        check_target(r#"{"keep": ["v"]}"#, "/a?%76=2", "/a");
        check_target(r#"{"drop": ["v"]}"#, "/a?%76=2", "/a?%76=2");
        check_target(r#"{"sort": true}"#, "/a?c=1&a=2&b=3&a=1", "/a?a=2&a=1&b=3&c=1");
        check_target(r#"{"sort": true, "drop": ["b"]}"#, "/a?b=2&a&a-b=1&=3", "/a?=3&a&a-b=1");
    }

    #[test]
    fn fields_and_cookies_in_the_key_cannot_be_taken_for_each_other() {
        let rules = r#"[{"name": "a", "key": {"fields": ["X-A", "X-B"], "cookies": ["c", "d"]}}]"#;
        let added = |fields: &str| found(rules, &get("/", fields)).expect("for all").2;
        assert_eq!(added(""), "\nx-a\nx-b\ncookie c\ncookie d");
        let all = [
            "x-a: 1\r\n",
            "x-b: 1\r\n",
            "x-a: 1, 2\r\n",
            "x-a:\r\n",
            "Cookie: c=1\r\n",
            "Cookie: d=1\r\n",
            "Cookie: c=1; c=2\r\n",
            "Cookie: c=1=2\r\n",
            "Cookie: c=\r\n",
            "x-a: 1: 2\r\n",
        ];
        let mut seen: Vec<String> = all.iter().map(|fields| added(fields)).collect();
        assert_eq!(seen[4], "\nx-a\nx-b\ncookie c=1\ncookie d");
        assert_eq!(added("x-a: 1\r\nX-A: 2\r\n"), seen[2], "several lines are one list");
        assert_eq!(added("Cookie: z=1; c=1;e=2\r\n"), seen[4]);
        seen.push(added(""));
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all.len() + 1);
    }

    #[test]
    fn what_is_too_long_for_a_key_is_told() {
        let rule: Rule =
            serde_json::from_str(r#"{"name": "a", "key": {"fields": ["X"]}}"#).expect("a rule");
        let text = get("/", &format!("X: {}\r\n", "x".repeat(limits::KEY_ADDED_BYTES_MAX)));
        let mut space = FieldSpace::new();
        let (head, _) = parse_request(text.as_bytes(), &mut space).expect("read").expect("whole");
        let about = About { host: "a", target: "/", method: "GET", fields: &head.fields };
        let written = SiteRule::new(&rule).write_key(about, &mut String::new(), &mut Vec::new());
        assert_eq!(written, Err(TooLong));
    }

    #[test]
    fn a_url_is_purged_in_every_form_that_it_may_be_stored_in() {
        let rules: Vec<Rule> = serde_json::from_str(
            r#"[{"name": "a", "match": {"paths": ["/a*"]}, "key": {"query": {"keep": []}}},
                {"name": "b", "match": {"paths": ["/b"]}, "key": {"query": {"drop": ["x"]}}},
                {"name": "c", "key": {"query": {"sort": true}, "fields": ["X"]}}]"#,
        )
        .expect("rules");
        let rules = Rules(rules.iter().map(SiteRule::new).collect());
        assert_eq!(rules.targets("/a?z=1&x=2"), ["/a?z=1&x=2", "/a", "/a?x=2&z=1"]);
        assert_eq!(rules.targets("/c"), ["/c"]);
        assert!(rules.adds());
    }
}
