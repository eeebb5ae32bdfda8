//! An answer under way on one connection: waiting for a fetch, or sending a body that is stored,
//! still arriving, or relayed.
//!
//! ```text
//!   Collapsed ──wake──▶ asked again ─┬▶ Stored ──pieces──▶ done
//!   Fetch ──outcome──────────────────┼▶ Stored
//!                                    ├▶ Relay ───pieces──▶ done
//!                                    └▶ own error
//! ```
//! A stored body is read at this client's pace: small pieces are copied behind the head, large ones
//! lent.
//!
//! Leaves to others: what to answer (`request`), getting it (`fetch`), sending what is written
//! (`conn`).

use std::rc::Rc;

use cache::{Follow, Local, Piece, Waiter, WakeWith};
use proto::http1::{encode, framing::BodyFraming};

use super::{
    Edge,
    conn::Exchange,
    fetch::{Outcome, Piped, RelayHead},
    request::{Asked, Scene, Turn},
    respond::{Own, Writer},
    slab::Ref,
};
use crate::{limits, seam::Now};

/// An answer that is not all in the writer yet.
pub struct Answer {
    /// What was asked, as far as the answer depends on it.
    pub asked: Asked,
    /// Head of the request, to ask again with; empty where that cannot be needed.
    pub kept: Rc<[u8]>,
    /// How often it has waited for another's fetch.
    pub waits: u8,
    /// Where it comes from.
    pub state: State,
}

/// Where an answer comes from.
pub enum State {
    /// From another request's fetch; the cache wakes us.
    Collapsed {
        /// With what it did.
        woken: Option<WakeWith>,
    },
    /// From our own fetch.
    Fetch {
        /// Which.
        fetch: Ref,
        /// The request's body goes there, too.
        takes_body: bool,
    },
    /// A stored body.
    Stored(StoredBody),
    /// A relayed body.
    Relay {
        /// From which fetch.
        fetch: Ref,
        /// How its end is told to the client.
        coding: Coding,
    },
}

/// Part of a stored response that is being sent; its head is written.
pub struct StoredBody {
    local: Local,
    /// Next byte.
    offset: u64,
    coding: Coding,
    /// The cache will wake us.
    following: bool,
}

/// How the end of a body is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    /// The head said how long it is.
    Length,
    /// In chunks.
    Chunked,
    /// By closing; HTTP/1.0.
    Close,
}

/// What came of going on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advance {
    /// It is all in the writer.
    Done,
    /// It is, and the connection must close behind it.
    DoneClose,
    /// For the fetch, the origin or the client.
    Waiting,
    /// It was cut off: the client must see that.
    Broken,
}

impl Answer {
    /// Whether the request's body is wanted.
    pub fn takes_body(&self) -> bool {
        matches!(self.state, State::Fetch { takes_body: true, .. })
    }

    /// Whether something of the answer was written already.
    pub fn has_begun(&self) -> bool {
        matches!(self.state, State::Stored(_) | State::Relay { .. })
    }

    /// Whether more of the request's body, or of what follows, is welcome.
    pub fn takes_more_body(&self, edge: &Edge) -> bool {
        match self.state {
            State::Fetch { fetch, .. } | State::Relay { fetch, .. } => {
                edge.fetches.get(fetch).is_none_or(|fetch| fetch.takes_more_body())
            }
            State::Collapsed { .. } | State::Stored(_) => true,
        }
    }

    /// Content of the request.
    pub fn request_body(&self, edge: &mut Edge, now: Now, bytes: &[u8]) {
        if let State::Fetch { fetch, .. } | State::Relay { fetch, .. } = self.state {
            edge.fetch_request_body(now, fetch, bytes);
        }
    }

    /// The request is complete.
    pub fn request_body_end(&self, edge: &mut Edge, now: Now) {
        if let State::Fetch { fetch, .. } | State::Relay { fetch, .. } = self.state {
            edge.fetch_request_end(now, fetch);
        }
    }

    /// The cache says that what was waited for has moved on.
    pub fn woken(&mut self, with: WakeWith) {
        match &mut self.state {
            State::Collapsed { woken } => *woken = Some(with),
            State::Stored(body) => body.following = false,
            State::Fetch { .. } | State::Relay { .. } => {}
        }
    }

    /// The connection is gone, or answers otherwise.
    pub fn leave(self, edge: &mut Edge, at: Ref) {
        match self.state {
            State::Fetch { fetch, .. } | State::Relay { fetch, .. } => edge.fetch_leave(fetch),
            State::Stored(body) if body.following => {
                body.local.entry().body().unfollow(edge.waiter(at));
            }
            // A wake that finds nobody is ignored; those who wait are forgotten with the lease.
            State::Collapsed { .. } | State::Stored(_) => {}
        }
    }

    /// Goes on as far as possible. `keep_alive`: the connection could go on afterwards.
    pub fn advance(
        &mut self,
        edge: &mut Edge,
        now: Now,
        scene: Scene,
        keep_alive: bool,
        writer: &mut Writer,
    ) -> Advance {
        self.asked.persistence.keep_alive = keep_alive;
        loop {
            let next = match &mut self.state {
                State::Collapsed { woken } => match woken.take() {
                    None => return Advance::Waiting,
                    Some(WakeWith::Failed) => {
                        let text = "The origin failed while this request waited for its answer.";
                        let (own, asked) = (Own::text(502, text), self.asked.lend());
                        edge.unfetched(now, &own, &self.kept, asked, writer)
                    }
                    Some(with) => {
                        let turn = Turn { scene, waits: self.waits, with: Some(&with) };
                        edge.ask_again(now, turn, &self.kept, &self.asked, writer)
                    }
                },
                State::Stored(body) => {
                    let waiter = edge.waiter(scene.at);
                    return body.write(waiter, &mut edge.out, writer);
                }
                State::Relay { fetch, coding } => {
                    let (fetch, coding) = (*fetch, *coding);
                    return relay(edge, fetch, coding, writer);
                }
                State::Fetch { fetch, .. } => {
                    let fetch = *fetch;
                    write_interim(edge, fetch, &self.asked, writer);
                    match take_outcome(edge, fetch) {
                        Outcome::Pending => return Advance::Waiting,
                        Outcome::Taken => return Advance::Broken,
                        Outcome::Relay(head) => {
                            let coding = write_relay_head(edge, now, &head, &self.asked, writer);
                            self.state = State::Relay { fetch, coding };
                            continue;
                        }
                        Outcome::Stored(stored) => {
                            edge.fetch_leave(fetch);
                            let (kept, asked) = (&self.kept, &self.asked);
                            edge.answer_with(now, scene, &stored, kept, asked, writer)
                        }
                        Outcome::Failed(failure) => {
                            edge.fetch_leave(fetch);
                            let (status, text) = failure.answer();
                            let (own, asked) = (Own::text(status, &text), self.asked.lend());
                            edge.unfetched(now, &own, &self.kept, asked, writer)
                        }
                    }
                }
            };
            match next {
                Exchange::Answer(answer) => *self = *answer,
                Exchange::None if self.asked.persistence.keep_alive => return Advance::Done,
                _ => return Advance::DoneClose,
            }
        }
    }
}

impl StoredBody {
    /// From the first byte on.
    pub fn new(local: Local, coding: Coding) -> Self {
        Self { local, offset: 0, coding, following: false }
    }

    /// Writes what is there and fits.
    pub fn write(
        &mut self,
        waiter: Waiter,
        out: &mut super::out::Out,
        writer: &mut Writer,
    ) -> Advance {
        while writer.has_room() {
            match self.local.piece_at(self.offset) {
                Piece::Bytes(bytes) => {
                    self.offset += bytes.len() as u64;
                    write_piece(bytes, self.coding, out, writer);
                }
                Piece::Pending => {
                    if self.following {
                        return Advance::Waiting;
                    }
                    if self.local.follow(self.offset, waiter) == Follow::Registered {
                        self.following = true;
                        return Advance::Waiting;
                    }
                }
                Piece::End => return write_end(self.coding, out, writer),
                Piece::Failed => return Advance::Broken,
            }
        }
        Advance::Waiting
    }
}

/// Content behind a head or a former piece.
fn write_piece(
    bytes: bytes::Bytes,
    coding: Coding,
    out: &mut super::out::Out,
    writer: &mut Writer,
) {
    let is_chunked = coding == Coding::Chunked;
    if bytes.len() <= limits::COPIED_BYTES_MAX {
        let text = writer.text(out);
        if is_chunked {
            encode::chunk(text, &bytes);
        } else {
            text.extend_from_slice(&bytes);
        }
        return;
    }
    if is_chunked {
        encode::chunk_start(writer.text(out), bytes.len());
    }
    writer.lend(bytes);
    if is_chunked {
        writer.text(out).extend_from_slice(encode::CHUNK_END);
    }
}

fn write_end(coding: Coding, out: &mut super::out::Out, writer: &mut Writer) -> Advance {
    match coding {
        Coding::Length => Advance::Done,
        Coding::Chunked => {
            writer.text(out).extend_from_slice(encode::BODY_END);
            Advance::Done
        }
        Coding::Close => Advance::DoneClose,
    }
}

/// Writes the head of a relayed answer; says how its body is framed.
fn write_relay_head(
    edge: &mut Edge,
    now: Now,
    head: &RelayHead,
    asked: &Asked,
    writer: &mut Writer,
) -> Coding {
    edge.note_answered(head.status, Some(head.label));
    edge.observe.count(head.label.metric());
    let date_line = if head.has_date { &[][..] } else { edge.date.at(now) };
    let text = writer.text(&mut edge.out);
    text.extend_from_slice(&head.text);
    text.extend_from_slice(date_line);
    text.extend_from_slice(edge.names.via_line());
    let mut persistence = asked.persistence;
    let coding = match head.body {
        BodyFraming::None => {
            if let Some(length) = head.length {
                encode::content_length(text, length);
            }
            Coding::Length
        }
        BodyFraming::Length(length) => {
            encode::content_length(text, length);
            Coding::Length
        }
        BodyFraming::Chunked | BodyFraming::UntilClose if persistence.http10 => {
            persistence.keep_alive = false;
            Coding::Close
        }
        BodyFraming::Chunked | BodyFraming::UntilClose => {
            text.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            Coding::Chunked
        }
    };
    super::request::write_tail(text, head.label, &asked.request_id, persistence);
    coding
}

/// Writes what the pipe holds and fits.
fn relay(edge: &mut Edge, at: Ref, coding: Coding, writer: &mut Writer) -> Advance {
    let advance = loop {
        if !writer.has_room() {
            break Advance::Waiting;
        }
        let Some(fetch) = edge.fetches.get_mut(at) else { break Advance::Broken };
        match fetch.next_piece() {
            Piped::Bytes(bytes) => write_piece(bytes, coding, &mut edge.out, writer),
            Piped::Wait => break Advance::Waiting,
            Piped::End => break write_end(coding, &mut edge.out, writer),
            Piped::Broken => break Advance::Broken,
        }
    };
    match advance {
        Advance::Waiting => edge.fetch_pace(at),
        _ => edge.fetch_leave(at),
    }
    advance
}

/// Passes interim heads on, to who can read them (RFC 9110 §15.2).
fn write_interim(edge: &mut Edge, at: Ref, asked: &Asked, writer: &mut Writer) {
    let Some(fetch) = edge.fetches.get_mut(at) else { return };
    let interim = fetch.take_interim();
    if !interim.is_empty() && !asked.persistence.http10 {
        writer.text(&mut edge.out).extend_from_slice(&interim);
    }
}

fn take_outcome(edge: &mut Edge, at: Ref) -> Outcome {
    edge.fetches.get_mut(at).map_or(Outcome::Taken, |fetch| fetch.take_outcome())
}
