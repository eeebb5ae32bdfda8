//! `pharos site …`

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Args, Subcommand};
use proto::base64url;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    client::{Connection, encode},
    exit::Failure,
    output::{self, Column, Format, text},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a site through the edges
    #[command(after_help = "Example:\n  pharos site create --name shop --host shop.example \
        --origin http://127.0.0.1:8000 --route /cart/=pass")]
    Create(Create),
    /// List sites
    #[command(after_help = "Example:\n  pharos site list")]
    List(Connection),
    /// Show the rules of a site, or replace them by those in a file
    #[command(after_help = "Examples:\n  pharos site rules shop\n  \
        pharos site rules shop --set rules.json\n\nThe file is a list in JSON, as the first \
        example prints it; docs/rules.md says what a rule can do.")]
    Rules(Rules),
    /// Make a key with which PURGE may be sent to the edges for a site
    #[command(after_help = "Example:\n  pharos site purge-key shop --id deploy")]
    PurgeKey(PurgeKey),
    /// Stop serving a site
    #[command(after_help = "Example:\n  pharos site delete shop")]
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its name in commands and in the API
    #[arg(long)]
    name: String,
    /// A host name that visitors use; may be given several times
    #[arg(long = "host", value_name = "HOST", required = true)]
    hosts: Vec<String>,
    /// An authoritative server, http://HOST[:PORT]; may be given several times, tried in order
    #[arg(long = "origin", value_name = "URL", required = true)]
    origins: Vec<String>,
    /// What to do below a path, such as /cart/=pass; may be given several times, the longest
    /// prefix wins. /live/=stream:orders/* gives streams of topics below that path
    #[arg(long = "route", value_name = "PREFIX=cache|pass|stream:TOPICS")]
    routes: Vec<Route>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Rules {
    /// Which site, by its name
    name: String,
    /// File with the rules that take the place of the present ones; - for stdin
    #[arg(long, value_name = "FILE")]
    set: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct PurgeKey {
    /// Which site, by its name
    name: String,
    /// What to call the key; one of the same name is replaced
    #[arg(long, default_value = "default")]
    id: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Which site, by its name
    name: String,
    #[command(flatten)]
    connection: Connection,
}

/// `PREFIX=POLICY`.
#[derive(Clone, Debug)]
struct Route {
    prefix: String,
    policy: &'static str,
    /// Patterns of topics, for policy `stream`.
    topics: Vec<String>,
}

impl FromStr for Route {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected PREFIX=cache, PREFIX=pass or PREFIX=stream:TOPIC[,TOPIC…], \
                        PREFIX starting with /";
        let (prefix, policy) = text.rsplit_once('=').ok_or(expected)?;
        let (policy, topics) = policy.split_once(':').unwrap_or((policy, ""));
        let words = ["cache", "pass", "stream"];
        let policy = words.into_iter().find(|&p| p == policy).ok_or(expected)?;
        if !prefix.starts_with('/') || (policy == "stream") == topics.is_empty() {
            return Err(expected);
        }
        let topics = topics.split(',').filter(|topic| !topic.is_empty());
        Ok(Self { prefix: prefix.to_owned(), policy, topics: topics.map(str::to_owned).collect() })
    }
}

impl Route {
    fn to_json(&self) -> Value {
        let mut route = json!({"prefix": self.prefix, "policy": self.policy});
        if !self.topics.is_empty() {
            route["stream"] = json!({"topics": self.topics});
        }
        route
    }
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create(options) => options.run(),
            Self::Rules(options) => options.run(),
            Self::PurgeKey(options) => options.run(),
            Self::List(connection) => {
                let sites = connection.client()?.list("/v1/sites")?;
                connection.output.list(COLUMNS, &sites)
            }
            Self::Delete(Delete { name, connection }) => {
                connection.client()?.delete(&format!("/v1/sites/{}", encode(&name)))?;
                output::talk(&format!("site {name} deleted"));
                Ok(())
            }
        }
    }
}

impl Create {
    fn run(self) -> Result<(), Failure> {
        let origins: Vec<Value> = self.origins.iter().map(|url| json!({"url": url})).collect();
        let body = json!({
            "name": self.name,
            "hosts": self.hosts,
            "origins": origins,
            "routes": self.routes.iter().map(Route::to_json).collect::<Vec<_>>(),
        });
        let site = self.connection.client()?.post("/v1/sites", &body)?;
        self.connection.output.item(COLUMNS, &site)
    }
}

impl Rules {
    fn run(self) -> Result<(), Failure> {
        let (client, path) =
            (self.connection.client()?, format!("/v1/sites/{}", encode(&self.name)));
        let site = match &self.set {
            None => client.get(&path)?,
            Some(file) => client.patch(&path, &json!({"rules": read_json(file)?}))?,
        };
        let rules = site.get("rules").cloned().unwrap_or_else(|| json!([]));
        if self.set.is_some() {
            let count = rules.as_array().map_or(0, Vec::len);
            output::talk(&format!("{} has {count} rules now", self.name));
            return Ok(());
        }
        output::json(&rules)
    }
}

fn read_json(file: &Path) -> Result<Value, Failure> {
    let read = match file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(file),
    };
    let name = file.display();
    let text = read.map_err(|error| Failure::because(format!("reading {name}"), &error))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::because(format!("{name} is not JSON"), &error).usage())
}

impl PurgeKey {
    fn run(self) -> Result<(), Failure> {
        let (client, path) =
            (self.connection.client()?, format!("/v1/sites/{}", encode(&self.name)));
        let mut random = [0; 32];
        getrandom::fill(&mut random)
            .map_err(|error| Failure::error(format!("no randomness for a key: {error}")))?;
        let key = base64url::encode(&random);
        let hash = Sha256::digest(key.as_bytes());
        let sha256: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let site = client.get(&path)?;
        let present = site["purge_keys"].as_array().into_iter().flatten();
        let mut keys: Vec<Value> = present.filter(|key| key["id"] != self.id).cloned().collect();
        keys.push(json!({"id": self.id, "sha256": sha256}));
        client.patch(&path, &json!({"purge_keys": keys}))?;
        output::talk(&format!(
            "The key is shown only now. Send it as Pharos-Purge-Key:\n\n  curl -X PURGE -H \
             'Pharos-Purge-Key: …' http://{}/path\n",
            text(&site, "/hosts/0")
        ));
        match self.connection.output {
            Format::Json => output::json(&json!({"id": self.id, "key": key, "sha256": sha256})),
            Format::Table => output::data(&format!("{key}\n")),
        }
    }
}

const COLUMNS: &[Column] = &[
    ("NAME", |site| text(site, "/name")),
    ("HOSTS", |site| text(site, "/hosts")),
    ("ORIGINS", |site| {
        let origins = site["origins"].as_array().into_iter().flatten();
        origins.map(|origin| text(origin, "/url")).collect::<Vec<_>>().join(" ")
    }),
    ("ROUTES", |site| {
        let routes = site["routes"].as_array().into_iter().flatten();
        routes
            .map(|route| {
                let topics = route.pointer("/stream/topics").and_then(Value::as_array);
                let topics = topics.into_iter().flatten().filter_map(Value::as_str);
                let topics = topics.collect::<Vec<_>>().join(",");
                let colon = if topics.is_empty() { "" } else { ":" };
                let (prefix, policy) = (text(route, "/prefix"), text(route, "/policy"));
                format!("{prefix}={policy}{colon}{topics}")
            })
            .collect::<Vec<_>>()
            .join(" ")
    }),
    ("ID", |site| text(site, "/id")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_prefix_and_a_policy() {
        let route: Route = "/a=b/=pass".parse().unwrap();
        assert_eq!((route.prefix.as_str(), route.policy), ("/a=b/", "pass"));
        let route: Route = "/live/=stream:orders/*,news".parse().unwrap();
        assert_eq!(route.topics, ["orders/*", "news"]);
        for text in ["/a", "/a=no", "a=pass", "=pass", "/a=stream", "/a=pass:x", "/a=stream:"] {
            assert!(text.parse::<Route>().is_err(), "{text}");
        }
    }
}
