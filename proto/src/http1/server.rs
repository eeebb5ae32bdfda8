//! The downstream side of one connection: received bytes → requests, in order, one at a time.
//!
//! ```text
//!          ┌───────────── response_done: Continue ────────────────┐
//!          ▼                                                      │
//!   Head (idle, or partial) ──Head──▶ Body ──BodyEnd──▶ Outstanding
//!          │                            │ response_done before the end
//!          │                            └──────▶ Drain ──▶ Head
//!          └─ Refused · close · eof ──▶ Closed
//! ```
//!
//! The caller loops over [`Server::step`] until it says `NeedMore`. A head that lies in one receive is parsed where it lies. After
//! `Head` the caller either answers at once, calls [`Server::response_done`] and steps on, so that all answers to one receive leave in one
//! send; or it answers later: meanwhile the body comes as it arrives, and bytes of further requests are kept, bounded, until `response_done`.
//!
//! Leaves to others: the timer (see [`Server::waiting`] for which deadline runs), sending, what a request means.

use super::{
    body::{BodyError, BodyReader, BodyStep},
    framing::{self, BodyFraming, Expectation},
    gather::{Gathered, bounded, gather},
    head::{self, FieldSpace, RequestHead, Trailers},
    refusal::Refusal,
};
use crate::{buf::Buf, limits};

/// One downstream connection. Owns memory only while a head is partial or requests are kept.
#[derive(Debug)]
pub struct Server {
    /// A partial head, or what came behind an outstanding request.
    buffer: Buf,
    state: State,
}

/// All but the buffer, so that it can change while something is lent from there.
#[derive(Debug)]
struct State {
    phase: Phase,
    body_bytes_max: u64,
    /// Content of the present body so far; while draining, of what is thrown away.
    body_bytes: u64,
    /// Bytes of the buffer known to hold no complete head.
    scanned: u32,
    /// Empty lines before the present head, ≤ `EMPTY_LINES_MAX`.
    empty_lines: u8,
    /// Between `Head` and `response_done`.
    outstanding: bool,
    keep_alive: bool,
    /// The client waits for 100 (Continue) and has sent no content yet.
    awaits_continue: bool,
    /// The client has ended its side.
    eof: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Head,
    Body(BodyReader),
    /// The response is done, the rest of the body is thrown away.
    Drain(BodyReader),
    Closed,
}

/// What one step has found.
#[derive(Debug)]
pub enum Step<'a> {
    /// A request. `Body` and `BodyEnd` follow if `body.has_content()`; nothing follows otherwise.
    Head(Request<'a>),
    /// Content, at least one byte.
    Body(&'a [u8]),
    /// The body is complete.
    BodyEnd(Trailers<'a>),
    /// Send this refusal (after what is outstanding) and close.
    Refused(Refusal),
    /// Close after what was sent: the rest of a body is not worth reading.
    Close,
    /// All input is used up.
    NeedMore,
}

/// A request as far as its head says.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The head.
    pub head: RequestHead<'a>,
    /// How long the body is.
    pub body: BodyFraming,
    /// Whether the client keeps the connection. See also [`Server::persists`].
    pub keep_alive: bool,
    /// The client waits for 100 (Continue) before it sends the body: send one and call [`Server::continued`], or answer without it.
    pub expect_continue: bool,
}

/// What comes after a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// Step on, with an empty input if nothing is at hand: requests may be waiting.
    Continue,
    /// Close once the response is sent.
    Close,
}

/// What the client's end of its side means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerEof {
    /// Between requests: close.
    Idle,
    /// A response is outstanding: send it, then close.
    Outstanding,
    /// In the middle of a request: answer with this, or drop it, and close.
    Refused(Refusal),
}

/// What a connection waits for, and so which deadline runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Waiting {
    /// A request; bytes of it end the wait. Expires silently.
    Idle,
    /// The rest of a head; counted from its first byte, not renewed by more.
    Head,
    /// More of a body; renewed by each byte.
    Body,
    /// Nothing of the client: a response is outstanding, or the connection is closed.
    Nothing,
}

impl Waiting {
    /// How long, in ms from the moment the wait began (or was renewed).
    pub const fn limit_ms(self) -> Option<u64> {
        match self {
            Self::Idle => Some(limits::KEEP_ALIVE_IDLE_MS),
            Self::Head => Some(limits::HEAD_DEADLINE_MS),
            Self::Body => Some(limits::BODY_IDLE_MS),
            Self::Nothing => None,
        }
    }

    /// Whether received bytes start the wait anew.
    pub const fn is_renewed_by_bytes(self) -> bool {
        matches!(self, Self::Body)
    }

    /// What to answer when it has passed; `None`: close without a word.
    pub const fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Head => Some(Refusal::HeadTimeout),
            Self::Body => Some(Refusal::BodyTimeout),
            Self::Idle | Self::Nothing => None,
        }
    }
}

impl Server {
    /// A new connection. Request bodies over `body_bytes_max` are refused.
    pub const fn new(body_bytes_max: u64) -> Self {
        let state = State {
            phase: Phase::Head,
            body_bytes_max,
            body_bytes: 0,
            scanned: 0,
            empty_lines: 0,
            outstanding: false,
            keep_alive: true,
            awaits_continue: false,
            eof: false,
        };
        Self { buffer: Buf::new(), state }
    }

    /// Reads on. Call again until `NeedMore`, `Refused` or `Close`, each time with new `space`. With `NeedMore` all of the input is
    /// used up or kept.
    #[inline]
    pub fn step<'a>(&'a mut self, input: &mut &'a [u8], space: &'a mut FieldSpace<'a>) -> Step<'a> {
        if matches!(self.state.phase, Phase::Drain(_))
            && let Some(step) = self.drain(input)
        {
            return step;
        }
        match self.state.phase {
            Phase::Head if self.state.outstanding => self.keep(input),
            Phase::Head if self.buffer.is_empty() => self.step_head(input, space),
            Phase::Head => self.step_kept_head(input, space),
            Phase::Body(_) => self.step_body(input),
            Phase::Drain(_) | Phase::Closed => {
                *input = &[];
                Step::NeedMore
            }
        }
    }

    /// A head that begins in the input: the hot path.
    #[inline]
    fn step_head<'a>(
        &'a mut self,
        input: &mut &'a [u8],
        space: &'a mut FieldSpace<'a>,
    ) -> Step<'a> {
        while let Some(rest) = input.strip_prefix(b"\r\n") {
            *input = rest;
            if let Err(refusal) = self.state.count_empty_line() {
                return self.state.refuse(refusal);
            }
        }
        let bytes = *input;
        if bytes.is_empty() {
            self.buffer.release();
            return self.state.wait();
        }
        match head::parse_request(bounded(bytes), space) {
            Ok(Some((head, len))) => {
                *input = &bytes[len..];
                self.state.begin(head)
            }
            Ok(None) if bytes.len() >= limits::HEAD_BYTES_MAX => {
                self.state.refuse(too_large(bounded(bytes)))
            }
            Ok(None) => {
                self.buffer.push(bytes, limits::HEAD_BYTES_MAX);
                self.state.scanned = bytes.len() as u32;
                *input = &[];
                self.state.wait()
            }
            Err(refusal) => self.state.refuse(refusal),
        }
    }

    /// A head that begins in the kept bytes.
    fn step_kept_head<'a>(
        &'a mut self,
        input: &mut &'a [u8],
        space: &'a mut FieldSpace<'a>,
    ) -> Step<'a> {
        while let Some(from_input) = empty_line(self.buffer.as_slice(), input) {
            self.buffer.take(2 - from_input);
            *input = &input[from_input..];
            self.state.scanned = 0;
            if let Err(refusal) = self.state.count_empty_line() {
                return self.state.refuse(refusal);
            }
        }
        if self.buffer.is_empty() {
            return self.step_head(input, space);
        }
        let Self { buffer, state } = self;
        match gather(buffer, &mut state.scanned, input, probe) {
            Gathered::Complete(len) => match head::parse_request(buffer.take(len), space) {
                Ok(Some((head, _))) => state.begin(head),
                Ok(None) => state.refuse(Refusal::RequestLine),
                Err(refusal) => state.refuse(refusal),
            },
            Gathered::Partial => state.wait(),
            Gathered::Failed(refusal) => state.refuse(refusal),
        }
    }

    fn step_body<'a>(&'a mut self, input: &mut &'a [u8]) -> Step<'a> {
        let Self { buffer, state } = self;
        let Phase::Body(reader) = &mut state.phase else { return Step::NeedMore };
        match reader.step(buffer, input) {
            Ok(BodyStep::Data(content)) => {
                state.awaits_continue = false;
                state.body_bytes = state.body_bytes.saturating_add(content.len() as u64);
                if state.body_bytes > state.body_bytes_max {
                    return state.refuse(Refusal::BodyTooLarge);
                }
                Step::Body(content)
            }
            Ok(BodyStep::End(trailers)) => {
                state.phase = Phase::Head;
                state.awaits_continue = false;
                Step::BodyEnd(trailers)
            }
            Ok(BodyStep::NeedMore) => Step::NeedMore,
            Err(error) => state.refuse(body_refusal(error)),
        }
    }

    /// Throws the rest of a body away; `None` when it has ended.
    fn drain(&mut self, input: &mut &[u8]) -> Option<Step<'static>> {
        loop {
            let Phase::Drain(reader) = &mut self.state.phase else { return None };
            let mut rest: &[u8] = input;
            let found = match reader.step(&mut self.buffer, &mut rest) {
                Ok(BodyStep::Data(content)) => {
                    self.state.body_bytes =
                        self.state.body_bytes.saturating_add(content.len() as u64);
                    (self.state.body_bytes > limits::DRAIN_BYTES_MAX).then_some(Step::Close)
                }
                Ok(BodyStep::End(_)) => {
                    self.state.phase = Phase::Head;
                    None
                }
                Ok(BodyStep::NeedMore) => Some(Step::NeedMore),
                Err(_) => Some(Step::Close),
            };
            let used = input.len() - rest.len();
            *input = &input[used..];
            if let Some(step) = found {
                if matches!(step, Step::Close) {
                    self.state.phase = Phase::Closed;
                }
                return Some(step);
            }
        }
    }

    /// Keeps what comes behind an outstanding request.
    fn keep<'a>(&'a mut self, input: &mut &'a [u8]) -> Step<'a> {
        let pushed = self.buffer.push(input, limits::PIPELINE_BYTES_MAX);
        let fits = pushed == input.len();
        *input = &[];
        self.buffer.release();
        if fits { Step::NeedMore } else { self.state.refuse(Refusal::PipelineTooLong) }
    }

    /// The response to the present request is complete. If its body is not read to the end, the rest is thrown away.
    #[inline]
    pub fn response_done(&mut self) -> After {
        let persists = self.persists();
        self.state.outstanding = false;
        if !persists {
            self.state.phase = Phase::Closed;
            return After::Close;
        }
        if let Phase::Body(reader) = self.state.phase {
            self.state.phase = Phase::Drain(reader);
            self.state.body_bytes = 0;
        }
        After::Continue
    }

    /// Whether the connection will take another request after the present one; if not, the response says `Connection: close`.
    /// Asked when the response head is written.
    #[inline]
    pub fn persists(&self) -> bool {
        let state = &self.state;
        state.keep_alive
            && !(state.eof && self.buffer.is_empty())
            && match state.phase {
                Phase::Head => true,
                // A client that was not told to continue may or may not send its body: no safe place to read on.
                Phase::Body(_) if state.awaits_continue || state.eof => false,
                Phase::Body(BodyReader::Length(left)) => left <= limits::DRAIN_BYTES_MAX,
                Phase::Body(_) | Phase::Drain(_) => true,
                Phase::Closed => false,
            }
    }

    /// No request after the present one, whatever the client wants. Call before the response head is written.
    pub fn close_after_response(&mut self) {
        self.state.keep_alive = false;
    }

    /// A 100 (Continue) was sent.
    pub fn continued(&mut self) {
        self.state.awaits_continue = false;
    }

    /// The client has ended its side. All input was stepped through before.
    pub fn eof(&mut self) -> ServerEof {
        self.state.eof = true;
        match self.state.phase {
            Phase::Head | Phase::Closed if self.state.outstanding => ServerEof::Outstanding,
            Phase::Head if self.buffer.is_empty() => ServerEof::Idle,
            Phase::Head => {
                let refusal = match probe(bounded(self.buffer.as_slice())) {
                    Gathered::Failed(refusal) => refusal,
                    Gathered::Complete(_) | Gathered::Partial => Refusal::Truncated,
                };
                self.state.phase = Phase::Closed;
                ServerEof::Refused(refusal)
            }
            Phase::Body(_) => {
                self.state.phase = Phase::Closed;
                ServerEof::Refused(Refusal::Truncated)
            }
            Phase::Drain(_) | Phase::Closed => {
                self.state.phase = Phase::Closed;
                ServerEof::Idle
            }
        }
    }

    /// What the connection waits for now. The caller starts a timer when this changes.
    #[inline]
    pub fn waiting(&self) -> Waiting {
        match self.state.phase {
            Phase::Head if self.state.outstanding => Waiting::Nothing,
            Phase::Head if self.buffer.is_empty() => Waiting::Idle,
            Phase::Head => Waiting::Head,
            Phase::Body(_) | Phase::Drain(_) => Waiting::Body,
            Phase::Closed => Waiting::Nothing,
        }
    }

    /// Whether a request was told of and its response is not done.
    pub fn is_outstanding(&self) -> bool {
        self.state.outstanding
    }

    /// Bytes kept: a partial head, or requests behind an outstanding one.
    pub fn kept_bytes(&self) -> usize {
        self.buffer.len()
    }
}

impl State {
    #[inline]
    fn begin<'a>(&mut self, head: RequestHead<'a>) -> Step<'a> {
        let checked = framing::request_framing(&head).and_then(|body| {
            framing::expectation(&head, body).map(|expectation| (body, expectation))
        });
        let (body, expectation) = match checked {
            Ok((BodyFraming::Length(length), _)) if length > self.body_bytes_max => {
                return self.refuse(Refusal::BodyTooLarge);
            }
            Ok(checked) => checked,
            Err(refusal) => return self.refuse(refusal),
        };
        self.phase = BodyReader::new(body).map_or(Phase::Head, Phase::Body);
        self.body_bytes = 0;
        self.scanned = 0;
        self.empty_lines = 0;
        self.outstanding = true;
        self.keep_alive = framing::keeps_alive(head.version, &head.fields);
        self.awaits_continue = expectation == Expectation::Continue;
        Step::Head(Request {
            head,
            body,
            keep_alive: self.keep_alive,
            expect_continue: self.awaits_continue,
        })
    }

    /// Nothing complete is at hand.
    fn wait(&mut self) -> Step<'static> {
        if self.eof {
            self.phase = Phase::Closed;
            return Step::Close;
        }
        Step::NeedMore
    }

    #[cold]
    fn refuse(&mut self, refusal: Refusal) -> Step<'static> {
        self.phase = Phase::Closed;
        self.keep_alive = false;
        Step::Refused(refusal)
    }

    fn count_empty_line(&mut self) -> Result<(), Refusal> {
        self.empty_lines += 1;
        if self.empty_lines > limits::EMPTY_LINES_MAX { Err(Refusal::RequestLine) } else { Ok(()) }
    }
}

/// Whether an empty line begins the kept bytes (not empty), and how much of it lies in the input behind them.
fn empty_line(kept: &[u8], input: &[u8]) -> Option<usize> {
    match (kept, input) {
        ([b'\r', b'\n', ..], _) => Some(0),
        ([b'\r'], [b'\n', ..]) => Some(1),
        _ => None,
    }
}

/// Whether kept bytes begin with a head.
fn probe(bytes: &[u8]) -> Gathered<Refusal> {
    match head::parse_request(bytes, &mut FieldSpace::new()) {
        Ok(Some((_, len))) => Gathered::Complete(len),
        Ok(None) if bytes.len() >= limits::HEAD_BYTES_MAX => Gathered::Failed(too_large(bytes)),
        Ok(None) => Gathered::Partial,
        Err(refusal) => Gathered::Failed(refusal),
    }
}

/// What is too large about a head without an end.
#[cold]
fn too_large(bytes: &[u8]) -> Refusal {
    let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    let target = line.split(|&b| b == b' ').nth(1).unwrap_or_default();
    if target.len() > limits::TARGET_BYTES_MAX {
        Refusal::TargetTooLong
    } else {
        Refusal::HeadTooLarge
    }
}

fn body_refusal(error: BodyError) -> Refusal {
    match error {
        BodyError::Chunk => Refusal::Chunk,
        BodyError::Trailer => Refusal::Trailer,
    }
}
