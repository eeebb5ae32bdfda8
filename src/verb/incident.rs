//! `pharos incident …`

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::component::{Assignment, assignments, set};
use crate::{
    client::{Connection, encode},
    exit::Failure,
    output::{self, Column, Format, text},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Declare an incident
    #[command(after_help = "Example:\n  pharos incident create --page demo --title 'API is slow' \
        --status investigating \\\n      --component api=degraded_performance --severity medium \
        --message 'We are looking into it.'")]
    Create(Create),
    /// Add an update to an incident, or close it with --status resolved
    #[command(after_help = "Example:\n  pharos incident update ID --status resolved \
        --component api=operational --message 'All is well again.'")]
    Update(Update),
    /// List the incidents of a page, newest first
    #[command(after_help = "Example:\n  pharos incident list --page demo --active")]
    List(List),
    /// Show an incident with all its updates
    #[command(after_help = "Example:\n  pharos incident show ID")]
    Show(Show),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The page, by its slug
    #[arg(long, value_name = "SLUG")]
    page: String,
    /// What happens, in a line
    #[arg(long)]
    title: String,
    /// How far the work is
    #[arg(long, value_enum, default_value_t = Status::Investigating)]
    status: Status,
    /// How bad it is; by default as bad as the components say
    #[arg(long, value_enum, conflicts_with = "severity")]
    impact: Option<Impact>,
    /// The same in the runbook's words: none, minor, major, critical
    #[arg(long, value_enum)]
    severity: Option<Severity>,
    /// What it does to a component, such as api=major_outage; may be given several times
    #[arg(long = "component", value_name = "SLUG=STATUS")]
    components: Vec<Assignment>,
    /// What visitors and subscribers read
    #[arg(long, value_name = "TEXT")]
    message: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Which incident
    id: String,
    /// How far the work is now; unchanged if not given
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// What changes for a component, such as api=operational; may be given several times
    #[arg(long = "component", value_name = "SLUG=STATUS")]
    components: Vec<Assignment>,
    /// What visitors and subscribers read
    #[arg(long, value_name = "TEXT")]
    message: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// The page, by its slug
    #[arg(long, value_name = "SLUG")]
    page: String,
    /// Only those not resolved
    #[arg(long)]
    active: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Which incident
    id: String,
    #[command(flatten)]
    connection: Connection,
}

/// How far the work on an incident is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Status {
    /// Looking for the cause
    Investigating,
    /// The cause is known
    Identified,
    /// A remedy is in place and watched
    Monitoring,
    /// Over
    Resolved,
}

/// How bad an incident is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Impact {
    None,
    Minor,
    Major,
    Critical,
}

/// How bad an incident is, as runbooks say it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Severity {
    /// impact none
    Low,
    /// impact minor
    Medium,
    /// impact major
    High,
    /// impact critical
    Critical,
}

impl Severity {
    fn impact(self) -> Impact {
        match self {
            Self::Low => Impact::None,
            Self::Medium => Impact::Minor,
            Self::High => Impact::Major,
            Self::Critical => Impact::Critical,
        }
    }
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create(options) => options.run(),
            Self::Update(options) => options.run(),
            Self::List(List { page, active, connection }) => {
                let path = format!("/v1/pages/{}/incidents", encode(&page));
                let mut incidents = connection.client()?.list(&path)?;
                incidents.retain(|incident| !active || incident["status"] != "resolved");
                connection.output.list(COLUMNS, &incidents)
            }
            Self::Show(Show { id, connection }) => {
                let incident = connection.client()?.get(&path(&id))?;
                show(connection.output, &incident)
            }
        }
    }
}

impl Create {
    fn run(self) -> Result<(), Failure> {
        let mut body = json!({
            "title": self.title,
            "status": word(self.status),
            "components": assignments(&self.components),
            "message": self.message,
        });
        let impact = self.impact.or(self.severity.map(Severity::impact));
        set(&mut body, "impact", impact.map(word));
        let path = format!("/v1/pages/{}/incidents", encode(&self.page));
        let incident = self.connection.client()?.post(&path, &body)?;
        self.connection.output.item(COLUMNS, &incident)
    }
}

impl Update {
    fn run(self) -> Result<(), Failure> {
        let mut body = json!({
            "message": self.message,
            "components": assignments(&self.components),
        });
        set(&mut body, "status", self.status.map(word));
        let path = format!("{}/updates", path(&self.id));
        let incident = self.connection.client()?.post(&path, &body)?;
        self.connection.output.item(COLUMNS, &incident)
    }
}

/// An incident's row, and below it its updates, newest first.
fn show(format: Format, incident: &Value) -> Result<(), Failure> {
    format.item(COLUMNS, incident)?;
    if format == Format::Table {
        let mut updates = incident["updates"].as_array().cloned().unwrap_or_default();
        updates.sort_by_key(|update| std::cmp::Reverse(text(update, "/created_at")));
        output::data("\n")?;
        format.list(UPDATE_COLUMNS, &updates)?;
    }
    Ok(())
}

fn path(id: &str) -> String {
    format!("/v1/incidents/{}", encode(id))
}

fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

const COLUMNS: &[Column] = &[
    ("ID", |incident| text(incident, "/id")),
    ("STATUS", |incident| text(incident, "/status")),
    ("IMPACT", |incident| text(incident, "/impact")),
    ("UPDATED", |incident| text(incident, "/updated_at")),
    ("COMPONENTS", |incident| {
        let components = incident["components"].as_object().into_iter().flatten();
        components
            .map(|(slug, status)| format!("{slug}={}", text(status, "")))
            .collect::<Vec<_>>()
            .join(" ")
    }),
    ("TITLE", |incident| text(incident, "/title")),
];

const UPDATE_COLUMNS: &[Column] = &[
    ("AT", |update| text(update, "/created_at")),
    ("STATUS", |update| text(update, "/status")),
    ("MESSAGE", |update| text(update, "/message")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_mean_impacts() {
        let impacts: Vec<_> = Severity::value_variants().iter().map(|s| word(s.impact())).collect();
        assert_eq!(impacts, ["none", "minor", "major", "critical"]);
    }
}
