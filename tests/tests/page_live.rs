//! The main job, on real processes: an incident by CLI reaches an open stream and the page; a page
//! is never older than the event; resume after restarts loses nothing unseen.

use pharos_tests::{
    check::ledger::covers,
    process::{
        browser::Browser,
        client::{Client, EventStream},
        node::Node,
        wait::until,
    },
};

fn version_of(event: &pharos_tests::client::sse::Event) -> String {
    let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON data");
    data["version"].as_str().expect("a version").to_owned()
}

fn declare(node: &Node, title: &str) -> String {
    let body = format!(
        "{{\"title\":\"{title}\",\"status\":\"investigating\",\"impact\":\"minor\",\"message\":\"m\"}}"
    );
    let reply = node.api("POST", "/v1/pages/demo/incidents", &body, &[]);
    assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
    reply.field("pharos-version").expect("a version").to_owned()
}

/// A node, its edge's host, a connection to it, and a stream of the demo page that has begun.
fn watched() -> (Node, String, Client, EventStream) {
    let node = Node::up(&[]);
    let host = node.edge.to_string();
    let client = Client::connect(node.edge).expect("connects");
    let mut stream =
        Client::connect(node.edge).expect("connects").into_stream(&host, "/demo/events", "");
    until("the stream has begun", 10, || stream.next_event().map(|_| ()));
    (node, host, client, stream)
}

#[test]
fn an_incident_by_cli_reaches_an_open_stream_and_the_page() {
    let node = Node::up(&[]);
    let host = node.edge.to_string();
    let client = Client::connect(node.edge).expect("connects");
    let mut stream = client.into_stream(&host, "/demo/events", "");
    assert_eq!(stream.status(), 200);
    until("the stream has begun", 10, || stream.next_event().map(|_| ()));
    node.cli(&[
        "incident",
        "create",
        "--page",
        "demo",
        "--title",
        "Lighthouse lamp dim",
        "--status",
        "investigating",
        "--component",
        "api=major_outage",
        "--message",
        "Looking at it",
    ]);
    let event = stream.next_told().expect("an event");
    assert_eq!(event.name, "incident");
    assert!(event.data.contains("Lighthouse lamp dim"), "{}", event.data);
    let page = Client::connect(node.edge).expect("connects").get(&host, "/demo/");
    let text = String::from_utf8_lossy(&page.body).into_owned();
    assert!(text.contains("Lighthouse lamp dim"));
    assert!(covers(page.field("pharos-version").expect("versioned"), &version_of(&event)));
}

#[test]
fn the_second_request_of_a_page_is_a_hit_until_the_next_incident() {
    let node = Node::up(&[]);
    let host = node.edge.to_string();
    let mut client = Client::connect(node.edge).expect("connects");
    // What `up` itself has created may still be purging the page.
    until("the page is a hit", 10, || {
        let page = client.get(&host, "/demo/");
        (page.field("x-cache-status") == Some("HIT")).then_some(())
    });
    declare(&node, "Beacon unlit");
    // A page fetched before its purge has arrived is already the new one, and the purge still ends
    // it: so the rule is a hit that shows the incident, not the first answer that does.
    until("a hit that shows it", 10, || {
        let page = client.get(&host, "/demo/");
        let shows = String::from_utf8_lossy(&page.body).contains("Beacon unlit");
        (shows && page.field("x-cache-status") == Some("HIT")).then_some(())
    });
    // Nothing is changing now: it stays a hit.
    assert_eq!(client.get(&host, "/demo/").field("x-cache-status"), Some("HIT"));
}

#[test]
fn a_component_that_changes_its_slug_is_the_same_row_of_the_page() {
    let (node, host, mut client, mut stream) = watched();
    let body = r#"{"slug":"beacon","name":"Beacon"}"#;
    assert_eq!(node.api("POST", "/v1/pages/demo/components", body, &[]).status, 201);
    let row_of = |event: &pharos_tests::client::sse::Event| {
        let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON data");
        let text = |name: &str| data["component"][name].as_str().expect("a text").to_owned();
        format!(r#"<li data-id="{}" data-slug="{}""#, text("id"), text("slug"))
    };
    let before = row_of(&stream.next_told().expect("an event"));
    assert!(before.ends_with(r#"data-slug="beacon""#), "{before}");
    let body = r#"{"slug":"lantern","status":"major_outage"}"#;
    assert_eq!(node.api("PATCH", "/v1/pages/demo/components/beacon", body, &[]).status, 200);
    let event = stream.next_told().expect("an event");
    // What the script finds the row by is what the page and the event have in common.
    let after = row_of(&event);
    assert_eq!(after, before.replace("beacon", "lantern"));
    let page = client.get(&host, "/demo/");
    assert!(covers(page.field("pharos-version").expect("versioned"), &version_of(&event)));
    let text = String::from_utf8_lossy(&page.body).into_owned();
    assert!(text.contains(&after) && !text.contains("beacon"), "{text}");
}

#[test]
fn an_open_page_in_a_browser_shows_a_component_once_under_its_new_slug() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(browser) = Browser::start(folder.path()) else {
        println!("SKIPPED an_open_page_in_a_browser_shows_a_component_once: no chromium here");
        return;
    };
    let node = Node::up(&[]);
    let page = browser.open(&format!("http://{}/demo/", node.edge));
    let wait_for = |what: &str, script: &str| {
        until(what, 60, || (page.run(script)? == true).then_some(()));
    };
    wait_for("the page is live", "document.getElementById('live').dataset.state === 'live'");
    assert_eq!(
        page.run("window.kept = document.querySelectorAll('#components > li').length > 1"),
        Some(true.into())
    );
    assert!(
        page.run("window.count = document.querySelectorAll('#components > li').length").is_some()
    );
    let body = r#"{"slug":"renamed","status":"major_outage"}"#;
    assert_eq!(node.api("PATCH", "/v1/pages/demo/components/api", body, &[]).status, 200);
    let shown = "document.querySelector('[data-slug=renamed]')?.dataset.status === 'major_outage'";
    wait_for("the row has its new slug", shown);
    let once = "window.kept === true && !document.querySelector('[data-slug=api]') \
                && document.querySelectorAll('#components > li').length === window.count";
    assert_eq!(page.run(once), Some(true.into()), "by its own script, and no row twice");
}

#[test]
fn versions_that_will_never_come_keep_nobody_from_the_page_of_an_event() {
    let (node, host, mut client, mut stream) = watched();
    let version = client.get(&host, "/demo/").field("pharos-version").expect("one").to_owned();
    let forged = format!("{version}999");
    let mut waiting: Vec<Client> =
        (0..520).map(|_| Client::connect(node.edge).expect("connects")).collect();
    for (nth, client) in waiting.iter_mut().enumerate() {
        let fields = [("Pharos-Min-Version", &*forged), ("Authorization", "x")];
        client.ask("GET", &host, "/demo/", &fields[..1 + nth % 2]);
    }
    declare(&node, "Fog");
    let told = version_of(&stream.next_told().expect("an event"));
    for _ in 0..8 {
        let page = client.get(&host, "/demo/");
        let is_new = page.field("pharos-version").is_some_and(|version| covers(version, &told));
        assert!(page.status == 200 && is_new, "{} {:?}", page.status, page.fields);
    }
    for client in &mut waiting {
        let reply = client.answer().expect("an answer");
        assert_eq!((reply.status, reply.field("retry-after")), (503, Some("1")));
    }
}

#[test]
fn a_stream_resumes_without_gap_after_control_was_killed() {
    let node = Node::up(&[]);
    let host = node.edge.to_string();
    let mut stream =
        Client::connect(node.edge).expect("connects").into_stream(&host, "/demo/events", "");
    let first = until("the stream has begun", 10, || stream.next_event());
    assert!(!first.id.is_empty(), "the first event gives a cursor: {first:?}");
    let mut seen = Vec::new();
    for round in 0..5 {
        let version = declare(&node, &format!("incident {round}"));
        let event = stream.next_told().expect("an event");
        assert_eq!(event.name, "incident");
        assert!(covers(&version_of(&event), &version));
        seen.push(event.id.clone());
        node.kill_role("control");
        until("control is back", 30, || {
            let mut client = Client::connect(node.api).ok()?;
            client.ask("GET", "x", "/healthz", &[]);
            client.answer().ok().filter(|reply| reply.status == 200)
        });
    }
    // The edge's process never changed, so the one stream saw all five, each once.
    seen.dedup();
    assert_eq!(seen.len(), 5);
    // Resumed at the first of them, another stream gets exactly the other four.
    let mut again =
        Client::connect(node.edge).expect("connects").into_stream(&host, "/demo/events", &seen[0]);
    let resumed: Vec<String> = (0..4).map(|_| again.next_told().expect("an event").id).collect();
    assert_eq!(resumed, seen[1..]);
}

#[test]
fn an_edge_restarted_without_control_serves_its_pages_stale_and_tells_the_gap() {
    let node = Node::up(&[]);
    let host = node.edge.to_string();
    let mut client = Client::connect(node.edge).expect("connects");
    declare(&node, "remember me");
    until("the page shows it", 10, || {
        let page = client.get(&host, "/demo/");
        String::from_utf8_lossy(&page.body).contains("remember me").then_some(())
    });
    let mut stream =
        Client::connect(node.edge).expect("connects").into_stream(&host, "/demo/events", "");
    let cursor = until("a cursor", 10, || stream.next_event()).id;
    until("the edge has kept the page", 20, || node.has_kept(b"remember me").then_some(()));
    // Control is kept down by stopping its supervisor's view of it: both roles are killed, only the
    // edge is restarted.
    let edge_config = node.folder.path().join("data/edge.toml");
    assert!(edge_config.exists(), "up writes the edge's configuration");
    let (folder, admin, edge) = (node.folder.path().to_owned(), node.admin, node.edge);
    let mut node = node;
    node.process.kill();
    until("both roles are gone", 20, || Client::connect(edge).is_err().then_some(()));
    let mut alone = pharos_tests::process::node::Process::start(
        &folder,
        "edge-alone",
        &["edge", "--config", "data/edge.toml"],
    );
    until("the edge serves alone", 30, || {
        pharos_tests::process::node::get(admin, "/readyz").ok().filter(|reply| reply.status == 200)
    });
    let page = Client::connect(edge).expect("connects").get(&host, "/demo/");
    assert_eq!(page.status, 200);
    assert_eq!(page.field("x-cache-status"), Some("STALE"));
    assert!(String::from_utf8_lossy(&page.body).contains("remember me"));
    let mut resumed =
        Client::connect(edge).expect("connects").into_stream(&host, "/demo/events", &cursor);
    assert_eq!(resumed.status(), 200);
    let told = resumed.next_event().expect("a beat or a gap");
    assert!(["gap", "beat"].contains(&told.name.as_str()), "{told:?}");
    alone.kill();
}
