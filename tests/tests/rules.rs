//! Rules of a site, `PURGE` and `pharos explain` on real processes, as docs/rules.md has them.

use std::fs;

use pharos_tests::{
    client::http::Reply,
    process::{
        client::Client,
        node::{Node, run},
        origin::Origin,
    },
};
use serde_json::Value;

const HOST: &str = "shop.example";

struct Shop {
    node: Node,
    origin: Origin,
    folder: tempfile::TempDir,
}

impl Shop {
    /// A node whose site has the rules of the document.
    fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let origin = Origin::start(folder.path());
        let node = Node::up(&["--shards", "2"]);
        let url = format!("http://{}", origin.address);
        let create = ["site", "create", "--name", "shop", "--host", HOST, "--origin", &url];
        node.cli(&[&create[..], &["--route", "/cart/=pass"]].concat());
        let file = folder.path().join("rules.json");
        fs::write(&file, example()).expect("written");
        node.cli(&["site", "rules", "shop", "--set", &file.display().to_string()]);
        let shop = Self { node, origin, folder };
        shop.wait_for_all_shards();
        shop
    }

    /// A purge is applied when every shard has passed it, and with it what was told before it.
    fn wait_for_all_shards(&self) {
        self.node.cli(&["purge", "--site", "shop", "--url", "/none", "--wait", "--timeout", "60"]);
    }

    fn get(&self, target: &str, fields: &[(&str, &str)]) -> Reply {
        self.ask("GET", target, fields)
    }

    fn ask(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Reply {
        let mut client = Client::connect(self.node.edge).expect("the edge listens");
        client.ask_with(method, HOST, target, fields, b"");
        client.answer().expect("an answer")
    }

    fn explain(&self, id: &str) -> Option<Value> {
        let admin = format!("http://{}", self.node.admin);
        let output = run(&["explain", id, "--admin", &admin, "-o", "json"]);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// How often the origin was asked for this target.
    fn asked(&self, target: &str) -> u64 {
        self.origin.counts().get(target).and_then(Value::as_u64).unwrap_or(0)
    }
}

/// The rules in docs/rules.md.
fn example() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rules.md");
    let text = fs::read_to_string(path).expect("docs/rules.md");
    let block = text.split("```json rules\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("an example of rules").to_owned()
}

fn label(reply: &Reply) -> &str {
    reply.field("x-cache-status").unwrap_or_default()
}

#[test]
fn the_rules_of_the_document_do_what_it_says() {
    let shop = Shop::open();
    // The origin gives no lifetime; of the query only `seed` takes part, and reaches it.
    let first = shop.get("/bytes/100/a.js?seed=1&utm_x=1", &[]);
    assert_eq!((first.status, label(&first)), (200, "MISS"));
    assert_eq!(label(&shop.get("/bytes/100/a.js?utm_x=2&seed=1", &[])), "HIT");
    assert_eq!(label(&shop.get("/bytes/100/a.js?seed=2", &[])), "MISS");
    assert_eq!(
        (shop.asked("/bytes/100/a.js?seed=1"), shop.asked("/bytes/100/a.js?seed=2")),
        (1, 1)
    );
    let session = [("Cookie", "a=1; session=7")];
    assert_eq!(label(&shop.get("/bytes/100/a.js?seed=1", &session)), "PASS");
    assert_eq!(label(&shop.get("/cart/a.js", &[])), "PASS", "the route comes first");
    // What the origin forbids stays forbidden: its 404 says `no-store`.
    for _ in 0..2 {
        let missing = shop.get("/static/missing", &[]);
        assert_eq!((missing.status, label(&missing)), (404, "MISS"));
    }
    // Tenants do not share.
    for tenant in ["1", "2"] {
        let fields = [("X-Tenant", tenant)];
        assert_eq!(label(&shop.get("/api/x.json?b=1&a=2", &fields)), "MISS", "{tenant}");
    }
    let listed = shop.node.cli(&["site", "rules", "shop"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed[1]["lifetime"]["status_fresh_s"]["404"], 10);
}

#[test]
fn a_rule_that_makes_no_sense_is_refused_with_its_place() {
    let shop = Shop::open();
    let file = shop.folder.path().join("wrong.json");
    let wrong = r#"[{"name": "a", "key": {"query": {"keep": ["a b"], "sorted": true}},
        "lifetime": {"fresh_s": -1, "origin": "never"}}]"#;
    fs::write(&file, wrong).expect("written");
    let body = format!("{{\"rules\": {wrong}}}");
    let reply = shop.node.api("PATCH", "/v1/sites/shop", &body, &[]);
    assert_eq!(reply.status, 422);
    let told: Value = serde_json::from_slice(&reply.body).expect("JSON");
    let places: Vec<_> = told["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|error| error["pointer"].as_str().unwrap_or_default())
        .collect();
    for place in
        ["/rules/0/key/query/sorted", "/rules/0/lifetime/fresh_s", "/rules/0/lifetime/origin"]
    {
        assert!(places.contains(&place), "{place}: {places:?}");
    }
    let output =
        shop.node.cli_output(&["site", "rules", "shop", "--set", &file.display().to_string()]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("/rules/0/lifetime/origin: expected"), "one form of places: {said}");
    let body = r#"{"rules": [{"name": "a", "key": {"query": {"keep": ["a b"]}}}]}"#;
    let reply = shop.node.api("PATCH", "/v1/sites/shop", body, &[]);
    let told = String::from_utf8_lossy(&reply.body).into_owned();
    assert!(reply.status == 422 && told.contains("/rules/0/key/query/keep/0"), "{told}");
    for (rule, place) in [
        (r#""match": {"hosts": ["shop.example:80"]}, "policy": "pass""#, "/match/hosts/0"),
        (r#""match": {"paths": []}, "policy": "pass""#, "/match/paths"),
        (r#""match": {"fields": []}, "policy": "pass""#, "/match/fields"),
        (r#""key": {"fields": ["Range"]}"#, "/key/fields/0"),
        (r#""key": {"fields": ["X-A", "Connection"]}"#, "/key/fields/1"),
        (r#""key": {"fields": ["host"]}"#, "/key/fields/0"),
    ] {
        let body = format!(r#"{{"rules": [{{"name": "a", {rule}}}]}}"#);
        let reply = shop.node.api("PATCH", "/v1/sites/shop", &body, &[]);
        let told = String::from_utf8_lossy(&reply.body).into_owned();
        let named = told.contains(&format!("\"/rules/0{place}\""));
        assert!(reply.status == 422 && named, "{place}: {told}");
    }
}

#[test]
fn an_answer_is_explained_by_its_request_id() {
    let shop = Shop::open();
    let target = "/bytes/100/b.js?seed=1&token=hush";
    shop.get(target, &[("X-Request-Id", "why-1")]);
    let told = shop.explain("why-1").expect("known");
    let facts = ["result", "rule", "tier", "forward"].map(|name| told[name].clone());
    assert_eq!(facts, ["MISS", "assets", "origin", "uri-miss"]);
    assert_eq!(told["key"]["text"], format!("{HOST}/bytes/100/b.js?seed=1"));
    assert_eq!(told["freshness"]["lifetime_s"], 86_400);
    let attempt = &told["origin"]["attempts"][0];
    assert_eq!(attempt["address"], shop.origin.address.to_string());
    assert_eq!(attempt["status"], 200);
    let hit = shop.get(target, &[]);
    let id = hit.field("x-request-id").expect("an id").to_owned();
    assert!(hit.field("pharos-explain").is_none(), "not by default");
    let again = shop.explain(&id).expect("known");
    assert_eq!((&again["result"], &again["rule"]), (&"HIT".into(), &"assets".into()));
    assert_eq!(again["key"]["digest"], told["key"]["digest"]);
    let admin = format!("http://{}", shop.node.admin);
    let text = run(&["explain", "why-1", "--admin", &admin]).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("rule       assets\n") && text.contains("by the rule"), "{text}");
    let unknown = run(&["explain", "nobodys", "--admin", &admin]);
    assert_eq!(unknown.status.code(), Some(3));
}

#[test]
fn purge_needs_a_key_and_is_ordered_of_all_edges() {
    let shop = Shop::open();
    let target = "/bytes/100/c.js?seed=1";
    assert_eq!(shop.ask("PURGE", target, &[]).status, 405, "no key yet");
    let key = shop.node.cli(&["site", "purge-key", "shop", "--id", "deploy"]);
    let key = key.trim();
    shop.wait_for_all_shards();
    shop.get(target, &[]);
    assert_eq!(shop.ask("PURGE", target, &[("Pharos-Purge-Key", "wrong")]).status, 403);
    assert_eq!(label(&shop.get(target, &[])), "HIT");
    let reply = shop.ask("PURGE", &format!("{target}&x=1"), &[("Pharos-Purge-Key", key)]);
    let told = String::from_utf8_lossy(&reply.body).into_owned();
    assert_eq!(reply.status, 202, "{told}");
    let receipt: Value = serde_json::from_str(&told).expect(&told);
    assert!(receipt["position"].as_u64().is_some(), "{told}");
    assert_eq!(
        receipt["edges"],
        serde_json::json!([]),
        "other edges are not the visitor's to know"
    );
    assert_eq!(label(&shop.get(target, &[])), "MISS");
    let purges = shop.node.api("GET", "/v1/purges?limit=1", "", &[]);
    let purges: Value = serde_json::from_slice(&purges.body).expect("JSON");
    assert_eq!(purges["items"][0]["id"], receipt["id"]);
    let counts = shop.origin.counts();
    assert!(!counts.keys().any(|asked| asked.contains("x=1")), "not passed on: {counts:?}");
    let site = shop.node.api("GET", "/v1/sites/shop", "", &[]);
    let site = String::from_utf8_lossy(&site.body).into_owned();
    assert!(!site.contains(key) && !shop.node.log().contains(key), "only its hash is known");
}
