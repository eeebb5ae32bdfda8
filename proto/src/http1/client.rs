//! The upstream side of one connection: received bytes → the response to the one request under way.
//!
//! ```text
//!          ┌────────────── End, reusable ───────────────┐
//!          ▼                                            │
//!        Idle ──begin──▶ Head ──Informational──▶ Head   │
//!                         └──Head──▶ Body ──────────────┤
//!                                     └─ UntilClose ─eof┴─▶ Closed
//! ```
//!
//! Upstream requests are not pipelined. `End` comes after each response, with or without a body, and never for a body that was cut off:
//! that is [`ResponseError::Truncated`], so nothing incomplete is stored as complete.
//!
//! Leaves to others: sending the request (a connection is reusable only if all of that was sent, too), deadlines, retries.

use super::{
    body::{BodyError, BodyReader, BodyStep},
    framing::{self, BodyFraming},
    gather::{Gathered, bounded, gather},
    head::{self, FieldSpace, ResponseHead, Trailers},
};
use crate::{buf::Buf, limits};

/// One upstream connection. Owns memory only while a head or a trailer section is partial.
#[derive(Debug, Default)]
pub struct Client {
    buffer: Buf,
    state: State,
}

/// All but the buffer, so that it can change while something is lent from there.
#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Bytes of the buffer known to hold no complete head.
    scanned: u32,
    /// 1xx heads of the present response, ≤ `INFORMATIONAL_COUNT_MAX`.
    informational: u8,
    /// The request's method was HEAD.
    to_head: bool,
    /// The response under way lets the connection be used again.
    keep_alive: bool,
    /// Any byte of the present response has come.
    begun: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    #[default]
    Idle,
    Head,
    Body(BodyReader),
    /// The head said all; `End` is to be told.
    End,
    Closed,
}

/// What one step has found.
#[derive(Debug)]
pub enum ClientStep<'a> {
    /// A 1xx head; the final one is still to come.
    Informational(ResponseHead<'a>),
    /// The final head. `Body` may follow, `End` does.
    Head(Response<'a>),
    /// Content, at least one byte.
    Body(&'a [u8]),
    /// The response is complete. Step on to `NeedMore`, then ask [`Client::is_reusable`].
    End(Trailers<'a>),
    /// The response cannot be used, or used further. Close the connection.
    Failed(ResponseError),
    /// All input is used up.
    NeedMore,
}

/// A response as far as its head says.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The head.
    pub head: ResponseHead<'a>,
    /// How the end of the body is known.
    pub body: BodyFraming,
}

/// What upstream's end of its side means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientEof {
    /// No request was under way.
    Idle,
    /// The response is complete: its body ran until the close.
    End,
    /// The response is not complete.
    Failed(ResponseError),
}

/// Why a response is no use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ResponseError {
    /// Not a head by RFC 9112.
    Head,
    /// A head over [`limits::HEAD_BYTES_MAX`] or [`limits::FIELD_COUNT_MAX`].
    HeadTooLarge,
    /// Contradicting or unknown body lengths.
    Framing,
    /// A malformed chunk, or extensions over their limits.
    Chunk,
    /// A malformed trailer section, or one over its limits.
    Trailer,
    /// More than [`limits::INFORMATIONAL_COUNT_MAX`] 1xx heads.
    TooManyInformational,
    /// 101 (Switching Protocols): nobody asked for that.
    Switched,
    /// Bytes without a request under way.
    Unsolicited,
    /// The connection ended before the first byte of the response. A safe request may be tried again.
    ClosedBeforeHead,
    /// The connection ended within the response.
    Truncated,
}

impl Client {
    /// A new connection, idle.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request is being sent; `to_head`: its method is HEAD.
    ///
    /// # Panics
    /// If another one is under way: the caller's mistake, not the peer's.
    pub fn begin(&mut self, to_head: bool) {
        assert!(self.state.phase == Phase::Idle, "one request at a time");
        self.state = State { phase: Phase::Head, to_head, ..State::default() };
    }

    /// Reads on. Call again until `NeedMore` or `Failed`, each time with new `space`.
    pub fn step<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        space: &'a mut FieldSpace<'a>,
    ) -> ClientStep<'a> {
        match self.state.phase {
            Phase::Idle if input.is_empty() => {
                self.buffer.release();
                ClientStep::NeedMore
            }
            Phase::Idle => self.state.fail(ResponseError::Unsolicited),
            Phase::Head if self.buffer.is_empty() => self.step_head(input, space),
            Phase::Head => self.step_kept_head(input, space),
            Phase::Body(_) => self.step_body(input),
            Phase::End => {
                self.state.phase = if self.state.keep_alive { Phase::Idle } else { Phase::Closed };
                ClientStep::End(Trailers::EMPTY)
            }
            Phase::Closed => {
                *input = &[];
                self.buffer.release();
                ClientStep::NeedMore
            }
        }
    }

    /// A head that begins in the input.
    fn step_head<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        space: &'a mut FieldSpace<'a>,
    ) -> ClientStep<'a> {
        let bytes = *input;
        if bytes.is_empty() {
            self.buffer.release();
            return ClientStep::NeedMore;
        }
        self.state.begun = true;
        match head::parse_response(bounded(bytes), space) {
            Ok(Some((head, len))) => {
                *input = &bytes[len..];
                self.state.head(head)
            }
            Ok(None) if bytes.len() >= limits::HEAD_BYTES_MAX => {
                self.state.fail(ResponseError::HeadTooLarge)
            }
            Ok(None) => {
                self.buffer.push(bytes, limits::HEAD_BYTES_MAX);
                self.state.scanned = bytes.len() as u32;
                *input = &[];
                ClientStep::NeedMore
            }
            Err(error) => self.state.fail(error),
        }
    }

    /// A head that begins in the kept bytes.
    fn step_kept_head<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        space: &'a mut FieldSpace<'a>,
    ) -> ClientStep<'a> {
        let Self { buffer, state } = self;
        match gather(buffer, &mut state.scanned, input, probe) {
            Gathered::Complete(len) => match head::parse_response(buffer.take(len), space) {
                Ok(Some((head, _))) => state.head(head),
                Ok(None) => state.fail(ResponseError::Head),
                Err(error) => state.fail(error),
            },
            Gathered::Partial => ClientStep::NeedMore,
            Gathered::Failed(error) => state.fail(error),
        }
    }

    fn step_body<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> ClientStep<'a> {
        let Self { buffer, state } = self;
        let Phase::Body(reader) = &mut state.phase else { return ClientStep::NeedMore };
        match reader.step(buffer, input) {
            Ok(BodyStep::Data(content)) => ClientStep::Body(content),
            Ok(BodyStep::End(trailers)) => {
                state.phase = if state.keep_alive { Phase::Idle } else { Phase::Closed };
                ClientStep::End(trailers)
            }
            Ok(BodyStep::NeedMore) => ClientStep::NeedMore,
            Err(BodyError::Chunk) => state.fail(ResponseError::Chunk),
            Err(BodyError::Trailer) => state.fail(ResponseError::Trailer),
        }
    }

    /// Upstream has ended its side. All input was stepped through before.
    pub fn eof(&mut self) -> ClientEof {
        let phase = std::mem::replace(&mut self.state.phase, Phase::Closed);
        match phase {
            Phase::Idle | Phase::Closed => ClientEof::Idle,
            Phase::Body(BodyReader::UntilClose | BodyReader::Length(0)) | Phase::End => {
                ClientEof::End
            }
            Phase::Head if !self.state.begun => ClientEof::Failed(ResponseError::ClosedBeforeHead),
            Phase::Head => match probe(bounded(self.buffer.as_slice())) {
                Gathered::Failed(error) => ClientEof::Failed(error),
                Gathered::Complete(_) | Gathered::Partial => {
                    ClientEof::Failed(ResponseError::Truncated)
                }
            },
            Phase::Body(_) => ClientEof::Failed(ResponseError::Truncated),
        }
    }

    /// Whether another request may be sent: the last response is complete, nothing came behind it, and its sender keeps the connection.
    pub fn is_reusable(&self) -> bool {
        self.state.phase == Phase::Idle && self.buffer.is_empty()
    }

    /// Whether any byte of the present response has come: if not, a request that failed may be tried again.
    pub fn has_begun(&self) -> bool {
        self.state.begun
    }

    /// Bytes kept of a partial head or trailer section.
    pub fn kept_bytes(&self) -> usize {
        self.buffer.len()
    }
}

impl State {
    fn head<'a>(&mut self, head: ResponseHead<'a>) -> ClientStep<'a> {
        match head.status {
            101 => return self.fail(ResponseError::Switched),
            100..=199 => {
                self.informational += 1;
                if self.informational > limits::INFORMATIONAL_COUNT_MAX {
                    return self.fail(ResponseError::TooManyInformational);
                }
                return ClientStep::Informational(head);
            }
            _ => {}
        }
        let body = match framing::response_framing(&head, self.to_head) {
            Ok(body) => body,
            Err(error) => return self.fail(error),
        };
        self.keep_alive =
            body != BodyFraming::UntilClose && framing::keeps_alive(head.version, &head.fields);
        self.phase = BodyReader::new(body).map_or(Phase::End, Phase::Body);
        ClientStep::Head(Response { head, body })
    }

    #[cold]
    fn fail(&mut self, error: ResponseError) -> ClientStep<'static> {
        self.phase = Phase::Closed;
        ClientStep::Failed(error)
    }
}

impl ResponseError {
    /// A short stable word for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::HeadTooLarge => "head_too_large",
            Self::Framing => "framing",
            Self::Chunk => "chunk",
            Self::Trailer => "trailer",
            Self::TooManyInformational => "too_many_informational",
            Self::Switched => "switched",
            Self::Unsolicited => "unsolicited",
            Self::ClosedBeforeHead => "closed_before_head",
            Self::Truncated => "truncated",
        }
    }
}

impl std::fmt::Display for ResponseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Head => "the response head is malformed",
            Self::HeadTooLarge => "the response head is too large",
            Self::Framing => "the response's body length is contradictory or unknown",
            Self::Chunk => "a chunk of the response body is malformed",
            Self::Trailer => "the response's trailer section is malformed or too large",
            Self::TooManyInformational => "the response has too many informational heads",
            Self::Switched => "the response switches to another protocol",
            Self::Unsolicited => "bytes came without a request",
            Self::ClosedBeforeHead => "the connection ended before the response",
            Self::Truncated => "the connection ended within the response",
        })
    }
}

impl std::error::Error for ResponseError {}

/// Whether kept bytes begin with a head.
fn probe(bytes: &[u8]) -> Gathered<ResponseError> {
    match head::parse_response(bytes, &mut FieldSpace::new()) {
        Ok(Some((_, len))) => Gathered::Complete(len),
        Ok(None) if bytes.len() >= limits::HEAD_BYTES_MAX => {
            Gathered::Failed(ResponseError::HeadTooLarge)
        }
        Ok(None) => Gathered::Partial,
        Err(error) => Gathered::Failed(error),
    }
}
