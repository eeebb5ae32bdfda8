//! Events off an SSE stream, as little of them as the load needs: which one, what kind, how long.
//!
//! Apart from `proto` on purpose. Understands lines that end in LF or CR LF, which is what servers
//! send; a bare CR is content here. Pure; owned by one stream.

use crate::{limits::EVENT_LINE_BYTES_MAX, verify::Hash};

/// Reads events, however the bytes are cut.
#[derive(Debug, Default)]
pub(crate) struct EventReader {
    /// A line that has not arrived as a whole yet.
    partial: Vec<u8>,
    event: Event,
}

/// One event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Event {
    /// Hash of its id, if it has one of its own.
    pub(crate) id: Option<u64>,
    pub(crate) kind: Kind,
    /// Length of its data.
    pub(crate) data_bytes: u32,
    /// `"sent_at_us"` in its data: microseconds since 1970.
    pub(crate) sent_at_us: Option<u64>,
    /// `n` of its data, if that begins with it: which publish it was.
    pub(crate) number: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Kind {
    /// Any other.
    #[default]
    Message,
    Beat,
    Gap,
}

/// A line over [`EVENT_LINE_BYTES_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LineTooLong;

impl EventReader {
    /// The next event that ends in `bytes`, which is advanced. `None` when more is needed.
    ///
    /// # Errors
    /// [`LineTooLong`].
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Event>, LineTooLong> {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            *bytes = rest;
            let done = if self.partial.is_empty() {
                self.event.line(line)
            } else {
                self.partial.extend_from_slice(line);
                let line = std::mem::take(&mut self.partial);
                self.event.line(&line)
            };
            if done {
                let event = std::mem::take(&mut self.event);
                // An event without data is dispatched to nobody (WHATWG HTML §9.2.6).
                if event.data_bytes > 0 {
                    return Ok(Some(event));
                }
            }
        }
        self.partial.extend_from_slice(bytes);
        *bytes = &[];
        if self.partial.len() > EVENT_LINE_BYTES_MAX { Err(LineTooLong) } else { Ok(None) }
    }
}

impl Event {
    /// Takes a line in; whether it was the empty one that ends an event.
    fn line(&mut self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return true;
        }
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"id" => self.id = Some(Hash::of(value)),
            b"event" => {
                self.kind = match value {
                    b"beat" => Kind::Beat,
                    b"gap" => Kind::Gap,
                    _ => Kind::Message,
                };
            }
            b"data" => {
                let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
                // Every further line adds its line end.
                self.data_bytes = self.data_bytes.saturating_add(length.max(1));
                self.number = self.number.or_else(|| number(value));
                if self.number.is_none() {
                    self.sent_at_us = self.sent_at_us.or_else(|| sent_at_us(value));
                }
            }
            _ => {}
        }
        false
    }
}

/// `{"n":7…` or `{"n": 7…`.
fn number(data: &[u8]) -> Option<u32> {
    leading_number(data.strip_prefix(b"{\"n\":")?)
}

fn leading_number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    let text = text.trim_ascii_start();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

/// The number behind `"sent_at_us":`.
fn sent_at_us(data: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"sent_at_us\":";
    let at = data.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    leading_number(&data[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], step: usize) -> Vec<Event> {
        let (mut reader, mut events) = (EventReader::default(), Vec::new());
        for piece in text.chunks(step) {
            let mut bytes = piece;
            while let Some(event) = reader.next(&mut bytes).expect("short lines") {
                events.push(event);
            }
        }
        events
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let text =
            b"retry: 2000\n\n: hi\n\nid: a7:1\r\nevent: incident\r\ndata: {\"sent_at_us\": 42}\r\n\
            \r\nevent:beat\ndata:1\n\nevent: gap\ndata: x\ndata: y\n\n";
        let whole = read(text, text.len());
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0].id, Some(Hash::of(b"a7:1")));
        assert_eq!((whole[0].kind, whole[0].sent_at_us), (Kind::Message, Some(42)));
        assert_eq!((whole[1].kind, whole[1].id), (Kind::Beat, None));
        assert_eq!((whole[2].kind, whole[2].data_bytes), (Kind::Gap, 2));
        let numbered = read(b"data: {\"n\": 7, \"x\": 8}\n\ndata: {\"m\":1}\n\n", 5);
        assert_eq!((numbered[0].number, numbered[1].number), (Some(7), None));
        for step in 1..text.len() {
            assert_eq!(read(text, step), whole, "step {step}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut reader = EventReader::default();
        let mut bytes: &[u8] = &vec![b'x'; EVENT_LINE_BYTES_MAX + 1];
        assert_eq!(reader.next(&mut bytes), Err(LineTooLong));
    }
}
