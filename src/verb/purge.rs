//! `pharos purge`: remove content of a site from all edges, and the receipt that says which have
//! done so.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use crate::{
    client::{Client, Connection, DEFAULT_URL, encode},
    clock,
    exit::{Failure, Kind},
    limits,
    output::{self, Column, Format, text},
};

#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("scope").args(["key", "prefix", "all"])),
    after_help = "\
Examples:
  pharos purge --site shop --url /a/b --wait
  pharos purge --site shop --key product-17 --soft
  pharos purge --site shop --all

With --wait the exit code is 0 when every edge has applied the purge, 7 when only edges that do not
report have not, and 6 when edges that do have not within --timeout. An edge that has never connected
has nothing stored and is not waited for."
)]
pub(crate) struct Options {
    /// The site, by its name
    #[arg(long, value_name = "NAME")]
    site: String,
    /// One URL of the site: path and query, as in /a/b?c=d. (As for the other verbs, a value with
    /// http:// is control's address; both may be given.) [env: PHAROS_URL]
    #[arg(long = "url", value_name = "/PATH", value_parser = parse_url)]
    urls: Vec<String>,
    /// Everything with this surrogate key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Everything below this path
    #[arg(long, value_name = "/PATH")]
    prefix: Option<String>,
    /// Everything of the site
    #[arg(long)]
    all: bool,
    /// Mark as stale instead of removing: validated before it is served again, kept for an outage
    #[arg(long)]
    soft: bool,
    /// Wait until every edge has applied it, and say so
    #[arg(long)]
    wait: bool,
    /// How long --wait waits, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "wait")]
    timeout: u64,
    /// File with an API key [default: ./pharos-data/admin.key, if it is there]
    #[arg(long, env = "PHAROS_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// How to print the answer
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl Options {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let body = self.body()?;
        let connection = self.connection();
        let client = connection.client()?;
        let began = clock::now();
        let purge = client.post("/v1/purges", &body)?;
        if !self.wait {
            return connection.output.item(COLUMNS, &purge);
        }
        let deadline = began + Duration::from_secs(self.timeout);
        let receipt = await_receipt(&client, purge, deadline)?;
        connection.output.item(COLUMNS, &receipt)?;
        tell(&receipt, began.elapsed())
    }

    fn body(&self) -> Result<Value, Failure> {
        let mut paths = self.urls.iter().filter(|url| url.starts_with('/'));
        let mut body = json!({"site": self.site, "soft": self.soft});
        let scopes = [
            ("url", paths.next().map(|path| json!(path))),
            ("key", self.key.as_ref().map(|key| json!(key))),
            ("prefix", self.prefix.as_ref().map(|prefix| json!(prefix))),
            ("all", self.all.then_some(json!(true))),
        ];
        let mut given = scopes.into_iter().filter_map(|(name, value)| Some((name, value?)));
        match (given.next(), given.next(), paths.next()) {
            (Some((name, value)), None, None) => body[name] = value,
            _ => {
                return Err(Failure::new(Kind::Usage, "what to purge is not clear").remedy(
                    "give exactly one of --url /PATH, --key KEY, --prefix /PATH and --all",
                ));
            }
        }
        Ok(body)
    }

    fn connection(&self) -> Connection {
        let given = self.urls.iter().find(|url| !url.starts_with('/')).cloned();
        Connection {
            url: given
                .or_else(|| std::env::var("PHAROS_URL").ok())
                .unwrap_or_else(|| DEFAULT_URL.to_owned()),
            key_file: self.key_file.clone(),
            output: self.output,
        }
    }
}

fn parse_url(text: &str) -> Result<String, &'static str> {
    if text.starts_with('/') || text.starts_with("http://") {
        Ok(text.to_owned())
    } else {
        Err("expected a path such as /a/b?c=d, or control's address such as http://127.0.0.1:7400")
    }
}

/// Reads the receipt until it is complete or time is up.
fn await_receipt(
    client: &Client,
    purge: Value,
    deadline: std::time::Instant,
) -> Result<Value, Failure> {
    let path = format!("/v1/purges/{}", encode(&text(&purge, "/id")));
    loop {
        let receipt = client.get(&path)?;
        if receipt["complete"] == true || clock::now() >= deadline {
            return Ok(receipt);
        }
        clock::wait(limits::LOOK_EVERY);
    }
}

/// Says how far the purge is, and fails when it is not everywhere.
fn tell(receipt: &Value, elapsed: Duration) -> Result<(), Failure> {
    let position = text(receipt, "/position");
    let progress = format!("{} edges applied", applied(receipt));
    let ms = elapsed.as_millis();
    let never = match names(edges(receipt).filter(|edge| edge["never_connected"] == true)) {
        names if names.is_empty() => names,
        names => format!("; never connected: {names}"),
    };
    if receipt["complete"] == true {
        output::talk(&format!("{progress} it at position {position}, after {ms} ms{never}"));
        return Ok(());
    }
    let missing: Vec<&Value> = waited_for(receipt).filter(|it| it["applied"] != true).collect();
    let reporting = missing.iter().any(|edge| edge["away"] != true);
    let kind = if reporting { Kind::Timeout } else { Kind::Degraded };
    let names = names(missing.into_iter());
    let message = format!("{progress} position {position} after {ms} ms, not {names}{never}");
    Err(Failure::new(kind, message).remedy(
        "an edge that runs but does not reach control goes on serving what it has, and applies the \
         purge as soon as it reaches control again; one that starts anew has nothing of a site stored",
    ))
}

/// The edges that have ever connected: another has nothing stored.
fn waited_for(receipt: &Value) -> impl Iterator<Item = &Value> {
    edges(receipt).filter(|edge| edge["never_connected"] != true)
}

fn names<'a>(edges: impl Iterator<Item = &'a Value>) -> String {
    edges.map(|edge| text(edge, "/name")).collect::<Vec<_>>().join(", ")
}

fn edges(receipt: &Value) -> impl Iterator<Item = &Value> {
    receipt["edges"].as_array().into_iter().flatten()
}

fn applied(receipt: &Value) -> String {
    let applied = waited_for(receipt).filter(|edge| edge["applied"] == true).count();
    format!("{applied} of {}", waited_for(receipt).count())
}

const COLUMNS: &[Column] = &[
    ("ID", |purge| text(purge, "/id")),
    ("POSITION", |purge| text(purge, "/position")),
    ("APPLIED", |purge| match purge.get("edges") {
        Some(_) => applied(purge),
        None => String::new(),
    }),
    ("COMPLETE", |purge| text(purge, "/complete")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_counts_the_edges_that_have_applied_it() {
        let receipt = json!({"position": 7, "complete": false, "edges": [
            {"name": "a", "applied": true, "position": 9},
            {"name": "b", "applied": false, "position": 6, "away": true},
        ]});
        assert_eq!(applied(&receipt), "1 of 2");
        let failure = tell(&receipt, Duration::ZERO).unwrap_err();
        assert_eq!(failure.kind(), Kind::Degraded);
        let mut connected = receipt.clone();
        connected["edges"][1]["away"] = json!(false);
        assert_eq!(tell(&connected, Duration::ZERO).unwrap_err().kind(), Kind::Timeout);
        let complete = json!({"position": 7, "complete": true, "edges": [
            {"name": "a", "applied": true}, {"name": "b", "applied": false, "never_connected": true},
        ]});
        assert_eq!(applied(&complete), "1 of 1");
        assert!(tell(&complete, Duration::ZERO).is_ok());
    }
}
