//! Records and cursors of the feed: any text.

use proto::{
    feed::{
        cursor::{FeedCursor, VersionVector},
        record::Record,
    },
    limits,
    sse::{
        encode::{self, EventText},
        parse::Parser,
    },
};

/// Runs one input: an event name, a line break, an id, a line break, data.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let (kind, id) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    check_cursor(id);
    let Ok(record) = Record::parse(kind, lines.next().unwrap_or_default()) else { return };
    assert_eq!(record.kind(), kind);
    let json = record.data();
    assert!(!json.contains(['\n', '\r']), "one data line");
    let event = EventText { name: Some(kind), id: None, data: Some(&json), retry_ms: None };
    let mut out = Vec::new();
    encode::event(&mut out, &event).expect("kinds have no line breaks");
    let mut parser = Parser::new(usize::MAX);
    let mut input = &out[..];
    let event = parser.step(&mut input).expect("an event");
    let again = Record::parse(&event.name, &event.data).expect("what is written is read");
    assert_eq!(again, record);
}

fn check_cursor(text: &str) {
    if let Ok(cursor) = text.parse::<FeedCursor>() {
        assert!(text.len() <= limits::CURSOR_BYTES_MAX);
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }
    if let Ok(vector) = text.parse::<VersionVector>() {
        assert!(vector.iter().count() <= limits::VECTOR_ENTRIES_MAX);
        assert!(vector.covers(&vector));
        assert_eq!(vector.to_string().parse(), Ok(vector));
    }
}
