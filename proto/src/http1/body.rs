//! Reading a body, the same for both sides of a proxy: from what was kept and then from what just
//! came.
//!
//! Content is never copied: it is lent from where it lies. Only a trailer section that comes in
//! pieces is gathered, bounded.

use super::{
    chunked::{Decoded, Decoder},
    framing::BodyFraming,
    head::Trailers,
};
use crate::{buf::Buf, limits};

/// Where in a body the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BodyReader {
    /// Missing of a known length; 0 once all content was given and the end was not told yet.
    Length(u64),
    /// In chunks.
    Chunked(Decoder),
    /// Behind the last chunk; this many bytes of the buffer hold no end of the section.
    Trailer { scanned: u32 },
    /// Until the connection ends.
    UntilClose,
}

/// What one step has found.
pub(super) enum BodyStep<'a> {
    /// Content, at least one byte.
    Data(&'a [u8]),
    /// The body has ended.
    End(Trailers<'a>),
    /// Everything given is used up.
    NeedMore,
}

/// Why a body cannot be read on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BodyError {
    Chunk,
    Trailer,
}

impl BodyReader {
    /// The reader for a body with content; `None` where nothing is to be read.
    pub(super) fn new(framing: BodyFraming) -> Option<Self> {
        match framing {
            BodyFraming::None | BodyFraming::Length(0) => None,
            BodyFraming::Length(length) => Some(Self::Length(length)),
            BodyFraming::Chunked => Some(Self::Chunked(Decoder::new())),
            BodyFraming::UntilClose => Some(Self::UntilClose),
        }
    }

    /// Content of the chunk at hand that is still to come.
    pub(super) fn announced(&self) -> u64 {
        match self {
            Self::Chunked(decoder) => decoder.announced(),
            Self::Length(_) | Self::Trailer { .. } | Self::UntilClose => 0,
        }
    }

    /// Reads on, first from `buffer`, then from `input`.
    pub(super) fn step<'a, 'i: 'a>(
        &mut self,
        buffer: &'a mut Buf,
        input: &mut &'i [u8],
    ) -> Result<BodyStep<'a>, BodyError> {
        loop {
            match self {
                Self::Trailer { scanned } => return read_trailer(scanned, buffer, input),
                Self::Length(0) => return Ok(BodyStep::End(Trailers::EMPTY)),
                _ => {}
            }
            let available = if buffer.is_empty() { *input } else { buffer.as_slice() };
            if available.is_empty() {
                return Ok(BodyStep::NeedMore);
            }
            let (skip, len) = match self {
                Self::Length(left) => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(available.len());
                    *left -= len as u64;
                    (0, len)
                }
                Self::UntilClose => (0, available.len()),
                Self::Chunked(decoder) => {
                    match decoder.decode(available).map_err(|_| BodyError::Chunk)? {
                        Decoded::Data { skip, len } => (skip, len),
                        Decoded::Last { skip } => {
                            *self = Self::Trailer { scanned: 0 };
                            (skip, 0)
                        }
                        Decoded::NeedMore => (available.len(), 0),
                    }
                }
                Self::Trailer { .. } => (0, 0),
            };
            drop_bytes(buffer, input, skip);
            if len > 0 {
                return Ok(BodyStep::Data(take(buffer, input, len)));
            }
        }
    }
}

/// Takes the next bytes from wherever they lie.
fn take<'a, 'i: 'a>(buffer: &'a mut Buf, input: &mut &'i [u8], count: usize) -> &'a [u8] {
    if !buffer.is_empty() {
        return buffer.take(count);
    }
    let (taken, rest) = input.split_at(count.min(input.len()));
    *input = rest;
    taken
}

fn drop_bytes(buffer: &mut Buf, input: &mut &[u8], count: usize) {
    if buffer.is_empty() {
        *input = &input[count.min(input.len())..];
    } else {
        buffer.take(count);
    }
}

fn read_trailer<'a, 'i: 'a>(
    scanned: &mut u32,
    buffer: &'a mut Buf,
    input: &mut &'i [u8],
) -> Result<BodyStep<'a>, BodyError> {
    let checked = |section| Trailers::parse(section).map(BodyStep::End).ok_or(BodyError::Trailer);
    if buffer.is_empty() {
        match section_end(input, 0) {
            Some(end) if end <= limits::TRAILER_BYTES_MAX => {
                return checked(take(buffer, input, end));
            }
            None if input.len() < limits::TRAILER_BYTES_MAX => {}
            _ => return Err(BodyError::Trailer),
        }
    }
    // Kept bytes may hold more than the section (pipelined requests), so the maximum is on top of
    // them.
    let held = buffer.len();
    let pushed = buffer.push(input, held.max(limits::TRAILER_BYTES_MAX));
    let from = (*scanned as usize).saturating_sub(3);
    match section_end(buffer.as_slice(), from) {
        Some(end) if end <= limits::TRAILER_BYTES_MAX => {
            // What lies behind the section and came just now stays in the input.
            let behind = (held + pushed - end).min(pushed);
            buffer.unpush(behind);
            *input = &input[pushed - behind..];
            checked(buffer.take(end))
        }
        None if buffer.len() < limits::TRAILER_BYTES_MAX => {
            *input = &input[pushed..];
            *scanned = buffer.len() as u32;
            Ok(BodyStep::NeedMore)
        }
        _ => Err(BodyError::Trailer),
    }
}

/// Length of a trailer section, its empty line included, if it is complete. `from`: where to look
/// on.
fn section_end(bytes: &[u8], from: usize) -> Option<usize> {
    if bytes.starts_with(b"\r\n") {
        return Some(2);
    }
    let at = bytes.get(from..)?.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(from + at + 4)
}
