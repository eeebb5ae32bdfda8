//! Reads an event stream by the rules a browser follows.

/// One dispatched event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name, `message` when it has none.
    pub name: String,
    /// Its data, lines joined by LF.
    pub data: String,
    /// The last id seen, this event's or an earlier one's.
    pub id: String,
}

/// Splits bytes into events.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    after_cr: bool,
    name: String,
    data: Option<String>,
    /// The id of the event that is being read: it counts once that is whole.
    id: Option<String>,
    /// Where a reconnect resumes.
    pub last_event_id: String,
    /// What the stream asked a client to wait before a reconnect.
    pub retry_ms: Option<u64>,
}

impl Reader {
    /// Takes bytes; returns the events they complete.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            let lf_of_crlf = self.after_cr && byte == b'\n';
            self.after_cr = byte == b'\r';
            match byte {
                _ if lf_of_crlf => {}
                b'\r' | b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    let line = String::from_utf8_lossy(&line).into_owned();
                    events.extend(self.end_of_line(&line));
                }
                _ => self.line.push(byte),
            }
        }
        events
    }

    fn end_of_line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            if let Some(id) = self.id.take() {
                self.last_event_id = id;
            }
            let name = std::mem::take(&mut self.name);
            let data = self.data.take()?;
            let name = if name.is_empty() { "message".to_owned() } else { name };
            return Some(Event { name, data, id: self.last_event_id.clone() });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" => self.retry_ms = value.parse().ok().or(self.retry_ms),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_dispatched_at_empty_lines() {
        let mut reader = Reader::default();
        let text = b": hello\nretry: 10\r\nid: 4\revent: incident\ndata: a\ndata: b\n\ndata: c\n\n";
        let events: Vec<Event> = text.chunks(3).flat_map(|piece| reader.receive(piece)).collect();
        assert_eq!(events.len(), 2);
        assert_eq!((events[0].name.as_str(), events[0].data.as_str()), ("incident", "a\nb"));
        assert_eq!((events[1].name.as_str(), events[1].id.as_str()), ("message", "4"));
        assert_eq!(reader.retry_ms, Some(10));
    }

    #[test]
    fn an_event_that_was_cut_off_is_asked_for_again() {
        let mut reader = Reader::default();
        assert_eq!(reader.receive(b"id: 4\ndata: a\n\nid: 5\ndata: b\n").len(), 1);
        assert_eq!(reader.last_event_id, "4");
    }
}
