//! The feed over real sockets: order, resume from every position, other stores, compaction, older
//! copies of control.

mod support;

use std::{collections::BTreeMap, path::Path};

use proto::feed::{
    cursor::VersionVector,
    record::{Publish, Record, Scope, Snapshot},
};
use serde_json::{Value, json};
use support::{Client, Control, FeedEvent, wait_until};

fn edge_key(client: &Client) -> Client {
    let reply = client.post("/v1/keys", json!({"name": "e", "scopes": ["edge"]})).expect(201);
    client.with_key(&reply.text("/key"))
}

fn demo(client: &Client) {
    client.post("/v1/pages", json!({"slug": "demo", "name": "Demo"})).expect(201);
    client.post("/v1/pages/demo/components", json!({"slug": "api", "name": "API"})).expect(201);
}

fn incidents(client: &Client, count: usize) {
    for nth in 0..count {
        let body = json!({"title": format!("T{nth}"), "components": {"api": "major_outage"}});
        client.post("/v1/pages/demo/incidents", body).expect(201);
    }
}

fn head(control: &Control) -> u64 {
    control.app().store.writer.head().borrow().position
}

fn publishes(events: &[FeedEvent]) -> Vec<Publish> {
    events
        .iter()
        .filter_map(|event| match &event.record {
            Record::Publish(publish) => Some(publish.clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_feed_without_cursor_gets_snapshot_refill_and_then_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    demo(client);
    incidents(client, 3);
    let feed = edge_key(client).feed(None, "");
    assert!(matches!(feed.any().expect("open").record, Record::Beat(_)), "a beat at once");
    let first = feed.next();
    let Record::Snapshot(snapshot) = &first.record else { panic!("{first:?}") };
    assert!(snapshot.last && snapshot.part == 0);
    assert_eq!(snapshot.pages[0].slug, "demo");
    let cursor = first.id.expect("the last part has a cursor");
    assert_eq!(cursor.position, head(&control));
    let refilled = publishes(&feed.upto(cursor.position));
    assert_eq!(refilled.len(), 5);
    assert!(refilled.iter().all(|publish| publish.refill));
    incidents(client, 1);
    let live = feed.until(|event| event.id.is_some());
    let kinds: Vec<_> = live.iter().map(|event| event.record.kind()).collect();
    assert_eq!(kinds, ["purge", "publish"]);
    assert_eq!(live.iter().filter(|event| event.id.is_some()).count(), 1);
    let Record::Publish(publish) = &live[1].record else { panic!("last is publish") };
    assert_eq!(publish.event, "incident");
    assert_eq!(publish.prev, refilled.last().expect("some").dot.seq);
    let data: Value = serde_json::from_str(&publish.data).expect("JSON");
    assert_eq!(data["page"], "demo");
    assert_eq!(data["status"]["indicator"], "critical");
    assert_eq!(data["incident"]["components"]["api"], "major_outage");
    assert_eq!(data["version"].as_str(), Some(publish.version.to_string().as_str()));
    let after = &live[1].id.as_ref().expect("cursor").applied;
    assert!(after.covers(&publish.version));
    control.stop();
}

#[test]
fn a_feed_resumes_at_every_position_without_gap_or_repetition() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    let edge = edge_key(client);
    let feed = edge.feed(None, "");
    let start = feed.next().id.expect("cursor");
    demo(client);
    incidents(client, 6);
    let site = json!({"name": "shop", "hosts": ["s.example"],
        "origins": [{"url": "http://127.0.0.1:80"}]});
    client.post("/v1/sites", site).expect(201);
    client.post("/v1/purges", json!({"site": "shop", "all": true})).expect(202);
    client.delete("/v1/sites/shop").expect(204);
    client.delete("/v1/pages/demo").expect(204);
    let all = feed.upto(head(&control));
    let mut cursors = vec![(0, start)];
    for (nth, event) in all.iter().enumerate() {
        cursors.extend(event.id.clone().map(|id| (nth + 1, id)));
    }
    assert!(cursors.len() > 10);
    for (after, cursor) in cursors {
        let resumed = edge.feed(Some(&cursor.to_string()), "").upto(head(&control));
        assert_eq!(resumed, all[after..], "after {cursor}");
    }
    let last = publishes(&all).last().expect("some").clone();
    let mut prev = BTreeMap::from([(last.topic.clone(), 0)]);
    for publish in publishes(&all) {
        assert_eq!(prev.insert(publish.topic.clone(), publish.dot.seq), Some(publish.prev));
    }
    control.stop();
}

#[test]
fn history_is_sent_again_on_request_without_cursors() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    let edge = edge_key(client);
    demo(client);
    incidents(client, 2);
    let at = control.app().store.writer.head().borrow().cursor();
    let feed = edge.feed(Some(&at.to_string()), "?history=1");
    let events = feed.upto(at.position);
    assert_eq!(publishes(&events).len(), 4);
    assert_eq!(events.len(), 4, "nothing but history");
    assert!(events.iter().all(|event| event.id.is_none()));
    control.stop();
}

#[test]
fn a_cursor_of_another_store_resumes_by_its_vector() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    let edge = edge_key(client);
    let feed = edge.feed(None, "");
    feed.next();
    demo(client);
    incidents(client, 3);
    let all = feed.upto(head(&control));
    let known = all.iter().filter_map(|event| event.id.clone()).nth(2).expect("cursor");
    let foreign = format!("00000000000000aa.999999.{}", known.applied);
    let resumed = edge.feed(Some(&foreign), "").upto(head(&control));
    let at = all.iter().position(|event| event.id.as_ref() == Some(&known)).expect("there");
    assert_eq!(resumed, all[at + 1..]);
    control.stop();
}

/// Copies a data directory's files as they are, as an operator with `cp` would.
fn copy(from: &Path, to: &Path) {
    for name in ["control.db", "control.db-wal", "epoch", "admin.key"] {
        let _ = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).expect("copied");
        }
    }
}

#[test]
fn an_older_copy_of_control_is_noticed_and_the_edge_resyncs() {
    let (dir, kept) = (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
    let control = Control::start(dir.path());
    let edge = edge_key(&control.client);
    demo(&control.client);
    control.stop();
    copy(dir.path(), kept.path());
    let control = Control::start(dir.path());
    let edge_now = control.client.with_key(&edge.key);
    incidents(&control.client, 3);
    let feed = edge_now.feed(None, "");
    let cursor = feed.next().id.expect("cursor");
    control.stop();
    copy(kept.path(), dir.path());
    let control = Control::start(dir.path());
    let replica = control.app().store.writer.head().borrow().replica;
    assert_eq!(cursor.applied.get(replica), 0, "a new incarnation");
    let feed = control.client.with_key(&edge.key).feed(Some(&cursor.to_string()), "");
    // By whose word the edge knows what of this region is lost, and what is all there is.
    let mut told = feed.next();
    while let Record::Snapshot(Snapshot { last: false, .. }) = &told.record {
        told = feed.next();
    }
    let Record::Snapshot(last) = &told.record else { panic!("{told:?}") };
    assert_eq!(last.replica, Some(replica));
    assert!(!told.id.expect("a cursor").applied.covers(&cursor.applied));
    let current = std::iter::from_fn(|| feed.any()).find_map(|told| match told.record {
        Record::Beat(beat) if told.id.is_some() => Some(beat),
        _ => None,
    });
    assert_eq!(current.expect("a beat with a cursor").replica, Some(replica));
    control.stop();
}

#[test]
fn an_edge_that_knows_more_of_this_replica_makes_control_a_new_incarnation() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    let edge = edge_key(client);
    demo(client);
    let other = edge.feed(None, "");
    let other_cursor = other.next().id.expect("cursor");
    let before = control.app().store.writer.head().borrow().clone();
    let seq = before.applied.get(before.replica) + 5;
    let ahead = format!("{}.{}.{}:{seq}", before.store, before.position + 5, before.replica);
    let feed = edge.feed(Some(&ahead), "");
    assert!(matches!(feed.next().record, Record::Snapshot(_)));
    let after = control.app().store.writer.head().borrow().clone();
    assert!(after.store != before.store && after.replica != before.replica);
    assert_eq!(after.position, before.position);
    while other.any().is_some() {}
    incidents(client, 1);
    let resumed = edge.feed(Some(&other_cursor.to_string()), "").upto(head(&control));
    assert_eq!(publishes(&resumed).len(), 1, "a feed that was right goes on by vector");
    let first = &publishes(&resumed)[0];
    assert_eq!((first.dot.replica, first.dot.seq, first.prev), (after.replica, 1, 0));
    let metrics = control.app().counters.render(0);
    assert!(metrics.contains("pharos_control_incarnations_total 1\n"), "{metrics}");
    control.stop();
}

#[test]
fn a_feed_below_the_retained_range_gets_a_snapshot() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    let edge = edge_key(client);
    let feed = edge.feed(None, "");
    let old = feed.next().id.expect("cursor");
    demo(client);
    incidents(client, 2);
    let all = feed.upto(head(&control));
    let cutoff = pharos_control::reconcile::retention::Cutoff {
        log_ms: u64::MAX >> 20,
        feed_ms: u64::MAX >> 20,
        idempotency_ms: 0,
        event_ms: 0,
    };
    let writer = &control.app().store.writer;
    while control.block_on(writer.compact(cutoff)).expect("compacts") > 0 {}
    let resumed = edge.feed(Some(&old.to_string()), "").next();
    assert!(matches!(resumed.record, Record::Snapshot(_)));
    let last = all.last().and_then(|event| event.id.clone()).expect("cursor");
    incidents(client, 1);
    let resumed = edge.feed(Some(&last.to_string()), "").upto(head(&control));
    assert_eq!(publishes(&resumed).len(), 1, "the newest position is still known");
    let foreign = format!("00000000000000aa.1.{}", old.applied);
    let resumed = edge.feed(Some(&foreign), "").next();
    assert!(matches!(resumed.record, Record::Snapshot(_)));
    assert_eq!(client.get("/v1/pages/demo").expect(200).text("/slug"), "demo");
    control.stop();
    // State outlives its log: it lies in the base.
    let control = Control::start(dir.path());
    let list = control.client.get("/v1/pages/demo/incidents").expect(200);
    assert_eq!(list.body["items"].as_array().map(Vec::len), Some(3));
    control.stop();
}

#[test]
fn a_revoked_edge_loses_its_feed_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    let made = client.post("/v1/edges", json!({"name": "one"})).expect(201);
    let feed = client.with_key(&made.text("/key")).feed(None, "");
    feed.next();
    let connected = || client.get("/v1/edges/one").body["connected"].as_bool();
    assert_eq!(connected(), Some(true));
    client.delete("/v1/edges/one").expect(204);
    while feed.any().is_some() {}
    wait_until("the feed is counted as closed", || {
        control.app().counters.render(0).contains("pharos_control_feeds 0\n")
    });
    control.stop();
}

#[test]
fn a_slow_edge_is_read_from_the_log_and_misses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    demo(client);
    let feed = edge_key(client).slow_feed(None, "", 1);
    let cursor = feed.next().id.expect("cursor");
    // Far more than the sockets and the feed's buffer hold, while nobody reads.
    let text = "x".repeat(16 * 1024);
    for _ in 0..250 {
        let body = json!({"title": "T", "message": text, "status": "resolved"});
        client.post("/v1/pages/demo/incidents", body).expect(201);
    }
    let events = publishes(&feed.upto(head(&control)));
    let live: Vec<_> = events.iter().filter(|publish| !publish.refill).collect();
    assert_eq!(live.len(), 250, "after {cursor}");
    assert!(live.windows(2).all(|pair| pair[1].prev == pair[0].dot.seq));
    control.stop();
}

#[test]
fn a_version_is_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    demo(&control.client);
    let app = control.app();
    let head = app.store.writer.head().borrow().clone();
    assert!(control.block_on(app.wait_for(&head.applied)));
    let next: VersionVector =
        format!("{}:{}", head.replica, head.applied.get(head.replica) + 1).parse().expect("valid");
    let client = control.client.clone();
    let writes = std::thread::Builder::new().spawn(move || incidents(&client, 1)).expect("thread");
    assert!(control.block_on(app.wait_for(&next)), "comes within the wait");
    writes.join().expect("written");
    let never: VersionVector = "us-00000001:1".parse().expect("valid");
    assert!(!control.block_on(app.wait_for(&never)));
    control.stop();
}

#[test]
fn a_purge_of_a_removed_site_reaches_everything_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    let feed = edge_key(client).feed(None, "");
    feed.next();
    let site = json!({"name": "shop", "hosts": ["s.example"],
        "origins": [{"url": "http://127.0.0.1:80"}]});
    let id = client.post("/v1/sites", site).expect(201).text("/id");
    client.delete("/v1/sites/shop").expect(204);
    let events = feed.until(|event| matches!(event.record, Record::Purge(_)));
    let Record::Purge(purge) = &events.last().expect("some").record else { panic!("purge") };
    assert_eq!(purge.scope, Scope::Site { site: id });
    assert!(!purge.soft);
    control.stop();
}
