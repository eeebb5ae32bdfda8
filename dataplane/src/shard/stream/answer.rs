//! What a request for a stream is answered with, as bytes: the head of a stream, a refusal that a
//! client comes back from, and several pieces as one send.

use std::io::Write as _;

use bytes::Bytes;
use proto::{field::name::Known, http1::encode};

use super::Streams;
use crate::{
    seam::{Close, Now, Payload, Segment, SocketId},
    shard::{history::chunk, out::Out},
};

/// What became of a request for a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opening {
    /// It is open.
    Open {
        /// The number kept in `Owner::Stream`.
        stream: u32,
        /// What it was told first.
        first: First,
    },
    /// It is not, and its socket is being closed already.
    Refused(Refused),
}

/// What a new stream was told first.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct First {
    /// That events are missing which its cursor does not cover.
    pub gap: bool,
    /// Newest values of its topics.
    pub snapshots: usize,
    /// Events of the history.
    pub events: usize,
    /// All this comes when its topics have begun here.
    pub waits: bool,
}

/// Why a stream was refused. All but the first are to come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// An HTTP/1.0 client.
    Http10,
    /// Nobody knows yet what there is.
    NotConfigured,
    /// Streams are being moved elsewhere.
    Draining,
    /// As many are open as may be.
    Full,
    /// As many were opened this second as may be.
    OverBudget,
    /// As many topics are listened to as may be.
    TopicsFull,
}

impl Opening {
    /// In words, for who asks about the request.
    pub fn told(self) -> String {
        let First { gap, snapshots, events, .. } = match self {
            Self::Open { first: First { waits: true, .. }, .. } => {
                return "open; waits until its topics are told here".to_owned();
            }
            Self::Open { first, .. } => first,
            Self::Refused(why) => return why.told().to_owned(),
        };
        let gap = if gap { "; a gap" } else { "" };
        let snapshots = match snapshots {
            0 => String::new(),
            count => format!("; {count} snapshots"),
        };
        format!("open{gap}{snapshots}; {events} from history")
    }

    /// Status of the answer.
    pub fn status(self) -> u16 {
        if self == Self::Refused(Refused::Http10) { 505 } else { 200 }
    }
}

impl Refused {
    fn told(self) -> &'static str {
        match self {
            Self::Http10 => "refused: needs HTTP/1.1",
            Self::NotConfigured => "refused, to come back: no configuration yet",
            Self::Draining => "refused, to come back: this edge drains",
            Self::Full => "refused, to come back: streams.max is reached",
            Self::OverBudget => "refused, to come back: streams.opens_per_s is used up",
            Self::TopicsFull => "refused, to come back: no room for more topics",
        }
    }
}

impl Streams {
    /// Response head and the first lines of the stream.
    pub(super) fn head(
        &mut self,
        now: Now,
        request_id: &str,
        retry_ms: u64,
        was_led: bool,
        out: &mut Out,
    ) -> Vec<u8> {
        let retry_ms = self.jitter.half_to_three_halves(retry_ms);
        let mut head = out.buffer();
        head.extend_from_slice(HEAD);
        if was_led {
            head.extend_from_slice(FOR_ANY_ORIGIN);
        }
        encode::date_field(&mut head, Known::Date, (now.wall_ms / 1000) as i64);
        let _ = write!(head, "X-Request-Id: {request_id}\r\n\r\n");
        head.extend_from_slice(&chunk(format!("retry: {retry_ms}\n\n").as_bytes()));
        head
    }

    /// `200`, a jittered `retry:` and a close: any other status would end a browser's
    /// `EventSource` for good. `place_ms`: its place in the queue of those who come back, which
    /// keeps them apart well enough; who has none comes back as at any end.
    pub(super) fn refuse(
        &mut self,
        now: Now,
        socket: SocketId,
        place_ms: Option<u64>,
        out: &mut Out,
    ) {
        self.counts.refused += 1;
        let retry_ms = match place_ms {
            Some(place_ms) => place_ms + self.jitter.half_to_three_halves(PLACE_JITTER_MS),
            None => self.jitter.half_to_three_halves(self.limits.retry_ms),
        };
        let mut answer = out.buffer();
        answer.extend_from_slice(REFUSAL_HEAD);
        // It holds nothing; and who was led here would give up without it.
        answer.extend_from_slice(FOR_ANY_ORIGIN);
        encode::date_field(&mut answer, Known::Date, (now.wall_ms / 1000) as i64);
        let _ = write!(answer, "\r\nretry: {retry_ms}\n\n");
        out.send(socket, Payload::One(Segment::Owned(answer)));
        out.close(socket, Close::Graceful);
    }
}

/// What a place in the queue of those who come back is blurred by: the shards of an edge give
/// theirs without knowing of each other's.
pub(super) const PLACE_JITTER_MS: u64 = 50;

/// One piece after another, as one send.
pub(super) fn payload(head: Option<Segment>, rest: Bytes, frames: Vec<Bytes>) -> Payload {
    let rest = (!rest.is_empty()).then_some(Segment::Local(rest));
    let mut segments: Vec<Segment> =
        head.into_iter().chain(rest).chain(frames.into_iter().map(Segment::Local)).collect();
    match segments.len() {
        1 => Payload::One(segments.remove(0)),
        _ => Payload::Many(segments),
    }
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: text/event-stream\r\n\
    Cache-Control: no-cache, no-transform\r\n\
    X-Accel-Buffering: no\r\n\
    Transfer-Encoding: chunked\r\n";
const FOR_ANY_ORIGIN: &[u8] = b"Access-Control-Allow-Origin: *\r\n";
const REFUSAL_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: text/event-stream\r\n\
    Cache-Control: no-store\r\n\
    X-Accel-Buffering: no\r\n\
    Connection: close\r\n";
pub(super) const NEEDS_HTTP11: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 62\r\n\
    Connection: close\r\n\r\n\
    Live streams need HTTP/1.1 (in nginx: proxy_http_version 1.1)\n";
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
