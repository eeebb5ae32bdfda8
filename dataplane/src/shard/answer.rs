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

use std::{collections::VecDeque, rc::Rc};

use cache::{ByteRange, Follow, Local, Piece, Reading, Waiter, WakeWith};
use proto::http1::{encode, framing::BodyFraming};

use super::{
    Edge,
    conn::Exchange,
    explain::Found,
    fetch::{Fetch, Piped},
    outcome::{Failure, Outcome, PUT_OFF, RelayHead},
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
    /// From all shards: what the operator asks about.
    Explain {
        /// Shards that have not answered.
        left: u16,
        /// The newest of what they found.
        newest: Option<Box<Found>>,
    },
}

/// Part of a stored response that is being sent; its head is written.
pub struct StoredBody {
    reading: Reading,
    /// What is read, where there are further parts of it.
    local: Option<Local>,
    /// What comes behind what is read now: further parts, each with the text in front of it.
    parts: VecDeque<(Vec<u8>, ByteRange)>,
    /// Text behind the last part.
    trailer: Vec<u8>,
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
            State::Fetch { fetch, .. } | State::Relay { fetch, .. } => edge
                .fetches
                .get(fetch)
                .is_none_or(|fetch| fetch.body_waiting() < edge.held.pipe_bytes()),
            State::Collapsed { .. } | State::Stored(_) | State::Explain { .. } => true,
        }
    }

    /// Bytes of the request's body that are on their way to the origin.
    pub fn body_held(&self, edge: &Edge) -> usize {
        match self.state {
            State::Fetch { fetch, .. } | State::Relay { fetch, .. } => {
                edge.fetches.get(fetch).map_or(0, Fetch::body_held)
            }
            State::Collapsed { .. } | State::Stored(_) | State::Explain { .. } => 0,
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
            State::Fetch { .. } | State::Relay { .. } | State::Explain { .. } => {}
        }
    }

    /// A shard has looked for what the operator asks about.
    pub fn explained(&mut self, found: Option<Box<Found>>) {
        if let State::Explain { left, newest } = &mut self.state {
            *left = left.saturating_sub(1);
            let is_newer = found.as_ref().map(|it| it.at_ms) > newest.as_ref().map(|it| it.at_ms);
            if is_newer {
                *newest = found;
            }
        }
    }

    /// The connection is gone, or answers otherwise.
    pub fn leave(self, edge: &mut Edge, at: Ref) {
        match self.state {
            State::Fetch { fetch, .. } | State::Relay { fetch, .. } => edge.fetch_leave(fetch),
            State::Stored(body) if body.following => {
                body.reading.unfollow(edge.waiter(at));
            }
            // A wake that finds nobody is ignored; those who wait are forgotten with the lease.
            State::Collapsed { .. } | State::Stored(_) | State::Explain { .. } => {}
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
        edge.explain_resumes(now, self.asked.telling);
        loop {
            let next = match &mut self.state {
                State::Collapsed { woken } => match woken.take() {
                    None => return Advance::Waiting,
                    Some(WakeWith::Failed { status }) => {
                        let text = "The origin failed while this request waited for its answer.";
                        let fields = if status == 503 { Failure::Overloaded.fields() } else { "" };
                        let (own, asked) = (Own::text(status, text), self.asked.lend());
                        let own = Own { fields, ..own };
                        edge.explain_cause(FAILED_FOR_ANOTHER);
                        edge.unfetched(now, &own, &self.kept, asked, writer)
                    }
                    Some(WakeWith::Busy) => {
                        let (fields, asked) = (Failure::PutOff.fields(), self.asked.lend());
                        let own = Own { fields, ..Own::text(503, PUT_OFF) };
                        edge.explain_cause(Failure::PutOff.cause());
                        edge.unfetched(now, &own, &self.kept, asked, writer)
                    }
                    Some(with) => {
                        let turn = Turn { scene, waits: self.waits, with: Some(&with) };
                        edge.ask_again(now, turn, &self.kept, &self.asked, writer)
                    }
                },
                State::Explain { left: 1.., .. } => return Advance::Waiting,
                State::Explain { newest, .. } => {
                    let newest = newest.take();
                    edge.tell_explained(now, newest.as_deref(), self.asked.lend(), writer)
                }
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
                            if self.asked.to_head {
                                // Fetched by GET to be stored, and is not: the body is nobody's.
                                edge.fetch_leave(fetch);
                                return match coding {
                                    Coding::Close => Advance::DoneClose,
                                    Coding::Length | Coding::Chunked => Advance::Done,
                                };
                            }
                            self.state = State::Relay { fetch, coding };
                            continue;
                        }
                        Outcome::Stored(stored) => {
                            edge.fetch_leave(fetch);
                            let (kept, asked) = (&self.kept, &self.asked);
                            edge.answer_with(now, scene, &stored, kept, asked, writer)
                        }
                        Outcome::Again => {
                            edge.fetch_leave(fetch);
                            let turn = Turn { scene, waits: self.waits + 1, with: None };
                            edge.ask_again(now, turn, &self.kept, &self.asked, writer)
                        }
                        Outcome::Failed(failure) => {
                            edge.fetch_leave(fetch);
                            let (status, text) = failure.answer();
                            let (fields, asked) = (failure.fields(), self.asked.lend());
                            let own = Own { fields, ..Own::text(status, &text) };
                            edge.explain_cause(failure.cause());
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
        Self {
            reading: Reading::new(local),
            local: None,
            parts: VecDeque::new(),
            trailer: Vec::new(),
            coding,
            following: false,
        }
    }

    /// Parts of it, each behind its text, and the text behind them all; the head says how long all
    /// that is.
    pub fn of_parts(local: Local, parts: Vec<(Vec<u8>, ByteRange)>, trailer: Vec<u8>) -> Self {
        Self {
            reading: Reading::nothing(local.clone()),
            local: Some(local),
            parts: parts.into(),
            trailer,
            coding: Coding::Length,
            following: false,
        }
    }

    /// Writes what is there and fits.
    pub fn write(
        &mut self,
        waiter: Waiter,
        out: &mut super::out::Out,
        writer: &mut Writer,
    ) -> Advance {
        while writer.has_room() {
            match self.reading.next_piece() {
                Piece::Bytes(bytes) => {
                    write_piece(bytes, self.coding, out, writer);
                }
                Piece::Pending => {
                    if self.following {
                        return Advance::Waiting;
                    }
                    if self.reading.follow(waiter) == Follow::Registered {
                        self.following = true;
                        return Advance::Waiting;
                    }
                }
                Piece::End => match (&self.local, self.parts.pop_front()) {
                    (Some(local), Some((text, part))) => {
                        writer.text(out).extend_from_slice(&text);
                        self.reading = Reading::of_part(local.clone(), part);
                    }
                    _ => {
                        if !self.trailer.is_empty() {
                            writer.text(out).extend_from_slice(&self.trailer);
                        }
                        return write_end(self.coding, out, writer);
                    }
                },
                Piece::Failed | Piece::Spilled => return Advance::Broken,
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
    text.extend_from_slice(edge.names.status_start());
    head.told.write(text);
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
    edge.explain_relayed(head.status, head.label, &head.told);
    let explained = edge.explain_field();
    let text = writer.text(&mut edge.out);
    text.extend_from_slice(explained.unwrap_or_default().as_bytes());
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

/// Why who waited for another's fetch has no answer: that fetch's own record says more.
const FAILED_FOR_ANOTHER: &str = "the-fetch-waited-for-failed";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::testing::{End, World};

    const GET: &str = "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n";
    const CHUNKED: &str =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=9\r\n\r\n";
    const MEMORY_BYTES: u64 = 4 << 20;
    /// Of one chunk.
    const CHUNK_BYTES: usize = 10_000;

    fn chunk(number: usize) -> String {
        let byte = char::from(b'a' + (number % 26) as u8).to_string();
        format!("{CHUNK_BYTES:x}\r\n{}\r\n", byte.repeat(CHUNK_BYTES))
    }

    /// The body of a chunked answer, if it has its end.
    fn whole_body(answer: &str) -> Option<String> {
        let (_, mut rest) = answer.split_once("\r\n\r\n").expect("a head");
        let mut body = String::new();
        loop {
            let (size, behind) = rest.split_once("\r\n")?;
            let size = usize::from_str_radix(size, 16).expect("a size");
            if size == 0 {
                return Some(body);
            }
            body.push_str(behind.get(..size)?);
            rest = behind.get(size + 2..)?;
        }
    }

    /// Sends chunks as long as the origin is read, up to so many in all.
    fn send(world: &mut World, upstream: End, sent: &mut usize, chunks: usize) {
        while *sent < chunks && world.peer(upstream).receiving {
            world.say(upstream, &chunk(*sent));
            *sent += 1;
        }
    }

    #[test]
    fn a_body_too_large_to_be_stored_is_relayed_whole_to_all_who_read_it() {
        let mut world = World::with_memory(2, MEMORY_BYTES);
        let (first, other) = (world.connect(0), world.connect(1));
        world.say(first, GET);
        let upstream = world.upstream();
        world.say(upstream, CHUNKED);
        world.say(other, GET);
        // Five times what one response may take.
        let (mut sent, chunks) = (0, 500);
        send(&mut world, upstream, &mut sent, chunks);
        assert_eq!(sent, chunks, "readers that keep up hold nothing back");
        assert!(world.cache.stats().used_bytes < MEMORY_BYTES / 2, "what was read is let go of");
        world.say(upstream, "0\r\n\r\n");
        let expected: String = (0..chunks)
            .map(|number| char::from(b'a' + (number % 26) as u8).to_string().repeat(CHUNK_BYTES))
            .collect();
        for client in [first, other] {
            let answer = world.take(client);
            assert!(whole_body(&answer).as_ref() == Some(&expected), "whole");
            assert!(!world.peer(client).closed, "the connection goes on");
        }
        assert_eq!(world.cache.stats().entries, 0);
        world.say(first, GET);
        assert_eq!(world.take(first), "", "asks the origin again");
    }

    #[test]
    fn a_slow_reader_of_such_a_body_holds_the_origin_back_and_is_ended_in_time() {
        let mut world = World::with_memory(1, MEMORY_BYTES);
        let (first, slow) = (world.connect(0), world.connect(0));
        world.say(first, GET);
        let upstream = world.upstream();
        world.say(upstream, CHUNKED);
        world.peer(slow).blocked = true;
        world.say(slow, GET);
        let (mut sent, chunks) = (0, 2_000);
        send(&mut world, upstream, &mut sent, chunks);
        assert!(sent < chunks, "held back");
        let held_max = MEMORY_BYTES / 4 + limits::SPILL_BYTES_MAX + 512 * 1024;
        assert!(world.cache.stats().used_bytes < held_max, "bounded");
        // Another request is answered meanwhile: nobody waits for the slow one but its equals.
        let third = world.connect(0);
        world.say(third, "GET / HTTP/1.1\r\nHost: nobody\r\n\r\n");
        assert!(world.take(third).starts_with("HTTP/1.1 421 "));
        for _ in 0..40 {
            if sent < chunks {
                world.wait_ms(1_000);
                send(&mut world, upstream, &mut sent, chunks);
            }
        }
        assert_eq!((sent, world.peer(slow).closed), (chunks, true), "it took nothing for too long");
        world.say(upstream, "0\r\n\r\n");
        let body = whole_body(&world.take(first)).expect("whole");
        assert_eq!(body.len(), chunks * CHUNK_BYTES);
        assert_eq!(whole_body(&world.take(slow)), None, "what was cut off does not look whole");
    }

    #[test]
    fn slow_readers_of_a_stored_body_share_it_and_hold_nobody_up() {
        const BODY_BYTES: usize = 8 << 20;
        const READERS: usize = 50;
        let mut world = World::with_memory(1, 64 << 20);
        let client = world.connect(0);
        world.say(client, GET);
        let upstream = world.upstream();
        let fields = format!("Content-Length: {BODY_BYTES}\r\nCache-Control: max-age=900");
        world.say(upstream, &format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"));
        for _ in 0..BODY_BYTES / 16_384 {
            world.say(upstream, &"x".repeat(16_384));
        }
        assert!(world.take(client).len() > BODY_BYTES);
        let stored_bytes = world.cache.stats().used_bytes;
        let slow: Vec<End> = (0..READERS).map(|_| world.connect(0)).collect();
        for &reader in &slow {
            world.peer(reader).blocked = true;
            // What they ask for behind it is not answered before they have taken this.
            world.say(reader, &GET.repeat(3));
            let given = world.peer(reader).got.len();
            assert!(given <= limits::WRITE_BYTES_MAX + 32 * 1024, "{given}");
        }
        assert_eq!(world.cache.stats().used_bytes, stored_bytes, "lent, not copied");
        world.say(client, GET);
        assert!(world.take(client).len() > BODY_BYTES, "others are served at once");
        // One reads on, slowly, and gets all of it; the others are ended in time.
        let (patient, others) = slow.split_first().expect("readers");
        while world.peer(*patient).got.len() <= BODY_BYTES {
            world.wait_ms(1_000);
            world.read_one(*patient);
            let sends = world.peer(*patient).sends;
            assert!(sends < sends_max(BODY_BYTES), "{sends}");
        }
        assert!(world.take(*patient).len() > BODY_BYTES);
        assert!(others.iter().all(|&reader| world.peer(reader).closed));
        assert!(!world.peer(*patient).closed);
    }

    /// Sends that a body of this length takes at most.
    fn sends_max(bytes: usize) -> usize {
        bytes / (limits::WRITE_BYTES_MAX / 2) + 1
    }

    #[test]
    fn such_a_body_that_nobody_reads_any_more_is_not_fetched_to_its_end() {
        let mut world = World::with_memory(1, MEMORY_BYTES);
        let client = world.connect(0);
        world.say(client, GET);
        let upstream = world.upstream();
        world.say(upstream, CHUNKED);
        let mut sent = 0;
        send(&mut world, upstream, &mut sent, 200);
        world.hang_up(client);
        send(&mut world, upstream, &mut sent, 201);
        assert!(world.peer(upstream).closed);
    }
}
