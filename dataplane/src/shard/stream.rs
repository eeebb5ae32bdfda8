//! The live streams of one shard: their 16-byte records, and what each input of a stream's socket
//! means.

use std::io;

use proto::feed::record::Publish;

use super::{Settings, out::Out};
use crate::seam::{Mono, Now, Payload, SocketId};

/// A request that becomes a stream. The socket has no send in flight and its `Receive` was turned
/// off.
#[derive(Debug)]
pub struct Subscribe<'a> {
    /// The connection, which is the streams' from now on.
    pub socket: SocketId,
    /// `page/<id>`.
    pub topic: &'a str,
    /// From `Last-Event-ID` or `?last_event_id=`, not yet understood.
    pub last_event_id: Option<&'a str>,
    /// For `X-Request-Id` in the response head.
    pub request_id: &'a str,
    /// An HTTP/1.0 client: no chunked framing, the close ends the body.
    pub http10: bool,
}

/// All streams of one shard.
pub struct Streams {
    count: u32,
}

impl Streams {
    /// None yet.
    pub fn new(settings: &Settings) -> Self {
        let _ = settings;
        Self { count: 0 }
    }

    /// Open streams.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Takes over a connection: sends the response head and what the cursor does not cover. Returns
    /// the number kept in `Owner::Stream`; `None` when the stream was refused and the socket is
    /// already being closed.
    pub fn subscribe(&mut self, now: Now, request: Subscribe<'_>, out: &mut Out) -> Option<u32> {
        let _ = (now, request, out);
        None
    }

    /// A send of a stream ended.
    pub fn handle_sent(
        &mut self,
        now: Now,
        stream: u32,
        socket: SocketId,
        result: Result<(), io::ErrorKind>,
        payload: Payload,
        out: &mut Out,
    ) {
        let _ = (now, stream, socket, result);
        out.recycle(payload);
    }

    /// A fan-out did not reach a stream whole.
    pub fn handle_send_failed(
        &mut self,
        now: Now,
        stream: u32,
        socket: SocketId,
        sent_bytes: u32,
        error: io::ErrorKind,
        out: &mut Out,
    ) {
        let _ = (now, stream, socket, sent_bytes, error, out);
    }

    /// A blocked stream can take bytes again.
    pub fn handle_writable(&mut self, now: Now, stream: u32, socket: SocketId, out: &mut Out) {
        let _ = (now, stream, socket, out);
    }

    /// The client is gone, or will send no more.
    pub fn handle_gone(&mut self, now: Now, stream: u32, socket: SocketId, out: &mut Out) {
        let _ = (now, stream, socket, out);
    }

    /// An event was released to this shard.
    pub fn handle_publish(&mut self, now: Now, record: &Publish, out: &mut Out) {
        let _ = (now, record, out);
    }

    /// A turn that was asked for by `Out::yield_turn`, by anyone.
    pub fn handle_continue(&mut self, now: Now, out: &mut Out) {
        let _ = (now, out);
    }

    /// Some deadline of the shard has passed, perhaps not one of the streams'.
    pub fn handle_deadline(&mut self, now: Now, out: &mut Out) {
        let _ = (now, out);
    }

    /// Ends all streams, paced over `over_ms` and each with a jittered `retry:`; `false` stops
    /// doing so.
    pub fn drain(&mut self, now: Now, on: bool, over_ms: u64, out: &mut Out) {
        let _ = (now, on, over_ms, out);
    }

    /// When to call [`Streams::handle_deadline`].
    pub fn next_deadline(&self) -> Option<Mono> {
        None
    }
}
