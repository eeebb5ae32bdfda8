//! API keys: make, revoke. The secret comes in, only its digest goes on.

use super::{Refusal, names};
use crate::{
    limits,
    log::operation::{EntityRef, Kind},
    model::api_key::{ApiKey, ApiKeyValue, Scope, digest},
    store::sqlite::{Txn, read::Tagged},
};

/// Makes an API key for a secret.
pub fn create(
    txn: &mut Txn<'_>,
    name: String,
    mut scopes: Vec<Scope>,
    edge: Option<String>,
    secret: &str,
) -> Result<Tagged<ApiKey>, Refusal> {
    if txn.count(Kind::ApiKey)? >= limits::API_KEYS_MAX {
        return Err(Refusal::invalid("", "count", "fewer than 20,000 live API keys"));
    }
    scopes.sort_unstable();
    scopes.dedup();
    let entity = EntityRef::new(Kind::ApiKey, txn.new_id());
    names::check_new(txn, &entity)?;
    let id = entity.id.clone();
    let value = ApiKeyValue { name, scopes, edge, digest: digest(secret) };
    names::put(txn, entity, &value)?;
    txn.api_key(&id)?.ok_or_else(|| Refusal::not_found("API key", id))
}

/// Revokes an API key; what used it is refused from now on. The last admin key stays, or nobody
/// could make another.
pub fn revoke(txn: &mut Txn<'_>, id: &str, if_match: Option<&str>) -> Result<(), Refusal> {
    let found = txn.api_key(id)?.ok_or_else(|| Refusal::not_found("API key", id))?;
    names::check_match(if_match, &names::etag(found.dot))?;
    let is_admin = |key: &ApiKey| key.scopes.contains(&Scope::Admin);
    if is_admin(&found.value) {
        let keys = txn.api_keys(None, limits::API_KEYS_MAX)?;
        if !keys.iter().any(|key| key.id != id && is_admin(key)) {
            return Err(Refusal::Conflict(super::FieldError::new(
                "",
                "last_admin",
                "another API key of scope admin before this one goes",
            )));
        }
    }
    names::remove(txn, EntityRef::new(Kind::ApiKey, id))
}
