//! Publishes numbered events to all topics in turn, for as long as it lives: whatever becomes of
//! control, each is sent again under the same key until it is acknowledged.
#![expect(clippy::disallowed_methods, reason = "real processes are told in real time")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Builder, JoinHandle},
    time::Duration,
};

use super::shared::Shared;
use crate::process::client::Client;

/// The publisher.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Course>,
    publishing: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Course {
    ending: AtomicBool,
    /// Rounds over all topics that were acknowledged.
    rounds: AtomicU64,
}

impl Publisher {
    /// Publishes at this API by this key, with a pause after each event.
    pub fn start(api: SocketAddr, key: String, pause: Duration, to: &Arc<Shared>) -> Self {
        let shared = Arc::<Course>::default();
        let (course, to) = (Arc::clone(&shared), Arc::clone(to));
        let body = move || {
            let mut line = None;
            for round in 1.. {
                for topic in 0..to.published.len() {
                    let body = format!(r#"{{"event": "n", "data": "{topic} {round}"}}"#);
                    let target = format!("/v1/topics/t{topic}/events");
                    let id = format!("{topic}-{round}");
                    while !post(&mut line, api, &key, &target, &id, &body) {
                        line = None;
                        if course.ending.load(Ordering::Acquire) {
                            return;
                        }
                        thread::sleep(AGAIN);
                    }
                    to.published[topic].store(round, Ordering::Release);
                    if course.ending.load(Ordering::Acquire) {
                        return;
                    }
                    thread::sleep(pause);
                }
                course.rounds.store(u64::from(round), Ordering::Release);
            }
        };
        let publishing = Builder::new().name("publisher".into()).spawn(body).expect("a thread");
        Self { shared, publishing: Some(publishing) }
    }

    /// Rounds over all topics that were acknowledged.
    pub fn rounds(&self) -> u64 {
        self.shared.rounds.load(Ordering::Acquire)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        if let Some(publishing) = self.publishing.take() {
            let _ = publishing.join();
        }
    }
}

/// Whether it was acknowledged.
fn post(
    line: &mut Option<Client>,
    api: SocketAddr,
    key: &str,
    target: &str,
    id: &str,
    body: &str,
) -> bool {
    if line.is_none() {
        *line = Client::connect(api).ok();
    }
    let Some(client) = line else { return false };
    let fields =
        [("Authorization", key), ("Content-Type", "application/json"), ("Idempotency-Key", id)];
    let asked = client.try_ask("POST", &api.to_string(), target, &fields, body.as_bytes());
    asked.is_ok() && client.answer().is_ok_and(|reply| reply.status == 202)
}

const AGAIN: Duration = Duration::from_millis(50);
