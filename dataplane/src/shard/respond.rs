//! Answers as bytes: what waits to be sent on one connection, heads of our own answers, and the
//! lines that every answer carries.
//!
//! All small answers to one receive gather in one buffer and leave in one send, head and body
//! together. Large bodies are lent piece by piece from where they are stored.
//!
//! Leaves to others: which answer (`request`), when to send (`conn`), heads of stored responses
//! (`cache`).

use bytes::Bytes;
use proto::{
    field::date,
    http1::encode::{decimal, status_line},
};

use super::out::Out;
use crate::{
    limits,
    seam::{Now, Payload, Segment},
};

/// Bytes of one connection on their way out, in order.
#[derive(Default)]
pub struct Writer {
    /// Finished pieces.
    segments: Vec<Segment>,
    /// The piece that is being written; without memory while nothing is.
    tail: Vec<u8>,
    /// In `segments`.
    segment_bytes: usize,
    /// Taken since the start.
    taken_bytes: u64,
}

impl Writer {
    /// Where to append text and small bodies.
    pub fn text(&mut self, out: &mut Out) -> &mut Vec<u8> {
        if self.tail.capacity() == 0 {
            self.tail = out.buffer();
        }
        &mut self.tail
    }

    /// Lends a piece of a large body.
    pub fn lend(&mut self, bytes: Bytes) {
        self.close_tail();
        self.segment_bytes += bytes.len();
        self.segments.push(Segment::Local(bytes));
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.segment_bytes + self.tail.len()
    }

    /// Bytes written since the start, the waiting ones included.
    pub fn written_bytes(&self) -> u64 {
        self.taken_bytes + self.len() as u64
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether more may be added: beyond, a connection waits for its client.
    pub fn has_room(&self) -> bool {
        self.len() < limits::WRITE_BYTES_MAX && self.segments.len() + 2 < limits::SEGMENTS_MAX
    }

    /// Everything, to be sent. Must not be empty.
    pub fn take(&mut self) -> Payload {
        self.taken_bytes += self.len() as u64;
        if self.segments.is_empty() {
            return Payload::One(Segment::Owned(std::mem::take(&mut self.tail)));
        }
        self.close_tail();
        self.segment_bytes = 0;
        Payload::Many(std::mem::take(&mut self.segments))
    }

    /// Drops what waits.
    pub fn clear(&mut self, out: &mut Out) {
        self.segments.clear();
        self.segment_bytes = 0;
        if self.tail.capacity() > 0 {
            out.recycle_buffer(std::mem::take(&mut self.tail));
        }
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            let text = std::mem::take(&mut self.tail);
            self.segment_bytes += text.len();
            self.segments.push(Segment::Owned(text));
        }
    }
}

/// How an answer ends, on this connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Persistence {
    /// The connection goes on afterwards.
    pub keep_alive: bool,
    /// The client speaks HTTP/1.0, where keeping a connection must be said.
    pub http10: bool,
}

impl Persistence {
    /// The end of the last line before, the `Connection` line, if one is needed, and the empty one.
    pub fn end(self) -> &'static [u8] {
        match (self.keep_alive, self.http10) {
            (false, _) => b"\r\nConnection: close\r\n\r\n",
            (true, true) => b"\r\nConnection: keep-alive\r\n\r\n",
            (true, false) => b"\r\n\r\n",
        }
    }
}

/// `Date`, made once a second.
pub struct DateLine {
    second: u64,
    line: [u8; DateLine::LEN],
}

impl DateLine {
    const LEN: usize = b"Date: \r\n".len() + 29;

    /// For the epoch; corrected by the first use.
    pub fn new() -> Self {
        Self { second: 0, line: Self::format(0) }
    }

    /// `Date: …\r\n` as of now.
    pub fn at(&mut self, now: Now) -> &[u8] {
        let second = now.wall_ms / 1000;
        if second != self.second {
            self.second = second;
            self.line = Self::format(second);
        }
        &self.line
    }

    fn format(second: u64) -> [u8; Self::LEN] {
        let mut line = *b"Date: .............................\r\n";
        line[6..35].copy_from_slice(&date::format(second as i64));
        line
    }
}

impl Default for DateLine {
    fn default() -> Self {
        Self::new()
    }
}

/// Ids of requests: a counter, scattered so that ids of different shards and starts do not meet.
pub struct RequestIds {
    seed: u64,
    made: u64,
}

/// Text of a request id.
pub type RequestId = [u8; 16];

impl RequestIds {
    /// Ids of one shard.
    pub fn new(seed: u64) -> Self {
        Self { seed, made: 0 }
    }

    /// Another one.
    pub fn make(&mut self) -> RequestId {
        id_text(self.make_number())
    }

    /// Another one, as a number.
    pub fn make_number(&mut self) -> u64 {
        self.made += 1;
        scatter(self.seed ^ scatter(self.made))
    }
}

/// Takes the client's id if it is a short plain token, else makes one.
pub fn usable_request_id(value: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&value.len())
        && value.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.')
}

const REQUEST_ID_BYTES_MAX: usize = 64;

/// A bijection that spreads neighbouring numbers (SplitMix64's finalizer, Steele et al. 2014).
fn scatter(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// A number as a request's id.
pub fn id_text(x: u64) -> RequestId {
    let mut text = [0; 16];
    let (pairs, _) = text.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(x.to_be_bytes()) {
        *pair = HEX_PAIRS[usize::from(byte)];
    }
    text
}

/// `00` to `ff`.
const HEX_PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut at = 0;
    while at < 256 {
        pairs[at] = [DIGITS[at >> 4], DIGITS[at & 15]];
        at += 1;
    }
    pairs
};

/// An answer that the edge makes itself.
pub struct Own<'a> {
    /// Its status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Lines for the head, each `Name: value\r\n`.
    pub fields: &'a str,
    /// Its content.
    pub body: &'a [u8],
}

impl<'a> Own<'a> {
    /// Plain text for a person.
    pub fn text(status: u16, body: &'a str) -> Self {
        let content_type = "text/plain; charset=utf-8";
        Self { status, content_type, fields: "", body: body.as_bytes() }
    }
}

/// What stands in every own answer, beside what it says.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// How the connection goes on.
    pub persistence: Persistence,
    /// The request was HEAD: the length is told, the content is not sent.
    pub to_head: bool,
    /// `X-Request-Id`.
    pub request_id: &'a [u8],
    /// `Via: …\r\n`.
    pub via_line: &'a [u8],
    /// `Date: …\r\n`.
    pub date_line: &'a [u8],
    /// Further lines, or none.
    pub more_lines: &'a [u8],
}

/// Writes an own answer. What says that something is wrong also says its request id in the text.
pub fn write_own(own: &Own<'_>, frame: Frame<'_>, to: &mut Vec<u8>) {
    status_line(to, own.status);
    to.extend_from_slice(frame.date_line);
    to.extend_from_slice(own.fields.as_bytes());
    let mut note_len = 0;
    let told = own.status >= 400 && own.content_type.starts_with("text/plain");
    if told {
        note_len = NOTE.len() + frame.request_id.len() + 1;
    }
    // 204 and 304 have neither content nor a length of it (RFC 9110 §8.6).
    let has_content = !matches!(own.status, 204 | 304);
    if has_content {
        if !own.body.is_empty() {
            to.extend_from_slice(b"Content-Type: ");
            to.extend_from_slice(own.content_type.as_bytes());
            to.extend_from_slice(b"\r\nX-Content-Type-Options: nosniff\r\n");
        }
        to.extend_from_slice(b"Content-Length: ");
        decimal(to, (own.body.len() + note_len) as u64);
        to.extend_from_slice(b"\r\n");
    }
    to.extend_from_slice(frame.via_line);
    to.extend_from_slice(frame.more_lines);
    to.extend_from_slice(b"X-Request-Id: ");
    to.extend_from_slice(frame.request_id);
    to.extend_from_slice(frame.persistence.end());
    if has_content && !frame.to_head {
        to.extend_from_slice(own.body);
        if told {
            to.extend_from_slice(NOTE);
            to.extend_from_slice(frame.request_id);
            to.push(b'\n');
        }
    }
}

/// Precedes the request id in the text of an error.
const NOTE: &[u8] = b"\nRequest id: ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_answers_leave_in_one_piece_and_large_bodies_are_lent() {
        let mut out = Out::new(0, 1);
        let mut writer = Writer::default();
        writer.text(&mut out).extend_from_slice(b"one");
        writer.text(&mut out).extend_from_slice(b"two");
        assert!(matches!(writer.take(), Payload::One(Segment::Owned(text)) if text == b"onetwo"));
        writer.text(&mut out).extend_from_slice(b"head");
        writer.lend(Bytes::from_static(b"body"));
        writer.text(&mut out).extend_from_slice(b"next");
        assert_eq!(writer.len(), 12);
        let payload = writer.take();
        assert_eq!(payload.segments().len(), 3);
        assert_eq!(payload.len(), 12);
        assert!(writer.is_empty());
    }

    #[test]
    fn an_own_answer_is_framed_by_its_length_and_names_the_request() {
        let frame = Frame {
            persistence: Persistence { keep_alive: true, http10: false },
            to_head: false,
            request_id: b"id1",
            via_line: b"Via: 1.1 e\r\n",
            date_line: b"",
            more_lines: b"",
        };
        let mut to = Vec::new();
        write_own(&Own::text(404, "Nothing here."), frame, &mut to);
        let text = String::from_utf8(to).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"));
        assert_eq!(body, "Nothing here.\nRequest id: id1\n");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        let mut to = Vec::new();
        write_own(&Own::text(404, "Nothing here."), Frame { to_head: true, ..frame }, &mut to);
        assert_eq!(to, [head.as_bytes(), b"\r\n\r\n"].concat());
    }

    #[test]
    fn the_date_is_that_of_the_second() {
        let mut line = DateLine::new();
        let now = Now { wall_ms: 784_111_777_999, ..Now::default() };
        assert_eq!(line.at(now), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    }

    #[test]
    fn request_ids_do_not_repeat_and_foreign_ones_are_checked() {
        let mut ids = RequestIds::new(3);
        let distinct: std::collections::HashSet<_> = (0..1000).map(|_| ids.make()).collect();
        assert_eq!(distinct.len(), 1000);
        assert!(
            usable_request_id(b"a-1_2.B") && !usable_request_id(b"") && !usable_request_id(b"a b")
        );
        assert!(!usable_request_id(&[b'a'; 65]));
    }
}
