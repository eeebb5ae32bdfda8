//! Streams that stop reading, on real processes: each policy does what it says, nothing is missed
//! untold, and those who read get everything.

#![expect(clippy::disallowed_types, reason = "a socket with a small buffer")]

use std::net::{SocketAddr, TcpStream};

use pharos_tests::process::{
    client::{Client, EventStream},
    node::{Node, get},
    wait::until,
};
use socket2::{Domain, Protocol, Socket, Type};

const HOST: &str = "live.example";
const POLICIES: [&str; 4] = ["follow", "conflate", "skip", "disconnect"];
/// Events of a request.
const BATCH: usize = 4;
/// Bytes of an event: a topic's history holds about ten.
const PAD_BYTES: usize = 50_000;
/// More than any socket holds, in requests.
const BATCHES_MAX: usize = 1000;

fn node() -> Node {
    let node = Node::up(&[]);
    let route = |slow: &str| {
        format!(
            r#"{{"prefix": "/{slow}/", "policy": "stream", "stream": {{"topics": ["t"], "slow": "{slow}"}}}}"#
        )
    };
    let site = format!(
        r#"{{"name": "live", "hosts": ["{HOST}"], "origins": [{{"url": "http://127.0.0.1:9"}}],
        "routes": [{}]}}"#,
        POLICIES.map(route).join(",")
    );
    let reply = node.api("POST", "/v1/sites", &site, &[]);
    assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
    node
}

/// A connection that holds little, so that its other side soon has to wait.
fn narrow(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    socket.connect(&to.into()).expect("the edge listens");
    socket.into()
}

/// Opens a stream as soon as the shard that takes the connection knows the route.
fn open(node: &Node, policy: &str, connect: fn(SocketAddr) -> TcpStream) -> EventStream {
    let mut stream = until("a stream", 60, || {
        let client = Client::over(connect(node.edge)).expect("options are set");
        let mut stream = client.into_stream(HOST, &format!("/{policy}/t"), "");
        // Any other answer is whole at once: then nothing more comes.
        stream.set_patience_ms(1_000);
        let is_open = stream.status() == 200;
        stream.set_patience_ms(60_000);
        is_open.then_some(stream)
    });
    assert_eq!(stream.next_event().expect("a beat").name, "beat");
    stream
}

fn wide(to: SocketAddr) -> TcpStream {
    TcpStream::connect(to).expect("the edge listens")
}

fn publish(node: &Node, numbers: std::ops::Range<usize>) {
    let pad = "x".repeat(PAD_BYTES);
    let event = |n: usize| format!(r#"{{"key": "k", "data": {{"n": {n}, "pad": "{pad}"}}}}"#);
    let events: Vec<String> = numbers.map(event).collect();
    let body = format!(r#"{{"events": [{}]}}"#, events.join(","));
    let reply = node.api("POST", "/v1/topics/t/events", &body, &[]);
    assert_eq!(reply.status, 202, "{}", String::from_utf8_lossy(&reply.body));
}

/// What a stream is told up to event `last`, or its end: numbers of events, `None` for a gap.
fn told(stream: &mut EventStream, last: usize) -> Vec<Option<usize>> {
    let mut told = Vec::new();
    while let Some(event) = stream.next_told() {
        if event.name == "gap" {
            told.push(None);
            continue;
        }
        let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        let n = data["n"].as_u64().expect("a number") as usize;
        told.push(Some(n));
        if n == last {
            break;
        }
    }
    told
}

/// The same, up to a gap.
fn told_until_gap(stream: &mut EventStream) -> Vec<Option<usize>> {
    let mut told = Vec::new();
    loop {
        let event = stream.next_told().expect("told of a gap");
        if event.name == "gap" {
            told.push(None);
            return told;
        }
        let data: serde_json::Value = serde_json::from_str(&event.data).expect("JSON");
        told.push(data["n"].as_u64().map(|n| n as usize));
    }
}

/// Whether everything from the first event on is there, or a gap stands in its place.
fn is_chain(told: &[Option<usize>]) -> bool {
    let mut next = 0;
    let mut gap = false;
    told.iter().all(|event| match event {
        None => {
            gap = true;
            true
        }
        Some(n) => {
            let follows = *n == next || (gap && *n > next);
            (next, gap) = (n + 1, false);
            follows
        }
    })
}

fn metric(node: &Node, name: &str) -> u64 {
    let reply = get(node.admin, "/metrics").expect("metrics");
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn each_policy_for_slow_streams_does_what_it_says_and_others_get_everything() {
    let node = node();
    let [mut follow, mut conflate, mut skip, mut disconnect] =
        POLICIES.map(|policy| open(&node, policy, narrow));
    let mut reader = open(&node, "follow", wide);
    let mut all = Vec::new();
    // Until those who do not read have filled their sockets, and what is published then has left
    // the history. Whoever reads has read before more comes.
    let mut left = 6;
    for batch in 0..BATCHES_MAX {
        publish(&node, batch * BATCH..(batch + 1) * BATCH);
        all.extend(told(&mut reader, batch * BATCH + BATCH - 1));
        let blocked = metric(&node, "pharos_streams_blocked");
        left -= usize::from(blocked == 3);
        if left == 0 {
            break;
        }
    }
    let last = all.len() - 1;
    assert_eq!(all, (0..=last).map(Some).collect::<Vec<_>>(), "whoever reads gets everything");
    assert_eq!(left, 0, "three are blocked, one is closed");
    for policy in POLICIES {
        let name = format!(r#"pharos_streams_slow_total{{policy="{policy}"}}"#);
        assert!(metric(&node, &name) >= 1, "{name}");
    }
    let status = get(node.admin, "/v1/status").expect("a status").body;
    let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
    // Each shard has a history of this topic, and a little of the demo page.
    let bound = status["shards"].as_u64().expect("a number") * (512 + 64) * 1024;
    assert!(metric(&node, "pharos_history_bytes") <= bound, "one history, for all of them");

    let told_follow = told(&mut follow, last);
    assert!(is_chain(&told_follow) && told_follow.contains(&None), "{told_follow:?}");
    let told_conflate = told(&mut conflate, last);
    assert!(is_chain(&told_conflate), "{told_conflate:?}");
    let behind_gap = |told: &[Option<usize>]| told.rsplit(Option::is_none).next().map(<[_]>::len);
    assert!(behind_gap(&told_follow) >= Some(4), "the history: {told_follow:?}");
    assert_eq!(behind_gap(&told_conflate), Some(1), "the newest of the key: {told_conflate:?}");
    // It is told of the gap before anything else is published, then it is as everyone.
    let mut told_skip = told_until_gap(&mut skip);
    publish(&node, last + 1..last + 2);
    told_skip.extend(told(&mut skip, last + 1));
    assert_eq!(told_skip[told_skip.len() - 2..], [None, Some(last + 1)]);
    assert!(is_chain(&told_skip), "{told_skip:?}");
    // It never comes to the last one, and goes on with its cursor elsewhere.
    let mut told_both = told(&mut disconnect, last);
    assert!(is_chain(&told_both) && !told_both.contains(&Some(last)), "{told_both:?}");
    let client = Client::connect(node.edge).expect("the edge listens");
    let mut again = client.into_stream(HOST, "/disconnect/t", disconnect.last_event_id());
    told_both.extend(told(&mut again, last + 1));
    assert!(is_chain(&told_both), "{told_both:?}");
    assert_eq!(told_both.last(), Some(&Some(last + 1)));
}
