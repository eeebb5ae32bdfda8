//! The present state of a topic: the newest event of each event key, for streams that begin.
//!
//! Kept for every topic whose events have keys, bounded in keys and bytes; what did not fit is told
//! as a gap at the beginning of a snapshot. The snapshot is one piece of bytes, made when the first
//! stream asks for it and kept until the next event with a key.
//!
//! Events of a snapshot carry no `id:`: a stream that is cut in the middle has no cursor yet and
//! begins with a snapshot again. The `beat` behind it has one.
//!
//! Leaves to others: which streams get it (`stream`), the order of everything (`history`).

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use proto::feed::record::Publish;

use super::history::event_frame;
use crate::limits;

/// The newest event of each event key of one topic.
#[derive(Default)]
pub struct LastValues {
    by_key: HashMap<Box<str>, Value>,
    bytes: usize,
    /// Something did not fit.
    incomplete: bool,
    snapshot: Option<Bytes>,
}

struct Value {
    /// Place of its entry in the order of arrival, if it came by itself; 0 for one that was
    /// refilled and is not in the history.
    number: u64,
    /// Its place in control's log: of two that come again in any order the later one is newer.
    position: u64,
    frame: Bytes,
}

impl LastValues {
    /// Takes an event with a key. `number`: of its entry, if it has one; `room`: bytes that all
    /// topics may still take. Returns the number of the entry that it supersedes.
    pub fn put(&mut self, record: &Publish, number: Option<u64>, room: usize) -> Option<u64> {
        let key = record.key.as_deref()?;
        let live = number.is_some() && !record.refill;
        let old = self.by_key.get(key).map(|value| (value.number, value.position));
        if old.is_some_and(|(_, position)| position >= record.position) && !live {
            return None;
        }
        self.snapshot = None;
        let frame = event_frame(None, &record.event, &record.data);
        let held = self.by_key.get(key).map_or(0, |value| weight(key, value));
        let value = Value { number: number.unwrap_or(0), position: record.position, frame };
        let bytes = self.bytes - held + weight(key, &value);
        let count = self.by_key.len() + usize::from(old.is_none());
        let fits = bytes <= limits::LAST_VALUES_BYTES_MAX && count <= limits::LAST_VALUES_MAX;
        if !fits || bytes > self.bytes.saturating_add(room) {
            self.incomplete = true;
            self.by_key.remove(key);
            self.bytes -= held;
        } else {
            self.by_key.insert(key.into(), value);
            self.bytes = bytes;
        }
        old.map(|(number, _)| number)
    }

    /// Some of them may never have come.
    pub fn note_incomplete(&mut self) {
        (self.incomplete, self.snapshot) = (true, None);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of them, in the order in which they came, as frames without ids.
    pub fn snapshot(&mut self, topic: &str) -> Bytes {
        if let Some(snapshot) = &self.snapshot {
            return snapshot.clone();
        }
        let mut values: Vec<&Value> = self.by_key.values().collect();
        values.sort_unstable_by_key(|value| (value.number, value.position));
        let mut all = BytesMut::with_capacity(self.bytes);
        if self.incomplete {
            let data = format!(r#"{{"topic":"{topic}","kind":"gap","from":"","to":""}}"#);
            all.extend_from_slice(&event_frame(None, "gap", &data));
        }
        values.iter().for_each(|value| all.extend_from_slice(&value.frame));
        let snapshot = all.freeze();
        self.snapshot = Some(snapshot.clone());
        snapshot
    }
}

fn weight(key: &str, value: &Value) -> usize {
    key.len() + value.frame.len() + VALUE_BYTES
}

/// Book-keeping of one value.
const VALUE_BYTES: usize = size_of::<Value>() + size_of::<Box<str>>() + 64;

#[cfg(test)]
mod tests {
    use proto::feed::cursor::VersionVector;

    use super::*;

    fn event(key: &str, position: u64, refill: bool) -> Publish {
        Publish {
            position,
            topic: "t".into(),
            dot: format!("a-00000000:{position}").parse().expect("a dot"),
            prev: 0,
            event: "price".into(),
            data: format!("{key}{position}"),
            key: Some(key.into()),
            version: VersionVector::new(),
            refill,
            lone: false,
        }
    }

    fn told(values: &mut LastValues) -> Vec<String> {
        let text = String::from_utf8(values.snapshot("t").to_vec()).expect("UTF-8");
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| data.trim_end().to_owned()).collect()
    }

    #[test]
    fn the_newest_of_each_key_is_told_in_the_order_of_arrival() {
        let mut values = LastValues::default();
        assert_eq!(values.put(&event("x", 1, false), Some(10), usize::MAX), None);
        values.put(&event("y", 2, false), Some(11), usize::MAX);
        assert_eq!(values.put(&event("x", 3, false), Some(12), usize::MAX), Some(10));
        assert_eq!(told(&mut values), ["y2", "x3"]);
        assert!(!String::from_utf8_lossy(&values.snapshot("t")).contains("id:"));
    }

    #[test]
    fn what_comes_again_does_not_take_back_what_is_newer() {
        let mut values = LastValues::default();
        values.put(&event("x", 5, false), Some(10), usize::MAX);
        values.put(&event("x", 3, true), Some(11), usize::MAX);
        values.put(&event("y", 4, true), None, usize::MAX);
        assert_eq!(told(&mut values), ["y4", "x5"]);
    }

    #[test]
    fn what_does_not_fit_is_told_as_a_gap() {
        let mut values = LastValues::default();
        for nth in 0..=limits::LAST_VALUES_MAX as u64 {
            values.put(&event(&format!("k{nth}"), nth + 1, false), Some(nth), usize::MAX);
        }
        let told = told(&mut values);
        assert!((500..=limits::LAST_VALUES_MAX + 1).contains(&told.len()), "{}", told.len());
        assert!(told[0].contains(r#""kind":"gap""#));
        assert!(values.bytes() <= limits::LAST_VALUES_BYTES_MAX);
        let mut without_room = LastValues::default();
        without_room.put(&event("x", 1, false), Some(1), 10);
        assert_eq!(without_room.bytes(), 0);
    }
}
