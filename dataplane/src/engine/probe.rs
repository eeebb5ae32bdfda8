//! Which engine to take, and why: asked once, at start, and by `doctor`.

use crate::engine::{
    Descriptors, EngineChoice, EngineKind, StartError, Taken,
    uring::ring::{self, Level},
};

/// What was taken, with the ring's level if it is io_uring.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) taken: Taken,
    pub(crate) level: Option<Level>,
}

/// Which engine `choice` means on this machine, and why.
///
/// # Errors
/// [`StartError::Unavailable`] if io_uring was asked for by name and cannot be had.
pub fn probe(choice: EngineChoice) -> Result<Taken, StartError> {
    choose(choice, Descriptors::Auto).map(|choice| choice.taken)
}

pub(crate) fn choose(choice: EngineChoice, descriptors: Descriptors) -> Result<Choice, StartError> {
    let found = match choice {
        EngineChoice::Epoll => return Ok(epoll("asked for by configuration".into())),
        EngineChoice::Auto | EngineChoice::IoUring => ring::probe(),
    };
    let direct = descriptors == Descriptors::Auto;
    decide(choice, found.map(|level| Level { direct: level.direct && direct, ..level }))
}

fn decide(choice: EngineChoice, found: Result<Level, String>) -> Result<Choice, StartError> {
    match (choice, found) {
        (_, Ok(level)) => {
            let taken = Taken { kind: EngineKind::IoUring, why: level.describe().into() };
            Ok(Choice { taken, level: Some(level) })
        }
        (EngineChoice::IoUring, Err(why)) => Err(StartError::Unavailable { why }),
        (_, Err(why)) => Ok(epoll(format!("io_uring is not available: {why}"))),
    }
}

fn epoll(why: String) -> Choice {
    Choice { taken: Taken { kind: EngineKind::Epoll, why }, level: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_is_taken_with_the_reason_where_io_uring_is_forbidden() {
        let refused = || Err("EPERM: forbidden".into());
        let choice = decide(EngineChoice::Auto, refused()).expect("never an error");
        assert_eq!(choice.taken.kind, EngineKind::Epoll);
        assert!(choice.taken.why.contains("EPERM"));
        match decide(EngineChoice::IoUring, refused()) {
            Err(StartError::Unavailable { why }) => assert_eq!(why, "EPERM: forbidden"),
            other => panic!("expected an error, got {other:?}"),
        }
    }

    #[test]
    fn the_engine_asked_for_is_taken() {
        let choice = choose(EngineChoice::Epoll, Descriptors::Auto).expect("every Linux has it");
        assert_eq!((choice.taken.kind, choice.level), (EngineKind::Epoll, None));
    }
}
