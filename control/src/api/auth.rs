//! Who calls, and what they may do. A handler gets a [`Call`]; only [`Call::allowed`] opens it.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Bytes, to_bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{body::Fields, idempotency, problem::Failure, query::Query};
use crate::{
    App,
    app::{Refusal, names},
    clock, limits,
    log::{append::Origin, dot::VersionVector},
    model::{
        api_key::{self, ApiKey, Scope},
        id::Seed,
    },
    store::sqlite::{
        Reader, StoreError, Txn,
        writer::{Answer, Done, Write},
    },
};

/// The id of a request, put into its extensions by the outermost layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestId(pub String);

/// An authenticated request, its body read.
pub struct Call {
    app: Arc<App>,
    api_key: ApiKey,
    digest: String,
    request_id: String,
    method: Method,
    path: String,
    query: Query,
    headers: HeaderMap,
    body: Bytes,
}

/// A request that may do what it asks for.
pub struct Allowed(Call);

impl FromRequest<Arc<App>> for Call {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let (api_key, digest) = authenticate(app, &parts.headers)?;
        let query = Query::parse(parts.uri.query().unwrap_or_default())?;
        let body = read_body(body).await?;
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone());
        Ok(Self {
            app: Arc::clone(app),
            api_key,
            digest,
            request_id: request_id.unwrap_or_default(),
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query,
            headers: parts.headers,
            body,
        })
    }
}

fn authenticate(app: &App, headers: &HeaderMap) -> Result<(ApiKey, String), Failure> {
    let refusal = |detail: &str| Failure::new(StatusCode::UNAUTHORIZED, detail);
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Err(refusal("send an API key: `Authorization: Bearer <key>`"));
    };
    let text = value.to_str().unwrap_or_default();
    let secret = text
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, secret)| secret.trim())
        .ok_or_else(|| refusal("send the API key as `Authorization: Bearer <key>`"))?;
    // The look-up is by digest: what a wrong guess could time tells nothing about any secret.
    let digest = api_key::digest(secret);
    let found = api_key::is_secret(secret).then(|| app.api_key(&digest)).flatten();
    let api_key = found.ok_or_else(|| refusal("this API key is unknown here, or revoked"))?;
    Ok((api_key, digest))
}

async fn read_body(body: axum::body::Body) -> Result<Bytes, Failure> {
    let limit = Duration::from_millis(limits::BODY_AFTER_MS_MAX);
    let too_large = || {
        let detail = format!("a body has at most {} bytes", limits::BODY_BYTES_MAX);
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    match tokio::time::timeout(limit, to_bytes(body, limits::BODY_BYTES_MAX)).await {
        Err(_) => Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "the body came too slowly")),
        // The only error besides the limit is a client that has gone.
        Ok(Err(_)) => Err(too_large()),
        Ok(Ok(body)) => Ok(body),
    }
}

impl Call {
    /// Opens the request if its API key has the scope.
    pub fn allowed(self, scope: Scope) -> Result<Allowed, Failure> {
        self.allowed_any(&[scope])
    }

    /// Opens the request if its API key has one of the scopes.
    pub fn allowed_any(self, scopes: &[Scope]) -> Result<Allowed, Failure> {
        if scopes.iter().any(|scope| self.api_key.may(*scope)) {
            return Ok(Allowed(self));
        }
        let wanted: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
        let detail = format!("this needs an API key of scope {}", wanted.join(" or "));
        Err(Failure::new(StatusCode::FORBIDDEN, detail))
    }
}

impl Allowed {
    /// What requests share.
    pub fn app(&self) -> &Arc<App> {
        &self.0.app
    }

    /// The caller's API key.
    pub fn api_key(&self) -> &ApiKey {
        &self.0.api_key
    }

    /// The digest of its secret.
    pub fn digest(&self) -> &str {
        &self.0.digest
    }

    /// The query.
    pub fn query(&self) -> &Query {
        &self.0.query
    }

    /// A header's text.
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.0.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// `If-Match`.
    pub fn if_match(&self) -> Option<String> {
        self.header(header::IF_MATCH).map(str::to_owned)
    }

    /// The body's fields.
    pub fn fields(&self) -> Result<Fields, Failure> {
        Fields::parse(&self.0.body)
    }

    /// The body as it came.
    pub fn body(&self) -> &[u8] {
        &self.0.body
    }

    /// Reads at one moment; the version is of that moment.
    pub async fn read<T, F>(&self, read: F) -> Result<(T, VersionVector), Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T, Refusal> + Send + 'static,
    {
        let read = move |reader: &Reader<'_>| Ok::<_, Refusal>((read(reader)?, reader.version()?));
        Ok(self.0.app.read(read).await?)
    }

    /// Reads one thing and answers with it and its tag, or 304.
    pub async fn read_one<T, F>(self, read: F) -> Result<Response, Failure>
    where
        T: Serialize + Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<(T, String), Refusal> + Send + 'static,
    {
        let ((value, etag), version) = self.read(read).await?;
        let known = self.header(header::IF_NONE_MATCH);
        let mut response = if known.is_some_and(|known| names::matches(known, &etag)) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            json(StatusCode::OK, to_json(&value)?)
        };
        set(&mut response, header::ETAG.as_str(), &etag);
        set(&mut response, VERSION, &version.to_string());
        Ok(response)
    }

    /// Reads a list and answers with it.
    pub async fn read_list<T, F>(self, read: F) -> Result<Response, Failure>
    where
        T: Serialize + Send + 'static,
        F: FnOnce(&Reader<'_>, &Query) -> Result<T, Refusal> + Send + 'static,
    {
        let query = self.0.query.clone();
        let (value, version) = self.read(move |reader| read(reader, &query)).await?;
        let mut response = json(StatusCode::OK, to_json(&value)?);
        set(&mut response, VERSION, &version.to_string());
        Ok(response)
    }

    /// Writes, once for each `Idempotency-Key`, and answers when it is durable.
    pub async fn write<F>(self, work: F) -> Result<Response, Failure>
    where
        F: FnOnce(&mut Txn<'_>) -> Result<Answer, Refusal> + Send + 'static,
    {
        let call = self.0;
        let origin = Origin {
            actor: format!("key/{}", call.api_key.id),
            request: call.request_id,
            now_ms: clock::wall_ms(),
        };
        let (idempotency, seed) = match idempotency::key(&call.headers)? {
            Some(key) => {
                let (named, seed) =
                    idempotency::identify(&key, &call.method, &call.path, &call.body);
                (Some(named), seed)
            }
            None => (None, Seed(clock::random())),
        };
        let dry_run = call.query.dry_run;
        let write = Write { origin, seed, idempotency, dry_run, work: Box::new(work) };
        let done = call.app.store.writer.write(write).await?;
        if done.replayed {
            call.app.counters.replayed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(written(done, dry_run))
    }
}

fn written(done: Done, dry_run: bool) -> Response {
    let status = match done.answer.status {
        _ if dry_run => StatusCode::OK,
        status => StatusCode::from_u16(status).unwrap_or(StatusCode::OK),
    };
    let mut response = if done.answer.body.is_empty() {
        status.into_response()
    } else {
        json(status, done.answer.body)
    };
    if let Some(location) = done.answer.location.filter(|_| !dry_run) {
        set(&mut response, header::LOCATION.as_str(), &location);
    }
    if let Some(etag) = done.answer.etag.filter(|_| !dry_run) {
        set(&mut response, header::ETAG.as_str(), &etag);
    }
    if done.replayed {
        set(&mut response, "idempotency-replayed", "true");
    }
    if dry_run {
        set(&mut response, "pharos-dry-run", "true");
    }
    set(&mut response, VERSION, &done.version.to_string());
    response
}

/// The answer to a write that made or changed one thing.
pub fn answer<T: Serialize>(
    status: StatusCode,
    value: &T,
    location: Option<String>,
    etag: Option<String>,
) -> Result<Answer, Refusal> {
    let body = serde_json::to_string(value).map_err(StoreError::from)?;
    Ok(Answer { status: status.as_u16(), location, etag, body, body_replayed: None })
}

/// The answer to a write that removed one thing.
pub fn gone() -> Answer {
    Answer { status: StatusCode::NO_CONTENT.as_u16(), ..Answer::default() }
}

/// The name of the header with everything applied.
pub const VERSION: &str = "pharos-version";

/// A JSON response.
pub fn json(status: StatusCode, body: String) -> Response {
    let mut response = (status, body).into_response();
    set(&mut response, header::CONTENT_TYPE.as_str(), "application/json");
    set(&mut response, header::CACHE_CONTROL.as_str(), "no-store");
    response
}

fn to_json<T: Serialize>(value: &T) -> Result<String, Failure> {
    Ok(serde_json::to_string(value).map_err(StoreError::from)?)
}

fn set(response: &mut Response, name: &str, value: &str) {
    // Values are ours: ids, tags and paths of checked slugs.
    if let (Ok(name), Ok(value)) =
        (header::HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
    {
        response.headers_mut().insert(name, value);
    }
}
