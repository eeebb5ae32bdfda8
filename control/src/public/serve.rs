//! `GET /pages/…`: pages and their JSON, for edges and for whoever asks control directly. No key is
//! needed.
//!
//! ```text
//!  request ─▶ Pharos-Min-Version here? (≤ 2 s) ─▶ room? (≤ 2 s) ─▶ read at one moment
//!               503                                 503              └▶ same ETag? 304 : render
//! ```
//! A 503 says by `Pharos-Wait: version|room` that control lives and what is waited for, so that an
//! edge does not take it for an outage.
//!
//! Browsers validate every time, an edge keeps what it has until the page's surrogate key is
//! purged.
//!
//! Leaves to others: what is read (`read`), how it looks (`page`, `v2`), the edge's half of the
//! versions (DESIGN §6).

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use proto::feed::{
    cursor::VersionVector,
    site::{INDEX_KEY, page_key},
};
use sha2::{Digest as _, Sha256};

use super::{page, read, style::POLICY, v2::Document};
use crate::{
    App,
    clock::wall_ms,
    limits::{PUBLIC_FRESH_S, PUBLIC_STALE_S},
    model::id::{base32, is_id},
    store::sqlite::{Reader, StoreError},
};

/// The routes below `/pages`.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/pages/", get(index))
        .route("/pages/{id}/", get(html))
        .route("/pages/{id}/api/v2/{*document}", get(json))
}

/// Answers with what `render` makes of the state, once the state has come as far as the request
/// wants.
async fn answer(
    app: &App,
    fields: &HeaderMap,
    key: String,
    kind: Kind,
    render: impl FnOnce(&Reader<'_>, u64) -> Result<Option<String>, Failure> + Send + 'static,
) -> Response {
    let wants = match Wants::of(fields) {
        Ok(wants) => wants,
        Err(refusal) => return *refusal,
    };
    // Before it has a permit: whoever waits for what may never come takes nobody else's turn.
    if !app.wait_for(&wants.min_version).await {
        return again_later(Wait::Version, "This version has not arrived here yet.");
    }
    let Some(_permit) = app.public_permit().await else {
        return again_later(Wait::Room, "Too many requests for pages at this moment.");
    };
    let now_ms = wall_ms();
    let (pages_url, of) = (app.config.pages_url.clone(), key.clone());
    let outcome = app.read(move |reader| {
        let version = reader.version()?;
        let etag = etag(&version, kind, now_ms, (&of, pages_url.as_deref()));
        if wants.known.contains(&etag) {
            return Ok(Some((version, etag, None)));
        }
        let body = render(reader, now_ms)?;
        // `*` is any there is, and so none of what is not there.
        let is_known = wants.known.iter().any(|known| known == "*");
        Ok::<_, Failure>(body.map(|body| (version, etag, (!is_known).then_some(body))))
    });
    match outcome.await {
        Ok(Some((version, etag, body))) => found(&version, &etag, &key, kind, body),
        Ok(None) => plain(StatusCode::NOT_FOUND, "There is no such page."),
        Err(failure) => failed(&failure),
    }
}

async fn index(State(app): State<Arc<App>>, fields: HeaderMap) -> Response {
    let render = |reader: &Reader<'_>, now_ms| {
        let view = read::index(reader, now_ms)?;
        Ok(Some(page::render_index(&view)?))
    };
    answer(&app, &fields, INDEX_KEY.to_owned(), Kind::Html, render).await
}

async fn html(State(app): State<Arc<App>>, Path(id): Path<String>, fields: HeaderMap) -> Response {
    if !is_id(&id) {
        return plain(StatusCode::NOT_FOUND, "There is no such page.");
    }
    let key = page_key(&id);
    let pages_url = app.config.pages_url.clone();
    let render = move |reader: &Reader<'_>, now_ms| match read::page(
        reader,
        &id,
        pages_url.as_deref(),
        now_ms,
    )? {
        Some(view) => Ok(Some(page::render(&view)?)),
        None => Ok(None),
    };
    answer(&app, &fields, key, Kind::Html, render).await
}

async fn json(
    State(app): State<Arc<App>>,
    Path((id, document)): Path<(String, String)>,
    fields: HeaderMap,
) -> Response {
    let Some(document) = Document::from_path(&document).filter(|_| is_id(&id)) else {
        return plain(StatusCode::NOT_FOUND, "There is no such document.");
    };
    let key = page_key(&id);
    let pages_url = app.config.pages_url.clone();
    let render = move |reader: &Reader<'_>, now_ms| match read::page(
        reader,
        &id,
        pages_url.as_deref(),
        now_ms,
    )? {
        Some(view) => Ok(Some(document.render(&view)?)),
        None => Ok(None),
    };
    answer(&app, &fields, key, Kind::Json, render).await
}

/// What a request wants beyond its path.
struct Wants {
    min_version: VersionVector,
    /// Entity tags that the client holds.
    known: Vec<String>,
}

impl Wants {
    fn of(fields: &HeaderMap) -> Result<Self, Box<Response>> {
        let min_version = match fields.get(MIN_VERSION).map(|value| value.to_str()) {
            None => VersionVector::new(),
            Some(Ok(text)) => text.trim().parse().map_err(|_| bad_version())?,
            Some(Err(_)) => return Err(bad_version()),
        };
        let known = fields
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|tag| tag.trim().to_owned())
            .collect();
        Ok(Self { min_version, known })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Html,
    Json,
}

/// What a request has waited for in vain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    /// The version it asks for.
    Version,
    /// Its turn.
    Room,
}

/// Why a page could not be made.
#[derive(Debug)]
enum Failure {
    Store(StoreError),
    Template(askama::Error),
    Json(serde_json::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "reading: {error}"),
            Self::Template(error) => write!(f, "rendering: {error}"),
            Self::Json(error) => write!(f, "encoding: {error}"),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<askama::Error> for Failure {
    fn from(error: askama::Error) -> Self {
        Self::Template(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// A view is a function of the version and of the day; its moment of rendering is shown, but
/// changes no meaning. So the tag is weak, and known before anything is rendered. What depends on
/// the program's own text is covered by its version, what depends on where pages are by that. And
/// it is the page's own: no other's tag is taken for that of a page which is not there.
fn etag(
    version: &VersionVector,
    kind: Kind,
    now_ms: u64,
    (key, pages_url): (&str, Option<&str>),
) -> String {
    let (program, day) = (env!("CARGO_PKG_VERSION"), now_ms / 86_400_000);
    let text = format!("{program}\n{kind:?}\n{day}\n{version}\n{key}\n{}", pages_url.unwrap_or(""));
    let mut digest = base32(&Sha256::digest(text));
    digest.truncate(26);
    format!("W/\"{digest}\"")
}

/// 200 with the body, or 304 without.
fn found(
    version: &VersionVector,
    etag: &str,
    key: &str,
    kind: Kind,
    body: Option<String>,
) -> Response {
    let fields = [
        (header::CACHE_CONTROL.as_str(), "no-cache".to_owned()),
        ("cdn-cache-control", format!("max-age={PUBLIC_FRESH_S}, stale-if-error={PUBLIC_STALE_S}")),
        ("surrogate-key", key.to_owned()),
        (header::ETAG.as_str(), etag.to_owned()),
        ("pharos-version", version.to_string()),
    ];
    let Some(body) = body else { return (StatusCode::NOT_MODIFIED, fields).into_response() };
    match kind {
        Kind::Html => {
            let of_kind = [
                (header::CONTENT_TYPE.as_str(), "text/html; charset=utf-8"),
                (header::CONTENT_SECURITY_POLICY.as_str(), POLICY.as_str()),
                (header::X_CONTENT_TYPE_OPTIONS.as_str(), "nosniff"),
                (header::REFERRER_POLICY.as_str(), "no-referrer"),
            ];
            (fields, of_kind, body).into_response()
        }
        Kind::Json => {
            let of_kind = [
                (header::CONTENT_TYPE.as_str(), "application/json; charset=utf-8"),
                (header::ACCESS_CONTROL_ALLOW_ORIGIN.as_str(), "*"),
                (header::X_CONTENT_TYPE_OPTIONS.as_str(), "nosniff"),
            ];
            (fields, of_kind, body).into_response()
        }
    }
}

fn failed(failure: &Failure) -> Response {
    match failure {
        Failure::Store(StoreError::Busy | StoreError::Stopped) => {
            again_later(Wait::Room, "The store has no room for this at the moment.")
        }
        failure => {
            tracing::error!(%failure, "a public page could not be made");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "This page could not be made.")
        }
    }
}

fn bad_version() -> Box<Response> {
    let text =
        "Pharos-Min-Version is not a version: expected <replica>:<sequence>, comma-separated.";
    Box::new(plain(StatusCode::BAD_REQUEST, text))
}

fn again_later(wait: Wait, text: &'static str) -> Response {
    let what = match wait {
        Wait::Version => "version",
        Wait::Room => "room",
    };
    let fields = [(header::RETRY_AFTER.as_str(), "1"), (WAIT, what)];
    (fields, plain(StatusCode::SERVICE_UNAVAILABLE, text)).into_response()
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, [(header::CACHE_CONTROL, "no-store")], format!("{text}\n")).into_response()
}

const MIN_VERSION: &str = "pharos-min-version";
const WAIT: &str = "pharos-wait";
