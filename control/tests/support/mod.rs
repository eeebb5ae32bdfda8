//! A control in this process on a free port, and a blocking client for it that shares no code with
//! it but the feed's records.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use pharos_control::{Config, Running, Settings};
use proto::feed::{cursor::FeedCursor, record::Record};
use serde_json::Value;

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A control at work.
pub struct Control {
    runtime: tokio::runtime::Runtime,
    running: Option<Running>,
    /// Its address and first key.
    pub client: Client,
}

/// Speaks to a control.
#[derive(Clone)]
pub struct Client {
    /// `http://127.0.0.1:port`.
    pub base: String,
    /// The API key it shows.
    pub key: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The head's fields.
    pub headers: ureq::http::HeaderMap,
    /// The body as JSON, null when there is none.
    pub body: Value,
}

impl Reply {
    /// A field of the head.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The answer, asserted to have this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    /// A text in the body, by JSON pointer.
    pub fn text(&self, pointer: &str) -> String {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

/// A configuration for tests: loopback, free port.
pub fn config(data: &Path) -> Config {
    let listen = "127.0.0.1:0".parse().ok();
    let data = Some(PathBuf::from(data));
    let region = Some("eu".to_owned());
    Settings { listen, data, region, ..Settings::default() }.build().expect("valid")
}

impl Control {
    /// Starts on a data directory.
    pub fn start(data: &Path) -> Self {
        Self::start_with(config(data))
    }

    /// Starts with a configuration.
    pub fn start_with(config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let running = runtime.block_on(pharos_control::start(config)).expect("starts");
        let key = std::fs::read_to_string(&running.admin_key).expect("the first key");
        let base = format!("http://{}", running.address);
        let client = Client { base, key: key.trim().to_owned() };
        Self { runtime, running: Some(running), client }
    }

    /// What requests share.
    pub fn app(&self) -> &pharos_control::App {
        &self.running.as_ref().expect("running").app
    }

    /// Runs a future on control's runtime.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Stops in good order.
    pub fn stop(mut self) {
        let running = self.running.take().expect("running");
        self.runtime.block_on(running.stop());
    }
}

impl Client {
    /// The same control, another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { base: self.base.clone(), key: key.into() }
    }

    fn agent() -> ureq::Agent {
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .build()
            .into()
    }

    /// Asks, and reads the whole answer; fails only when the connection does.
    pub fn try_request(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, ureq::Error> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.key));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(body.to_owned()).expect("a request");
        let mut response = Self::agent().run(request)?;
        let text = response.body_mut().read_to_string()?;
        Ok(Reply {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
        })
    }

    /// Asks, and reads the whole answer.
    #[track_caller]
    pub fn request(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &Value,
    ) -> Reply {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.try_request(method, path, fields, &body).expect("an answer")
    }

    /// `GET`.
    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], &Value::Null)
    }

    /// `POST`.
    #[track_caller]
    pub fn post(&self, path: &str, body: Value) -> Reply {
        self.request("POST", path, &[], &body)
    }

    /// `PATCH`.
    #[track_caller]
    pub fn patch(&self, path: &str, body: Value) -> Reply {
        self.request("PATCH", path, &[], &body)
    }

    /// `DELETE`.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Reply {
        self.request("DELETE", path, &[], &Value::Null)
    }

    /// Opens the feed.
    pub fn feed(&self, cursor: Option<&str>, query: &str) -> Feed {
        self.slow_feed(cursor, query, 100_000)
    }

    /// Opens the feed, taking only so many events until they are asked for.
    pub fn slow_feed(&self, cursor: Option<&str>, query: &str, room: usize) -> Feed {
        let mut request = ureq::http::Request::builder()
            .uri(format!("{}/v1/feed{query}", self.base))
            .header("authorization", format!("Bearer {}", self.key));
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor);
        }
        let response = Self::agent().run(request.body(()).expect("a request")).expect("an answer");
        assert_eq!(response.status(), 200);
        let (sender, events) = mpsc::sync_channel(room);
        let reader = response.into_body().into_reader();
        std::thread::Builder::new().spawn(move || read_events(reader, &sender)).expect("a thread");
        Feed { events }
    }
}

/// An open feed, read by a thread of its own.
pub struct Feed {
    events: mpsc::Receiver<FeedEvent>,
}

/// An event of a feed.
#[derive(Clone, PartialEq, Debug)]
pub struct FeedEvent {
    /// The record.
    pub record: Record,
    /// The cursor after it.
    pub id: Option<FeedCursor>,
}

impl Feed {
    /// The next event, beats included; `None` when the feed has ended.
    pub fn any(&self) -> Option<FeedEvent> {
        match self.events.recv_timeout(PATIENCE) {
            Ok(event) => Some(event),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("nothing on the feed"),
        }
    }

    /// The next event that is no beat.
    #[track_caller]
    pub fn next(&self) -> FeedEvent {
        loop {
            let event = self.any().expect("the feed goes on");
            if !matches!(event.record, Record::Beat(_)) {
                return event;
            }
        }
    }

    /// Events up to and with the one that satisfies `last`, without beats.
    #[track_caller]
    pub fn until(&self, last: impl Fn(&FeedEvent) -> bool) -> Vec<FeedEvent> {
        let mut events = Vec::new();
        loop {
            let event = self.next();
            let done = last(&event);
            events.push(event);
            if done {
                return events;
            }
        }
    }

    /// Events up to this position, beats left out.
    #[track_caller]
    pub fn upto(&self, position: u64) -> Vec<FeedEvent> {
        let mut events = Vec::new();
        loop {
            let event = self.any().expect("the feed goes on");
            let done = event.id.as_ref().is_some_and(|id| id.position >= position);
            if !matches!(event.record, Record::Beat(_)) {
                events.push(event);
            }
            if done {
                return events;
            }
        }
    }
}

fn read_events(reader: impl Read, events: &mpsc::SyncSender<FeedEvent>) {
    let (mut kind, mut data, mut id) = (String::new(), String::new(), None);
    for line in BufReader::new(reader).lines() {
        let Ok(line) = line else { return };
        if let Some(value) = line.strip_prefix("event: ") {
            kind = value.into();
        } else if let Some(value) = line.strip_prefix("data: ") {
            data = value.into();
        } else if let Some(value) = line.strip_prefix("id: ") {
            id = Some(value.parse().expect("a cursor"));
        } else if line.is_empty() {
            let record = Record::parse(&kind, &data).expect("a record");
            if events.send(FeedEvent { record, id: id.take() }).is_err() {
                return;
            }
        }
    }
}

/// Waits until `done` says so.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "a bounded wait for a condition")]
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        #[expect(clippy::disallowed_methods, reason = "a bounded wait for a condition")]
        std::thread::sleep(Duration::from_millis(5));
    }
}
