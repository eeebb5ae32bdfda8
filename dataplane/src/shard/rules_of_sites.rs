//! What a site's rules make the shard do, as tests through the seam; each is named by its rule.

use proto::feed::site::Site;

use super::{
    live::Live,
    testing::{End, World, site},
};
use crate::seam::Control;

/// A world of one shard whose site has these rules.
fn world(rules: &str) -> World {
    with_site(Site { rules: serde_json::from_str(rules).expect(rules), ..site() })
}

fn with_site(site: Site) -> World {
    for rule in &site.rules {
        assert!(rule.faults().is_empty(), "{:?}", rule.faults());
    }
    let mut world = World::new(1);
    let live = Live { sites: [site].into(), ..world.live_now() };
    world.live.put(live);
    world.control(Control::Reload);
    world
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

/// The one visitor and the one connection to the origin of a test.
struct Visit {
    world: World,
    client: End,
    upstream: Option<End>,
}

impl Visit {
    fn new(mut world: World) -> Self {
        let client = world.connect(0);
        Self { world, client, upstream: None }
    }

    /// What the origin is asked; empty for an answer from the cache.
    fn ask(&mut self, request: &str) -> String {
        self.world.say(self.client, request);
        if self.upstream.is_none() && !self.world.upstreams.is_empty() {
            self.upstream = Some(self.world.upstream());
        }
        self.upstream.map_or_else(String::new, |upstream| self.world.take(upstream))
    }

    /// The origin answers; what the client gets.
    fn answer(&mut self, status: u16, fields: &str) -> String {
        let upstream = self.upstream.expect("the origin was asked");
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n{fields}\r\nok");
        self.world.say(upstream, &text);
        self.world.take(self.client)
    }

    /// Fetched, and stored or not.
    fn fetch(&mut self, request: &str, fields: &str) -> String {
        let asked = self.ask(request);
        assert!(!asked.is_empty(), "{request} is not stored");
        self.answer(200, fields)
    }

    /// Whether it is a hit.
    fn hits(&mut self, request: &str) -> bool {
        let asked = self.ask(request);
        if asked.is_empty() {
            let answer = self.world.take(self.client);
            assert!(answer.contains("X-Cache-Status: HIT\r\n"), "{answer}");
            return true;
        }
        self.answer(200, "Cache-Control: no-store\r\n");
        false
    }
}

fn line(asked: &str) -> &str {
    asked.lines().next().unwrap_or_default()
}

#[test]
fn a_rule_gives_a_lifetime_by_status_before_the_origins() {
    let rules = r#"[{"name": "a", "match": {"paths": ["/a/*"]},
        "lifetime": {"fresh_s": 60, "status_fresh_s": {"404": 5}, "stale_if_error_s": 0}}]"#;
    let mut visit = Visit::new(world(rules));
    visit.fetch(&get("/a/1", ""), "Cache-Control: max-age=1\r\n");
    visit.ask(&get("/a/2", ""));
    visit.answer(404, "");
    visit.fetch(&get("/b", ""), "Cache-Control: max-age=1\r\n");
    visit.world.wait_ms(3_000);
    assert!(visit.hits(&get("/a/1", "")) && visit.hits(&get("/a/2", "")));
    assert!(!visit.hits(&get("/b", "")), "no rule for it");
    visit.world.wait_ms(3_000);
    assert!(visit.hits(&get("/a/1", "")) && !visit.hits(&get("/a/2", "")));
}

#[test]
fn a_validation_gives_the_lifetime_of_the_rule_again() {
    let mut visit = Visit::new(world(r#"[{"name": "a", "lifetime": {"fresh_s": 10}}]"#));
    visit.fetch(&get("/a", ""), "ETag: \"1\"\r\n");
    visit.world.wait_ms(11_000);
    let asked = visit.ask(&get("/a", ""));
    assert!(asked.contains("If-None-Match: \"1\"\r\n"), "{asked}");
    let upstream = visit.upstream.expect("asked");
    visit.world.say(upstream, "HTTP/1.1 304 X\r\nCache-Control: max-age=0\r\n\r\n");
    assert!(visit.world.take(visit.client).contains("X-Cache-Status: REVALIDATED\r\n"));
    visit.world.wait_ms(9_000);
    assert!(visit.hits(&get("/a", "")));
}

#[test]
fn what_is_dropped_from_the_key_does_not_reach_the_origin_unless_the_rule_says_so() {
    let rule = |more: &str| {
        format!(r#"[{{"name": "a", "key": {{"query": {{"drop": ["utm_*"]{more}}}}}}}]"#)
    };
    let fresh = "Cache-Control: max-age=9\r\n";
    let mut visit = Visit::new(world(&rule("")));
    let asked = visit.ask(&get("/a?utm_x=<evil>&b=1", ""));
    assert_eq!(line(&asked), "GET /a?b=1 HTTP/1.1");
    visit.answer(200, fresh);
    assert!(visit.hits(&get("/a?b=1&utm_y=2", "")) && visit.hits(&get("/a?b=1", "")));
    assert!(!visit.hits(&get("/a?b=2", "")));
    let post = get("/a?utm_x=1", "").replace("GET", "POST");
    assert_eq!(line(&visit.ask(&post)), "POST /a?utm_x=1 HTTP/1.1", "only for the cache");
    let mut visit = Visit::new(world(&rule(r#", "forward_dropped": true"#)));
    let asked = visit.ask(&get("/a?utm_x=1&b=1", ""));
    assert_eq!(line(&asked), "GET /a?utm_x=1&b=1 HTTP/1.1");
    visit.answer(200, fresh);
    assert!(visit.hits(&get("/a?b=1", "")));
}

#[test]
fn who_differs_in_a_field_or_cookie_of_the_key_gets_another_answer() {
    let rules = r#"[{"name": "a", "key": {"fields": ["X-Tenant"], "cookies": ["lang"]}}]"#;
    let mut visit = Visit::new(world(rules));
    let fresh = "Cache-Control: max-age=9\r\n";
    for fields in ["", "X-Tenant: 1\r\n", "X-Tenant: 2\r\n", "Cookie: lang=de\r\n"] {
        visit.fetch(&get("/a", fields), fresh);
    }
    for fields in ["", "x-tenant: 1\r\n", "X-Tenant: 2\r\n", "Cookie: sid=9; lang=de\r\n"] {
        assert!(visit.hits(&get("/a", fields)), "{fields}");
    }
    assert!(!visit.hits(&get("/a", "X-Tenant: 2\r\nCookie: lang=de\r\n")));
    let long = format!("X-Tenant: {}\r\n", "x".repeat(5_000));
    visit.ask(&get("/a", &long));
    let answer = visit.answer(200, fresh);
    assert!(answer.contains("X-Cache-Status: PASS\r\n"), "too long for a key: {answer}");
}

#[test]
fn a_rule_passes_what_it_matches_and_nothing_of_it_is_stored() {
    let rules = r#"[{"name": "session", "policy": "pass",
        "match": {"fields": [{"name": "Cookie", "value": "*sid=*"}]}}]"#;
    let mut visit = Visit::new(world(rules));
    let answer = visit.fetch(&get("/a", "Cookie: sid=1\r\n"), "Cache-Control: max-age=9\r\n");
    assert!(answer.contains("X-Cache-Status: PASS\r\n"), "{answer}");
    assert!(!visit.hits(&get("/a", "")));
}

#[test]
fn rfc9111_3_5_a_rule_does_not_share_answers_to_requests_with_authorization() {
    for origin in ["override", "ignore"] {
        let rules =
            format!(r#"[{{"name": "a", "lifetime": {{"fresh_s": 9, "origin": "{origin}"}}}}]"#);
        let mut visit = Visit::new(world(&rules));
        visit.fetch(&get("/a", "Authorization: Basic x\r\n"), "");
        assert!(!visit.hits(&get("/a", "")), "{origin}");
    }
}

#[test]
fn rfc9111_4_4_an_unsafe_request_outdates_every_form_of_its_url() {
    let rules = r#"[{"name": "a", "match": {"methods": ["GET"]},
        "key": {"query": {"keep": ["v"]}, "fields": ["X"]}}]"#;
    let mut visit = Visit::new(world(rules));
    let fresh = "Cache-Control: max-age=9\r\n";
    for fields in ["", "X: 1\r\n"] {
        visit.fetch(&get("/a?v=1&w=2", fields), fresh);
        assert!(visit.hits(&get("/a?v=1", fields)));
    }
    visit.ask(&get("/a?v=1&w=3", "").replace("GET", "POST"));
    visit.answer(200, "Cache-Control: no-store\r\n");
    for fields in ["", "X: 1\r\n"] {
        assert!(!visit.hits(&get("/a?v=1", fields)), "{fields}");
    }
}

#[test]
fn rfc9111_4_4_what_an_answer_names_is_outdated_in_every_form() {
    let rules = r#"[{"name": "a", "match": {"methods": ["GET"], "paths": ["/a"]},
        "key": {"query": {"drop": ["w"], "sort": true}, "fields": ["X"]}}]"#;
    for named in ["Location: /a?w=1&v=2&u=3", "Content-Location: a?v=2&w=4&u=3#top"] {
        let mut visit = Visit::new(world(rules));
        let varying = "Cache-Control: max-age=9\r\nVary: Accept-Language\r\n";
        let forms = ["", "X: 1\r\n", "Accept-Language: de\r\n", "X: 1\r\nAccept-Language: de\r\n"];
        for fields in forms {
            visit.fetch(&get("/a?v=2&u=3&w=9", fields), varying);
            assert!(visit.hits(&get("/a?u=3&v=2", fields)));
        }
        visit.fetch(&get("/a?v=2", ""), varying);
        visit.ask(&get("/b?c", "").replace("GET", "POST"));
        visit.answer(201, &format!("Cache-Control: no-store\r\n{named}\r\n"));
        assert!(visit.hits(&get("/a?v=2", "")), "it is another URL");
        for fields in forms {
            assert!(!visit.hits(&get("/a?u=3&v=2", fields)), "{named} {fields}");
        }
    }
}

#[test]
fn rfc9110_9_3_3_the_stored_answer_to_a_post_outlives_what_it_outdates_in_other_forms() {
    let rules = r#"[{"name": "a", "match": {"paths": ["/a"]},
        "key": {"query": {"drop": ["w"]}, "fields": ["X"]}}]"#;
    let fresh = "Cache-Control: max-age=9\r\n";
    for (path, own, others) in [
        ("/a", "", &["X: 1\r\n", "X: 2\r\n"][..]),
        ("/a", "X: 1\r\n", &["", "X: 2\r\n"]),
        ("/elsewhere", "", &[]),
    ] {
        let mut visit = Visit::new(world(rules));
        visit.fetch(&get(path, own), fresh);
        for fields in others {
            visit.fetch(&get(path, fields), fresh);
        }
        visit.ask(&get(path, own).replace("GET", "POST"));
        visit.answer(200, &format!("{fresh}Content-Location: {path}\r\nETag: \"posted\"\r\n"));
        visit.ask(&get(path, own));
        let answer = visit.world.take(visit.client);
        let is_own = answer.contains("X-Cache-Status: HIT\r\n") && answer.contains("\"posted\"");
        assert!(is_own, "{path} {own} {answer}");
        for fields in others {
            assert!(!visit.hits(&get(path, fields)), "{path} {fields}");
        }
    }
}

#[test]
fn rfc9875_2_2_1_what_shares_a_group_with_an_outdated_answer_goes_stored_post_or_added_key() {
    let adding = r#"[{"name": "a", "match": {"paths": ["/a"]}, "key": {"fields": ["X"]}}]"#;
    let fresh = "Cache-Control: max-age=9\r\n";
    let kept = format!("{fresh}Content-Location: /a\r\nCache-Groups: \"g\"\r\n");
    for (rules, fields, posted, is_own_kept) in [
        ("[]", "", kept.as_str(), true),
        (adding, "", kept.as_str(), true),
        (adding, "X: 1\r\n", kept.as_str(), true),
        (adding, "X: 1\r\n", "Cache-Control: no-store\r\n", false),
    ] {
        let mut visit = Visit::new(world(rules));
        for (target, fields, group) in
            [("/a", fields, "g"), ("/beside", "", "g"), ("/other", "", "h")]
        {
            let grouped = format!("{fresh}Cache-Groups: \"{group}\"\r\n");
            visit.fetch(&get(target, fields), &grouped);
        }
        visit.ask(&get("/a", "").replace("GET", "POST"));
        visit.answer(200, posted);
        assert!(!visit.hits(&get("/beside", "")), "{rules} {fields} {posted}");
        assert!(visit.hits(&get("/other", "")), "of another group");
        assert_eq!(visit.hits(&get("/a", "")), is_own_kept, "{rules} {fields} {posted}");
    }
}

#[test]
fn streams_and_passing_routes_come_before_rules() {
    let mut site = site();
    let stream = r#"{"prefix": "/live/", "policy": "stream", "stream": {"topics": ["a"]}}"#;
    site.routes.push(serde_json::from_str(stream).expect("a route"));
    site.rules =
        serde_json::from_str(r#"[{"name": "a", "lifetime": {"fresh_s": 9}}]"#).expect("rules");
    let mut visit = Visit::new(with_site(site));
    let answer = visit.fetch(&get("/pass/x", ""), "");
    assert!(answer.contains("X-Cache-Status: PASS\r\n"), "{answer}");
    visit.ask(&get("/live/a", ""));
    assert!(visit.world.take(visit.client).contains("text/event-stream"));
}
