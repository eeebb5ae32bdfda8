//! A fetch: one request to an origin and what becomes of its answer.
//!
//! ```text
//!  start ─▶ Resolving ─▶ Connecting ─▶ Head ──────────▶ Body ─────▶ Ended ─▶ freed when nobody
//! reads
//!     └───── kept connection ──────────▲ │ dead, safe: once more   ▲
//!                                        └─ failed: next address, next origin, stale, 502/504
//! ```
//! The answer goes one of two ways. A *stored* one is written into the cache's body, which the
//! requester and any number of others follow at their own pace; the cache accounts for its bytes,
//! so a slow reader holds nobody back. One that is *relayed* goes through a bounded pipe to the one
//! connection that asked, and upstream is read no faster than that connection takes it. The
//! request's body streams the other way through a bounded buffer.
//!
//! Owns the upstream connection during the exchange, and the lease. Leaves to others: addresses and
//! kept connections (`origin`), what may be stored (`cache`), what the client is sent (`answer`).

mod invalidation;
mod overflow;
mod put_off;

use std::{collections::VecDeque, io, net::SocketAddr, rc::Rc, sync::Arc};

use bytes::Bytes;
use cache::{
    CacheStatus, Entry, Forward, Freshness, HeadOutcome, Lease, Wake, WakeWith,
    Writer as StoreWriter,
};
use proto::{
    field::name::Known,
    http1::{
        client::{Client, ClientEof, ClientStep, Response, ResponseError},
        encode,
        framing::BodyFraming,
        head::{FieldSpace, ResponseHead, parse_request},
    },
};

pub use self::invalidation::Invalidation;
use super::{
    Edge,
    conn_table::Owner,
    mail::Mail,
    observe::Metric,
    origin::Acquired,
    out::Op,
    outcome::{Failure, Outcome, RelayHead, StoredAnswer},
    request::{CacheLabel, HeadFields},
    slab::Ref,
    timers::Timer,
};
use crate::{
    limits,
    seam::{Close, Mono, Now, Payload, Segment, SocketId},
};

/// One request to an origin.
pub struct Fetch {
    phase: Phase,
    exchange: Client,
    /// Rows of the origins to try, in order, and where in it we are.
    origins: Rc<[u32]>,
    origin_at: usize,
    addresses_tried: usize,
    socket: Option<SocketId>,
    /// Number of the connection attempt under way.
    connect: u64,
    /// The connection was used before: it may have died unseen.
    kept_connection: bool,
    retried: bool,
    request: Outgoing,
    sending: bool,
    receiving: bool,
    method: Reach,
    lease: Option<Lease>,
    store: Option<StoreWriter>,
    /// The connection that asked, as long as it is there.
    reader: Option<Ref>,
    label: CacheLabel,
    told: CacheStatus,
    kept: Rc<[u8]>,
    invalidates: Option<Invalidation>,
    /// It asks for a version that no feed has announced: it is counted by this, and nobody else's.
    pub(super) unannounced: Option<Rc<()>>,
    /// Where its attempts are told of; 0 for nowhere.
    story: u64,
    outcome: Outcome,
    /// Interim heads (1xx) for the one who asked, complete.
    interim: Vec<u8>,
    pipe: Pipe,
    started_wall_ms: u64,
    deadline: Mono,
    /// When the timer looks at the deadline next.
    timer_at: Mono,
}

/// Where a fetch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Resolving,
    Connecting,
    /// Sending the request, waiting for the head of the answer.
    Head,
    Body,
    /// Nothing comes any more.
    Ended,
}

/// What matters of a method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Reach {
    to_head: bool,
    idempotent: bool,
}

/// The request on its way.
struct Outgoing {
    /// Complete head; kept for the one retry.
    head: Vec<u8>,
    /// Content, framed, that waits for the socket.
    body: Vec<u8>,
    /// How much of the send under way is content.
    sending_bytes: usize,
    chunked: bool,
    /// All of it is in `body`, or sent.
    ended: bool,
    /// Some content was accepted: cannot be repeated.
    begun: bool,
    head_sent: bool,
}

/// Content on its way from the origin to the one reader.
#[derive(Default)]
struct Pipe {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// `Ok`: all of it is in the pipe.
    end: Option<Result<(), ()>>,
}

/// What a reader finds in the pipe.
#[derive(Debug)]
pub enum Piped {
    /// Content.
    Bytes(Bytes),
    /// Nothing at the moment.
    Wait,
    /// It was all.
    End,
    /// It was cut off.
    Broken,
}

/// How to fetch.
pub struct Plan {
    /// Rows of the origins, in order of preference.
    pub origins: Rc<[u32]>,
    /// Head of the request, complete.
    pub head: Vec<u8>,
    /// Head of the client's request, for `Vary`; only with a lease.
    pub kept: Rc<[u8]>,
    /// Its body's framing.
    pub body: BodyFraming,
    /// Where its answer may be stored.
    pub lease: Option<Lease>,
    /// Who asks; nobody does for a validation in the background.
    pub reader: Option<Ref>,
    /// As what its answer is relayed.
    pub label: CacheLabel,
    /// Why it is made.
    pub forward: Forward,
    /// The method is HEAD.
    pub to_head: bool,
    /// The method may be repeated.
    pub idempotent: bool,
    /// What its success outdates.
    pub invalidates: Option<Invalidation>,
    /// Where its attempts are told of; 0 for nowhere.
    pub story: u64,
}

impl Fetch {
    /// What has become of it, for the reader; leaves `Pending` or `Taken`.
    pub fn take_outcome(&mut self) -> Outcome {
        match self.outcome {
            Outcome::Pending => Outcome::Pending,
            _ => std::mem::replace(&mut self.outcome, Outcome::Taken),
        }
    }

    /// Interim heads that have come since the last time.
    pub fn take_interim(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.interim)
    }

    /// The next piece of a relayed body.
    pub fn next_piece(&mut self) -> Piped {
        if let Some(bytes) = self.pipe.pieces.pop_front() {
            self.pipe.bytes -= bytes.len();
            return Piped::Bytes(bytes);
        }
        match self.pipe.end {
            None => Piped::Wait,
            Some(Ok(())) => Piped::End,
            Some(Err(())) => Piped::Broken,
        }
    }

    /// Bytes of the request's body that wait to be sent.
    pub fn body_waiting(&self) -> usize {
        self.request.body.len()
    }

    /// The same, and those in the send under way.
    pub fn body_held(&self) -> usize {
        self.request.body.len() + self.request.sending_bytes
    }

    fn origin(&self) -> u32 {
        self.origins[self.origin_at]
    }

    fn wants_input(&mut self) -> bool {
        let spilled_bytes = self.store.as_mut().map_or(0, StoreWriter::spilled_bytes);
        self.pipe.bytes < limits::RELAY_PIPE_BYTES && spilled_bytes < limits::SPILL_BYTES_MAX
    }
}

impl Edge {
    /// Starts a fetch.
    pub fn start_fetch(&mut self, now: Now, plan: Plan) -> Ref {
        let Plan {
            origins,
            head,
            kept,
            body,
            lease,
            reader,
            label,
            forward,
            to_head,
            idempotent,
            invalidates,
            story,
        } = plan;
        self.observe.count(Metric::Fetches);
        let full = self.fetches.len() >= limits::FETCHES_MAX;
        let has_content = body.has_content();
        let at = self.fetches.insert(|_| Fetch {
            phase: Phase::Resolving,
            exchange: Client::new(),
            origins,
            origin_at: 0,
            addresses_tried: 0,
            socket: None,
            connect: 0,
            kept_connection: false,
            retried: false,
            request: Outgoing {
                head,
                body: Vec::new(),
                sending_bytes: 0,
                chunked: body == BodyFraming::Chunked,
                ended: !has_content,
                begun: false,
                head_sent: false,
            },
            sending: false,
            receiving: true,
            method: Reach { to_head, idempotent },
            lease,
            store: None,
            reader,
            label,
            told: CacheStatus::forwarded(forward),
            kept,
            invalidates,
            unannounced: None,
            story,
            outcome: Outcome::Pending,
            interim: Vec::new(),
            pipe: Pipe::default(),
            started_wall_ms: now.wall_ms,
            deadline: now.mono.after_ms(self.timeouts.connect_ms),
            timer_at: now.mono,
        });
        self.observe.set(Metric::FetchActive, self.fetches.len() as u64);
        self.fetch_look_at(at, now.mono.after_ms(self.timeouts.connect_ms));
        if full {
            self.fetch_failed(now, at, Failure::Overloaded);
        } else {
            self.fetch_connect(now, at, false);
        }
        at
    }

    /// Gets a connection for a fetch. `fresh`: not a kept one.
    fn fetch_connect(&mut self, now: Now, at: Ref, fresh: bool) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        fetch.deadline = now.mono.after_ms(self.timeouts.connect_ms);
        fetch.kept_connection = false;
        let (story, row) = (fetch.story, fetch.origin());
        match self.origins.acquire(now, row, at, fresh, &mut self.out) {
            Acquired::Kept(socket) => {
                self.observe.count(Metric::OriginReused);
                fetch.kept_connection = true;
                self.explain_attempt(now, story, row, None);
                self.sockets.set_owner(socket, Owner::Upstream(at.slot));
                self.fetch_connected(now, at, socket);
            }
            Acquired::Address(address) => {
                self.fetch_connect_to(now, at, address);
            }
            Acquired::Resolving => fetch.phase = Phase::Resolving,
            Acquired::Unresolved => self.fetch_unreachable(now, at, Failure::Unresolved),
        }
    }

    fn fetch_connect_to(&mut self, now: Now, at: Ref, address: SocketAddr) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        let (story, row) = (fetch.story, fetch.origin());
        self.next_connect += 1;
        fetch.phase = Phase::Connecting;
        fetch.connect = self.next_connect;
        self.connects.insert(self.next_connect, at);
        self.out.connect(Op::Origin(self.next_connect), address);
        self.explain_attempt(now, story, row, Some(address));
    }

    /// A name was looked up: everyone who waited goes on.
    pub fn origin_resolved(
        &mut self,
        now: Now,
        number: u64,
        result: Result<Vec<SocketAddr>, io::ErrorKind>,
    ) {
        for at in self.origins.handle_resolved(now, number, result) {
            let Some(fetch) = self.fetches.get_mut(at) else { continue };
            if fetch.phase != Phase::Resolving {
                continue;
            }
            match self.origins.address(fetch.origin()) {
                Some(address) => self.fetch_connect_to(now, at, address),
                None => self.fetch_unreachable(now, at, Failure::Unresolved),
            }
        }
    }

    /// A connection to an origin was made, or not.
    pub fn origin_connected(
        &mut self,
        now: Now,
        number: u64,
        result: Result<SocketId, io::ErrorKind>,
    ) {
        // Only the attempt that the fetch still waits for; an earlier one went to another origin.
        let waits = self.connects.remove(&number).filter(|&at| {
            let fetch = self.fetches.get(at);
            fetch.is_some_and(|it| it.phase == Phase::Connecting && it.connect == number)
        });
        match (waits, result) {
            (Some(at), Ok(socket)) => {
                self.observe.count(Metric::OriginConnects);
                self.sockets.open_own(socket, Owner::Upstream(at.slot));
                self.out.receive(socket, true);
                self.fetch_connected(now, at, socket);
            }
            (Some(at), Err(kind)) => self.fetch_unreachable(now, at, Failure::Connect(kind)),
            (None, Ok(socket)) => {
                // Whoever wanted it is gone.
                self.sockets.open_own(socket, Owner::Closing);
                self.out.close(socket, Close::Abort);
            }
            (None, Err(_)) => {}
        }
    }

    fn fetch_connected(&mut self, now: Now, at: Ref, socket: SocketId) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        fetch.socket = Some(socket);
        fetch.phase = Phase::Head;
        fetch.exchange = Client::new();
        fetch.exchange.begin(fetch.method.to_head);
        fetch.receiving = true;
        fetch.request.head_sent = false;
        fetch.deadline = now.mono.after_ms(self.timeouts.origin_head_ms);
        self.fetch_send(now, at);
    }

    /// Sends what is there of the request.
    fn fetch_send(&mut self, now: Now, at: Ref) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        let Some(socket) = fetch.socket else { return };
        if fetch.sending {
            return;
        }
        let mut buffer = self.out.buffer();
        if !fetch.request.head_sent {
            buffer.extend_from_slice(&fetch.request.head);
            fetch.request.head_sent = true;
        }
        fetch.request.sending_bytes = fetch.request.body.len();
        buffer.append(&mut fetch.request.body);
        if buffer.is_empty() {
            return self.out.recycle_buffer(buffer);
        }
        fetch.sending = true;
        let has_content = fetch.request.begun || !fetch.request.ended;
        let limit_ms =
            if has_content { self.timeouts.transfer_ms } else { self.timeouts.origin_head_ms };
        fetch.deadline = fetch.deadline.max(now.mono.after_ms(limit_ms));
        self.out.send(socket, Payload::One(Segment::Owned(buffer)));
    }

    /// If the origin has all of the request now, the time that it has for the head begins.
    fn fetch_await_head(&mut self, now: Now, at: Ref) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        let request = &fetch.request;
        let is_sent =
            request.ended && request.head_sent && request.body.is_empty() && !fetch.sending;
        if fetch.phase == Phase::Head && is_sent {
            let deadline = now.mono.after_ms(self.timeouts.origin_head_ms);
            fetch.deadline = deadline;
            if deadline < fetch.timer_at {
                self.fetch_look_at(at, deadline);
            }
        }
    }

    fn fetch_look_at(&mut self, at: Ref, when: Mono) {
        if let Some(fetch) = self.fetches.get_mut(at) {
            fetch.timer_at = when;
            self.timers.set(when, Timer::Fetch(at));
        }
    }

    /// Content of the request, from the client.
    pub fn fetch_request_body(&mut self, now: Now, at: Ref, bytes: &[u8]) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        let request = &mut fetch.request;
        request.begun = true;
        if fetch.phase == Phase::Ended {
            return;
        }
        if request.chunked {
            encode::chunk(&mut request.body, bytes);
        } else {
            request.body.extend_from_slice(bytes);
        }
        if fetch.phase == Phase::Head || fetch.phase == Phase::Body {
            self.fetch_send(now, at);
        }
    }

    /// The request is complete.
    pub fn fetch_request_end(&mut self, now: Now, at: Ref) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        fetch.request.ended = true;
        if fetch.request.chunked && fetch.phase != Phase::Ended {
            fetch.request.body.extend_from_slice(encode::BODY_END);
        }
        if fetch.phase == Phase::Head || fetch.phase == Phase::Body {
            self.fetch_send(now, at);
            self.fetch_await_head(now, at);
        }
    }

    /// A send to an origin ended.
    pub fn origin_sent(
        &mut self,
        now: Now,
        socket: SocketId,
        slot: u32,
        result: Result<(), io::ErrorKind>,
        payload: Payload,
    ) {
        self.out.recycle(payload);
        let Some(at) = self.fetch_at(slot, socket) else { return };
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        fetch.sending = false;
        fetch.request.sending_bytes = 0;
        match result {
            // An origin may answer and close without reading everything: its answer still counts,
            // and if none comes, the end of the connection tells.
            Err(_) if fetch.phase == Phase::Head && !fetch.exchange.has_begun() => {
                if !self.fetch_retry(now, at) {
                    self.fetch_failed(now, at, Failure::Send);
                }
            }
            Err(_) => {}
            Ok(()) => {
                self.fetch_send(now, at);
                self.fetch_await_head(now, at);
                if let Some(fetch) = self.fetches.get(at)
                    && let Some(reader) = fetch.reader
                    && !fetch.request.ended
                {
                    self.notices.push(reader);
                }
                self.fetch_reuse_or_close(now, at);
            }
        }
    }

    /// Bytes from an origin.
    pub fn origin_received(&mut self, now: Now, socket: SocketId, slot: u32, bytes: &[u8]) {
        let Some(at) = self.fetch_at(slot, socket) else { return };
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        // Lifted out, so that the head it lends and the rest of the edge can be used together.
        let mut exchange = std::mem::take(&mut fetch.exchange);
        let mut input = bytes;
        loop {
            let mut space = FieldSpace::new();
            match exchange.step(&mut input, &mut space) {
                ClientStep::Informational(head) => self.fetch_interim(at, &head),
                ClientStep::Head(response) => self.fetch_head(now, at, &response),
                ClientStep::Body(bytes) => self.fetch_body(now, at, bytes),
                ClientStep::End(_) => self.fetch_end(at),
                ClientStep::Failed(error) => {
                    self.fetch_broken(now, at, error, exchange.has_begun());
                    break;
                }
                ClientStep::NeedMore => break,
            }
        }
        if let Some(fetch) = self.fetches.get_mut(at)
            && fetch.socket == Some(socket)
        {
            fetch.exchange = exchange;
            self.fetch_pace(at);
            self.fetch_reuse_or_close(now, at);
        }
    }

    /// An origin ended its side, or the connection is gone.
    pub fn origin_gone(&mut self, now: Now, socket: SocketId, slot: u32) {
        let Some(at) = self.fetch_at(slot, socket) else { return };
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        let begun = fetch.exchange.has_begun();
        match fetch.exchange.eof() {
            ClientEof::End => self.fetch_end(at),
            ClientEof::Failed(error) => self.fetch_broken(now, at, error, begun),
            ClientEof::Idle => {}
        }
        self.fetch_close_socket(at, socket);
        self.fetch_release_if_over(at);
    }

    /// The fetch's timer has fired.
    pub fn fetch_timer(&mut self, now: Now, at: Ref) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        if now.mono < fetch.timer_at {
            // An earlier look has been asked for since, and has asked for the next.
            return;
        }
        if now.mono < fetch.deadline || fetch.phase == Phase::Ended {
            let next = fetch.deadline.max(now.mono.after_ms(1_000));
            return self.fetch_look_at(at, next);
        }
        let waits_for_client = !fetch.request.ended && !fetch.sending;
        match fetch.phase {
            // The origin has what there is of the request, whose connection has a deadline of its
            // own.
            Phase::Head | Phase::Body if waits_for_client => {
                fetch.deadline = now.mono.after_ms(self.timeouts.transfer_ms);
            }
            Phase::Resolving | Phase::Connecting => {
                self.fetch_unreachable(now, at, Failure::ConnectTimeout);
            }
            Phase::Head => self.fetch_failed(now, at, Failure::HeadTimeout),
            // Held back by its reader, whose connection has a deadline of its own.
            Phase::Body if !fetch.receiving => {
                fetch.deadline = now.mono.after_ms(self.timeouts.origin_body_ms);
            }
            Phase::Body => self.fetch_failed(now, at, Failure::BodyTimeout),
            Phase::Ended => {}
        }
        if let Some(fetch) = self.fetches.get(at) {
            let next = fetch.deadline.max(now.mono.after_ms(50));
            self.fetch_look_at(at, next);
        }
    }

    /// The connection that asked is gone, or has all it needs.
    pub fn fetch_leave(&mut self, at: Ref) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        fetch.reader = None;
        fetch.pipe.pieces.clear();
        fetch.pipe.bytes = 0;
        // What may be stored is fetched to the end: others may wait, and the next will come.
        let goes_on = match fetch.phase {
            Phase::Ended => false,
            Phase::Body => fetch.store.is_some(),
            _ => fetch.lease.is_some() && fetch.request.ended,
        };
        if !goes_on {
            self.fetch_abort(at);
        }
    }

    /// The reader has taken from the pipe: upstream may be read again.
    pub fn fetch_pace(&mut self, at: Ref) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        let Some(socket) = fetch.socket else { return };
        let wants = fetch.wants_input();
        // Some way below the mark, so that it does not go on and off with each piece.
        let low = fetch.pipe.bytes <= limits::RELAY_PIPE_BYTES / 2;
        if fetch.receiving != wants && (low || !wants) {
            fetch.receiving = wants;
            self.out.receive(socket, wants);
        }
    }

    /// An interim head has come: it is for the one who asked, and for nobody else (RFC 9110 §15.2).
    fn fetch_interim(&mut self, at: Ref, head: &ResponseHead<'_>) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        let Some(reader) = fetch.reader else { return };
        // 100 was answered by us, and no upgrade was asked for.
        let is_for_client = !matches!(head.status, 100 | 101);
        if fetch.phase == Phase::Head
            && is_for_client
            && fetch.interim.len() <= limits::INTERIM_BYTES_MAX
        {
            encode::status_line(&mut fetch.interim, head.status);
            encode::end_to_end_fields(&mut fetch.interim, &head.fields, &[]);
            fetch.interim.extend_from_slice(self.names.via_line());
            fetch.interim.extend_from_slice(b"\r\n");
            self.notices.push(reader);
        }
    }

    /// The final head has come: the cache decides, or it is passed on.
    fn fetch_head(&mut self, now: Now, at: Ref, response: &Response<'_>) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        if fetch.phase != Phase::Head {
            return;
        }
        fetch.phase = Phase::Body;
        fetch.deadline = now.mono.after_ms(self.timeouts.origin_body_ms);
        let invalidates = fetch.invalidates.take_if(|_| matches!(response.head.status, 200..400));
        fetch.told.forward_status = Some(response.head.status);
        let story = fetch.story;
        self.explain_outcome(now, story, Ok(response.head.status));
        if response.head.status == 503 && self.fetch_put_off(now, at, &response.head) {
            return;
        }
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        let Some(lease) = fetch.lease.take() else {
            self.fetch_invalidate(invalidates, response, None);
            return self.fetch_relay(at, response);
        };
        let mut space = FieldSpace::new();
        let kept = Rc::clone(&fetch.kept);
        let Ok(Some((head, _))) = parse_request(&kept, &mut space) else {
            // Without the fields that `Vary` may name, nobody knows for whom the answer is: it is
            // for the one who asked alone. `keep_head` writes what can be read again.
            drop(lease);
            self.fetch_invalidate(invalidates, response, None);
            return self.fetch_relay(at, response);
        };
        let asked = HeadFields(head.fields);
        let (label, told) = (fetch.label, fetch.told);
        let fields = HeadFields(response.head.fields);
        let arrived = cache::Response {
            status: response.head.status,
            reason: response.head.reason.as_bytes(),
            fields: &fields,
            length: content_length(response),
            request_at_ms: fetch.started_wall_ms,
            response_at_ms: now.wall_ms,
            append: self.names.via_line(),
        };
        let outcome = lease.head(&asked, &arrived, &mut self.wakes);
        let freshness = Freshness::Fresh;
        match outcome {
            HeadOutcome::Fill { writer, entry, first_hand, not_stored, beside } => {
                fetch.store = Some(writer);
                let (stored, detail) = match not_stored {
                    None => (true, ""),
                    Some(reason) => (false, reason.as_str()),
                };
                let how = (freshness, label, CacheStatus { stored, detail, ..told });
                let own = invalidates.is_some().then(|| entry.cache_key().clone());
                fetch.outcome = Outcome::Stored(StoredAnswer::new(entry, how, first_hand));
                self.notices.extend(fetch.reader);
                self.outdated.extend(beside);
                self.fetch_invalidate(invalidates, response, own.as_ref());
            }
            HeadOutcome::Updated { entry, first_hand } => {
                let label = CacheLabel::Revalidated;
                let updated = Arc::clone(&entry);
                let stored = !entry.is_dead();
                let how = (freshness, label, CacheStatus { stored, ..told });
                fetch.outcome = Outcome::Stored(StoredAnswer::new(entry, how, first_hand));
                self.notices.extend(fetch.reader);
                self.keep_page(updated);
            }
            HeadOutcome::Stale(entry) => {
                fetch.outcome = Outcome::Stored(StoredAnswer::of_failed(entry, told));
                self.notices.extend(fetch.reader);
            }
            HeadOutcome::Again => {
                fetch.outcome = Outcome::Again;
                self.notices.extend(fetch.reader);
                self.fetch_abort(at);
            }
            HeadOutcome::NotStored(reason) => {
                fetch.told.detail = reason.as_str();
                self.fetch_invalidate(invalidates, response, None);
                self.fetch_relay(at, response);
            }
        }
    }

    /// Passes a head on to the one who asked; without one there is no use in going on.
    fn fetch_relay(&mut self, at: Ref, response: &Response<'_>) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        let Some(reader) = fetch.reader else { return self.fetch_abort(at) };
        let head = &response.head;
        let mut text = Vec::with_capacity(512);
        encode::status_line(&mut text, head.status);
        let except = [Known::XCacheStatus, Known::XRequestId];
        encode::end_to_end_fields(&mut text, &head.fields, &except);
        let has_length = response.body == BodyFraming::None && head.status != 204;
        fetch.outcome = Outcome::Relay(RelayHead {
            status: head.status,
            text,
            body: response.body,
            length: if has_length { content_length(response) } else { None },
            has_date: head.fields.has(Known::Date),
            label: fetch.label,
            told: fetch.told,
        });
        self.notices.push(reader);
    }

    fn fetch_body(&mut self, now: Now, at: Ref, bytes: &[u8]) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        if fetch.phase != Phase::Body {
            return;
        }
        fetch.deadline = now.mono.after_ms(self.timeouts.origin_body_ms);
        if let Some(store) = &mut fetch.store {
            let mut woken = Vec::new();
            let taken = store.append(bytes, &mut woken);
            self.wake_followers(woken);
            if taken.is_err() || self.is_abandoned(at) {
                return self.fetch_abort(at);
            }
            return self.fetch_hold_back(now, at);
        }
        let is_relayed = matches!(fetch.outcome, Outcome::Relay(_) | Outcome::Taken);
        if let Some(reader) = fetch.reader.filter(|_| is_relayed) {
            fetch.pipe.pieces.push_back(Bytes::copy_from_slice(bytes));
            fetch.pipe.bytes += bytes.len();
            self.notices.push(reader);
        }
    }

    /// The answer is complete.
    fn fetch_end(&mut self, at: Ref) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        if fetch.phase != Phase::Body {
            return;
        }
        fetch.phase = Phase::Ended;
        fetch.pipe.end = Some(Ok(()));
        self.notices.extend(fetch.reader);
        let kept = Rc::clone(&fetch.kept);
        if let Some(store) = fetch.store.take() {
            let mut woken = Vec::new();
            // An answer shorter than announced has failed already, as a truncated one.
            let stored = store.finish(&mut woken);
            self.wake_followers(woken);
            if let Ok(entry) = stored {
                self.near.renew(&entry);
                self.encode_for_next(&entry, &kept);
                self.keep_page(entry);
            }
        }
    }

    /// Who asked for it got it as it came; the next one like it shall find it encoded.
    fn encode_for_next(&mut self, entry: &Arc<Entry>, kept: &[u8]) {
        let mut space = FieldSpace::new();
        if entry.is_encodable()
            && let Ok(Some((head, _))) = parse_request(kept, &mut space)
            && let Some(order) = self.cache.order_encoding(entry, &HeadFields(head.fields))
        {
            self.encode(order);
        }
    }

    /// A response of a page was stored: shard 0 keeps it on disk. One that was purged or replaced
    /// before it was whole is not stored any more.
    fn keep_page(&mut self, entry: Arc<Entry>) {
        let is_page = entry.cache_key().borrowed().site().is_empty() && !entry.is_partial();
        if self.settings.data.is_some() && is_page && !entry.is_dead() {
            self.out.mail(0, Mail::PageStored(entry));
        }
    }

    /// There will be no answer, or no more of it.
    fn fetch_failed(&mut self, now: Now, at: Ref, failure: Failure) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        self.observe.count(failure.metric());
        let story = fetch.story;
        self.explain_outcome(now, story, Err(failure));
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        match fetch.lease.take() {
            Some(lease) => {
                let must_validate = lease.must_validate();
                let (status, _) = failure.answer();
                let stale = lease.fail(now.wall_ms, status, &mut self.wakes);
                fetch.outcome = match stale {
                    None if must_validate => Outcome::Failed(Failure::Unvalidated),
                    Some(entry) => Outcome::Stored(StoredAnswer::of_failed(entry, fetch.told)),
                    None => Outcome::Failed(failure),
                };
            }
            None if matches!(fetch.outcome, Outcome::Pending) => {
                fetch.outcome = Outcome::Failed(failure);
            }
            // The head is gone already: the reader sees the body break off.
            None => {}
        }
        fetch.pipe.end = Some(Err(()));
        self.notices.extend(fetch.reader);
        self.fetch_abort(at);
    }

    fn wake_followers(&mut self, woken: Vec<cache::Waiter>) {
        let wake = |waiter| Wake { waiter, with: WakeWith::Progress };
        self.wakes.extend(woken.into_iter().map(wake));
    }

    /// The connection broke, or what came is no answer.
    fn fetch_broken(&mut self, now: Now, at: Ref, error: ResponseError, begun: bool) {
        let Some(fetch) = self.fetches.get(at) else { return };
        if fetch.phase == Phase::Ended {
            return;
        }
        if begun || !self.fetch_retry(now, at) {
            self.fetch_failed(now, at, Failure::Response(error));
        }
    }

    /// Repeats a request that may be repeated, if it was sent on a connection that may have died
    /// unseen.
    fn fetch_retry(&mut self, now: Now, at: Ref) -> bool {
        let Some(fetch) = self.fetches.get_mut(at) else { return false };
        let may = fetch.kept_connection
            && !fetch.retried
            && fetch.method.idempotent
            && !fetch.request.begun;
        if !may {
            return false;
        }
        fetch.retried = true;
        fetch.sending = false;
        if let Some(socket) = fetch.socket.take() {
            self.out.close(socket, Close::Abort);
        }
        self.observe.count(Metric::FetchRetries);
        self.fetch_connect(now, at, true);
        true
    }

    /// No connection: the next address, the next origin, or it has failed.
    fn fetch_unreachable(&mut self, now: Now, at: Ref, failure: Failure) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        fetch.addresses_tried += 1;
        let story = fetch.story;
        self.explain_outcome(now, story, Err(failure));
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        let addresses = self.origins.address_count(fetch.origin());
        let timed_out = failure == Failure::ConnectTimeout;
        if fetch.addresses_tried < addresses && !timed_out {
            return self.fetch_connect(now, at, true);
        }
        if fetch.origin_at + 1 < fetch.origins.len() {
            fetch.origin_at += 1;
            fetch.addresses_tried = 0;
            return self.fetch_connect(now, at, false);
        }
        self.fetch_failed(now, at, failure);
    }

    /// Ends an exchange that cannot be used on.
    fn fetch_abort(&mut self, at: Ref) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        fetch.phase = Phase::Ended;
        if let Some(socket) = fetch.socket.take() {
            self.out.close(socket, Close::Abort);
        }
        if let Some(store) = fetch.store.take() {
            let mut woken = Vec::new();
            store.fail(&mut woken);
            self.wake_followers(woken);
        }
        self.fetch_release_if_over(at);
    }

    fn fetch_close_socket(&mut self, at: Ref, socket: SocketId) {
        if let Some(fetch) = self.fetches.get_mut(at)
            && fetch.socket == Some(socket)
        {
            fetch.socket = None;
            self.out.close(socket, Close::Abort);
        }
    }

    /// Keeps the connection of a complete exchange for the next one, or closes it.
    fn fetch_reuse_or_close(&mut self, now: Now, at: Ref) {
        let Some(fetch) = self.fetches.get_mut(at) else { return };
        if fetch.phase != Phase::Ended || fetch.sending {
            return;
        }
        if let Some(socket) = fetch.socket.take() {
            let clean = fetch.exchange.is_reusable()
                && fetch.request.ended
                && fetch.request.body.is_empty()
                && !self.draining;
            let row = fetch.origin();
            if clean && self.origins.release(now, row, socket, &mut self.timers) {
                if !fetch.receiving {
                    self.out.receive(socket, true);
                }
                self.sockets.set_owner(socket, Owner::Idle(row));
            } else {
                self.out.close(socket, Close::Graceful);
            }
        }
        self.fetch_release_if_over(at);
    }

    /// Frees a fetch that has neither a connection nor a reader.
    fn fetch_release_if_over(&mut self, at: Ref) {
        let Some(fetch) = self.fetches.get(at) else { return };
        if fetch.phase == Phase::Ended && fetch.socket.is_none() && fetch.reader.is_none() {
            self.fetches.free(at);
            self.observe.set(Metric::FetchActive, self.fetches.len() as u64);
        }
    }

    fn fetch_at(&self, slot: u32, socket: SocketId) -> Option<Ref> {
        let at = self.fetches.at_slot(slot)?;
        (self.fetches.get(at)?.socket == Some(socket)).then_some(at)
    }
}

/// The length that a response announces, of a body that comes or (HEAD, 304) of one that does not.
fn content_length(response: &Response<'_>) -> Option<u64> {
    match response.body {
        BodyFraming::Length(length) => Some(length),
        BodyFraming::None if response.head.status == 204 => Some(0),
        BodyFraming::None => {
            let value = response.head.fields.known(Known::ContentLength)?;
            std::str::from_utf8(value).ok()?.trim().parse().ok()
        }
        BodyFraming::Chunked | BodyFraming::UntilClose => None,
    }
}
