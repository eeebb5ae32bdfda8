//! What a user or a peer can get wrong: each gets a clear error, and nothing else is disturbed.
#![expect(clippy::disallowed_types, reason = "a test client owns its socket")]

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use pharos_tests::process::{
    client::Client,
    node::{Node, Process, get, run},
    wait::{free_address, until},
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sends bytes and returns the status of the answer.
fn status_of(edge: SocketAddr, bytes: &[u8]) -> u16 {
    let mut client = Client::connect(edge).expect("connects");
    client.send(bytes, 1).expect("sent");
    client.answer().map_or(0, |reply| reply.status)
}

fn is_well(node: &Node) {
    let page = get(node.edge, "/demo/").expect("the page");
    assert_eq!(page.status, 200);
}

#[test]
fn bad_requests_get_the_status_that_names_them_and_harm_nobody() {
    let node = Node::up(&[]);
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20_000));
    let long_head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(1000));
    let cases: [(&[u8], &[u16]); 12] = [
        (b"GET / HTTP/1.1\r\n\r\n", &[400]),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", &[400]),
        (b"GET / HTTP/2.7\r\nHost: a\r\n\r\n", &[400, 505]),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", &[400]),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", &[400]),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", &[400]),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", &[400, 501]),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", &[400]),
        (long_target.as_bytes(), &[414]),
        (long_head.as_bytes(), &[431]),
        (many.as_bytes(), &[431]),
    ];
    for (bytes, expected) in cases {
        let status = status_of(node.edge, bytes);
        assert!(
            expected.contains(&status),
            "{status} for {:?}",
            text(&bytes[..bytes.len().min(80)])
        );
        is_well(&node);
    }
}

#[test]
fn a_client_that_sends_one_byte_a_second_is_ended_and_others_are_not() {
    let node = Node::up(&[]);
    let mut slow = Client::connect(node.edge).expect("connects");
    let mut ended = false;
    for byte in
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Padding: aaaaaaaaaaaaaaaaaaaaaaaaa".iter().cycle().take(40)
    {
        if slow.send(&[*byte], 0).is_err() {
            ended = true;
            break;
        }
        is_well(&node);
        std::thread::park_timeout(Duration::from_secs(1));
    }
    assert!(ended || slow.is_closed_by_peer(), "the slow client was never ended");
    is_well(&node);
}

#[test]
fn a_wrong_key_is_refused_with_exit_code_5() {
    let node = Node::up(&[]);
    let wrong = node.folder.path().join("wrong.key");
    fs::write(&wrong, "nonsense\n").expect("written");
    let url = format!("http://{}", node.api);
    let output = run(&["page", "list", "--url", &url, "--key-file", &wrong.display().to_string()]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).is_empty());
}

#[test]
fn unknown_flags_and_keys_are_named() {
    let output = run(&["up", "--dta", "x"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--dta"), "{}", text(&output.stderr));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    fs::write(&file, "id = \"e1\"\npop = \"p\"\nlisten = [\"127.0.0.1:0\"]\nshrads = 2\n")
        .expect("written");
    let path = file.display().to_string();
    let output = run(&["edge", "--config", &path, "--check"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("shrads") && said.contains('4') && said.contains("edge.toml"), "{said}");
}

#[test]
fn a_value_that_breaks_its_rule_is_named_with_file_and_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |role: &str, config: &str, says: &[&str]| {
        let file = folder.path().join("config.toml");
        fs::write(&file, config).expect("written");
        let output = run(&[role, "--config", &file.display().to_string(), "--check"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        for part in says {
            assert!(said.contains(part), "{part:?} in {said}");
        }
    };
    check(
        "edge",
        "id = \"e\"\n[timeouts]\nrequest_head_ms = 0\n",
        &["config.toml:3: timeouts.request_head_ms"],
    );
    let site = "[[site]]\nname = \"s\"\nhosts = [\"a b\"]\norigins = [{ url = \"http://o\" }]\n";
    check("edge", site, &["config.toml:3: site[0].hosts"]);
    check("edge", "\nlisten = [\"0.0.0.0:1\"]\n", &["config.toml:2: listen", "allow_plaintext"]);
    check("control", "\nregion = \"A B\"\n", &["config.toml:2: region", "a-z"]);
}

#[test]
fn a_taken_port_is_named_with_the_flag_that_changes_it() {
    let node = Node::up(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let (edge, api, admin) =
        (node.edge.to_string(), free_address().to_string(), free_address().to_string());
    let data = folder.path().join("d").display().to_string();
    let output = run(&["up", "--data", &data, "--edge", &edge, "--api", &api, "--admin", &admin]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&edge) && said.contains("--edge"), "{said}");
    is_well(&node);
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() {
    let node = Node::up(&[]);
    let data = node.folder.path().join("data").display().to_string();
    let free: Vec<String> = (0..3).map(|_| free_address().to_string()).collect();
    let output =
        run(&["up", "--data", &data, "--edge", &free[0], "--api", &free[1], "--admin", &free[2]]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("data"), "{said}");
    is_well(&node);
}

/// Needs root and a kernel that lets it mount a tmpfs.
#[test]
fn connections_that_ask_nothing_cannot_lock_others_out_of_control() {
    let node = Node::up(&[]);
    let held: Vec<TcpStream> =
        (0..control::limits::CONNECTIONS_MAX + 200).map_while(|_| connect(node.api)).collect();
    if held.len() <= control::limits::CONNECTIONS_MAX {
        let count = held.len();
        println!(
            "SKIPPED connections_that_ask_nothing_cannot_lock_others_out_of_control: \
             {count} connections are all that this process may have"
        );
        return;
    }
    assert_eq!(get(node.api, "/healthz").expect("an answer").status, 200);
    node.cli(&["incident", "list", "--page", "demo"]);
}

fn connect(to: SocketAddr) -> Option<TcpStream> {
    TcpStream::connect_timeout(&to, Duration::from_secs(10)).ok()
}

#[test]
fn a_full_disk_refuses_writes_with_507_and_heals_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let small = folder.path().join("small");
    fs::create_dir(&small).expect("made");
    let path = small.display().to_string();
    let mount = |arguments: &[&str]| {
        std::process::Command::new(arguments[0])
            .args(&arguments[1..])
            .status()
            .is_ok_and(|s| s.success())
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", &path]) {
        println!("SKIPPED a_full_disk_refuses_writes_with_507_and_heals_by_itself: no mount here");
        return;
    }
    let api = free_address();
    let config = folder.path().join("control.toml");
    fs::write(&config, format!("region = \"local\"\nlisten = \"{api}\"\ndata = \"{path}\"\n"))
        .expect("written");
    let mut control = Process::start(
        folder.path(),
        "control",
        &["control", "--config", &config.display().to_string()],
    );
    until("control is up", 30, || get(api, "/healthz").ok().filter(|reply| reply.status == 200));
    let key = fs::read_to_string(small.join("admin.key")).expect("a key");
    let call = |method: &str, target: &str, body: &str| {
        let bearer = format!("Bearer {}", key.trim());
        let fields = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let mut client = Client::connect(api).expect("connects");
        client.ask_with(method, "x", target, &fields, body.as_bytes());
        client.answer().expect("an answer")
    };
    assert_eq!(call("POST", "/v1/pages", "{\"slug\":\"p0\",\"name\":\"P\"}").status, 201);
    let ballast = small.join("ballast");
    let room = vec![0_u8; 64 * 1024];
    let mut file = fs::File::create(&ballast).expect("made");
    while std::io::Write::write_all(&mut file, &room).is_ok() {}
    let mut refused = 0;
    for at in 1..2000 {
        let name = "n".repeat(100);
        let reply =
            call("POST", "/v1/pages", &format!("{{\"slug\":\"p{at}\",\"name\":\"{name}\"}}"));
        match reply.status {
            201 => {}
            507 => {
                refused = at;
                break;
            }
            other => panic!("{other}: {}", text(&reply.body)),
        }
    }
    assert!(refused > 0, "the disk never filled");
    assert_eq!(call("GET", "/v1/pages", "").status, 200, "reads go on");
    drop(file);
    fs::remove_file(&ballast).expect("room again");
    until("writes return by themselves", 30, || {
        let reply = call("POST", "/v1/pages", "{\"slug\":\"again\",\"name\":\"A\"}");
        (reply.status == 201).then_some(())
    });
    control.kill();
    assert!(mount(&["umount", "-l", &path]));
}
