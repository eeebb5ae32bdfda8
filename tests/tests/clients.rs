//! Published clients of event streams, as their registries have them, on a real edge: each gets
//! every event once, through closed streams, a killed edge and a drain, and sees gaps and beats.
//!
//! The clients stand in `tests/clients`; the script `prepare` there fetches them into
//! `target/clients`. What this machine cannot have is skipped by name.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use pharos_tests::process::{
    browser::{Browser, Page},
    client::Client,
    files,
    node::{Node, get},
    wait::until,
};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Where `prepare` has put the clients of a kind; `None`, said by name, where it could not.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn prepared(test: &str, kind: &str) -> Option<PathBuf> {
    let script = root().join("tests/clients/prepare");
    let output = Command::new(script).arg(kind).output().expect("bash runs");
    if output.status.success() {
        return Some(root().join("target/clients").join(kind));
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("SKIPPED {test}: the clients of {kind} cannot be had here: {said}");
    None
}

#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn browser(test: &str, folder: &Path) -> Option<Browser> {
    let browser = Browser::start(folder);
    if browser.is_none() {
        println!("SKIPPED {test}: no chromium here");
    }
    browser
}

/// How a client is started on the stream at an address.
enum Published<'a> {
    /// A folder, and what is run in it; the address follows.
    Program(PathBuf, &'static [&'static str]),
    /// A page; what follows `#` is the stream.
    Page(&'a Browser, &'static str),
}

/// A client that was started, and what it has told.
struct Listener<'a> {
    way: Way<'a>,
    /// Streams it has opened.
    opened: usize,
    /// It has given up.
    closed: bool,
    /// It was told that its stream moves.
    moved: bool,
    /// Name, id and data.
    events: VecDeque<[String; 3]>,
    /// What the node says, for whoever reads why a test failed.
    log: PathBuf,
}

enum Way<'a> {
    Program(Child, Receiver<String>),
    Page(Page<'a>),
}

impl<'a> Listener<'a> {
    fn start(client: &Published<'a>, node: &Node, stream: &str) -> Self {
        let port = node.edge.port();
        let way = match client {
            Published::Page(browser, page) => {
                Way::Page(browser.open(&format!("http://localhost:{port}/{page}#{stream}")))
            }
            Published::Program(folder, words) => {
                let log = node.folder.path().join("client.err");
                let log = std::fs::OpenOptions::new().create(true).append(true).open(log);
                let program = match words[0].contains('/') {
                    true => folder.join(words[0]),
                    false => words[0].into(),
                };
                let mut child = Command::new(program)
                    .args(&words[1..])
                    .arg(format!("http://localhost:{port}{stream}"))
                    .current_dir(folder)
                    .stdout(Stdio::piped())
                    .stderr(log.expect("a log"))
                    .spawn()
                    .expect("the client starts");
                let told = BufReader::new(child.stdout.take().expect("a pipe"));
                let (give, take) = sync_channel(4096);
                let read =
                    move || told.lines().map_while(Result::ok).try_for_each(|line| give.send(line));
                thread::Builder::new().spawn(read).expect("a thread");
                Way::Program(child, take)
            }
        };
        Self {
            way,
            opened: 0,
            closed: false,
            moved: false,
            events: VecDeque::new(),
            log: node.folder.path().join("up.err"),
        }
    }

    /// Takes in what it has told since the last time.
    fn hear(&mut self) {
        let told: Vec<Value> = match &self.way {
            Way::Program(_, lines) => {
                lines.try_iter().map(|line| serde_json::from_str(&line).expect("JSON")).collect()
            }
            Way::Page(page) => {
                let told = page.run("told.splice(0)");
                told.and_then(|told| Some(told.as_array()?.clone())).unwrap_or_default()
            }
        };
        for one in told {
            self.opened += usize::from(one["open"] == true);
            self.closed |= one["closed"] == true;
            if one["name"].is_string() {
                let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
                self.events.push_back([text("name"), text("id"), text("data")]);
            }
        }
        assert!(!self.closed, "it has given up");
    }

    fn next(&mut self) -> [String; 3] {
        until("an event", 120, || {
            self.hear();
            self.events.pop_front()
        })
    }

    /// Ids of the numbers from `first` to `last`, each of which comes once and in order, with
    /// nothing else between but beats and words of a move.
    fn numbers(&mut self, first: usize, last: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while first + ids.len() <= last {
            let Some((n, id)) = self.number() else { panic!("a gap; the node:\n{}", self.log()) };
            assert_eq!(n, first + ids.len(), "the node:\n{}", self.log());
            ids.push(id);
        }
        ids
    }

    /// The same, but what is missing may be told by a gap.
    fn numbers_or_gaps(&mut self, first: usize, last: usize) {
        let (mut next, mut gap) = (first, false);
        while next <= last {
            match self.number() {
                None => gap = true,
                Some((n, _)) => {
                    let follows = n == next || (gap && n > next);
                    assert!(follows, "{n} instead of {next}; the node:\n{}", self.log());
                    (next, gap) = (n + 1, false);
                }
            }
        }
    }

    /// The next number and its id; `None` for a gap.
    fn number(&mut self) -> Option<(usize, String)> {
        loop {
            let [name, id, data] = self.next();
            match name.as_str() {
                "beat" => {}
                "migrate" => self.moved = true,
                "gap" => return None,
                _ => {
                    let data: Value = serde_json::from_str(&data).expect("JSON");
                    let n = data["n"].as_u64().filter(|_| name == "tick");
                    return Some((n.expect("a number") as usize, id));
                }
            }
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn opened_beyond(&mut self, count: usize) {
        until("the client has opened its stream again", 120, || {
            self.hear();
            (self.opened > count).then_some(())
        });
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        if let Way::Program(child, _) = &mut self.way {
            // It knows no other end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn routes(retry_ms: u32) -> String {
    format!(
        r#"{{"routes": [{{"prefix": "/live/", "policy": "stream",
            "stream": {{"topics": ["*"], "retry_ms": {retry_ms}}}}}]}}"#
    )
}

/// A node with a site of the host `localhost`: pages of the clients, and topics below `/live/`.
fn node(pages: PathBuf) -> Node {
    let node = Node::up(&[]);
    let origin = files::serve(pages);
    let site = format!(
        r#"{{"name": "live", "hosts": ["localhost"], "origins": [{{"url": "http://{origin}"}}]}}"#
    );
    for (method, path, body) in
        [("POST", "/v1/sites", site), ("PATCH", "/v1/sites/live", routes(200))]
    {
        let reply = node.api(method, path, &body, &[]);
        assert!(reply.status < 300, "{}", String::from_utf8_lossy(&reply.body));
    }
    // Every shard knows the route: an answer other than 200 ends a browser's stream for good.
    let shards = get(node.admin, "/v1/status").expect("a status").body;
    let shards: Value = serde_json::from_slice(&shards).expect("JSON");
    let shards = shards["shards"].as_u64().expect("a number");
    let mut in_turn = 0;
    until("every shard knows the route", 60, || {
        let client = Client::connect(node.edge).ok()?;
        let mut stream = client.into_stream("localhost", "/live/t", "");
        stream.set_patience_ms(2_000);
        in_turn = if stream.status() == 200 { in_turn + 1 } else { 0 };
        (in_turn > 16 * shards).then_some(())
    });
    node
}

fn publish(node: &Node, from: usize, to: usize) {
    let events: Vec<Value> =
        (from..=to).map(|n| json!({ "event": "tick", "data": { "n": n } })).collect();
    let body = json!({ "events": events }).to_string();
    let reply = node.api("POST", "/v1/topics/t/events", &body, &[]);
    assert_eq!(reply.status, 202, "{}", String::from_utf8_lossy(&reply.body));
}

fn drain(node: &Node, method: &str) {
    let mut client = Client::connect(node.admin).expect("the admin listener");
    client.ask(method, &node.admin.to_string(), "/v1/drain", &[("Content-Length", "0")]);
    assert_eq!(client.answer().expect("an answer").status, 202);
}

fn streams(node: &Node) -> Option<u64> {
    let status = get(node.admin, "/v1/status").ok()?.body;
    serde_json::from_slice::<Value>(&status).ok()?["streams"].as_u64()
}

/// The life of a stream as a client sees it.
fn check(client: &Published<'_>, node: &Node) {
    let mut listener = Listener::start(client, node, "/live/t");
    let [name, id, _] = listener.next();
    assert!(name == "beat" && !id.is_empty(), "the first is a beat that says where it begins");
    publish(node, 0, 2);
    let first = listener.numbers(0, 2).remove(0);
    assert!(!first.is_empty(), "an event has an id");

    // Its rules change: the stream is closed with a `retry:`, and comes back.
    let opened = listener.opened;
    let reply = node.api("PATCH", "/v1/sites/live", &routes(201), &[]);
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    publish(node, 3, 5);
    listener.opened_beyond(opened);
    publish(node, 6, 8);
    listener.numbers(3, 8);

    // The edge is killed, and what is published meanwhile waits in control. One that takes a stream
    // before it has heard from control all that was says so: a gap stands for what is left out.
    let opened = listener.opened;
    node.kill_role("edge");
    publish(node, 9, 11);
    listener.opened_beyond(opened);
    publish(node, 12, 14);
    listener.numbers_or_gaps(9, 14);

    // The edge drains: streams are told and end, the next ones are refused until it serves again.
    let opened = listener.opened;
    drain(node, "POST");
    until("the streams have ended", 60, || (streams(node)? == 0).then_some(()));
    publish(node, 15, 17);
    drain(node, "DELETE");
    listener.opened_beyond(opened);
    publish(node, 18, 20);
    listener.numbers(15, 20);
    assert!(listener.moved, "it was told of the move");

    // More than a history holds: who comes with a cursor from before is told a gap.
    for hundred in 0..3 {
        publish(node, 21 + hundred * 100, 120 + hundred * 100);
    }
    listener.numbers(21, 320);
    let mut late = Listener::start(client, node, &format!("/live/t?last_event_id={first}"));
    let [name, id, data] = late.next();
    assert!(name == "gap" && !id.is_empty(), "{name} {id} {data}");
    let [name, _, data] = late.next();
    let data: Value = serde_json::from_str(&data).expect("JSON");
    let next = data["n"].as_u64().filter(|_| name == "tick").expect("a number") as usize + 1;
    late.numbers(next, 320);
    // Its cursor moves on: it is not that of the address any more.
    let opened = late.opened;
    let reply = node.api("PATCH", "/v1/sites/live", &routes(202), &[]);
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    late.opened_beyond(opened);
    publish(node, 321, 323);
    late.numbers(321, 323);
    listener.numbers(321, 323);
}

#[test]
fn npm_eventsource_gets_every_event_once() {
    let Some(folder) = prepared("npm_eventsource_gets_every_event_once", "node") else { return };
    let node = node(folder.clone());
    check(&Published::Program(folder, &["node", "eventsource.mjs"]), &node);
}

#[test]
fn pypi_sseclient_py_gets_every_event_once() {
    let Some(folder) = prepared("pypi_sseclient_py_gets_every_event_once", "python") else {
        return;
    };
    let node = node(folder.clone());
    check(&Published::Program(folder, &["venv/bin/python", "with_sseclient.py"]), &node);
}

#[test]
fn pypi_httpx_sse_gets_every_event_once() {
    let Some(folder) = prepared("pypi_httpx_sse_gets_every_event_once", "python") else { return };
    let node = node(folder.clone());
    check(&Published::Program(folder, &["venv/bin/python", "with_httpx_sse.py"]), &node);
}

#[test]
fn crate_eventsource_client_gets_every_event_once() {
    let Some(folder) = prepared("crate_eventsource_client_gets_every_event_once", "rust") else {
        return;
    };
    let node = node(folder.clone());
    check(&Published::Program(folder, &["target/debug/published-client"]), &node);
}

#[test]
fn a_browsers_eventsource_gets_every_event_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = "a_browsers_eventsource_gets_every_event_once";
    let Some(browser) = browser(name, folder.path()) else { return };
    let node = node(root().join("tests/clients/node"));
    check(&Published::Page(&browser, "native.html"), &node);
}

#[test]
fn fetch_event_source_in_a_browser_gets_every_event_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = "fetch_event_source_in_a_browser_gets_every_event_once";
    let Some(browser) = browser(name, folder.path()) else { return };
    let Some(pages) = prepared(name, "node") else { return };
    let node = node(pages);
    check(&Published::Page(&browser, "fetch.html"), &node);
}
