//! Ending streams of our own accord, each with a jittered `retry:` so that nobody comes back with
//! everyone.

use super::{Streams, answer::LAST_CHUNK};
use crate::{
    seam::{Close, Payload, Segment, SocketId},
    shard::{
        history::{chunk, event_frame},
        out::Out,
        slow_consumer::State,
    },
};

impl Streams {
    /// Ends a stream of our own accord, with a `retry:` if its body stands between two chunks.
    pub(super) fn dismiss(&mut self, socket: SocketId, out: &mut Out) {
        self.dismiss_with(socket, |_, _| {}, out);
    }

    /// The same, and it is told that another edge is to have it.
    pub(super) fn dismiss_to_elsewhere(&mut self, socket: SocketId, reason: &str, out: &mut Out) {
        let migrate = |in_ms: u64, said: &mut Vec<u8>| {
            let data = format!(r#"{{"kind":"migrate","reason":"{reason}","in_ms":{in_ms}}}"#);
            said.extend_from_slice(&event_frame(None, "migrate", &data));
        };
        self.dismiss_with(socket, migrate, out);
    }

    /// The same, with something said before, in chunks; it is given the `retry:` that follows.
    pub(super) fn dismiss_with(
        &mut self,
        socket: SocketId,
        say: impl FnOnce(u64, &mut Vec<u8>),
        out: &mut Out,
    ) {
        let Some(record) = self.records.get(socket.slot, socket) else { return };
        let between = match record.place.row() {
            None => true,
            Some(row) => {
                matches!(self.side.get(row).state, State::Waiting { .. } | State::Awaiting)
            }
        };
        if between {
            let route = self.audiences.at(record.audience).route();
            let retry_ms = route.rules.retry_ms.unwrap_or(self.limits.retry_ms);
            let retry_ms = self.jitter.half_to_three_halves(retry_ms);
            let mut last = out.buffer();
            say(retry_ms, &mut last);
            last.extend_from_slice(&chunk(format!("retry: {retry_ms}\n\n").as_bytes()));
            last.extend_from_slice(LAST_CHUNK);
            out.send(socket, Payload::One(Segment::Owned(last)));
        }
        self.end(socket, Close::Graceful, out);
    }
}
