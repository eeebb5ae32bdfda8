//! The bench role: load, a synthetic origin, floors, and side-by-side runs against other servers.
//!
//! Everything that sends or answers bytes is an [`Actor`](dataplane::seam::Actor) on the same seam
//! and the same engines as the edge, so the tool that measures costs what the thing measured costs.
//! The only exception is `floor`, which is the bare kernel interface that both are compared with.
//!
//! Leaves to others: the command line around it and the exit of the process (the `pharos` binary).

#![deny(unsafe_code)]

mod clock;
mod command;
mod compare;
mod event;
mod failure;
mod floor;
mod framing;
mod generator;
mod limits;
mod load;
mod options;
mod origin;
mod peer;
mod plot;
mod popularity;
mod probe;
mod process;
mod record;
mod report;
mod response;
mod schedule;
#[cfg(test)]
mod scripted;
mod streams;
mod subscriber;
mod target;
mod verify;
mod workload;

use std::process::ExitCode;

pub use crate::{
    failure::Failure,
    options::{Command, CompareOptions, FloorOptions, HttpOptions, OriginOptions, SseOptions},
};

/// Runs one bench command to its end; results go to stdout, talk and progress to stderr.
///
/// The code follows CONTRACTS: 0 ok, 1 error (a failed verdict is one), 2 wrong usage.
pub fn run(command: Command) -> ExitCode {
    match dispatch(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            failure.exit_code()
        }
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Http(options) => command::http(&options),
        Command::Sse(options) => command::sse(&options),
        Command::Origin(options) => command::origin(&options),
        Command::Floor(options) => floor::run(&options),
        Command::Compare(options) => compare::run(&options),
    }
}
