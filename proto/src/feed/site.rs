//! What an edge must know to serve a site or a status page; the configuration half of the feed.
//!
//! The same schema is read from `[[site]]` in `edge.toml` on an edge without control. Unknown keys
//! are errors
//! everywhere: a misspelt rule that is silently ignored is an outage later.
//!
//! Leaves to others: which names are unique (control, majority level), how a route is chosen
//! (`dataplane::shard::route`).

use serde::{Deserialize, Serialize};

/// A customer's host names and the rules behind them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Stable identity; part of every cache key. In `edge.toml` it defaults to `name`.
    #[serde(default)]
    pub id: String,
    /// The operator's name for it, `[a-z0-9-]{1,63}`.
    pub name: String,
    /// Host names, lower case, without port; at least one.
    pub hosts: Vec<String>,
    /// Authoritative servers, tried in order; at least one.
    pub origins: Vec<Origin>,
    /// The longest matching prefix wins; a request that none matches is cached by its own headers.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// One authoritative server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// `http://host[:port]`, no path.
    pub url: String,
}

/// Path → policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A path prefix, starting with `/`.
    pub prefix: String,
    /// What to do with requests below it.
    pub policy: Policy,
}

/// What a route does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Cache by RFC 9111.
    Cache,
    /// Never look up, never store.
    Pass,
}

/// A status page as the edge sees it: control is its origin, `page/<id>` its surrogate key and its
/// topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Stable identity.
    pub id: String,
    /// Under a shared host the page lives at `/<slug>/`.
    pub slug: String,
    /// Hosts of its own, where it lives at `/`; lower case, may be empty.
    #[serde(default)]
    pub hosts: Vec<String>,
}

impl Page {
    /// The surrogate key on everything rendered for this page, and the topic of its stream.
    pub fn key(&self) -> String {
        page_key(&self.id)
    }
}

/// Surrogate key and topic of the page with this id.
pub fn page_key(id: &str) -> String {
    format!("page/{id}")
}

/// Surrogate key of the list of public pages.
pub const INDEX_KEY: &str = "pages";

/// Slugs that no page may have: the edge and control use them below a shared host.
pub const RESERVED_SLUGS: &[&str] = &[
    "api",
    "admin",
    "assets",
    "dashboard",
    "events",
    "favicon.ico",
    "healthz",
    "index",
    "livez",
    "login",
    "metrics",
    "pages",
    "pharos",
    "readyz",
    "robots.txt",
    "sitemap.xml",
    "static",
    "v1",
    "well-known",
];
