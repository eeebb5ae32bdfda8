//! Where a body ends (RFC 9112 §6): by length, by chunks, or with the connection.
//!
//! Written apart from `proto`'s codec on purpose: a tool that checks a server must not share its
//! mistakes. Used for responses by the load and for request bodies by the origin. Pure.
//!
//! ```text
//! Size ─▶ Data ─▶ DataEnd ─▶ Size … ─(size 0)─▶ Trailer ─(empty line)─▶ end
//! ```

/// Decodes one body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// Chunked coding (RFC 9112 §7.1).
    Chunked(Chunk),
    /// Everything until the connection ends.
    UntilClose,
}

/// Where in the chunked coding the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Chunk {
    /// In a size line; `extension` once past the digits.
    Size { size: u64, digits: u8, extension: bool },
    /// In data, so many bytes to come.
    Data(u64),
    /// At the CRLF behind data.
    DataEnd,
    /// In the trailer section; `empty` if nothing of the current line was seen yet.
    Trailer { empty: bool },
    /// Behind the last line.
    End,
}

/// The bytes are no such coding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadChunk;

impl Framing {
    /// The start of a chunked body.
    pub(crate) const CHUNKED: Self =
        Self::Chunked(Chunk::Size { size: 0, digits: 0, extension: false });

    /// Whether the body is complete.
    pub(crate) const fn is_end(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::End))
    }

    /// Takes the next piece of content off `bytes`. `None`: `bytes` is used up or the body has
    /// ended.
    ///
    /// # Errors
    /// [`BadChunk`], after which the connection is of no use.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, BadChunk> {
        match self {
            Self::Length(left) => {
                let piece = take(bytes, left);
                Ok((!piece.is_empty()).then_some(piece))
            }
            Self::UntilClose => {
                let piece = std::mem::take(bytes);
                Ok((!piece.is_empty()).then_some(piece))
            }
            Self::Chunked(chunk) => chunk.next(bytes),
        }
    }
}

impl Chunk {
    fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, BadChunk> {
        loop {
            if let Self::Data(left) = self {
                let piece = take(bytes, left);
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                if !piece.is_empty() {
                    return Ok(Some(piece));
                }
                if bytes.is_empty() {
                    return Ok(None);
                }
                continue;
            }
            if *self == Self::End {
                return Ok(None);
            }
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(None) };
            *bytes = rest;
            *self = self.step(byte)?;
        }
    }

    /// One byte outside data.
    fn step(self, byte: u8) -> Result<Self, BadChunk> {
        match (self, byte) {
            (Self::Size { digits: 1.., size: 0, .. }, b'\n') => Ok(Self::Trailer { empty: true }),
            (Self::Size { digits: 1.., size, .. }, b'\n') => Ok(Self::Data(size)),
            (Self::Size { digits: digits @ 1.., size, .. }, b'\r' | b';' | b' ' | b'\t') => {
                Ok(Self::Size { size, digits, extension: true })
            }
            (Self::Size { extension: true, .. }, _) => Ok(self),
            (Self::Size { size, digits: digits @ 0..15, extension }, _) => {
                let digit = (byte as char).to_digit(16).ok_or(BadChunk)?;
                Ok(Self::Size { size: size * 16 + u64::from(digit), digits: digits + 1, extension })
            }
            (Self::DataEnd, b'\r') => Ok(self),
            (Self::DataEnd, b'\n') => Ok(Self::Size { size: 0, digits: 0, extension: false }),
            (Self::Trailer { empty: true }, b'\n') => Ok(Self::End),
            (Self::Trailer { empty }, b'\r') => Ok(Self::Trailer { empty }),
            (Self::Trailer { .. }, b'\n') => Ok(Self::Trailer { empty: true }),
            (Self::Trailer { .. }, _) => Ok(Self::Trailer { empty: false }),
            _ => Err(BadChunk),
        }
    }
}

/// Up to `left` bytes off the front, `left` lowered by as many.
fn take<'a>(bytes: &mut &'a [u8], left: &mut u64) -> &'a [u8] {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    let (piece, rest) = bytes.split_at(count);
    *bytes = rest;
    *left -= count as u64;
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content and what is left over, with the input cut into pieces of `step` bytes.
    fn decode(mut framing: Framing, text: &[u8], step: usize) -> (Vec<u8>, usize, bool) {
        let (mut content, mut used) = (Vec::new(), 0);
        for piece in text.chunks(step) {
            let mut bytes = piece;
            while let Some(part) = framing.next(&mut bytes).expect("well formed") {
                content.extend_from_slice(part);
            }
            used += piece.len() - bytes.len();
            if framing.is_end() {
                break;
            }
        }
        (content, used, framing.is_end())
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let text = b"5\r\nhello\r\n1;x=\"5\"\r\n \r\n0005\r\nworld\r\n0\r\nA: b\r\n\r\nnext";
        for step in 1..=text.len() {
            let (content, used, end) = decode(Framing::CHUNKED, text, step);
            assert_eq!(content, b"hello world", "step {step}");
            assert_eq!((used, end), (text.len() - 4, true), "step {step}");
        }
        assert_eq!(decode(Framing::Length(3), b"abcd", 2), (b"abc".to_vec(), 3, true));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for bad in ["\r\n", "g\r\n", "5\r\nhelloX", "fffffffffffffffff\r\n"] {
            let (mut framing, mut bytes) = (Framing::CHUNKED, bad.as_bytes());
            let result = loop {
                match framing.next(&mut bytes) {
                    Ok(Some(_)) => {}
                    other => break other,
                }
            };
            assert_eq!(result, Err(BadChunk), "{bad:?}");
        }
    }
}
