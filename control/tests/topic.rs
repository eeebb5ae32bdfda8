//! Publishing to topics over real sockets: durable, once, in order, told to edges; what is kept of
//! it, and when a publisher is told to wait.

mod support;

use proto::feed::record::{Publish, Record};
use serde_json::json;
use support::{Client, Control, FeedEvent};

fn key(client: &Client, scope: &str) -> Client {
    let reply = client.post("/v1/keys", json!({"name": scope, "scopes": [scope]})).expect(201);
    client.with_key(&reply.text("/key"))
}

fn head(control: &Control) -> u64 {
    control.app().store.writer.head().borrow().position
}

fn events(told: &[FeedEvent]) -> Vec<Publish> {
    let publish = |event: &FeedEvent| match &event.record {
        Record::Publish(publish) if !publish.topic.starts_with("page/") => Some(publish.clone()),
        _ => None,
    };
    told.iter().filter_map(publish).collect()
}

#[test]
fn an_event_is_told_to_edges_with_the_one_before_it_in_its_topic() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    let publisher = key(client, "publish");
    let feed = key(client, "edge").feed(None, "");
    feed.next();
    let reply = publisher.post("/v1/topics/orders%2Feu/events", json!({"data": {"a": 1}}));
    assert_eq!(reply.expect(202).text("/topic"), "orders/eu");
    let batch = json!({"events": [
        {"event": "price", "key": "AAPL", "data": "1\n2"}, {"event": "price", "data": "x"},
    ]});
    let reply = publisher.post("/v1/topics/prices/events", batch).expect(202);
    assert_eq!(reply.body["events"].as_array().map(Vec::len), Some(2));
    publisher.post("/v1/topics/orders%2Feu/events", json!({"data": "last"})).expect(202);
    let told = events(&feed.upto(head(&control)));
    let seen: Vec<_> = told.iter().map(|e| (&*e.topic, &*e.event, &*e.data)).collect();
    assert_eq!(
        seen,
        [
            ("orders/eu", "message", r#"{"a":1}"#),
            ("prices", "price", "1\n2"),
            ("prices", "price", "x"),
            ("orders/eu", "message", "last"),
        ]
    );
    assert_eq!(told[1].key.as_deref(), Some("AAPL"));
    assert_eq!(told[3].prev, told[0].dot.seq);
    assert_eq!((told[1].prev, told[2].prev), (0, told[1].dot.seq));
    let topics = control.app().counters.topics.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(topics, 2);
    let list = client.get("/v1/topics?limit=1").expect(200);
    assert_eq!(
        (list.text("/items/0/topic"), list.body["items"][0]["events"].clone()),
        ("orders/eu".into(), json!(2))
    );
    let next = format!("/v1/topics?cursor={}", list.text("/next_cursor"));
    assert_eq!(client.get(&next).expect(200).text("/items/0/topic"), "prices");
    control.stop();
}

#[test]
fn an_event_with_an_idempotency_key_is_published_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let publish = |data: &str| {
        let fields = [("idempotency-key", "k1")];
        control.client.request("POST", "/v1/topics/t/events", &fields, &json!({"data": data}))
    };
    let first = publish("a").expect(202);
    let again = publish("a").expect(202);
    assert_eq!(first.body, again.body);
    assert_eq!(again.header("idempotency-replayed"), "true");
    publish("b").expect(422);
    let topic = control.client.get("/v1/topics/t").expect(200);
    assert_eq!(topic.body["events"], 1);
    control.stop();
}

#[test]
fn what_cannot_be_an_event_is_refused_with_every_mistake_named_and_a_batch_as_a_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    let before = head(&control);
    for (topic, body, pointer) in [
        ("page%2Fx", json!({"data": "x"}), "{topic}"),
        ("a%20b", json!({"data": "x"}), "{topic}"),
        ("t", json!({}), "/data"),
        ("t", json!({"data": "x", "event": "gap"}), "/event"),
        ("t", json!({"data": "x".repeat(65_537)}), "/data"),
        ("t", json!({"events": []}), "/events"),
        ("t", json!({"events": [{"data": "x"}, {"key": "k"}]}), "/events/1/data"),
        ("t", json!({"events": vec![json!({"data": 1}); 101]}), "/events"),
        ("t", json!({"data": "x", "evnt": "y"}), "/evnt"),
    ] {
        let reply = client.post(&format!("/v1/topics/{topic}/events"), body).expect(422);
        assert_eq!(reply.text("/errors/0/pointer"), pointer, "{}", reply.body);
    }
    let reader = key(client, "read");
    reader.post("/v1/topics/t/events", json!({"data": "x"})).expect(403);
    assert_eq!(head(&control), before + 1, "only the API key was made");
    control.stop();
}

#[test]
fn events_leave_after_their_minutes_but_for_the_newest_of_each_event_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    let feed = key(client, "edge");
    let old = feed.feed(None, "").next().id.expect("a cursor");
    client.post("/v1/topics/a/events", json!({"data": "k", "key": "k"})).expect(202);
    for nth in 0..3 {
        client.post("/v1/topics/a/events", json!({"data": nth})).expect(202);
    }
    client.post("/v1/topics/b/events", json!({"data": "b"})).expect(202);
    let compact = |feed_ms: u64| {
        let cutoff = pharos_control::reconcile::retention::Cutoff {
            log_ms: 0,
            feed_ms,
            idempotency_ms: 0,
            event_ms: u64::MAX >> 20,
        };
        let writer = &control.app().store.writer;
        while control.block_on(writer.compact(cutoff)).expect("compacts") > 0 {}
    };
    compact(0);
    let mut snapshot = feed.feed(Some(&old.to_string()), "");
    let first = snapshot.next();
    assert!(matches!(first.record, Record::Snapshot(_)), "it cannot know what it missed");
    let refilled = events(&snapshot.upto(head(&control)));
    let kept: Vec<_> = refilled.iter().map(|event| &*event.data).collect();
    assert_eq!(kept, ["k", "2", "b"]);
    let lone: Vec<_> = refilled.iter().map(|event| event.lone).collect();
    assert_eq!(lone, [true, false, false], "others are missing behind the first");
    assert_eq!(client.get("/v1/topics/a").expect(200).body["events"], 4);
    // When the feed lets go of the newest too, the topic is forgotten, its last number is not.
    let last = refilled[2].dot.seq;
    compact(u64::MAX >> 20);
    client.get("/v1/topics/a").expect(404);
    snapshot = feed.feed(None, "");
    snapshot.next();
    client.post("/v1/topics/a/events", json!({"data": "new"})).expect(202);
    assert_eq!(events(&snapshot.upto(head(&control)))[0].prev, last);
    control.stop();
}

#[test]
fn a_stream_route_names_topics_and_a_site_never_shows_its_secrets() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA";
    let site = |routes: serde_json::Value| {
        json!({"name": "shop", "hosts": ["s.example"], "origins": [{"url": "http://127.0.0.1:80"}],
            "routes": [routes], "token_keys": [{"id": "k1", "alg": "HS256", "key": secret}]})
    };
    for (route, pointer) in [
        (json!({"prefix": "/l/", "policy": "stream"}), "/routes/0/stream"),
        (
            json!({"prefix": "/l/", "policy": "cache", "stream": {"topics": ["a"]}}),
            "/routes/0/stream",
        ),
        (
            json!({"prefix": "/l/", "policy": "stream", "stream": {"topics": ["page/*"]}}),
            "/routes/0/stream/topics/0",
        ),
        (
            json!({"prefix": "/l/", "policy": "stream", "stream": {"topics": ["a"], "slow": "x"}}),
            "/routes/0/stream/slow",
        ),
    ] {
        let reply = client.post("/v1/sites", site(route)).expect(422);
        assert_eq!(reply.text("/errors/0/pointer"), pointer, "{}", reply.body);
    }
    let stream = json!({"topics": ["orders/*"], "slow": "skip", "private": true, "age_s_max": 60});
    let made = client
        .post("/v1/sites", site(json!({"prefix": "/l/", "policy": "stream", "stream": stream})))
        .expect(201);
    assert_eq!(made.text("/routes/0/stream/slow"), "skip");
    let read = client.get("/v1/sites/shop").expect(200);
    assert_eq!(read.text("/token_keys/0/id"), "k1");
    assert!(!read.body.to_string().contains(secret) && !made.body.to_string().contains(secret));
    control.stop();
}

#[test]
fn publishers_are_told_to_wait_before_anyone_else_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    let counters = &control.app().counters;
    // Retention's first round, at some time after the start, counts anew what is kept; the next one
    // is ten minutes away.
    let refused = std::iter::repeat_with(|| {
        counters.events_kept.store(4_000_000, std::sync::atomic::Ordering::Relaxed);
        client.post("/v1/topics/t/events", json!({"data": 1}))
    });
    let reply = refused.take(3).find(|reply| reply.status == 429).expect("control refuses");
    assert_eq!(reply.header("retry-after"), "60");
    client.post("/v1/pages", json!({"slug": "demo", "name": "Demo"})).expect(201);
    assert_eq!(counters.publish_refused.load(std::sync::atomic::Ordering::Relaxed), 1);
    control.stop();
}
