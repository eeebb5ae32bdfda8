//! A topic that customers publish to: its name, and what an event of it may be. It has no state but
//! its newest events.

use proto::feed::site::{self, PAGE_TOPICS};

use super::Invalid;
use crate::limits;

/// A topic as far as it is known here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// When its newest event came, ms since the Unix epoch.
    pub at_ms: u64,
    /// Events that it has had.
    pub events: u64,
}

/// A name that a customer may publish to.
pub fn check_name(name: &str) -> Result<(), Invalid> {
    let free = site::is_topic_name(name) && !name.starts_with(PAGE_TOPICS);
    if free { Ok(()) } else { Err(BAD_NAME) }
}

/// An event's name: what a browser's `addEventListener` waits for.
pub fn check_event(name: &str) -> Result<(), Invalid> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    let shape = (1..=limits::EVENT_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fine);
    if shape && !RESERVED_EVENTS.contains(&name) { Ok(()) } else { Err(BAD_EVENT) }
}

/// An event key: what of the topic the event tells.
pub fn check_key(key: &str) -> Result<(), Invalid> {
    let shape = (1..=limits::EVENT_KEY_BYTES_MAX).contains(&key.len())
        && !key.chars().any(char::is_control);
    if shape { Ok(()) } else { Err(BAD_KEY) }
}

/// What an event says.
pub fn check_data(data: &str) -> Result<(), Invalid> {
    if data.len() <= limits::EVENT_DATA_BYTES_MAX { Ok(()) } else { Err(BAD_DATA) }
}

/// Names of events that edges say themselves, see docs/streams.md.
const RESERVED_EVENTS: [&str; 6] = ["beat", "error", "expired", "gap", "migrate", "open"];

const BAD_NAME: Invalid = Invalid {
    code: "topic",
    expected: "1 to 200 of A-Z, a-z, 0-9, . _ ~ - in parts separated by single slashes, not below \
               page/",
};
const BAD_EVENT: Invalid = Invalid {
    code: "event",
    expected: "1 to 64 of A-Z, a-z, 0-9, _ . : - and none of beat, error, expired, gap, migrate, \
               open",
};
const BAD_KEY: Invalid =
    Invalid { code: "event_key", expected: "1 to 200 bytes of text without control characters" };
const BAD_DATA: Invalid = Invalid { code: "length", expected: "at most 65,536 bytes" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn customers_publish_beside_pages_and_say_nothing_that_edges_say() {
        assert!(check_name("orders/eu").is_ok() && check_name("page").is_ok());
        assert!(check_name("page/7").is_err() && check_name("a b").is_err());
        assert!(check_event("price.changed").is_ok());
        assert!(check_event("gap").is_err() && check_event("a\nb").is_err());
        assert!(check_key("AAPL").is_ok() && check_key("").is_err());
    }
}
