//! The only wire types: what the API answers, and what its requests are read into. OpenAPI is
//! generated from them.
//!
//! Leaves to others: reading a body with all its mistakes named (`api::body`), the rules themselves
//! (`model`, `app`).

mod rule;

use std::collections::BTreeMap;

use proto::feed::site::TokenAlg;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    clock::rfc3339,
    model::{
        self, api_key::Scope, component::ComponentStatus, impact::Impact, incident::IncidentStatus,
    },
};

pub use rule::{PurgeKey, Rule, RuleField, RuleKey, RuleLifetime, RuleMatch, RuleQuery};

/// A status page.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Page {
    /// Stable identity.
    pub id: String,
    /// Under a shared host the page lives at `/<slug>/`.
    pub slug: String,
    /// What visitors read at the top.
    pub name: String,
    /// Hosts of its own.
    pub hosts: Vec<String>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
}

impl Page {
    /// In wire form.
    pub fn of(page: &model::page::Page) -> Self {
        Self {
            id: page.id.clone(),
            slug: page.slug.clone(),
            name: page.name.clone(),
            hosts: page.hosts.clone(),
            created_at: rfc3339(page.created_at_ms),
            updated_at: rfc3339(page.updated_at_ms),
        }
    }
}

/// A component of a page.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Component {
    /// Stable identity.
    pub id: String,
    /// Unique on its page.
    pub slug: String,
    /// What visitors read.
    pub name: String,
    /// May be empty.
    pub description: String,
    /// Now.
    pub status: ComponentStatus,
    /// Order on the page, smallest first.
    pub position: i64,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
}

impl Component {
    /// In wire form.
    pub fn of(component: &model::component::Component) -> Self {
        Self {
            id: component.id.clone(),
            slug: component.slug.clone(),
            name: component.name.clone(),
            description: component.description.clone(),
            status: component.status,
            position: component.position,
            created_at: rfc3339(component.created_at_ms),
            updated_at: rfc3339(component.updated_at_ms),
        }
    }
}

/// An incident.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Incident {
    /// Stable identity.
    pub id: String,
    /// What visitors read.
    pub title: String,
    /// The newest update's.
    pub status: IncidentStatus,
    /// Its weight.
    pub impact: Impact,
    /// Component slug → the status the newest update naming it gave.
    pub components: BTreeMap<String, ComponentStatus>,
    /// Newest first.
    pub updates: Vec<Update>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// RFC 3339; null while open.
    pub resolved_at: Option<String>,
    /// Where visitors read it, under a shared host.
    pub url: String,
}

/// An update of an incident.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Update {
    /// Stable identity.
    pub id: String,
    /// The incident's status from here on.
    pub status: IncidentStatus,
    /// What visitors read.
    pub message: String,
    /// Component slug → status given with this update.
    pub components: BTreeMap<String, ComponentStatus>,
    /// RFC 3339.
    pub created_at: String,
}

impl Incident {
    /// In wire form. A component that is no longer there is left out.
    pub fn of(
        incident: &model::incident::Incident,
        page: &model::page::Page,
        components: &[model::component::Component],
    ) -> Self {
        let slugs: BTreeMap<&str, &str> = components
            .iter()
            .map(|component| (component.id.as_str(), component.slug.as_str()))
            .collect();
        let by_slug = |by_id: &BTreeMap<String, ComponentStatus>| {
            by_id
                .iter()
                .filter_map(|(id, status)| Some(((*slugs.get(id.as_str())?).to_owned(), *status)))
                .collect()
        };
        let update = |update: &model::incident::Update| Update {
            id: update.id.clone(),
            status: update.status,
            message: update.message.clone(),
            components: by_slug(&update.components),
            created_at: rfc3339(update.created_at_ms),
        };
        Self {
            id: incident.id.clone(),
            title: incident.title.clone(),
            status: incident.status,
            impact: incident.impact,
            components: by_slug(&incident.components),
            updates: incident.updates.iter().rev().map(update).collect(),
            created_at: rfc3339(incident.created_at_ms),
            updated_at: rfc3339(incident.updated_at_ms),
            resolved_at: incident.resolved_at_ms.map(rfc3339),
            url: format!("{}#incident-{}", page.path(), incident.id),
        }
    }
}

/// A site.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Site {
    /// Stable identity.
    pub id: String,
    /// The operator's name for it.
    pub name: String,
    /// Host names.
    pub hosts: Vec<String>,
    /// Authoritative servers, tried in order.
    pub origins: Vec<Origin>,
    /// The longest prefix wins.
    pub routes: Vec<Route>,
    /// What tokens for private topics are signed with, without secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_keys: Vec<TokenKey>,
    /// Tried in order for what the routes give to the cache; the first one that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Who may purge by the method `PURGE` on an edge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub purge_keys: Vec<PurgeKey>,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
}

/// One authoritative server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Origin {
    /// `http://host[:port]`, no path.
    pub url: String,
}

/// Path → policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// A path prefix, starting with `/`.
    pub prefix: String,
    /// What to do with requests below it.
    pub policy: Policy,
    /// For policy `stream`: which topics, and how they are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamRules>,
}

/// Topics of a route, and how their events reach a stream.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct StreamRules {
    /// Names that may be asked for; one that ends in `*` stands for all that begin so.
    pub topics: Vec<String>,
    /// What becomes of a stream that takes less than it is told: `follow`, `conflate`, `skip` or
    /// `disconnect`.
    #[serde(default)]
    pub slow: String,
    /// A stream without a cursor is first told the newest event of each event key.
    #[serde(default)]
    pub snapshot: bool,
    /// Only with a token, signed with one of the site's keys.
    #[serde(default)]
    pub private: bool,
    /// Middle of `retry:`, ms; 100 to 600,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
    /// Age at which a stream is closed, s; 10 to 604,800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s_max: Option<u64>,
    /// Which edge its streams are on, where edges have names of their own: `relay`, the one that
    /// the visitor has come to, or `redirect`, the one that the placement circle prefers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<String>,
}

/// What tokens for private topics are signed with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TokenKey {
    /// As tokens name it (`kid`).
    pub id: String,
    /// `HS256` or `EdDSA`, and nothing else.
    pub alg: String,
    /// HS256: a secret of 32 bytes or more; never shown again. EdDSA: the Ed25519 public key.
    /// base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What a route does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Cache by RFC 9111.
    Cache,
    /// Never look up, never store.
    Pass,
    /// Live streams of topics.
    Stream,
}

impl StreamRules {
    fn of(rules: &proto::feed::site::StreamRules) -> Self {
        Self {
            topics: rules.topics.clone(),
            slow: rules.slow.as_str().into(),
            snapshot: rules.snapshot,
            private: rules.private,
            retry_ms: rules.retry_ms,
            age_s_max: rules.age_s_max,
            placement: (!rules.placement.is_default()).then(|| rules.placement.as_str().into()),
        }
    }
}

impl TokenKey {
    /// Without a secret: who may read a site may not sign for it.
    fn of(key: &proto::feed::site::TokenKey) -> Self {
        let (alg, shown) = match key.alg {
            TokenAlg::Hs256 => ("HS256", None),
            TokenAlg::EdDsa => ("EdDSA", Some(key.key.clone())),
        };
        Self { id: key.id.clone(), alg: alg.into(), key: shown }
    }
}

impl Site {
    /// In wire form.
    pub fn of(stored: &model::site::Site) -> Self {
        let site = &stored.site;
        let policy = |policy| match policy {
            proto::feed::site::Policy::Cache => Policy::Cache,
            proto::feed::site::Policy::Pass => Policy::Pass,
            proto::feed::site::Policy::Stream => Policy::Stream,
        };
        let route = |route: &proto::feed::site::Route| Route {
            prefix: route.prefix.clone(),
            policy: policy(route.policy),
            stream: route.stream.as_ref().map(StreamRules::of),
        };
        Self {
            id: site.id.clone(),
            name: site.name.clone(),
            hosts: site.hosts.clone(),
            origins: site.origins.iter().map(|o| Origin { url: o.url.clone() }).collect(),
            routes: site.routes.iter().map(route).collect(),
            token_keys: site.token_keys.iter().map(TokenKey::of).collect(),
            rules: site.rules.iter().map(Rule::of).collect(),
            purge_keys: site.purge_keys.iter().map(PurgeKey::of).collect(),
            created_at: rfc3339(stored.created_at_ms),
            updated_at: rfc3339(stored.updated_at_ms),
        }
    }
}

/// An API key without its secret, or, once, with it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ApiKey {
    /// Stable identity.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The edge it belongs to, if to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    /// The secret. Only in the answer that made it; a replayed answer leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl ApiKey {
    /// In wire form.
    pub fn of(api_key: &model::api_key::ApiKey, secret: Option<String>) -> Self {
        Self {
            id: api_key.id.clone(),
            name: api_key.name.clone(),
            scopes: api_key.scopes.clone(),
            edge: api_key.edge.clone(),
            created_at: rfc3339(api_key.created_at_ms),
            key: secret,
        }
    }
}

/// An enrolled edge, as it last reported.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Edge {
    /// Stable identity.
    pub id: String,
    /// The operator's name for it.
    pub name: String,
    /// RFC 3339.
    pub created_at: String,
    /// Its program version.
    pub version: Option<String>,
    /// RFC 3339; when it last reported.
    pub last_seen: Option<String>,
    /// Whether it has its feed open or reported within the last 15 s.
    pub connected: bool,
    /// The position up to which all its shards have applied the feed.
    pub position: Option<u64>,
    /// Operations it has not applied yet.
    pub lag: Option<u64>,
    /// Open streams.
    pub streams: Option<u64>,
    /// The edges that its feed comes through, the last one its parent; none from control itself.
    pub via: Vec<String>,
    /// Hits among cache look-ups since it started.
    pub hit_ratio: Option<f64>,
    /// The secret of its API key. Only in the answer that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its ready `edge.toml`. Only in the answer that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
}

/// A purge and its receipt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Purge {
    /// Stable identity.
    pub id: String,
    /// Order of arrival in the log.
    pub position: u64,
    /// Site, URL, prefix, surrogate key or all.
    pub scope: serde_json::Value,
    /// Marked stale instead of removed.
    pub soft: bool,
    /// RFC 3339.
    pub created_at: String,
    /// Whether every enrolled edge has applied it, but for those that never connected.
    pub complete: bool,
    /// Edges that have, and edges enrolled.
    pub applied_count: usize,
    /// See `applied_count`.
    pub edge_count: usize,
    /// Edge by edge.
    pub edges: Vec<PurgeEdge>,
}

/// One edge's part of a receipt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PurgeEdge {
    /// Stable identity.
    pub id: String,
    /// The operator's name for it.
    pub name: String,
    /// Whether all its shards have applied the purge.
    pub applied: bool,
    /// The position it last reported; null before its first report.
    pub position: Option<u64>,
    /// Whether it has not been heard of for 15 s or longer.
    pub away: bool,
    /// Whether it has never connected: it has nothing stored, and is not waited for.
    pub never_connected: bool,
    /// RFC 3339; when it last reported.
    pub last_seen: Option<String>,
}

/// One page of a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// In the list's order.
    pub items: Vec<T>,
    /// Give it back as `?cursor=` for what follows; null at the end.
    pub next_cursor: Option<String>,
}

/// What went wrong (RFC 9457).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A stable name of this kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every occurrence of this kind.
    pub title: String,
    /// The status code.
    pub status: u16,
    /// This occurrence, and what to do.
    pub detail: String,
    /// Every broken rule.
    #[serde(default)]
    pub errors: Vec<ProblemField>,
    /// Find it in the log by this.
    pub request_id: String,
}

/// One broken rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProblemField {
    /// JSON pointer into the body, or `?name` of a query parameter.
    pub pointer: String,
    /// Stable, machine-readable.
    pub code: String,
    /// What would have been right.
    pub expected: String,
}

/// A new page.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, ToSchema)]
pub struct NewPage {
    /// `[a-z0-9-]{1,63}`, unique, not reserved.
    pub slug: String,
    /// 1 to 255 bytes.
    pub name: String,
    /// Hosts of its own, unique.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// Changes of a page; what is absent stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, ToSchema)]
pub struct PagePatch {
    /// `[a-z0-9-]{1,63}`, unique, not reserved.
    pub slug: Option<String>,
    /// 1 to 255 bytes.
    pub name: Option<String>,
    /// Replaces all hosts.
    pub hosts: Option<Vec<String>>,
}

/// A new component.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, ToSchema)]
pub struct NewComponent {
    /// `[a-z0-9-]{1,63}`, unique on its page.
    pub slug: String,
    /// 1 to 255 bytes.
    pub name: String,
    /// Up to 4,096 bytes.
    #[serde(default)]
    pub description: String,
    /// `operational` unless said.
    #[serde(default)]
    pub status: ComponentStatus,
    /// Order on the page; at the end unless said.
    pub position: Option<i64>,
}

/// Changes of a component; what is absent stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, ToSchema)]
pub struct ComponentPatch {
    /// `[a-z0-9-]{1,63}`, unique on its page.
    pub slug: Option<String>,
    /// 1 to 255 bytes.
    pub name: Option<String>,
    /// Up to 4,096 bytes.
    pub description: Option<String>,
    /// Now.
    pub status: Option<ComponentStatus>,
    /// Order on the page.
    pub position: Option<i64>,
}

/// A new incident.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, ToSchema)]
pub struct NewIncident {
    /// 1 to 255 bytes.
    pub title: String,
    /// `investigating` unless said.
    pub status: Option<IncidentStatus>,
    /// The worst of `components` unless said.
    pub impact: Option<Impact>,
    /// Another word for impact: `low`, `medium`, `high`, `critical`.
    pub severity: Option<String>,
    /// Component slug → its status from now on.
    #[serde(default)]
    pub components: BTreeMap<String, ComponentStatus>,
    /// The first update's text, up to 16,384 bytes.
    #[serde(default)]
    pub message: String,
}

/// Changes of an incident; what is absent stays. Its status changes by an update.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, ToSchema)]
pub struct IncidentPatch {
    /// 1 to 255 bytes.
    pub title: Option<String>,
    /// Its weight.
    pub impact: Option<Impact>,
    /// Another word for impact: `low`, `medium`, `high`, `critical`.
    pub severity: Option<String>,
}

/// A new update of an incident. Resolving without naming components sets those operational that
/// this incident had set otherwise, unless someone has set them since or another open incident
/// names them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, ToSchema)]
pub struct NewUpdate {
    /// The incident's present status unless said.
    pub status: Option<IncidentStatus>,
    /// Up to 16,384 bytes.
    #[serde(default)]
    pub message: String,
    /// Component slug → its status from now on.
    #[serde(default)]
    pub components: BTreeMap<String, ComponentStatus>,
}

/// A better text for an update.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, ToSchema)]
pub struct UpdatePatch {
    /// Up to 16,384 bytes.
    pub message: String,
}

/// A new site.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, ToSchema)]
pub struct NewSite {
    /// `[a-z0-9-]{1,63}`, unique.
    pub name: String,
    /// At least one, lower case, unique.
    pub hosts: Vec<String>,
    /// At least one.
    pub origins: Vec<Origin>,
    /// The longest prefix wins; what none matches is cached by its own headers.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// What tokens for private topics are signed with.
    #[serde(default)]
    pub token_keys: Vec<TokenKey>,
    /// Tried in order for what the routes give to the cache; the first one that matches decides.
    /// At most 128.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Who may purge by the method `PURGE` on an edge. At most 16.
    #[serde(default)]
    pub purge_keys: Vec<PurgeKey>,
}

/// Changes of a site; what is absent stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, ToSchema)]
pub struct SitePatch {
    /// `[a-z0-9-]{1,63}`, unique.
    pub name: Option<String>,
    /// Replaces all hosts.
    pub hosts: Option<Vec<String>>,
    /// Replaces all origins.
    pub origins: Option<Vec<Origin>>,
    /// Replaces all routes.
    pub routes: Option<Vec<Route>>,
    /// Replaces all keys for tokens.
    pub token_keys: Option<Vec<TokenKey>>,
    /// Replaces all rules.
    pub rules: Option<Vec<Rule>>,
    /// Replaces all keys for `PURGE`.
    pub purge_keys: Option<Vec<PurgeKey>>,
}

/// One event, or `events`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, ToSchema)]
pub struct NewEvents {
    /// The event's name, `message` unless said.
    pub event: Option<String>,
    /// Text, or any JSON value. Up to 65,536 bytes.
    pub data: Option<serde_json::Value>,
    /// What of the topic it tells: the newest event of each key is the topic's present state.
    pub key: Option<String>,
    /// Instead of the above, up to 100 events.
    pub events: Option<Vec<NewEvent>>,
}

/// An event.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, ToSchema)]
pub struct NewEvent {
    /// The event's name, `message` unless said.
    pub event: Option<String>,
    /// Text, or any JSON value. Up to 65,536 bytes.
    pub data: Option<serde_json::Value>,
    /// What of the topic it tells.
    pub key: Option<String>,
}

/// Events that are in the log, and on their way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Published {
    /// Where.
    pub topic: String,
    /// In their order.
    pub events: Vec<PublishedEvent>,
}

/// An event that is in the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PublishedEvent {
    /// Its operation.
    pub id: String,
    /// Order of arrival in this store.
    pub position: u64,
}

/// A topic that customers publish to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Topic {
    /// Its name.
    pub topic: String,
    /// RFC 3339.
    pub last_event_at: String,
    /// Events that it has had.
    pub events: u64,
    /// Open streams that carry it, on all edges, as they last reported.
    pub streams: u64,
}

/// A purge; exactly one of `url`, `prefix`, `key`, `keys` and `all`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, ToSchema)]
pub struct NewPurge {
    /// Site name or id.
    pub site: String,
    /// One URL: `/path[?query]`, or absolute on one of the site's hosts.
    pub url: Option<String>,
    /// Everything whose path starts so.
    pub prefix: Option<String>,
    /// Everything with this surrogate key.
    pub key: Option<String>,
    /// Everything with one of these surrogate keys, up to 64: a purge each, the last one's receipt
    /// stands for all.
    pub keys: Option<Vec<String>>,
    /// Everything of the site.
    pub all: Option<bool>,
    /// Mark stale instead of removing.
    #[serde(default)]
    pub soft: bool,
}

/// A new API key.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, ToSchema)]
pub struct NewApiKey {
    /// 1 to 255 bytes.
    pub name: String,
    /// At least one.
    pub scopes: Vec<Scope>,
}

/// A new edge.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, ToSchema)]
pub struct NewEdge {
    /// `[a-z0-9-]{1,63}`, unique.
    pub name: String,
}
