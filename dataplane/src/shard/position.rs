//! Reports to control how far this edge has applied the feed: the ground of purge receipts.
//!
//! ```text
//!   Off ─due─▶ [Resolving ─▶] Connecting ─▶ Idle ─due─▶ Busy ─2xx─▶ Idle
//!    ▲                            │           │           │
//!    └──────── back-off ──────────┴───────────┴───────────┘
//! ```
//! A small connection of its own, kept open. A change is reported within 250 ms, one behind a purge
//! at once (each while no report is under way), and every 5 s in any case: the edge's sign of life.
//!
//! Leaves to others: what the position is, and where control is (`feed`).

use std::{io, net::SocketAddr, sync::Arc};

use proto::{
    feed::record::Position,
    http1::{
        client::{Client, ClientStep},
        encode,
        head::{FieldSpace, Method},
    },
};

use super::{
    ControlLink,
    jitter::Jitter,
    out::{Op, Out},
    session::request_head,
};
use crate::{
    limits,
    seam::{Close, Mono, Now, Payload, Segment, SocketId},
};

/// The reporter.
pub struct Reporter {
    link: ControlLink,
    target: String,
    jitter: Jitter,
    state: State,
    /// When the next report should go.
    due_at: Mono,
    sent_at: Mono,
    next_number: u64,
    /// Reports refused or lost in a row.
    failures: u32,
}

/// What is known of where control is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// No feed is followed: it is not looked for on this account.
    None,
    /// Its feed comes from here.
    At(SocketAddr),
    /// Its feed comes through another edge: it is looked for by its name.
    ByName,
}

enum State {
    Off,
    Resolving { number: u64, deadline: Mono },
    Connecting { number: u64, deadline: Mono },
    Idle { socket: SocketId, client: Box<Client> },
    Busy { socket: SocketId, client: Box<Client>, deadline: Mono, status: u16 },
}

impl Reporter {
    /// For the edge of this id.
    pub fn new(link: ControlLink, edge_id: &str, seed: u64) -> Self {
        Self {
            target: format!("/v1/edges/{edge_id}/position"),
            link,
            jitter: Jitter::new(seed, REPORT_PURPOSE),
            state: State::Off,
            due_at: Mono(0),
            sent_at: Mono(0),
            next_number: 1,
            failures: 0,
        }
    }

    /// Whether this socket is the reporter's.
    pub fn owns(&self, socket: SocketId) -> bool {
        match &self.state {
            State::Off | State::Resolving { .. } | State::Connecting { .. } => false,
            State::Idle { socket: own, .. } | State::Busy { socket: own, .. } => *own == socket,
        }
    }

    /// Another key, from the next report on.
    pub fn set_authorization(&mut self, authorization: &Arc<str>) {
        self.link.authorization = Arc::clone(authorization);
    }

    /// The position has changed; `at_once` behind a purge.
    pub fn note(&mut self, at_once: bool) {
        let after_ms = if at_once { limits::REPORT_URGENT_MS } else { limits::REPORT_CHANGED_MS };
        if self.failures == 0 {
            self.due_at = self.due_at.min(self.sent_at.after_ms(after_ms));
        }
    }

    /// Goes on, as far as it is due.
    pub fn go_on(
        &mut self,
        now: Now,
        reach: Reach,
        position: impl FnOnce() -> Option<Position>,
        out: &mut Out,
    ) {
        if self.due_at > now.mono {
            return;
        }
        match &mut self.state {
            State::Off => match reach {
                Reach::None => {}
                Reach::At(to) => self.connect(now, to, out),
                Reach::ByName => {
                    let number = self.number();
                    let deadline = now.mono.after_ms(limits::REPORT_MS_MAX);
                    self.state = State::Resolving { number, deadline };
                    let link = &self.link;
                    out.resolve(Op::Feed(number), link.host.to_string(), link.port);
                }
            },
            State::Idle { .. } => {
                if let Some(position) = position() {
                    self.send(now, &position, out);
                } else {
                    self.due_at = now.mono.after_ms(limits::REPORT_EVERY_MS);
                }
            }
            State::Resolving { .. } | State::Connecting { .. } | State::Busy { .. } => {}
        }
    }

    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 2;
        number
    }

    fn connect(&mut self, now: Now, to: SocketAddr, out: &mut Out) {
        let number = self.number();
        let deadline = now.mono.after_ms(limits::REPORT_MS_MAX);
        self.state = State::Connecting { number, deadline };
        out.connect(Op::Feed(number), to);
    }

    /// A look-up of control's name ended.
    pub fn handle_resolved(
        &mut self,
        now: Now,
        number: u64,
        result: Result<Vec<SocketAddr>, io::ErrorKind>,
        out: &mut Out,
    ) {
        if !matches!(self.state, State::Resolving { number: wanted, .. } if wanted == number) {
            return;
        }
        let addresses = result.unwrap_or_default();
        // After a failure the next of them.
        match addresses.get(self.failures as usize % addresses.len().max(1)) {
            Some(&to) => self.connect(now, to, out),
            None => self.fail(now, out),
        }
    }

    /// A connection attempt ended.
    pub fn handle_connected(
        &mut self,
        now: Now,
        number: u64,
        result: Result<SocketId, io::ErrorKind>,
        out: &mut Out,
    ) {
        let wanted =
            matches!(self.state, State::Connecting { number: wanted, .. } if wanted == number);
        match result {
            Ok(socket) if wanted => {
                out.receive(socket, true);
                self.state = State::Idle { socket, client: Box::default() };
            }
            Ok(socket) => out.close(socket, Close::Abort),
            Err(_) if wanted => self.fail(now, out),
            Err(_) => {}
        }
    }

    /// Bytes from control.
    pub fn handle_received(&mut self, now: Now, mut input: &[u8], out: &mut Out) {
        let State::Busy { client, status, .. } = &mut self.state else {
            return self.fail(now, out);
        };
        let mut ended = false;
        loop {
            let mut space = FieldSpace::new();
            match client.step(&mut input, &mut space) {
                ClientStep::Head(response) => *status = response.head.status,
                ClientStep::Informational(_) | ClientStep::Body(_) => {}
                ClientStep::End(_) => ended = true,
                ClientStep::Failed(_) => return self.fail(now, out),
                ClientStep::NeedMore => break,
            }
        }
        if ended {
            self.answered(now, out);
        }
    }

    /// The connection ended.
    pub fn handle_gone(&mut self, now: Now, out: &mut Out) {
        match &self.state {
            // Between two reports that is control's right.
            State::Idle { socket, .. } => {
                out.close(*socket, Close::Abort);
                self.state = State::Off;
            }
            _ => self.fail(now, out),
        }
    }

    /// A deadline may have passed.
    pub fn handle_deadline(&mut self, now: Now, out: &mut Out) {
        if let State::Resolving { deadline, .. }
        | State::Connecting { deadline, .. }
        | State::Busy { deadline, .. } = self.state
            && deadline <= now.mono
        {
            self.fail(now, out);
        }
    }

    /// When something is to be done; `following`: whether a session is up.
    pub fn next_deadline(&self, following: bool) -> Option<Mono> {
        match &self.state {
            State::Off if !following => None,
            State::Off | State::Idle { .. } => Some(self.due_at),
            State::Resolving { deadline, .. }
            | State::Connecting { deadline, .. }
            | State::Busy { deadline, .. } => Some(*deadline),
        }
    }

    fn send(&mut self, now: Now, position: &Position, out: &mut Out) {
        let State::Idle { socket, mut client } = std::mem::replace(&mut self.state, State::Off)
        else {
            return;
        };
        client.begin(false);
        let body = serde_json::to_vec(position)
            .expect("a position has text keys only, which serde_json cannot fail on");
        let mut request = request_head(Method::Post, &self.target, &self.link, out);
        request.extend_from_slice(b"Content-Type: application/json\r\n");
        encode::content_length(&mut request, body.len() as u64);
        encode::end(&mut request);
        request.extend_from_slice(&body);
        out.send(socket, Payload::One(Segment::Owned(request)));
        let deadline = now.mono.after_ms(limits::REPORT_MS_MAX);
        self.state = State::Busy { socket, client, deadline, status: 0 };
        self.sent_at = now.mono;
        self.due_at = now.mono.after_ms(limits::REPORT_EVERY_MS);
    }

    fn answered(&mut self, now: Now, out: &mut Out) {
        let State::Busy { socket, client, status, .. } =
            std::mem::replace(&mut self.state, State::Off)
        else {
            return;
        };
        if client.is_reusable() {
            self.state = State::Idle { socket, client };
        } else {
            out.close(socket, Close::Abort);
        }
        if (200..300).contains(&status) {
            self.failures = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
            if self.failures.is_power_of_two() {
                tracing::warn!(status, failures = self.failures, "control refused a position");
            }
            self.due_at = now.mono.after_ms(limits::REPORT_EVERY_MS);
        }
    }

    /// Gives up the connection, and comes back later.
    fn fail(&mut self, now: Now, out: &mut Out) {
        if let State::Idle { socket, .. } | State::Busy { socket, .. } = &self.state {
            out.close(*socket, Close::Abort);
        }
        let wait_ms = limits::REPORT_CHANGED_MS << self.failures.min(5);
        let wait_ms = wait_ms.min(limits::REPORT_EVERY_MS);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Off;
        self.due_at = now.mono.after_ms(self.jitter.half_to_three_halves(wait_ms));
    }
}

const REPORT_PURPOSE: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{seam::Effect, shard::mail::Mail};

    struct World {
        reporter: Reporter,
        out: Out,
        now: Now,
        position: u64,
    }

    const SOCKET: SocketId = SocketId { slot: 5, generation: 0 };
    const DONE: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

    impl World {
        fn new() -> Self {
            let link =
                ControlLink { host: "::1".into(), port: 7400, authorization: "Bearer k".into() };
            let mut world = Self {
                reporter: Reporter::new(link, "edge-1", 1),
                out: Out::new(0, 1),
                now: Now::default(),
                position: 1,
            };
            world.pass_ms(10_000);
            let effects = world.effects();
            let Effect::Connect { op, .. } = effects[0] else { panic!("{effects:?}") };
            let Op::Feed(number) = Op::of(op) else { panic!("the feed's") };
            assert!(!super::super::session::Session::owns_number(number));
            world.reporter.handle_connected(world.now, number, Ok(SOCKET), &mut world.out);
            world
        }

        fn effects(&mut self) -> Vec<Effect<Mail>> {
            std::iter::from_fn(|| self.out.poll()).collect()
        }

        fn pass_ms(&mut self, ms: u64) {
            self.now.mono = self.now.mono.after_ms(ms);
            self.reporter.handle_deadline(self.now, &mut self.out);
            let position = Position {
                cursor: format!("00000000000000ff.{}.", self.position).parse().expect("valid"),
                version: "1".into(),
                streams: 2,
                hits: 3,
                lookups: 4,
                topics: Vec::new(),
                url: None,
                draining: false,
                path: Vec::new(),
                children: Vec::new(),
            };
            let reach = Reach::At("[::1]:7400".parse().expect("valid"));
            self.reporter.go_on(self.now, reach, || Some(position), &mut self.out);
        }

        /// The report that was sent, if one was.
        fn sent(&mut self) -> Option<String> {
            self.effects().into_iter().find_map(|effect| match effect {
                Effect::Send { payload, .. } => {
                    let bytes = payload.segments()[0].as_slice().to_vec();
                    Some(String::from_utf8(bytes).expect("text"))
                }
                _ => None,
            })
        }

        fn answer(&mut self, bytes: &[u8]) {
            self.reporter.handle_received(self.now, bytes, &mut self.out);
        }
    }

    #[test]
    fn a_report_says_position_and_counters() {
        let mut world = World::new();
        world.pass_ms(0);
        let text = world.sent().expect("the first is due at once");
        assert!(
            text.starts_with("POST /v1/edges/edge-1/position HTTP/1.1\r\nHost: [::1]:7400\r\n")
        );
        let body = text.split_once("\r\n\r\n").expect("a head").1;
        let position: Position = serde_json::from_str(body).expect("a position");
        assert_eq!((position.cursor.position, position.lookups), (1, 4));
    }

    #[test]
    fn changes_are_gathered_and_purges_are_not() {
        let mut world = World::new();
        world.pass_ms(0);
        assert!(world.sent().is_some());
        world.answer(DONE);
        world.reporter.note(false);
        world.pass_ms(limits::REPORT_CHANGED_MS - 1);
        assert!(world.sent().is_none());
        world.pass_ms(1);
        assert!(world.sent().is_some());
        world.answer(DONE);
        world.reporter.note(true);
        world.pass_ms(limits::REPORT_URGENT_MS);
        assert!(world.sent().is_some());
        world.answer(DONE);
        world.pass_ms(limits::REPORT_EVERY_MS);
        assert!(world.sent().is_some(), "a sign of life");
    }

    #[test]
    fn one_report_is_under_way_at_a_time() {
        let mut world = World::new();
        world.pass_ms(0);
        assert!(world.sent().is_some());
        world.reporter.note(true);
        world.pass_ms(1000);
        assert!(world.sent().is_none());
        world.answer(DONE);
        world.pass_ms(0);
        assert!(world.sent().is_some());
    }

    #[test]
    fn a_lost_report_is_sent_again_on_a_new_connection() {
        let mut world = World::new();
        world.pass_ms(0);
        world.sent();
        world.reporter.handle_gone(world.now, &mut world.out);
        assert!(matches!(world.effects()[..], [Effect::Close { .. }]));
        world.pass_ms(1000);
        assert!(matches!(world.effects()[..], [Effect::Connect { .. }]));
    }

    #[test]
    fn a_refused_report_does_not_make_a_storm() {
        let mut world = World::new();
        world.pass_ms(0);
        world.sent();
        world.answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        for _ in 0..10 {
            world.reporter.note(true);
            world.pass_ms(400);
        }
        assert!(world.sent().is_none());
        world.pass_ms(1000);
        assert!(world.sent().is_some());
    }
}
