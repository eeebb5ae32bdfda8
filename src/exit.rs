//! How the program ends: one type of failure, its exit code, and how it is told.
//!
//! ```text
//!  0 ok   1 error   2 usage   3 not found   4 conflict   5 not allowed   6 timeout   7 degraded
//! ```

use std::{error::Error, fmt::Write as _, process::ExitCode};

use crate::output;

/// Why the program ends with something else than 0. The text says which action failed; `remedy`
/// what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    remedy: Option<String>,
}

/// The kinds that a script can tell apart; the numbers are CONTRACTS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Anything else.
    Error = 1,
    /// What was typed, or a value in it, is not understood.
    Usage = 2,
    /// It does not exist.
    NotFound = 3,
    /// It exists already, or was changed meanwhile.
    Conflict = 4,
    /// No API key, a wrong one, or one without the scope.
    Auth = 5,
    /// Not within the time given.
    Timeout = 6,
    /// Done in part, or working with less than it should have.
    Degraded = 7,
}

impl Failure {
    /// A failure of this kind; `message` names the action that failed.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), remedy: None }
    }

    /// Of the kind that has no other name.
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::new(Kind::Error, message)
    }

    /// `message`, and after it the error with all its sources.
    pub(crate) fn because(message: impl Into<String>, cause: &dyn Error) -> Self {
        let mut text = message.into();
        let mut next = Some(cause);
        while let Some(error) = next {
            let _ = write!(text, ": {error}");
            next = error.source();
        }
        Self::error(text)
    }

    /// The same, as a mistake in what was typed or configured.
    pub(crate) fn usage(mut self) -> Self {
        self.kind = Kind::Usage;
        self
    }

    /// Adds what to do about it.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// What it is, in one line for a log.
    pub(crate) fn line(&self) -> String {
        let remedy =
            self.remedy.as_ref().map(|remedy| format!(" ({})", remedy.replace('\n', "; ")));
        format!("{}{}", self.message, remedy.unwrap_or_default())
    }

    /// The kind.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Tells it on stderr and gives the exit code.
    pub(crate) fn tell(&self) -> ExitCode {
        output::talk(&format!("error: {}", self.message));
        if let Some(remedy) = &self.remedy {
            output::talk(&format!("  {}", remedy.replace('\n', "\n  ")));
        }
        ExitCode::from(self.kind as u8)
    }
}
