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
//! Upstream requests are not pipelined. `End` comes after each response, with or without a body,
//! and never for a body that was cut off: that is [`ResponseError::Truncated`], so nothing
//! incomplete is stored as complete.
//!
//! Leaves to others: sending the request (a connection is reusable only if all of that was sent,
//! too), deadlines, retries.

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
    /// The connection ended before the first byte of the response. A safe request may be tried
    /// again.
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
        if head::is_newer_minor(bytes) {
            return self.step_kept_head(input, space);
        }
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
        // The version is known after so many bytes. Of this major one it is read as the highest
        // that is spoken here (RFC 9110 §2.5).
        while buffer.as_slice().len() < head::VERSION_BYTES
            && let Some((first, rest)) = input.split_first()
        {
            buffer.push(&[*first], limits::HEAD_BYTES_MAX);
            *input = rest;
        }
        if head::is_newer_minor(buffer.as_slice()) {
            buffer.put(head::VERSION_BYTES - 1, b'1');
        }
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

    /// Whether another request may be sent: the last response is complete, nothing came behind it,
    /// and its sender keeps the connection.
    pub fn is_reusable(&self) -> bool {
        self.state.phase == Phase::Idle && self.buffer.is_empty()
    }

    /// Whether any byte of the present response has come: if not, a request that failed may be
    /// tried again.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a client tells of one response (and of what came behind it), adjacent content joined.
    fn run(pieces: &[&[u8]], to_head: bool) -> Vec<String> {
        let mut told = Vec::new();
        let mut client = Client::new();
        client.begin(to_head);
        for piece in pieces {
            let mut input = *piece;
            loop {
                let mut space = FieldSpace::new();
                match client.step(&mut input, &mut space) {
                    ClientStep::Informational(head) => {
                        told.push(format!("{} {:?}", head.status, head.fields))
                    }
                    ClientStep::Head(Response { head, body }) => {
                        told.push(format!(
                            "{} {:?} {body:?} {:?}",
                            head.status, head.reason, head.fields
                        ));
                    }
                    ClientStep::Body(content) => {
                        assert!(!content.is_empty());
                        let content = String::from_utf8_lossy(content);
                        match told.last_mut() {
                            Some(last) if last.starts_with("body ") => last.push_str(&content),
                            _ => told.push(format!("body {content}")),
                        }
                    }
                    ClientStep::End(trailers) => {
                        told.push(format!("end {:?}", trailers.iter().collect::<Vec<_>>()));
                    }
                    ClientStep::Failed(error) => {
                        told.push(format!("failed {error:?}"));
                        return told;
                    }
                    ClientStep::NeedMore => break,
                }
            }
            assert!(input.is_empty(), "all input is used up or kept");
            assert!(client.kept_bytes() <= limits::HEAD_BYTES_MAX);
        }
        if told.iter().any(|told| told.starts_with("end")) {
            told.push(format!("reusable {}", client.is_reusable()));
        }
        match client.eof() {
            ClientEof::Idle => {}
            ClientEof::End => told.push("end at eof".into()),
            ClientEof::Failed(error) => told.push(format!("failed {error:?}")),
        }
        told
    }

    /// What is told of `input`, which must not depend on how it is cut.
    fn told(input: &str, to_head: bool) -> Vec<String> {
        let whole = run(&[input.as_bytes()], to_head);
        let bytes: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
        assert_eq!(
            run(&bytes, to_head),
            whole,
            "{:?} byte by byte",
            &input[..input.len().min(300)]
        );
        whole
    }

    fn check(input: &str, expected: &[&str]) {
        assert_eq!(told(input, false), expected, "{input:?}");
    }

    #[test]
    fn rfc9112_6_3_the_end_of_a_body_is_known_by_its_framing() {
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            &[
                r#"200 "OK" Length(3) {"Content-Length": "3"}"#,
                "body abc",
                "end []",
                "reusable true",
            ],
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\nContent-Length: 3\r\nConnection: \
             close\r\n\r\nabc",
            &[
                concat!(
                    r#"200 "OK" Length(3) {"Content-Length": "3, 3", "#,
                    r#""Content-Length": "3", "Connection": "close"}"#,
                ),
                "body abc",
                "end []",
                "reusable false",
            ],
        );
        check(
            "HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nX: \
             y\r\n\r\n",
            &[
                r#"200 "" Chunked {"Transfer-Encoding": "Chunked"}"#,
                "body abc",
                r#"end [("X", [121])]"#,
                "reusable true",
            ],
        );
        check(
            "HTTP/1.1 200 OK\r\n\r\nabc",
            &[r#"200 "OK" UntilClose {}"#, "body abc", "end at eof"],
        );
        check("HTTP/1.0 200 OK\r\n\r\n", &[r#"200 "OK" UntilClose {}"#, "end at eof"]);
        check(
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            &[r#"200 "OK" Length(0) {"Content-Length": "0"}"#, "end []", "reusable false"],
        );
    }

    #[test]
    fn rfc9110_6_4_1_no_body_for_head_204_and_304() {
        for (status, to_head) in [(200, true), (404, true), (204, false), (304, false)] {
            for fields in ["Content-Length: 3", "Transfer-Encoding: chunked"] {
                let told = told(&format!("HTTP/1.1 {status} x\r\n{fields}\r\n\r\n"), to_head);
                assert!(told[0].contains(" None "), "{told:?}");
                assert_eq!(told[1..], ["end []", "reusable true"]);
            }
        }
    }

    #[test]
    fn contradicting_and_unknown_framing_is_a_bad_gateway() {
        for fields in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 3",
            "Content-Length: 3\r\nContent-Length: 4",
            "Content-Length: 3, 4",
            "Content-Length: 3,",
            "Content-Length: ",
            "Content-Length: +3",
            "Content-Length: 3 3",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: ",
        ] {
            check(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nabc"), &["failed Framing"]);
        }
        check("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &["failed Framing"]);
    }

    #[test]
    fn rfc9110_2_5_a_newer_minor_version_is_read_as_the_highest_that_is_known() {
        for version in ["HTTP/1.2", "HTTP/1.9"] {
            check(
                &format!("{version} 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
                &[
                    r#"200 "OK" Length(3) {"Content-Length": "3"}"#,
                    "body abc",
                    "end []",
                    "reusable true",
                ],
            );
        }
        check("HTTP/1.10 200 OK\r\n\r\n", &["failed Head"]);
    }

    #[test]
    fn a_malformed_head_is_a_bad_gateway() {
        for head in [
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\n\n",
            "HTTP/1.1 200 OK\r\nX: y\n\r\n",
            "HTTP/1.1 200 OK\r\nX: y\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: y\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
        ] {
            check(head, &["failed Head"]);
        }
    }

    #[test]
    fn rfc9112_5_1_white_space_before_a_colon_is_removed() {
        check(
            "HTTP/1.1 204 x\r\nX : y\r\n\r\n",
            &[r#"204 "x" None {"X": "y"}"#, "end []", "reusable true"],
        );
    }

    #[test]
    fn heads_over_their_limits_are_a_bad_gateway() {
        let fields = "X: y\r\n".repeat(limits::FIELD_COUNT_MAX + 1);
        check(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), &["failed HeadTooLarge"]);
        let value = "x".repeat(limits::HEAD_BYTES_MAX);
        check(&format!("HTTP/1.1 200 OK\r\nX: {value}\r\n\r\n"), &["failed HeadTooLarge"]);
        let many =
            "HTTP/1.1 103 x\r\n\r\n".repeat(usize::from(limits::INFORMATIONAL_COUNT_MAX) + 1);
        assert_eq!(told(&many, false).pop().as_deref(), Some("failed TooManyInformational"));
    }

    #[test]
    fn informational_heads_come_before_the_final_one() {
        check(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nLink: y\r\n\r\nHTTP/1.1 204 z\r\n\r\n",
            &["100 {}", r#"103 {"Link": "y"}"#, r#"204 "z" None {}"#, "end []", "reusable true"],
        );
        check("HTTP/1.1 101 x\r\nUpgrade: y\r\n\r\n", &["failed Switched"]);
    }

    #[test]
    fn a_body_that_was_cut_off_never_ends() {
        let truncated = |input: &str| {
            let told = told(input, false);
            assert_eq!(told.last().map(String::as_str), Some("failed Truncated"), "{input:?}");
            assert!(!told.iter().any(|told| told.starts_with("end")), "{input:?}");
        };
        truncated("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab");
        truncated("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
        for body in
            ["", "2", "2\r\n", "2\r\nab", "2\r\nab\r\n", "2\r\nab\r\n0\r\n", "0\r\nX: y\r\n"]
        {
            truncated(&format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        }
        truncated("HTTP/1.1 200 OK\r\nX: y\r\n");
        truncated("HTTP/1.1 100 Continue\r\n\r\n");
        check("", &["failed ClosedBeforeHead"]);
    }

    #[test]
    fn what_comes_without_a_request_ends_the_connection() {
        let told = told("HTTP/1.1 204 x\r\n\r\nHTTP/1.1 204 x\r\n\r\n", false);
        assert_eq!(told, [r#"204 "x" None {}"#, "end []", "failed Unsolicited"]);
    }

    #[test]
    fn one_connection_serves_many_requests() {
        let mut client = Client::new();
        assert!(client.is_reusable());
        for _ in 0..3 {
            client.begin(false);
            assert!(!client.is_reusable() && !client.has_begun());
            let mut input = &b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"[..];
            let mut steps = 0;
            while !matches!(client.step(&mut input, &mut FieldSpace::new()), ClientStep::NeedMore) {
                steps += 1;
            }
            assert_eq!(steps, 3);
            assert!(client.is_reusable() && client.has_begun());
        }
        assert_eq!(client.eof(), ClientEof::Idle);
        assert!(!client.is_reusable());
    }

    fn responses() -> impl Strategy<Value = Vec<u8>> {
        let part = prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.0 200 OK\r\n",
            "HTTP/1.1 304\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "Content-Length: 3\r\n",
            "Content-Length: 0\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Connection: close\r\n",
            "X : y\r\n",
            "\r\n",
            "abc",
            "3\r\nabc\r\n",
            "1;x\r\na\r\n",
            "0\r\n",
            "0\r\n\r\n",
            "X: y\r\n",
            "\r",
            "\n",
            "\0",
        ]);
        prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn cutting_the_input_changes_nothing(
            start in prop::sample::select(vec![
                "",
                "HTTP/1.1 200 OK\r\n",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            ]),
            rest in responses(),
            cuts in prop::collection::vec(any::<usize>(), 0..5),
            to_head: bool,
        ) {
            let input = [start.as_bytes(), &rest].concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
            prop_assert_eq!(run(&pieces, to_head), run(&[&input], to_head));
        }
    }
}
