//! Signals as an operator sends them: SIGHUP reads the configuration again, SIGTERM drains and ends
//! with 0, SIGUSR2 says what it cannot do yet; none of them kills.

use std::{fs, net::SocketAddr, path::Path};

use pharos_tests::process::{
    client::Client,
    node::{Node, Process, get},
    wait::{free_address, until},
};

/// Waits until a log says so.
fn said(folder: &Path, log: &str, what: &str) {
    let path = folder.join(log);
    until(&format!("{log} says {what:?}"), 60, || {
        fs::read_to_string(&path).ok()?.contains(what).then_some(())
    });
}

/// The status for a host of its own.
fn status(edge: SocketAddr, host: &str) -> u16 {
    let mut client = Client::connect(edge).expect("connects");
    client.ask("GET", host, "/p?token=geheim", &[("Connection", "close")]);
    client.answer().expect("an answer").status
}

fn site(host: &str, origin: SocketAddr) -> String {
    format!(
        "[[site]]\nname = \"s\"\nhosts = [\"{host}\"]\norigins = [{{ url = \"http://{origin}\" }}]\n"
    )
}

#[test]
fn hang_up_takes_a_right_configuration_and_keeps_the_old_one_before_a_wrong_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (edge, admin, nobody) = (free_address(), free_address(), free_address());
    let file = folder.path().join("edge.toml");
    let listen = format!("listen = [\"{edge}\"]\nadmin = \"{admin}\"\nshards = 2\n");
    let first = format!("{listen}[log]\naccess = \"access.log\"\n{}", site("a.example", nobody));
    fs::write(&file, &first).expect("written");
    let mut process = Process::start(folder.path(), "edge", &["edge", "--config", "edge.toml"]);
    until("the edge is ready", 60, || {
        get(admin, "/readyz").ok().filter(|reply| reply.status == 200)
    });
    // Its origin is not there, which is a gateway's error; another host is nobody's.
    assert_eq!((status(edge, "a.example"), status(edge, "b.example")), (502, 421));

    fs::write(&file, first.replace("shards = 2", "shard = 2")).expect("written");
    process.signal("HUP");
    said(folder.path(), "edge.err", "edge.toml:3: unknown field `shard`");
    assert_eq!((status(edge, "a.example"), status(edge, "b.example")), (502, 421));

    said(folder.path(), "access.log", "\"host\":\"a.example\"");
    fs::rename(folder.path().join("access.log"), folder.path().join("old.log")).expect("moved");
    let second = first.replace("shards = 2", "shards = 3").replace("a.example", "b.example");
    fs::write(&file, second).expect("written");
    process.signal("HUP");
    // Each shard takes it at a turn of its own.
    until("the new site is served", 60, || (status(edge, "b.example") == 502).then_some(()));
    until("the old one is not", 60, || (status(edge, "a.example") == 421).then_some(()));
    said(folder.path(), "edge.err", "\"need_restart\":\"shards\"");
    said(folder.path(), "access.log", "\"host\":\"b.example\",\"path\":\"/p?token=***\"");

    process.signal("USR2");
    said(folder.path(), "edge.err", "upgrading a running process is not built yet");
    until("the new site is served still", 60, || (status(edge, "b.example") == 502).then_some(()));

    process.signal("TERM");
    assert_eq!(process.wait(), Some(0));
    for log in ["access.log", "old.log", "edge.err"] {
        let text = fs::read_to_string(folder.path().join(log)).expect("a log");
        assert!(!text.contains("geheim"), "{log}: {text}");
    }
}

#[test]
fn a_whole_node_survives_hang_up_and_upgrade_and_ends_with_0_when_told() {
    let mut node = Node::up(&["--shards", "1"]);
    let page = get(node.edge, "/demo/").expect("the page");
    node.process.signal("HUP");
    let log = |what: &str| {
        until(&format!("the log says {what:?}"), 60, || node.log().contains(what).then_some(()));
    };
    log("edge.toml was read again");
    log("control reads its configuration at its start only");
    node.process.signal("USR2");
    log("SIGUSR2: upgrading a running process is not built yet");
    assert_eq!(get(node.edge, "/demo/").expect("the page").status, page.status);
    assert!(!node.log().contains("starting it again"), "nothing has died: {}", node.log());
    node.process.signal("TERM");
    assert_eq!(node.process.wait(), Some(0), "{}", node.log());
}
