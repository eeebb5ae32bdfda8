//! The bench role: what it does and takes is all in its crate.

use std::process::ExitCode;

/// Runs one of bench's commands.
pub(crate) fn run(command: bench::Command) -> ExitCode {
    bench::run(command)
}
