//! Control put back to an older state of itself, on real processes: everyone who watches is told,
//! and nobody is left waiting for what is not there any more.

use std::{fs, path::PathBuf, time::Duration};

use pharos_tests::{
    check::ledger::covers,
    client::sse::Event,
    process::{
        browser::{Browser, Page},
        client::{Client, EventStream},
        cluster::{Cluster, Edge},
        kept::{copy, put_back},
        wait::until,
    },
};
use serde_json::Value;

/// A cluster of so many edges, its data folder, and a copy of that as it was at the beginning.
fn begun(edges: usize) -> (Cluster, PathBuf, PathBuf) {
    let mut cluster = Cluster::start(&vec![Duration::ZERO; edges]);
    let data = cluster.folder.path().join("data");
    let kept = cluster.folder.path().join("kept");
    fs::create_dir(&kept).expect("a folder");
    cluster.kill_control();
    copy(&data, &kept);
    cluster.restart_control();
    (cluster, data, kept)
}

fn watch(edge: &Edge, last_event_id: &str) -> EventStream {
    let client = Client::connect(edge.address).expect("the edge listens");
    client.into_stream(&edge.address.to_string(), "/demo/events", last_event_id)
}

fn declare(cluster: &Cluster, title: &str) {
    let arguments = ["incident", "create", "--page", "demo", "--title", title];
    let rest = ["--status", "investigating", "--message", "m"];
    cluster.cli(&[&arguments[..], &rest[..]].concat());
}

fn field(event: &Event, name: &str) -> Value {
    serde_json::from_str::<Value>(&event.data).expect("JSON data")[name].clone()
}

fn version_of(event: &Event) -> String {
    field(event, "version").as_str().expect("a version").to_owned()
}

/// The page at a version, as whoever was told of it fetches it.
fn fetch(edge: &Edge, version: &str) -> String {
    until("the version that was told can be fetched", 30, || {
        let mut client = Client::connect(edge.address).ok()?;
        let fields = [("Pharos-Min-Version", version)];
        client.ask("GET", &edge.address.to_string(), "/demo/", &fields);
        let reply = client.answer().ok().filter(|reply| reply.status == 200)?;
        assert!(covers(reply.field("pharos-version").expect("a version"), version));
        Some(String::from_utf8_lossy(&reply.body).into_owned())
    })
}

fn check_gap(edge: &Edge, event: &Event, lost: &str) {
    assert_eq!(event.name, "gap", "{event:?}");
    assert_eq!(field(event, "reset"), Value::Bool(true), "{event:?}");
    let version = version_of(event);
    assert!(!covers(&version, lost) && !covers(&event.id, lost), "{event:?} names {lost}");
    assert!(!fetch(edge, &version).contains("Lost at sea"));
}

#[test]
fn whoever_watches_a_page_is_told_that_control_was_put_back() {
    let (mut cluster, data, kept) = begun(2);
    let mut streams: Vec<_> = cluster.edges.iter().map(|edge| watch(edge, "")).collect();
    for stream in &mut streams {
        until("the stream has begun", 30, || stream.next_event().map(|_| ()));
    }
    declare(&cluster, "Lost at sea");
    let lost: Vec<Event> =
        streams.iter_mut().map(|stream| stream.next_told().expect("an event")).collect();
    let version = version_of(&lost[0]);
    for edge in &cluster.edges {
        assert!(fetch(edge, &version).contains("Lost at sea"));
    }
    cluster.kill_control();
    put_back(&kept, &data);
    cluster.restart_control();
    for (edge, stream) in cluster.edges.iter().zip(&mut streams) {
        check_gap(edge, &stream.next_told().expect("told"), &version);
        // Who comes with it later is told as well.
        let mut late = watch(edge, &lost[0].id);
        check_gap(edge, &late.next_told().expect("told"), &version);
        assert!(!fetch(edge, "").contains("Lost at sea"));
    }
    declare(&cluster, "Found again");
    for (edge, stream) in cluster.edges.iter().zip(&mut streams) {
        let event = stream.next_told().expect("an event");
        assert!(event.name == "incident" && event.data.contains("Found again"), "{event:?}");
        let page = fetch(edge, &version_of(&event));
        assert!(page.contains("Found again") && !page.contains("Lost at sea"));
    }
}

#[test]
fn what_is_written_before_an_edge_comes_back_is_not_taken_for_what_was_lost() {
    let (mut cluster, data, kept) = begun(1);
    let mut stream = watch(&cluster.edges[0], "");
    until("the stream has begun", 30, || stream.next_event().map(|_| ()));
    let mut lost = String::new();
    for nth in 0..3 {
        declare(&cluster, &format!("Lost at sea {nth}"));
        lost = version_of(&stream.next_told().expect("an event"));
    }
    cluster.kill_control();
    put_back(&kept, &data);
    // The edge sleeps until more has been written than was lost.
    cluster.edges[0].process.signal("STOP");
    cluster.restart_control();
    for nth in 0..5 {
        declare(&cluster, &format!("Found again {nth}"));
    }
    cluster.edges[0].process.signal("CONT");
    check_gap(&cluster.edges[0], &stream.next_told().expect("told"), &lost);
    let page = fetch(&cluster.edges[0], "");
    assert!(page.contains("Found again 0") && page.contains("Found again 4"));
}

fn wait_for(page: &Page<'_>, what: &str, script: &str) {
    until(what, 60, || (page.run(script)? == true).then_some(()));
}

#[test]
fn an_open_page_in_a_browser_goes_back_with_control() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(browser) = Browser::start(folder.path()) else {
        println!("SKIPPED an_open_page_in_a_browser_goes_back_with_control: no chromium here");
        return;
    };
    let (mut cluster, data, kept) = begun(1);
    let page = browser.open(&format!("http://{}/demo/", cluster.edges[0].address));
    wait_for(&page, "the page is live", "document.getElementById('live').dataset.state === 'live'");
    assert_eq!(page.run("window.kept = true"), Some(Value::Bool(true)));
    let shows = |title: &str| format!("document.body.innerText.includes('{title}')");
    declare(&cluster, "Lost at sea");
    wait_for(&page, "the event is shown", &shows("Lost at sea"));
    cluster.kill_control();
    put_back(&kept, &data);
    cluster.restart_control();
    wait_for(&page, "what was lost goes away", &format!("!{}", shows("Lost at sea")));
    declare(&cluster, "Found again");
    wait_for(&page, "what comes then is shown", &shows("Found again"));
    // By its own script: nobody has loaded it again.
    let script = format!("window.kept === true && !{}", shows("Lost at sea"));
    assert_eq!(page.run(&script), Some(Value::Bool(true)));
    wait_for(&page, "it is live", "document.getElementById('live').dataset.state === 'live'");
}
