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
//! The caller loops over [`Server::step`] until it says `NeedMore`. A head that lies in one receive
//! is parsed where it lies. After `Head` the caller either answers at once, calls
//! [`Server::response_done`] and steps on, so that all answers to one receive leave in one send; or
//! it answers later: meanwhile the body comes as it arrives, and bytes of further requests are
//! kept, bounded, until `response_done`.
//!
//! Leaves to others: the timer (see [`Server::waiting`] for which deadline runs), sending, what a
//! request means.

#[cfg(test)]
mod rules_of_refusal;
#[cfg(test)]
mod testing;
mod waiting;

pub use self::waiting::Waiting;
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
    /// Nothing yet; call again.
    Again,
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
    /// The client waits for 100 (Continue) before it sends the body: send one and call
    /// [`Server::continued`], or answer without it.
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

    /// Reads on. Call again until `NeedMore`, `Refused` or `Close`, each time with new `space`.
    /// With `NeedMore` all of the input is used up or kept.
    #[inline]
    pub fn step<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        space: &'a mut FieldSpace<'a>,
    ) -> Step<'a> {
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
    #[inline(always)]
    fn step_head<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
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
            Err(Refusal::Version) => self.step_newer(input),
            Err(refusal) => self.state.refuse(refusal),
        }
    }

    /// A version that is not spoken here. Of this major one it is read as the highest that is (RFC
    /// 9110 §2.5): from the buffer, with the version changed.
    #[cold]
    fn step_newer<'a>(&'a mut self, input: &mut &[u8]) -> Step<'a> {
        let Some(at) = head::newer_minor(bounded(input)) else {
            return self.state.refuse(Refusal::Version);
        };
        let (before, behind) = input.split_at(at);
        self.buffer.push(before, limits::HEAD_BYTES_MAX);
        self.buffer.push(b"1", limits::HEAD_BYTES_MAX);
        *input = behind.get(1..).unwrap_or_default();
        self.state.scanned = 0;
        Step::Again
    }

    /// A head that begins in the kept bytes.
    fn step_kept_head<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
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
            Gathered::Failed(Refusal::Version) => match head::newer_minor(buffer.as_slice()) {
                Some(at) => {
                    buffer.put(at, b'1');
                    state.scanned = 0;
                    Step::Again
                }
                None => state.refuse(Refusal::Version),
            },
            Gathered::Failed(refusal) => state.refuse(refusal),
        }
    }

    fn step_body<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Step<'a> {
        let Self { buffer, state } = self;
        let Phase::Body(reader) = &mut state.phase else { return Step::NeedMore };
        match reader.step(buffer, input) {
            Ok(BodyStep::Data(content)) => {
                state.awaits_continue = false;
                state.body_bytes = state.body_bytes.saturating_add(content.len() as u64);
                // With what its chunk still announces: told at the same byte however input is cut.
                let announced = state.body_bytes.saturating_add(reader.announced());
                if announced > state.body_bytes_max {
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
    fn keep<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Step<'a> {
        let pushed = self.buffer.push(input, limits::PIPELINE_BYTES_MAX);
        let fits = pushed == input.len();
        *input = &[];
        self.buffer.release();
        if fits { Step::NeedMore } else { self.state.refuse(Refusal::PipelineTooLong) }
    }

    /// The response to the present request is complete. If its body is not read to the end, the
    /// rest is thrown away.
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

    /// Whether the connection will take another request after the present one; if not, the response
    /// says `Connection: close`. Asked when the response head is written.
    #[inline]
    pub fn persists(&self) -> bool {
        let state = &self.state;
        state.keep_alive
            && !(state.eof && self.buffer.is_empty())
            && match state.phase {
                Phase::Head => true,
                // A client that was not told to continue may or may not send its body: no safe
                // place to read on.
                Phase::Body(_) if state.awaits_continue || state.eof => false,
                Phase::Body(BodyReader::Length(left)) => left <= limits::DRAIN_BYTES_MAX,
                Phase::Body(_) | Phase::Drain(_) => true,
                Phase::Closed => false,
            }
    }

    /// No request after the present one, whatever the client wants. Call before the response head
    /// is written.
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
    #[inline(always)]
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

/// Whether an empty line begins the kept bytes (not empty), and how much of it lies in the input
/// behind them.
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
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        testing::{Answer, drive, run, told},
        *,
    };

    #[test]
    fn requests_of_one_receive_are_told_in_order_without_a_copy() {
        let two = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\n\
            POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
            HEAD /3 HTTP/1.0\r\n\r\n";
        let expected = [
            r#"("GET", "/1", "a") None true false {"Host": "a"}"#,
            r#"("POST", "/2", "a") Length(3) true false {"Host": "a", "Content-Length": "3"}"#,
            "body abc",
            "end []",
            r#"("HEAD", "/3", "") None false false {}"#,
            "close",
        ];
        assert_eq!(told(two, Answer::AtEnd), expected);
        assert_eq!(told(two, Answer::Late), expected);
        let drained: Vec<_> =
            expected.iter().filter(|line| line.contains('(') || **line == "close").collect();
        assert_eq!(told(two, Answer::AtHead).iter().collect::<Vec<_>>(), drained);
        let mut server = Server::new(0);
        let mut input = &two[..10 + 18];
        assert!(matches!(server.step(&mut input, &mut FieldSpace::new()), Step::Head(_)));
        assert_eq!(server.kept_bytes(), 0);
    }

    #[test]
    fn rfc9110_2_5_a_newer_minor_version_is_read_as_the_highest_that_is_known() {
        let text = |version: &str| {
            format!(
                "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/{version}\r\nHost: a\r\n\
                 Content-Length: 3\r\n\r\nabcGET /3 HTTP/{version}\r\nHost: a\r\n\r\n"
            )
        };
        for answer in [Answer::AtHead, Answer::AtEnd, Answer::Late] {
            let expected = told(text("1.1").as_bytes(), answer);
            assert!(expected.iter().any(|line| line.contains("/3")), "{expected:?}");
            for version in ["1.2", "1.9"] {
                assert_eq!(told(text(version).as_bytes(), answer), expected, "{version}");
            }
        }
        assert_eq!(told(text("2.1").as_bytes(), Answer::AtEnd).len(), 2, "another major one");
        assert_eq!(told(b"GET / HTTP/1.5\r\n\r\n", Answer::AtEnd), ["refused HostMissing"]);
    }

    #[test]
    fn a_body_of_length_0_and_no_body_tell_no_end() {
        for fields in ["", "Content-Length: 0\r\n"] {
            let input = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(told(input.as_bytes(), Answer::AtEnd).len(), 2);
        }
    }

    #[test]
    fn rfc9112_9_3_the_connection_lasts_by_version_and_connection_field() {
        for (version, fields, lasts) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: x, CLOSE\r\n", false),
            ("1.1", "Connection: x\r\nConnection: close\r\n", false),
            ("1.1", "Connection: keep-alive\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: keep-alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let input = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
            let last = told(input.as_bytes(), Answer::AtEnd).pop();
            assert_eq!(last.as_deref() != Some("close"), lasts, "{version} {fields:?}");
        }
    }

    #[test]
    fn rfc9110_10_1_1_a_body_that_was_not_asked_for_ends_the_connection() {
        let input =
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
        let mut server = Server::new(1000);
        let mut rest = &input[..];
        let mut space = FieldSpace::new();
        assert!(matches!(
            server.step(&mut rest, &mut space),
            Step::Head(Request { expect_continue: true, .. })
        ));
        assert!(!server.persists(), "the client may or may not send the body now");
        server.continued();
        assert!(server.persists());
        assert_eq!(server.response_done(), After::Continue);
        assert!(matches!(server.step(&mut &b"abc"[..], &mut FieldSpace::new()), Step::NeedMore));
        assert_eq!(server.waiting(), Waiting::Idle);
        let without = b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n";
        assert!(
            told(without, Answer::AtEnd)[0].contains("true false"),
            "no body, nothing to wait for"
        );
    }

    #[test]
    fn an_unread_body_is_drained_within_its_limit() {
        let length = limits::DRAIN_BYTES_MAX;
        for (length, next) in [(length, After::Continue), (length + 1, After::Close)] {
            let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            let mut server = Server::new(u64::MAX);
            let mut space = FieldSpace::new();
            assert!(matches!(server.step(&mut head.as_bytes(), &mut space), Step::Head(_)));
            assert_eq!(server.response_done(), next);
        }
        let head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut server = Server::new(u64::MAX);
        assert!(matches!(server.step(&mut &head[..], &mut FieldSpace::new()), Step::Head(_)));
        assert_eq!(server.response_done(), After::Continue);
        let mut chunk = Vec::new();
        crate::http1::chunked::chunk(&mut chunk, &vec![0; 40_000]);
        assert!(matches!(server.step(&mut &chunk[..], &mut FieldSpace::new()), Step::NeedMore));
        assert!(matches!(server.step(&mut &chunk[..], &mut FieldSpace::new()), Step::Close));
        assert!(matches!(server.step(&mut &chunk[..], &mut FieldSpace::new()), Step::NeedMore));
        assert_eq!(server.waiting(), Waiting::Nothing);
    }

    #[test]
    fn what_is_kept_behind_an_outstanding_request_is_bounded() {
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut server = Server::new(0);
        assert!(matches!(server.step(&mut &get[..], &mut FieldSpace::new()), Step::Head(_)));
        let full = get.repeat(limits::PIPELINE_BYTES_MAX / get.len());
        assert!(matches!(server.step(&mut &full[..], &mut FieldSpace::new()), Step::NeedMore));
        assert_eq!(server.kept_bytes(), full.len());
        assert!(matches!(
            server.step(&mut &get[..], &mut FieldSpace::new()),
            Step::Refused(Refusal::PipelineTooLong)
        ));
    }

    #[test]
    fn the_client_s_end_means_what_was_under_way() {
        let at_eof = |bytes: &str| told(bytes.as_bytes(), Answer::AtEnd).pop().expect("something");
        assert_eq!(at_eof(""), "Idle");
        assert_eq!(at_eof("\r\n"), "Idle");
        assert_eq!(at_eof("GET / HT"), "Refused(Truncated)");
        assert_eq!(at_eof("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "Idle");
        assert_eq!(
            at_eof("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na"),
            "Refused(Truncated)"
        );
    }

    #[test]
    fn a_client_that_ends_its_side_still_gets_its_answers() {
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2);
        let mut server = Server::new(0);
        let mut input = &get[..];
        assert!(matches!(server.step(&mut input, &mut FieldSpace::new()), Step::Head(_)));
        assert!(matches!(server.step(&mut input, &mut FieldSpace::new()), Step::NeedMore));
        assert_eq!(server.eof(), ServerEof::Outstanding);
        assert!(server.persists(), "a request is kept");
        assert_eq!(server.response_done(), After::Continue);
        assert!(matches!(server.step(&mut &b""[..], &mut FieldSpace::new()), Step::Head(_)));
        assert!(!server.persists());
        assert_eq!(server.response_done(), After::Close);
    }

    #[test]
    fn it_is_cheap_to_move_and_idle_holds_no_memory() {
        assert!(size_of::<Server>() <= 128, "{}", size_of::<Server>());
        let mut server = Server::new(0);
        drive(&mut server, b"GET / HTTP", Answer::AtEnd, &mut vec![]);
        drive(&mut server, b"/1.1\r\nHost: a\r\n\r\n", Answer::AtEnd, &mut vec![]);
        assert_eq!(server.kept_bytes(), 0);
        assert!(format!("{:?}", server.buffer).contains("bytes: [], start: 0"));
    }

    /// Messages and rubble, mostly well-formed.
    fn requests() -> impl Strategy<Value = Vec<u8>> {
        let part = prop::sample::select(vec![
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd",
            "POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
            "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \
             chunked\r\n\r\n2\r\nab\r\n3;x\r\ncde\r\n0\r\n\r\n",
            "PUT /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: \
             y\r\nZ: w\r\n\r\n",
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "HEAD / HTTP/1.0\r\n\r\n",
            "\r\n",
            "\r",
            "\n",
            "GET / HTTP/2.0\r\n",
            "GET / HTT",
            "X: y\r\n",
            "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz",
            "\0",
            " ",
        ]);
        prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn cutting_the_input_changes_nothing(
            input in requests(),
            cuts in prop::collection::vec(any::<usize>(), 0..5),
            answer in prop::sample::select(vec![Answer::AtHead, Answer::AtEnd, Answer::Late]),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
            prop_assert_eq!(run(&pieces, answer), run(&[&input], answer));
        }

        #[test]
        fn answering_late_changes_nothing(input in requests()) {
            prop_assert_eq!(run(&[&input], Answer::Late), run(&[&input], Answer::AtEnd));
        }
    }
}
