//! Load over HTTP/1.1: an actor that holds connections, sends requests at their time and checks
//! every answer.
//!
//! Closed loop: each answer starts the next request; a delay counts from when the request was
//! handed to the engine. Open loop: requests are due by a [`Schedule`]; a delay counts from the
//! *intended* start, so a request that waited for a free connection is charged for the wait.
//!
//! ```text
//! Learning ─▶ Warming ─▶ Measuring ─▶ Draining ─▶ Ending
//! one answer   load, not   load,        answers     connections
//! a path       recorded    recorded     still due   closed
//! ```
//!
//! Leaves to others: what to ask for ([`Workload`]), the kernel (the engine), reading CPU time
//! between two looks at [`Progress`] (`load`).

mod connection;
mod outcome;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use dataplane::seam::{
    Actor, Close, Control, Effect, Input, Mono, Now, Payload, Segment, SocketId,
};

use crate::{
    generator::{
        connection::{Connection, Life, Outstanding},
        outcome::Tally,
    },
    response::{BadResponse, Part},
    schedule::Schedule,
    verify::{BadBody, Lesson},
    workload::Workload,
};

pub(crate) use crate::generator::outcome::{Errors, Outcome};

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) to: SocketAddr,
    pub(crate) connections: u32,
    /// Requests outstanding on one connection, at most. In the closed loop they leave together,
    /// and the next ones when the last of them is answered.
    pub(crate) pipeline: u32,
    /// Requests a second; `None` is the closed loop.
    pub(crate) rate: Option<f64>,
    /// The server ends each connection with its answer, as it was asked to, and the next request
    /// has a new one; a delay then counts from the connect.
    pub(crate) reconnect: bool,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) workload: Workload,
}

/// What the generator shows while it runs, and its outcome at the end. Written by the load's
/// thread, read by the one that started it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    phase: AtomicU8,
    /// Answers since the start, right ones and wrong ones.
    completed: AtomicU64,
    outcome: Mutex<Option<Outcome>>,
}

/// Where a run stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Phase {
    Learning,
    Warming,
    Measuring,
    Draining,
    Ending,
}

/// The actor.
pub(crate) struct Generator {
    load: Load,
    progress: Arc<Progress>,
    phase: Phase,
    /// When the phase ends at the latest; `None` before the first input.
    phase_until: Option<Mono>,
    window: Range<Mono>,
    /// Intended starts of the open loop.
    schedule: Option<Schedule>,
    connections: Vec<Connection>,
    /// Index into `connections` by the slot of a socket.
    by_slot: Vec<u32>,
    /// Connections with room for a request, each at most once.
    ready: VecDeque<u32>,
    /// Connections to open again, in order of time.
    retry: VecDeque<(Mono, u32)>,
    /// How many were asked for at the start.
    opened: u32,
    /// Connections that got something to send in this call.
    touched: Vec<u32>,
    lesson: Lesson,
    tally: Tally,
    effects: VecDeque<Effect<()>>,
}

impl Progress {
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Learning,
            1 => Phase::Warming,
            2 => Phase::Measuring,
            3 => Phase::Draining,
            _ => Phase::Ending,
        }
    }

    /// Answers since the start.
    pub(crate) fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// The result, once the run has ended.
    pub(crate) fn take_outcome(&self) -> Option<Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Generator {
    pub(crate) fn new(load: Load, progress: Arc<Progress>) -> Self {
        let connections = (0..load.connections).map(|_| Connection::default()).collect();
        let phase = Phase::Learning;
        Self {
            load,
            progress,
            phase,
            phase_until: None,
            window: Mono(u64::MAX)..Mono(u64::MAX),
            schedule: None,
            connections,
            by_slot: Vec::new(),
            ready: VecDeque::new(),
            retry: VecDeque::new(),
            opened: 0,
            touched: Vec::new(),
            lesson: Lesson::default(),
            tally: Tally::new(),
            effects: VecDeque::new(),
        }
    }

    // ---- phases ----

    fn begin(&mut self, now: Mono) {
        self.phase_until = Some(now.after_ms(LEARN_MS_MAX));
        if self.load.workload.to_learn(0).is_none() {
            return self.warm(now);
        }
        self.connect(0, now);
        self.opened = 1;
    }

    fn warm(&mut self, now: Mono) {
        self.enter(Phase::Warming);
        self.phase_until = Some(now.after_ms(millis(self.load.warm_up)));
        self.schedule = self.load.rate.map(|rate| Schedule::new(now, rate));
        self.open_more(now);
    }

    /// The end of a phase has come.
    fn advance(&mut self, now: Mono) {
        match self.phase {
            Phase::Learning => self.end(now),
            Phase::Warming => {
                self.enter(Phase::Measuring);
                let until = now.after_ms(millis(self.load.duration));
                self.window = now..until;
                self.phase_until = Some(until);
            }
            Phase::Measuring => {
                self.enter(Phase::Draining);
                self.window.end = now.min(self.window.end);
                self.phase_until = Some(now.after_ms(DRAIN_MS_MAX));
            }
            Phase::Draining => self.end(now),
            Phase::Ending => self.effects.push_back(Effect::Stop),
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.progress.phase.store(phase as u8, Ordering::Release);
    }

    /// Closes everything and publishes the outcome.
    fn end(&mut self, now: Mono) {
        while self.take_due(now).is_some_and(|intended| {
            self.tally.unanswered(intended, now, &self.window);
            true
        }) {}
        for index in 0..self.connections.len() {
            for lost in std::mem::take(&mut self.connections[index].outstanding) {
                self.tally.unanswered(lost.intended, now, &self.window);
            }
            if let (Life::Up, Some(socket)) =
                (self.connections[index].life, self.connections[index].socket)
            {
                self.connections[index].life = Life::Closing;
                self.effects.push_back(Effect::Close { socket, how: Close::Abort });
            }
        }
        let outcome = self.tally.outcome(&self.window);
        *self.progress.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.enter(Phase::Ending);
        self.phase_until = Some(now.after_ms(END_MS_MAX));
        self.stop_when_closed();
    }

    fn stop_when_closed(&mut self) {
        if self.phase == Phase::Ending
            && self.connections.iter().all(|connection| connection.socket.is_none())
        {
            self.phase_until = None;
            self.effects.push_back(Effect::Stop);
        }
    }

    /// Whether requests still leave; in `Draining` those of the open loop that fell due in time.
    fn sends(&self) -> bool {
        match self.phase {
            Phase::Warming | Phase::Measuring => true,
            Phase::Draining => self.schedule.is_some(),
            Phase::Learning | Phase::Ending => false,
        }
    }

    // ---- connections ----

    fn connect(&mut self, index: u32, now: Mono) {
        let connection = &mut self.connections[index as usize];
        connection.reset();
        connection.life = Life::Opening;
        connection.since = now;
        let op = u64::from(index);
        self.effects.push_back(Effect::Connect { op, to: self.load.to, from: None });
    }

    /// Opens the next connections of the start, a bounded number at a time.
    fn open_more(&mut self, now: Mono) {
        let opening = |connection: &&Connection| connection.life == Life::Opening;
        let opened = &self.connections[..self.opened as usize];
        let mut room = OPENING_MAX.saturating_sub(opened.iter().filter(opening).count());
        while room > 0 && self.opened < self.load.connections {
            self.connect(self.opened, now);
            self.opened += 1;
            room -= 1;
        }
    }

    fn connected(&mut self, now: Mono, index: u32, result: Result<SocketId, std::io::ErrorKind>) {
        match result {
            Ok(socket) if self.phase == Phase::Ending => {
                self.connections[index as usize].socket = Some(socket);
                self.connections[index as usize].life = Life::Closing;
                self.name(socket, index);
                self.effects.push_back(Effect::Close { socket, how: Close::Abort });
            }
            Ok(socket) => {
                let connection = &mut self.connections[index as usize];
                connection.socket = Some(socket);
                connection.life = Life::Up;
                self.name(socket, index);
                self.effects.push_back(Effect::Receive { socket, on: true });
                self.has_room(index);
                if self.phase == Phase::Learning {
                    self.learn_next(now, 0);
                }
            }
            Err(_) => {
                self.tally.errors.connect += 1;
                if self.phase == Phase::Learning {
                    return self.end(now);
                }
                self.connections[index as usize].life = Life::Down;
                self.retry.push_back((now.after_ms(RETRY_MS), index));
            }
        }
        if self.phase == Phase::Warming || self.phase == Phase::Measuring {
            self.open_more(now);
        }
    }

    fn name(&mut self, socket: SocketId, index: u32) {
        let slot = socket.slot as usize;
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, u32::MAX);
        }
        self.by_slot[slot] = index;
    }

    /// The connection of a socket, unless it is an older use of that slot.
    fn find(&self, socket: SocketId) -> Option<u32> {
        let index = *self.by_slot.get(socket.slot as usize)?;
        let connection = self.connections.get(index as usize)?;
        (connection.socket == Some(socket)).then_some(index)
    }

    fn find_up(&self, socket: SocketId) -> Option<u32> {
        self.find(socket).filter(|&index| self.connections[index as usize].life == Life::Up)
    }

    /// Gives a connection up; what was outstanding on it is lost in the way `count` says.
    fn lose(&mut self, index: u32, count: impl Fn(&mut Errors) -> &mut u64) {
        let connection = &mut self.connections[index as usize];
        let lost = connection.outstanding.len() as u64;
        connection.outstanding.clear();
        if lost == 0 {
            self.tally.reconnects += 1;
        }
        *count(&mut self.tally.errors) += lost;
        self.shut(index);
    }

    fn shut(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        connection.life = Life::Closing;
        if let Some(socket) = connection.socket {
            self.effects.push_back(Effect::Close { socket, how: Close::Abort });
        }
    }

    fn closed(&mut self, now: Mono, socket: SocketId) {
        let Some(index) = self.find(socket) else { return };
        let answered = self.connections[index as usize].answered;
        self.connections[index as usize].reset();
        if self.phase == Phase::Ending {
            return self.stop_when_closed();
        }
        if self.load.reconnect && answered {
            if self.sends() {
                self.connect(index, now);
            }
            return;
        }
        // A pause keeps a server that closes at once from being asked in a tight loop.
        self.retry.push_back((now.after_ms(RETRY_MS), index));
    }

    // ---- requests ----

    /// Lists a connection that may send. Sent one by one as answers trickle in, the requests of a
    /// pipeline would come apart into ever smaller batches, whose size the load's receive buffers
    /// decide: 1.19 µs a request at the bare ring loop and 16 outstanding, instead of 0.71.
    fn has_room(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        let outstanding = connection.outstanding.len();
        let room = match self.schedule {
            None => outstanding == 0,
            Some(_) => outstanding < self.load.pipeline as usize,
        };
        if room && !connection.ready && connection.life == Life::Up && !connection.answered {
            connection.ready = true;
            self.ready.push_back(index);
        }
    }

    /// An open-loop request that is due, and was due before the window's end.
    fn take_due(&mut self, now: Mono) -> Option<Mono> {
        let latest = Mono(now.0.min(self.window.end.0.saturating_sub(1)));
        self.schedule.as_mut()?.take_due(latest)
    }

    /// Hands what is due to the connections that have room, then to the engine.
    fn dispatch(&mut self, now: Mono) {
        while self.sends()
            && let Some(index) = self.ready.pop_front()
        {
            let connection = &mut self.connections[index as usize];
            connection.ready = false;
            if connection.life != Life::Up || connection.answered {
                continue;
            }
            if self.schedule.is_none() {
                let room = self.load.pipeline as usize - connection.outstanding.len();
                let intended = if self.load.reconnect { connection.since } else { now };
                (0..room).for_each(|_| self.request(index, intended));
                continue;
            }
            match self.take_due(now) {
                Some(intended) => {
                    self.request(index, intended);
                    self.has_room(index);
                }
                None => {
                    self.connections[index as usize].ready = true;
                    self.ready.push_front(index);
                    break;
                }
            }
        }
        for index in std::mem::take(&mut self.touched) {
            self.flush(index);
        }
        if self.phase == Phase::Draining && self.is_drained(now) {
            self.end(now);
        }
    }

    fn is_drained(&mut self, now: Mono) -> bool {
        let idle = |connection: &Connection| connection.outstanding.is_empty();
        self.connections.iter().all(idle)
            && self
                .schedule
                .as_ref()
                .is_none_or(|schedule| schedule.next_at() >= self.window.end.min(now))
    }

    fn request(&mut self, index: u32, intended: Mono) {
        let request = self.load.workload.draw();
        self.ask(index, request, intended);
    }

    fn ask(&mut self, index: u32, request: u32, intended: Mono) {
        let connection = &mut self.connections[index as usize];
        connection.outstanding.push_back(Outstanding { request, intended });
        self.load.workload.write(request, &mut connection.unsent);
        self.touched.push(index);
    }

    /// Everything unsent in one send, unless one is under way.
    fn flush(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        let Some(socket) = connection.socket else { return };
        if connection.life == Life::Up && !connection.sending && !connection.unsent.is_empty() {
            connection.sending = true;
            let spare = std::mem::take(&mut connection.spare);
            let bytes = std::mem::replace(&mut connection.unsent, spare);
            let payload = Payload::One(Segment::Owned(bytes));
            self.effects.push_back(Effect::Send { socket, payload });
        }
    }

    fn sent(&mut self, socket: SocketId, result: Result<(), std::io::ErrorKind>, payload: Payload) {
        let Some(index) = self.find_up(socket) else { return };
        let connection = &mut self.connections[index as usize];
        connection.sending = false;
        if let Payload::One(Segment::Owned(mut bytes)) = payload {
            bytes.clear();
            connection.spare = bytes;
        }
        match result {
            Ok(()) => self.flush(index),
            Err(_) => self.lose(index, |errors| &mut errors.broken),
        }
    }

    // ---- answers ----

    fn received(&mut self, now: Mono, socket: SocketId, mut bytes: &[u8]) {
        let Some(index) = self.find_up(socket) else { return };
        loop {
            let connection = &mut self.connections[index as usize];
            match connection.reader.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(part)) => {
                    if !self.part(now, index, part) {
                        return;
                    }
                }
                Err(_) => return self.lose(index, |errors| &mut errors.protocol),
            }
        }
        self.has_room(index);
        self.progress.completed.store(self.tally.completed, Ordering::Relaxed);
    }

    /// Takes one part in; whether the connection is still of use.
    fn part(&mut self, now: Mono, index: u32, part: Part<'_>) -> bool {
        let connection = &mut self.connections[index as usize];
        let Some(current) = connection.outstanding.front().copied() else {
            self.tally.errors.protocol += 1;
            self.lose(index, |errors| &mut errors.protocol);
            return false;
        };
        let learning = self.phase == Phase::Learning;
        let expected = self.load.workload.expected(current.request);
        match part {
            Part::Head(head) => connection.head = Some(head),
            Part::Body(piece) => {
                connection.content_bytes += piece.len() as u64;
                match expected {
                    Some(expected) => connection.comparison.take(piece, expected),
                    None if learning => self.lesson.take(piece),
                    None => {}
                }
            }
            Part::End => return self.answered(now, index, current),
        }
        true
    }

    /// An answer is complete; whether the connection is still of use.
    fn answered(&mut self, now: Mono, index: u32, current: Outstanding) -> bool {
        let connection = &mut self.connections[index as usize];
        connection.outstanding.pop_front();
        let comparison = std::mem::take(&mut connection.comparison);
        let content_bytes = std::mem::take(&mut connection.content_bytes);
        // `End` never comes before `Head`.
        let Some(head) = connection.head.take() else { return false };
        if self.phase == Phase::Learning {
            self.learned(now, current.request, head.status);
        } else {
            let expected = self.load.workload.expected(current.request);
            let errors = &mut self.tally.errors;
            match expected
                .map(|expected| (head.status == expected.status, comparison.finish(expected)))
            {
                Some((false, _)) => errors.status += 1,
                Some((true, Err(BadBody::Length))) => errors.length += 1,
                Some((true, Err(BadBody::Content))) => errors.content += 1,
                Some((true, Ok(()))) | None => {}
            }
            self.tally.answer(now, current.intended, head, content_bytes, &self.window);
        }
        if self.load.reconnect {
            // Its end comes from the server; a close from here could overtake it.
            self.connections[index as usize].answered = true;
        } else if head.close && self.connections[index as usize].life == Life::Up {
            self.lose(index, |errors| &mut errors.cut);
            return false;
        }
        true
    }

    fn learned(&mut self, now: Mono, request: u32, status: u16) {
        let lesson = std::mem::take(&mut self.lesson);
        if status >= 400 {
            self.tally.refused = Some(status);
            return self.end(now);
        }
        self.load.workload.learn(request, lesson.finish(status));
        self.learn_next(now, request + 1);
    }

    fn learn_next(&mut self, now: Mono, from: u32) {
        match self.load.workload.to_learn(from) {
            Some(request) => {
                self.phase_until = Some(now.after_ms(LEARN_MS_MAX));
                self.ask(0, request, now);
            }
            None => self.warm(now),
        }
    }

    fn eof(&mut self, now: Mono, socket: SocketId) {
        let Some(index) = self.find_up(socket) else { return };
        if self.connections[index as usize].answered {
            self.connections[index as usize].life = Life::Closing;
            return self.effects.push_back(Effect::Close { socket, how: Close::Graceful });
        }
        match self.connections[index as usize].reader.end() {
            Ok(Some(part)) => {
                if self.part(now, index, part) {
                    self.lose(index, |errors| &mut errors.cut);
                }
            }
            Ok(None) | Err(BadResponse::Cut | BadResponse::Head | BadResponse::Chunk) => {
                self.lose(index, |errors| &mut errors.cut);
            }
        }
    }

    fn deadline(&mut self, now: Mono) {
        if self.phase_until.is_some_and(|until| until <= now) {
            self.advance(now);
        }
        while let Some(&(at, index)) = self.retry.front()
            && at <= now
        {
            self.retry.pop_front();
            if matches!(self.phase, Phase::Learning | Phase::Warming | Phase::Measuring) {
                self.connect(index, now);
            }
        }
    }
}

impl Actor for Generator {
    type Mail = ();

    fn handle(&mut self, now: Now, input: Input<'_, ()>) {
        let now = now.mono;
        if self.phase_until.is_none() && self.phase == Phase::Learning {
            self.begin(now);
        }
        match input {
            Input::Connected { op, result } => self.connected(now, op as u32, result),
            Input::Received { socket, bytes } => self.received(now, socket, bytes),
            Input::Sent { socket, result, payload } => self.sent(socket, result, payload),
            Input::Eof { socket } => self.eof(now, socket),
            Input::HungUp { socket } => {
                if let Some(index) = self.find_up(socket) {
                    self.lose(index, |errors| &mut errors.broken);
                }
            }
            Input::Closed { socket } => self.closed(now, socket),
            Input::Deadline => self.deadline(now),
            Input::Control(Control::Drain) if self.phase < Phase::Ending => self.end(now),
            // A generator listens nowhere, asks for no file, name or turn, and has no mail.
            Input::Accepted { .. }
            | Input::Writable { .. }
            | Input::SendFailed { .. }
            | Input::Mail { .. }
            | Input::File { .. }
            | Input::Resolved { .. }
            | Input::Cold { .. }
            | Input::Continue
            | Input::Control(_) => {}
        }
        self.dispatch(now);
    }

    fn poll_effect(&mut self) -> Option<Effect<()>> {
        self.effects.pop_front()
    }

    fn next_deadline(&self) -> Option<Mono> {
        if self.phase == Phase::Learning && self.phase_until.is_none() {
            return Some(Mono(0));
        }
        let due = match &self.schedule {
            Some(schedule) if self.sends() && !self.ready.is_empty() => {
                Some(schedule.next_at()).filter(|&at| at < self.window.end)
            }
            _ => None,
        };
        let retry = self.retry.front().map(|&(at, _)| at);
        [self.phase_until, due, retry].into_iter().flatten().min()
    }

    fn fanout_targets(&self, _: Range<u32>) -> &[SocketId] {
        &[]
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Connections being opened at a time: below the usual backlog of a listener.
const OPENING_MAX: usize = 128;
/// Longest wait for one answer while learning.
const LEARN_MS_MAX: u64 = 10_000;
/// Longest wait for answers after the window.
const DRAIN_MS_MAX: u64 = 5_000;
/// Longest wait for closes at the end.
const END_MS_MAX: u64 = 1_000;
/// Pause before a connection is opened again.
const RETRY_MS: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        options::BodyCheck,
        scripted::{Scripted, Seen},
        target::Target,
    };

    fn engine(change: impl FnOnce(&mut Load)) -> (Scripted<Generator>, Arc<Progress>) {
        let target: Target = "http://127.0.0.1:80/bytes/5".parse().expect("target");
        let workload = Workload::new(&target, &[], (1, 1.0, 1), BodyCheck::Same).expect("fine");
        let mut load = Load {
            to: target.address,
            connections: 1,
            pipeline: 1,
            rate: None,
            reconnect: false,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(1),
            workload,
        };
        change(&mut load);
        let progress = Arc::new(Progress::default());
        (Scripted::new(Generator::new(load, progress.clone())), progress)
    }

    /// Connects, learns the body `hello`, and begins to measure.
    fn measuring(change: impl FnOnce(&mut Load)) -> (Scripted<Generator>, Arc<Progress>, SocketId) {
        let (mut engine, progress) = engine(change);
        engine.wait_ms(0);
        assert_eq!(engine.seen.pop_front(), Some(Seen::Connect(0)));
        let socket = engine.connected(0);
        engine.receive(socket, HELLO);
        engine.wait_ms(0);
        assert_eq!(progress.phase(), Phase::Measuring);
        engine.receive(socket, b"");
        (engine, progress, socket)
    }

    fn outcome(mut engine: Scripted<Generator>, progress: &Progress) -> Outcome {
        engine.wait_ms(60_000);
        assert_eq!(engine.seen.back(), Some(&Seen::Stop));
        progress.take_outcome().expect("an outcome")
    }

    const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

    #[test]
    fn open_loop_delays_count_from_the_intended_start() {
        let (mut engine, progress, socket) = measuring(|load| load.rate = Some(1_000.0));
        // The server answers nothing for 500 ms; some 500 requests fall due meanwhile.
        engine.wait_ms(500);
        while progress.phase() == Phase::Measuring {
            if engine.actor.connections[0].outstanding.is_empty() {
                engine.wait_ms(1);
            } else {
                engine.receive(socket, HELLO);
            }
        }
        let outcome = outcome(engine, &progress);
        assert_eq!(outcome.errors, Errors::default());
        // Their delays are spread evenly over 0 to 500 ms, not one delay of 500 ms.
        assert!((990..=1_001).contains(&outcome.delay.count), "{outcome:?}");
        assert!((495_000..=505_000).contains(&outcome.delay.max_us), "{outcome:?}");
        let late = outcome.delay.p90_us;
        assert!((350_000..=450_000).contains(&late), "{outcome:?}");
    }

    #[test]
    fn pipelined_requests_leave_together_when_the_last_of_those_before_is_answered() {
        let (mut engine, _, socket) = measuring(|load| load.pipeline = 4);
        let sent = engine.sent();
        assert_eq!(sent.last().map(|text| text.matches("GET ").count()), Some(4));
        engine.receive(socket, &[HELLO, HELLO, HELLO, &HELLO[..10]].concat());
        assert_eq!(engine.sent().len(), 0);
        engine.receive(socket, &HELLO[10..]);
        let sent = engine.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].matches("GET ").count(), 4);
    }

    #[test]
    fn wrong_answers_are_counted_by_kind() {
        let check = |answer: &[u8], count: fn(&Errors) -> u64| {
            let (mut engine, progress, socket) = measuring(|_| {});
            engine.receive(socket, answer);
            engine.receive(socket, HELLO);
            let outcome = outcome(engine, &progress);
            let text = String::from_utf8_lossy(answer);
            assert_eq!(count(&outcome.errors), 1, "{text}: {:?}", outcome.errors);
            // The one that is still outstanding at the end.
            assert_eq!(outcome.errors.total(), 2, "{text}: {:?}", outcome.errors);
        };
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell", |errors| errors.length);
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellO", |errors| errors.content);
        check(b"HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nhello", |errors| errors.status);
    }

    #[test]
    fn a_broken_connection_loses_its_requests_and_is_opened_again() {
        let (mut engine, progress, socket) = measuring(|load| load.pipeline = 3);
        engine.receive(socket, &HELLO[..HELLO.len() - 1]);
        engine.input(Input::Eof { socket });
        engine.seen.clear();
        engine.wait_ms(RETRY_MS);
        assert_eq!(engine.seen.pop_front(), Some(Seen::Connect(0)));
        engine.connected(0);
        let sent = engine.sent();
        assert_eq!(sent.last().map(|text| text.matches("GET ").count()), Some(3));
        let outcome = outcome(engine, &progress);
        assert_eq!((outcome.errors.cut, outcome.errors.unanswered), (3, 3));
    }

    #[test]
    fn an_answer_that_nobody_asked_for_is_a_protocol_error() {
        let (mut engine, progress, socket) = measuring(|_| {});
        engine.receive(socket, &[HELLO, HELLO].concat());
        assert_eq!(outcome(engine, &progress).errors.protocol, 1);
    }

    #[test]
    fn a_load_that_reconnects_asks_once_a_connection_and_waits_for_the_servers_end() {
        let (mut engine, progress, socket) = measuring(|load| load.reconnect = true);
        let end = |engine: &mut Scripted<Generator>, socket| {
            assert_eq!(engine.sent().len(), 1, "one request");
            engine.receive(socket, b"");
            assert_eq!(engine.seen.len(), 0, "nothing more on this connection");
            engine.input(Input::Eof { socket });
            assert_eq!(engine.seen.pop_front(), Some(Seen::Closed(socket, Close::Graceful)));
            assert_eq!(engine.seen.pop_front(), Some(Seen::Connect(0)), "at once");
            engine.connected(0)
        };
        let socket = end(&mut engine, socket);
        engine.receive(socket, HELLO);
        end(&mut engine, socket);
        let outcome = outcome(engine, &progress);
        assert_eq!((outcome.answers, outcome.errors.unanswered), (1, 1), "{outcome:?}");
        assert_eq!(outcome.errors.total(), 1, "{outcome:?}");
    }

    #[test]
    fn a_refused_first_request_ends_the_run() {
        let (mut engine, progress) = engine(|_| {});
        engine.wait_ms(0);
        let socket = engine.connected(0);
        engine.receive(socket, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(outcome(engine, &progress).refused, Some(404));
    }

    #[test]
    fn requests_in_the_warm_up_are_not_recorded() {
        let (mut engine, progress) = engine(|load| load.warm_up = Duration::from_millis(100));
        engine.wait_ms(0);
        let socket = engine.connected(0);
        engine.receive(socket, HELLO);
        assert_eq!(progress.phase(), Phase::Warming);
        engine.receive(socket, HELLO);
        engine.wait_ms(100);
        assert_eq!(progress.phase(), Phase::Measuring);
        // Asked in the warm-up, answered in the window: an answer, but no delay.
        engine.receive(socket, HELLO);
        engine.receive(socket, HELLO);
        let outcome = outcome(engine, &progress);
        assert_eq!((outcome.answers, outcome.delay.count), (2, 2));
    }
}
