//! Wire types of a site's rules and purge keys.

use std::collections::BTreeMap;

use proto::feed::{
    rule::{self, OriginWord},
    site,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is done with requests of a site that match. Patterns: `*` stands for any characters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Rule {
    /// What `pharos explain` calls it, `[a-z0-9-]{1,63}`, each once.
    pub name: String,
    /// Which requests; all of the site without it.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<RuleMatch>,
    /// `cache` or `pass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// How long answers are fresh; as the origin says without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<RuleLifetime>,
    /// What takes part in the cache key; host, path and query without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<RuleKey>,
}

/// Which requests a rule is for: one of each list that is there, and all of `fields`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RuleMatch {
    /// Patterns of host names, lower case, without port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Patterns of paths, without query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Names of methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Fields of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<RuleField>,
}

/// What must be true of a field of the request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RuleField {
    /// Its name.
    pub name: String,
    /// A pattern of one of its values; any value will do without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The request must not have such a field.
    #[serde(default)]
    pub absent: bool,
}

/// How long answers are fresh.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RuleLifetime {
    /// Of answers with status 200, 203, 204, 300, 301 or 308, s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh_s: Option<u64>,
    /// By status (`404`) or class of it (`5xx`), s.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub status_fresh_s: BTreeMap<String, u64>,
    /// How long one that is stale is served while it is validated, s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate_s: Option<u64>,
    /// How long one that is stale is served when the origin fails, s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_if_error_s: Option<u64>,
    /// What the origin's own word counts for: `override`, `honour` or `ignore`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
}

/// What takes part in the cache key beside host and path.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RuleKey {
    /// What of the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<RuleQuery>,
    /// Names of request fields whose values take part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Names of cookies whose values take part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cookies: Vec<String>,
}

/// What of a query takes part in the cache key, and so reaches the origin.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct RuleQuery {
    /// Patterns of parameters that do; none of them if it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<Vec<String>>,
    /// Patterns of parameters that do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
    /// Whether they are put in the order of their names.
    #[serde(default)]
    pub sort: bool,
    /// Whether the origin is asked for the whole query all the same.
    #[serde(default)]
    pub forward_dropped: bool,
}

/// A key for the method `PURGE` on an edge, as no more than its hash is known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct PurgeKey {
    /// What people call it.
    pub id: String,
    /// SHA-256 of the key, 64 hexadecimal digits in lower case.
    pub sha256: String,
}

impl PurgeKey {
    /// In wire form.
    pub fn of(key: &site::PurgeKey) -> Self {
        Self { id: key.id.clone(), sha256: key.sha256.clone() }
    }
}

impl Rule {
    /// In wire form.
    pub fn of(rule: &rule::Rule) -> Self {
        let matching = (rule.matching != rule::Match::default()).then(|| RuleMatch {
            hosts: rule.matching.hosts.clone(),
            paths: rule.matching.paths.clone(),
            methods: rule.matching.methods.clone(),
            fields: rule.matching.fields.iter().map(RuleField::of).collect(),
        });
        let policy = rule.policy.map(|policy| match policy {
            site::Policy::Cache => "cache".to_owned(),
            site::Policy::Pass => "pass".to_owned(),
            site::Policy::Stream => "stream".to_owned(),
        });
        Self {
            name: rule.name.clone(),
            matching,
            policy,
            lifetime: rule.lifetime.as_ref().map(RuleLifetime::of),
            key: rule.key.as_ref().map(RuleKey::of),
        }
    }
}

impl RuleField {
    fn of(field: &rule::FieldMatch) -> Self {
        let rule::FieldMatch { name, value, absent } = field.clone();
        Self { name, value, absent }
    }
}

impl RuleLifetime {
    fn of(lifetime: &rule::LifetimeRule) -> Self {
        let origin = match lifetime.origin {
            OriginWord::Override => "override",
            OriginWord::Honour => "honour",
            OriginWord::Ignore => "ignore",
        };
        Self {
            fresh_s: lifetime.fresh_s,
            status_fresh_s: lifetime.status_fresh_s.clone(),
            stale_while_revalidate_s: lifetime.stale_while_revalidate_s,
            stale_if_error_s: lifetime.stale_if_error_s,
            origin: origin.to_owned(),
        }
    }
}

impl RuleKey {
    fn of(key: &rule::KeyRule) -> Self {
        let rule::KeyRule { query, fields, cookies } = key.clone();
        let query = query.map(|query| {
            let rule::QueryRule { keep, drop, sort, forward_dropped } = query;
            RuleQuery { keep, drop, sort, forward_dropped }
        });
        Self { query, fields, cookies }
    }
}
