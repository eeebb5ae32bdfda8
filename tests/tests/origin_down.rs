//! The origin dies under load: what is stored and may be served stale is, and says so; what must be
//! validated is not; back again, it is asked once a key.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use pharos_tests::{
    client::http::Reply,
    process::{client::Client, node::Node, origin::Origin, wait::until},
};

const HOST: &str = "shop.example";

/// What is asked for: fresh for long, stale at once, and stale at once but never to be served so.
const KINDS: [(&str, &str); 3] =
    [("fresh", "max-age=3600"), ("stale", "max-age=1"), ("strict", "max-age=1, must-revalidate")];
const KEYS: usize = 30;

fn target(kind: usize, key: usize) -> String {
    let (name, control) = KINDS[kind];
    let control = control.replace(", ", "%2C%20").replace('=', "%3D");
    format!("/bytes/{}/{name}/{key}?cache_control={control}&etag=v{key}", 100 + key)
}

#[test]
fn what_is_stored_outlives_its_origin_and_is_validated_once_a_key_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut origin = Origin::start(folder.path());
    let node = Node::up(&["--shards", "2"]);
    let url = format!("http://{}", origin.address);
    node.cli(&["site", "create", "--name", "shop", "--host", HOST, "--origin", &url]);
    until("the edge knows the site", 20, || {
        let mut client = Client::connect(node.edge).ok()?;
        (client.get(HOST, "/bytes/1/warm?max_age=60").status == 200).then_some(())
    });
    let mut client = Client::connect(node.edge).expect("connects");
    for kind in 0..KINDS.len() {
        for key in 0..KEYS {
            let reply = client.get(HOST, &target(kind, key));
            assert_eq!((reply.status, reply.body.len()), (200, 100 + key));
        }
    }
    // Under load from here on: each of four asks for the whole set, again and again.
    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..4).map(|_| load(node.edge, Arc::clone(&stop))).collect();
    until("the short-lived have been validated", 20, || {
        let count = origin.counts().get(&target(1, 0)).and_then(serde_json::Value::as_u64);
        (count > Some(1)).then_some(())
    });
    origin.kill();
    until("a stale answer", 20, || {
        (client.get(HOST, &target(1, 0)).field("x-cache-status") == Some("STALE")).then_some(())
    });
    until("what must be validated is refused", 20, || {
        let reply = client.get(HOST, &target(2, 0));
        assert!(reply.status == 200 || reply.status == 504, "{reply:?}");
        (reply.status == 504).then_some(())
    });
    for key in 0..KEYS {
        let fresh = client.get(HOST, &target(0, key));
        assert_eq!((fresh.status, fresh.field("x-cache-status")), (200, Some("HIT")));
        let stale = client.get(HOST, &target(1, key));
        assert_eq!((stale.status, stale.body.len()), (200, 100 + key));
        if stale.field("x-cache-status") == Some("STALE") {
            assert_eq!(stale.field("warning"), Some("110 - \"Response is Stale\""));
        }
        let strict = client.get(HOST, &target(2, key));
        let is_fresh = strict.field("x-cache-status") == Some("HIT");
        assert!(strict.status == 504 || is_fresh, "{strict:?}");
    }
    stop.store(true, Ordering::SeqCst);
    let judged: Vec<Judged> = loads.into_iter().map(|load| load.join().expect("judged")).collect();
    let answers: u64 = judged.iter().map(|judged| judged.answers).sum();
    let stale: u64 = judged.iter().map(|judged| judged.stale).sum();
    let refused: u64 = judged.iter().map(|judged| judged.refused).sum();
    println!("{answers} answers under load, {stale} stale, {refused} refused with 504");
    assert!(stale > 0 && refused > 0);
    // Back again, fifty ask for each stale key at once: one request a key, a validation.
    origin.restart();
    until("the edge has found the origin again", 20, || {
        (client.get(HOST, "/bytes/1/again?max_age=60").status == 200).then_some(())
    });
    // What it remembers of the failure is over after a second at most.
    until("a key is validated again", 20, || {
        let status = client.get(HOST, &target(1, 0));
        (status.field("x-cache-status") != Some("STALE")).then_some(())
    });
    let keys: Vec<String> = (1..KEYS).map(|key| target(1, key)).collect();
    let mut herd: Vec<Client> =
        (0..50).map(|_| Client::connect(node.edge).expect("connects")).collect();
    let asked = keys.concat().len();
    for one in &mut herd {
        let mut text = String::with_capacity(asked + keys.len() * 40);
        for key in &keys {
            text += &format!("GET {key} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        }
        one.send(text.as_bytes(), keys.len()).expect("sent");
    }
    for one in &mut herd {
        for _ in &keys {
            assert_eq!(one.answer().expect("an answer").status, 200);
        }
    }
    // Fresh for a second: a slow machine may need more than one request a key, never a herd; a key
    // that failed later than the first may still be served without asking.
    let counts = origin.counts();
    let mut all = 0;
    for key in &keys {
        let count = counts.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
        assert!(count <= 25, "{key}: {count} requests of fifty");
        all += count;
    }
    assert!(all > 0, "nothing was validated");
}

/// What a load has seen.
struct Judged {
    answers: u64,
    stale: u64,
    refused: u64,
}

fn load(edge: std::net::SocketAddr, stop: Arc<AtomicBool>) -> JoinHandle<Judged> {
    let run = move || {
        let mut judged = Judged { answers: 0, stale: 0, refused: 0 };
        let mut client = Client::connect(edge).expect("connects");
        while !stop.load(Ordering::SeqCst) {
            for kind in 0..KINDS.len() {
                for key in 0..KEYS {
                    judge(&client.get(HOST, &target(kind, key)), kind, key, &mut judged);
                }
            }
        }
        judged
    };
    std::thread::Builder::new().spawn(run).expect("a thread")
}

fn judge(reply: &Reply, kind: usize, key: usize, judged: &mut Judged) {
    judged.answers += 1;
    let status = reply.field("x-cache-status");
    if KINDS[kind].0 == "strict" && reply.status == 504 {
        judged.refused += 1;
        return;
    }
    assert_eq!((reply.status, reply.body.len()), (200, 100 + key), "{:?}: {reply:?}", KINDS[kind]);
    if status == Some("STALE") {
        assert_eq!(KINDS[kind].0, "stale", "only what may be");
        assert_eq!(reply.field("warning"), Some("110 - \"Response is Stale\""));
        judged.stale += 1;
    }
}
