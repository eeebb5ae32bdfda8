//! The `pharos` program: the roles edge, control and bench, and the operator's verbs.
//!
//! This crate is the command line only. What a verb does happens in control, behind its API; what a
//! role does is in its own crate. Data goes to stdout, talk to stderr, and the exit code says which
//! kind of end it was ([`exit`]).

#![forbid(unsafe_code)]

mod admin;
mod client;
mod clock;
mod config_line;
mod demo;
mod doctor;
mod exit;
mod limits;
mod log;
mod output;
mod port;
mod supervise;
mod up;

/// The long-running halves of the program.
mod role {
    pub(crate) mod bench;
    pub(crate) mod control;
    pub(crate) mod edge;
}

/// What an operator asks of control, one file a noun.
mod verb {
    pub(crate) mod component;
    pub(crate) mod drain;
    pub(crate) mod edge;
    pub(crate) mod explain;
    pub(crate) mod incident;
    pub(crate) mod page;
    pub(crate) mod purge;
    pub(crate) mod site;
    pub(crate) mod topic;
}

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit::Failure;

/// Keeps what people need during an outage reachable: status pages, live streams, cached sites
#[derive(Debug, Parser)]
#[command(name = "pharos", version, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run control and an edge on this machine, with a demo page on first start
    Up(up::Options),
    /// Run an edge (--config), or manage edges (add, list)
    Edge(verb::edge::Options),
    /// Run control: log, API, feed, pages
    Control(role::control::Options),
    /// Measure: load, streams, a synthetic origin, comparisons
    #[command(subcommand)]
    Bench(bench::Command),
    /// Say what this machine should change to carry more, and why
    Doctor(doctor::Options),
    /// Manage status pages
    #[command(subcommand)]
    Page(verb::page::Command),
    /// Manage the components of a page
    #[command(subcommand)]
    Component(verb::component::Command),
    /// Declare, update and read incidents
    #[command(subcommand)]
    Incident(verb::incident::Command),
    /// Manage sites served through the edges
    #[command(subcommand)]
    Site(verb::site::Command),
    /// Publish events to topics, and list topics
    #[command(subcommand)]
    Topic(verb::topic::Command),
    /// Remove content of a site from all edges, with a receipt
    Purge(verb::purge::Options),
    /// Say how an answer came about, by its X-Request-Id
    Explain(verb::explain::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up(options) => up::run(options),
        Command::Edge(options) => options.run(),
        Command::Control(options) => role::control::run(options),
        Command::Bench(command) => return role::bench::run(command),
        Command::Doctor(options) => doctor::run(&options),
        Command::Page(command) => command.run(),
        Command::Component(command) => command.run(),
        Command::Incident(command) => command.run(),
        Command::Site(command) => command.run(),
        Command::Topic(command) => command.run(),
        Command::Purge(options) => options.run(),
        Command::Explain(options) => options.run(),
    };
    outcome.map_or_else(|failure: Failure| failure.tell(), |()| ExitCode::SUCCESS)
}

const EXAMPLES: &str = "\
Examples:
  pharos up
  pharos incident create --page demo --title 'API is slow' --component api=degraded_performance \\
      --message 'We are looking into it.'
  pharos incident list --page demo
  pharos purge --site shop --url /a/b --wait
  pharos explain 3f9a6c0e12b87d45
  pharos doctor

Verbs talk to control at --url (PHAROS_URL) with the API key in --key-file (PHAROS_KEY_FILE);
without one, ./pharos-data/admin.key is taken, which `pharos up` writes.

Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 not allowed, 6 timeout, 7 degraded.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn edge_is_a_role_with_a_configuration_and_a_noun_with_a_verb() {
        for line in [
            "pharos edge --config edge.toml --engine io_uring",
            "pharos edge list --url http://127.0.0.1:1",
            "pharos edge add fra-1",
            "pharos purge --site s --url /a --url http://127.0.0.1:1",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        let mixed = "pharos edge --config edge.toml list";
        assert!(Cli::try_parse_from(mixed.split(' ')).is_err());
    }
}
