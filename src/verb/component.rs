//! `pharos component …`, and the two words that other verbs share with it: a status, and
//! `SLUG=STATUS`.

use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use crate::{
    client::{Connection, encode},
    exit::{Failure, Kind},
    output::{self, Column, text},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a component to a page
    #[command(after_help = "Example:\n  pharos component create --page demo --slug api --name API")]
    Create(Create),
    /// List the components of a page
    #[command(after_help = "Example:\n  pharos component list --page demo")]
    List(List),
    /// Change a component: its status, its name, its place
    #[command(
        after_help = "Example:\n  pharos component update api --page demo --status operational"
    )]
    Update(Update),
    /// Remove a component from a page
    #[command(after_help = "Example:\n  pharos component delete api --page demo")]
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The page, by its slug
    #[arg(long, value_name = "SLUG")]
    page: String,
    /// Its name in commands and in the API
    #[arg(long)]
    slug: String,
    /// What visitors read
    #[arg(long)]
    name: String,
    /// A line below the name
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// How it does now
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// Place on the page, smallest first
    #[arg(long, value_name = "NUMBER")]
    position: Option<i64>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The page, by its slug
    #[arg(long, value_name = "SLUG")]
    page: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Which component, by its slug
    slug: String,
    /// The page, by its slug
    #[arg(long, value_name = "SLUG")]
    page: String,
    /// What visitors read
    #[arg(long)]
    name: Option<String>,
    /// A line below the name
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// How it does now
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// Place on the page, smallest first
    #[arg(long, value_name = "NUMBER")]
    position: Option<i64>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Which component, by its slug
    slug: String,
    /// The page, by its slug
    #[arg(long, value_name = "SLUG")]
    page: String,
    #[command(flatten)]
    connection: Connection,
}

/// How a component does, in the API's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Works
    Operational,
    /// Slow or flawed
    DegradedPerformance,
    /// Down for some
    PartialOutage,
    /// Down
    MajorOutage,
    /// Worked on by plan
    UnderMaintenance,
}

impl Status {
    fn word(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// `SLUG=STATUS`, as in `--component api=major_outage`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Assignment {
    slug: String,
    status: Status,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            let words: Vec<String> = Status::value_variants().iter().map(|s| s.word()).collect();
            format!("expected COMPONENT=STATUS with STATUS one of {}", words.join(", "))
        };
        let (slug, status) = text.split_once('=').ok_or_else(expected)?;
        let status = Status::from_str(status, false).map_err(|_| expected())?;
        if slug.is_empty() {
            return Err(expected());
        }
        Ok(Self { slug: slug.to_owned(), status })
    }
}

/// The assignments as the API wants them: slug → status.
pub(crate) fn assignments(list: &[Assignment]) -> Value {
    list.iter()
        .map(|one| (one.slug.clone(), Value::from(one.status.word())))
        .collect::<Map<_, _>>()
        .into()
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create(options) => options.run(),
            Self::List(List { page, connection }) => {
                let components = connection.client()?.list(&path(&page, None))?;
                connection.output.list(COLUMNS, &components)
            }
            Self::Update(options) => options.run(),
            Self::Delete(Delete { slug, page, connection }) => {
                connection.client()?.delete(&path(&page, Some(&slug)))?;
                output::talk(&format!("component {slug} of page {page} deleted"));
                Ok(())
            }
        }
    }
}

impl Create {
    fn run(self) -> Result<(), Failure> {
        let mut body = json!({"slug": self.slug, "name": self.name});
        set(&mut body, "description", self.description);
        set(&mut body, "status", self.status.map(Status::word));
        set(&mut body, "position", self.position);
        let component = self.connection.client()?.post(&path(&self.page, None), &body)?;
        self.connection.output.item(COLUMNS, &component)
    }
}

impl Update {
    fn run(self) -> Result<(), Failure> {
        let mut body = json!({});
        set(&mut body, "name", self.name);
        set(&mut body, "description", self.description);
        set(&mut body, "status", self.status.map(Status::word));
        set(&mut body, "position", self.position);
        if body.as_object().is_some_and(Map::is_empty) {
            return Err(Failure::new(Kind::Usage, "nothing to change")
                .remedy("give --status, --name, --description or --position"));
        }
        let path = path(&self.page, Some(&self.slug));
        let component = self.connection.client()?.patch(&path, &body)?;
        self.connection.output.item(COLUMNS, &component)
    }
}

/// Sets a member of a JSON object, if there is a value for it.
pub(crate) fn set(body: &mut Value, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        body[name] = value.into();
    }
}

fn path(page: &str, slug: Option<&str>) -> String {
    let slug = slug.map_or_else(String::new, |slug| format!("/{}", encode(slug)));
    format!("/v1/pages/{}/components{slug}", encode(page))
}

const COLUMNS: &[Column] = &[
    ("SLUG", |component| text(component, "/slug")),
    ("NAME", |component| text(component, "/name")),
    ("STATUS", |component| text(component, "/status")),
    ("POSITION", |component| text(component, "/position")),
    ("DESCRIPTION", |component| text(component, "/description")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_names_a_component_and_a_known_status() {
        let parsed: Assignment = "api=major_outage".parse().unwrap();
        assert_eq!(parsed, Assignment { slug: "api".into(), status: Status::MajorOutage });
        for text in ["api", "=operational", "api=", "api=down", "api=MAJOR_OUTAGE"] {
            let error = text.parse::<Assignment>().unwrap_err();
            assert!(error.contains("degraded_performance"), "{text}: {error}");
        }
        assert_eq!(assignments(&[parsed]), json!({"api": "major_outage"}));
    }
}
