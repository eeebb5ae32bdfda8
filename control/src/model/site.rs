//! A customer's site: hosts, origins and routes, in the feed's own schema. Checked here, unique by
//! `model::name`.

use proto::{
    base64url,
    feed::site::{self, Policy, TokenAlg},
};

use super::{Invalid, check_host, check_slug};
use crate::{limits, log::merge::EntityState};

/// A site as stored: the feed's schema and its times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// What edges get.
    pub site: site::Site,
    /// ms since the Unix epoch.
    pub created_at_ms: u64,
    /// ms since the Unix epoch.
    pub updated_at_ms: u64,
    /// Compare-and-set number, ≥ 1.
    pub revision: u64,
}

impl Site {
    /// Reads a site from its entity's state; `None` when removed.
    pub fn read(state: &EntityState) -> Option<Self> {
        let versioned = state.majority()?;
        Some(Self {
            site: serde_json::from_value(versioned.value.clone()?).ok()?,
            created_at_ms: versioned.created.ms(),
            updated_at_ms: versioned.updated.ms(),
            revision: versioned.revision,
        })
    }
}

/// Every rule a site breaks, as (JSON pointer, rule).
pub fn check(site: &site::Site) -> Vec<(String, Invalid)> {
    let mut errors = Vec::new();
    if let Err(invalid) = check_slug(&site.name) {
        errors.push(("/name".to_owned(), invalid));
    }
    if !(1..=limits::HOSTS_MAX).contains(&site.hosts.len()) {
        errors.push(("/hosts".into(), HOST_COUNT));
    }
    for (at, host) in site.hosts.iter().enumerate() {
        if let Err(invalid) = check_host(host) {
            errors.push((format!("/hosts/{at}"), invalid));
        } else if site.hosts[..at].contains(host) {
            errors.push((format!("/hosts/{at}"), HOST_TWICE));
        }
    }
    if !(1..=limits::ORIGINS_MAX).contains(&site.origins.len()) {
        errors.push(("/origins".into(), ORIGIN_COUNT));
    }
    for (at, origin) in site.origins.iter().enumerate() {
        if !is_origin_url(&origin.url) {
            errors.push((format!("/origins/{at}/url"), BAD_ORIGIN));
        }
    }
    if site.routes.len() > limits::ROUTES_MAX {
        errors.push(("/routes".into(), ROUTE_COUNT));
    }
    for (at, route) in site.routes.iter().enumerate() {
        if !is_path(&route.prefix) {
            errors.push((format!("/routes/{at}/prefix"), BAD_PREFIX));
        }
        errors.extend(check_stream(route, site).map(|bad| (format!("/routes/{at}/stream"), bad)));
    }
    for (at, key) in site.token_keys.iter().enumerate() {
        let repeated = site.token_keys[..at].iter().any(|other| other.id == key.id);
        if !is_key_id(&key.id) || repeated {
            errors.push((format!("/token_keys/{at}/id"), BAD_KEY_ID));
        }
        if !is_token_key(key) {
            errors.push((format!("/token_keys/{at}/key"), BAD_TOKEN_KEY));
        }
    }
    if site.rules.len() > proto::limits::RULES_MAX {
        errors.push(("/rules".into(), RULE_COUNT));
    }
    for (at, rule) in site.rules.iter().enumerate() {
        let is_repeated = site.rules[..at].iter().any(|other| other.name == rule.name);
        if is_repeated {
            errors.push((format!("/rules/{at}/name"), RULE_TWICE));
        }
        errors.extend(rule.faults().into_iter().map(|fault| {
            let invalid = Invalid { code: fault.code, expected: fault.expected };
            (format!("/rules/{at}{}", fault.at), invalid)
        }));
    }
    if site.purge_keys.len() > proto::limits::PURGE_KEYS_MAX {
        errors.push(("/purge_keys".into(), PURGE_KEY_COUNT));
    }
    for (at, key) in site.purge_keys.iter().enumerate() {
        let is_repeated = site.purge_keys[..at].iter().any(|other| other.id == key.id);
        if is_repeated || !key.is_fine() {
            errors.push((format!("/purge_keys/{at}"), BAD_PURGE_KEY));
        }
    }
    let bytes = serde_json::to_vec(site).map_or(usize::MAX, |json| json.len());
    if bytes > limits::SITE_BYTES_MAX {
        errors.push((String::new(), SITE_BYTES));
    }
    errors
}

fn check_stream(route: &site::Route, site: &site::Site) -> Option<Invalid> {
    match (route.policy, &route.stream) {
        (Policy::Stream, None) => Some(STREAM_NEEDED),
        (Policy::Stream, Some(rules)) if rules.topics.is_empty() => Some(STREAM_NEEDED),
        (Policy::Stream, Some(rules)) if rules.private && site.token_keys.is_empty() => {
            Some(KEYS_NEEDED)
        }
        (Policy::Stream, Some(_)) | (_, None) => None,
        (_, Some(_)) => Some(STREAM_UNUSED),
    }
}

/// A topic that a route may name: a name, or the beginning of names and `*`.
pub fn check_pattern(pattern: &str) -> Result<(), Invalid> {
    let start = pattern.strip_suffix('*').unwrap_or(pattern);
    let name = match pattern.ends_with('*') {
        true => format!("{start}x"),
        false => start.to_owned(),
    };
    let fine = site::is_topic_name(&name) && !start.starts_with(site::PAGE_TOPICS);
    if fine { Ok(()) } else { Err(BAD_PATTERN) }
}

fn is_key_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_token_key(key: &site::TokenKey) -> bool {
    let Some(bytes) = base64url::decode(&key.key) else { return false };
    match key.alg {
        TokenAlg::Hs256 => (32..=256).contains(&bytes.len()),
        TokenAlg::EdDsa => bytes.len() == 32,
    }
}

/// A path or a prefix of one: starts with `/`, visible ASCII.
pub fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= limits::PURGE_TARGET_BYTES_MAX
        && text.bytes().all(|b| b.is_ascii_graphic())
}

/// `http://host[:port]` without path, query or user.
fn is_origin_url(url: &str) -> bool {
    let Some(authority) = url.strip_prefix("http://") else { return false };
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match rest {
                "" => return true,
                _ => ("", rest.strip_prefix(':')),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some("80")),
        },
    };
    let host_ok = host.is_empty() && authority.starts_with('[')
        || check_host(&host.to_ascii_lowercase()).is_ok();
    let port_ok = port.is_some_and(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    host_ok && port_ok
}

const HOST_COUNT: Invalid = Invalid { code: "count", expected: "1 to 64 host names" };
const HOST_TWICE: Invalid = Invalid { code: "repeated", expected: "each host name once" };
const ORIGIN_COUNT: Invalid = Invalid { code: "count", expected: "1 to 32 origins" };
const ROUTE_COUNT: Invalid = Invalid { code: "count", expected: "at most 256 routes" };
const BAD_ORIGIN: Invalid = Invalid { code: "origin", expected: "http://host[:port] without path" };
const BAD_PATTERN: Invalid = Invalid {
    code: "topic",
    expected: "a topic's name, or the beginning of names and `*`; not below page/",
};
const STREAM_NEEDED: Invalid =
    Invalid { code: "required", expected: "stream rules with 1 to 64 topics for policy stream" };
const STREAM_UNUSED: Invalid =
    Invalid { code: "unused", expected: "no stream rules but for policy stream" };
const KEYS_NEEDED: Invalid =
    Invalid { code: "token_keys", expected: "a site with token_keys for a private route" };
const BAD_KEY_ID: Invalid =
    Invalid { code: "id", expected: "1 to 64 of A-Z, a-z, 0-9, . _ -, each id once" };
const BAD_TOKEN_KEY: Invalid = Invalid {
    code: "key",
    expected: "base64url of 32 to 256 random bytes for HS256, of the 32-byte public key for EdDSA",
};
const RULE_COUNT: Invalid = Invalid { code: "count", expected: "at most 128 rules" };
const SITE_BYTES: Invalid = Invalid {
    code: "too_large",
    expected: "at most 240 KiB of a site, with all its routes, rules and keys as edges get them",
};
const RULE_TWICE: Invalid = Invalid { code: "repeated", expected: "each name once" };
const PURGE_KEY_COUNT: Invalid = Invalid { code: "count", expected: "at most 16 keys" };
const BAD_PURGE_KEY: Invalid = Invalid {
    code: "purge_key",
    expected: "an id of A-Z, a-z, 0-9, . _ -, each once, and sha256: 64 digits 0-9 and a-f",
};
const BAD_PREFIX: Invalid = Invalid { code: "prefix", expected: "a path starting with /" };

const _: () = assert!(limits::SITE_BYTES_MAX == 240 * 1024, "as it is told");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_a_host_and_perhaps_a_port() {
        for (url, good) in [
            ("http://10.0.0.1:80", true),
            ("http://origin.example", true),
            ("http://Origin.example:8080", true),
            ("http://[::1]:8080", true),
            ("http://[::1]", true),
            ("http://[::x]:80", false),
            ("https://origin.example", false),
            ("http://origin.example/", false),
            ("http://user@origin.example", false),
            ("http://origin.example:0", false),
            ("http://origin.example:+80", false),
            ("http://", false),
        ] {
            assert_eq!(is_origin_url(url), good, "{url}");
        }
    }

    #[test]
    fn every_broken_rule_is_named_with_its_pointer() {
        let route = site::Route { prefix: "x".into(), policy: Policy::Pass, stream: None };
        let site = site::Site {
            id: String::new(),
            name: "Shop".into(),
            hosts: vec!["a.example".into(), "a.example".into(), "B".into()],
            origins: vec![site::Origin { url: "ftp://x".into() }],
            routes: vec![route],
            token_keys: Vec::new(),
            rules: Vec::new(),
            purge_keys: Vec::new(),
        };
        let pointers: Vec<_> = check(&site).into_iter().map(|(pointer, _)| pointer).collect();
        assert_eq!(
            pointers,
            ["/name", "/hosts/1", "/hosts/2", "/origins/0/url", "/routes/0/prefix"]
        );
    }
}
