//! Edges: enrol with a key of their own, revoke.

use super::{Refusal, api_key, names};
use crate::{
    limits,
    log::operation::{EntityRef, Kind},
    model::{
        api_key::Scope,
        edge::{Edge, EdgeValue},
        name,
    },
    store::sqlite::{Reader, Txn, read::Tagged},
};

/// Enrols an edge with a secret of its own.
pub fn create(txn: &mut Txn<'_>, edge_name: String, secret: &str) -> Result<Tagged<Edge>, Refusal> {
    if txn.count(Kind::Edge)? >= limits::EDGES_MAX {
        return Err(Refusal::invalid("", "count", "fewer than 10,000 enrolled edges"));
    }
    let entity = EntityRef::new(Kind::Edge, txn.new_id());
    names::check_new(txn, &entity)?;
    names::claim(txn, name::edge(&edge_name), &entity, "/name")?;
    let id = entity.id.clone();
    let key_name = format!("edge {edge_name}");
    let key = api_key::create(txn, key_name, vec![Scope::Edge], Some(id.clone()), secret)?;
    let value = EdgeValue { name: edge_name, api_key: key.value.id };
    names::put(txn, entity, &value)?;
    txn.edge(&id)?.ok_or_else(|| Refusal::not_found("edge", id))
}

/// Revokes an edge and its key: its feed ends, receipts no longer wait for it.
pub fn revoke(txn: &mut Txn<'_>, name: &str, if_match: Option<&str>) -> Result<(), Refusal> {
    let found = find(txn, name)?;
    names::check_match(if_match, &names::etag(found.dot))?;
    let edge = found.value;
    let entity = EntityRef::new(Kind::Edge, &edge.id);
    names::release(txn, name::edge(&edge.name), &entity)?;
    if txn.api_key(&edge.api_key)?.is_some() {
        names::remove(txn, EntityRef::new(Kind::ApiKey, &edge.api_key))?;
    }
    names::remove(txn, entity)
}

/// An edge by id or name.
pub fn find(reader: &Reader<'_>, name: &str) -> Result<Tagged<Edge>, Refusal> {
    if let Some(edge) = reader.edge(name)? {
        return Ok(edge);
    }
    reader.edge_by_name(name)?.ok_or_else(|| Refusal::not_found("edge", name))
}

/// A ready `edge.toml`. The secret is not in it: it goes to the file beside it that `key_file`
/// names.
pub fn edge_toml(edge: &Edge, control_url: &str) -> String {
    let plain = control_url.starts_with("http://") && !is_loopback(control_url);
    let allow = if plain { "allow_plaintext = true\n" } else { "" };
    format!(
        "# Edge {name}. Save this as edge.toml, and the key that came with it, alone, as edge.key\n\
         # (mode 0600) beside it; then: pharos edge --config edge.toml\n\
         id = \"{name}\"\n\
         listen = [\"127.0.0.1:8080\"]\n\
         admin = \"127.0.0.1:7401\"\n\
         data = \"pharos-edge\"\n\
         {allow}\
         \n\
         [control]\n\
         url = \"{control_url}\"\n\
         key_file = \"edge.key\"\n",
        name = edge.name,
    )
}

fn is_loopback(url: &str) -> bool {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    rest.starts_with("127.") || rest.starts_with("[::1]") || rest.starts_with("localhost")
}
