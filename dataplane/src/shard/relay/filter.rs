//! What an edge that follows wants of the topics: it says so in lines, behind its request.
//!
//! ```text
//!   have <topic>          it has this topic up to its cursor: nothing of it may be left out
//!   want <n> <topic>      it wants this topic, and what there was before; the answer names n
//!   go                    that was all to begin with
//!   drop <topic>          it wants it no more
//! ```
//! Every line is true when it is read: who says the same again, or what is true already, changes
//! nothing. What is not such a line ends the connection.
//!
//! Leaves to others: what it is sent (`child`), what there was before (`log`).

use std::collections::VecDeque;

use hashbrown::HashSet;

use crate::{limits, shard::topic::is_name};

/// The topics that an edge is told.
#[derive(Default)]
pub(super) struct Filter {
    /// Of a line that has not ended.
    line: Vec<u8>,
    /// It has said all that it wants to begin with.
    is_complete: bool,
    told: HashSet<Box<str>>,
    wanted: VecDeque<(u64, Box<str>)>,
    topics_max: usize,
}

/// What was said is none of the lines, or is about too many topics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Garbled;

impl Filter {
    /// It has said nothing yet, and may ask for so many.
    pub(super) fn new(topics_max: u32) -> Self {
        Self { topics_max: topics_max as usize, ..Self::default() }
    }

    /// Takes what it says.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), Garbled> {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() > LINE_BYTES_MAX {
                return Err(Garbled);
            }
            if self.line.last() == Some(&b'\n') {
                let mut line = std::mem::take(&mut self.line);
                line.pop();
                self.take(std::str::from_utf8(&line).map_err(|_| Garbled)?)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &str) -> Result<(), Garbled> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["go"] => self.is_complete = true,
            ["have", topic] if is_name(topic) && !self.is_complete => {
                self.told.insert(topic.into());
            }
            ["want", ask, topic] if is_name(topic) => {
                let ask = ask.parse().map_err(|_| Garbled)?;
                self.wanted.retain(|(_, wanted)| **wanted != *topic);
                self.wanted.push_back((ask, topic.into()));
            }
            ["drop", topic] => {
                self.told.remove(topic);
                self.wanted.retain(|(_, wanted)| **wanted != *topic);
            }
            _ => return Err(Garbled),
        }
        let count = self.told.len().max(self.wanted.len());
        if count > self.topics_max { Err(Garbled) } else { Ok(()) }
    }

    /// Whether it has said all that it wants to begin with.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Topics that it is told, or will be.
    pub(super) fn count(&self) -> usize {
        self.told.len() + self.wanted.len()
    }

    /// Whether it is told this topic.
    pub(super) fn tells(&self, topic: &str) -> bool {
        self.told.contains(topic)
    }

    /// The next topic that begins for it; from here on it is told.
    pub(super) fn begin_next(&mut self) -> Option<(u64, Box<str>)> {
        let (ask, topic) = self.wanted.pop_front()?;
        self.told.insert(topic.clone());
        Some((ask, topic))
    }

    /// Whether a topic has still to begin.
    pub(super) fn has_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }
}

const LINE_BYTES_MAX: usize = limits::TOPIC_NAME_BYTES_MAX + 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_edge_wants_is_read_in_whatever_pieces_it_comes() {
        let lines = b"have a\nwant 1 b\ngo\nwant 2 c\ndrop a\nwant 3 b\n";
        for cut in 0..lines.len() {
            let mut filter = Filter::new(4);
            filter.read(&lines[..cut]).expect("lines");
            filter.read(&lines[cut..]).expect("lines");
            assert!(filter.is_complete() && !filter.tells("a") && !filter.tells("b"));
            assert_eq!(filter.begin_next(), Some((2, "c".into())));
            assert_eq!(filter.begin_next(), Some((3, "b".into())));
            assert!(filter.tells("b") && !filter.has_wanted());
        }
    }

    #[test]
    fn what_is_no_such_line_or_too_much_is_refused() {
        let long = format!("have {}", "x".repeat(400));
        for line in ["want x", "have", "have a b", "", "GET / HTTP/1.1", "go\nhave a", &long] {
            let mut filter = Filter::new(4);
            assert_eq!(filter.read(format!("{line}\n").as_bytes()), Err(Garbled), "{line}");
        }
        let mut filter = Filter::new(4);
        let have = |nth: usize| format!("have t{nth}\n");
        let all: String = (0..4).map(have).collect();
        assert_eq!(filter.read(all.as_bytes()), Ok(()));
        assert_eq!(filter.read(b"have one-more\n"), Err(Garbled));
    }
}
