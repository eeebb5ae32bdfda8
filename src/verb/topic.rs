//! `pharos topic …`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    client::{Connection, encode},
    exit::Failure,
    output::{Column, text},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish an event to every stream of a topic
    #[command(after_help = "\
Examples:
  pharos topic publish --topic orders/eu --event created --data '{\"id\": 7}'
  pharos topic publish --topic prices --event price --event-key AAPL --data 201.5")]
    Publish(Publish),
    /// List the topics that were published to, with how many listen
    #[command(after_help = "Example:\n  pharos topic list")]
    List(Connection),
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Which topic; it is there once something was published to it
    #[arg(long)]
    topic: String,
    /// The event's name
    #[arg(long, default_value = "message")]
    event: String,
    /// What it says: text, as it is
    #[arg(long)]
    data: String,
    /// What of the topic it tells: the newest event of each key is the topic's present state
    #[arg(long)]
    event_key: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Publish(options) => options.run(),
            Self::List(connection) => {
                let topics = connection.client()?.list("/v1/topics")?;
                connection.output.list(COLUMNS, &topics)
            }
        }
    }
}

impl Publish {
    fn run(self) -> Result<(), Failure> {
        let mut body = json!({"event": self.event, "data": self.data});
        if let Some(key) = self.event_key {
            body["key"] = json!(key);
        }
        let path = format!("/v1/topics/{}/events", encode(&self.topic));
        let published = self.connection.client()?.post(&path, &body)?;
        self.connection.output.item(PUBLISHED, &published)
    }
}

const PUBLISHED: &[Column] = &[
    ("TOPIC", |published| text(published, "/topic")),
    ("EVENT", |published| text(published, "/events/0/id")),
    ("POSITION", |published| text(published, "/events/0/position")),
];

const COLUMNS: &[Column] = &[
    ("TOPIC", |topic| text(topic, "/topic")),
    ("EVENTS", |topic: &Value| text(topic, "/events")),
    ("STREAMS", |topic| text(topic, "/streams")),
    ("LAST EVENT", |topic| text(topic, "/last_event_at")),
];
