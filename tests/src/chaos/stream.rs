//! One stream as its reader sees it, over any number of connections: what it asks for, what it is
//! told, and whether that is right.
//!
//! ```text
//!   begin ─▶ head: 200 and an event stream ─▶ events, each checked ─▶ end ─▶ (retry) ─▶ begin
//!                └ 307, if it follows: where to
//! ```
//! Each event of topic `t` with number `n` has the data `t n`; numbers of a topic go up by one. So
//! a reader knows what is missing and what comes twice, whatever the ids say. Knows nothing of
//! sockets or time, and shares no code with `proto`. Leaves to others: connections (`crowd`).

use serde_json::Value;

use crate::{
    check::ledger::covers,
    client::{http, sse},
};

/// What a stream is made for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Path and query of its address.
    pub target: String,
    /// Numbers of its topics.
    pub topics: Vec<u16>,
    /// It follows redirects, as `fetch` and a browser's `EventSource` do.
    pub follows: bool,
    /// It takes a silence of one and a half beats for the end, as the page's script does.
    pub is_scripted: bool,
}

/// Something that it was told, besides what was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// The first event of this connection: it is live.
    Live,
    /// An event of a topic.
    Event,
    /// A sign of life.
    Beat,
    /// Something may be missing; whether all may be.
    Gap {
        /// The server was put back to an older state.
        reset: bool,
    },
    /// To go elsewhere, and why.
    Migrate(String),
    /// To ask there instead.
    Led(String),
    /// The answer is complete.
    End,
}

/// The reader.
#[derive(Debug)]
pub struct Stream {
    /// As made.
    pub wanted: Wanted,
    /// What it waits before it comes back, ms.
    pub retry_ms: u64,
    /// Longest silence that it has been told, ms.
    pub every_ms: u64,
    /// Cursor that this connection began with.
    presented: String,
    /// For each of its topics.
    next: Vec<Next>,
    http: http::Reader,
    sse: sse::Reader,
    /// The head was checked.
    is_answered: bool,
    is_live: bool,
}

/// Which number comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// Whichever.
    Any,
    /// The one after this.
    After(u32),
    /// One greater than this: a gap was told.
    Beyond(u32),
}

impl Stream {
    /// Never connected.
    pub fn new(wanted: Wanted) -> Self {
        let next = vec![Next::Any; wanted.topics.len()];
        Self {
            wanted,
            retry_ms: RETRY_MS,
            every_ms: EVERY_MS,
            presented: String::new(),
            next,
            http: http::Reader::default(),
            sse: sse::Reader::default(),
            is_answered: false,
            is_live: false,
        }
    }

    /// A new connection: what to send on it. `led` is the address that it was led to.
    pub fn begin(&mut self, host: &str, led: Option<(&str, &str)>) -> String {
        self.presented = std::mem::take(&mut self.sse).last_event_id;
        self.sse.last_event_id.clone_from(&self.presented);
        self.http = http::Reader::default();
        self.http.expect(false);
        (self.is_answered, self.is_live) = (false, false);
        let (host, target) = led.unwrap_or((host, &self.wanted.target));
        let cursor = match self.presented.is_empty() {
            true => String::new(),
            false => format!("Last-Event-ID: {}\r\n", self.presented),
        };
        let accept = "Accept: text/event-stream\r\n";
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{accept}{cursor}\r\n")
    }

    /// Whether it has everything up to these numbers, by topic.
    pub fn has(&self, published: impl Fn(u16) -> u32) -> bool {
        self.wanted.topics.iter().zip(&self.next).all(|(&topic, next)| {
            let has = match next {
                Next::Any => 0,
                Next::After(number) | Next::Beyond(number) => *number,
            };
            has >= published(topic)
        })
    }

    /// Takes bytes in.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn receive(&mut self, bytes: &[u8], told: &mut Vec<Told>) -> Result<(), String> {
        let complete = self.http.receive(bytes)?;
        let mut body = Vec::new();
        let is_complete = !complete.is_empty();
        for reply in complete {
            if let Some(to) = self.check_head(&reply)? {
                told.push(Told::Led(to));
                return Ok(());
            }
            body.extend(reply.body);
        }
        if !is_complete && let Some(reply) = self.http.partial() {
            body.append(&mut reply.body);
            let head = http::Reply { body: Vec::new(), ..reply.clone() };
            if self.check_head(&head)?.is_some() {
                return Ok(());
            }
        }
        for event in self.sse.receive(&body) {
            if !self.is_live {
                self.is_live = true;
                told.push(Told::Live);
            }
            told.push(self.check(&event)?);
        }
        self.retry_ms = self.sse.retry_ms.unwrap_or(self.retry_ms);
        if is_complete {
            told.push(Told::End);
        }
        Ok(())
    }

    /// Whether this connection has had a good head.
    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// Anything but an event stream ends an `EventSource` for good. `Some` is where it is led to.
    fn check_head(&mut self, reply: &http::Reply) -> Result<Option<String>, String> {
        if self.is_answered {
            return Ok(None);
        }
        if reply.status == 307 && self.wanted.follows {
            let to = reply.field("location").ok_or("a redirect to nowhere")?;
            return Ok(Some(to.to_owned()));
        }
        let kind = reply.field("content-type").unwrap_or_default();
        if reply.status != 200 || !kind.starts_with("text/event-stream") {
            return Err(format!("{} {kind:?} ends an EventSource for good", reply.status));
        }
        self.is_answered = true;
        Ok(None)
    }

    fn check(&mut self, event: &sse::Event) -> Result<Told, String> {
        match event.name.as_str() {
            "n" => self.check_number(event).map(|()| Told::Event),
            "beat" => {
                let data: Value = json(event)?;
                self.every_ms = data["every_ms"].as_u64().ok_or("a beat that says no time")?;
                Ok(Told::Beat)
            }
            "gap" => {
                let reset = json(event)?["reset"] == true;
                if reset {
                    // Its cursor goes back, too.
                    self.presented.clone_from(&event.id);
                }
                for next in &mut self.next {
                    *next = match *next {
                        _ if reset => Next::Any,
                        Next::Any => Next::Any,
                        Next::After(number) | Next::Beyond(number) => Next::Beyond(number),
                    };
                }
                Ok(Told::Gap { reset })
            }
            "migrate" => {
                let reason = json(event)?["reason"].as_str().unwrap_or_default().to_owned();
                Ok(Told::Migrate(reason))
            }
            name => Err(format!("an event {name:?} that nobody published")),
        }
    }

    fn check_number(&mut self, event: &sse::Event) -> Result<(), String> {
        let numbers = event.data.split_once(' ');
        let numbers = numbers.and_then(|(t, n)| Some((t.parse().ok()?, n.parse::<u32>().ok()?)));
        let (topic, number): (u16, u32) =
            numbers.ok_or_else(|| format!("data {:?} that nobody published", event.data))?;
        let at = self.wanted.topics.iter().position(|wanted| *wanted == topic);
        let at = at.ok_or_else(|| format!("topic {topic} that it has not asked for"))?;
        let is_next = match self.next[at] {
            Next::Any => true,
            Next::After(last) => number == last + 1,
            Next::Beyond(last) => number > last,
        };
        if !is_next {
            let next = self.next[at];
            return Err(format!("topic {topic}: {number} where {next:?} was due"));
        }
        self.next[at] = Next::After(number);
        if !self.presented.is_empty() && covers(&self.presented, &event.id) {
            let presented = &self.presented;
            return Err(format!("{} sent again to who presented {presented}", event.id));
        }
        Ok(())
    }
}

fn json(event: &sse::Event) -> Result<Value, String> {
    serde_json::from_str(&event.data).map_err(|_| format!("data {:?} is no JSON", event.data))
}

/// What a browser waits that was told nothing.
const RETRY_MS: u64 = 3_000;
/// The longest silence of an edge that says nothing of it.
const EVERY_MS: u64 = 55_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        let wanted = Wanted {
            target: "/live/?topic=t1&topic=t2".into(),
            topics: vec![1, 2],
            follows: false,
            is_scripted: false,
        };
        Stream::new(wanted)
    }

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

    fn say(stream: &mut Stream, text: &str) -> Result<Vec<Told>, String> {
        let mut told = Vec::new();
        stream.receive(text.as_bytes(), &mut told).map(|()| told)
    }

    fn open(stream: &mut Stream) -> String {
        let request = stream.begin("a.example", None);
        say(stream, HEAD).expect("a good head");
        request
    }

    #[test]
    fn numbers_go_up_by_one_on_any_connection() {
        let mut stream = stream();
        open(&mut stream);
        let told = say(&mut stream, "event: n\nid: a:5\ndata: 1 7\n\n").expect("any is good");
        assert_eq!(told, [Told::Live, Told::Event]);
        assert!(open(&mut stream).contains("Last-Event-ID: a:5\r\n"));
        say(&mut stream, "event: n\nid: a:6\ndata: 1 8\n\n").expect("the next");
        assert!(say(&mut stream, "event: n\nid: a:8\ndata: 1 10\n\n").is_err(), "9 is missing");
    }

    #[test]
    fn a_gap_allows_what_is_newer_and_a_reset_allows_all() {
        let mut stream = stream();
        open(&mut stream);
        say(&mut stream, "event: n\nid: a:5\ndata: 1 7\n\n").expect("any is good");
        say(&mut stream, "event: gap\nid: a:9\ndata: {}\n\n").expect("a gap");
        assert!(say(&mut stream, "event: n\nid: a:10\ndata: 1 7\n\n").is_err(), "again");
        say(&mut stream, "event: n\nid: a:10\ndata: 1 10\n\n").expect("newer");
        say(&mut stream, "event: gap\nid: b:1\ndata: {\"reset\":true}\n\n").expect("a reset");
        say(&mut stream, "event: n\nid: b:2\ndata: 1 3\n\n").expect("whatever");
    }

    #[test]
    fn what_the_cursor_covers_may_not_come_again() {
        let mut stream = stream();
        open(&mut stream);
        say(&mut stream, "event: beat\nid: a:5\ndata: {\"every_ms\":9}\n\n").expect("a beat");
        open(&mut stream);
        assert!(say(&mut stream, "event: n\nid: a:5\ndata: 1 7\n\n").is_err());
    }

    #[test]
    fn only_an_event_stream_is_an_answer() {
        let mut stream = stream();
        stream.begin("a.example", None);
        assert!(say(&mut stream, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").is_err());
    }
}
