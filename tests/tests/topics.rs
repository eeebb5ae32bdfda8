//! Customers' topics on real processes: published by the CLI and the API, listened to at a site's
//! own address, several on one stream, snapshots, tokens, and who listens.

use std::time::Duration;

use pharos_tests::process::{
    client::{Client, EventStream},
    node::Node,
    wait::until,
};
use proto::base64url;

const HOST: &str = "live.example";
const SECRET: [u8; 32] = [7; 32];

fn node() -> Node {
    let node = Node::up(&[]);
    let site = format!(
        r#"{{"name": "live", "hosts": ["{HOST}"], "origins": [{{"url": "http://127.0.0.1:9"}}],
        "routes": [
            {{"prefix": "/live/", "policy": "stream",
              "stream": {{"topics": ["orders/*", "prices"], "snapshot": true}}}},
            {{"prefix": "/mine/", "policy": "stream", "stream": {{"topics": ["*"], "private": true}}}}],
        "token_keys": [{{"id": "k1", "alg": "HS256", "key": "{}"}}]}}"#,
        base64url::encode(&SECRET)
    );
    let reply = node.api("POST", "/v1/sites", &site, &[]);
    assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
    node
}

/// Opens a stream as soon as the shard that takes the connection knows the route.
fn open(node: &Node, target: &str, last_event_id: &str) -> EventStream {
    until("a stream", 60, || {
        let client = Client::connect(node.edge).expect("the edge listens");
        let mut stream = client.into_stream(HOST, target, last_event_id);
        // Any other answer is whole at once: then nothing more comes.
        stream.set_patience_ms(1_000);
        let is_open = stream.status() == 200;
        stream.set_patience_ms(60_000);
        is_open.then_some(stream)
    })
}

/// Asks until the answer has this status: shards learn of the route one after the other.
fn check_status(node: &Node, target: &str, expected: u16) {
    until("the status", 60, || {
        let mut client = Client::connect(node.edge).expect("the edge listens");
        (client.get(HOST, target).status == expected).then_some(())
    });
}

fn publish(node: &Node, topic: &str, more: &[&str]) {
    node.cli(&[&["topic", "publish", "--topic", topic][..], more].concat());
}

#[test]
fn an_event_that_is_published_reaches_every_stream_of_its_topic_and_is_resumed() {
    let node = node();
    let mut one = open(&node, "/live/orders/eu", "");
    let mut both = open(&node, "/live/?topic=prices&topic=orders%2Feu", "");
    // The beat says where a stream begins.
    for stream in [&mut one, &mut both] {
        assert_eq!(stream.next_event().expect("a beat").name, "beat");
    }
    publish(&node, "orders/eu", &["--event", "created", "--data", r#"{"id": 7}"#]);
    publish(&node, "prices", &["--event-key", "AAPL", "--data", "201"]);
    let event = one.next_told().expect("told");
    assert_eq!((event.name.as_str(), event.data.as_str()), ("created", r#"{"id": 7}"#));
    let event = both.next_told().expect("told");
    assert_eq!(event.data, r#"{"id": 7}"#);
    let cursor = event.id;
    assert_eq!(both.next_told().expect("told").data, "201");
    let mut resumed = open(&node, "/live/?topic=prices&topic=orders/eu", &cursor);
    assert_eq!(resumed.next_told().expect("told").data, "201");
    // A fresh stream is told the present state first: of prices there is one.
    let mut fresh = open(&node, "/live/prices", "");
    let first = fresh.next_event().expect("told");
    assert_eq!((first.data.as_str(), first.id.as_str()), ("201", ""));
    assert_eq!(fresh.next_event().expect("a beat").name, "beat");
    let listening = until("control knows who listens", 20, || {
        let list = node.cli(&["topic", "list", "-o", "json"]);
        let list: serde_json::Value = serde_json::from_str(&list).ok()?;
        let streams = |at: usize| list.pointer(&format!("/{at}/streams"))?.as_u64();
        (streams(0) == Some(3) && streams(1) == Some(3)).then_some(list)
    });
    assert_eq!(listening[0]["topic"], "orders/eu");
    assert_eq!(listening[1]["events"], 1);
}

/// A token by hand: this test shares no code with what judges it but the base64url of its parts.
fn token(topics: &str, expires_in: Duration) -> String {
    let now = std::process::Command::new("date").arg("+%s").output().expect("a clock").stdout;
    let now: u64 = String::from_utf8_lossy(&now).trim().parse().expect("seconds");
    let part = |text: String| base64url::encode(text.as_bytes());
    let head = part(r#"{"alg":"HS256","typ":"JWT","kid":"k1"}"#.into());
    let claims = part(format!(r#"{{"exp":{},"topics":["{topics}"]}}"#, now + expires_in.as_secs()));
    let signed = format!("{head}.{claims}");
    let key = SECRET.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let sign = format!(
        "printf %s '{signed}' | openssl dgst -sha256 -mac HMAC -macopt hexkey:{key} -binary"
    );
    let tag =
        std::process::Command::new("sh").args(["-c", &sign]).output().expect("a shell").stdout;
    format!("{signed}.{}", base64url::encode(&tag))
}

#[test]
fn a_private_topic_needs_a_token_and_its_stream_ends_when_that_expires() {
    if std::process::Command::new("openssl").arg("version").output().is_err() {
        println!(
            "SKIPPED a_private_topic_needs_a_token_and_its_stream_ends_when_that_expires: no openssl here"
        );
        return;
    }
    let node = node();
    check_status(&node, "/mine/mail/7", 401);
    let long = token("mail/7", Duration::from_secs(3600));
    check_status(&node, &format!("/mine/mail/8?access_token={long}"), 403);
    let mut stream = open(&node, &format!("/mine/mail/7?access_token={long}"), "");
    assert_eq!(stream.next_event().expect("a beat").name, "beat");
    publish(&node, "mail/7", &["--data", "hello"]);
    assert_eq!(stream.next_told().expect("told").data, "hello");
    // However slow this machine is: one of them is opened before it expires.
    let (short, mut stream) = until("a stream by a short token", 60, || {
        let short = token("mail/7", Duration::from_secs(4));
        let client = Client::connect(node.edge).expect("the edge listens");
        let target = format!("/mine/mail/7?access_token={short}");
        let mut stream = client.into_stream(HOST, &target, "");
        (stream.status() == 200).then_some((short, stream))
    });
    stream.set_patience_ms(60_000);
    assert_eq!(stream.next_told().expect("told").name, "expired");
    assert!(stream.next_event().is_none(), "closed");
    check_status(&node, &format!("/mine/mail/7?access_token={short}"), 401);
    let log = node.log();
    assert!(!log.contains(&long) && !log.contains(&base64url::encode(&SECRET)), "{log}");
}
