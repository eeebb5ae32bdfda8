//! A request as the origin sees it: line, the few fields it obeys, framing of the body.
//!
//! Apart from `proto` on purpose, like all codecs of this tool. Pure.

use crate::{framing::Framing, limits::REQUEST_BYTES_MAX, verify::Hash};

/// The head of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// In origin form.
    pub(super) target: String,
    pub(super) framing: Framing,
    /// The client wants to be told to go on before it sends the body.
    pub(super) expects_continue: bool,
    /// The client closes behind the answer.
    pub(super) close: bool,
    pub(super) if_none_match: Option<String>,
    pub(super) if_modified_since: Option<String>,
}

/// Why a request is refused, after which the connection closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BadRequest {
    /// 400
    Syntax,
    /// 431
    TooLong,
}

/// What a body amounted to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Digest {
    pub(super) length: u64,
    pub(super) hash: Hash,
}

impl Digest {
    pub(super) fn take(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        self.hash.take(piece);
    }
}

impl Request {
    /// The head at the front of `bytes` and its length, if it is there as a whole.
    ///
    /// # Errors
    /// [`BadRequest`] for what is no request or over the limit.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, BadRequest> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            let long = bytes.len() > REQUEST_BYTES_MAX;
            return if long { Err(BadRequest::TooLong) } else { Ok(None) };
        };
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| BadRequest::Syntax)?;
        let mut lines = text.split("\r\n");
        let mut request = Self::line(lines.next().unwrap_or(""))?;
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(BadRequest::Syntax)?;
            request.field(name, value.trim())?;
        }
        Ok(Some((request, end + 4)))
    }

    fn line(line: &str) -> Result<Self, BadRequest> {
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(BadRequest::Syntax);
        };
        // The absolute form is what a forward proxy sends; only its path matters here.
        let target = match target.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
            None => target,
        };
        if method.is_empty() || !target.starts_with('/') || !version.starts_with("HTTP/1.") {
            return Err(BadRequest::Syntax);
        }
        Ok(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            framing: Framing::Length(0),
            expects_continue: false,
            close: version == "HTTP/1.0",
            if_none_match: None,
            if_modified_since: None,
        })
    }

    fn field(&mut self, name: &str, value: &str) -> Result<(), BadRequest> {
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let length = value.parse().map_err(|_| BadRequest::Syntax)?;
                if self.framing == Framing::Length(0) {
                    self.framing = Framing::Length(length);
                } else {
                    // Twice, or beside chunked: no two readers would agree (RFC 9112 §6.3).
                    return Err(BadRequest::Syntax);
                }
            }
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => {
                if self.framing != Framing::Length(0) {
                    return Err(BadRequest::Syntax);
                }
                self.framing = Framing::CHUNKED;
            }
            "transfer-encoding" => return Err(BadRequest::Syntax),
            "connection" => {
                let option = |name: &str| {
                    value.split(',').any(|option| option.trim().eq_ignore_ascii_case(name))
                };
                self.close = option("close") || (self.close && !option("keep-alive"));
            }
            "expect" => self.expects_continue = value.eq_ignore_ascii_case("100-continue"),
            "if-none-match" => self.if_none_match = Some(value.to_owned()),
            "if-modified-since" => self.if_modified_since = Some(value.to_owned()),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_when_its_head_is_whole() {
        let text = b"POST http://a/x?y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
            Expect: 100-continue\r\nConnection: close\r\n\r\n0\r\n\r\n";
        let (request, length) = Request::parse(text).expect("fine").expect("whole");
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/x?y"));
        assert_eq!((request.framing, length), (Framing::CHUNKED, text.len() - 5));
        assert!(request.expects_continue && request.close);
        assert_eq!(Request::parse(&text[..length - 1]), Ok(None));
    }

    #[test]
    fn conflicting_framing_is_refused() {
        for fields in [
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip",
            "Content-Length: x",
        ] {
            let text = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
            assert_eq!(Request::parse(text.as_bytes()), Err(BadRequest::Syntax), "{fields}");
        }
    }
}
