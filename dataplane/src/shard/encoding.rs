//! Encodings on order: bodies that helper threads encode for the cache.
//!
//! ```text
//!   hit, end of a fetch ─▶ EncodeOrder ─┬─ room ─▶ Effect::Cold ─▶ Input::Cold ─▶ kept
//!                                       └─ none ─▶ declined: ordered again later
//! ```
//! Nobody waits for an encoding: who ordered it gets the body as it is, or in another coding that
//! is there.
//!
//! Leaves to others: what is worth encoding and for whom (`cache`), encoding (`crate::compress`).

use std::io;

use cache::{EncodeOrder, Encoded};
use hashbrown::HashMap;

use super::{Edge, observe::Metric, out::Op};
use crate::{limits, seam::ColdWork};

/// Orders that helpers have, of one shard.
#[derive(Default)]
pub struct Orders {
    under_way: HashMap<u64, EncodeOrder>,
    next: u64,
    /// Bytes to be encoded of those under way.
    bytes: u64,
}

impl Edge {
    /// Has an encoding made, if there is room for it.
    pub fn encode(&mut self, order: EncodeOrder) {
        let length = order.length();
        let is_full = self.orders.under_way.len() >= limits::ENCODINGS_MAX
            || self.orders.bytes + length > limits::ENCODING_BYTES_MAX;
        if is_full {
            self.cache.decline_encoding(&order);
            return self.observe.count(Metric::EncodingsPutOff);
        }
        let number = self.orders.next;
        self.orders.next += 1;
        self.orders.bytes += length;
        let coding = order.coding();
        let level = self.settings.levels.of(coding);
        let work = ColdWork::Compress { coding, level, content: order.content() };
        self.out.cold(Op::Encoding(number), work);
        self.orders.under_way.insert(number, order);
        self.observe.set(Metric::EncodingsActive, self.orders.under_way.len() as u64);
    }

    /// A helper has encoded, or could not.
    pub fn encoded(&mut self, number: u64, result: io::Result<Vec<u8>>) {
        let Some(order) = self.orders.under_way.remove(&number) else { return };
        self.orders.bytes -= order.length();
        self.observe.set(Metric::EncodingsActive, self.orders.under_way.len() as u64);
        let metric = match result.map(|bytes| self.cache.take_encoding(&order, bytes)) {
            Ok(Encoded::Kept) => Metric::EncodingsKept,
            Ok(Encoded::Useless) => Metric::EncodingsUseless,
            Ok(Encoded::Dropped) => Metric::EncodingsDropped,
            Err(_) => {
                self.cache.decline_encoding(&order);
                Metric::EncodingsDropped
            }
        };
        self.observe.count(metric);
    }
}
