//! `/v1/purges`: order a purge, read its receipt.

use axum::{extract::Path, http::StatusCode, response::Response};
use proto::feed::record::Scope as PurgeScope;
use serde_json::json;

use super::{
    auth::{Call, answer},
    body::Fields,
    problem::Failure,
    types::{List, NewPurge, Problem, Purge, PurgeEdge},
};
use crate::{
    app::{
        Refusal, purge,
        receipt::{self, Receipt},
    },
    clock::{self, rfc3339},
    limits,
    model::api_key::Scope,
    store::sqlite::read::{After, PurgeRow},
};

/// Order a purge. Its receipt is at `Location`.
#[utoipa::path(post, path = "/v1/purges", tag = "purges", request_body = NewPurge, responses(
    (status = 202, body = Purge), (status = "4XX", body = Problem)))]
pub async fn create(call: Call) -> Result<Response, Failure> {
    // An edge orders what a visitor with a key of the site asked it for.
    let call = call.allowed_any(&[Scope::Purge, Scope::Edge])?;
    let shows_edges = call.api_key().may(Scope::Purge);
    let new = read_new(call.fields()?)?;
    let heard = call.app().heard();
    call.write(move |txn| {
        let mut last = None;
        for new in new {
            last = Some(purge::create(txn, new)?);
        }
        // Who has applied the last one has applied those before it.
        let purge = last.ok_or_else(no_target)?;
        let receipt = receipt::read(txn, &heard, &purge.id, txn.now_ms())?;
        let location = format!("/v1/purges/{}", purge.id);
        let mut told = wire(&receipt);
        if !shows_edges {
            told.edges.clear();
        }
        answer(StatusCode::ACCEPTED, &told, Some(location), None)
    })
    .await
}

/// List purges, newest first, without their receipts' edges.
#[utoipa::path(get, path = "/v1/purges", tag = "purges",
    responses((status = 200, body = List<Purge>)))]
pub async fn list(call: Call) -> Result<Response, Failure> {
    let call = call.allowed_any(&[Scope::Purge, Scope::Read])?;
    let (heard, now_ms) = (call.app().heard(), clock::wall_ms());
    call.read_list(move |reader, query| {
        let below = query.cursor.as_ref().map_or(u64::MAX, |after| after.rank);
        let purges = reader.purges(below, query.read_limit())?;
        let mut items = Vec::with_capacity(purges.len());
        for purge in purges {
            items.push(receipt::read(reader, &heard, &purge.id, now_ms)?);
        }
        let at = |receipt: &Receipt| After { rank: receipt.purge.position, id: "p".into() };
        Ok(query.list(items, at, |receipt| Purge { edges: Vec::new(), ..wire(&receipt) }))
    })
    .await
}

/// Read a purge's receipt.
#[utoipa::path(get, path = "/v1/purges/{id}", tag = "purges", params(("id",)), responses(
    (status = 200, body = Purge), (status = "4XX", body = Problem)))]
pub async fn read(Path(id): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed_any(&[Scope::Purge, Scope::Read])?;
    let (heard, now_ms) = (call.app().heard(), clock::wall_ms());
    call.read_list(move |reader, _| Ok(wire(&receipt::read(reader, &heard, &id, now_ms)?))).await
}

/// At least one.
fn read_new(mut fields: Fields) -> Result<Vec<purge::New>, Refusal> {
    let site = fields.needed_text("site", |_| Ok(()));
    let mut targets = Vec::new();
    targets.extend(fields.text("url", |_| Ok(())).map(purge::Target::Url));
    targets.extend(fields.text("prefix", |_| Ok(())).map(purge::Target::Prefix));
    targets.extend(fields.text("key", |_| Ok(())).map(purge::Target::SurrogateKey));
    let keys = fields.texts("keys", limits::PURGE_ORDER_KEYS_MAX, |_| Ok(()));
    if fields.boolean("all") == Some(true) {
        targets.push(purge::Target::All);
    }
    let soft = fields.boolean("soft").unwrap_or(false);
    fields.finish()?;
    let is_one = targets.len() + usize::from(keys.is_some()) == 1;
    targets.extend(keys.into_iter().flatten().map(purge::Target::SurrogateKey));
    if !is_one || targets.is_empty() {
        return Err(no_target());
    }
    let new = |target| purge::New { site: site.clone(), target, soft };
    Ok(targets.into_iter().map(new).collect())
}

fn no_target() -> Refusal {
    Refusal::invalid("", "target", "exactly one of url, prefix, key, keys, all: true")
}

fn wire(receipt: &Receipt) -> Purge {
    let PurgeRow { id, position, created_at_ms, order, .. } = &receipt.purge;
    let edges: Vec<PurgeEdge> = receipt
        .edges
        .iter()
        .map(|part| PurgeEdge {
            id: part.edge.id.clone(),
            name: part.edge.name.clone(),
            applied: part.applied,
            position: part.report.as_ref().map(|report| report.position.cursor.position),
            away: part.away,
            never_connected: part.never_connected,
            last_seen: part.report.as_ref().map(|report| rfc3339(report.seen_at_ms)),
        })
        .collect();
    Purge {
        id: id.clone(),
        position: *position,
        scope: scope(&order.scope),
        soft: order.soft,
        created_at: rfc3339(*created_at_ms),
        complete: receipt.is_complete(),
        applied_count: edges.iter().filter(|edge| edge.applied).count(),
        edge_count: edges.len(),
        edges,
    }
}

/// In the words of the request.
fn scope(scope: &PurgeScope) -> serde_json::Value {
    match scope {
        PurgeScope::Url { site, target } => json!({"site": site, "url": target}),
        PurgeScope::Key { site, key } => json!({"site": site, "key": key}),
        PurgeScope::Prefix { site, prefix } => json!({"site": site, "prefix": prefix}),
        PurgeScope::Site { site } => json!({"site": site, "all": true}),
        PurgeScope::Sites | PurgeScope::Everything => json!({"all": true}),
    }
}
