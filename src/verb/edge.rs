//! `pharos edge …`: the role when a configuration is given, else the verbs that manage edges.

use std::{fs, path::PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    client::Connection,
    exit::{Failure, Kind},
    output::{self, Column, Format, text},
    role,
};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  pharos edge add fra-1 > edge.toml       enrol an edge: its configuration, its own key in it
  pharos edge --config edge.toml          run it
  pharos edge --config edge.toml --check  only validate the file
  pharos edge list                        all edges, how far each has applied the log
  pharos edge drain --wait                move the streams of the edge on this machine elsewhere
  pharos edge drain --undo                serve again

Signals: TERM drains, then ends, unless `drain --undo` calls it back; HUP reads the configuration again."
)]
pub(crate) struct Options {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    role: role::edge::Options,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Enrol an edge: print a ready edge.toml with its own, revocable key
    #[command(
        after_help = "Examples:\n  pharos edge add fra-1\n  pharos edge add fra-1 --into /etc/pharos"
    )]
    Add(Add),
    /// List edges: version, how far they have applied the log, streams, hit ratio, last seen
    #[command(after_help = "Example:\n  pharos edge list")]
    List(Connection),
    /// Move an edge's streams elsewhere, say how far that is, or undo it
    Drain(super::drain::Options),
}

#[derive(Debug, Args)]
struct Add {
    /// The edge's name: a-z, 0-9 and -
    name: String,
    /// Write edge.toml and edge.key (mode 0600) into this folder instead of printing
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

impl Options {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.verb {
            None => role::edge::run(&self.role),
            Some(Verb::Add(options)) => options.run(),
            Some(Verb::Drain(options)) => options.run(),
            Some(Verb::List(connection)) => {
                let edges = connection.client()?.list("/v1/edges")?;
                connection.output.list(COLUMNS, &edges)
            }
        }
    }
}

impl Add {
    fn run(self) -> Result<(), Failure> {
        if let Some(folder) = self.into.as_ref().filter(|folder| folder.join("edge.toml").exists())
        {
            let message = format!("{} exists already", folder.join("edge.toml").display());
            return Err(Failure::new(Kind::Conflict, message));
        }
        let edge = self.connection.client()?.post("/v1/edges", &json!({"name": self.name}))?;
        let (config, key) = (whole(&edge, "config")?, whole(&edge, "key")?);
        match (&self.into, self.connection.output) {
            (Some(folder), _) => {
                fs::create_dir_all(folder).map_err(|error| {
                    Failure::because(format!("making the folder {}", folder.display()), &error)
                })?;
                role::edge::write_secret(&folder.join("edge.key"), key)?;
                role::edge::write_secret(&folder.join("edge.toml"), config)?;
                let path = folder.join("edge.toml");
                output::talk(&format!(
                    "wrote {}; run it: pharos edge --config {0}",
                    path.display()
                ));
                Ok(())
            }
            (None, Format::Json) => output::json(&edge),
            (None, Format::Table) => {
                output::talk(&format!(
                    "The key of {} is shown only now. Put it where key_file points:\n\n  \
                     (umask 077; echo {key} > edge.key)\n",
                    self.name
                ));
                output::data(config)
            }
        }
    }
}

/// A text of control's answer as it is, line breaks included.
fn whole<'a>(edge: &'a Value, name: &str) -> Result<&'a str, Failure> {
    edge[name].as_str().ok_or_else(|| Failure::error(format!("control's answer has no {name}")))
}

const COLUMNS: &[Column] = &[
    ("NAME", |edge| text(edge, "/name")),
    ("VERSION", |edge| text(edge, "/version")),
    ("POSITION", |edge| text(edge, "/position")),
    ("LAG", |edge| text(edge, "/lag")),
    ("STREAMS", |edge| text(edge, "/streams")),
    ("HIT RATIO", |edge| match edge["hit_ratio"].as_f64() {
        Some(ratio) => format!("{:.1} %", ratio * 100.0),
        None => String::new(),
    }),
    ("VIA", |edge| {
        let via = edge["via"].as_array().map(Vec::as_slice).unwrap_or_default();
        via.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" > ")
    }),
    ("CONNECTED", |edge| text(edge, "/connected")),
    ("LAST SEEN", |edge| text(edge, "/last_seen")),
    ("ID", |edge| text(edge, "/id")),
];
