//! Publishes events at their intended times over some connections. Part of the first subscriber;
//! pure.
//!
//! The times are a row that does not wait for answers: what is late is sent as soon as a connection
//! is free, and counts from when it was to be sent.

use std::{collections::VecDeque, time::Duration};

use dataplane::seam::{Close, Effect, Mono, Payload, Segment, SocketId};

use crate::{
    record::Delays,
    response::{Part, ResponseReader},
    target::Target,
};

/// What to publish.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    /// `{t}` in its path is replaced by the number of the topic.
    pub(crate) to: Target,
    pub(crate) fields: Vec<String>,
    /// `{n}` is replaced by the number of the publish, from 0, `{t}` by that of its topic.
    pub(crate) body: String,
    pub(crate) every: Duration,
    pub(crate) count: u32,
    /// Topics, each in its turn.
    pub(crate) topics: u32,
    /// Connections.
    pub(crate) lines: u32,
}

impl Publish {
    /// When the `n`th is to be sent, if the first is at `begin`.
    pub(crate) fn intended(&self, begin: Mono, n: u32) -> Mono {
        let every_ns = u64::try_from(self.every.as_nanos()).unwrap_or(u64::MAX);
        Mono(begin.0.saturating_add(every_ns.saturating_mul(u64::from(n))))
    }

    /// The request of the `n`th.
    fn request(&self, n: u32) -> Vec<u8> {
        let topic = (n % self.topics.max(1)).to_string();
        let body = self.body.replace("{n}", &n.to_string()).replace("{t}", &topic);
        let mut text = format!("POST {} HTTP/1.1\r\n", self.to.path.replace("{t}", &topic));
        if !self.fields.iter().any(|field| field.to_ascii_lowercase().starts_with("host:")) {
            text += &format!("Host: {}\r\n", self.to.authority);
        }
        self.fields.iter().for_each(|field| text += &format!("{field}\r\n"));
        text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        text.into_bytes()
    }
}

/// The connections it goes over.
#[derive(Debug)]
pub(super) struct Publisher {
    plan: Publish,
    lines: Vec<Line>,
    begin_at: Option<Mono>,
    pub(super) sent: u32,
    pub(super) failed: u32,
    /// From when each was to be sent until it was.
    pub(super) late: Delays,
}

#[derive(Debug, Default)]
struct Line {
    socket: Option<SocketId>,
    opening: bool,
    reader: ResponseReader,
    status: u16,
    /// A publish is on its way and not answered.
    waiting: bool,
}

impl Publisher {
    pub(super) fn new(plan: Publish) -> Self {
        let lines = (0..plan.lines.max(1)).map(|_| Line::default()).collect();
        Self { plan, lines, begin_at: None, sent: 0, failed: 0, late: Delays::new() }
    }

    /// The first publish is due now, unless it was before.
    pub(super) fn begin(&mut self, now: Mono) {
        self.begin_at = self.begin_at.or(Some(now));
    }

    pub(super) fn begun_at(&self) -> Option<Mono> {
        self.begin_at
    }

    pub(super) fn is_done(&self) -> bool {
        self.sent >= self.plan.count && !self.lines.iter().any(|line| line.waiting)
    }

    /// Which of the connections this is.
    pub(super) fn line(&self, socket: SocketId) -> Option<usize> {
        self.lines.iter().position(|line| line.socket == Some(socket))
    }

    /// When the next one is to be sent, if a connection could take it and it is below `max`.
    pub(super) fn next_deadline(&self, max: u32) -> Option<Mono> {
        let begin = self.begin_at.filter(|_| self.sent < self.plan.count.min(max))?;
        let free = self.lines.iter().any(|line| !line.waiting && !line.opening);
        free.then(|| self.plan.intended(begin, self.sent))
    }

    /// Sends what is due and below `max`; the intended time of the last one it sent.
    pub(super) fn work(
        &mut self,
        now: Mono,
        max: u32,
        effects: &mut VecDeque<Effect<()>>,
    ) -> Option<Mono> {
        let mut last = None;
        while let Some(at) = self.next_deadline(max).filter(|at| *at <= now) {
            let ready = |line: &&mut Line| line.socket.is_some() && !line.waiting;
            if let Some(line) = self.lines.iter_mut().find(ready)
                && let Some(socket) = line.socket
            {
                line.waiting = true;
                let payload = Payload::One(Segment::Owned(self.plan.request(self.sent)));
                effects.push_back(Effect::Send { socket, payload });
                self.late.record(at, now);
                self.sent += 1;
                last = Some(at);
                continue;
            }
            for (index, line) in self.lines.iter_mut().enumerate() {
                if line.socket.is_none() && !line.opening {
                    line.opening = true;
                    let (op, to) = (OPS + index as u64, self.plan.to.address);
                    effects.push_back(Effect::Connect { op, to, from: None });
                }
            }
            break;
        }
        last
    }

    pub(super) fn connected(
        &mut self,
        op: u64,
        socket: Option<SocketId>,
        effects: &mut VecDeque<Effect<()>>,
    ) {
        let line = &mut self.lines[(op - OPS) as usize];
        *line = Line { socket, ..Line::default() };
        match socket {
            Some(socket) => effects.push_back(Effect::Receive { socket, on: true }),
            None => {
                // Given up for this publish; the next one tries again.
                self.failed += 1;
                self.sent += 1;
            }
        }
    }

    pub(super) fn received(
        &mut self,
        line: usize,
        mut bytes: &[u8],
        effects: &mut VecDeque<Effect<()>>,
    ) {
        loop {
            let line_of = &mut self.lines[line];
            match line_of.reader.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(Part::Head(head))) => line_of.status = head.status,
                Ok(Some(Part::Body(_))) => {}
                Ok(Some(Part::End)) => {
                    self.failed += u32::from(!(200..300).contains(&line_of.status));
                    line_of.waiting = false;
                }
                Err(_) => return self.broken(line, effects),
            }
        }
    }

    /// The connection is of no use any more.
    pub(super) fn broken(&mut self, line: usize, effects: &mut VecDeque<Effect<()>>) {
        let line = &mut self.lines[line];
        self.failed += u32::from(line.waiting);
        line.waiting = false;
        if let Some(socket) = line.socket {
            // Nothing more is sent on it until `closed` says that it is gone.
            line.opening = true;
            effects.push_back(Effect::Close { socket, how: Close::Abort });
        }
    }

    pub(super) fn closed(&mut self, line: usize) {
        self.lines[line] = Line::default();
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = SocketId> {
        self.lines.iter().filter_map(|line| line.socket)
    }
}

/// The names of its connects, one a connection; streams count from 0 and stay far below.
pub(super) const OPS: u64 = 1 << 32;
