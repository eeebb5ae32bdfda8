//! Several edges behind one moving address, on real processes: streams that come back like browsers
//! get every event once, whatever becomes of the edge that they were on; and streams that are led to
//! the edge that the circle prefers.

#![expect(clippy::disallowed_types, reason = "reads the head of a stream that goes on")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use pharos_tests::process::{
    address::MovingAddress,
    client::{Client, EventStream},
    cluster::{Cluster, Edge},
    node::{Process, get, run},
    wait::until,
};

const HOST: &str = "live.example";
const STREAMS: usize = 9;
/// Times that a stream comes back before a test gives up.
const RETURNS_MAX: usize = 200;

/// A stream that comes back with its cursor, and counts.
struct Watcher {
    address: SocketAddr,
    stream: EventStream,
    /// The newest event that it has.
    seen: u64,
    /// Times that it was told to go elsewhere.
    moved: usize,
}

impl Watcher {
    fn open(address: SocketAddr) -> Self {
        let stream = open(address, "");
        let mut watcher = Self { address, stream, seen: 0, moved: 0 };
        // Its first beat gives it a cursor.
        for _ in 0..RETURNS_MAX {
            match watcher.stream.next_event() {
                Some(_) => return watcher,
                None => watcher.stream = open(address, ""),
            }
        }
        panic!("no stream opens");
    }

    /// Reads on until it has this event, across any number of edges.
    fn read_to(&mut self, number: u64) {
        let mut returns = 0;
        while self.seen < number {
            match self.stream.next_told() {
                Some(event) if event.name == "migrate" => self.moved += 1,
                Some(event) => {
                    assert_eq!(event.name, "n", "no gap, nothing else: {event:?}");
                    let told: u64 = event.data.parse().expect("a number");
                    assert_eq!(told, self.seen + 1, "every event once, in order");
                    self.seen = told;
                }
                None => {
                    returns += 1;
                    assert!(returns < RETURNS_MAX, "{number} never comes");
                    self.stream = open(self.address, self.stream.last_event_id());
                }
            }
        }
    }
}

/// Opens a stream; a connection that led nowhere is tried again.
fn open(address: SocketAddr, cursor: &str) -> EventStream {
    for _ in 0..RETURNS_MAX {
        let Ok(client) = Client::connect(address) else { continue };
        let mut stream = client.into_stream(HOST, "/live/t", cursor);
        match stream.status() {
            // The connection ended before an answer: its edge died.
            0 => {}
            200 => return stream,
            status => panic!("{status} ends an EventSource for good"),
        }
    }
    panic!("no edge takes a stream");
}

/// Adds to an edge's file, and has it read again.
fn configure(cluster: &Cluster, name: &str, edge: &Edge, text: &str) {
    let file = cluster.folder.path().join(name).join("edge.toml");
    let old = fs::read_to_string(&file).expect("the edge's file");
    fs::write(&file, format!("{old}\n{text}")).expect("written");
    edge.process.signal("HUP");
    let log = cluster.folder.path().join(format!("{name}.err"));
    until("the file is read again", 60, || {
        fs::read_to_string(&log).ok()?.contains("was read again").then_some(())
    });
}

fn drain(edge: &Edge, flags: &[&str]) -> serde_json::Value {
    let admin = format!("http://{}", edge.admin);
    let output = run(&[&["edge", "drain", "--admin", &admin, "-o", "json"], flags].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "pharos edge drain {flags:?}: {said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn is_ready(edge: &Edge) -> bool {
    get(edge.admin, "/readyz").is_ok_and(|reply| reply.status == 200)
}

fn streams_of(edge: &Edge) -> u64 {
    let reply = get(edge.admin, "/v1/status").expect("a status");
    let status: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
    status["streams"].as_u64().expect("a number")
}

#[test]
fn streams_get_every_event_once_across_drains_their_undoing_and_a_kill() {
    let mut cluster = Cluster::start(&[Duration::ZERO; 3]);
    let route = "/live/=stream:t";
    cluster.cli(&[
        "site",
        "create",
        "--name",
        "live",
        "--host",
        HOST,
        "--origin",
        "http://127.0.0.1:9",
        "--route",
        route,
    ]);
    for edge in &cluster.edges {
        until("the edge has the site", 60, || {
            let mut client = Client::connect(edge.address).ok()?;
            client.ask("HEAD", HOST, "/live/t", &[("Connection", "close")]);
            client.answer().ok().filter(|reply| reply.status == 200)
        });
    }
    configure(&cluster, "edge-0", &cluster.edges[0], "[streams]\ndrain_per_s = 1000\n");
    let notice = "[timeouts]\ndrain_ms = 3600000\ndrain_notice_ms = 3599000\n";
    configure(&cluster, "edge-1", &cluster.edges[1], notice);
    let places = cluster.edges.iter().map(|edge| (edge.address, edge.admin)).collect();
    let address = MovingAddress::start(places);

    let mut watchers: Vec<_> = (0..STREAMS).map(|_| Watcher::open(address.address)).collect();
    let mut published = 0;
    let mut publish = |cluster: &Cluster, watchers: &mut Vec<Watcher>| {
        for _ in 0..3 {
            published += 1;
            let data = published.to_string();
            let event = ["topic", "publish", "--topic", "t", "--event", "n", "--data", &data];
            cluster.cli(&event);
        }
        watchers.iter_mut().for_each(|watcher| watcher.read_to(published));
    };
    publish(&cluster, &mut watchers);
    let began_with = streams_of(&cluster.edges[0]);
    assert!(began_with > 0, "in turn");

    // Drained: it is led to no more, everyone there is told to go, and it still answers.
    let report = drain(&cluster.edges[0], &["--wait"]);
    assert_eq!((&report["phase"], &report["streams"]["left"]), (&"drained".into(), &0.into()));
    assert!(!is_ready(&cluster.edges[0]));
    let page = get(cluster.edges[0].address, "/demo/").expect("an answer");
    assert_eq!((page.status, page.field("connection")), (200, Some("close")));
    let refused = Client::connect(cluster.edges[0].address).expect("accepted");
    let mut refused = refused.into_stream(HOST, "/live/t", "");
    assert_eq!(refused.status(), 200, "refused in a way that lets it come back");
    assert_eq!(refused.next_event(), None);
    publish(&cluster, &mut watchers);
    let moved: usize = watchers.iter().map(|watcher| watcher.moved).sum();
    assert_eq!((moved as u64, streams_of(&cluster.edges[0])), (began_with, 0));

    // Undone: it is led to again.
    assert_eq!(drain(&cluster.edges[0], &["--undo"])["phase"], "serving");
    assert!(is_ready(&cluster.edges[0]));
    publish(&cluster, &mut watchers);

    // Told to end, and called back.
    cluster.edges[1].process.signal("TERM");
    until("it says that it is not ready", 60, || (!is_ready(&cluster.edges[1])).then_some(()));
    let report = drain(&cluster.edges[1], &["--status"]);
    assert_eq!((&report["phase"], &report["ends"]), (&"noticed".into(), &true.into()));
    assert_eq!(drain(&cluster.edges[1], &["--undo"])["phase"], "serving");
    assert!(is_ready(&cluster.edges[1]) && cluster.edges[1].process.is_running());
    publish(&cluster, &mut watchers);

    // Killed.
    cluster.edges[2].process.kill();
    publish(&cluster, &mut watchers);
    assert!(streams_of(&cluster.edges[0]) > 0, "some came there");
}

/// The head of an answer to `GET`, whatever follows it.
fn head_of(edge: SocketAddr, host: &str, target: &str) -> Option<String> {
    let mut socket = TcpStream::connect(edge).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    socket.write_all(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).ok()?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    String::from_utf8(head).ok()
}

#[test]
fn a_stream_is_led_to_the_edge_that_the_circle_prefers_while_that_is_there() {
    let mut cluster = Cluster::start(&[Duration::ZERO; 2]);
    for at in 0..2 {
        let name = format!("edge-{at}");
        let file = cluster.folder.path().join(&name).join("edge.toml");
        let text = fs::read_to_string(&file).expect("the edge's file");
        let url = format!("url = \"http://{}\"\n", cluster.edges[at].address);
        fs::write(&file, url + &text).expect("written");
        cluster.edges[at].process.kill();
        let file = file.display().to_string();
        let arguments = ["edge", "--config", &file];
        cluster.edges[at].process = Process::start(cluster.folder.path(), &name, &arguments);
    }
    let site = r#"{"name": "live", "hosts": ["live.example"],
        "origins": [{"url": "http://127.0.0.1:9"}], "routes": [{"prefix": "/live/",
        "policy": "stream", "stream": {"topics": ["*"], "placement": "redirect"}}]}"#;
    let mut operator = cluster.operator();
    operator.send("/v1/sites", site);
    assert_eq!(operator.answer().expect("an answer").status, 201);

    let [first, second] = [0, 1].map(|at| cluster.edges[at].address);
    // Control tells who there is once edges have had the time to come.
    let topics: Vec<String> = (0..20).map(|number| format!("/live/t{number}")).collect();
    let (topic, head) = until("a stream is led", 120, || {
        topics.iter().find_map(|topic| {
            let head = head_of(first, HOST, topic)?;
            head.starts_with("HTTP/1.1 307 ").then_some((topic, head))
        })
    });
    let led = format!("/.pharos/at/{HOST}{topic}");
    assert!(head.contains(&format!("Location: http://{second}{led}\r\n")), "{head}");
    for edge in [second, first] {
        let head = head_of(edge, &edge.to_string(), &led).expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 "), "nobody is led on: {head}");
        assert!(head.contains("Access-Control-Allow-Origin: *\r\n"), "{head}");
    }
    cluster.edges[1].process.kill();
    until("the other one has it", 60, || {
        head_of(first, HOST, topic).filter(|head| head.starts_with("HTTP/1.1 200 "))
    });
}
