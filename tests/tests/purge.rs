//! Purges on real processes: a surrogate key of many entries under load, with a receipt; an edge
//! that is away makes a receipt incomplete, is named, and is told when it is back.
//!
//! `PHAROS_PURGE_ENTRIES=100000` runs the first in full and reports its times.
#![expect(clippy::disallowed_methods, reason = "real processes run in real time")]

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use pharos_tests::process::{
    client::Client, cluster::Cluster, load::metric, node::Node, origin::Origin, wait::until,
};

const HOST: &str = "shop.example";
/// Requests that are outstanding on the connection that fills.
const BATCH: usize = 200;

#[test]
fn a_surrogate_key_of_many_entries_is_purged_under_load_and_its_memory_comes_back() {
    let asked = std::env::var("PHAROS_PURGE_ENTRIES").ok().and_then(|text| text.parse().ok());
    let entries: usize = asked.unwrap_or(5_000);
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
    let before = held_bytes(&node);
    let target = |entry: usize| format!("/bytes/200/{entry}?max_age=3600&key=spring");
    ask_all(&node, (0..entries).map(target), "MISS");
    ask_all(&node, (0..entries).map(target), "HIT");
    let full = held_bytes(&node);
    assert!(full - before > 200.0 * entries as f64, "{full} bytes held");
    let asking = Asking::start(node.edge, kept);
    until("the load runs", 20, || (asking.count() > 2_000).then_some(()));
    let idle = asking.take();
    let began = Instant::now();
    let receipt = node.cli(&["purge", "--site", "shop", "--key", "spring", "--wait", "-o", "json"]);
    let took = began.elapsed();
    let busy = asking.take();
    assert!(receipt.contains("\"complete\": true"), "{receipt}");
    // After the receipt no look-up returns what was purged, on any shard.
    for _ in 0..4 {
        let mut client = Client::connect(node.edge).expect("connects");
        for entry in (0..entries).step_by(entries / 250) {
            client.ask("GET", HOST, &target(entry), &[("Cache-Control", "only-if-cached")]);
            assert_eq!(client.answer().expect("an answer").status, 504, "{entry}");
        }
    }
    until("the memory is back", 60, || {
        (held_bytes(&node) < before + 0.02 * (full - before)).then_some(())
    });
    asking.end();
    let report = format!(
        "\n{entries} entries, {:.1} MB, purged by one key: receipt after {:.0} ms; hits meanwhile p99 \
         {:.2} ms (before: {:.2} ms)\n",
        (full - before) / 1e6,
        took.as_secs_f64() * 1e3,
        p99_ms(busy),
        p99_ms(idle),
    );
    // Not by `println!`: it is to be seen of a test that passes, too.
    let _ = std::io::stderr().write_all(report.as_bytes());
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

/// Asks for all of these on one connection, many at a time, and looks at how they were found.
fn ask_all(node: &Node, targets: impl Iterator<Item = String>, status: &str) {
    let mut client = Client::connect(node.edge).expect("connects");
    let targets: Vec<String> = targets.collect();
    for batch in targets.chunks(BATCH) {
        let text: String = batch
            .iter()
            .map(|target| format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .collect();
        client.send(text.as_bytes(), batch.len()).expect("sent");
        for target in batch {
            let reply = client.answer().expect("an answer");
            assert_eq!(reply.field("x-cache-status"), Some(status), "{target}");
        }
    }
}

fn held_bytes(node: &Node) -> f64 {
    ["pharos_cache_used_bytes", "pharos_cache_dead_bytes"]
        .iter()
        .map(|name| metric(node.admin, name))
        .sum()
}

fn signal(process: u32, name: &str) {
    let id = process.to_string();
    let status = std::process::Command::new("kill").args(["-s", name, &id]).status();
    assert!(status.expect("kill runs").success(), "kill -s {name} {id}");
}

fn p99_ms(mut delays: Vec<Duration>) -> f64 {
    delays.sort_unstable();
    let at = delays.len().saturating_sub(1) * 99 / 100;
    delays.get(at).map_or(0.0, |delay| delay.as_secs_f64() * 1e3)
}

/// One who asks for the same thing all the time and notes how long it takes.
struct Asking {
    delays: Arc<std::sync::Mutex<Vec<Duration>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Asking {
    fn start(edge: std::net::SocketAddr, target: &'static str) -> Self {
        let (delays, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (noted, ended) = (Arc::clone(&delays), Arc::clone(&stop));
        let run = move || {
            let mut client = Client::connect(edge).expect("connects");
            while !ended.load(Ordering::SeqCst) {
                let began = Instant::now();
                let reply = client.get(HOST, target);
                assert_eq!(reply.field("x-cache-status"), Some("HIT"), "of another key");
                let noted: &std::sync::Mutex<Vec<Duration>> = &noted;
                noted.lock().expect("no panic under it").push(began.elapsed());
            }
        };
        let thread = std::thread::Builder::new().spawn(run).expect("a thread");
        Self { delays, stop, thread }
    }

    fn count(&self) -> usize {
        self.delays.lock().expect("no panic under it").len()
    }

    fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.delays.lock().expect("no panic under it"))
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("every answer was a hit");
    }
}
