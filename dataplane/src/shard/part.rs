//! Answers with parts of a stored response: 206 with one part or several, and 416 (RFC 9110 §14,
//! §15.3.7, §15.5.17).
//!
//! ```text
//!   one      head with Content-Range                     │ bytes
//!   several  head with Content-Type: multipart/byteranges│ --b part head │ bytes │ … │ --b--
//! ```
//! Leaves to others: which parts (`cache`), sending the bytes (`answer`).

use std::io::Write;

use cache::{ByteRange, FieldSource, Local};
use proto::http1::encode;

/// What is sent behind the head.
pub struct Parts {
    /// The parts in order, each with the text in front of it.
    pub list: Vec<(Vec<u8>, ByteRange)>,
    /// Text behind the last one.
    pub trailer: Vec<u8>,
}

impl Parts {
    /// Writes the head of the 206, as far as it is known beforehand, its length first; ends with
    /// the beginning of `Cache-Status`. `boundary` must not be known to who made the content.
    pub fn of(local: &Local, ranges: &[ByteRange], boundary: &[u8], head: &mut Vec<u8>) -> Self {
        if let [range] = *ranges {
            write_head(local, None, range, range.length(), head);
            return Self { list: vec![(Vec::new(), range)], trailer: Vec::new() };
        }
        let boundary = String::from_utf8_lossy(boundary);
        let length = local.entry().length().unwrap_or(0);
        let content_type = local.entry().get("Content-Type");
        let list: Vec<_> = ranges
            .iter()
            .map(|&range| (part_head(&boundary, content_type, range, length), range))
            .collect();
        let trailer = format!("\r\n--{boundary}--\r\n").into_bytes();
        let texts: u64 = list.iter().map(|(text, range)| text.len() as u64 + range.length()).sum();
        // Several parts have no range of their own.
        let any = ByteRange { first: 0, last: 0 };
        write_head(local, Some(&boundary), any, texts + trailer.len() as u64, head);
        Self { list, trailer }
    }
}

/// Writes the head of a 416; ends with the beginning of `Cache-Status`.
pub fn write_unsatisfiable(local: &Local, length: u64, head: &mut Vec<u8>) {
    encode::status_line(head, 416);
    let _ = write!(head, "Content-Range: bytes */{length}\r\n");
    encode::content_length(head, 0);
    let entry = local.entry();
    for name in ["Date", "Via"] {
        entry.get_all(name, &mut |value| {
            let _ = write!(head, "{name}: {}\r\n", String::from_utf8_lossy(value));
        });
    }
    head.extend_from_slice(&entry.head_and_status()[entry.head().len()..]);
}

fn write_head(
    local: &Local,
    boundary: Option<&str>,
    range: ByteRange,
    length: u64,
    head: &mut Vec<u8>,
) {
    let stored = local.partial_head(boundary, range, length);
    head.extend_from_slice(&stored);
}

fn part_head(
    boundary: &str,
    content_type: Option<&[u8]>,
    range: ByteRange,
    length: u64,
) -> Vec<u8> {
    let mut text = format!("\r\n--{boundary}\r\n").into_bytes();
    if let Some(content_type) = content_type {
        text.extend_from_slice(b"Content-Type: ");
        text.extend_from_slice(content_type);
        text.extend_from_slice(b"\r\n");
    }
    let ByteRange { first, last } = range;
    let _ = write!(text, "Content-Range: bytes {first}-{last}/{length}\r\n\r\n");
    text
}
