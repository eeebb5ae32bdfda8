//! A real site behind a real nginx: a tree of a thousand files, byte for byte, the second time from
//! the cache; and many first requests of one slow object that make one origin request.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use pharos_tests::{
    process::{client::Client, nginx::Nginx, node::Node, wait::until},
    sim::rng::Rng,
};

/// Sizes from nothing to 50 MB; most are small, as in a real tree.
fn size_of(at: usize, rng: &mut Rng) -> usize {
    match at {
        0 => 0,
        1 => 1,
        2 => 50_000_000,
        3 => 5_000_000,
        4 => 1 << 20,
        5 => (1 << 16) - 1,
        6 => 1 << 16,
        7 => (1 << 16) + 1,
        _ => rng.between(1, 40_000) as usize,
    }
}

fn content(size: usize, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&rng.draw().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn make_tree(root: &Path, count: usize) -> Vec<(String, Vec<u8>)> {
    let mut rng = Rng::new(9);
    let mut files = Vec::new();
    for at in 0..count {
        let size = size_of(at, &mut rng);
        let bytes = content(size, &mut rng);
        let name = format!("/d{}/f{at}.bin", at % 17);
        let path = root.join(&name[1..]);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, &bytes).expect("written");
        files.push((name, bytes));
    }
    files
}

fn site(node: &Node, origin: SocketAddr) {
    let origin = format!("http://{origin}");
    node.cli(&["site", "create", "--name", "tree", "--host", "tree.example", "--origin", &origin]);
    until("the edge knows the site", 20, || {
        let mut client = Client::connect(node.edge).ok()?;
        (client.get("tree.example", "/d0/f0.bin").status == 200).then_some(())
    });
}

#[test]
fn every_file_is_identical_and_the_second_time_a_hit() {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = folder.path().join("tree");
    let files = make_tree(&tree, 1000);
    let Some(nginx) = Nginx::serve(folder.path(), &tree, "expires 1h;") else {
        println!("SKIPPED every_file_is_identical_and_the_second_time_a_hit: no nginx here");
        return;
    };
    let node = Node::up(&[]);
    site(&node, nginx.address);
    for round in 0..2 {
        let mut client = Client::connect(node.edge).expect("connects");
        for (name, bytes) in &files {
            let reply = client.get("tree.example", name);
            assert_eq!(reply.status, 200, "{name}");
            assert!(reply.body == *bytes, "{name}: {} bytes differ", reply.body.len());
            if round == 1 {
                assert_eq!(reply.field("x-cache-status"), Some("HIT"), "{name}");
            }
        }
    }
}

/// An origin that counts how often it was asked, and holds the rest of its object back until every
/// reader has had some of it.
#[derive(Default)]
struct SlowOrigin {
    asked: AtomicU32,
    /// Readers that had bytes while the object was still arriving.
    early: AtomicU32,
}

impl SlowOrigin {
    fn start(self: &Arc<Self>, bytes: &Arc<Vec<u8>>, readers: u32) -> SocketAddr {
        #[expect(clippy::disallowed_types, reason = "a test origin owns its socket")]
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
        let address = listener.local_addr().expect("bound");
        let (origin, bytes) = (Arc::clone(self), Arc::clone(bytes));
        let accept = move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("accepts");
                let (origin, bytes) = (Arc::clone(&origin), Arc::clone(&bytes));
                let answer = move || {
                    let mut head = [0; 4096];
                    let count = std::io::Read::read(&mut stream, &mut head).unwrap_or(0);
                    if count > 0 {
                        let is_big = head.starts_with(b"GET /big ");
                        origin.answer(&mut stream, &bytes, if is_big { readers } else { 0 });
                    }
                };
                thread::Builder::new().spawn(answer).expect("a thread");
            }
        };
        thread::Builder::new().name("slow-origin".into()).spawn(accept).expect("a thread");
        address
    }

    fn answer(&self, stream: &mut impl Write, bytes: &[u8], readers: u32) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        let (first, rest) = bytes.split_at(bytes.len() / 10);
        stream.write_all(first).expect("sent");
        until("every reader has had some", 60, || {
            (self.early.load(Ordering::SeqCst) >= readers).then_some(())
        });
        stream.write_all(rest).expect("sent");
    }
}

#[test]
fn two_hundred_first_requests_make_one_origin_request_and_stream_while_it_arrives() {
    const READERS: u32 = 200;
    let slow = Arc::new(SlowOrigin::default());
    let bytes = Arc::new(content(200_000, &mut Rng::new(4)));
    let origin = slow.start(&bytes, READERS);
    let node = Node::up(&[]);
    let origin = format!("http://{origin}");
    node.cli(&["site", "create", "--name", "slow", "--host", "slow.example", "--origin", &origin]);
    until("the edge knows the site", 20, || {
        let mut client = Client::connect(node.edge).ok()?;
        (client.get("slow.example", "/warm").status == 200).then_some(())
    });
    let before = slow.asked.load(Ordering::SeqCst);
    let start = Arc::new(Barrier::new(READERS as usize));
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (edge, start) = (node.edge, Arc::clone(&start));
            let (slow, bytes) = (Arc::clone(&slow), Arc::clone(&bytes));
            let read = move || {
                let mut client = Client::connect(edge).expect("connects");
                start.wait();
                client.ask("GET", "slow.example", "/big", &[]);
                assert!(client.first_bytes_before_the_rest(), "it streams");
                slow.early.fetch_add(1, Ordering::SeqCst);
                let reply = client.answer().expect("an answer");
                assert!(reply.body == *bytes, "{} bytes differ", reply.body.len());
            };
            thread::Builder::new().spawn(read).expect("a thread")
        })
        .collect();
    readers.into_iter().for_each(|reader| reader.join().expect("reads"));
    assert_eq!(slow.asked.load(Ordering::SeqCst) - before, 1, "origin requests");
}
