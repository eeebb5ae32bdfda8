//! A bounded receive buffer: what one machine must keep of received bytes until the rest has come.
//!
//! Empty it owns no memory, so an idle connection costs nothing beside its record. It belongs to
//! one machine; the maximum is given with each push, because it depends on what is being waited
//! for.

/// Bytes received and not yet consumed, in order.
#[derive(Debug, Default)]
pub struct Buf {
    bytes: Vec<u8>,
    /// Consumed prefix of `bytes`, ≤ `bytes.len()`. Kept until the next push or [`Buf::release`],
    /// so that what was taken stays borrowed meanwhile.
    start: usize,
}

impl Buf {
    /// Empty, without memory.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), start: 0 }
    }

    /// What is not consumed yet.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Bytes not consumed yet.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether everything is consumed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends as much of `input` as fits under `bytes_max` unconsumed bytes; says how much that
    /// was.
    pub fn push(&mut self, input: &[u8], bytes_max: usize) -> usize {
        let taken = input.len().min(bytes_max.saturating_sub(self.len()));
        if taken > 0 {
            // Moving the remainder to the front keeps the allocation within the bound.
            self.bytes.drain(..self.start);
            self.start = 0;
            self.bytes.extend_from_slice(&input[..taken]);
        }
        taken
    }

    /// Consumes the next `count` bytes (at most all) and lends them until the next call.
    pub fn take(&mut self, count: usize) -> &[u8] {
        let from = self.start;
        self.start = (from + count).min(self.bytes.len());
        &self.bytes[from..self.start]
    }

    /// Puts another byte in the place of one that is not consumed yet, if there is one.
    pub fn put(&mut self, at: usize, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.start + at) {
            *place = byte;
        }
    }

    /// Drops the last `count` bytes pushed (at most all): they stay with whoever holds the input.
    pub fn unpush(&mut self, count: usize) {
        let keep = self.bytes.len().saturating_sub(count).max(self.start);
        self.bytes.truncate(keep);
    }

    /// Gives the memory back if nothing is left.
    pub fn release(&mut self) {
        if self.is_empty() && self.bytes.capacity() > 0 {
            *self = Self::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_no_more_than_its_maximum_and_no_memory_when_released() {
        let mut buf = Buf::new();
        assert_eq!(buf.push(b"abcdef", 4), 4);
        assert_eq!(buf.take(3), b"abc");
        assert_eq!(buf.push(b"ef", 4), 2);
        assert_eq!(buf.as_slice(), b"def");
        buf.unpush(1);
        assert_eq!(buf.take(9), b"de");
        buf.release();
        assert_eq!((buf.len(), buf.bytes.capacity()), (0, 0));
    }

    #[test]
    fn unpush_never_reaches_consumed_bytes() {
        let mut buf = Buf::new();
        buf.push(b"abc", 8);
        buf.take(2);
        buf.unpush(9);
        assert!(buf.is_empty());
        assert_eq!(buf.push(b"x", 8), 1);
        assert_eq!(buf.as_slice(), b"x");
    }
}
