//! A route of live streams: which topics may be asked for there, and how they are told.
//!
//! Streams keep the rules they began with. When a site's routes change, those whose rules are gone
//! are ended with a `retry:`, and come back under the new ones.

use std::rc::Rc;

use proto::feed::site::{Placement, Policy, Site, StreamRules, TokenKey, is_topic_name};

use crate::limits;

/// A route of live streams as the shard uses it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StreamRoute {
    /// The site's id; empty for the streams of pages.
    pub site_id: Box<str>,
    /// Its rules.
    pub rules: StreamRules,
    /// What tokens are signed with; empty where none is needed.
    pub token_keys: Vec<TokenKey>,
}

/// Why a request names no topics that it can have. Permanent: the client must ask for others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoTopics {
    /// It names none, and there is not just one.
    Unnamed,
    /// What it names cannot be a topic, or is none of this route.
    NotHere,
    /// It names more than [`limits::TOPICS_A_STREAM_MAX`].
    TooMany,
}

impl StreamRoute {
    /// The route of every page's stream.
    pub fn of_pages() -> Rc<Self> {
        Rc::default()
    }

    /// The same, with the edge's word on where they are to be.
    pub fn of_pages_placed(placement: Placement) -> Self {
        let rules = StreamRules { placement, ..StreamRules::default() };
        Self { rules, ..Self::default() }
    }

    /// Those of a site, each with its prefix.
    pub fn of_site(site: &Site) -> Vec<(String, Rc<Self>)> {
        let streams = site.routes.iter().filter(|route| route.policy == Policy::Stream);
        let with_rules = streams.filter_map(|route| Some((route, route.stream.as_ref()?)));
        with_rules
            .map(|(route, rules)| {
                let token_keys = if rules.private { site.token_keys.clone() } else { Vec::new() };
                let site_id = site.id.as_str().into();
                (route.prefix.clone(), Rc::new(Self { site_id, rules: rules.clone(), token_keys }))
            })
            .collect()
    }

    /// The topics that a request wants, sorted, each once. `rest`: the path behind the prefix;
    /// `named`: the values of `?topic=`.
    pub fn topics(&self, rest: &str, named: Vec<String>) -> Result<Vec<String>, NoTopics> {
        let mut topics = match (named.is_empty(), rest) {
            (false, _) => named,
            (true, "") => vec![self.rules.only_topic().ok_or(NoTopics::Unnamed)?.to_owned()],
            (true, rest) => vec![rest.to_owned()],
        };
        topics.sort_unstable();
        topics.dedup();
        if topics.len() > limits::TOPICS_A_STREAM_MAX {
            return Err(NoTopics::TooMany);
        }
        let here = |topic: &String| is_topic_name(topic) && self.rules.allows(topic);
        if topics.iter().all(here) { Ok(topics) } else { Err(NoTopics::NotHere) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(patterns: &[&str], rest: &str, named: &[&str], expected: Result<&[&str], NoTopics>) {
        let topics = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let rules = StreamRules { topics, ..StreamRules::default() };
        let route = StreamRoute { rules, ..StreamRoute::default() };
        let named = named.iter().map(|&name| name.to_owned()).collect();
        let expected = expected.map(|topics| topics.iter().map(|&t| t.to_owned()).collect());
        assert_eq!(route.topics(rest, named), expected, "{patterns:?} {rest}");
    }

    #[test]
    fn topics_are_named_by_the_path_or_the_query_or_are_the_only_one() {
        check(&["orders/*"], "orders/eu", &[], Ok(&["orders/eu"]));
        check(
            &["orders/*", "news"],
            "",
            &["news", "orders/eu", "news"],
            Ok(&["news", "orders/eu"]),
        );
        check(&["news"], "", &[], Ok(&["news"]));
        check(&["orders/*"], "", &[], Err(NoTopics::Unnamed));
        check(&["a", "b"], "", &[], Err(NoTopics::Unnamed));
    }

    #[test]
    fn a_topic_that_the_route_does_not_have_is_not_there() {
        check(&["orders/*"], "prices", &[], Err(NoTopics::NotHere));
        check(&["*"], "page/7", &[], Err(NoTopics::NotHere));
        check(&["*"], "a b", &[], Err(NoTopics::NotHere));
        check(&["*"], "", &["a", "b c"], Err(NoTopics::NotHere));
        let many: Vec<String> = (0..17).map(|nth| format!("t{nth}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check(&["*"], "", &many, Err(NoTopics::TooMany));
    }

    #[test]
    fn keys_for_tokens_belong_to_private_routes_only() {
        let site: Site = serde_json::from_str(
            r#"{"id": "s", "name": "s", "hosts": [], "origins": [], "routes": [
                {"prefix": "/a/", "policy": "stream", "stream": {"topics": ["*"]}},
                {"prefix": "/b/", "policy": "stream", "stream": {"topics": ["*"], "private": true}},
                {"prefix": "/c/", "policy": "pass"}],
                "token_keys": [{"id": "k", "alg": "HS256", "key": "x"}]}"#,
        )
        .expect("a site");
        let routes = StreamRoute::of_site(&site);
        let counts: Vec<_> = routes.iter().map(|(p, r)| (&**p, r.token_keys.len())).collect();
        assert_eq!(counts, [("/a/", 0), ("/b/", 1)]);
    }
}
