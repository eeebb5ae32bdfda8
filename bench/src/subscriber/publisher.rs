//! Publishes events at their times over one connection, and notes when each was sent. Part of the
//! first subscriber; pure.

use std::{collections::VecDeque, time::Duration};

use dataplane::seam::{Close, Effect, Mono, Payload, Segment, SocketId};

use crate::{
    response::{Part, ResponseReader},
    target::Target,
};

/// What to publish.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    pub(crate) to: Target,
    pub(crate) fields: Vec<String>,
    /// `{n}` is replaced by the number of the publish, from 0.
    pub(crate) body: String,
    pub(crate) every: Duration,
    pub(crate) count: u32,
}

/// The connection it goes over.
#[derive(Debug)]
pub(super) struct Publisher {
    plan: Publish,
    socket: Option<SocketId>,
    opening: bool,
    reader: ResponseReader,
    status: u16,
    /// A publish is on its way and not answered.
    waiting: bool,
    next_at: Option<Mono>,
    pub(super) sent: u32,
    pub(super) failed: u32,
}

impl Publisher {
    pub(super) fn new(plan: Publish) -> Self {
        Self {
            plan,
            socket: None,
            opening: false,
            reader: ResponseReader::default(),
            status: 0,
            waiting: false,
            next_at: None,
            sent: 0,
            failed: 0,
        }
    }

    /// The first publish is due now.
    pub(super) fn begin(&mut self, now: Mono) {
        self.next_at = self.next_at.or(Some(now));
    }

    pub(super) fn is_done(&self) -> bool {
        self.sent >= self.plan.count && !self.waiting
    }

    pub(super) fn owns(&self, socket: SocketId) -> bool {
        self.socket == Some(socket)
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let may = !self.waiting && !self.opening && self.sent < self.plan.count;
        self.next_at.filter(|_| may)
    }

    /// Sends what is due; whether it did.
    pub(super) fn work(&mut self, now: Mono, effects: &mut VecDeque<Effect<()>>) -> bool {
        if self.next_deadline().is_none_or(|at| at > now) {
            return false;
        }
        let Some(socket) = self.socket else {
            self.opening = true;
            effects.push_back(Effect::Connect { op: OP, to: self.plan.to.address, from: None });
            return false;
        };
        let body = self.plan.body.replace("{n}", &self.sent.to_string());
        let mut text = format!("POST {} HTTP/1.1\r\n", self.plan.to.path);
        if !self.plan.fields.iter().any(|field| field.to_ascii_lowercase().starts_with("host:")) {
            text += &format!("Host: {}\r\n", self.plan.to.authority);
        }
        self.plan.fields.iter().for_each(|field| text += &format!("{field}\r\n"));
        text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let payload = Payload::One(Segment::Owned(text.into_bytes()));
        effects.push_back(Effect::Send { socket, payload });
        self.waiting = true;
        self.sent += 1;
        self.next_at =
            Some(now.after_ms(u64::try_from(self.plan.every.as_millis()).unwrap_or(u64::MAX)));
        true
    }

    pub(super) fn connected(
        &mut self,
        socket: Option<SocketId>,
        effects: &mut VecDeque<Effect<()>>,
    ) {
        self.opening = false;
        self.socket = socket;
        self.reader = ResponseReader::default();
        match socket {
            Some(socket) => effects.push_back(Effect::Receive { socket, on: true }),
            None => {
                // Given up for this publish; the next one tries again.
                self.failed += 1;
                self.sent += 1;
            }
        }
    }

    pub(super) fn received(&mut self, mut bytes: &[u8], effects: &mut VecDeque<Effect<()>>) {
        loop {
            match self.reader.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(Part::Head(head))) => self.status = head.status,
                Ok(Some(Part::Body(_))) => {}
                Ok(Some(Part::End)) => {
                    self.failed += u32::from(!(200..300).contains(&self.status));
                    self.waiting = false;
                }
                Err(_) => return self.broken(effects),
            }
        }
    }

    /// The connection is of no use any more.
    pub(super) fn broken(&mut self, effects: &mut VecDeque<Effect<()>>) {
        self.failed += u32::from(self.waiting);
        self.waiting = false;
        if let Some(socket) = self.socket {
            effects.push_back(Effect::Close { socket, how: Close::Abort });
        }
    }

    pub(super) fn closed(&mut self) {
        self.socket = None;
    }

    pub(super) fn socket(&self) -> Option<SocketId> {
        self.socket
    }
}

/// The name of its connect; streams count from 0 and stay far below.
pub(super) const OP: u64 = u64::MAX;
