//! Whether a body is the one it should be: exact bytes where they are kept, length and hash where
//! the body is long. Pure.

use crate::limits::BODY_KEPT_BYTES_MAX;

/// What a body has to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Expectation {
    pub(crate) status: u16,
    pub(crate) length: u64,
    /// Of the whole body.
    hash: Hash,
    /// The body itself, unless longer than [`BODY_KEPT_BYTES_MAX`].
    kept: Option<Vec<u8>>,
}

/// Takes in the first body of a path and makes an expectation of it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Lesson {
    length: u64,
    hash: Hash,
    kept: Vec<u8>,
}

/// Compares one body, piece by piece, with an expectation.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Comparison {
    offset: u64,
    hash: Hash,
    differs: bool,
}

/// How a body is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BadBody {
    /// Fewer or more bytes than expected, though the framing was complete.
    Length,
    /// The right number of other bytes.
    Content,
}

impl Lesson {
    pub(crate) fn take(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        self.hash.take(piece);
        if self.length <= BODY_KEPT_BYTES_MAX as u64 {
            self.kept.extend_from_slice(piece);
        } else {
            self.kept = Vec::new();
        }
    }

    pub(crate) fn finish(self, status: u16) -> Expectation {
        let kept = (self.length <= BODY_KEPT_BYTES_MAX as u64).then_some(self.kept);
        Expectation { status, length: self.length, hash: self.hash, kept }
    }
}

impl Expectation {
    /// That a response with this status has exactly this body.
    pub(crate) fn exactly(status: u16, body: &[u8]) -> Self {
        let mut lesson = Lesson::default();
        lesson.take(body);
        lesson.finish(status)
    }
}

impl Comparison {
    pub(crate) fn take(&mut self, piece: &[u8], expected: &Expectation) {
        match &expected.kept {
            Some(kept) if !self.differs => {
                let from = usize::try_from(self.offset).unwrap_or(usize::MAX);
                let to = from.saturating_add(piece.len());
                self.differs = kept.get(from..to).is_some_and(|there| there != piece);
            }
            Some(_) => {}
            None => self.hash.take(piece),
        }
        self.offset += piece.len() as u64;
    }

    /// # Errors
    /// How the body differs from what was expected.
    pub(crate) fn finish(self, expected: &Expectation) -> Result<(), BadBody> {
        if self.offset != expected.length {
            Err(BadBody::Length)
        } else if self.differs || (expected.kept.is_none() && self.hash != expected.hash) {
            Err(BadBody::Content)
        } else {
            Ok(())
        }
    }
}

/// FNV-1a, 64 bits: enough to notice damage; nobody here is an adversary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::default();
        hash.take(bytes);
        hash.0
    }

    pub(crate) const fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(body: &[u8], expected: &Expectation, step: usize) -> Result<(), BadBody> {
        let mut comparison = Comparison::default();
        body.chunks(step).for_each(|piece| comparison.take(piece, expected));
        comparison.finish(expected)
    }

    #[test]
    fn short_long_and_wrong_bodies_are_told_apart() {
        let check = |expected: &Expectation, body: &[u8]| {
            let mut wrong = body.to_vec();
            wrong[body.len() / 2] ^= 1;
            let long = [body, b"x"].concat();
            for step in [1, 3, body.len()] {
                assert_eq!(compare(body, expected, step), Ok(()));
                assert_eq!(compare(&wrong, expected, step), Err(BadBody::Content));
                assert_eq!(compare(&body[1..], expected, step), Err(BadBody::Length));
                assert_eq!(compare(&long, expected, step), Err(BadBody::Length));
            }
        };
        let short = Expectation::exactly(200, b"hello");
        assert!(short.kept.is_some());
        check(&short, b"hello");
        let hashed = Expectation { kept: None, ..short };
        check(&hashed, b"hello");
    }

    #[test]
    fn a_body_over_the_limit_is_kept_as_its_hash_only() {
        let body = vec![7; BODY_KEPT_BYTES_MAX + 1];
        let expected = Expectation::exactly(200, &body);
        assert!(expected.kept.is_none());
        assert_eq!(compare(&body, &expected, 1 << 20), Ok(()));
    }
}
