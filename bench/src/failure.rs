//! Why a bench command ended without a result: what was being done, the cause, and the exit code
//! that fits.

use std::{fmt, process::ExitCode};

/// A command that did not end well.
#[derive(Debug)]
pub struct Failure {
    class: Class,
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Which of the exit codes of CONTRACTS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    /// Something failed while running, or a bound was missed.
    Error,
    /// The request itself cannot be carried out as given.
    Usage,
    /// Something was waited for in vain.
    Timeout,
}

impl Failure {
    /// An action failed; `text` names it.
    pub fn error(text: impl Into<String>) -> Self {
        Self { class: Class::Error, text: text.into(), source: None }
    }

    /// The options do not make sense; `text` says what was expected.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { class: Class::Usage, text: text.into(), source: None }
    }

    /// `text` names what did not happen, and within which time.
    pub fn timeout(text: impl Into<String>) -> Self {
        Self { class: Class::Timeout, text: text.into(), source: None }
    }

    /// The same, with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.class {
            Class::Error => 1,
            Class::Usage => 2,
            Class::Timeout => 6,
        })
    }

    /// Says it on stderr.
    #[expect(clippy::print_stderr, reason = "bench is a command; stderr is where it talks")]
    pub fn tell(&self) {
        eprintln!("bench: {self}");
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.text)?;
        if let Some(source) = &self.source {
            write!(out, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_action_then_its_cause() {
        let failure = Failure::error("start nginx").because("no such file");
        assert_eq!(failure.to_string(), "start nginx: no such file");
    }
}
