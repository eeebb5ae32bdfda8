//! Public pages over a real socket: what edges rely on in every answer.

mod support;

use serde_json::{Value, json};
use support::{Client, Control, Reply};

/// A control with the page `demo` on it; the page's id.
fn with_page() -> (tempfile::TempDir, Control, String) {
    let data = tempfile::tempdir().expect("a folder");
    let control = Control::start(data.path());
    let page = control.client.post("/v1/pages", json!({"slug": "demo", "name": "Demo"}));
    let id = page.expect(201).text("/id");
    let component = json!({"slug": "api", "name": "API"});
    control.client.post("/v1/pages/demo/components", component).expect(201);
    (data, control, id)
}

fn incident(client: &Client, title: &str) -> Reply {
    let incident = json!({
        "title": title, "status": "investigating", "message": "m",
        "components": {"api": "major_outage"},
    });
    client.post("/v1/pages/demo/incidents", incident).expect(201)
}

fn get(client: &Client, path: &str, fields: &[(&str, &str)]) -> Reply {
    // Public: an edge that lost its key still gets pages.
    client.with_key("none").request("GET", path, fields, &Value::Null)
}

#[test]
fn a_page_says_its_version_its_surrogate_key_and_who_may_keep_it() {
    let (_data, control, id) = with_page();
    for (path, kind) in [
        (format!("/pages/{id}/"), "text/html; charset=utf-8"),
        (format!("/pages/{id}/api/v2/summary.json"), "application/json; charset=utf-8"),
        (
            format!("/pages/{id}/api/v2/incidents/unresolved.json"),
            "application/json; charset=utf-8",
        ),
    ] {
        let reply = get(&control.client, &path, &[]).expect(200);
        assert_eq!(reply.header("content-type"), kind);
        assert_eq!(reply.header("cache-control"), "no-cache");
        assert_eq!(reply.header("cdn-cache-control"), "max-age=3600, stale-if-error=7776000");
        assert_eq!(reply.header("surrogate-key"), format!("page/{id}"));
        assert_eq!(reply.header("pharos-version"), control.app().version().to_string());
        let again = get(&control.client, &path, &[("if-none-match", reply.header("etag"))]);
        assert_eq!(again.status, 304);
        assert_eq!(again.header("pharos-version"), reply.header("pharos-version"));
        assert_eq!(again.header("etag"), reply.header("etag"));
    }
    let list = get(&control.client, "/pages/", &[]).expect(200);
    assert_eq!(list.header("surrogate-key"), "pages");
    assert!(list.header("content-security-policy").starts_with("default-src 'none'"));
}

#[test]
fn a_page_that_is_not_there_is_not_found_whatever_the_client_holds() {
    let (_data, control, id) = with_page();
    let page = format!("/pages/{id}/");
    let tag = get(&control.client, &page, &[]).expect(200).header("etag").to_owned();
    assert_eq!(get(&control.client, &page, &[("if-none-match", "*")]).status, 304);
    // Of the form of an id, and nobody's.
    let other: String = id.chars().rev().collect();
    for known in ["*", &tag] {
        let reply = get(&control.client, &format!("/pages/{other}/"), &[("if-none-match", known)]);
        assert_eq!(reply.status, 404, "{known}");
    }
}

#[test]
fn an_incident_is_on_the_page_at_once_under_another_tag() {
    let (_data, control, id) = with_page();
    let path = format!("/pages/{id}/api/v2/summary.json");
    let before = get(&control.client, &path, &[]).expect(200);
    assert_eq!(before.text("/status/description"), "All Systems Operational");
    incident(&control.client, "Fire");
    let after = get(&control.client, &path, &[("if-none-match", before.header("etag"))]);
    assert_eq!(after.status, 200);
    assert_eq!(after.text("/status/indicator"), "critical");
    assert_eq!(after.text("/incidents/0/name"), "Fire");
    assert_eq!(after.text("/incidents/0/components/0/status"), "major_outage");
    assert_eq!(after.text("/incidents/0/incident_updates/0/affected_components/0/name"), "API");
}

#[test]
fn a_version_that_is_not_here_yet_is_waited_for_and_then_refused() {
    let (_data, control, id) = with_page();
    let path = format!("/pages/{id}/");
    let created = incident(&control.client, "Fire");
    let version = created.header("pharos-version").to_owned();
    get(&control.client, &path, &[("pharos-min-version", &version)]).expect(200);
    let (replica, seq) = version.rsplit_once(':').expect("a dot");
    let next = seq.parse::<u64>().expect("a number") + 1;
    let future = format!("{replica}:{}", next + 1000);
    let reply = get(&control.client, &path, &[("pharos-min-version", &future)]);
    assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
    let bad = get(&control.client, &path, &[("pharos-min-version", "x")]);
    assert_eq!(bad.status, 400);
    // One that arrives while it is waited for is answered with.
    let soon = format!("{replica}:{next}");
    let writer = control.client.clone();
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| get(&control.client, &path, &[("pharos-min-version", &soon)]));
        incident(&writer, "Flood");
        waiting.join().expect("no panic")
    });
    assert_eq!(waiting.status, 200);
}

#[test]
fn those_who_wait_for_a_version_keep_nobody_from_a_page() {
    let (_data, control, id) = with_page();
    let path = format!("/pages/{id}/");
    let version = get(&control.client, &path, &[]).header("pharos-version").to_owned();
    let future = format!("{version}999");
    std::thread::scope(|scope| {
        let wait = || get(&control.client, &path, &[("pharos-min-version", &future)]);
        let waiting: Vec<_> = (0..300).map(|_| scope.spawn(wait)).collect();
        // All along, whoever wants no more than there is gets it.
        while !waiting.iter().all(|one| one.is_finished()) {
            get(&control.client, &path, &[]).expect(200);
        }
        for one in waiting {
            let reply = one.join().expect("no panic");
            assert_eq!((reply.status, reply.header("pharos-wait")), (503, "version"));
        }
    });
}

#[test]
fn more_active_incidents_than_a_page_has_room_for_are_counted() {
    let (_data, control, id) = with_page();
    for nth in 0..53 {
        incident(&control.client, &format!("Fire {nth}"));
    }
    let path = format!("/pages/{id}/");
    let mut response = ureq::get(format!("{}{path}", control.client.base)).call().expect("answer");
    let html = response.body_mut().read_to_string().expect("text");
    assert!(html.contains("3 older incidents are active as well.") && html.contains("Fire 52"));
    assert!(!html.contains(">Fire 2<"));
    let unresolved = format!("/pages/{id}/api/v2/incidents/unresolved.json");
    let reply = get(&control.client, &unresolved, &[]).expect(200);
    assert_eq!(reply.body["incidents"].as_array().map(Vec::len), Some(50));
}

#[test]
fn addresses_are_absolute_where_control_knows_them() {
    let data = tempfile::tempdir().expect("a folder");
    let mut config = support::config(data.path());
    config.pages_url = Some("https://status.example".into());
    let control = Control::start_with(config);
    for (slug, hosts, url) in [
        ("a", json!([]), "https://status.example/a/"),
        ("b", json!(["b.example"]), "http://b.example/"),
    ] {
        let page = json!({"slug": slug, "name": slug, "hosts": hosts});
        let id = control.client.post("/v1/pages", page).expect(201).text("/id");
        let path = format!("/pages/{id}/api/v2/status.json");
        assert_eq!(get(&control.client, &path, &[]).text("/page/url"), url);
    }
}

#[test]
fn what_is_not_there_is_not_kept_by_anyone() {
    let (_data, control, id) = with_page();
    for path in [
        "/pages/00000000000000000000/".to_owned(),
        "/pages/nonsense/".to_owned(),
        "/pages/..%2f..%2f/".to_owned(),
        format!("/pages/{id}/api/v2/subscribers.json"),
    ] {
        let reply = get(&control.client, &path, &[]);
        assert_eq!((reply.status, reply.header("cache-control")), (404, "no-store"), "{path}");
    }
    control.client.delete("/v1/pages/demo");
    assert_eq!(get(&control.client, &format!("/pages/{id}/"), &[]).status, 404);
}
