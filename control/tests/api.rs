//! The management API over real sockets: each rule of CONTRACTS "Control API", asked for by a
//! client.

mod support;

use serde_json::{Value, json};
use support::{Client, Control};

fn with(test: impl FnOnce(&Control, &Client)) {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = control.client.clone();
    test(&control, &client);
    control.stop();
}

fn demo(client: &Client) {
    client.post("/v1/pages", json!({"slug": "demo", "name": "Demo"})).expect(201);
    for slug in ["api", "web"] {
        let body = json!({"slug": slug, "name": slug.to_uppercase()});
        client.post("/v1/pages/demo/components", body).expect(201);
    }
}

#[test]
fn a_page_is_made_read_changed_listed_and_deleted() {
    with(|_, client| {
        let made = client.post("/v1/pages", json!({"slug": "demo", "name": "Demo"})).expect(201);
        assert_eq!(made.header("location"), "/v1/pages/demo");
        assert!(made.header("pharos-version").starts_with("eu-"));
        assert!(!made.header("x-request-id").is_empty());
        let read = client.get("/v1/pages/demo").expect(200);
        assert_eq!(read.body, made.body);
        assert_eq!(read.header("etag"), made.header("etag"));
        let by_id = client.get(&format!("/v1/pages/{}", read.text("/id"))).expect(200);
        assert_eq!(by_id.body, read.body);
        let patch = json!({"slug": "moved", "hosts": ["status.example"]});
        let changed = client.patch("/v1/pages/demo", patch).expect(200);
        assert_eq!(changed.text("/slug"), "moved");
        assert_eq!(changed.body["hosts"], json!(["status.example"]));
        client.get("/v1/pages/demo").expect(404);
        client.post("/v1/pages", json!({"slug": "demo", "name": "Again"})).expect(201);
        let list = client.get("/v1/pages").expect(200);
        assert_eq!(list.body["items"].as_array().map(Vec::len), Some(2));
        client.delete("/v1/pages/moved").expect(204);
        client.get("/v1/pages/moved").expect(404);
        let body = json!({"slug": "moved", "name": "N", "hosts": ["status.example"]});
        client.post("/v1/pages", body).expect(201);
    });
}

#[test]
fn every_mistake_is_named_and_nothing_is_written() {
    with(|_, client| {
        let version = client.get("/v1/pages").header("pharos-version").to_owned();
        let body = json!({"slug": "A b", "nmae": "x", "hosts": ["UPPER"]});
        let reply = client.post("/v1/pages", body).expect(422);
        assert_eq!(reply.header("content-type"), "application/problem+json");
        assert_eq!(reply.text("/request_id"), reply.header("x-request-id"));
        let pointers: Vec<_> = reply.body["errors"]
            .as_array()
            .expect("errors")
            .iter()
            .map(|error| error["pointer"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(pointers, ["/slug", "/name", "/hosts/0", "/nmae"]);
        client.post("/v1/pages", json!({"slug": "api", "name": "N"})).expect(422);
        client.post("/v1/pages", json!([])).expect(400);
        client.try_request("POST", "/v1/pages", &[], "{").expect("answer").expect(400);
        client.post("/v1/pages?dryrun=1", json!({"slug": "a", "name": "N"})).expect(400);
        client.get("/v1/nothing").expect(404);
        client.request("PUT", "/v1/pages", &[], &Value::Null).expect(405);
        let large = "x".repeat(300 * 1024);
        client.post("/v1/pages", json!({"slug": "a", "name": large})).expect(413);
        let long = "x".repeat(40 * 1024);
        client.request("GET", "/v1/pages", &[("x-long", &long)], &Value::Null).expect(431);
        assert_eq!(client.get("/v1/pages").header("pharos-version"), version);
    });
}

#[test]
fn slugs_and_hosts_are_unique_over_pages_and_sites() {
    with(|_, client| {
        let page = |slug: &str, host: &str| json!({"slug": slug, "name": "N", "hosts": [host]});
        client.post("/v1/pages", page("a", "one.example")).expect(201);
        let reply = client.post("/v1/pages", page("a", "two.example")).expect(409);
        assert_eq!(reply.text("/errors/0/pointer"), "/slug");
        let site = json!({"name": "shop", "hosts": ["two.example", "one.example"],
            "origins": [{"url": "http://127.0.0.1:80"}]});
        let reply = client.post("/v1/sites", site).expect(409);
        assert_eq!(reply.text("/errors/0/pointer"), "/hosts/1");
        client.post("/v1/pages", page("b", "two.example")).expect(201);
    });
}

#[test]
fn keys_open_what_their_scopes_cover() {
    with(|_, client| {
        let made = |scopes: Value| {
            let body = json!({"name": "k", "scopes": scopes});
            let reply = client.post("/v1/keys", body).expect(201);
            (reply.text("/id"), client.with_key(&reply.text("/key")))
        };
        let (id, reader) = made(json!(["read"]));
        let (_, writer) = made(json!(["write"]));
        let (_, purger) = made(json!(["purge"]));
        let (_, edge) = made(json!(["edge"]));
        let page = json!({"slug": "a", "name": "N"});
        client.with_key("").get("/v1/pages").expect(401);
        let unknown = client.with_key("pharos_nonsense").get("/v1/pages").expect(401);
        assert!(unknown.header("www-authenticate").starts_with("Bearer"));
        reader.get("/v1/pages").expect(200);
        reader.post("/v1/pages", page.clone()).expect(403);
        writer.post("/v1/pages", page).expect(201);
        writer.get("/v1/pages").expect(200);
        writer.post("/v1/purges", json!({"site": "s", "all": true})).expect(403);
        purger.post("/v1/purges", json!({"site": "s", "all": true})).expect(404);
        edge.get("/v1/pages").expect(403);
        writer.get("/v1/keys").expect(403);
        let list = client.get("/v1/keys").expect(200).body.to_string();
        assert!(!list.contains("\"key\"") && !list.contains("digest"), "{list}");
        client.delete(&format!("/v1/keys/{id}")).expect(204);
        reader.get("/v1/pages").expect(401);
        let keys = client.get("/v1/keys").expect(200);
        let first = keys.text("/items/0/id");
        client.delete(&format!("/v1/keys/{first}")).expect(409);
    });
}

#[test]
fn a_retry_with_its_idempotency_key_gets_the_first_answer() {
    with(|_, client| {
        demo(client);
        let body = json!({"title": "T", "components": {"api": "major_outage"}});
        let ask = |key: &str, body: &Value| {
            client.request("POST", "/v1/pages/demo/incidents", &[("idempotency-key", key)], body)
        };
        let first = ask("one", &body).expect(201);
        let again = ask("one", &body).expect(201);
        assert_eq!(again.body, first.body);
        assert_eq!(again.header("idempotency-replayed"), "true");
        assert_eq!(again.header("location"), first.header("location"));
        assert_eq!(again.header("pharos-version"), first.header("pharos-version"));
        assert_eq!(first.header("idempotency-replayed"), "");
        ask("one", &json!({"title": "Other"})).expect(422);
        ask("", &body).expect(400);
        ask("two", &json!({"title": ""})).expect(422);
        ask("two", &body).expect(201);
        let list = client.get("/v1/pages/demo/incidents").expect(200);
        assert_eq!(list.body["items"].as_array().map(Vec::len), Some(2));
        let key = json!({"name": "k", "scopes": ["read"]});
        let ask = || client.request("POST", "/v1/keys", &[("idempotency-key", "k")], &key);
        let (first, again) = (ask().expect(201), ask().expect(201));
        assert!(!first.text("/key").is_empty());
        assert_eq!((again.text("/key"), again.text("/id")), (String::new(), first.text("/id")));
    });
}

#[test]
fn if_match_refuses_what_has_changed_meanwhile() {
    with(|_, client| {
        demo(client);
        let etag = client.get("/v1/pages/demo").header("etag").to_owned();
        let patch = |etag: &str, name: &str| {
            let body = json!({"name": name});
            client.request("PATCH", "/v1/pages/demo", &[("if-match", etag)], &body)
        };
        let changed = patch(&etag, "One").expect(200);
        let stale = patch(&etag, "Two").expect(412);
        assert_eq!(stale.header("etag"), changed.header("etag"));
        patch("*", "Three").expect(200);
        let now = client.get("/v1/pages/demo").header("etag").to_owned();
        let known = [("if-none-match", now.as_str())];
        client.request("GET", "/v1/pages/demo", &known, &Value::Null).expect(304);
    });
}

#[test]
fn a_dry_run_answers_as_if_and_writes_nothing() {
    with(|_, client| {
        demo(client);
        let version = client.get("/v1/pages").header("pharos-version").to_owned();
        let body = json!({"title": "T", "components": {"api": "partial_outage"}});
        let reply = client.post("/v1/pages/demo/incidents?dry_run=true", body).expect(200);
        assert_eq!((reply.text("/impact").as_str(), reply.header("location")), ("major", ""));
        client.delete("/v1/pages/demo?dry_run=true").expect(200);
        client.post("/v1/pages?dry_run=true", json!({"slug": "demo", "name": "N"})).expect(409);
        assert_eq!(client.get("/v1/pages").header("pharos-version"), version);
        client.get("/v1/pages/demo").expect(200);
    });
}

#[test]
fn lists_are_paged_by_cursor() {
    with(|_, client| {
        for nth in 0..7 {
            let body = json!({"slug": format!("p{nth}"), "name": "N"});
            client.post("/v1/pages", body).expect(201);
        }
        let (mut slugs, mut path) = (Vec::new(), "/v1/pages?limit=3".to_owned());
        loop {
            let reply = client.get(&path).expect(200);
            let items = reply.body["items"].as_array().expect("items").clone();
            assert!(items.len() <= 3);
            slugs.extend(items.iter().map(|item| item["slug"].as_str().unwrap().to_owned()));
            match reply.body["next_cursor"].as_str() {
                Some(cursor) => path = format!("/v1/pages?limit=3&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(slugs, ["p0", "p1", "p2", "p3", "p4", "p5", "p6"]);
    });
}

#[test]
fn an_incident_sets_its_components_and_its_resolution_frees_them() {
    with(|_, client| {
        demo(client);
        let status = |slug: &str| {
            client.get(&format!("/v1/pages/demo/components/{slug}")).expect(200).text("/status")
        };
        let body = json!({"title": "T", "status": "investigating", "severity": "high",
            "components": {"api": "major_outage", "web": "partial_outage"}, "message": "m"});
        let made = client.post("/v1/pages/demo/incidents", body).expect(201);
        assert_eq!(made.text("/impact"), "major");
        assert_eq!(status("api"), "major_outage");
        let id = made.text("/id");
        let other = json!({"title": "O", "components": {"web": "partial_outage"}});
        client.post("/v1/pages/demo/incidents", other).expect(201);
        let updates = format!("/v1/incidents/{id}/updates");
        let update = json!({"status": "resolved", "message": "over"});
        let resolved = client.post(&updates, update).expect(201);
        assert_eq!(resolved.text("/status"), "resolved");
        assert_eq!(resolved.text("/updates/0/message"), "over");
        assert!(resolved.body["resolved_at"].is_string());
        assert_eq!(status("api"), "operational");
        assert_eq!(status("web"), "partial_outage", "held by the other incident");
        let update = resolved.text("/updates/1/id");
        let edited = client.patch(&format!("{updates}/{update}"), json!({"message": "better"}));
        assert_eq!(edited.expect(200).text("/updates/1/message"), "better");
        client.post(&updates, json!({})).expect(422);
        let unknown = client.post(&updates, json!({"components": {"db": "operational"}}));
        assert_eq!(unknown.expect(422).text("/errors/0/pointer"), "/components/db");
        client.get(&format!("/v1/pages/demo/incidents/{id}")).expect(200);
        client.get(&format!("/v1/pages/{id}/incidents/{id}")).expect(404);
        client.delete(&format!("/v1/incidents/{id}")).expect(204);
        client.get(&format!("/v1/incidents/{id}")).expect(404);
    });
}

#[test]
fn a_purge_is_complete_when_every_edge_has_reported_its_position() {
    with(|control, client| {
        let site = json!({"name": "shop", "hosts": ["shop.example"],
            "origins": [{"url": "http://127.0.0.1:80/"}],
            "routes": [{"prefix": "/cart", "policy": "pass"}]});
        client.post("/v1/sites", site).expect(201);
        let edge = |name: &str| {
            let reply = client.post("/v1/edges", json!({"name": name})).expect(201);
            assert!(reply.text("/config").contains("key_file"), "{}", reply.text("/config"));
            assert!(reply.text("/config").contains(&client.base));
            (reply.text("/id"), client.with_key(&reply.text("/key")))
        };
        let (one, one_client) = edge("one");
        let (two, two_client) = edge("two");
        edge("never-started");
        let ordered = client.post("/v1/purges", json!({"site": "shop", "key": "k"})).expect(202);
        assert_eq!(ordered.body["complete"], true, "no edge has connected, nothing is stored");
        let path = ordered.header("location").to_owned();
        let report = |client: &Client, id: &str, cursor: String| {
            let body = json!({"cursor": cursor, "version": "1", "streams": 5, "hits": 3,
                "lookups": 4});
            client.post(&format!("/v1/edges/{id}/position"), body)
        };
        let head = control.app().store.writer.head().borrow().cursor();
        let before = format!("{}.{}.", head.store, head.position - 1);
        report(&one_client, "one", head.to_string()).expect(204);
        report(&two_client, &two, before).expect(204);
        report(&one_client, &two, head.to_string()).expect(403);
        let receipt = client.get(&path).expect(200);
        assert_eq!(receipt.body["complete"], false);
        assert_eq!(receipt.body["applied_count"], 1);
        let late = receipt.body["edges"].as_array().expect("edges");
        for (at, name, applied, never_connected) in
            [(0, "one", true, false), (1, "two", false, false), (2, "never-started", false, true)]
        {
            let edge = (&late[at]["name"], &late[at]["applied"], &late[at]["never_connected"]);
            assert_eq!(edge, (&json!(name), &json!(applied), &json!(never_connected)));
        }
        report(&two_client, &two, format!("00000000000000aa.1.{}", head.applied)).expect(204);
        assert_eq!(client.get(&path).expect(200).body["complete"], true);
        let edges = client.get("/v1/edges").expect(200);
        assert_eq!(edges.body["items"][0]["hit_ratio"], 0.75);
        assert_eq!(edges.body["items"][0]["lag"], 0);
        assert_eq!(edges.text("/items/0/id"), one);
        client.delete("/v1/edges/two").expect(204);
        two_client.get("/v1/feed").expect(401);
        for (target, status) in [
            (json!({"url": "/a?b"}), 202),
            (json!({"url": "http://shop.example/a"}), 202),
            (json!({"url": "http://other.example/a"}), 422),
            (json!({"prefix": "/a", "soft": true}), 202),
            (json!({"all": true}), 202),
            (json!({"all": true, "key": "k"}), 422),
            (json!({}), 422),
        ] {
            let mut body = target.clone();
            body["site"] = json!("shop");
            let reply = client.post("/v1/purges", body);
            assert_eq!(reply.status, status, "{target} {}", reply.body);
        }
        assert_eq!(
            client.get("/v1/purges?limit=2").expect(200).text("/items/0/scope/site").len(),
            20
        );
    });
}

#[test]
fn the_openapi_document_names_every_route_that_is_served() {
    with(|_, client| {
        let document = client.get("/openapi.json").expect(200).body;
        let paths = document["paths"].as_object().expect("paths");
        assert_eq!(paths.len(), 23, "{:?}", paths.keys().collect::<Vec<_>>());
        for (path, methods) in paths {
            let example = path.replace(['{', '}'], "");
            for method in methods.as_object().expect("methods").keys() {
                let anonymous = client.with_key("");
                let method = method.to_uppercase();
                let reply = anonymous.request(&method, &example, &[], &Value::Null);
                assert_eq!(reply.status, 401, "{method} {example}");
            }
        }
        assert!(document["components"]["schemas"]["NewIncident"].is_object());
        assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    });
}

#[test]
fn health_and_metrics_need_no_key() {
    with(|_, client| {
        let anonymous = client.with_key("");
        assert_eq!(anonymous.get("/healthz").expect(200).text("/status"), "ok");
        anonymous.get("/metrics").expect(200);
    });
}

#[test]
fn what_is_done_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    demo(&control.client);
    let before = control.client.get("/v1/pages/demo").expect(200);
    control.stop();
    let control = Control::start(dir.path());
    let after = control.client.get("/v1/pages/demo").expect(200);
    assert_eq!(after.body, before.body);
    assert_eq!(after.header("pharos-version"), before.header("pharos-version"));
    control.stop();
}
