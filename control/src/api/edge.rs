//! `/v1/edges`: enrol, list, revoke; and the positions that edges report.

use std::collections::HashMap;

use axum::{
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use proto::feed::record::Position;

use super::{
    auth::{Call, answer, gone},
    key::once,
    problem::Failure,
    types::{Edge, List, NewEdge, Problem},
};
use crate::{
    App,
    app::{edge, names::etag, receipt},
    clock::{self, rfc3339},
    limits,
    log::append::Head,
    model::{
        self,
        api_key::{Scope, secret},
        check_slug,
        edge::Report,
    },
    store::sqlite::read::After,
};

/// Enrol an edge: its own API key and a ready `edge.toml`, shown once.
#[utoipa::path(post, path = "/v1/edges", tag = "edges", request_body = NewEdge, responses(
    (status = 201, body = Edge), (status = "4XX", body = Problem)))]
pub async fn create(call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Admin)?;
    let mut fields = call.fields()?;
    let name = fields.needed_text("name", check_slug);
    fields.finish()?;
    let secret = secret(&clock::random());
    let url = call.app().url();
    call.write(move |txn| {
        let found = edge::create(txn, name, &secret)?;
        let replayed = Known::default().wire(&found.value);
        let shown = Edge {
            key: Some(secret),
            config: Some(edge::edge_toml(&found.value, &url)),
            ..replayed.clone()
        };
        let location = Some(format!("/v1/edges/{}", found.value.name));
        once(answer(StatusCode::CREATED, &shown, location, Some(etag(found.dot)))?, &replayed)
    })
    .await
}

/// List enrolled edges, oldest first.
#[utoipa::path(get, path = "/v1/edges", tag = "edges",
    responses((status = 200, body = List<Edge>)))]
pub async fn list(call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Read)?;
    let known = Known::of(call.app());
    call.read_list(move |reader, query| {
        let known = Known { head: Some(reader.head()?), ..known };
        let edges = reader.edges(query.cursor.as_ref(), query.read_limit())?;
        let at = |edge: &model::edge::Edge| After { rank: edge.created_at_ms, id: edge.id.clone() };
        Ok(query.list(edges, at, |edge| known.wire(&edge)))
    })
    .await
}

/// Read an enrolled edge, by name or id.
#[utoipa::path(get, path = "/v1/edges/{edge}", tag = "edges", params(("edge",)), responses(
    (status = 200, body = Edge), (status = "4XX", body = Problem)))]
pub async fn read(Path(name): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Read)?;
    let known = Known::of(call.app());
    call.read_list(move |reader, _| {
        let known = Known { head: Some(reader.head()?), ..known };
        Ok(known.wire(&edge::find(reader, &name)?.value))
    })
    .await
}

/// Revoke an edge and its API key.
#[utoipa::path(delete, path = "/v1/edges/{edge}", tag = "edges", params(("edge",)), responses(
    (status = 204), (status = "4XX", body = Problem)))]
pub async fn revoke(Path(name): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Admin)?;
    let if_match = call.if_match();
    call.write(move |txn| {
        edge::revoke(txn, &name, if_match.as_deref())?;
        Ok(gone())
    })
    .await
}

/// Report how far an edge has applied the feed; the ground of purge receipts.
#[utoipa::path(post, path = "/v1/edges/{edge}/position", tag = "edges", params(("edge",)),
    responses((status = 204), (status = "4XX", body = Problem)))]
pub async fn position(Path(name): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Edge)?;
    let mut position: Position = serde_json::from_slice(call.body()).map_err(|error| {
        let expected = format!("{{cursor, version, streams, hits, lookups}} ({error})");
        Failure::bad_request("", "position", expected)
    })?;
    let named = position.children.clone();
    let ((found, children), _) = call
        .read(move |reader| {
            let found = edge::find(reader, &name)?;
            // One that is not enrolled is nobody to wait for.
            let ids = named.iter().take(limits::EDGES_MAX);
            let ids = ids.filter_map(|name| Some(edge::find(reader, name).ok()?.value.id));
            Ok((found, ids.collect::<Vec<String>>()))
        })
        .await?;
    let edge = found.value;
    let own = call.api_key().edge.as_ref().is_none_or(|own| *own == edge.id);
    if !own {
        let detail = "an edge's API key speaks for its own edge only";
        return Err(Failure::new(StatusCode::FORBIDDEN, detail));
    }
    position.children = children;
    call.app().report(edge.id, Report { position, seen_at_ms: clock::wall_ms() });
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What is known of edges beside the log.
#[derive(Default)]
struct Known {
    reports: HashMap<String, Report>,
    open: Vec<String>,
    head: Option<Head>,
    now_ms: u64,
}

impl Known {
    fn of(app: &App) -> Self {
        let open = app.open_feeds();
        Self { reports: app.reports(), open, head: None, now_ms: clock::wall_ms() }
    }

    fn wire(&self, edge: &model::edge::Edge) -> Edge {
        let report = self.reports.get(&edge.id);
        let position = report.map(|report| &report.position);
        let lag = position.zip(self.head.as_ref()).map(|(position, head)| {
            if position.cursor.store == head.store {
                head.position.saturating_sub(position.cursor.position)
            } else {
                let missing = |dot: crate::log::dot::Dot| {
                    dot.seq.saturating_sub(position.cursor.applied.get(dot.replica))
                };
                head.applied.iter().map(missing).sum()
            }
        });
        Edge {
            id: edge.id.clone(),
            name: edge.name.clone(),
            created_at: rfc3339(edge.created_at_ms),
            version: position.map(|position| position.version.clone()),
            last_seen: report.map(|report| rfc3339(report.seen_at_ms)),
            connected: self.open.contains(&edge.id) || !receipt::is_away(report, self.now_ms),
            position: position.map(|position| position.cursor.position),
            lag,
            streams: position.map(|position| position.streams),
            via: position.map(|position| position.path.clone()).unwrap_or_default(),
            hit_ratio: position
                .filter(|position| position.lookups > 0)
                .map(|position| position.hits as f64 / position.lookups as f64),
            key: None,
            config: None,
        }
    }
}
