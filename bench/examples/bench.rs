//! The bench role alone: the same commands as `pharos bench`, without building the other roles.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    command: bench::Command,
}

fn main() -> ExitCode {
    bench::run(Cli::parse().command)
}
