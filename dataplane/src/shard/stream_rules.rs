//! What the shard promises to those who ask for a stream, as tests through the seam; each is named
//! by its rule.

use super::{
    observe::Metric,
    testing::{End, STREAMS_MAX, World, page},
};
use crate::{
    limits,
    seam::{Close, Control},
};

const EVENTS: &str = "GET /demo/events HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn with_accept(path: &str, accept: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: status.example\r\nAccept: {accept}\r\n\r\n")
}

/// Asks on a connection of its own.
fn ask(world: &mut World, request: &str) -> (End, String) {
    let client = world.connect(0);
    world.say(client, request);
    let answer = world.take(client);
    (client, answer)
}

/// The stream was refused in the one way that a browser's `EventSource` comes back from.
fn check_refused(world: &mut World, client: End, answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("Content-Type: text/event-stream\r\n"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    let retry_ms = body.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n"));
    let retry_ms: u64 = retry_ms.and_then(|text| text.parse().ok()).expect("only a `retry:`");
    assert!((limits::RETRY_MS / 2..=limits::RETRY_MS * 3 / 2).contains(&retry_ms), "{retry_ms}");
    assert_eq!(world.peer(client).close, Some(Close::Graceful));
}

#[test]
fn without_a_configuration_a_stream_is_refused_by_200_retry_and_a_close() {
    let mut world = World::unconfigured(1);
    let mut retries = std::collections::HashSet::new();
    for request in [
        EVENTS,
        &with_accept("/events", "*/*"),
        &with_accept("/any/path", "text/event-stream"),
        &with_accept("/demo/events", "text/html, Text/Event-Stream;q=0.9"),
    ] {
        let (client, answer) = ask(&mut world, request);
        check_refused(&mut world, client, &answer);
        retries.insert(answer.rsplit("retry: ").next().map(str::to_owned));
    }
    assert!(retries.len() > 1, "jittered, so that not all come back at once");
    assert_eq!(world.metric(Metric::StreamsRefused), 4);
}

#[test]
fn without_a_configuration_everything_but_a_stream_is_told_to_come_again() {
    let mut world = World::unconfigured(1);
    for request in [
        &with_accept("/demo/", "text/html"),
        &with_accept("/demo/events", "application/json, text/plain, */*"),
        &EVENTS.replace("GET", "HEAD"),
        &EVENTS.replace("GET", "DELETE"),
    ] {
        let (client, answer) = ask(&mut world, request);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{request}: {answer}");
        assert!(answer.contains("Retry-After: 1\r\n") && !world.peer(client).closed, "{answer}");
    }
}

#[test]
fn a_stream_is_refused_for_good_only_where_no_such_topic_can_exist() {
    let mut world = World::unconfigured(1);
    let mut unnameable = page();
    unnameable.slug = "long".to_owned();
    unnameable.id = "i".repeat(limits::TOPIC_NAME_BYTES_MAX);
    world.configure(Vec::new(), vec![page(), unnameable]);
    for path in ["/other/events", "/long/events"] {
        let (_, answer) = ask(&mut world, &with_accept(path, "text/event-stream"));
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    let (client, answer) = ask(&mut world, EVENTS);
    assert!(answer.contains("event: beat") || answer.contains("retry: "), "{answer}");
    assert!(!world.peer(client).closed, "open");
}

#[test]
fn a_stream_beyond_the_limit_is_refused_by_200_retry_and_a_close() {
    let mut world = World::with_control(1);
    for _ in 0..STREAMS_MAX {
        let (client, _) = ask(&mut world, EVENTS);
        assert!(!world.peer(client).closed);
    }
    let (client, answer) = ask(&mut world, EVENTS);
    check_refused(&mut world, client, &answer);
    assert_eq!(world.metric(Metric::StreamsRefused), 1);
}

#[test]
fn a_draining_edge_refuses_a_stream_by_200_retry_and_a_close() {
    let mut world = World::with_control(1);
    let client = world.connect(0);
    // Its head has begun, so that the drain waits for the rest of it.
    let (first, rest) = EVENTS.split_at(10);
    world.say(client, first);
    world.control(Control::Drain);
    world.say(client, rest);
    let answer = world.take(client);
    check_refused(&mut world, client, &answer);
}
