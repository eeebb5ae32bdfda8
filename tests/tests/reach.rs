//! What reaches a site behind Pharos and what does not, as docs/reach.md says it: refusals by name,
//! uploads that stream, and the example configurations of docs/examples, run with what they name.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use pharos_tests::process::{
    client::Client,
    echo,
    nginx::{self, Nginx},
    node::{Node, Process, get, run},
    wait::{free_address, until},
};

const HOST: &str = "shop.example";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("docs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An example with each of `from` replaced, which must be there.
fn example(path: &str, replace: &[(&str, &str)]) -> String {
    let path = docs().join("examples").join(path);
    let mut text = fs::read_to_string(&path).expect("an example");
    for (from, to) in replace {
        assert!(text.contains(from), "{}: {from}", path.display());
        text = text.replace(from, to);
    }
    text
}

/// An edge of its own with this configuration; ready.
fn edge(folder: &Path, configuration: &str, admin: SocketAddr) -> Process {
    fs::write(folder.join("edge.toml"), configuration).expect("written");
    let process = Process::start(folder, "edge", &["edge", "--config", "edge.toml"]);
    until("the edge is ready", 30, || {
        get(admin, "/readyz").ok().filter(|reply| reply.status == 200)
    });
    process
}

/// An edge before `origin`, everything below `/up/` passed on.
fn plain_edge(folder: &Path, origin: SocketAddr) -> (SocketAddr, SocketAddr, Process) {
    let (listen, admin) = (free_address(), free_address());
    let text = format!(
        "listen = [\"{listen}\"]\nadmin = \"{admin}\"\nshards = 1\n[[site]]\nname = \"shop\"\n\
         hosts = [\"{HOST}\"]\norigins = [{{ url = \"http://{origin}\" }}]\n\
         routes = [{{ prefix = \"/up/\", policy = \"pass\" }}]\n"
    );
    (listen, admin, edge(folder, &text, admin))
}

#[test]
fn what_is_not_carried_is_refused_as_the_table_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let (listen, admin, _edge) = plain_edge(folder.path(), echo::start());
    let table = fs::read_to_string(docs().join("reach.md")).expect("docs/reach.md");
    let host = format!("Host: {HOST}\r\n");
    let websocket = format!(
        "GET /ws HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let grpc = format!(
        "POST /a.B/C HTTP/1.1\r\n{host}TE: trailers\r\nContent-Type: application/grpc\r\n\
         Content-Length: 5\r\n\r\n\0\0\0\0\0"
    );
    let large = format!("POST /up/ HTTP/1.1\r\n{host}Content-Length: 1073741825\r\n\r\n");
    let cases: [(&[u8], u16); 9] = [
        (websocket.as_bytes(), 501),
        (grpc.as_bytes(), 501),
        (b"CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\r\n", 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", 505),
        (b"\x16\x03\x01\x00\x05\x01\0\0\x01\x03", 400),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x9c\x40\0\x50", 400),
        (large.as_bytes(), 413),
        (b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n", 421),
    ];
    for (request, status) in cases {
        let mut client = Client::connect(listen).expect("connects");
        client.send(request, 1).expect("sent");
        let reply = client.answer().unwrap_or_else(|error| panic!("{}: {error}", text(request)));
        let body = text(&reply.body);
        let said = body.lines().next().unwrap_or_default();
        assert_eq!(reply.status, status, "{}: {said}", text(request));
        let row = table.lines().find(|line| line.contains(said) && !said.is_empty());
        let row = row.unwrap_or_else(|| panic!("no row of docs/reach.md has {said:?}"));
        assert!(row.contains(&format!("`{status}`")), "{row}");
    }
    let metrics = text(&get(admin, "/metrics").expect("metrics").body);
    let counted = "pharos_requests_refused_total{reason=\"not_offered\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn an_upgrade_that_http_1_1_will_do_for_is_answered_as_http_1_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let (listen, _, _edge) = plain_edge(folder.path(), echo::start());
    let mut client = Client::connect(listen).expect("connects");
    let fields = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
    ];
    client.ask("GET", HOST, "/up/", &fields);
    let reply = client.answer().expect("an answer");
    assert_eq!(reply.status, 200);
    let asked = text(&reply.body).to_ascii_lowercase();
    assert!(!asked.contains("upgrade") && !asked.contains("http2-settings"), "{asked}");
}

const UPLOAD_BYTES: usize = 64 << 20;

/// An origin that reads the head of one upload, and the rest once it is told to.
fn holding_origin(released: mpsc::Receiver<()>) -> SocketAddr {
    #[expect(clippy::disallowed_types, reason = "a test origin owns its socket")]
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = listener.local_addr().expect("bound");
    let serve = move || {
        let (mut stream, _) = listener.accept().expect("accepts");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        released.recv().expect("released");
        let (mut came, mut buffer) = (0, vec![0; 64 << 10]);
        while came < UPLOAD_BYTES {
            let count = stream.read(&mut buffer).expect("the body");
            assert!(count > 0, "the body ends at {came}");
            let is_ours = buffer[..count].iter().zip(came..).all(|(byte, at)| *byte == byte_at(at));
            assert!(is_ours, "what was sent, at {came}");
            came += count;
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{came:08}");
        stream.write_all(answer.as_bytes()).expect("answered");
    };
    thread::Builder::new().spawn(serve).expect("a thread");
    address
}

fn byte_at(at: usize) -> u8 {
    (at % 251) as u8
}

/// Most memory that a process has held, KiB.
fn peak_kib(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// The client is not let send further than its origin takes it: with an origin that takes nothing,
/// it cannot send all; and what is on its way is in sockets, not in the edge.
#[test]
fn an_upload_waits_for_its_origin_and_is_not_held_by_the_edge() {
    let folder = tempfile::tempdir().expect("a folder");
    let (release, released) = mpsc::sync_channel(1);
    let (listen, _, edge) = plain_edge(folder.path(), holding_origin(released));
    let before = peak_kib(&edge);
    #[expect(clippy::disallowed_types, reason = "a test client owns its socket")]
    let mut stream = std::net::TcpStream::connect(listen).expect("connects");
    let head =
        format!("PUT /up/f HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a time-out is set");
    let body: Vec<u8> = (0..UPLOAD_BYTES).map(byte_at).collect();
    let mut sent = 0;
    loop {
        match stream.write(&body[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                break;
            }
        }
        assert!(sent < UPLOAD_BYTES, "all of it went out, and the origin took nothing");
    }
    release.send(()).expect("the origin waits");
    stream.set_write_timeout(Some(Duration::from_secs(30))).expect("a time-out is set");
    stream.write_all(&body[sent..]).expect("the rest");
    let mut client = Client::over(stream).expect("a client");
    client.send(b"", 1).expect("an answer is due");
    let reply = client.answer().expect("an answer");
    assert_eq!((reply.status, text(&reply.body)), (200, format!("{UPLOAD_BYTES:08}")));
    let grown = peak_kib(&edge).saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB more held during an upload of 64 MiB");
}

#[test]
fn every_example_is_accepted_by_the_program_it_is_for() {
    let mut files = Vec::new();
    // Beside the folders lies the trace of docs/eviction.md, which has a test of its own.
    let examples = fs::read_dir(docs().join("examples")).expect("examples").flatten();
    for folder in examples.filter(|entry| entry.path().is_dir()) {
        for file in fs::read_dir(folder.path()).expect("a folder").flatten() {
            files.push(file.path());
        }
    }
    let table = fs::read_to_string(docs().join("reach.md")).expect("docs/reach.md");
    let mut edges = 0;
    for file in &files {
        let inside = file.strip_prefix(docs()).expect("inside").display().to_string();
        assert!(table.contains(&format!("({inside})")), "docs/reach.md does not link {inside}");
        if file.ends_with("edge.toml") {
            edges += 1;
            let output = run(&["edge", "--config", &file.display().to_string(), "--check"]);
            assert!(output.status.success(), "{inside}: {}", text(&output.stderr));
        }
    }
    assert!(edges >= 3, "{files:?}");
}

#[test]
fn the_example_for_haproxy_is_accepted_by_haproxy() {
    let name = "the_example_for_haproxy_is_accepted_by_haproxy";
    let folder = tempfile::tempdir().expect("a folder");
    let Some(pem) = certificate(folder.path()) else {
        return println!("SKIPPED {name}: no openssl here");
    };
    let file = folder.path().join("haproxy.cfg");
    let (key, both) = (folder.path().join("key.pem"), folder.path().join("both.pem"));
    let parts = [fs::read(pem).expect("read"), fs::read(key).expect("read")].concat();
    fs::write(&both, parts).expect("written");
    let to = both.display().to_string();
    let text_of = example("behind-haproxy/haproxy.cfg", &[("/etc/ssl/shop.example.pem", &to)]);
    fs::write(&file, text_of).expect("written");
    let path = ["/usr/sbin/haproxy", "/usr/bin/haproxy", "/usr/local/sbin/haproxy"];
    let Some(program) = path.iter().find(|path| Path::new(path).exists()) else {
        return println!("SKIPPED {name}: no haproxy here");
    };
    let output = Command::new(program).arg("-c").arg("-f").arg(&file).output().expect("it runs");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// A certificate of our own signing, its key beside it as `key.pem`; `None` without openssl.
fn certificate(folder: &Path) -> Option<PathBuf> {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=shop"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", text(&output.stderr));
    Some(folder.join("cert.pem"))
}

/// nginx in front as the example has it, before `edge` and `origin`; and its URL, which is plain
/// without openssl.
#[expect(clippy::print_stdout, reason = "what a test skips is told by name")]
fn nginx_in_front(
    folder: &Path,
    edge: SocketAddr,
    origin: SocketAddr,
) -> Option<(Nginx, &'static str)> {
    let address = free_address();
    let (edge, origin, pem) = (edge.to_string(), origin.to_string(), certificate(folder));
    let (listen, secure) = (format!("listen {address} ssl http2;"), pem.is_some());
    let key = folder.join("key.pem").display().to_string();
    let pem = pem.unwrap_or_default().display().to_string();
    let mut http = example(
        "behind-nginx/nginx.conf",
        &[
            ("listen 443 ssl http2;", &listen),
            ("listen [::]:443 ssl http2;", ""),
            ("/etc/ssl/shop.example.pem", &pem),
            ("/etc/ssl/shop.example.key", &key),
            ("127.0.0.1:8080", &edge),
            ("127.0.0.1:9000", &origin),
        ],
    );
    if !secure {
        println!("SKIPPED TLS before nginx: no openssl here");
        http = http.replace(" ssl http2;", ";").replace("ssl_certificate", "# ssl_certificate");
    }
    let nginx = Nginx::run(folder, &http, address)?;
    Some((nginx, if secure { "https" } else { "http" }))
}

/// Has curl ask for a path of the site at `at`, with more arguments; what it wrote.
fn curl(scheme: &str, at: SocketAddr, path: &str, arguments: &[&str]) -> String {
    let output = curl_command(scheme, at, path, arguments).output().expect("curl runs");
    text(&output.stdout)
}

fn curl_command(scheme: &str, at: SocketAddr, path: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["-s", "-k", "-N", "--max-time", "60"])
        .args(["--connect-to", &format!("{HOST}:{}:{at}", at.port())])
        .args(arguments)
        .arg(format!("{scheme}://{HOST}:{}{path}", at.port()))
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Whether the tests with nginx in front can run here; if not, says so.
#[expect(clippy::print_stdout, reason = "what a test skips is told by name")]
fn has_nginx_and_curl(name: &str) -> bool {
    let has_curl = Command::new("curl").arg("--version").output().is_ok();
    if nginx::program().is_none() || !has_curl {
        println!("SKIPPED {name}: nginx or curl is missing here");
        return false;
    }
    true
}

#[test]
fn behind_nginx_a_site_has_tls_http_2_client_addresses_and_its_websocket() {
    let name = "behind_nginx_a_site_has_tls_http_2_client_addresses_and_its_websocket";
    if !has_nginx_and_curl(name) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (listen, admin, origin) = (free_address(), free_address(), echo::start());
    let configuration = example(
        "behind-nginx/edge.toml",
        &[
            ("127.0.0.1:8080", &listen.to_string()),
            ("127.0.0.1:7401", &admin.to_string()),
            ("127.0.0.1:9000", &origin.to_string()),
        ],
    );
    let _edge = edge(folder.path(), &configuration, admin);
    let (nginx, scheme) = nginx_in_front(folder.path(), listen, origin).expect("nginx is here");
    let at = nginx.address;
    let made_up = ["-H", "X-Forwarded-For: 192.0.2.9", "-H", "Forwarded: for=192.0.2.9"];
    let asked = curl(scheme, at, "/cart/1", &made_up).to_ascii_lowercase();
    for line in [
        "host: shop.example\r\n",
        "x-forwarded-proto: https\r\n",
        "x-forwarded-for: 127.0.0.1, 127.0.0.1\r\n",
        "forwarded: for=127.0.0.1;host=\"shop.example\";proto=https\r\n",
    ] {
        assert!(asked.contains(line), "{line} in {asked}");
    }
    assert!(!asked.contains("192.0.2.9"), "{asked}");
    if scheme == "https" {
        let version = ["-o", "/dev/null", "-w", "%{http_version}"];
        assert_eq!(curl(scheme, at, "/cart/1", &version), "2");
    }
    let upload = ["--data-binary", &"x".repeat(100_000)];
    assert!(curl(scheme, at, "/cart/2", &upload).ends_with("body: 100000\r\n"));
    let fields = ["-i", "--http1.1", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket"];
    let switched = curl(scheme, at, "/ws/", &fields);
    assert!(switched.starts_with("HTTP/1.1 101 "), "{switched}");
    assert!(switched.ends_with("switched\n"), "{switched}");
}

/// A stream behind nginx comes as it is told: the answer of nginx is not held until it is whole,
/// which a stream never is.
#[test]
fn an_event_stream_passes_nginx_as_it_is_told() {
    if !has_nginx_and_curl("an_event_stream_passes_nginx_as_it_is_told") {
        return;
    }
    let node = Node::up(&[]);
    let folder = node.folder.path();
    let (nginx, scheme) = nginx_in_front(folder, node.edge, node.edge).expect("nginx is here");
    let mut command = curl_command(scheme, nginx.address, "/demo/events", &[]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("curl runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut wait_for = |begin: &str| {
        let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with(begin)));
        line.unwrap_or_else(|| panic!("{begin} never came: {}", node.log())).expect("a line")
    };
    wait_for("retry:");
    node.cli(&[
        "incident",
        "create",
        "--page",
        "demo",
        "--title",
        "Through nginx",
        "--status",
        "investigating",
        "--component",
        "api=partial_outage",
        "--message",
        "Seen.",
    ]);
    wait_for("event: incident");
    assert!(wait_for("data:").contains("Through nginx"));
    let _ = child.kill();
    let _ = child.wait();
    let page = curl(scheme, nginx.address, "/demo/", &["-i"]);
    assert!(page.contains("Through nginx"), "{page}");
}

#[test]
fn before_nginx_its_log_has_the_visitors_address_and_uploads_pass() {
    let name = "before_nginx_its_log_has_the_visitors_address_and_uploads_pass";
    if nginx::program().is_none() {
        return println!("SKIPPED {name}: no nginx here");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).expect("made");
    fs::write(tree.join("a.txt"), "hello").expect("written");
    let (origin, behind) = (free_address(), echo::start().to_string());
    let http = example(
        "before-nginx/nginx.conf",
        &[
            ("127.0.0.1:9000", &origin.to_string()),
            ("127.0.0.1:9100", &behind),
            ("/var/www/shop", &tree.display().to_string()),
        ],
    );
    let nginx = Nginx::run(folder.path(), &http, origin).expect("nginx is here");
    let (listen, admin) = (free_address(), free_address());
    let configuration = example(
        "before-nginx/edge.toml",
        &[
            ("\"0.0.0.0:80\", \"[::]:80\"", &format!("\"{listen}\"")),
            ("127.0.0.1:7401", &admin.to_string()),
            ("127.0.0.1:9000", &origin.to_string()),
        ],
    );
    let _edge = edge(folder.path(), &configuration, admin);
    let mut client = from_another_address(listen);
    let first = client.get(HOST, "/a.txt");
    assert_eq!((first.status, text(&first.body)), (200, "hello".to_owned()));
    let second = client.get(HOST, "/a.txt");
    assert_eq!(second.field("x-cache-status"), Some("HIT"));
    until("nginx has logged the visitor's address", 20, || {
        (nginx.requests(folder.path(), "127.0.0.2 ") == 1).then_some(())
    });
    client.ask_with("POST", HOST, "/upload/", &[], &vec![7; 3 << 20]);
    let reply = client.answer().expect("an answer");
    let body = text(&reply.body);
    assert!(body.ends_with("body: 3145728\r\n"), "{body}");
    assert!(body.contains("X-Forwarded-For: 127.0.0.2\r\n"), "{body}");
}

/// A client whose address is 127.0.0.2.
fn from_another_address(to: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let own: SocketAddr = "127.0.0.2:0".parse().expect("an address");
    socket.bind(&own.into()).expect("bound");
    socket.connect(&to.into()).expect("connects");
    Client::over(socket.into()).expect("a client")
}
