//! What an edge must know to serve a site or a status page; the configuration half of the feed.
//!
//! The same schema is read from `[[site]]` in `edge.toml` on an edge without control. Unknown keys
//! are errors
//! everywhere: a misspelt rule that is silently ignored is an outage later.
//!
//! Leaves to others: which names are unique (control, majority level), how a route is chosen
//! (`dataplane::shard::route`).

use serde::{Deserialize, Serialize};

use super::rule::Rule;

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
    /// What tokens for this site's private topics are signed with; a token names one by `kid`, or
    /// fits one of its own algorithm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_keys: Vec<TokenKey>,
    /// Tried in order for what the routes give to the cache; the first one that matches decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Who may purge by the method `PURGE` on an edge; nobody without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub purge_keys: Vec<PurgeKey>,
}

/// A key for the method `PURGE`, as no more than its hash is known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeKey {
    /// What people call it: `[A-Za-z0-9._-]{1,64}`.
    pub id: String,
    /// SHA-256 of the key, 64 hexadecimal digits in lower case.
    pub sha256: String,
}

impl PurgeKey {
    /// The hash; `None` if it is not written as it must be.
    pub fn hash(&self) -> Option<[u8; 32]> {
        let text = self.sha256.as_bytes();
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        (text.len() == 64).then_some(hash)
    }

    /// Whether both of its parts are what they must be.
    pub fn is_fine(&self) -> bool {
        let is_id = (1..=64).contains(&self.id.len())
            && self.id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        is_id && self.hash().is_some()
    }
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
    /// For [`Policy::Stream`]: which topics, and how they are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamRules>,
}

/// What a route does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Cache by RFC 9111.
    Cache,
    /// Never look up, never store.
    Pass,
    /// Live streams of topics; needs [`Route::stream`].
    Stream,
}

/// The topics of a route of policy [`Policy::Stream`], and how their events reach a stream.
///
/// What follows the prefix in the path is the topic's name; `?topic=` names it instead, and may be
/// given several times for a stream of several topics.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRules {
    /// Names that may be asked for; one that ends in `*` stands for all that begin so. At least
    /// one.
    pub topics: Vec<String>,
    /// What becomes of a stream that takes less than it is told.
    #[serde(default)]
    pub slow: SlowPolicy,
    /// A stream without a cursor is first told the newest event of each event key.
    #[serde(default)]
    pub snapshot: bool,
    /// Only with a token, signed with one of the site's keys.
    #[serde(default)]
    pub private: bool,
    /// Middle of `retry:`, ms; each stream gets half to one and a half times this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
    /// Age at which a stream is closed, s; each lives three quarters to five quarters of this. No
    /// limit without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s_max: Option<u64>,
    /// Which edge its streams are on, where edges have names of their own.
    #[serde(default, skip_serializing_if = "Placement::is_default")]
    pub placement: Placement,
}

/// Which edge a stream is on, where edges have names of their own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// The one that the visitor has come to.
    #[default]
    Relay,
    /// The one that the placement circle prefers: the visitor is sent there.
    Redirect,
}

impl Placement {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Relay, Self::Redirect];

    /// The word in files and requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Redirect => "redirect",
        }
    }

    /// Whether it need not be written.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of a stream that takes less than it is told. None of them keeps anything for it but
/// a cursor and the rest of a frame that it has begun.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlowPolicy {
    /// It reads on from the history; what has left that is told as a gap.
    #[default]
    Follow,
    /// Of what it missed, it is told the newest event of each event key, and all without one.
    Conflate,
    /// What it missed is told as a gap, and it goes on at the present.
    Skip,
    /// It is closed, and comes back by `retry:` with its cursor.
    Disconnect,
}

impl SlowPolicy {
    /// Every policy, in the order of their metrics.
    pub const ALL: [Self; 4] = [Self::Follow, Self::Conflate, Self::Skip, Self::Disconnect];

    /// The word in configurations and on the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Follow => "follow",
            Self::Conflate => "conflate",
            Self::Skip => "skip",
            Self::Disconnect => "disconnect",
        }
    }
}

impl StreamRules {
    /// Whether a topic of this name may be asked for. Those of pages are pages' own.
    pub fn allows(&self, topic: &str) -> bool {
        !topic.starts_with(PAGE_TOPICS) && self.topics.iter().any(|it| matches(it, topic))
    }

    /// The topic of a request that names none: the only one there is.
    pub fn only_topic(&self) -> Option<&str> {
        match self.topics.as_slice() {
            [only] if !only.ends_with('*') => Some(only),
            _ => None,
        }
    }
}

/// Whether `name` is one of those that `pattern` stands for.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.len() > start.len() && name.starts_with(start),
        None => name == pattern,
    }
}

/// Whether a topic can have this name: `[A-Za-z0-9._~-]` and `/` between parts, none empty, up to
/// 200 bytes. Names need no escaping in a path, a query or JSON.
pub fn is_topic_name(name: &str) -> bool {
    let is_part = |part: &str| {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(fine)
    };
    name.len() <= TOPIC_NAME_BYTES_MAX && name.split('/').all(is_part)
}

/// Topics of status pages begin so; nobody else publishes there.
pub const PAGE_TOPICS: &str = "page/";
/// Bytes of a topic's name.
pub const TOPIC_NAME_BYTES_MAX: usize = 200;

/// What tokens are signed with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKey {
    /// As tokens name it (`kid`): `[A-Za-z0-9._-]{1,64}`.
    pub id: String,
    /// The only algorithm that it is for.
    pub alg: TokenAlg,
    /// HS256: the secret, base64url, 32 bytes or more. EdDSA: the Ed25519 public key, base64url, 32
    /// bytes.
    pub key: String,
}

impl std::fmt::Debug for TokenKey {
    /// Without the secret: whatever is logged with a site must not open it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).field("alg", &self.alg).finish()
    }
}

/// How a token is signed (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TokenAlg {
    /// HMAC with SHA-256.
    #[serde(rename = "HS256")]
    Hs256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_itself_or_for_all_that_begin_so() {
        for (pattern, name, expected) in [
            ("orders", "orders", true),
            ("orders", "orders/1", false),
            ("orders/*", "orders/1", true),
            ("orders/*", "orders/", false),
            ("orders/*", "order", false),
            ("*", "x", true),
            ("*", "", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_topic_name_needs_no_escaping_anywhere() {
        for (name, fine) in [
            ("a", true),
            ("orders/eu-1/x_y", true),
            ("orders/eu-1/x.y~z", true),
            ("", false),
            ("/a", false),
            ("a//b", false),
            ("a/", false),
            ("a/../b", false),
            ("a b", false),
            ("a\"b", false),
            ("grüße", false),
        ] {
            assert_eq!(is_topic_name(name), fine, "{name}");
        }
        assert!(is_topic_name(&"a".repeat(200)) && !is_topic_name(&"a".repeat(201)));
    }

    #[test]
    fn a_secret_is_not_in_what_is_printed_of_a_site() {
        let key = TokenKey { id: "k1".into(), alg: TokenAlg::Hs256, key: "hush".into() };
        let printed = format!("{key:?}");
        assert!(printed.contains("k1") && !printed.contains("hush"), "{printed}");
    }
}
