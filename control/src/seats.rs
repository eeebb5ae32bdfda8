//! Who is connected, in the order they came, and who of them has no request under way.
//!
//! Leaves to others: sockets, how many there may be (`serve`).

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

/// All connections.
#[derive(Debug, Default)]
pub struct Seats {
    next: u64,
    taken: BTreeMap<u64, Arc<Seat>>,
}

/// One connection.
#[derive(Debug, Default)]
pub struct Seat {
    /// Requests whose answer is not out yet, streams of events among them.
    under_way: AtomicU32,
    leave: Notify,
}

/// A request under way; it is over when this and the body made of it are dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<Seat>);

/// The body of an answer, which is under way until it is dropped.
#[derive(Debug)]
struct Busy {
    body: Body,
    _under_way: UnderWay,
}

impl Seats {
    /// A seat for a newcomer, and its number.
    pub fn take(&mut self) -> (u64, Arc<Seat>) {
        let (number, seat) = (self.next, Arc::new(Seat::default()));
        self.next += 1;
        self.taken.insert(number, Arc::clone(&seat));
        (number, seat)
    }

    /// A connection has ended.
    pub fn leave(&mut self, number: u64) {
        self.taken.remove(&number);
    }

    /// Asks the one that has been here longest without a request under way to leave; false if all
    /// have some. Whoever was asked is not asked again.
    pub fn ask_one_to_leave(&mut self) -> bool {
        let idle = |seat: &Seat| seat.under_way.load(Ordering::Acquire) == 0;
        let found = self.taken.iter().find(|(_, seat)| idle(seat)).map(|(number, _)| *number);
        let seat = found.and_then(|number| self.taken.remove(&number));
        seat.inspect(|seat| seat.leave.notify_one()).is_some()
    }
}

impl Seat {
    /// A request has come.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay(Arc::clone(self))
    }

    /// Resolves when the connection is to end.
    pub async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl UnderWay {
    /// The answer's body, which keeps the request under way.
    pub fn body(self, body: Body) -> impl HttpBody<Data = Bytes, Error = axum::Error> + Send {
        Busy { body, _under_way: self }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

impl HttpBody for Busy {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_here_without_a_request_leaves_first() {
        let mut seats = Seats::default();
        let [(_, first), (_, second), (third, _)] = [(); 3].map(|()| seats.take());
        let under_way = first.begin();
        assert!(seats.ask_one_to_leave(), "the second");
        assert!(!seats.taken.values().any(|seat| Arc::ptr_eq(seat, &second)));
        seats.leave(third);
        assert!(!seats.ask_one_to_leave(), "the first is busy");
        let body = under_way.body(Body::from("x"));
        assert!(!seats.ask_one_to_leave(), "its answer is under way");
        drop(body);
        assert!(seats.ask_one_to_leave());
        assert!(!seats.ask_one_to_leave(), "nobody is asked twice");
    }
}
