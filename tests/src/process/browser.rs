//! A real Chromium without a window, told what to do over its own pipe (Chrome DevTools Protocol:
//! JSON, each message ended by a zero byte).
//!
//! Leaves to others: what the pages are (edges, `files`), what they should show (the tests).

use std::{
    cell::RefCell,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// A running browser. Ends with its value.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    pipe: RefCell<Pipe>,
}

/// One of its pages.
#[derive(Debug)]
pub struct Page<'a> {
    browser: &'a Browser,
    session: String,
}

#[derive(Debug)]
struct Pipe {
    orders: File,
    answers: Receiver<Value>,
    last: u64,
}

/// Where Debian puts it. `None` when this machine has none: the test then says that it is skipped.
pub fn program() -> Option<PathBuf> {
    let candidates = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    candidates.iter().map(PathBuf::from).find(|path| path.exists())
}

impl Browser {
    /// Starts one with everything it keeps in `folder`; `None` when there is none here.
    pub fn start(folder: &Path) -> Option<Self> {
        let program = program()?;
        let made = Command::new("mkfifo").args(["orders", "answers"]).current_dir(folder).status();
        assert!(made.expect("mkfifo runs").success(), "pipes are made");
        let log = File::create(folder.join("browser.err")).expect("a log");
        // It takes its orders from descriptor 3 and answers on 4.
        let child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<orders 4>answers"#])
            .arg(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", folder.join("profile").display()))
            .arg("about:blank")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a shell runs");
        // Each waits for the other side, in the order in which the shell opens them.
        let orders = OpenOptions::new().write(true).open(folder.join("orders")).expect("a pipe");
        let answers = File::open(folder.join("answers")).expect("a pipe");
        let (give, take) = sync_channel(MESSAGES_MAX);
        let read = move || {
            for message in BufReader::new(answers).split(0).map_while(Result::ok) {
                let message: Value = serde_json::from_slice(&message).expect("JSON");
                // What is only told, and to nobody who asked, is of no use here.
                if message["id"].is_u64() && give.send(message).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("browser".into()).spawn(read).expect("a thread");
        Some(Self { child, pipe: RefCell::new(Pipe { orders, answers: take, last: 0 }) })
    }

    /// Opens a page.
    pub fn open(&self, url: &str) -> Page<'_> {
        let target = self.order("Target.createTarget", &json!({ "url": url }), None);
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.order("Target.attachToTarget", &attach, None);
        let session = session["sessionId"].as_str().expect("a session").to_owned();
        Page { browser: self, session }
    }

    fn order(&self, method: &str, params: &Value, session: Option<&str>) -> Value {
        let mut pipe = self.pipe.borrow_mut();
        pipe.last += 1;
        let id = pipe.last;
        let mut order = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            order["sessionId"] = session.into();
        }
        let mut text = order.to_string().into_bytes();
        text.push(0);
        pipe.orders.write_all(&text).expect("the browser takes orders");
        loop {
            let answer = pipe.answers.recv_timeout(PATIENCE);
            let mut answer = answer.unwrap_or_else(|error| panic!("{method}: {error}"));
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }
}

impl Page<'_> {
    /// What a script comes to; `None` when it fails, as it does while the page is being loaded.
    pub fn run(&self, script: &str) -> Option<Value> {
        let params = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let mut done = self.browser.order("Runtime.evaluate", &params, Some(&self.session));
        done["exceptionDetails"].is_null().then(|| done["result"]["value"].take())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let close = b"{\"id\":0,\"method\":\"Browser.close\"}\0";
        // One that is gone takes no orders.
        let _ = self.pipe.borrow_mut().orders.write_all(close);
        for _ in 0..1000 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::park_timeout(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const FLAGS: [&str; 9] = [
    "--headless=new",
    "--remote-debugging-pipe",
    // Its sandbox needs what root in a container has not got; it sees nothing but our own pages.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-proxy-server",
];
const MESSAGES_MAX: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(60);
