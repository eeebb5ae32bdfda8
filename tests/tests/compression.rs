//! Content codings in front of a real origin and real decoders: curl's, and those of the crates that
//! others use.

use std::{fs, net::SocketAddr, process::Command};

use pharos_tests::{
    client::{coding::content, http::Reply},
    process::{
        client::Client,
        nginx::Nginx,
        node::{Node, Process, get},
        origin::Origin,
        wait::{free_address, until},
    },
};

const HOST: &str = "shop.example";

/// An edge of its own before `origin`, with these lines for `[compression]`.
fn edge(folder: &std::path::Path, origin: SocketAddr, lines: &str) -> (SocketAddr, Process) {
    let (listen, admin) = (free_address(), free_address());
    let text = format!(
        "listen = [\"{listen}\"]\nadmin = \"{admin}\"\nshards = 2\n[compression]\n{lines}\n\
         [[site]]\nname = \"shop\"\nhosts = [\"{HOST}\"]\norigins = [{{ url = \"http://{origin}\" }}]\n"
    );
    fs::write(folder.join("edge.toml"), text).expect("written");
    let process = Process::start(folder, "edge", &["edge", "--config", "edge.toml"]);
    until("the edge is ready", 30, || get(admin, "/readyz").ok().filter(|it| it.status == 200));
    (listen, process)
}

fn ask(client: &mut Client, method: &str, target: &str, fields: &[(&str, &str)]) -> Reply {
    client.ask(method, HOST, target, fields);
    client.answer().unwrap_or_else(|error| panic!("{method} {target}: {error}"))
}

/// Asks until the answer has this coding: the first who wants it does not wait for it.
fn encoded(client: &mut Client, target: &str, accept: &str, coding: &str) -> Reply {
    until(&format!("{target} in {coding}"), 30, || {
        let reply = ask(client, "GET", target, &[("Accept-Encoding", accept)]);
        assert_eq!(reply.status, 200);
        (reply.field("content-encoding") == Some(coding)).then_some(reply)
    })
}

#[test]
fn each_coding_decodes_to_what_the_origin_sent_and_is_made_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let origin = Origin::start(folder.path());
    let (at, _edge) = edge(folder.path(), origin.address, "");
    let mut client = Client::connect(at).expect("connects");
    let target = "/bytes/50000/page?max_age=600&type=text/html&etag=v1";
    let plain = ask(&mut client, "GET", target, &[]);
    assert_eq!((plain.body.len(), plain.field("content-encoding")), (50_000, None));
    assert_eq!(plain.field("vary"), Some("Accept-Encoding"));
    assert_eq!(plain.field("etag"), Some("\"v1\""));
    for coding in ["gzip", "br", "zstd"] {
        let reply = encoded(&mut client, target, coding, coding);
        assert!(reply.body.len() < 45_000, "{coding}: {}", reply.body.len());
        assert!(content(&reply).expect("decodes") == plain.body, "{coding}");
        assert_eq!(reply.field("etag"), Some("W/\"v1\""));
        assert_eq!(reply.field("vary"), Some("Accept-Encoding"));
        assert_eq!(reply.field("x-cache-status"), Some("HIT"));
        let length = reply.body.len().to_string();
        assert_eq!(reply.field("content-length"), Some(length.as_str()));
        let fields = [("Accept-Encoding", coding)];
        let head = ask(&mut client, "HEAD", target, &fields);
        for name in ["content-length", "content-encoding", "etag", "vary", "content-type"] {
            assert_eq!(head.field(name), reply.field(name), "HEAD agrees with GET: {name}");
        }
        let fields = [fields[0], ("If-None-Match", "W/\"v1\"")];
        assert_eq!(ask(&mut client, "GET", target, &fields).status, 304);
        let fields = [fields[0], ("Range", "bytes=100-199")];
        let part = ask(&mut client, "GET", target, &fields);
        assert_eq!((part.status, part.field("content-encoding")), (206, None));
        assert!(part.body == plain.body[100..200]);
    }
    // All are there now: weights decide alone.
    for (accept, expected) in [
        ("gzip, deflate, br, zstd", Some("br")),
        ("gzip;q=1, br;q=0.5", Some("gzip")),
        ("br;q=0, *;q=0.1", Some("zstd")),
        ("identity;q=0, gzip;q=0.2", Some("gzip")),
        ("identity, gzip;q=0.2", None),
        ("deflate", None),
    ] {
        let reply = ask(&mut client, "GET", target, &[("Accept-Encoding", accept)]);
        assert_eq!(reply.field("content-encoding"), expected, "{accept}");
    }
    let asked = origin.counts().get(target).and_then(serde_json::Value::as_u64);
    assert_eq!(asked, Some(1), "one fetch served them all");
}

#[test]
fn curl_reads_what_nginx_served_and_what_nginx_compressed_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("own")).expect("made");
    let text = "<p>the quick brown fox jumps over the lazy dog</p>\n".repeat(2000);
    for name in ["a.html", "own/b.html", "c.bin", "small.html"] {
        let text = if name == "small.html" { &text[..500] } else { &text };
        fs::write(tree.join(name), text).expect("written");
    }
    let server = "expires 1h; types { text/html html; } \
                  location /own/ { gzip on; gzip_vary on; gzip_proxied any; gzip_http_version 1.0; }";
    let Some(nginx) = Nginx::serve(folder.path(), &tree, server) else {
        println!("SKIPPED curl_reads_what_nginx_served: no nginx here");
        return;
    };
    let (at, _edge) = edge(folder.path(), nginx.address, "");
    let mut client = Client::connect(at).expect("connects");
    for coding in ["br", "zstd", "gzip"] {
        let reply = encoded(&mut client, "/a.html", coding, coding);
        assert!(reply.body.len() < text.len() / 50, "{coding}: {}", reply.body.len());
        let header = format!("Accept-Encoding: {coding}");
        let (url, host) = (format!("http://{at}/a.html"), format!("Host: {HOST}"));
        let curl = Command::new("curl")
            .args(["-s", "--compressed", "-H", &header, "-H", &host, &url])
            .output();
        match curl {
            Ok(output) => assert!(output.stdout == text.as_bytes(), "curl reads {coding}"),
            Err(_) => println!("SKIPPED curl reads {coding}: no curl here"),
        }
    }
    // Encoded by the origin, for those who asked it so: passed on as it came.
    let own = ask(&mut client, "GET", "/own/b.html", &[("Accept-Encoding", "gzip")]);
    assert_eq!(own.field("content-encoding"), Some("gzip"));
    assert_eq!(own.fields.iter().filter(|(name, _)| name == "content-encoding").count(), 1);
    let again = ask(&mut client, "GET", "/own/b.html", &[("Accept-Encoding", "gzip")]);
    assert_eq!(again.field("x-cache-status"), Some("HIT"));
    assert!(own.body == again.body && content(&again).expect("decodes") == text.as_bytes());
    for target in ["/c.bin", "/small.html"] {
        for _ in 0..2 {
            let reply = ask(&mut client, "GET", target, &[("Accept-Encoding", "gzip, br")]);
            assert_eq!((reply.status, reply.field("content-encoding")), (200, None), "{target}");
            assert_eq!(reply.field("vary"), None, "{target}");
        }
    }
}

#[test]
fn a_page_is_encoded_and_its_purge_covers_the_encodings() {
    let node = Node::up(&["--shards", "2"]);
    let mut client = Client::connect(node.edge).expect("connects");
    let host = node.edge.to_string();
    let page = |client: &mut Client, coding: &str| {
        until("the page encoded", 30, || {
            client.ask("GET", &host, "/demo/", &[("Accept-Encoding", coding)]);
            let reply = client.answer().expect("an answer");
            (reply.field("content-encoding") == Some(coding)).then_some(reply)
        })
    };
    let before = content(&page(&mut client, "br")).expect("decodes");
    let title = "Encoded and purged";
    let line = ["incident", "create", "--page", "demo", "--status", "investigating"];
    node.cli(&[&line[..], &["--title", title, "--message", "m"]].concat());
    until("the page tells of it, encoded", 30, || {
        let text = content(&page(&mut client, "br")).expect("decodes");
        String::from_utf8_lossy(&text).contains(title).then_some(())
    });
    assert!(!String::from_utf8_lossy(&before).contains(title));
}

#[test]
fn without_codings_nothing_is_encoded() {
    let folder = tempfile::tempdir().expect("a folder");
    let origin = Origin::start(folder.path());
    let (at, _edge) = edge(folder.path(), origin.address, "codings = []");
    let mut client = Client::connect(at).expect("connects");
    for _ in 0..3 {
        let target = "/bytes/50000/page?max_age=600&type=text/html";
        let reply = ask(&mut client, "GET", target, &[("Accept-Encoding", "gzip, br, zstd")]);
        assert_eq!((reply.field("content-encoding"), reply.field("vary")), (None, None));
    }
}

#[test]
fn the_examples_of_the_document_say_what_it_says() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("SKIPPED the_examples_of_the_document_say_what_it_says: no curl here");
        return;
    }
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compression.md");
    let text = fs::read_to_string(document).expect("readable");
    let blocks = |mark: &str| -> Vec<String> {
        let mark = format!("```{mark}\n");
        text.split(&mark)
            .skip(1)
            .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
            .collect()
    };
    let (commands, expected) = (blocks("sh run"), blocks("text expected"));
    assert_eq!((commands.len(), expected.len()), (2, 2));
    let node = Node::up(&[]);
    for (commands, expected) in commands.iter().zip(&expected) {
        let commands = commands.replace("127.0.0.1:8080", &node.edge.to_string());
        // The pause in the text is for people; here it is done when it is done.
        let commands = commands.replace("sleep 1\n", "");
        until(&format!("{commands} says {expected}"), 30, || {
            let output = Command::new("sh").args(["-c", &commands]).output().expect("sh runs");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            expected.lines().all(|line| said.contains(line)).then_some(())
        });
    }
}
