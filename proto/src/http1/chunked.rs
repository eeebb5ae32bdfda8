//! The chunked coding (RFC 9112 §7.1): an incremental decoder, and the few bytes around a chunk
//! when encoding.
//!
//! The decoder keeps no bytes: it says which ranges of its input are content. Lines end in CRLF and
//! nothing else; extensions are checked for control bytes and skipped, within two limits: a line's
//! and a body's.
//!
//! ```text
//!   Size ──; ──▶ Extension ─CR▶ SizeLf ──▶ Data ──▶ DataCr ──▶ DataLf ──▶ Size
//!                                  └─ size 0 ──▶ Last (trailers follow, read by `body`)
//! ```

use crate::limits;

/// Where in a chunked body the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decoder {
    state: State,
    /// Size of the chunk at hand, then what is missing of it.
    left: u64,
    /// Bytes of the size line so far, ≤ `CHUNK_LINE_BYTES_MAX`.
    line_bytes: u16,
    /// Of all size lines so far, ≤ `CHUNK_EXTENSION_BYTES_MAX`.
    extension_bytes: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Size,
    /// White space behind the size; only a semicolon may follow.
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Last,
}

/// What one call has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// Skip this many bytes; then come `len` ≥ 1 of content.
    Data {
        /// Framing in front of the content.
        skip: usize,
        /// Content; may be only a part of its chunk.
        len: usize,
    },
    /// Skip this many bytes; the trailer section follows (at least its empty line).
    Last {
        /// The rest of the framing.
        skip: usize,
    },
    /// All of the input was framing, and more is to come.
    NeedMore,
}

/// Bytes that are no chunk, or over the limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkError;

impl Decoder {
    /// At the start of a body.
    pub const fn new() -> Self {
        Self { state: State::Size, left: 0, line_bytes: 0, extension_bytes: 0 }
    }

    /// Looks at the next bytes. They count as read: all that is skipped and the content.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, ChunkError> {
        let mut at = 0;
        while let Some(&b) = input.get(at) {
            match self.state {
                State::Data => {
                    let len =
                        usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len() - at);
                    self.left -= len as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Decoded::Data { skip: at, len });
                }
                State::Last => return Ok(Decoded::Last { skip: at }),
                _ => self.framing_byte(b)?,
            }
            at += 1;
        }
        match self.state {
            // Said as soon as it is known, so that it does not depend on how the bytes were cut.
            State::Last if at > 0 => Ok(Decoded::Last { skip: at }),
            _ => Ok(Decoded::NeedMore),
        }
    }

    /// Content that the chunk at hand has still to give; 0 outside its data.
    pub fn announced(&self) -> u64 {
        if self.state == State::Data { self.left } else { 0 }
    }

    fn framing_byte(&mut self, b: u8) -> Result<(), ChunkError> {
        self.state = match (self.state, b) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (b as char).to_digit(16).map_or(0, u64::from);
                self.left = self.left.checked_mul(16).ok_or(ChunkError)? | digit;
                self.count_line_byte()?;
                State::Size
            }
            (State::Size, b'\r') if self.line_bytes > 0 => State::SizeLf,
            // BWS may stand before the semicolon, and only there (§7.1.1).
            (State::Size | State::Space, b' ' | b'\t') if self.line_bytes > 0 => {
                self.count_extension_byte()?;
                State::Space
            }
            (State::Size | State::Space, b';') if self.line_bytes > 0 => {
                self.count_extension_byte()?;
                State::Extension
            }
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count_extension_byte()?;
                State::Extension
            }
            (State::SizeLf, b'\n') => {
                self.line_bytes = 0;
                if self.left == 0 { State::Last } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            _ => return Err(ChunkError),
        };
        Ok(())
    }

    fn count_line_byte(&mut self) -> Result<(), ChunkError> {
        self.line_bytes += 1;
        if usize::from(self.line_bytes) > limits::CHUNK_LINE_BYTES_MAX {
            Err(ChunkError)
        } else {
            Ok(())
        }
    }

    fn count_extension_byte(&mut self) -> Result<(), ChunkError> {
        self.count_line_byte()?;
        self.extension_bytes += 1;
        if self.extension_bytes > limits::CHUNK_EXTENSION_BYTES_MAX {
            Err(ChunkError)
        } else {
            Ok(())
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes the size line of a chunk of `len` ≥ 1 bytes; its data and [`CHUNK_END`] follow.
pub fn start(out: &mut Vec<u8>, len: usize) {
    assert!(len > 0, "a chunk of no bytes would end the body");
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for at in (0..digits).rev() {
        out.push(b"0123456789abcdef"[len >> (4 * at) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes one whole chunk; nothing for no bytes, which would end the body.
pub fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        start(out, data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(CHUNK_END);
    }
}

/// Behind the data of each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// The last chunk and an empty trailer section.
pub const BODY_END: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Content, and what is behind the last chunk's line; `None` while incomplete.
    type Read = Result<(Vec<u8>, Option<Vec<u8>>), ChunkError>;

    fn decode(pieces: &[&[u8]]) -> Read {
        let mut decoder = Decoder::new();
        let mut content = Vec::new();
        let mut pieces = pieces.iter();
        while let Some(&piece) = pieces.next() {
            let mut rest = piece;
            while !rest.is_empty() {
                rest = match decoder.decode(rest)? {
                    Decoded::Data { skip, len } => {
                        assert!(len > 0);
                        content.extend_from_slice(&rest[skip..skip + len]);
                        &rest[skip + len..]
                    }
                    Decoded::Last { skip } => {
                        let mut behind = rest[skip..].to_vec();
                        behind.extend(pieces.flat_map(|piece| piece.iter()));
                        return Ok((content, Some(behind)));
                    }
                    Decoded::NeedMore => &[],
                };
            }
        }
        Ok((content, None))
    }

    fn check(body: &[u8], expected: Read) {
        assert_eq!(decode(&[body]), expected, "{:?}", String::from_utf8_lossy(body));
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(decode(&bytes), expected, "{:?} byte by byte", String::from_utf8_lossy(body));
    }

    #[test]
    fn rfc9112_7_1_chunks_are_joined() {
        let read = |content: &[u8], behind: Option<&[u8]>| {
            Ok((content.to_vec(), behind.map(<[u8]>::to_vec)))
        };
        check(b"3\r\nabc\r\n0\r\n\r\n", read(b"abc", Some(b"\r\n")));
        check(
            b"1\r\na\r\n02\r\nbc\r\n000\r\nX: y\r\n\r\nnext",
            read(b"abc", Some(b"X: y\r\n\r\nnext")),
        );
        check(b"A\r\n0123456789\r\n0\r\n", read(b"0123456789", Some(b"")));
        check(b"a\r\n01234", read(b"01234", None));
        check(b"1;a=b;c=\"d\"\r\na\r\n0;x\r\n", read(b"a", Some(b"")));
        check(b"1 ;a\r\na\r\n0\t;x\r\n", read(b"a", Some(b"")));
    }

    #[test]
    fn what_is_no_chunk_is_an_error() {
        for body in [
            &b"\r\n"[..],
            b"g\r\n",
            b" 1\r\na\r\n",
            b"+1\r\na\r\n",
            b"-1\r\na\r\n",
            b"0x1\r\na\r\n",
            b"1\na\n",
            b"1\ra",
            b"1;a\nb\r\n",
            b"1;a\rb\r\n",
            b"1;a\0b\r\n",
            b"1 \r\na\r\n",
            b"1 a\r\na\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"1\r\na\rb",
            b"1\r\na0\r\n",
            b"10000000000000000\r\n",
            b"fffffffffffffffff\r\n",
        ] {
            check(body, Err(ChunkError));
        }
    }

    #[test]
    fn size_lines_and_extensions_are_bounded() {
        let line = |len: usize| [b"1;", &vec![b'a'; len - 2][..], b"\r\nx\r\n"].concat();
        check(&line(limits::CHUNK_LINE_BYTES_MAX), Ok((b"x".to_vec(), None)));
        check(&line(limits::CHUNK_LINE_BYTES_MAX + 1), Err(ChunkError));
        check(&[&[b'0'; limits::CHUNK_LINE_BYTES_MAX + 1][..], b"1\r\n"].concat(), Err(ChunkError));
        let chunks = limits::CHUNK_EXTENSION_BYTES_MAX as usize / 200 + 1;
        check(&line(201).repeat(chunks), Err(ChunkError));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cuts in prop::collection::vec(any::<usize>(), 0..6),
        ) {
            let mut body = Vec::new();
            for data in &chunks {
                chunk(&mut body, data);
            }
            body.extend_from_slice(BODY_END);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % body.len()).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decode(&pieces), Ok((chunks.concat(), Some(b"\r\n".to_vec()))));
        }

        #[test]
        fn cutting_changes_nothing(
            body in prop::collection::vec(
                prop::sample::select(b"0123af;x \r\n\r\n\r\n".to_vec()),
                0..40,
            ),
            cut in any::<usize>(),
        ) {
            let cut = cut % (body.len() + 1);
            prop_assert_eq!(decode(&[&body[..cut], &body[cut..]]), decode(&[&body]));
        }
    }
}
