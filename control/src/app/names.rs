//! Taking and giving back unique names. One rule for slugs, hosts, site and edge names.

use serde::Serialize;

use super::{FieldError, Refusal};
use crate::{
    log::operation::{Change, Draft, EntityRef},
    model::name::Claim,
    store::sqlite::{StoreError, Txn},
};

/// Takes a name for `owner`; a name that another holds is a conflict at `pointer`.
pub fn claim(
    txn: &mut Txn<'_>,
    name: EntityRef,
    owner: &EntityRef,
    pointer: impl Into<String>,
) -> Result<(), Refusal> {
    let state = txn.state(&name)?;
    match state.as_ref().and_then(Claim::read) {
        Some(claim) if claim.owner == *owner => return Ok(()),
        Some(claim) => {
            let holder = claim.owner.kind.as_str().replace('_', " ");
            return Err(Refusal::Conflict(FieldError::new(
                pointer,
                "taken",
                format!("a name that no other {holder} has"),
            )));
        }
        None => {}
    }
    put(txn, name, &Claim { owner: owner.clone() })
}

/// Gives a name back, if `owner` holds it.
pub fn release(txn: &mut Txn<'_>, name: EntityRef, owner: &EntityRef) -> Result<(), Refusal> {
    let state = txn.state(&name)?;
    match state.as_ref().and_then(Claim::read) {
        Some(claim) if claim.owner == *owner => remove(txn, name),
        _ => Ok(()),
    }
}

/// Sets the whole value of a majority entity at its present revision.
pub fn put<T: Serialize>(txn: &mut Txn<'_>, entity: EntityRef, value: &T) -> Result<(), Refusal> {
    let value = serde_json::to_value(value).map_err(StoreError::from)?;
    set(txn, entity, Some(value))
}

/// Removes a majority entity at its present revision.
pub fn remove(txn: &mut Txn<'_>, entity: EntityRef) -> Result<(), Refusal> {
    set(txn, entity, None)
}

fn set(
    txn: &mut Txn<'_>,
    entity: EntityRef,
    value: Option<serde_json::Value>,
) -> Result<(), Refusal> {
    let state = txn.state(&entity)?;
    let versioned = state.as_ref().and_then(|state| state.majority());
    let expected = versioned.map_or(0, |versioned| versioned.revision);
    txn.append(Draft { entity, change: Change::Set { expected, value } })?;
    Ok(())
}

/// Whether the state that a client saw is the present one; `if_match` is the client's `If-Match`.
pub fn check_match(if_match: Option<&str>, etag: &str) -> Result<(), Refusal> {
    match if_match {
        Some(wanted) if !matches(wanted, etag) => Err(Refusal::Stale { etag: etag.to_owned() }),
        _ => Ok(()),
    }
}

/// Whether a list of tags, or `*`, names this one.
pub fn matches(wanted: &str, etag: &str) -> bool {
    wanted.split(',').any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag == etag
    })
}

/// The tag of what an operation touched last.
pub fn etag(dot: crate::log::dot::Dot) -> String {
    format!("\"{dot}\"")
}

/// An entity that this request is about to make must not be there: the same `Idempotency-Key` made
/// it, long ago.
pub fn check_new(txn: &Txn<'_>, entity: &EntityRef) -> Result<(), Refusal> {
    match txn.state(entity)? {
        None => Ok(()),
        Some(_) => Err(Refusal::Conflict(FieldError::new(
            "",
            "exists",
            "an Idempotency-Key that has not made anything before",
        ))),
    }
}
