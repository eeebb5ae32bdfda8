//! A head that comes in pieces, or behind kept bytes: gathered in the connection's buffer until it
//! is complete.
//!
//! It is parsed again only when another line has come, so a head sent byte by byte costs its lines
//! (at most `FIELD_COUNT_MAX` of them), not the square of its bytes. What is found does not depend
//! on how the bytes were cut.

use crate::{buf::Buf, limits};

/// What the bytes at hand are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gathered<E> {
    /// A head of this length, at the start of the buffer.
    Complete(usize),
    /// The beginning of a head; everything given is kept.
    Partial,
    /// No head.
    Failed(E),
}

/// Moves what is needed from `input` to the non-empty `buffer`. `scanned` counts the bytes of the
/// buffer known to hold no complete head. `parse` looks at the start of at most
/// [`limits::HEAD_BYTES_MAX`] bytes and must fail on that many without a head.
pub(super) fn gather<E: Copy + PartialEq>(
    buffer: &mut Buf,
    scanned: &mut u32,
    input: &mut &[u8],
    parse: impl Fn(&[u8]) -> Gathered<E>,
) -> Gathered<E> {
    let held = buffer.len();
    // What was kept comes first; the input is touched only when no head is in it.
    if (*scanned as usize) < held {
        match parse(bounded(buffer.as_slice())) {
            Gathered::Partial => {}
            Gathered::Complete(len) => {
                *scanned = 0;
                return Gathered::Complete(len);
            }
            failed => return failed,
        }
    }
    let pushed = buffer.push(input, limits::HEAD_BYTES_MAX);
    let full = buffer.len() >= limits::HEAD_BYTES_MAX;
    let found = if full || buffer.as_slice()[held..].contains(&b'\n') {
        parse(bounded(buffer.as_slice()))
    } else {
        Gathered::Partial
    };
    // What lies behind the head stays in the input.
    let behind = match found {
        Gathered::Complete(len) => (held + pushed).saturating_sub(len).min(pushed),
        Gathered::Partial | Gathered::Failed(_) => 0,
    };
    buffer.unpush(behind);
    *input = &input[pushed - behind..];
    *scanned = if found == Gathered::Partial { buffer.len() as u32 } else { 0 };
    found
}

/// The bytes in which a head must lie.
pub(super) fn bounded(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(limits::HEAD_BYTES_MAX)]
}
