//! Publishing to topics: each event is an operation of its own, a batch all of its events or none.

use super::Refusal;
use crate::{
    limits,
    log::{
        dot::Dot,
        operation::{Change, Draft, EntityRef, Kind, TopicEvent},
    },
    model::topic::{Topic, check_name},
    store::sqlite::{Reader, Txn},
};

/// An event that is in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
    /// Its operation.
    pub dot: Dot,
    /// Order of arrival in this store.
    pub position: u64,
}

/// Publishes events in their order. `topics`: how many topics there are.
pub fn publish(
    txn: &mut Txn<'_>,
    topic: &str,
    events: Vec<TopicEvent>,
    topics: u64,
) -> Result<Vec<Published>, Refusal> {
    check_name(topic)
        .map_err(|invalid| Refusal::invalid("{topic}", invalid.code, invalid.expected))?;
    if topics >= limits::TOPICS_MAX && txn.topic(topic)?.is_none() {
        let expected = "one of the topics there are: there is no room for another";
        return Err(Refusal::invalid("{topic}", "count", expected));
    }
    let mut published = Vec::with_capacity(events.len());
    for event in events {
        let entity = EntityRef::new(Kind::Topic, topic);
        let operation = txn.append(Draft { entity, change: Change::Event(event) })?;
        published.push(Published { dot: operation.dot, position: operation.position });
    }
    Ok(published)
}

/// A topic that has had events lately.
pub fn find(reader: &Reader<'_>, name: &str) -> Result<Topic, Refusal> {
    reader.topic(name)?.ok_or_else(|| Refusal::not_found("topic", name))
}
