//! Bytes → events, by the rules of WHATWG HTML ("Interpreting an event stream").
//!
//! Incremental: bytes may be cut anywhere, also within a CRLF, the byte order mark or a UTF-8 sequence. Bounded: all lines of one event
//! together stay under the parser's maximum. Dispatch, reconnection and time are the caller's.

use std::borrow::Cow;

use crate::limits;

/// An incremental parser of one stream.
#[derive(Debug)]
pub struct Parser {
    /// The line under way, without its end.
    line: Vec<u8>,
    /// `data:` lines so far, each with a final LF.
    data: Vec<u8>,
    name: Vec<u8>,
    /// The stream's last event id as of the last dispatch or empty line.
    last_event_id: Vec<u8>,
    /// `id:` of the event under way.
    id: Option<Vec<u8>>,
    retry_ms: Option<u64>,
    bytes_max: usize,
    /// Bytes of the event under way, comments included, ≤ `bytes_max`.
    event_bytes: usize,
    /// The last line ended in CR: a LF right behind it belongs to it.
    after_cr: bool,
    /// Of the byte order mark at the start, 3 once that question is settled.
    mark_bytes: u8,
    /// The last step dispatched; its texts are dropped with the next one.
    dispatched: bool,
}

/// One dispatched event, lent until the next step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    /// `message` if the stream did not say.
    pub name: Cow<'a, str>,
    /// Lines joined by LF.
    pub data: Cow<'a, str>,
    /// What a client sends as `Last-Event-ID` after this event; empty for none.
    pub last_event_id: Cow<'a, str>,
    /// Whether this event itself had an `id:`.
    pub has_id: bool,
    /// `retry:` since the last event, ms.
    pub retry_ms: Option<u64>,
}

/// An event over the parser's maximum. The parser is not usable further: the session reconnects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventTooLarge;

impl std::fmt::Display for EventTooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an event of the stream is over the limit")
    }
}

impl std::error::Error for EventTooLarge {}

impl Default for Parser {
    fn default() -> Self {
        Self::new(limits::EVENT_BYTES_MAX)
    }
}

impl Parser {
    /// At the start of a stream. `bytes_max`: of one event, all lines together.
    pub const fn new(bytes_max: usize) -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            name: Vec::new(),
            last_event_id: Vec::new(),
            id: None,
            retry_ms: None,
            bytes_max,
            event_bytes: 0,
            after_cr: false,
            mark_bytes: 0,
            dispatched: false,
        }
    }

    /// Reads on to the next event. `None`: all input is used up. An event that the stream's end cuts off is never told, as the rules want.
    pub fn step(&mut self, input: &mut &[u8]) -> Result<Option<Event<'_>>, EventTooLarge> {
        if self.dispatched {
            self.dispatched = false;
            self.data.clear();
            self.name.clear();
            self.retry_ms = None;
        }
        while self.next_line(input)? {
            let line = std::mem::take(&mut self.line);
            let dispatch = self.interpret(&line);
            self.line = line;
            self.line.clear();
            if let Some(has_id) = dispatch {
                self.dispatched = true;
                return Ok(Some(self.event(has_id)));
            }
        }
        Ok(None)
    }

    /// What a client would send as `Last-Event-ID` now.
    pub fn last_event_id(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.last_event_id)
    }

    /// Bytes held for the event under way.
    pub fn kept_bytes(&self) -> usize {
        self.line.len() + self.data.len() + self.name.len() + self.id.as_ref().map_or(0, Vec::len)
    }

    /// Completes `line` from the input; false if its end has not come.
    fn next_line(&mut self, input: &mut &[u8]) -> Result<bool, EventTooLarge> {
        if self.after_cr && !input.is_empty() {
            self.after_cr = false;
            *input = input.strip_prefix(b"\n").unwrap_or(input);
        }
        let end = input.iter().position(|&b| matches!(b, b'\r' | b'\n'));
        let part = &input[..end.unwrap_or(input.len())];
        self.event_bytes = self.event_bytes.saturating_add(part.len());
        if self.event_bytes > self.bytes_max {
            return Err(EventTooLarge);
        }
        self.line.extend_from_slice(part);
        let Some(end) = end else {
            *input = &[];
            return Ok(false);
        };
        self.after_cr = input[end] == b'\r';
        *input = &input[end + 1..];
        if self.mark_bytes == 0 {
            // The mark, if any, begins the first line; it holds no line break, so that line is complete here.
            self.mark_bytes = 3;
            if self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
        }
        Ok(true)
    }

    /// Takes one line. `Some(has_id)`: an event is complete.
    fn interpret(&mut self, line: &[u8]) -> Option<bool> {
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = match line.iter().position(|&b| b == b':') {
            Some(0) => return None,
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match field {
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"id" if !value.contains(&0) => self.id = Some(value.to_vec()),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let digits = std::str::from_utf8(value).unwrap_or_default();
                self.retry_ms = Some(digits.parse().unwrap_or(u64::MAX));
            }
            _ => {}
        }
        None
    }

    /// An empty line: the id takes effect in any case; without data nothing is dispatched.
    fn end_event(&mut self) -> Option<bool> {
        self.event_bytes = 0;
        let id = self.id.take();
        let has_id = id.is_some();
        if let Some(id) = id {
            self.last_event_id = id;
        }
        if self.data.is_empty() {
            self.name.clear();
            return None;
        }
        self.data.pop();
        Some(has_id)
    }

    fn event(&self, has_id: bool) -> Event<'_> {
        let name = if self.name.is_empty() {
            Cow::Borrowed("message")
        } else {
            String::from_utf8_lossy(&self.name)
        };
        Event {
            name,
            data: String::from_utf8_lossy(&self.data),
            last_event_id: String::from_utf8_lossy(&self.last_event_id),
            has_id,
            retry_ms: self.retry_ms,
        }
    }
}
