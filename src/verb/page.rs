//! `pharos page …`

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    client::{Connection, encode},
    exit::Failure,
    output::{self, Column, text},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a status page
    #[command(after_help = "Example:\n  pharos page create --slug acme --name 'Acme Cloud'")]
    Create(Create),
    /// List status pages
    #[command(after_help = "Example:\n  pharos page list -o json")]
    List(Connection),
    /// Delete a status page, with its components and incidents
    #[command(after_help = "Example:\n  pharos page delete acme")]
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its part of the address: the page lives at /SLUG/
    #[arg(long)]
    slug: String,
    /// What visitors read at its top
    #[arg(long)]
    name: String,
    /// A host name of its own, where it lives at /; may be given several times
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Which page
    slug: String,
    #[command(flatten)]
    connection: Connection,
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create(Create { slug, name, hosts, connection }) => {
                let body = json!({"slug": slug, "name": name, "hosts": hosts});
                let page = connection.client()?.post("/v1/pages", &body)?;
                connection.output.item(COLUMNS, &page)
            }
            Self::List(connection) => {
                let pages = connection.client()?.list("/v1/pages")?;
                connection.output.list(COLUMNS, &pages)
            }
            Self::Delete(Delete { slug, connection }) => {
                connection.client()?.delete(&format!("/v1/pages/{}", encode(&slug)))?;
                output::talk(&format!("page {slug} deleted"));
                Ok(())
            }
        }
    }
}

const COLUMNS: &[Column] = &[
    ("SLUG", |page| text(page, "/slug")),
    ("NAME", |page| text(page, "/name")),
    ("HOSTS", |page| text(page, "/hosts")),
    ("CREATED", |page| text(page, "/created_at")),
    ("ID", |page| text(page, "/id")),
];
