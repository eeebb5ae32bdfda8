//! Bytes → events, by the rules of WHATWG HTML ("Interpreting an event stream").
//!
//! Incremental: bytes may be cut anywhere, also within a CRLF, the byte order mark or a UTF-8
//! sequence. Bounded: what is kept of one event stays under the parser's maximum. An event beyond
//! it is read to its end and told without its data, and the stream goes on behind it. Dispatch,
//! reconnection and time are the caller's.

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
    /// The last line ended in CR: a LF right behind it belongs to it.
    after_cr: bool,
    /// Of the byte order mark at the start, 3 once that question is settled.
    mark_bytes: u8,
    /// The last step dispatched; its texts are dropped with the next one.
    dispatched: bool,
    /// The event under way is over the maximum: of its lines only short ones count.
    too_large: bool,
    /// The line under way has lost its end.
    line_is_cut: bool,
}

/// One dispatched event, lent until the next step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    /// `message` if the stream did not say.
    pub name: Cow<'a, str>,
    /// Lines joined by LF; nothing of an event that is too large.
    pub data: Cow<'a, str>,
    /// It is over the parser's maximum. Name and id are its own if its lines with them are whole.
    pub too_large: bool,
    /// What a client sends as `Last-Event-ID` after this event; empty for none.
    pub last_event_id: Cow<'a, str>,
    /// Whether this event itself had an `id:`.
    pub has_id: bool,
    /// `retry:` since the last event, ms.
    pub retry_ms: Option<u64>,
}

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
            after_cr: false,
            mark_bytes: 0,
            dispatched: false,
            too_large: false,
            line_is_cut: false,
        }
    }

    /// Reads on to the next event. `None`: all input is used up. An event that the stream's end
    /// cuts off is never told, as the rules want.
    pub fn step(&mut self, input: &mut &[u8]) -> Option<Event<'_>> {
        if self.dispatched {
            self.dispatched = false;
            self.too_large = false;
            self.data.clear();
            self.name.clear();
            self.retry_ms = None;
        }
        while self.next_line(input) {
            let line = std::mem::take(&mut self.line);
            let is_cut = std::mem::take(&mut self.line_is_cut);
            let dispatch = if is_cut { None } else { self.interpret(&line) };
            self.line = line;
            self.line.clear();
            if let Some(has_id) = dispatch {
                self.dispatched = true;
                return Some(self.event(has_id));
            }
        }
        None
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
    fn next_line(&mut self, input: &mut &[u8]) -> bool {
        if self.after_cr && !input.is_empty() {
            self.after_cr = false;
            *input = input.strip_prefix(b"\n").unwrap_or(input);
        }
        let end = input.iter().position(|&b| matches!(b, b'\r' | b'\n'));
        let part = &input[..end.unwrap_or(input.len())];
        self.keep(part);
        let Some(end) = end else {
            *input = &[];
            return false;
        };
        self.after_cr = input[end] == b'\r';
        *input = &input[end + 1..];
        if self.mark_bytes == 0 {
            // The mark, if any, begins the first line; it holds no line break, so that line is
            // complete here.
            self.mark_bytes = 3;
            if self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
        }
        true
    }

    /// Adds to the line under way. Only what is kept counts: a stream may send comments for ever.
    fn keep(&mut self, part: &[u8]) {
        if self.line_is_cut {
            return;
        }
        if !self.too_large && self.kept_bytes() + part.len() > self.bytes_max {
            self.too_large = true;
            self.data = Vec::new();
        }
        // Its name and its id are short; whatever else a line may be is not wanted any more.
        let line_bytes_max = limits::LINE_BYTES_OF_TOO_LARGE_MAX;
        let is_over = self.line.len() + part.len() > line_bytes_max
            || self.kept_bytes() + part.len() > self.bytes_max;
        if self.too_large && is_over {
            self.line_is_cut = true;
            self.line = Vec::new();
            return;
        }
        self.line.extend_from_slice(part);
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
            b"data" if self.too_large => {}
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
        let id = self.id.take();
        let has_id = id.is_some();
        if let Some(id) = id {
            self.last_event_id = id;
        }
        if self.too_large {
            return Some(has_id);
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
            too_large: self.too_large,
            last_event_id: String::from_utf8_lossy(&self.last_event_id),
            has_id,
            retry_ms: self.retry_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sse::encode::{self, EventText};

    /// name, data, last event id, has id, retry
    type Told = (String, String, String, bool, Option<u64>);

    /// Instead of the data of an event over the maximum.
    const TOO_LARGE: &str = "too large";

    fn told(parser: &mut Parser, mut input: &[u8]) -> Vec<Told> {
        let mut events = Vec::new();
        while let Some(mut event) = parser.step(&mut input) {
            if event.too_large {
                assert_eq!(event.data, "");
                event.data = TOO_LARGE.into();
            }
            events.push((
                event.name.into_owned(),
                event.data.into_owned(),
                event.last_event_id.into_owned(),
                event.has_id,
                event.retry_ms,
            ));
        }
        assert!(input.is_empty());
        events
    }

    fn cut(input: &[u8], cuts: &[usize], bytes_max: usize) -> Vec<Told> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
        cuts.push(input.len());
        cuts.sort_unstable();
        let mut parser = Parser::new(bytes_max);
        let mut events = Vec::new();
        let mut from = 0;
        for to in cuts {
            events.extend(told(&mut parser, &input[from..to]));
            assert!(parser.kept_bytes() <= bytes_max);
            from = to;
        }
        events
    }

    /// Events as (name, data, last event id), whole and cut at every byte.
    fn check(stream: &str, expected: &[(&str, &str, &str)]) {
        let whole = cut(stream.as_bytes(), &[], 1000);
        let short: Vec<_> =
            whole.iter().map(|(n, d, i, ..)| (n.as_str(), d.as_str(), i.as_str())).collect();
        assert_eq!(short, expected, "{stream:?}");
        let every: Vec<usize> = (0..stream.len()).collect();
        assert_eq!(cut(stream.as_bytes(), &every, 1000), whole, "{stream:?} byte by byte");
    }

    #[test]
    fn the_examples_of_the_standard() {
        check("data: YHOO\ndata: +2\ndata: 10\n\n", &[("message", "YHOO\n+2\n10", "")]);
        check(
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third \
             event\n\n",
            &[
                ("message", "first event", "1"),
                ("message", "second event", ""),
                ("message", " third event", ""),
            ],
        );
        check("data\n\ndata\ndata\n\ndata:", &[("message", "", ""), ("message", "\n", "")]);
        check("data:test\n\ndata: test\n\n", &[("message", "test", ""), ("message", "test", "")]);
    }

    #[test]
    fn lines_end_in_cr_lf_or_both() {
        check("data:a\rdata:b\r\ndata:c\n\n", &[("message", "a\nb\nc", "")]);
        check("data:a\r\r", &[("message", "a", "")]);
        check("data:a\r\n\r\ndata:b\r\n\n", &[("message", "a", ""), ("message", "b", "")]);
    }

    #[test]
    fn one_byte_order_mark_at_the_start_is_skipped() {
        check("\u{feff}data:a\n\n", &[("message", "a", "")]);
        check("\u{feff}\u{feff}data:a\n\n", &[]);
        check("\n\u{feff}data:a\n\n", &[]);
    }

    #[test]
    fn the_last_event_id_lasts_and_takes_effect_without_data() {
        check(
            "id:1\ndata:a\n\ndata:b\n\nid:2\n\ndata:c\n\nid:x\0y\ndata:d\n\n",
            &[
                ("message", "a", "1"),
                ("message", "b", "1"),
                ("message", "c", "2"),
                ("message", "d", "2"),
            ],
        );
        let events = cut(b"id:1\ndata:a\n\ndata:b\n\n", &[], 100);
        assert_eq!(events.iter().map(|event| event.3).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn an_event_without_data_is_not_told_and_its_name_is_forgotten() {
        check("event:x\n\ndata:a\n\n", &[("message", "a", "")]);
        check("event:x\nevent:y\ndata:a\n\ndata:b\n\n", &[("y", "a", ""), ("message", "b", "")]);
        check("data:a\n", &[]);
        check("unknown:a\n:comment\nDATA:a\n data:a\n\n", &[]);
    }

    #[test]
    fn retry_takes_digits_only() {
        let retry = |text: &str| cut(text.as_bytes(), &[], 100)[0].4;
        assert_eq!(retry("retry:2000\ndata\n\n"), Some(2000));
        assert_eq!(retry("retry:2000\n\n\ndata\n\n"), Some(2000));
        assert_eq!(retry("retry:-1\ndata\n\n"), None);
        assert_eq!(retry("retry:1s\ndata\n\n"), None);
        assert_eq!(retry("retry\ndata\n\n"), None);
        assert_eq!(retry("retry:99999999999999999999999\ndata\n\n"), Some(u64::MAX));
    }

    #[test]
    fn bad_utf_8_is_replaced() {
        let events = cut(b"data:\xff\xc3\n\n", &[], 100);
        assert_eq!(events[0].1, "\u{fffd}\u{fffd}");
    }

    #[test]
    fn what_is_kept_of_an_event_is_bounded_and_comments_are_not_kept() {
        let unended = cut(&[b'a'; 101], &[50], 100);
        assert_eq!(unended, []);
        assert_eq!(cut(&b"data:aaaaaaa\n".repeat(20), &[3, 70], 100), []);
        assert_eq!(cut(&b":aaaaaaaaaaa\n".repeat(20), &[3, 70], 100), []);
        assert_eq!(cut(&b"data:aaaaaaa\n\n".repeat(20), &[3, 70], 100).len(), 20);
    }

    #[test]
    fn an_event_over_the_maximum_is_told_without_its_data_and_the_next_one_whole() {
        let large = "event:x\nid:1\ndata:".to_owned() + &"a".repeat(200) + "\ndata:b\n\n";
        let late = "event:x\n".to_owned() + &"data:aaaaaaa\n".repeat(20) + "id:2\n\n";
        let stream = large + "data:c\n\n" + &late + "data:d\n\n";
        let every: Vec<usize> = (0..stream.len()).collect();
        for cuts in [&[][..], &[60], &every] {
            let events = cut(stream.as_bytes(), cuts, 100);
            let told = |name: &str, data: &str, id: &str, has_id| {
                (name.to_owned(), data.to_owned(), id.to_owned(), has_id, None)
            };
            assert_eq!(
                events,
                [
                    told("x", TOO_LARGE, "1", true),
                    told("message", "c", "1", false),
                    told("x", TOO_LARGE, "2", true),
                    told("message", "d", "2", false),
                ]
            );
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop::collection::vec(
            prop::sample::select(vec![
                "data", "id", "event", "retry", ":", " ", "\n", "\r", "\r\n", "\n\n", "7", "x",
                "\0", "\u{feff}", "\u{e9}",
            ]),
            0..40,
        )
        .prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn cutting_the_stream_changes_nothing(
            stream in text(),
            cuts in prop::collection::vec(any::<usize>(), 0..8),
        ) {
            for bytes_max in [1000, 20] {
                prop_assert_eq!(
                    cut(stream.as_bytes(), &cuts, bytes_max),
                    cut(stream.as_bytes(), &[], bytes_max)
                );
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            name in prop::option::of("[a-z]{1,8}"),
            id in prop::option::of("[!-~]{0,8}"),
            data in "[ -~\u{e9}\r\n]{0,30}",
            retry_ms in prop::option::of(any::<u64>()),
        ) {
            let mut out = Vec::new();
            let (name_text, id_text) = (name.as_deref(), id.as_deref());
            let event = EventText { name: name_text, id: id_text, data: Some(&data), retry_ms };
            prop_assert_eq!(encode::event(&mut out, &event), Ok(()));
            let lines = data.replace("\r\n", "\n").replace('\r', "\n");
            let expected = (
                name.clone().unwrap_or("message".into()),
                lines,
                id.clone().unwrap_or_default(),
                id.is_some(),
                retry_ms,
            );
            prop_assert_eq!(cut(&out, &[], 1000), vec![expected]);
        }
    }
}
