//! Drain: finish what is under way, move streams elsewhere, then stop; or undo it.
//!
//! ```text
//!          TERM, POST          notice over         no stream left,
//!   serving ────────▶ noticed ───────────▶ moving ───────────────▶ finishing
//!      ▲                 │                    │    to end the process  │  │ all shards idle,
//!      └─────────────────┴─────── undo ───────┴────────────────────────┘  ▼ or deadline
//!                                                                        stop
//! ```
//! Noticed: `/readyz` says 503, so that whatever leads visitors here leads them elsewhere. Moving:
//! every answer says `Connection: close`, idle connections close, streams are moved at the
//! configured pace (`stream::migrate`) and new ones refused. Listeners go on accepting, because
//! who still comes here would hang in their backlog otherwise. Only a process that is to end stops
//! accepting, when no stream is left.
//!
//! Shard 0 orders: all others hear the same orders in the same sequence. So whatever is asked, an
//! undo counts until the order to stop, and no shard stops while another goes on.
//!
//! Leaves to others: signals and requests (`admin`, the binary), who is moved when (`stream`).

use serde_json::{Value, json};

use super::{
    Edge, Shard, mail::Mail, observe::Metric, opening::Interval, request::Door,
    stream::migrate::Pace,
};
use crate::seam::{Mono, Now};

/// What shard 0 tells all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// To drain, or, while it drains, to end afterwards.
    Drain {
        /// The process is to end.
        then_stop: bool,
    },
    /// To serve again.
    Undo,
    /// To stop now.
    Stop,
}

/// A drain under way, as one shard sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drain {
    phase: Phase,
    began_at: Mono,
    /// Until then nothing but readiness has changed.
    notice_until: Mono,
    /// When whatever is left is cut off.
    deadline: Mono,
    /// The process ends afterwards.
    then_stop: bool,
    /// Undone drains before this one: the same number on all shards, which hear the same orders.
    round: u32,
    /// Shards that have nothing left; counted by shard 0.
    idle_shards: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Noticed,
    Moving,
    /// Nothing is accepted any more. `told`: shard 0 knows that nothing is left here.
    Finishing {
        told: bool,
    },
    Stopped,
}

impl Drain {
    /// When to look again.
    pub fn next_deadline(&self) -> Option<Mono> {
        let notice = (self.phase == Phase::Noticed).then_some(self.notice_until);
        let end = (self.then_stop && self.phase != Phase::Stopped).then_some(self.deadline);
        notice.into_iter().chain(end).min()
    }
}

impl Shard {
    /// Somebody asks for a drain or for its end; shard 0 gives the order.
    pub(super) fn ask_drain(&mut self, order: Order) {
        let is_late = self.edge.drain.is_some_and(|drain| drain.phase == Phase::Stopped);
        if self.edge.settings.shard == 0 && !is_late {
            self.edge.out.mail_all(|| Mail::Drain(order));
        }
    }

    /// Shard 0 has given an order.
    pub(super) fn ordered(&mut self, now: Now, order: Order) {
        let stopped = self.edge.drain.is_some_and(|drain| drain.phase == Phase::Stopped);
        match order {
            _ if stopped => {}
            Order::Drain { then_stop } => self.begin_drain(now, then_stop),
            Order::Undo => self.undo_drain(now),
            Order::Stop => self.stop(),
        }
    }

    fn begin_drain(&mut self, now: Now, then_stop: bool) {
        let timeouts = &self.edge.timeouts;
        let deadline = now.mono.after_ms(timeouts.drain_ms);
        if let Some(drain) = &mut self.edge.drain {
            if then_stop && !drain.then_stop {
                (drain.then_stop, drain.deadline) = (true, deadline);
            }
            return;
        }
        let notice_until = now.mono.after_ms(timeouts.drain_notice_ms);
        self.edge.drain = Some(Drain {
            phase: Phase::Noticed,
            began_at: now.mono,
            notice_until,
            deadline,
            then_stop,
            round: self.edge.drains_undone,
            idle_shards: 0,
        });
        self.edge.observe.set(Metric::Draining, 1);
        self.edge.observe.set(Metric::DrainStreams, self.edge.streams.count().into());
        self.edge.observe.set(Metric::DrainMoved, 0);
        self.report_drain(now);
    }

    fn undo_drain(&mut self, now: Now) {
        self.edge.drains_undone = self.edge.drains_undone.wrapping_add(1);
        let Some(drain) = self.edge.drain.take() else { return };
        self.edge.draining = false;
        self.edge.observe.set(Metric::Draining, 0);
        if matches!(drain.phase, Phase::Finishing { .. }) {
            self.accept(true);
        }
        self.edge.streams.drain(now, None, &mut self.edge.out);
        self.report_drain(now);
    }

    /// Control is told, so that nobody is led here, or is again.
    fn report_drain(&mut self, now: Now) {
        if let Some(feed) = &mut self.feed {
            feed.note_report(now, &mut self.edge.out);
        }
    }

    /// Takes a drain as far as it goes now.
    pub(super) fn look_at_drain(&mut self, now: Now) {
        loop {
            let Some(drain) = self.edge.drain else { return };
            let streams = self.edge.streams.count() as usize;
            let phase = match drain.phase {
                Phase::Noticed if now.mono >= drain.notice_until => {
                    self.begin_moving(now);
                    Phase::Moving
                }
                Phase::Moving if drain.then_stop && streams == 0 => {
                    self.accept(false);
                    self.close_idle(now);
                    Phase::Finishing { told: false }
                }
                Phase::Finishing { told: false } if streams + self.visitor_count() == 0 => {
                    self.edge.out.mail(0, Mail::DrainIdle { round: drain.round });
                    Phase::Finishing { told: true }
                }
                _ => break,
            };
            if let Some(drain) = &mut self.edge.drain {
                drain.phase = phase;
            }
        }
        let edge = &mut self.edge;
        edge.observe.set(Metric::DrainMoved, edge.streams.drained());
        let is_over = |drain: &Drain| {
            drain.then_stop && drain.phase != Phase::Stopped && now.mono >= drain.deadline
        };
        let is_over = edge.drain.as_ref().is_some_and(is_over);
        if edge.settings.shard == 0 && is_over {
            self.ask_stop();
        }
    }

    /// The notice is over.
    fn begin_moving(&mut self, now: Now) {
        let edge = &mut self.edge;
        let Some(drain) = &edge.drain else { return };
        if let Some(feed) = &mut self.feed {
            feed.drain_relay(&mut edge.out);
        }
        edge.draining = true;
        let pace = match edge.rates.drain_per_s {
            // Most of the time; what is left is for requests that just began.
            0 => Pace::OverMs((drain.deadline.since_ns(now.mono) / 1_000_000 / 4 * 3).max(1)),
            per_s => Pace::Each(Interval::share(per_s, edge.settings.shard_count)),
        };
        edge.observe.set(Metric::DrainStreams, edge.streams.count().into());
        edge.streams.drain(now, Some(pace), &mut edge.out);
        edge.origins.close_idle(&mut edge.out);
        self.close_idle(now);
    }

    /// Connections end after what they are at.
    fn close_idle(&mut self, now: Now) {
        let conns: Vec<_> = self.conns.refs().collect();
        for at in conns {
            self.with_conn(at, |conn, edge| conn.drain(edge, now));
        }
    }

    /// A shard has nothing left.
    pub(super) fn shard_is_idle(&mut self, round: u32) {
        let shards = self.edge.settings.shard_count;
        let Some(drain) = &mut self.edge.drain else { return };
        if drain.round == round && drain.phase != Phase::Stopped {
            drain.idle_shards += 1;
            if drain.idle_shards >= shards {
                self.ask_stop();
            }
        }
    }

    fn ask_stop(&mut self) {
        self.edge.out.mail_all(|| Mail::Drain(Order::Stop));
        // No undo from here on: what is asked of shard 0 later comes behind the stop.
        self.stop();
    }

    fn stop(&mut self) {
        let Some(drain) = &mut self.edge.drain else { return };
        drain.phase = Phase::Stopped;
        let left = self.edge.streams.count();
        self.edge.observe.set(Metric::StreamsCut, left.into());
        self.edge.streams.end_moves();
        self.edge.flush_access();
        self.edge.out.stop();
    }

    fn accept(&mut self, on: bool) {
        for listener in 0..self.edge.settings.listener_count {
            if self.edge.door(listener) == Door::Public {
                self.edge.out.accept(listener, on);
            }
        }
    }
}

impl Edge {
    /// How far a drain is, for the operator: what this shard knows of time, and all of streams.
    pub(super) fn drain_report(&self, now: Now) -> Value {
        let board = self.observe.board();
        let streams = board.sum(Metric::Streams);
        let connections = board.sum(Metric::HttpConns);
        let Some(drain) = &self.drain else {
            return json!({
                "draining": false, "phase": "serving",
                "streams": { "left": streams }, "connections": connections,
            });
        };
        let left_ms = drain.deadline.since_ns(now.mono) / 1_000_000;
        let (at_start, moved) = (board.sum(Metric::DrainStreams), board.sum(Metric::DrainMoved));
        let phase = match drain.phase {
            Phase::Noticed => "noticed",
            Phase::Moving if streams == 0 => "drained",
            Phase::Moving => "moving",
            Phase::Finishing { .. } => "finishing",
            Phase::Stopped => "stopping",
        };
        json!({
            "draining": true,
            "phase": phase,
            "ends": drain.then_stop,
            "elapsed_ms": now.mono.since_ns(drain.began_at) / 1_000_000,
            "left_ms": drain.then_stop.then_some(left_ms),
            "streams": {
                "at_start": at_start,
                "moved": moved,
                "left": streams,
                "per_s": (self.rates.drain_per_s > 0).then_some(self.rates.drain_per_s),
            },
            "connections": connections,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        seam::Control,
        shard::testing::{STREAMS_MAX, World},
    };

    const GET: &str = "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n";
    const EVENTS: &str = "GET /demo/events HTTP/1.1\r\nHost: status.example\r\n\r\n";

    fn admin(world: &mut World, request: &str) -> String {
        let operator = world.accept(0, 1);
        world.say(operator, &format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        world.take(operator)
    }

    fn report(world: &mut World) -> Value {
        let answer = admin(world, "GET /v1/drain");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).expect("JSON")
    }

    fn set(world: &mut World, change: impl FnOnce(&mut crate::shard::live::Live)) {
        let mut live = world.live_now();
        change(&mut live);
        world.live.put(live);
        world.control(Control::Reload);
    }

    fn with_streams(shards: usize, streams: usize) -> World {
        let mut world = World::with_control(shards as u16);
        for number in 0..streams {
            let client = world.connect(number % shards);
            world.say(client, EVENTS);
            assert!(world.take(client).contains("event: beat"));
        }
        world
    }

    fn ok(body: &str) -> String {
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    }

    #[test]
    fn the_operators_connection_is_not_closed_under_his_next_request() {
        let mut world = World::new(1);
        let operator = world.accept(0, 1);
        for (request, status) in [("POST", "202"), ("GET", "200")] {
            assert!(!world.peer(operator).closed);
            let request = format!("{request} /v1/drain HTTP/1.1\r\nHost: localhost\r\n\r\n");
            world.say(operator, &request);
            assert!(world.take(operator).starts_with(&format!("HTTP/1.1 {status} ")));
        }
    }

    #[test]
    fn a_drain_finishes_what_is_under_way_goes_on_serving_and_can_be_undone() {
        let mut world = World::new(1);
        let (idle, busy) = (world.connect(0), world.connect(0));
        world.say(busy, GET);
        assert!(admin(&mut world, "POST /v1/drain").starts_with("HTTP/1.1 202 "));
        assert!(world.peer(idle).closed && !world.peer(busy).closed);
        let upstream = world.upstream();
        world.say(upstream, &ok("hello"));
        let answer = world.take(busy);
        assert!(answer.contains("Connection: close\r\n") && answer.ends_with("hello"), "{answer}");
        assert!(world.peer(busy).closed);
        assert!(admin(&mut world, "GET /readyz").starts_with("HTTP/1.1 503 "));
        // Who still comes is served, once.
        assert!(world.accepting.is_empty(), "nobody hangs in a backlog");
        let late = world.connect(0);
        world.say(late, GET);
        let answer = world.take(late);
        assert!(answer.contains("HIT") && answer.contains("Connection: close\r\n"), "{answer}");
        assert!(world.peer(late).closed && world.stopped.is_empty());
        admin(&mut world, "DELETE /v1/drain");
        assert!(admin(&mut world, "GET /readyz").starts_with("HTTP/1.1 200 "));
        let client = world.connect(0);
        world.say(client, GET);
        assert!(!world.take(client).contains("Connection: close") && !world.peer(client).closed);
    }

    #[test]
    fn a_process_told_to_end_stops_when_nothing_is_left_or_its_time_is_over() {
        let mut world = World::new(1);
        let client = world.connect(0);
        world.say(client, GET);
        world.control(Control::Drain);
        assert!(world.stopped.is_empty());
        assert_eq!(world.accepting.get(&0), Some(&false));
        assert_eq!(world.accepting.get(&1), None, "the operator can still come in");
        let upstream = world.upstream();
        world.say(upstream, &ok("hello"));
        assert_eq!(world.stopped, [0]);
        let mut world = World::new(1);
        let client = world.connect(0);
        world.peer(client).blocked = true;
        world.say(client, "GET /no HTTP/1.1\r\nHost: b\r\n\r\n");
        world.control(Control::Drain);
        world.wait_ms(10_000);
        assert!(world.stopped.is_empty());
        world.wait_ms(21_000);
        assert_eq!(world.stopped, [0]);
    }

    #[test]
    fn no_shard_stops_before_all_have_nothing_left() {
        let mut world = World::new(3);
        let client = world.connect(2);
        world.say(client, GET);
        world.control(Control::Drain);
        assert!(world.stopped.is_empty());
        let upstream = world.upstream();
        world.say(upstream, &ok("hello"));
        assert_eq!(world.stopped.iter().collect::<BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn a_process_told_to_end_can_be_called_back_until_it_stops() {
        let mut world = with_streams(2, 80);
        world.control(Control::Drain);
        world.wait_ms(10_000);
        let left = world.metric(Metric::Streams);
        assert!((20..60).contains(&left) && world.stopped.is_empty(), "{left}");
        assert!(admin(&mut world, "DELETE /v1/drain").starts_with("HTTP/1.1 202 "));
        world.wait_ms(60_000);
        assert!(world.stopped.is_empty());
        assert_eq!(world.metric(Metric::Streams), left, "who stayed stays");
        // Also when it accepts no more and waits for one last request.
        let mut world = World::new(2);
        let client = world.connect(1);
        world.say(client, GET);
        world.control(Control::Drain);
        assert_eq!(world.accepting.get(&0), Some(&false));
        admin(&mut world, "DELETE /v1/drain");
        assert_eq!(world.accepting.get(&0), Some(&true));
        let upstream = world.upstream();
        world.say(upstream, &ok("hello"));
        world.wait_ms(60_000);
        assert!(world.stopped.is_empty());
        // And told again, it ends.
        world.control(Control::Drain);
        world.wait_ms(60_000);
        assert_eq!(world.stopped.len(), 2);
        admin(&mut world, "DELETE /v1/drain");
        assert_eq!(world.stopped.len(), 2, "too late");
    }

    #[test]
    fn readiness_goes_first_and_everything_else_after_the_notice() {
        let mut world = with_streams(1, 5);
        set(&mut world, |live| live.timeouts.drain_notice_ms = 4_000);
        admin(&mut world, "POST /v1/drain");
        assert!(admin(&mut world, "GET /readyz").starts_with("HTTP/1.1 503 "));
        let client = world.connect(0);
        world.say(client, EVENTS);
        assert!(world.take(client).contains("event: beat"), "streams still open");
        world.wait_ms(3_900);
        assert_eq!(report(&mut world)["phase"], "noticed");
        assert_eq!(world.metric(Metric::Streams), 6);
        world.wait_ms(200);
        assert!(world.metric(Metric::StreamsMigrated) > 0);
        let client = world.connect(0);
        world.say(client, EVENTS);
        assert!(world.peer(client).closed, "refused now");
    }

    #[test]
    fn a_report_says_how_far_it_is_and_what_the_deadline_cut() {
        let mut world = with_streams(2, 80);
        assert_eq!(report(&mut world)["phase"], "serving");
        set(&mut world, |live| live.rates.drain_per_s = 2);
        world.control(Control::Drain);
        world.wait_ms(9_900);
        let told = report(&mut world);
        let streams = &told["streams"];
        assert_eq!((&told["phase"], &streams["at_start"]), (&json!("moving"), &json!(80)));
        assert_eq!(streams["moved"].as_u64().zip(streams["left"].as_u64()), Some((20, 60)));
        assert_eq!((&told["ends"], &streams["per_s"]), (&json!(true), &json!(2)));
        assert_eq!(told["left_ms"], 20_100);
        world.wait_ms(21_000);
        assert_eq!(world.stopped.len(), 2);
        let (moved, cut) =
            (world.metric(Metric::StreamsMigrated), world.metric(Metric::StreamsCut));
        assert!(moved <= 62 && moved + cut == 80, "{moved} by the rate, the rest cut: {cut}");
    }

    #[test]
    fn the_rate_of_all_shards_together_is_the_configured_one() {
        let mut world = with_streams(4, STREAMS_MAX as usize);
        set(&mut world, |live| live.rates.drain_per_s = 20);
        admin(&mut world, "POST /v1/drain");
        for second in 1..=5 {
            world.wait_ms(1000);
            let moved = world.metric(Metric::StreamsMigrated);
            assert!(moved <= second * 20 + 4, "{moved} in {second} s");
        }
        world.wait_ms(200);
        assert_eq!(report(&mut world)["phase"], "drained");
        assert!(world.stopped.is_empty());
    }
}
