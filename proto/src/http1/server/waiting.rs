//! What a downstream connection waits for, how long, and what it is told when that has passed.
//!
//! Leaves to others: what it waits for at the moment ([`super::Server::waiting`]), the timer.

use super::super::refusal::Refusal;
use crate::limits;

/// What a connection waits for, and so which deadline runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Waiting {
    /// A request; bytes of it end the wait. Expires silently.
    Idle,
    /// The rest of a head; counted from its first byte, not renewed by more.
    Head,
    /// More of a body; renewed by each byte.
    Body,
    /// Nothing of the client: a response is outstanding, or the connection is closed.
    Nothing,
}

impl Waiting {
    /// How long, in ms from the moment the wait began (or was renewed).
    pub const fn limit_ms(self) -> Option<u64> {
        match self {
            Self::Idle => Some(limits::KEEP_ALIVE_IDLE_MS),
            Self::Head => Some(limits::HEAD_DEADLINE_MS),
            Self::Body => Some(limits::BODY_IDLE_MS),
            Self::Nothing => None,
        }
    }

    /// Whether received bytes start the wait anew.
    pub const fn is_renewed_by_bytes(self) -> bool {
        matches!(self, Self::Body)
    }

    /// What to answer when it has passed; `None`: close without a word.
    pub const fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Head => Some(Refusal::HeadTimeout),
            Self::Body => Some(Refusal::BodyTimeout),
            Self::Idle | Self::Nothing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{super::head::FieldSpace, After, Server},
        *,
    };

    #[test]
    fn a_slow_head_and_a_slow_body_have_their_deadlines() {
        let mut server = Server::new(1000);
        let feed = |server: &mut Server, bytes: &str| {
            let _ = server.step(&mut bytes.as_bytes(), &mut FieldSpace::new());
            server.waiting()
        };
        assert_eq!(feed(&mut server, ""), Waiting::Idle);
        assert_eq!(feed(&mut server, "\r\n"), Waiting::Idle);
        assert_eq!(feed(&mut server, "P"), Waiting::Head);
        assert_eq!(feed(&mut server, "UT / HTTP/1.1\r\nHost: a\r\nContent-Le"), Waiting::Head);
        assert_eq!(feed(&mut server, "ngth: 2\r\n\r\n"), Waiting::Body);
        assert_eq!(feed(&mut server, "a"), Waiting::Body);
        assert_eq!(feed(&mut server, "b"), Waiting::Body);
        assert_eq!(feed(&mut server, ""), Waiting::Nothing, "the response is outstanding");
        assert_eq!(server.response_done(), After::Continue);
        assert_eq!(server.waiting(), Waiting::Idle);
        assert_eq!(Waiting::Head.refusal().map(Refusal::status), Some(408));
        assert!(!Waiting::Head.is_renewed_by_bytes());
    }
}
