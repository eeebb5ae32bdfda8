//! Purges on real processes: a surrogate key of many entries under load, with a receipt; an edge
//! that is away makes a receipt incomplete, is named, and is told when it is back.
//!
//! Leaves to others: how long it takes, and what it does to requests meanwhile (`pharos bench
//! compare purge`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use pharos_tests::{
    client::http::Reply,
    process::{
        client::Client, cluster::Cluster, load::metric, node::Node, origin::Origin, wait::until,
    },
};

const HOST: &str = "shop.example";
/// Entries of one surrogate key.
const ENTRIES: usize = 100_000;
/// Requests that are outstanding on each connection that asks for all of them.
const BATCH: usize = 200;

#[test]
fn a_surrogate_key_of_many_entries_is_purged_under_load_and_its_memory_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let origin = Origin::start(folder.path());
    let node = Node::up(&["--shards", "2"]);
    let url = format!("http://{}", origin.address);
    node.cli(&["site", "create", "--name", "shop", "--host", HOST, "--origin", &url]);
    let kept = "/bytes/1000/kept?max_age=3600&key=others";
    until("the edge knows the site", 20, || {
        let mut client = Client::connect(node.edge).ok()?;
        (client.get(HOST, kept).status == 200).then_some(())
    });
    let before = held(&node);
    for_all(&node, "", |reply, entry| {
        assert_eq!((reply.status, label(reply)), (200, "MISS"), "{entry}");
    });
    let full = held(&node);
    assert_eq!(full.entries - before.entries, ENTRIES as f64);
    assert!(full.bytes - before.bytes > 200.0 * ENTRIES as f64, "{full:?}");
    let asking = Asking::start(node.edge, kept);
    until("the load runs", 20, || (asking.count() > 0).then_some(()));
    let asked = asking.count();
    let receipt = node.cli(&["purge", "--site", "shop", "--key", "spring", "--wait", "-o", "json"]);
    assert!(receipt.contains("\"complete\": true"), "{receipt}");
    until("hits went on meanwhile", 20, || (asking.count() > asked).then_some(()));
    // After the receipt no look-up returns what was purged, on any shard.
    for_all(&node, "Cache-Control: only-if-cached\r\n", |reply, entry| {
        assert_eq!(reply.status, 504, "{entry} is purged");
    });
    until("the memory is back", 60, || {
        let now = held(&node);
        let back = now.bytes - before.bytes <= 0.01 * (full.bytes - before.bytes);
        (now.entries == before.entries && back).then_some(())
    });
    asking.end();
    let mut client = Client::connect(node.edge).expect("connects");
    assert_eq!(label(&client.get(HOST, kept)), "HIT", "of another key");
}

#[test]
fn an_edge_that_is_away_is_named_and_told_when_it_is_back() {
    let cluster = Cluster::start(&[Duration::ZERO, Duration::ZERO]);
    let folder = tempfile::tempdir().expect("a folder");
    let origin = Origin::start(folder.path());
    let url = format!("http://{}", origin.address);
    cluster.cli(&["site", "create", "--name", "shop", "--host", HOST, "--origin", &url]);
    let target = "/bytes/10/a?max_age=3600&key=spring";
    for edge in &cluster.edges {
        until("an edge has it stored", 20, || {
            let mut client = Client::connect(edge.address).ok()?;
            (client.get(HOST, target).field("x-cache-status") == Some("HIT")).then_some(())
        });
    }
    let away = cluster.edges[1].process.id();
    signal(away, "STOP");
    let output = cluster.cli_output(&[
        "purge",
        "--site",
        "shop",
        "--key",
        "spring",
        "--wait",
        "--timeout",
        "2",
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(6 | 7)), "{:?}: {said}", output.status);
    assert!(said.contains("edge-1") && !said.contains("edge-0"), "the one that is away: {said}");
    let status = |edge: usize| {
        let mut client = Client::connect(cluster.edges[edge].address).expect("connects");
        client.ask("GET", HOST, target, &[("Cache-Control", "only-if-cached")]);
        client.answer().expect("an answer").status
    };
    assert_eq!(status(0), 504, "purged where the edge is there");
    signal(away, "CONT");
    until("the purge has reached the other", 30, || (status(1) == 504).then_some(()));
    until("the receipt is complete", 30, || {
        let again = ["purge", "--site", "shop", "--key", "spring", "--wait", "--timeout", "5"];
        cluster.cli_output(&again).status.success().then_some(())
    });
}

/// Asks for every entry, many at a time and over several connections, so that all shards are
/// asked; `fields` are more lines of each request.
fn for_all(node: &Node, fields: &str, check: impl Fn(&Reply, usize)) {
    let connect = |_| Client::connect(node.edge).expect("connects");
    let mut clients: [Client; 8] = std::array::from_fn(connect);
    let entries: Vec<usize> = (0..ENTRIES).collect();
    for round in entries.chunks(BATCH * clients.len()) {
        for (client, batch) in clients.iter_mut().zip(round.chunks(BATCH)) {
            let ask = |&entry: &usize| {
                format!("GET {} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n", target(entry))
            };
            let text: String = batch.iter().map(ask).collect();
            client.send(text.as_bytes(), batch.len()).expect("sent");
        }
        for (client, batch) in clients.iter_mut().zip(round.chunks(BATCH)) {
            batch.iter().for_each(|&entry| check(&client.answer().expect("an answer"), entry));
        }
    }
}

fn label(reply: &Reply) -> &str {
    reply.field("x-cache-status").unwrap_or_default()
}

fn target(entry: usize) -> String {
    format!("/bytes/200/{entry}?max_age=3600&key=spring")
}

/// What the edge's cache holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    entries: f64,
    bytes: f64,
}

fn held(node: &Node) -> Held {
    let metric = |name| metric(node.admin, name);
    let bytes = metric("pharos_cache_used_bytes") + metric("pharos_cache_dead_bytes");
    Held { entries: metric("pharos_cache_entries"), bytes }
}

fn signal(process: u32, name: &str) {
    let id = process.to_string();
    let status = std::process::Command::new("kill").args(["-s", name, &id]).status();
    assert!(status.expect("kill runs").success(), "kill -s {name} {id}");
}

/// One who asks for the same thing all the time, and always finds it stored.
struct Asking {
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Asking {
    fn start(edge: std::net::SocketAddr, target: &'static str) -> Self {
        let (count, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (noted, ended): (Arc<AtomicU64>, _) = (Arc::clone(&count), Arc::clone(&stop));
        let run = move || {
            let mut client = Client::connect(edge).expect("connects");
            while !ended.load(Ordering::SeqCst) {
                let reply = client.get(HOST, target);
                assert_eq!(label(&reply), "HIT", "of another key");
                noted.fetch_add(1, Ordering::SeqCst);
            }
        };
        let thread = std::thread::Builder::new().spawn(run).expect("a thread");
        Self { count, stop, thread }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("every answer was a hit");
    }
}
