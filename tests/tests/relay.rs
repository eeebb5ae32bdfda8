//! Edges that follow another edge instead of control, on real processes: their streams get every
//! event once, whatever becomes of the edge in between, and purges are confirmed by all.

use std::{fs, net::SocketAddr, time::Duration};

use pharos_tests::process::{
    client::{Client, EventStream},
    cluster::Cluster,
    load::metric,
    node::{Process, get},
    wait::{free_address, until},
};
use serde_json::Value;

const HOST: &str = "live.example";
const KEY: &str = "a-key-that-edges-of-one-pop-share";

/// A stream of one edge that comes back with its cursor, and counts.
struct Watcher {
    address: SocketAddr,
    stream: EventStream,
    seen: u64,
}

impl Watcher {
    fn open(address: SocketAddr) -> Self {
        // Its first beat gives it a cursor.
        let stream = until("a stream has begun", 60, || {
            let mut stream = open(address, "");
            stream.next_event().map(|_| stream)
        });
        Self { address, stream, seen: 0 }
    }

    /// Reads on until it has this event.
    fn read_to(&mut self, number: u64) {
        until("all events", 120, || {
            while self.seen < number {
                let Some(event) = self.stream.next_told() else {
                    self.stream = open(self.address, self.stream.last_event_id());
                    return None;
                };
                assert_eq!(event.name, "n", "no gap, nothing else: {event:?}");
                let told: u64 = event.data.parse().expect("a number");
                assert_eq!(told, self.seen + 1, "every event once, in order");
                self.seen = told;
            }
            Some(())
        });
    }
}

fn open(address: SocketAddr, cursor: &str) -> EventStream {
    until("the edge takes a stream", 60, || {
        let mut stream = Client::connect(address).ok()?.into_stream(HOST, "/live/t", cursor);
        match stream.status() {
            0 => None,
            200 => Some(stream),
            status => panic!("{status} ends an EventSource for good"),
        }
    })
}

/// Control, and edges of which the first relays to the others.
struct Tree {
    cluster: Cluster,
    published: u64,
}

impl Tree {
    fn start() -> Self {
        let mut cluster = Cluster::start(&[Duration::ZERO; 3]);
        let relay = free_address();
        for at in 0..3 {
            let text = match at {
                0 => format!("[relay]\nlisten = \"{relay}\"\nkey_file = \"relay.key\"\n"),
                // Behind [control], which is the last section.
                _ => format!("via = [\"http://{relay}\"]\nvia_key_file = \"relay.key\"\n"),
            };
            let folder = cluster.folder.path().join(format!("edge-{at}"));
            fs::write(folder.join("relay.key"), KEY).expect("written");
            let file = folder.join("edge.toml");
            let old = fs::read_to_string(&file).expect("the edge's file");
            fs::write(&file, format!("{old}{text}")).expect("written");
            cluster.edges[at].process.kill();
        }
        let mut tree = Self { cluster, published: 0 };
        (0..3).for_each(|at| tree.start_edge(at));
        tree
    }

    fn start_edge(&mut self, at: usize) {
        let name = format!("edge-{at}");
        let file = self.cluster.folder.path().join(&name).join("edge.toml").display().to_string();
        let arguments = ["edge", "--config", &file];
        let process = Process::start(self.cluster.folder.path(), &name, &arguments);
        self.cluster.edges[at].process = process;
    }

    fn status(&self, at: usize) -> Option<Value> {
        let reply = get(self.cluster.edges[at].admin, "/v1/status").ok()?;
        serde_json::from_slice(&reply.body).ok()
    }

    /// Until an edge follows control through these.
    fn wait_for_path(&self, at: usize, path: &[&str]) {
        let what = format!("edge-{at} follows through {path:?}");
        until(&what, 120, || {
            let feed = self.status(at)?["feed"].take();
            let fits = feed["connected"] == true && feed["path"] == serde_json::json!(path);
            fits.then_some(())
        });
    }

    fn publish(&mut self, watchers: &mut [Watcher]) {
        for _ in 0..3 {
            self.published += 1;
            let data = self.published.to_string();
            let event = ["topic", "publish", "--topic", "t", "--event", "n", "--data", &data];
            self.cluster.cli(&event);
        }
        watchers.iter_mut().for_each(|watcher| watcher.read_to(self.published));
    }

    fn purge(&self, flags: &[&str]) -> Value {
        let words = ["purge", "--site", "live", "--url", "/x", "-o", "json"];
        serde_json::from_str(&self.cluster.cli(&[&words, flags].concat())).expect("JSON")
    }

    fn receipt(&self, id: &str) -> Option<Value> {
        let key = fs::read_to_string(self.cluster.key_file()).expect("an admin key");
        let bearer = format!("Bearer {}", key.trim());
        let mut client = Client::connect(self.cluster.api).ok()?;
        let fields = [("Authorization", bearer.as_str()), ("Connection", "close")];
        client.ask("GET", &self.cluster.api.to_string(), &format!("/v1/purges/{id}"), &fields);
        serde_json::from_slice(&client.answer().ok()?.body).ok()
    }

    fn declare(&self, title: &str) {
        let words = ["incident", "create", "--page", "demo", "--status", "investigating"];
        let more = ["--component", "api=major_outage", "--message", "m", "--title", title];
        self.cluster.cli(&[&words[..], &more].concat());
    }
}

#[test]
fn streams_of_edges_that_follow_another_get_every_event_once_whatever_becomes_of_it() {
    let mut tree = Tree::start();
    for at in 1..3 {
        tree.wait_for_path(at, &["edge-0"]);
    }
    let origin = ["--origin", "http://127.0.0.1:9", "--route", "/live/=stream:t"];
    let site = ["site", "create", "--name", "live", "--host", HOST];
    tree.cluster.cli(&[&site[..], &origin].concat());
    for edge in &tree.cluster.edges {
        until("the edge has the site", 60, || {
            let mut client = Client::connect(edge.address).ok()?;
            client.ask("HEAD", HOST, "/live/t", &[("Connection", "close")]);
            client.answer().ok().filter(|reply| reply.status == 200)
        });
    }
    let places: Vec<_> = tree.cluster.edges.iter().map(|edge| edge.address).collect();
    let mut watchers: Vec<_> =
        [1, 1, 2, 2].into_iter().map(|at| Watcher::open(places[at])).collect();
    tree.publish(&mut watchers);

    // A page is not older than its event, and every edge confirms a purge.
    let client = Client::connect(places[1]).expect("a connection");
    let mut page = client.into_stream(&places[1].to_string(), "/demo/events", "");
    assert_eq!(page.next_event().expect("a beat").name, "beat");
    tree.declare("Through another edge");
    let event = page.next_told().expect("an event");
    assert_eq!(event.name, "incident", "{event:?}");
    let html = get(places[1], "/demo/").expect("an answer");
    assert!(String::from_utf8_lossy(&html.body).contains("Through another edge"));
    let receipt = tree.purge(&["--wait"]);
    assert_eq!(receipt["complete"], true, "{receipt}");
    assert_eq!(receipt["edges"].as_array().map(Vec::len), Some(3));
    let list: Value =
        serde_json::from_str(&tree.cluster.cli(&["edge", "list", "-o", "json"])).expect("JSON");
    let listed = list.as_array().or_else(|| list["items"].as_array()).expect("edges");
    let told = until("control says who follows whom", 60, || {
        let text = tree.cluster.cli(&["edge", "list"]);
        (text.matches("edge-0").count() == 3).then_some(text)
    });
    assert_eq!(listed.len(), 3, "{told}");

    // The edge in between dies: the others go on by control, without a gap.
    tree.cluster.edges[0].process.kill();
    tree.publish(&mut watchers);
    for at in 1..3 {
        tree.wait_for_path(at, &[]);
    }
    let ordered = tree.purge(&[]);
    let id = ordered["id"].as_str().expect("an id").to_owned();
    until("the two that are there have confirmed", 60, || {
        let receipt = tree.receipt(&id)?;
        let applied = |name: &str| {
            let edges = receipt["edges"].as_array()?;
            edges.iter().find(|edge| edge["name"] == name)?["applied"].as_bool()
        };
        let others = applied("edge-1")? && applied("edge-2")?;
        assert_eq!((receipt["complete"].clone(), applied("edge-0")), (false.into(), Some(false)));
        others.then_some(())
    });

    // It is back, and followed again.
    tree.start_edge(0);
    for at in 1..3 {
        tree.wait_for_path(at, &["edge-0"]);
    }
    tree.publish(&mut watchers);
    let metrics = get(tree.cluster.edges[0].admin, "/metrics").expect("metrics");
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(metrics.contains("pharos_relay_children 2\n"), "{metrics}");

    // Control is gone, and an edge that has lost everything starts from the other one.
    tree.cluster.kill_control();
    tree.cluster.edges[2].process.kill();
    let kept = tree.cluster.folder.path().join("edge-2/pharos-edge");
    fs::remove_dir_all(&kept).expect("what the edge kept");
    tree.start_edge(2);
    until("it has its configuration", 60, || {
        get(tree.cluster.edges[2].admin, "/readyz").ok().filter(|reply| reply.status == 200)
    });
    // Who has seen everything is told nothing twice there.
    let cursor = watchers[2].stream.last_event_id().to_owned();
    let mut late = Watcher { stream: open(places[2], &cursor), ..watchers.remove(2) };
    tree.cluster.restart_control();
    tree.publish(std::slice::from_mut(&mut late));
}

#[test]
fn who_has_no_key_follows_control() {
    let mut tree = Tree::start();
    tree.wait_for_path(1, &["edge-0"]);
    tree.cluster.edges[1].process.kill();
    fs::write(tree.cluster.folder.path().join("edge-1/relay.key"), "another").expect("written");
    let parent = tree.cluster.edges[0].admin;
    let before = metric(parent, "pharos_relay_refused_total");
    tree.start_edge(1);
    tree.wait_for_path(1, &[]);
    assert!(metric(parent, "pharos_relay_refused_total") > before, "the parent was asked");
}

impl Tree {
    fn post(&self, path: &str, body: &str) {
        let key = fs::read_to_string(self.cluster.key_file()).expect("an admin key");
        let bearer = format!("Bearer {}", key.trim());
        let mut client = Client::connect(self.cluster.api).expect("control listens");
        let fields = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        client.ask_with("POST", &self.cluster.api.to_string(), path, &fields, body.as_bytes());
        let reply = client.answer().expect("an answer");
        assert!((200..300).contains(&reply.status), "{}", String::from_utf8_lossy(&reply.body));
    }

    /// Publishes many events of a topic, and waits until every edge is behind them.
    fn publish_much(&self, topic: &str) {
        for _ in 0..MUCH_REQUESTS {
            let event = format!(r#"{{"data":"{}"}}"#, "x".repeat(MUCH_BYTES));
            let events = vec![event; MUCH_EVENTS].join(",");
            self.post(
                &format!("/v1/topics/{topic}/events"),
                &format!(r#"{{"events":[{events}]}}"#),
            );
        }
        // It stands behind them, and is confirmed by each edge's cursor.
        assert_eq!(self.purge(&["--wait"])["complete"], true);
    }

    fn parent(&self, name: &str) -> f64 {
        metric(self.cluster.edges[0].admin, name)
    }
}

const MUCH_REQUESTS: usize = 8;
const MUCH_EVENTS: usize = 10;
const MUCH_BYTES: usize = 20_000;

fn told(stream: &mut EventStream) -> String {
    let event = stream.next_told().expect("told");
    assert_eq!(event.name, "n", "no gap: {event:?}");
    event.data
}

#[test]
fn an_edge_is_sent_the_topics_that_its_streams_listen_to_and_no_others() {
    let tree = Tree::start();
    for at in 1..3 {
        tree.wait_for_path(at, &["edge-0"]);
    }
    let site = format!(
        r#"{{"name":"live","hosts":["{HOST}"],"origins":[{{"url":"http://127.0.0.1:9"}}],
        "routes":[{{"prefix":"/live/","policy":"stream",
        "stream":{{"topics":["*"],"snapshot":true}}}}]}}"#
    );
    tree.post("/v1/sites", &site);
    for edge in &tree.cluster.edges {
        until("the edge has the site", 60, || {
            let mut client = Client::connect(edge.address).ok()?;
            client.ask("HEAD", HOST, "/live/t", &[("Connection", "close")]);
            client.answer().ok().filter(|reply| reply.status == 200)
        });
    }
    for (key, data) in [("x", "1"), ("y", "2"), ("x", "3")] {
        let words = ["topic", "publish", "--topic", "t", "--event", "n", "--event-key", key];
        tree.cluster.cli(&[&words[..], &["--data", data]].concat());
    }
    for at in 1..3 {
        until("the edge has asked for topics", 60, || {
            let admin = tree.cluster.edges[at].admin;
            (metric(admin, "pharos_feed_filtered") == 1.0).then_some(())
        });
    }

    // Nobody listens at either edge: what is published costs neither of them its bytes.
    let (bytes, left_out) =
        (tree.parent("pharos_relay_sent_bytes_total"), tree.parent("pharos_relay_filtered_total"));
    tree.publish_much("other");
    let bytes = tree.parent("pharos_relay_sent_bytes_total") - bytes;
    let events = (MUCH_REQUESTS * MUCH_EVENTS) as f64;
    assert!(bytes < events * MUCH_BYTES as f64 / 4.0, "{bytes} bytes were sent on");
    assert_eq!(tree.parent("pharos_relay_filtered_total") - left_out, 2.0 * events);

    // Who comes late is told the present state, then all that comes: nothing twice, no gap.
    let places: Vec<_> = tree.cluster.edges.iter().map(|edge| edge.address).collect();
    let mut late = open(places[1], "");
    assert_eq!([told(&mut late), told(&mut late)], ["2", "3"]);
    assert_eq!(late.next_event().expect("a beat").name, "beat");
    let cursor = late.last_event_id().to_owned();
    for data in ["4", "5"] {
        let words = ["topic", "publish", "--topic", "t", "--event", "n", "--data", data];
        tree.cluster.cli(&words);
    }
    assert_eq!([told(&mut late), told(&mut late)], ["4", "5"]);
    assert!(tree.parent("pharos_relay_topics_begun_total") >= 1.0);

    // One that comes back to the other edge, where nobody has listened yet, gets what it missed.
    let mut resumed = open(places[2], &cursor);
    assert_eq!([told(&mut resumed), told(&mut resumed)], ["4", "5"]);

    // Of the topics, an edge is sent the one that its streams have asked for.
    let bytes = tree.parent("pharos_relay_sent_bytes_total");
    tree.publish_much("other");
    let bytes = tree.parent("pharos_relay_sent_bytes_total") - bytes;
    assert!(bytes < events * MUCH_BYTES as f64 / 4.0, "{bytes} bytes were sent on");
    tree.cluster.cli(&["topic", "publish", "--topic", "t", "--event", "n", "--data", "6"]);
    assert_eq!([told(&mut late), told(&mut resumed)], ["6", "6"]);
}
