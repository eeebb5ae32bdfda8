//! What is acknowledged is there: after a kill, on a full disk, in a replay; and the sync comes
//! before the reply.

mod support;

use std::{
    collections::{BTreeSet, HashMap},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use rusqlite::Connection;
use serde_json::json;
use support::{Client, Control, wait_until};

const DATA: &str = "PHAROS_TEST_CHILD_DATA";

/// Not a test of its own: the control that other tests kill.
#[test]
#[ignore = "run as a child process by the tests below"]
fn child() {
    let Some(data) = std::env::var_os(DATA) else { return };
    let control = Control::start(Path::new(&data));
    println!("listening {}", control.client.base);
    loop {
        std::thread::park();
    }
}

struct Process {
    child: Child,
    client: Client,
}

impl Process {
    fn start(data: &Path, before: &[&str]) -> Self {
        let own = std::env::current_exe().expect("this test");
        let arguments = ["--exact", "child", "--ignored", "--nocapture"];
        let mut command = match before.split_first() {
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(own);
                command
            }
            None => Command::new(own),
        };
        let mut child = command
            .args(arguments)
            .env(DATA, data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let base = lines
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("listening ")?.1.to_owned()))
            .expect("an address");
        let key = std::fs::read_to_string(data.join("admin.key")).expect("a key");
        Self { child, client: Client { base, key: key.trim().into() } }
    }

    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }
}

#[test]
fn every_acknowledged_write_survives_a_kill_and_none_is_there_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut acknowledged = BTreeSet::new();
    for round in 0..3 {
        let process = Process::start(dir.path(), &[]);
        let done = Arc::new(Mutex::new(BTreeSet::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (client, done, stop) =
                    (process.client.clone(), Arc::clone(&done), Arc::clone(&stop));
                std::thread::Builder::new()
                    .spawn(move || {
                        for nth in 0.. {
                            let slug = format!("p-{round}-{writer}-{nth}");
                            let body = json!({"slug": slug, "name": "N"}).to_string();
                            let key = [("idempotency-key", slug.as_str())];
                            let reply = client.try_request("POST", "/v1/pages", &key, &body);
                            match reply {
                                Ok(reply) if reply.status == 201 => {
                                    done.lock().expect("sound").insert(slug);
                                }
                                _ if stop.load(Ordering::Relaxed) => return slug,
                                _ => {}
                            }
                        }
                        String::new()
                    })
                    .expect("a thread")
            })
            .collect();
        wait_until("some writes", || done.lock().expect("sound").len() > 20);
        stop.store(true, Ordering::Relaxed);
        process.kill();
        let in_doubt: Vec<_> =
            writers.into_iter().map(|writer| writer.join().expect("ended")).collect();
        acknowledged.extend(done.lock().expect("sound").clone());
        // Whoever got no answer asks again, with the same key.
        let process = Process::start(dir.path(), &[]);
        for slug in in_doubt {
            let body = json!({"slug": slug, "name": "N"});
            let key = [("idempotency-key", slug.as_str())];
            process.client.request("POST", "/v1/pages", &key, &body).expect(201);
            acknowledged.insert(slug);
        }
        process.kill();
    }
    let control = Control::start(dir.path());
    for slug in &acknowledged {
        control.client.get(&format!("/v1/pages/{slug}")).expect(200);
    }
    control.stop();
    let conn = Connection::open(dir.path().join("control.db")).expect("opens");
    let count = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, usize>(0)).expect("counts");
    assert_eq!(count("SELECT count(*) FROM log WHERE kind = 'page'"), acknowledged.len());
    assert_eq!(count("SELECT count(*) FROM incarnation"), 1, "a crash is no restore");
    assert_eq!(count("SELECT count(*) - max(seq) FROM log"), 0, "dots without holes");
}

#[test]
fn the_sync_comes_before_the_reply() {
    let dir = tempfile::tempdir().expect("a directory");
    let trace = dir.path().join("trace");
    // Whole pages are shown, so that each write of the log names the page that it creates.
    let calls = "trace=pwrite64,fsync,fdatasync,write,writev,sendto,sendmsg";
    let strace = ["strace", "-f", "-y", "-s", "5000", "-e", calls];
    let file = trace.display().to_string();
    let before: Vec<&str> = strace.into_iter().chain(["-o", &file]).collect();
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED the_sync_comes_before_the_reply: strace is not here");
        return;
    }
    let slugs: Vec<String> = (0..5).map(|nth| format!("traced-page-{nth}")).collect();
    let process = Process::start(dir.path(), &before);
    for slug in &slugs {
        let body = json!({"slug": slug, "name": "N"});
        process.client.post("/v1/pages", body).expect(201);
    }
    process.kill();
    let text = std::fs::read_to_string(&trace).expect("a trace");
    let calls = ended_calls(&text);
    for slug in &slugs {
        let at = |what: &str, from: usize, is_it: &dyn Fn(&str) -> bool| {
            let found = calls[from..].iter().position(|call| is_it(call));
            from + found.unwrap_or_else(|| panic!("{slug}: no {what} in the trace"))
        };
        let is_log = |call: &str| call.contains("control.db-wal>");
        let logged = at("write to the log", 0, &|call| {
            call.starts_with("pwrite64(") && is_log(call) && call.contains(slug)
        });
        let synced = at("sync of the log", logged, &|call| {
            (call.starts_with("fdatasync(") || call.starts_with("fsync("))
                && is_log(call)
                && call.ends_with("= 0")
        });
        let replied = at("reply", 0, &|call| call.contains("HTTP/1.1 201") && call.contains(slug));
        assert!(synced < replied, "{slug}: replied before the log was synced");
    }
}

/// The calls of a trace in the order of their ends; one that other threads interrupted is put
/// together again.
fn ended_calls(trace: &str) -> Vec<String> {
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut ended = Vec::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(start) = call.strip_suffix("<unfinished ...>") {
            begun.insert(thread, start);
        } else if let Some((_, end)) = call.split_once("resumed>") {
            ended.push(format!("{}{end}", begun.remove(thread).unwrap_or_default()));
        } else {
            ended.push(call.to_owned());
        }
    }
    ended
}

#[test]
fn state_is_what_a_replay_of_the_log_gives() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let client = &control.client;
    for slug in ["a", "b"] {
        client.post("/v1/pages", json!({"slug": slug, "name": "N"})).expect(201);
        let component = json!({"slug": "api", "name": "API"});
        client.post(&format!("/v1/pages/{slug}/components"), component).expect(201);
        let incident = json!({"title": "T", "components": {"api": "partial_outage"}});
        let path = format!("/v1/pages/{slug}/incidents");
        let id = client.post(&path, incident).expect(201).text("/id");
        client
            .post(&format!("/v1/incidents/{id}/updates"), json!({"status": "resolved"}))
            .expect(201);
    }
    client.patch("/v1/pages/a", json!({"hosts": ["a.example", "b.example"]})).expect(200);
    client.patch("/v1/pages/a", json!({"hosts": ["b.example"], "slug": "c"})).expect(200);
    client.delete("/v1/pages/b").expect(204);
    let site = json!({"name": "shop", "hosts": ["s.example"],
        "origins": [{"url": "http://127.0.0.1:80"}]});
    client.post("/v1/sites", site).expect(201);
    client.post("/v1/purges", json!({"site": "shop", "all": true})).expect(202);
    client.post("/v1/edges", json!({"name": "one"})).expect(201);
    control.stop();
    let database = dir.path().join("control.db");
    let before = dump(&database);
    assert!(before.len() > 15);
    pharos_control::store::sqlite::writer::rebuild(&database).expect("rebuilt");
    assert_eq!(dump(&database), before);
    // Half of the log folded into the base changes nothing either.
    let conn = Connection::open(&database).expect("opens");
    let middle: u64 = conn
        .query_row("SELECT hlc >> 16 FROM log ORDER BY position LIMIT 1 OFFSET 9", [], |row| {
            row.get(0)
        })
        .expect("reads");
    let cutoff = pharos_control::reconcile::retention::Cutoff {
        log_ms: middle,
        feed_ms: 0,
        idempotency_ms: 0,
        event_ms: 0,
    };
    let removed = pharos_control::reconcile::retention::compact(&conn, cutoff).expect("compacts");
    assert!(removed > 0);
    drop(conn);
    pharos_control::store::sqlite::writer::rebuild(&database).expect("rebuilt");
    assert_eq!(dump(&database), before);
}

fn dump(database: &PathBuf) -> Vec<String> {
    let conn = Connection::open(database).expect("opens");
    let mut rows = Vec::new();
    for (table, columns) in [
        ("entity", "kind, id, page, name, rank, open, weight, dot, state"),
        ("conflict", "kind, id, cell, dot, value, winner"),
        ("purge", "id, position, dot, at_ms, purge_order"),
    ] {
        let sql = format!("SELECT json_array({columns}) FROM {table} ORDER BY 1");
        let mut statement = conn.prepare(&sql).expect("prepares");
        let found = statement.query_map([], |row| row.get::<_, String>(0)).expect("reads");
        rows.extend(found.map(|row| format!("{table} {}", row.expect("a row"))));
    }
    rows
}

/// A file system of a few megabytes, if this machine lets us mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_writes_reads_go_on_and_writes_come_back() {
    let Some(disk) = SmallDisk::mount("3m") else {
        eprintln!("skipped: this machine does not let us mount a tmpfs");
        return;
    };
    let control = Control::start(disk.0.path());
    let client = &control.client;
    client.post("/v1/pages", json!({"slug": "demo", "name": "N"})).expect(201);
    let ballast = disk.0.path().join("ballast");
    fill(&ballast);
    let mut written = 0;
    let refused = loop {
        let body = json!({"title": "T", "message": "x".repeat(8_000), "status": "resolved"});
        let reply = client.post("/v1/pages/demo/incidents", body);
        if reply.status != 201 {
            break reply;
        }
        written += 1;
        assert!(written < 1_000, "the disk never fills");
    };
    assert_eq!(refused.status, 507, "{}", refused.body);
    assert!(!refused.header("retry-after").is_empty());
    client.get("/v1/pages/demo").expect(200);
    assert_eq!(client.get("/healthz").status, 200);
    std::fs::remove_file(&ballast).expect("removed");
    client.post("/v1/pages", json!({"slug": "after", "name": "N"})).expect(201);
    let mut seen = 0;
    let mut path = "/v1/pages/demo/incidents?limit=500".to_owned();
    loop {
        let list = client.get(&path).expect(200);
        seen += list.body["items"].as_array().map_or(0, Vec::len);
        match list.body["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/pages/demo/incidents?limit=500&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, written, "what was acknowledged, and nothing else");
    control.stop();
}

/// Takes all space but a little.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).expect("made");
    let block = [0u8; 4096];
    while file.write_all(&block).is_ok() {}
    let length = file.metadata().expect("there").len();
    file.set_len(length.saturating_sub(200 * 1024)).expect("a little is given back");
}

#[test]
fn a_second_process_on_the_same_data_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let control = Control::start(dir.path());
    let config = support::config(dir.path());
    let error = control.block_on(pharos_control::start(config)).err().expect("refused");
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    control.stop();
}

#[test]
fn a_taken_address_is_named() {
    let (one, two) = (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
    let control = Control::start(one.path());
    let mut config = support::config(two.path());
    let address = control.client.base.strip_prefix("http://").expect("http");
    config.listen = address.parse().expect("an address");
    let error = control.block_on(pharos_control::start(config)).err().expect("refused");
    assert!(error.to_string().contains(address), "{error}");
    control.stop();
}
