//! The command line as a user meets it: the real program, real roles, nothing replaced.
//!
//! Checks what scripts and newcomers hold on to: exit codes, data on stdout and talk on stderr,
//! messages that name what to do, and that what `pharos up` prints works when pasted.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_types, reason = "holds a port, so that it is taken")]

use std::{
    net::TcpListener,
    process::{Command, Output},
};

use pharos_tests::process::{
    client::{Client, EventStream},
    node::{Node, get, program},
    wait::{free_address, until},
};
use serde_json::Value;

// -- without any role running
// -----------------------------------------------------------------------------------------

#[test]
fn unknown_flags_and_words_are_usage_errors_with_a_hint() {
    for (line, hint) in [
        ("incident create --page demo --titel T --message M", "--title"),
        ("incident creat", "create"),
        ("up --prot 1", "unexpected argument"),
        ("incident create --page p --title T --message M --component api=down", "major_outage"),
        ("incident create --page p --title T --message M --status fixed", "resolved"),
        ("purge --site s --key k --all", "--key"),
        ("purge --site s", "exactly one"),
        ("edge", "--config"),
        ("component update api --page demo", "--status"),
    ] {
        let output = pharos(line);
        assert_eq!(code(&output), 2, "{line}: {}", err(&output));
        assert!(err(&output).contains(hint), "{line}: {}", err(&output));
        assert!(output.stdout.is_empty(), "talk belongs on stderr: {line}");
    }
}

#[test]
fn every_command_explains_itself_with_an_example() {
    for command in [
        "",
        "up",
        "edge",
        "edge add",
        "edge list",
        "control",
        "doctor",
        "page create",
        "page list",
        "component create",
        "component list",
        "component update",
        "incident create",
        "incident update",
        "incident list",
        "incident show",
        "site create",
        "site list",
        "site delete",
        "purge",
    ] {
        let output = pharos(&format!("{command} --help"));
        assert_eq!(code(&output), 0, "{command}");
        assert!(out(&output).contains("Example"), "{command} --help has no example");
    }
}

#[test]
fn a_missing_key_is_told_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(Command::new(program()).args(["page", "list"]).current_dir(folder.path()));
    assert_eq!(code(&output), 5);
    assert!(err(&output).contains("--key-file") && err(&output).contains("PHAROS_KEY_FILE"));
    let output = pharos("page list --key-file nowhere");
    assert_eq!(code(&output), 5);
    assert!(err(&output).contains("nowhere"));
}

#[test]
fn a_control_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "pk_x\n").unwrap();
    let url = format!("http://{}", free_address());
    let output = pharos(&format!("page list --url {url} --key-file {}", key.display()));
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains(&url) && err(&output).contains("pharos up"), "{}", err(&output));
}

#[test]
fn doctor_prints_each_check_and_says_by_its_code_whether_all_is_well() {
    let output = pharos("doctor -o json");
    let findings: Value = serde_json::from_str(&out(&output)).unwrap();
    let wanting = findings.as_array().unwrap().iter().filter(|f| f["verdict"] == "change");
    let expected = if wanting.clone().count() == 0 { 0 } else { 7 };
    assert_eq!(code(&output), expected, "{}", err(&output));
    for finding in wanting {
        assert_ne!(finding["advice"], "", "{finding}");
    }
}

#[test]
fn a_malformed_configuration_names_file_line_and_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    for (role, file, text) in [
        ("edge", "edge.toml", "id = \"a\"\nlisten = [\"127.0.0.1:0\"]\nshrads = 2\n"),
        ("control", "control.toml", "region = \"eu\"\n\nretentoin = 2\n"),
    ] {
        let path = folder.path().join(file);
        std::fs::write(&path, text).unwrap();
        let output = pharos(&format!("{role} --check --config {}", path.display()));
        let said = err(&output);
        assert_eq!(code(&output), 2, "{role}: {said}");
        assert!(said.contains(&format!("{file}:3")), "{role}: {said}");
        assert!(said.contains("expected"), "{role}: {said}");
    }
}

// -- against a whole node
// ---------------------------------------------------------------------------------------------

#[test]
fn the_first_start_shows_a_page_and_what_it_prints_works_when_pasted() {
    let node = Node::up(&[]);
    let summary = summary(&node);
    for text in ["engine", "admin.key", &node.edge.to_string(), &node.api.to_string()] {
        assert!(summary.contains(text), "{text} is missing in:\n{summary}");
    }
    assert!(demo(&node).contains("Lighthouse on the Rock"));
    let second = get(node.edge, "/demo/").unwrap();
    assert_eq!(second.field("x-cache-status"), Some("HIT"));
    let commands: Vec<&str> = summary
        .lines()
        .map(str::trim)
        .filter(|line| line.contains(" incident ") || line.starts_with("curl "))
        .collect();
    assert_eq!(commands.len(), 3, "{summary}");
    for command in commands {
        let output = run(Command::new("sh").args(["-c", command]).current_dir(node.folder.path()));
        assert_eq!(code(&output), 0, "{command}: {}", err(&output));
    }
    until("the incident on the page", 10, || demo(&node).contains("The API is slow").then_some(()));
}

#[test]
fn an_incident_reaches_an_open_stream_and_then_the_page() {
    let node = Node::up(&[]);
    let host = node.edge.to_string();
    let mut stream = Client::connect(node.edge).unwrap().into_stream(&host, "/demo/events", "");
    assert_eq!(stream.status(), 200);
    let line = "incident create --page demo --title Fire --severity high --message M -o json";
    let output = verb(&node, line);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let incident: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(incident["impact"], "major");
    let id = incident["id"].as_str().unwrap();
    let event = told(&mut stream, id);
    assert!(demo(&node).contains("Fire"), "the page is older than the event {}", event["version"]);
    let output = verb(&node, &format!("incident update {id} --status resolved --message Out"));
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(told(&mut stream, id)["incident"]["status"], "resolved");
    let shown = out(&verb(&node, &format!("incident show {id}")));
    assert!(shown.contains("resolved") && shown.contains("Out"), "{shown}");
}

#[test]
fn exit_codes_tell_not_found_conflict_bad_values_and_a_wrong_key_apart() {
    let node = Node::up(&[]);
    for (line, expected) in [
        ("page create --slug acme --name Acme", 0),
        ("page create --slug acme --name Acme", 4),
        ("page create --slug Acme --name Acme", 2),
        ("page create --slug events --name Reserved", 2),
        ("component create --page acme --slug api --name API", 0),
        ("component update api --page acme --status partial_outage", 0),
        ("component update nope --page acme --status partial_outage", 3),
        ("component list --page nope", 3),
        ("component delete api --page acme", 0),
        ("incident show 00000000000000000000", 3),
        ("incident create --page acme --title T --message M --component nope=operational", 2),
        ("site create --name shop --host shop.example --origin http://127.0.0.1:9", 0),
        ("site create --name shop --host other.example --origin http://127.0.0.1:9", 4),
        ("site create --name other --host shop.example --origin http://127.0.0.1:9", 4),
        ("site create --name bad --host bad.example --origin nowhere", 2),
        ("purge --site shop --url /a --wait", 0),
        ("purge --site nope --all", 3),
        ("site delete shop", 0),
        ("site delete shop", 3),
        ("page delete acme", 0),
        ("page delete acme", 3),
    ] {
        let output = verb(&node, line);
        assert_eq!(code(&output), expected, "{line}: {}", err(&output));
        if expected != 0 {
            assert!(out(&output).is_empty() && err(&output).starts_with("error: "), "{line}");
        }
    }
    let wrong = node.folder.path().join("wrong.key");
    std::fs::write(&wrong, "pk_wrong").unwrap();
    let line = format!("page list --url http://{} --key-file {}", node.api, wrong.display());
    assert_eq!(code(&pharos(&line)), 5);
}

#[test]
fn a_purge_that_waits_says_how_many_edges_applied_it() {
    let node = Node::up(&[]);
    verb(&node, "site create --name shop --host shop.example --origin http://127.0.0.1:9");
    let output = verb(&node, "purge --site shop --prefix /a/ --wait");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(err(&output).contains("1 of 1 edges applied"), "{}", err(&output));
    // An edge that was enrolled but never came has nothing stored: it is named, and not waited for.
    let added = verb(&node, "edge add far-away");
    assert!(out(&added).contains("key_file"), "{}", out(&added));
    let output = verb(&node, "purge --site shop --all --wait");
    let said = err(&output);
    assert_eq!(code(&output), 0, "{said}");
    assert!(said.contains("1 of 1") && said.contains("never connected: far-away"), "{said}");
}

#[test]
fn an_added_edge_has_a_ready_configuration() {
    let node = Node::up(&[]);
    let folder = node.folder.path().join("far");
    let line = format!("edge add far --into {}", folder.display());
    assert_eq!(code(&verb(&node, &line)), 0);
    let config = folder.join("edge.toml");
    let checked = pharos(&format!("edge --check --config {}", config.display()));
    assert_eq!(code(&checked), 0, "{}", err(&checked));
    let edges = out(&verb(&node, "edge list"));
    assert!(edges.contains("far") && edges.contains("local"), "{edges}");
    assert_eq!(code(&verb(&node, &line)), 4, "an edge.toml is not overwritten");
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_disturbs_nothing() {
    let node = Node::up(&[]);
    let data = node.folder.path().join("data");
    let output = pharos(&format!(
        "up --data {} --edge {} --api {} --admin {}",
        data.display(),
        free_address(),
        free_address(),
        free_address()
    ));
    assert_eq!(code(&output), 1, "{}", err(&output));
    let pid = node.process.id().to_string();
    assert!(err(&output).contains(&pid) && err(&output).contains("--data"), "{}", err(&output));
    assert_eq!(get(node.edge, "/demo/").unwrap().status, 200);
}

#[test]
fn a_taken_port_names_the_holder_and_the_flag() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for flag in ["--edge", "--api", "--admin"] {
        let mut line = format!("up --data {}", folder.path().join("data").display());
        for other in ["--edge", "--api", "--admin"] {
            let address = if other == flag { taken } else { free_address() };
            line += &format!(" {other} {address}");
        }
        let output = pharos(&line);
        assert_eq!(code(&output), 1, "{}", err(&output));
        for text in [&taken.to_string(), flag, &format!("pid {}", std::process::id())] {
            assert!(err(&output).contains(text), "{flag}: no {text} in {}", err(&output));
        }
    }
}

#[test]
fn a_killed_role_comes_back_and_a_stopped_node_leaves_nothing_behind() {
    let mut node = Node::up(&[]);
    let pids = children(&node);
    assert_eq!(pids.len(), 2, "control and edge");
    let control = pids.iter().find(|pid| command_line(**pid).contains(" control ")).unwrap();
    let killed = Command::new("kill").args(["-KILL", &control.to_string()]).status();
    assert!(killed.unwrap().success());
    assert_eq!(get(node.edge, "/demo/").unwrap().status, 200, "the edge serves without control");
    until("control to come back", 30, || (code(&verb(&node, "page list")) == 0).then_some(()));
    assert_eq!(out(&verb(&node, "page list")).matches("demo").count(), 1);
    let pids = children(&node);
    node.process.signal("TERM");
    assert_eq!(node.process.wait(), Some(0));
    all_gone(&pids);
    node.again(&[]);
    assert_eq!(out(&verb(&node, "page list")).matches("demo").count(), 1, "no second demo");
    assert!(demo(&node).contains("Lighthouse on the Rock"));
}

#[test]
fn children_do_not_outlive_a_killed_supervisor() {
    let mut node = Node::up(&[]);
    let pids = children(&node);
    node.process.kill();
    all_gone(&pids);
}

// -- what the tests are made of
// ---------------------------------------------------------------------------------------

/// Runs the program without anything of this machine's environment that it would heed.
fn pharos(line: &str) -> Output {
    run(Command::new(program()).args(line.split(' ').filter(|word| !word.is_empty())))
}

fn run(command: &mut Command) -> Output {
    for name in ["PHAROS_URL", "PHAROS_KEY_FILE", "PHAROS_DATA"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

/// Runs a verb against a node; its words are parted by single spaces.
fn verb(node: &Node, line: &str) -> Output {
    node.cli_output(&line.split(' ').collect::<Vec<_>>())
}

/// What `up` said on stdout.
fn summary(node: &Node) -> String {
    let path = node.folder.path().join("up.out");
    until("the summary", 10, || {
        std::fs::read_to_string(&path).ok().filter(|text| text.contains("Ctrl-C"))
    })
}

fn demo(node: &Node) -> String {
    String::from_utf8(get(node.edge, "/demo/").unwrap().body).unwrap()
}

/// The data of the next incident event that speaks of `id`.
fn told(stream: &mut EventStream, id: &str) -> Value {
    loop {
        let event = stream.next_told().unwrap();
        let data: Value = serde_json::from_str(&event.data).unwrap();
        if event.name == "incident" && data["incident"]["id"] == id {
            return data;
        }
    }
}

fn children(node: &Node) -> Vec<u32> {
    let pid = node.process.id();
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Empty once the process is gone.
fn command_line(pid: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    text.replace('\0', " ")
}

fn all_gone(pids: &[u32]) {
    until("all children to end", 30, || {
        pids.iter().all(|&p| command_line(p).is_empty()).then_some(())
    });
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
