//! The method `PURGE`: who has a key of the site purges from where it is served.
//!
//! ```text
//!   key? ─no─▶ 403 (405 where the site has none)
//!     │yes
//!   this edge, at once ─┬─ no control ─▶ 200, or 202 while a large one is under way
//!                       └─ control orders it of all edges ─▶ its receipt, 202
//!                                         └─ out of reach ─▶ 503: only this edge
//! ```
//! Nothing of such a request ever reaches an origin. Leaves to others: what a scope reaches
//! (`cache`), the order on all edges and its receipt (control), when a purge counts as applied
//! (`feed`).

use std::rc::Rc;

use cache::Forward;
use proto::{
    feed::record::{Purge, Scope},
    http1::{
        encode,
        framing::BodyFraming,
        head::{Fields, Method},
        server::Request,
    },
};
use serde_json::{Value, json};

use super::{
    Edge,
    answer::{Answer, State},
    conn::Exchange,
    fetch::Plan,
    kept_head::keep_head,
    observe::Metric,
    request::{Asked, AskedRef, CacheLabel, Turn},
    respond::{Own, Writer},
    route::SiteRoute,
    session::request_head,
};
use crate::{limits, seam::Now};

/// What a `PURGE` is about, as its fields say.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Order {
    scope: OrderScope,
    soft: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum OrderScope {
    Url(String),
    Prefix(String),
    Keys(Vec<String>),
    All,
}

impl Order {
    /// Of a request for this target; what was expected if it cannot be understood.
    fn of(target: &str, fields: &Fields<'_>) -> Result<Self, &'static str> {
        let (mut soft, mut prefix, mut all) = (false, false, false);
        for word in words(fields, HOW_FIELD) {
            match word {
                b"soft" => soft = true,
                b"prefix" => prefix = true,
                b"all" => all = true,
                _ => return Err("Pharos-Purge: soft, prefix, all."),
            }
        }
        // Who names keys and gives none has made a mistake, and does not mean the URL.
        for (name, said) in EMPTY_FIELDS {
            if fields.get_all(name).next().is_some() && words(fields, name).next().is_none() {
                return Err(said);
            }
        }
        let mut keys = Vec::new();
        for key in KEY_FIELDS.iter().flat_map(|name| words(fields, name)) {
            match std::str::from_utf8(key).ok().filter(|_| cache::is_surrogate_key(key)) {
                Some(key) => keys.push(key.to_owned()),
                None => return Err("Surrogate keys are visible ASCII."),
            }
        }
        if keys.len() > limits::PURGE_REQUEST_KEYS_MAX {
            return Err("At most 64 surrogate keys in one request.");
        }
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let scope = match (keys.is_empty(), prefix, all) {
            (true, false, false) => OrderScope::Url(target.to_owned()),
            (true, true, false) => OrderScope::Prefix(path.to_owned()),
            (true, false, true) => OrderScope::All,
            (false, false, false) => OrderScope::Keys(keys),
            _ => return Err("One of: surrogate keys, Pharos-Purge: prefix, Pharos-Purge: all."),
        };
        Ok(Self { scope, soft })
    }

    /// For this edge.
    fn purges(&self, site: &SiteRoute) -> Vec<Purge> {
        let id = || site.id.to_string();
        let scopes: Vec<Scope> = match &self.scope {
            OrderScope::Url(target) => {
                let targets = site.rules.targets(target).into_iter();
                targets.map(|target| Scope::Url { site: id(), target }).collect()
            }
            OrderScope::Prefix(prefix) => {
                vec![Scope::Prefix { site: id(), prefix: prefix.clone() }]
            }
            OrderScope::Keys(keys) => {
                keys.iter().map(|key| Scope::Key { site: Some(id()), key: key.clone() }).collect()
            }
            OrderScope::All => vec![Scope::Site { site: id() }],
        };
        let purge = |scope| Purge { position: 0, scope, soft: self.soft };
        scopes.into_iter().map(purge).collect()
    }

    /// For control.
    fn to_json(&self, site: &SiteRoute) -> Value {
        let mut body = json!({"site": &*site.id, "soft": self.soft});
        let (name, value) = match &self.scope {
            OrderScope::Url(target) => ("url", json!(target)),
            OrderScope::Prefix(prefix) => ("prefix", json!(prefix)),
            OrderScope::Keys(keys) => ("keys", json!(keys)),
            OrderScope::All => ("all", json!(true)),
        };
        body[name] = value;
        body
    }
}

impl Edge {
    /// Answers a `PURGE`.
    pub(super) fn purge_request(
        &mut self,
        now: Now,
        turn: Turn<'_>,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        site: &Rc<SiteRoute>,
        writer: &mut Writer,
    ) -> Exchange {
        if site.purge_keys.is_empty() {
            let fields = "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n";
            let own = Own { fields, ..Own::text(405, "PURGE is not configured for this site.") };
            return self.own(now, &own, asked, writer);
        }
        let given = request.head.fields.get(PURGE_KEY_FIELD);
        if !given.is_some_and(|given| site.purge_keys.iter().any(|key| key.is(given))) {
            self.observe.count(Metric::PurgeRefused);
            let text = "PURGE needs a key of this site in Pharos-Purge-Key.";
            return self.own(now, &Own::text(403, text), asked, writer);
        }
        let target = request.head.target.path_and_query();
        let order = match Order::of(target, &request.head.fields) {
            Ok(order) => order,
            Err(expected) => return self.own(now, &Own::text(400, expected), asked, writer),
        };
        self.observe.count(Metric::PurgeOrdered);
        let (is_complete, purged_count) = self.purge_here(&order.purges(site));
        if self.control.is_some() {
            return self.purge_everywhere(now, turn, request, asked, &order.to_json(site));
        }
        let text = json!({
            "edges": "this edge alone: it has no control",
            "complete": is_complete,
            "purged": purged_count,
            "soft": order.soft,
        });
        let (status, text) = (if is_complete { 200 } else { 202 }, format!("{text}\n"));
        let own = Own { content_type: "application/json", ..Own::text(status, &text) };
        self.own(now, &own, asked, writer)
    }

    /// Purges from the cache of this process, as far as one turn goes; the rest follows. Whether
    /// that is all, and how many entries it was so far.
    fn purge_here(&mut self, purges: &[Purge]) -> (bool, u64) {
        let (mut is_complete, mut purged_count) = (true, 0);
        for purge in purges {
            let mut cursor = self.cache.purge(purge);
            let budget = limits::GROUP_CUT_BUDGET / purges.len().max(1);
            let progress = cursor.step(&self.cache, budget.max(1));
            purged_count += progress.purged_count;
            if !progress.done {
                is_complete = false;
                self.outdated.push_back(cursor);
                self.out.yield_turn();
            }
        }
        (is_complete, purged_count)
    }

    /// Asks control to order it of all edges; its answer is passed on.
    fn purge_everywhere(
        &mut self,
        now: Now,
        turn: Turn<'_>,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        order: &Value,
    ) -> Exchange {
        let (Some(control), Some(link)) = (self.control.clone(), &self.settings.control) else {
            return Exchange::None;
        };
        let mut link = link.clone();
        let newest = self.settings.live.newest().and_then(|live| live.authorization.clone());
        link.authorization = newest.unwrap_or(link.authorization);
        let body = format!("{order}");
        let mut head = request_head(Method::Post, "/v1/purges", &link, &mut self.out);
        head.extend_from_slice(b"Content-Type: application/json\r\n");
        encode::content_length(&mut head, body.len() as u64);
        encode::end(&mut head);
        head.extend_from_slice(body.as_bytes());
        let host = request.head.authority.host;
        self.explain_opens(None, [host, request.head.target.path_and_query()], 0);
        // Twice is once: it may be repeated on another connection.
        let plan = Plan {
            origins: Rc::clone(&control.origins),
            head,
            kept: Rc::from([]),
            body: BodyFraming::None,
            lease: None,
            reader: Some(turn.scene.at),
            label: CacheLabel::Pass,
            forward: Forward::Method,
            to_head: false,
            idempotent: true,
            invalidates: None,
            story: self.telling().story(),
        };
        let fetch = self.start_fetch(now, plan);
        let state = State::Fetch { fetch, takes_body: false };
        let asked = Asked { telling: self.telling(), ..asked.keep() };
        let kept = keep_head(&request.head);
        Exchange::Answer(Box::new(Answer { asked, kept, waits: 0, state }))
    }
}

/// The answer when control could not be asked.
pub(super) fn only_here() -> Own<'static> {
    let text = "Purged from this edge alone: control, which tells the others, cannot be reached. \
                Send it again.";
    Own { fields: "Retry-After: 5\r\n", ..Own::text(503, text) }
}

/// Words of a field, between commas and white space.
fn words<'a>(fields: &Fields<'a>, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let values: Vec<&'a [u8]> = fields.get_all(name).collect();
    values.into_iter().flat_map(cache::surrogate_words)
}

/// The method.
pub(super) const PURGE: &str = "PURGE";
/// The key of who purges. Never passed on.
pub const PURGE_KEY_FIELD: &str = "Pharos-Purge-Key";
/// How: `soft`, and what, if not the URL: `prefix`, `all`.
const HOW_FIELD: &str = "Pharos-Purge";
/// Where surrogate keys stand, as other caches' tools write them.
const KEY_FIELDS: [&str; 3] = ["Surrogate-Key", "xkey", "Cache-Tag"];
/// What is said where one of them is there and says nothing.
const EMPTY_FIELDS: [(&str, &str); 4] = [
    ("Surrogate-Key", "Surrogate-Key is empty: name surrogate keys, or leave it out."),
    ("xkey", "xkey is empty: name surrogate keys, or leave it out."),
    ("Cache-Tag", "Cache-Tag is empty: name surrogate keys, or leave it out."),
    (HOW_FIELD, "Pharos-Purge is empty: soft, prefix, all, or leave it out."),
];

#[cfg(test)]
mod tests {
    use proto::{
        feed::site::{PurgeKey, Site},
        http1::head::{FieldSpace, parse_request},
    };

    use super::*;
    use crate::shard::testing::{End, World, site};

    fn order(fields: &str) -> Result<Order, &'static str> {
        let text = format!("PURGE /a/b?c HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut space = FieldSpace::new();
        let (head, _) = parse_request(text.as_bytes(), &mut space).expect("read").expect("whole");
        Order::of(head.target.path_and_query(), &head.fields)
    }

    #[test]
    fn fields_say_what_is_purged_and_how() {
        let hard = |scope| Ok(Order { scope, soft: false });
        assert_eq!(order(""), hard(OrderScope::Url("/a/b?c".into())));
        assert_eq!(order("Pharos-Purge: prefix\r\n"), hard(OrderScope::Prefix("/a/b".into())));
        assert_eq!(order("Pharos-Purge: all\r\n"), hard(OrderScope::All));
        let keys = vec!["a".to_owned(), "b".into(), "c".into(), "d".into()];
        let fields = "Surrogate-Key: a b\r\nxkey: c\r\nCache-Tag: d\r\nPharos-Purge: soft\r\n";
        assert_eq!(order(fields), Ok(Order { scope: OrderScope::Keys(keys), soft: true }));
        for fields in [
            "Pharos-Purge: hard\r\n",
            "Pharos-Purge: prefix, all\r\n",
            "Pharos-Purge: all\r\nxkey: a\r\n",
            "xkey: \u{e4}\r\n",
            &format!("xkey: {}\r\n", "a ".repeat(65)),
        ] {
            assert!(order(fields).is_err(), "{fields}");
        }
    }

    #[test]
    fn a_field_that_is_there_and_empty_is_refused_by_its_name_and_purges_nothing() {
        for name in ["Surrogate-Key", "xkey", "Cache-Tag", "Pharos-Purge"] {
            for value in ["", " ", ",", " , "] {
                let said = order(&format!("{name}:{value}\r\n")).expect_err("refused");
                assert!(said.starts_with(&format!("{name} is empty")), "{said}");
            }
            let beside = format!("{name}:\r\nPharos-Purge: all\r\n");
            assert!(order(&beside).is_err() || name == "Pharos-Purge", "{beside}");
        }
    }

    /// The site with a key `foo`.
    fn with_key() -> Site {
        let sha256 = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae".into();
        let rules = r#"[{"name": "a", "key": {"query": {"keep": ["v"]}, "fields": ["X"]}}]"#;
        let rules = serde_json::from_str(rules).expect("rules");
        Site { purge_keys: vec![PurgeKey { id: "k".into(), sha256 }], rules, ..site() }
    }

    fn world() -> World {
        let mut world = World::new(2);
        let live = crate::shard::live::Live { sites: [with_key()].into(), ..world.live_now() };
        world.live.put(live);
        world.control(crate::seam::Control::Reload);
        world
    }

    fn purge(target: &str, fields: &str) -> String {
        format!("PURGE {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
    }

    const KEY: &str = "Pharos-Purge-Key: foo\r\n";

    fn ask(world: &mut World, client: End, request: &str) -> String {
        world.say(client, request);
        world.take(client)
    }

    /// Stores an answer for this target, with a surrogate key.
    fn store(world: &mut World, client: End, target: &str, fields: &str) {
        world.say(client, &format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"));
        let upstream = world.upstream();
        let fields = "Content-Length: 2\r\nCache-Control: max-age=900\r\nSurrogate-Key: k1";
        world.say(upstream, &format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok"));
        assert!(world.take(client).contains("X-Cache-Status: MISS"));
    }

    #[test]
    fn without_the_right_key_nothing_is_purged_and_nothing_reaches_the_origin() {
        let mut world = World::new(1);
        let client = world.connect(0);
        let answer = ask(&mut world, client, &purge("/x", KEY));
        assert!(answer.starts_with("HTTP/1.1 405 "), "not configured: {answer}");
        let mut world = self::world();
        let client = world.connect(0);
        for fields in ["", "Pharos-Purge-Key: fop\r\n", "Authorization: Bearer foo\r\n"] {
            let answer = ask(&mut world, client, &purge("/pass/x", fields));
            assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        }
        assert!(world.upstreams.is_empty());
        assert_eq!(world.metric(Metric::PurgeRefused), 3);
    }

    #[test]
    fn a_url_is_purged_on_every_shard_in_every_form() {
        let mut world = world();
        let (client, other) = (world.connect(0), world.connect(1));
        store(&mut world, client, "/x?v=1&w=2", "X: 1\r\n");
        let get = "GET /x?v=1 HTTP/1.1\r\nHost: a.example\r\nX: 1\r\n\r\n";
        assert!(ask(&mut world, other, get).contains("X-Cache-Status: HIT"));
        let answer = ask(&mut world, client, &purge("/x?v=1&w=9", KEY));
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"purged\":1"), "{answer}");
        assert!(answer.contains("this edge alone"), "{answer}");
        assert!(ask(&mut world, other, get).is_empty(), "asks the origin again");
    }

    #[test]
    fn surrogate_keys_are_purged_softly_if_so_asked() {
        let mut world = world();
        let client = world.connect(0);
        store(&mut world, client, "/x", "");
        let fields = format!("{KEY}xkey: k0 k1\r\nPharos-Purge: soft\r\n");
        let answer = ask(&mut world, client, &purge("/", &fields));
        assert!(answer.contains("\"purged\":1") && answer.contains("\"soft\":true"), "{answer}");
        world.connect = Err(std::io::ErrorKind::ConnectionRefused);
        let upstream = world.upstream();
        world.hang_up(upstream);
        let get = "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n";
        assert!(ask(&mut world, client, get).contains("X-Cache-Status: STALE"));
        let fields = format!("{KEY}Pharos-Purge: all\r\n");
        ask(&mut world, client, &purge("/", &fields));
        assert!(ask(&mut world, client, get).starts_with("HTTP/1.1 502 "));
    }

    #[test]
    fn surrogate_keys_are_split_where_they_are_stored_as_where_they_are_purged() {
        for (stored, purged) in [
            ("Surrogate-Key: k1, k9", "Surrogate-Key: k1"),
            ("Surrogate-Key: k1, k9", "xkey: k9"),
            ("xkey: a,b", "xkey: a,b"),
            ("xkey: a,b", "Cache-Tag: b"),
            ("Cache-Tag: a b, c", "Cache-Tag: a b"),
            ("Cache-Tag: a b, c", "Surrogate-Key: b"),
        ] {
            let mut world = world();
            let client = world.connect(0);
            world.say(client, "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n");
            let upstream = world.upstream();
            let fields = format!("Content-Length: 2\r\nCache-Control: max-age=900\r\n{stored}");
            world.say(upstream, &format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok"));
            assert!(world.take(client).contains("X-Cache-Status: MISS"));
            let answer = ask(&mut world, client, &purge("/", &format!("{KEY}{purged}\r\n")));
            assert!(answer.contains("\"purged\":1"), "{stored} {purged}: {answer}");
        }
    }

    #[test]
    fn with_control_it_is_ordered_of_all_edges_and_the_receipt_is_the_answer() {
        let mut world = World::unconfigured(1);
        world.configure(vec![with_key()], Vec::new());
        world.upstreams.clear();
        let client = world.connect(0);
        world.say(client, &purge("/x", &format!("{KEY}Surrogate-Key: a b\r\n")));
        let control = world.upstream();
        let asked = world.take(control);
        assert!(
            asked.starts_with("POST /v1/purges HTTP/1.1\r\nHost: 127.0.0.1:7400\r\n"),
            "{asked}"
        );
        assert!(asked.contains("Authorization: Bearer k\r\n") && !asked.contains("foo"), "{asked}");
        let (_, body) = asked.split_once("\r\n\r\n").expect("a head");
        let body: Value = serde_json::from_str(body).expect(body);
        assert_eq!(body, json!({"site": "s1", "keys": ["a", "b"], "soft": false}));
        world.say(control, "HTTP/1.1 202 Accepted\r\nContent-Length: 15\r\n\r\n{\"position\": 7}");
        let answer = world.take(client);
        assert!(answer.starts_with("HTTP/1.1 202 ") && answer.ends_with("{\"position\": 7}"));
        world.connect = Err(std::io::ErrorKind::ConnectionRefused);
        world.hang_up(control);
        let answer = ask(&mut world, client, &purge("/x", KEY));
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("this edge alone"),
            "{answer}"
        );
    }
}
