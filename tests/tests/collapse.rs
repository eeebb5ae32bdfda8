//! Collapsing on real processes: many concurrent requests for few cold keys make one origin request
//! a key; what may not be shared is not waited for twice.

use std::sync::{Arc, Barrier};

use pharos_tests::process::{client::Client, node::Node, origin::Origin, wait::until};

const HOST: &str = "shop.example";

fn site(node: &Node, origin: &Origin) {
    let origin = format!("http://{}", origin.address);
    node.cli(&["site", "create", "--name", "shop", "--host", HOST, "--origin", &origin]);
    until("the edge knows the site", 20, || {
        let mut client = Client::connect(node.edge).ok()?;
        (client.get(HOST, "/bytes/1/warm?max_age=60").status == 200).then_some(())
    });
}

/// Ten thousand requests at once: each connection pipelines one for every tenth key.
#[test]
fn ten_thousand_requests_for_a_hundred_cold_keys_make_a_hundred_origin_requests() {
    const KEYS: usize = 100;
    const CONNECTIONS: usize = 1000;
    const EACH: usize = 10;
    let folder = tempfile::tempdir().expect("a folder");
    let origin = Origin::start(folder.path());
    let node = Node::up(&["--shards", "2"]);
    site(&node, &origin);
    let target = |key: usize| format!("/bytes/3000/k{key}?max_age=600&delay_ms=1500&seed={key}");
    let mut clients: Vec<Client> =
        (0..CONNECTIONS).map(|_| Client::connect(node.edge).expect("connects")).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let text: String = (0..EACH)
            .map(|nth| target((number + nth * 10) % KEYS))
            .map(|target| format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .collect();
        client.send(text.as_bytes(), EACH).expect("sent");
    }
    let mut bodies = vec![None; KEYS];
    for (number, client) in clients.iter_mut().enumerate() {
        for nth in 0..EACH {
            let reply = client.answer().expect("an answer");
            assert_eq!((reply.status, reply.body.len()), (200, 3000));
            let body = bodies[(number + nth * 10) % KEYS].get_or_insert_with(|| reply.body.clone());
            assert!(*body == reply.body, "another key's body");
        }
    }
    let counts = origin.counts();
    let asked: Vec<_> = counts.iter().filter(|(path, _)| path.contains("/k")).collect();
    assert_eq!(asked.len(), KEYS);
    assert!(asked.iter().all(|(_, count)| **count == 1), "{asked:?}");
}

/// The first answer says that it may not be stored: those who waited go to the origin at once and
/// together, and who comes later does not wait at all.
#[test]
fn an_answer_that_may_not_be_stored_releases_those_who_waited_and_is_remembered() {
    const WAITING: usize = 50;
    let folder = tempfile::tempdir().expect("a folder");
    let origin = Origin::start(folder.path());
    let node = Node::up(&["--shards", "2"]);
    site(&node, &origin);
    let target = "/bytes/100/private?cache_control=private&delay_ms=400";
    let ask_all = || {
        let start = Arc::new(Barrier::new(WAITING));
        let askers: Vec<_> = (0..WAITING)
            .map(|_| {
                let (edge, start) = (node.edge, Arc::clone(&start));
                let ask = move || {
                    let mut client = Client::connect(edge).expect("connects");
                    start.wait();
                    let reply = client.get(HOST, target);
                    assert_eq!((reply.status, reply.body.len()), (200, 100));
                };
                std::thread::Builder::new().spawn(ask).expect("a thread")
            })
            .collect();
        askers.into_iter().for_each(|asker| asker.join().expect("answered"));
        origin.counts()[target].as_u64().expect("a count")
    };
    assert_eq!(ask_all(), WAITING as u64, "each has its own answer");
    assert_eq!(ask_all(), 2 * WAITING as u64);
}
