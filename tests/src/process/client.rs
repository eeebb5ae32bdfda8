//! A blocking client over a real socket, on the readers of `crate::client`.
#![expect(clippy::disallowed_types, reason = "a test client owns its socket")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use crate::client::{
    http::{Reader, Reply},
    sse,
};

/// Longest wait for bytes in any test.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    reader: Reader,
    ready: std::collections::VecDeque<Reply>,
}

impl Client {
    /// Connects, or says why not.
    pub fn connect(to: SocketAddr) -> std::io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&to, PATIENCE)?)
    }

    /// Over a connection that was made elsewhere.
    pub fn over(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, reader: Reader::default(), ready: Default::default() })
    }

    /// Our end.
    pub fn local(&self) -> Option<IpAddr> {
        self.stream.local_addr().ok().map(|address| address.ip())
    }

    /// Sends bytes as they are; `answers` of them expect an answer.
    pub fn send(&mut self, bytes: &[u8], answers: usize) -> std::io::Result<()> {
        (0..answers).for_each(|_| self.reader.expect(false));
        self.stream.write_all(bytes)
    }

    /// Sends a request without waiting for its answer.
    pub fn ask(&mut self, method: &str, host: &str, target: &str, fields: &[(&str, &str)]) {
        self.ask_with(method, host, target, fields, b"");
    }

    /// The same with a body.
    pub fn ask_with(
        &mut self,
        method: &str,
        host: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) {
        self.try_ask(method, host, target, fields, body).expect("the request goes out");
    }

    /// The same to somebody who may be gone.
    pub fn try_ask(
        &mut self,
        method: &str,
        host: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<()> {
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in fields {
            text += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        self.reader.expect(method == "HEAD");
        self.stream.write_all(&[text.as_bytes(), body].concat())
    }

    /// The next answer.
    pub fn answer(&mut self) -> Result<Reply, String> {
        if let Some(reply) = self.ready.pop_front() {
            return Ok(reply);
        }
        // The reader moves what is left of it for each line: many answers at once want it short.
        let mut buffer = vec![0; 8 * 1024];
        loop {
            if let Some(reply) = self.ready.pop_front() {
                return Ok(reply);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    return self.reader.end()?.ok_or_else(|| "closed without an answer".into());
                }
                Ok(count) => self.ready.extend(self.reader.receive(&buffer[..count])?),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("reading an answer: {error}")),
            }
        }
    }

    /// Reads until some of the next answer's body has come; whether that was before all of it had.
    pub fn first_bytes_before_the_rest(&mut self) -> bool {
        let mut buffer = vec![0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return false,
                Ok(count) => {
                    let complete = self.reader.receive(&buffer[..count]).unwrap_or_default();
                    self.ready.extend(complete);
                }
            }
            if !self.ready.is_empty() {
                return false;
            }
            if self.reader.partial().is_some_and(|reply| !reply.body.is_empty()) {
                return true;
            }
        }
    }

    /// Asks and waits.
    pub fn get(&mut self, host: &str, target: &str) -> Reply {
        self.ask("GET", host, target, &[]);
        self.answer().unwrap_or_else(|error| panic!("GET {target}: {error}"))
    }

    /// Whether the other side closes within the patience, discarding what it still says.
    pub fn is_closed_by_peer(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    /// Turns the connection into an event stream.
    pub fn into_stream(mut self, host: &str, target: &str, last_event_id: &str) -> EventStream {
        let resume = [("Last-Event-ID", last_event_id), ("Accept", "text/event-stream")];
        let fields = if last_event_id.is_empty() { &resume[1..] } else { &resume[..] };
        self.ask("GET", host, target, fields);
        EventStream { client: self, sse: sse::Reader::default(), ready: Default::default() }
    }
}

/// An open event stream.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    sse: sse::Reader,
    ready: std::collections::VecDeque<sse::Event>,
}

impl EventStream {
    /// Where a reconnect would resume.
    pub fn last_event_id(&self) -> &str {
        &self.sse.last_event_id
    }

    /// Status of the answer; reads until its head has come.
    pub fn status(&mut self) -> u16 {
        loop {
            if let Some(reply) = self.client.reader.partial() {
                return reply.status;
            }
            if self.read().is_none() {
                return 0;
            }
        }
    }

    /// The next event of any name; `None` when the stream has ended or nothing came in time.
    pub fn next_event(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            self.read()?;
        }
    }

    /// The next event that is not a beat.
    pub fn next_told(&mut self) -> Option<sse::Event> {
        loop {
            let event = self.next_event()?;
            if event.name != "beat" {
                return Some(event);
            }
        }
    }

    /// How long to wait for bytes.
    pub fn set_patience_ms(&mut self, ms: u64) {
        let patience = Duration::from_millis(ms.max(1));
        self.client.stream.set_read_timeout(Some(patience)).expect("a time-out is set");
    }

    fn read(&mut self) -> Option<()> {
        let mut buffer = [0; 16 * 1024];
        let count = loop {
            match self.client.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return None,
                Ok(count) => break count,
            }
        };
        let complete = self.client.reader.receive(&buffer[..count]).expect("a readable stream");
        let mut body: Vec<u8> = complete.into_iter().flat_map(|reply| reply.body).collect();
        if let Some(reply) = self.client.reader.partial() {
            body.append(&mut reply.body);
        }
        self.ready.extend(self.sse.receive(&body));
        Some(())
    }
}
