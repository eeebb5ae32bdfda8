//! What the shard promises to those who ask for a stream, as tests through the seam; each is named
//! by its rule.

use super::{
    observe::Metric,
    testing::{End, STREAMS_MAX, World, page},
    token,
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

const LIVE: &str = r#"{"id": "s9", "name": "s9", "hosts": ["live.example"],
    "origins": [{"url": "http://127.0.0.1:9000"}], "routes": [
        {"prefix": "/live/", "policy": "stream", "stream": {"topics": ["orders/*", "news"]}},
        {"prefix": "/mine/", "policy": "stream", "stream": {"topics": ["*"], "private": true}}],
    "token_keys": [KEY]}"#;

fn with_live() -> World {
    with_live_on(1)
}

fn with_live_on(shards: u16) -> World {
    let key = serde_json::to_string(&token::tests::secret_key("k1")).expect("JSON");
    let site = serde_json::from_str(&LIVE.replace("KEY", &key)).expect("a site");
    let mut world = World::unconfigured(shards);
    world.configure(vec![site], Vec::new());
    world
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: live.example\r\n\r\n")
}

#[test]
fn a_site_has_streams_of_the_topics_that_its_route_names() {
    let mut world = with_live();
    for target in ["/live/orders/eu", "/live/?topic=news&topic=orders%2Feu", "/live/news?x=1"] {
        let (client, answer) = ask(&mut world, &get(target));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{target}: {answer}");
        assert!(answer.contains("event: beat") && !world.peer(client).closed, "{answer}");
    }
    assert_eq!(world.metric(Metric::Topics), 2);
    for (target, status) in [
        ("/live/other", 404),
        ("/live/", 404),
        ("/live/?topic=news&topic=other", 404),
        ("/live/page/p1", 404),
    ] {
        let (_, answer) = ask(&mut world, &get(target));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answer}");
        assert!(answer.contains("Cache-Control: no-store\r\n"));
    }
    let many: String = (0..17).map(|nth| format!("topic=orders/{nth}&")).collect();
    let (_, answer) = ask(&mut world, &get(&format!("/live/?{many}")));
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn a_private_topic_is_opened_by_a_token_for_it_and_closed_when_that_expires() {
    let mut world = with_live();
    let exp = world.now.wall_ms / 1000 + 30;
    let token = token::tests::hs256(&serde_json::json!({"exp": exp, "topics": ["mail/7"]}));
    let by_field = |target: &str, token: &str| {
        let request = get(target);
        let (line, rest) = request.split_once("\r\n").expect("a line");
        format!("{line}\r\nAuthorization: Bearer {token}\r\n{rest}")
    };
    for (request, status) in [
        (get("/mine/mail/7"), 401),
        (by_field("/mine/mail/7", "x.y.z"), 401),
        (by_field("/mine/mail/8", &token), 403),
        (get(&format!("/mine/?topic=mail/7&topic=mail/8&access_token={token}")), 403),
    ] {
        let (_, answer) = ask(&mut world, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert_eq!(answer.contains("WWW-Authenticate: Bearer"), status == 401, "{answer}");
        assert!(!answer.contains("text/event-stream"), "permanent: {answer}");
    }
    assert_eq!(world.metric(Metric::TokensRefused), 4);
    let (by_query, first) = ask(&mut world, &get(&format!("/mine/mail/7?access_token={token}")));
    let (by_head, second) = ask(&mut world, &by_field("/mine/mail/7", &token));
    assert!(first.contains("event: beat") && second.contains("event: beat"), "{first}{second}");
    world.wait_ms(29_000);
    assert!(!world.peer(by_query).closed && !world.peer(by_head).closed);
    world.wait_ms(2_000);
    for client in [by_query, by_head] {
        assert!(world.take(client).contains("event: expired"));
        assert_eq!(world.peer(client).close, Some(Close::Graceful));
    }
    assert_eq!(world.metric(Metric::StreamsExpired), 2);
}

#[test]
fn who_listens_to_a_topic_is_counted_over_all_shards_and_told_to_the_operator() {
    let mut world = with_live_on(2);
    let other = world.connect(1);
    world.say(other, &get("/live/news"));
    let (client, _) = ask(&mut world, &get("/live/?topic=news&topic=orders/eu"));
    world.wait_ms(limits::TALLY_EVERY_MS + limits::FEED_STATE_MS);
    let told = |world: &mut World| -> serde_json::Value {
        let operator = world.accept(1, 1);
        world.say(operator, "GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = world.take(operator);
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        serde_json::from_str::<serde_json::Value>(body).expect("JSON")["topics"].take()
    };
    let both = serde_json::json!([
        {"topic": "news", "streams": 2}, {"topic": "orders/eu", "streams": 1},
    ]);
    assert_eq!(told(&mut world), both);
    world.hang_up(client);
    world.wait_ms(limits::TALLY_EVERY_MS + limits::FEED_STATE_MS);
    assert_eq!(told(&mut world), serde_json::json!([{"topic": "news", "streams": 1}]));
}

#[test]
fn a_last_event_id_that_is_no_text_is_told_a_gap_as_any_other_garbage() {
    let mut world = World::with_control(1);
    let head = b"GET /demo/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: ".as_slice();
    for id in [b"garbage".as_slice(), b"\xff\xfe", b"\x80:1"] {
        let client = world.connect(0);
        world.say_bytes(client, &[head, id, b"\r\n\r\n"].concat());
        let answer = world.take(client);
        assert!(answer.contains("event: gap\n"), "{answer}");
    }
    for id in ["garbage", "%ff%fe"] {
        let get =
            format!("GET /demo/events?last_event_id={id} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (_, answer) = ask(&mut world, &get);
        assert!(answer.contains("event: gap\n"), "{id}: {answer}");
    }
    let (_, answer) = ask(&mut world, EVENTS);
    assert!(!answer.contains("event: gap\n"), "who begins has missed nothing: {answer}");
}

/// What the operator is told of the request with this id: the stream, and the whole record.
pub(super) fn explained(world: &mut World, id: &str) -> (serde_json::Value, serde_json::Value) {
    let operator = world.accept(0, 1);
    world.say(operator, &format!("GET /v1/explain/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let answer = world.take(operator);
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    let record: serde_json::Value = serde_json::from_str(body).expect(body);
    (record["stream"].clone(), record)
}

fn with_id(request: &str, id: &str) -> String {
    let head = request.strip_suffix("\r\n").expect("an empty line");
    format!("{head}X-Request-Id: {id}\r\n\r\n")
}

#[test]
fn a_request_for_a_stream_is_explained_whatever_came_of_it() {
    let mut world = with_live();
    let two = "/live/?topic=news&topic=orders%2Feu&last_event_id=garb%07age";
    for (id, request, status, decision, cursor, topics) in [
        ("one", get("/live/news"), 200, "open; 0 from history", None, &["news"][..]),
        (
            "two",
            get(two),
            200,
            "open; a gap; 0 from history",
            Some("garbage"),
            &["news", "orders/eu"],
        ),
        (
            "none",
            get("/live/?access_token=hunter2"),
            404,
            "refused: Name a topic, behind this path or as ?topic=, up to 16 times.",
            None,
            &[],
        ),
        ("other", get("/live/other"), 404, "refused: There is no such topic here.", None, &[]),
    ] {
        ask(&mut world, &with_id(&request, id));
        let (stream, record) = explained(&mut world, id);
        assert_eq!(stream["decision"], decision, "{record}");
        assert_eq!(stream["cursor"], serde_json::json!(cursor), "{record}");
        assert_eq!(stream["topics"], serde_json::json!(topics), "{record}");
        assert_eq!((&record["status"], &record["tier"]), (&status.into(), &"edge".into()));
        let url = record["key"]["text"].as_str().expect("a URL");
        assert!(url.starts_with("live.example/live/") && !url.contains("hunter2"), "{record}");
    }
    ask(&mut world, &with_id(&get("/mine/mail/7"), "token"));
    let (stream, record) = explained(&mut world, "token");
    let decision = stream["decision"].as_str().expect("a text");
    assert!(decision.starts_with("refused: ") && record["status"] == 401, "{record}");
    assert_eq!(stream["topics"], serde_json::json!(["mail/7"]));
    ask(&mut world, &with_id(&get("/elsewhere"), "origin"));
    assert!(explained(&mut world, "origin").0.is_null(), "no stream was asked for");
}

#[test]
fn a_stream_that_is_to_come_back_is_explained_with_the_reason() {
    let mut world = World::unconfigured(1);
    ask(&mut world, &with_id(EVENTS, "early"));
    let (stream, _) = explained(&mut world, "early");
    assert_eq!(stream["decision"], "refused, to come back: no configuration yet");
    let mut world = World::with_control(1);
    for _ in 0..STREAMS_MAX {
        ask(&mut world, EVENTS);
    }
    ask(&mut world, &with_id(EVENTS, "many"));
    let (stream, record) = explained(&mut world, "many");
    assert_eq!(stream["decision"], "refused, to come back: streams.max is reached", "{record}");
    assert_eq!(record["status"], 200);
}
