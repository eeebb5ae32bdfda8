//! Reads HTTP/1.1 responses, strictly: anything a careful client would stumble over is an error
//! here.

/// A response as it arrives.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Fields in order, names in lower case.
    pub fields: Vec<(String, String)>,
    /// What has come of the body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first field of that (lower case) name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Head,
    Length(usize),
    ChunkSize,
    Chunk(usize),
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

/// Reads the responses of one connection, in the order of its requests.
#[derive(Debug)]
pub struct Reader {
    buffer: Vec<u8>,
    phase: Phase,
    reply: Reply,
    /// For each outstanding request, whether it was a HEAD.
    awaited: std::collections::VecDeque<bool>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            phase: Phase::Head,
            reply: Reply::default(),
            awaited: Default::default(),
        }
    }
}

impl Reader {
    /// A request went out; `head` says that its answer has no body.
    pub fn expect(&mut self, head: bool) {
        self.awaited.push_back(head);
    }

    /// Requests without a complete answer.
    pub fn outstanding(&self) -> usize {
        self.awaited.len()
    }

    /// The answer being read, if its head has come.
    pub fn partial(&mut self) -> Option<&mut Reply> {
        (self.phase != Phase::Head).then_some(&mut self.reply)
    }

    /// Takes bytes; returns the answers they complete.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Reply>, String> {
        self.buffer.extend_from_slice(bytes);
        let mut replies = Vec::new();
        while self.step()? {
            if self.phase == Phase::Done {
                replies.push(self.finish());
            }
        }
        if self.phase == Phase::Head && !self.buffer.is_empty() && self.awaited.is_empty() {
            return Err(format!("{} bytes beyond the last answer", self.buffer.len()));
        }
        Ok(replies)
    }

    /// The connection ended in order; the answer that lasts until then, or an error when one is cut
    /// short.
    pub fn end(&mut self) -> Result<Option<Reply>, String> {
        match self.phase {
            Phase::Head if self.buffer.is_empty() => Ok(None),
            Phase::UntilClose => Ok(Some(self.finish())),
            phase => Err(format!("the connection ended in {phase:?}")),
        }
    }

    fn finish(&mut self) -> Reply {
        self.phase = Phase::Head;
        self.awaited.pop_front();
        std::mem::take(&mut self.reply)
    }

    fn line(&mut self) -> Option<Result<String, String>> {
        let end = self.buffer.windows(2).position(|pair| pair == b"\r\n")?;
        let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
        if line.iter().any(|&b| b == b'\r' || b == b'\n' || b == 0) {
            return Some(Err("a bare CR, LF or NUL in a line".into()));
        }
        Some(String::from_utf8(line).map_err(|_| "a line that is no UTF-8".into()))
    }

    fn take(&mut self, count: usize) -> usize {
        let count = count.min(self.buffer.len());
        self.reply.body.extend(self.buffer.drain(..count));
        count
    }

    /// One step; false when more bytes are needed.
    fn step(&mut self) -> Result<bool, String> {
        match self.phase {
            Phase::Head => self.head(),
            Phase::Done => Ok(true),
            Phase::Length(left) => {
                let left = left - self.take(left);
                self.phase = if left == 0 { Phase::Done } else { Phase::Length(left) };
                Ok(left == 0)
            }
            Phase::UntilClose => {
                self.take(usize::MAX);
                Ok(false)
            }
            Phase::ChunkSize => {
                let Some(line) = self.line() else { return Ok(false) };
                let line = line?;
                let digits = line.split(';').next().unwrap_or("").trim();
                let size = usize::from_str_radix(digits, 16)
                    .map_err(|_| format!("chunk size {line:?}"))?;
                self.phase = if size == 0 { Phase::Trailers } else { Phase::Chunk(size) };
                Ok(true)
            }
            Phase::Chunk(left) => {
                let left = left - self.take(left);
                self.phase = if left == 0 { Phase::ChunkEnd } else { Phase::Chunk(left) };
                Ok(left == 0)
            }
            Phase::ChunkEnd => match self.line().transpose()? {
                None => Ok(false),
                Some(line) if line.is_empty() => {
                    self.phase = Phase::ChunkSize;
                    Ok(true)
                }
                Some(_) => Err("a chunk longer than its size".into()),
            },
            Phase::Trailers => match self.line().transpose()? {
                None => Ok(false),
                Some(line) => {
                    self.phase = if line.is_empty() { Phase::Done } else { Phase::Trailers };
                    Ok(true)
                }
            },
        }
    }

    fn head(&mut self) -> Result<bool, String> {
        let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(false);
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).take(end).collect();
        let head = String::from_utf8(head).map_err(|_| "a head that is no UTF-8")?;
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or("");
        let code = status
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse::<u16>().ok())
            .ok_or_else(|| format!("status line {status:?}"))?;
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(|| format!("field {line:?}"))?;
            if name.is_empty() || name.ends_with(' ') || value.contains(['\r', '\n', '\0']) {
                return Err(format!("field {line:?}"));
            }
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if code < 200 {
            return Ok(true);
        }
        let Some(&is_head) = self.awaited.front() else {
            return Err(format!("an answer {code} that nobody asked for"));
        };
        self.reply = Reply { status: code, fields, body: Vec::new() };
        self.phase = self.framing(is_head)?;
        Ok(true)
    }

    fn framing(&self, is_head: bool) -> Result<Phase, String> {
        let lengths: Vec<&str> = self
            .reply
            .fields
            .iter()
            .filter(|(name, _)| name == "content-length")
            .map(|(_, value)| value.as_str())
            .collect();
        let chunked = self.reply.field("transfer-encoding");
        if is_head || self.reply.status == 204 || self.reply.status == 304 {
            return Ok(Phase::Done);
        }
        match (lengths.as_slice(), chunked) {
            ([], Some("chunked")) => Ok(Phase::ChunkSize),
            ([], None) => Ok(Phase::UntilClose),
            ([one], None) => {
                let length = one.parse::<usize>().map_err(|_| format!("content-length {one:?}"))?;
                Ok(if length == 0 { Phase::Done } else { Phase::Length(length) })
            }
            _ => Err(format!("conflicting framing: {:?}", self.reply.fields)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_read_however_they_are_cut() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n\
            HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        for step in 1..text.len() {
            let mut reader = Reader::default();
            (0..3).for_each(|_| reader.expect(false));
            let pieces = text.chunks(step);
            let replies: Vec<Reply> =
                pieces.flat_map(|piece| reader.receive(piece).expect("well-formed")).collect();
            let bodies: Vec<&[u8]> = replies.iter().map(|reply| reply.body.as_slice()).collect();
            assert_eq!(bodies, [b"abc".as_slice(), b"", b"hi"]);
        }
    }

    #[test]
    fn an_answer_nobody_asked_for_is_an_error() {
        let mut reader = Reader::default();
        assert!(reader.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err());
    }
}
