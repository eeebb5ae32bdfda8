//! A response as the load sees it: status, how the body is framed, pieces of body, end.
//!
//! Minimal on purpose and apart from `proto`: it reads the few fields it needs in one pass over
//! the head. Owned by one connection; pure.

use crate::{
    framing::{BadChunk, Framing},
    limits::HEAD_BYTES_MAX,
};

/// Reads responses off one connection, one after another.
#[derive(Debug, Default)]
pub(crate) struct ResponseReader {
    /// The body under way, or `None` before a head is complete.
    body: Option<Framing>,
    /// A head that has not arrived as a whole yet.
    partial: Vec<u8>,
}

/// The next thing that was read.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Part<'a> {
    /// A head; 1xx ones are skipped.
    Head(Head),
    /// Content, framing removed; never empty.
    Body(&'a [u8]),
    /// The response is complete.
    End,
}

/// What the load needs of a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// The server will close behind this response.
    pub(crate) close: bool,
    /// What `X-Cache-Status` begins with; `H` for a hit.
    pub(crate) cache: Option<u8>,
    /// The declared length of the body.
    pub(crate) length: Option<u64>,
    /// The media type is `text/event-stream`.
    pub(crate) event_stream: bool,
}

/// The peer did not speak HTTP/1.1, or not within our limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BadResponse {
    /// No status line, a bad length, or over [`HEAD_BYTES_MAX`].
    Head,
    /// Broken chunked coding.
    Chunk,
    /// The connection ended inside a response.
    Cut,
}

impl From<BadChunk> for BadResponse {
    fn from(_: BadChunk) -> Self {
        Self::Chunk
    }
}

impl ResponseReader {
    /// The next part at the front of `bytes`, which is advanced. `None` when more is needed.
    ///
    /// # Errors
    /// After one, the connection is of no use.
    pub(crate) fn next<'a>(
        &mut self,
        bytes: &mut &'a [u8],
    ) -> Result<Option<Part<'a>>, BadResponse> {
        loop {
            if let Some(framing) = &mut self.body {
                if framing.is_end() {
                    self.body = None;
                    return Ok(Some(Part::End));
                }
                if let Some(piece) = framing.next(bytes)? {
                    return Ok(Some(Part::Body(piece)));
                }
                if framing.is_end() {
                    continue;
                }
                return Ok(None);
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            let Some((head, framing)) = self.head(bytes)? else { return Ok(None) };
            if (100..200).contains(&head.status) {
                continue;
            }
            self.body = Some(framing);
            return Ok(Some(Part::Head(head)));
        }
    }

    /// The peer ended the connection: whether that ended a response properly.
    ///
    /// # Errors
    /// [`BadResponse::Cut`] inside a head or a framed body.
    pub(crate) fn end(&mut self) -> Result<Option<Part<'static>>, BadResponse> {
        match self.body.take() {
            None if self.partial.is_empty() => Ok(None),
            Some(Framing::UntilClose) => Ok(Some(Part::End)),
            _ => Err(BadResponse::Cut),
        }
    }

    fn head(&mut self, bytes: &mut &[u8]) -> Result<Option<(Head, Framing)>, BadResponse> {
        if self.partial.is_empty() {
            if let Some((head, framing, length)) = parse(bytes)? {
                *bytes = &bytes[length..];
                return Ok(Some((head, framing)));
            }
            self.partial.extend_from_slice(bytes);
            *bytes = &[];
            return if self.partial.len() > HEAD_BYTES_MAX {
                Err(BadResponse::Head)
            } else {
                Ok(None)
            };
        }
        let before = self.partial.len();
        let room = bytes.len().min(HEAD_BYTES_MAX.saturating_sub(before));
        self.partial.extend_from_slice(&bytes[..room]);
        match parse(&self.partial)? {
            Some((head, framing, length)) => {
                *bytes = &bytes[length - before..];
                self.partial.clear();
                Ok(Some((head, framing)))
            }
            None if room < bytes.len() => Err(BadResponse::Head),
            None => {
                *bytes = &[];
                Ok(None)
            }
        }
    }
}

/// The head at the front of `bytes` and its length, if it is there as a whole.
fn parse(bytes: &[u8]) -> Result<Option<(Head, Framing, usize)>, BadResponse> {
    let Some(first) = line(bytes, 0) else { return Ok(None) };
    let status = status(&bytes[..first])?;
    let mut head = Head { status, close: false, cache: None, length: None, event_stream: false };
    let (mut chunked, mut at) = (false, first + 1);
    loop {
        let Some(end) = line(bytes, at) else { return Ok(None) };
        let text = trim(&bytes[at..end]);
        at = end + 1;
        if text.is_empty() {
            break;
        }
        chunked |= field(text, &mut head)?;
    }
    let framing = match (status, chunked, head.length) {
        (100..200 | 204 | 304, _, _) => Framing::Length(0),
        (_, true, _) => Framing::CHUNKED,
        (_, false, Some(length)) => Framing::Length(length),
        (_, false, None) => Framing::UntilClose,
    };
    Ok(Some((head, framing, at)))
}

/// Where the line that begins at `from` has its LF.
fn line(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].iter().position(|&byte| byte == b'\n').map(|offset| from + offset)
}

fn status(line: &[u8]) -> Result<u16, BadResponse> {
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(BadResponse::Head)?;
    match rest {
        [b'0' | b'1', b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => {
            let digit = |byte: &u8| u16::from(byte - b'0');
            Ok(digit(a) * 100 + digit(b) * 10 + digit(c))
        }
        _ => Err(BadResponse::Head),
    }
}

/// Notes one field; whether it says that the body is chunked.
fn field(line: &[u8], head: &mut Head) -> Result<bool, BadResponse> {
    // Most fields are of no interest: their first letter and length of name decide it.
    let colon = match line[0] | 0x20 {
        b'c' | b't' | b'x' => {
            line.iter().position(|&byte| byte == b':').ok_or(BadResponse::Head)?
        }
        _ => return Ok(false),
    };
    let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
    match colon {
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            let text = std::str::from_utf8(value).map_err(|_| BadResponse::Head)?;
            let length = text.parse().map_err(|_| BadResponse::Head)?;
            if head.length.is_some_and(|earlier| earlier != length) {
                return Err(BadResponse::Head);
            }
            head.length = Some(length);
        }
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            return Ok(value.to_ascii_lowercase().ends_with(b"chunked"));
        }
        10 if name.eq_ignore_ascii_case(b"connection") => {
            head.close |= value
                .to_ascii_lowercase()
                .split(|&byte| byte == b',')
                .any(|option| trim(option) == b"close");
        }
        12 if name.eq_ignore_ascii_case(b"content-type") => {
            let length = b"text/event-stream".len().min(value.len());
            head.event_stream = value[..length].eq_ignore_ascii_case(b"text/event-stream");
        }
        14 if name.eq_ignore_ascii_case(b"x-cache-status") => head.cache = value.first().copied(),
        _ => {}
    }
    Ok(false)
}

fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All parts as text, with the input cut into pieces of `step` bytes.
    fn read(text: &[u8], step: usize) -> Result<Vec<String>, BadResponse> {
        let (mut reader, mut parts, mut body) = (ResponseReader::default(), Vec::new(), Vec::new());
        for piece in text.chunks(step) {
            let mut bytes = piece;
            while let Some(part) = reader.next(&mut bytes)? {
                match part {
                    Part::Head(head) => parts.push(format!("{} {:?}", head.status, head.length)),
                    Part::Body(piece) => body.extend_from_slice(piece),
                    Part::End => {
                        parts.push(String::from_utf8(std::mem::take(&mut body)).expect("text"));
                    }
                }
            }
        }
        Ok(parts)
    }

    #[test]
    fn responses_are_the_same_however_they_are_cut() {
        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\
            X-Cache-Status: HIT\r\n\r\nhelloHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n\
            HTTP/1.1 404 \r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        for step in 1..=text.len() {
            let parts = read(text, step).expect("well formed");
            assert_eq!(parts, ["200 Some(5)", "hello", "304 Some(9)", "", "404 None", "abc"]);
        }
    }

    #[test]
    fn a_head_tells_close_cache_and_media_type() {
        let text = b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive, CLOSE\r\nX-CACHE-STATUS: STALE\r\n\
            Content-Type: text/event-stream; charset=utf-8\r\n\r\n";
        let (head, framing, length) = parse(text).expect("well formed").expect("whole");
        assert!(head.close && head.event_stream);
        assert_eq!((head.cache, framing, length), (Some(b'S'), Framing::UntilClose, text.len()));
    }

    #[test]
    fn an_end_inside_a_response_is_told() {
        let mut reader = ResponseReader::default();
        assert_eq!(reader.end(), Ok(None));
        let mut bytes: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell";
        while reader.next(&mut bytes).expect("well formed").is_some() {}
        assert_eq!(reader.end(), Err(BadResponse::Cut));
    }

    #[test]
    fn what_is_no_response_is_refused() {
        let long = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &[b'x'; HEAD_BYTES_MAX]].concat();
        for bad in [
            b"SSH-2.0-x\r\n\r\n".as_slice(),
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            &long,
        ] {
            for step in [1, 7, bad.len()] {
                assert_eq!(read(bad, step), Err(BadResponse::Head), "step {step}");
            }
        }
    }
}
