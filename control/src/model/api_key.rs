//! API keys: who may do what. Only the digest of a secret is ever stored.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::{Invalid, id};
use crate::log::merge::EntityState;

/// An API key without its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiKey {
    /// Stable identity.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The edge it belongs to; such a key speaks for this edge only.
    pub edge: Option<String>,
    /// SHA-256 of the secret, hex.
    pub digest: String,
    /// ms since the Unix epoch.
    pub created_at_ms: u64,
}

/// What is stored of an API key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ApiKeyValue {
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The edge it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<String>,
    /// SHA-256 of the secret, hex.
    pub digest: String,
}

impl ApiKey {
    /// Reads a key from its entity's state; `None` when revoked.
    pub fn read(id: &str, state: &EntityState) -> Option<Self> {
        let versioned = state.majority()?;
        let value: ApiKeyValue = serde_json::from_value(versioned.value.clone()?).ok()?;
        Some(Self {
            id: id.to_owned(),
            name: value.name,
            scopes: value.scopes,
            edge: value.edge,
            digest: value.digest,
            created_at_ms: versioned.created.ms(),
        })
    }

    /// Whether it may do what `scope` covers.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|held| held.covers(scope))
    }
}

/// What a key may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything, API keys and edges included.
    Admin,
    /// Change pages, components, incidents and sites; read them.
    Write,
    /// Read pages, components, incidents, sites, purges and edges.
    Read,
    /// Order purges and read their receipts.
    Purge,
    /// Read the feed, report a position, pass on purges that keys of sites ask an edge for.
    Edge,
    /// Publish events to topics; read which topics there are.
    Publish,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 6] =
        [Self::Admin, Self::Write, Self::Read, Self::Purge, Self::Edge, Self::Publish];

    /// Whether a key with `self` may do what `wanted` covers.
    pub const fn covers(self, wanted: Self) -> bool {
        matches!(
            (self, wanted),
            (Self::Admin, _)
                | (Self::Write, Self::Write | Self::Read)
                | (Self::Read, Self::Read)
                | (Self::Purge, Self::Purge)
                | (Self::Edge, Self::Edge)
                | (Self::Publish, Self::Publish)
        )
    }

    /// The word on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Write => "write",
            Self::Read => "read",
            Self::Purge => "purge",
            Self::Edge => "edge",
            Self::Publish => "publish",
        }
    }
}

impl FromStr for Scope {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(Invalid {
            code: "scope",
            expected: "one of admin, write, read, purge, edge, publish",
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A secret's text from 32 random bytes; recognisable in a leak by its prefix.
pub fn secret(random: &[u8; 32]) -> String {
    format!("{SECRET_PREFIX}{}", id::base32(random))
}

/// Whether a text can be a secret at all, before it is looked up.
pub fn is_secret(text: &str) -> bool {
    text.strip_prefix(SECRET_PREFIX)
        .is_some_and(|rest| rest.len() == 52 && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// SHA-256 of a secret, hex. The secret has 256 random bits, so nothing slower is needed.
pub fn digest(secret: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

const SECRET_PREFIX: &str = "pharos_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_covers_itself_and_write_covers_read_and_admin_all() {
        for held in Scope::ALL {
            for wanted in Scope::ALL {
                let expected = held == wanted
                    || held == Scope::Admin
                    || (held == Scope::Write && wanted == Scope::Read);
                assert_eq!(held.covers(wanted), expected, "{held} {wanted}");
            }
        }
    }

    #[test]
    fn a_secret_is_recognised_and_its_digest_is_sha_256() {
        assert!(is_secret(&secret(&[7; 32])));
        assert!(!is_secret("pharos_short"));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(""), empty);
    }
}
