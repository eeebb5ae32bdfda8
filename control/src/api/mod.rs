//! The management API: routes, request ids, the in-flight limit, and how any error becomes
//! problem+json.
//!
//! Each resource decodes into the app's words, calls it inside the writer's transaction or a read,
//! and encodes. What is refused, and why, is the app's business; who may ask is [`auth`]'s; the
//! statuses are [`problem`]'s.

pub mod auth;
pub mod body;
pub mod component;
pub mod edge;
pub mod feed;
pub mod idempotency;
pub mod incident;
pub mod json;
pub mod key;
pub mod page;
pub mod problem;
pub mod purge;
pub mod query;
pub mod rule;
pub mod site;
pub mod topic;
pub mod types;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use utoipa::OpenApi;

use self::{auth::RequestId, problem::Failure};
use crate::{App, clock, limits, model::id::base32, public};

/// Everything control answers.
pub fn router(app: Arc<App>) -> Router {
    let shed = middleware::from_fn_with_state(Arc::clone(&app), in_flight);
    let resources = resources().layer(shed);
    Router::new()
        .merge(resources)
        .merge(public::serve::router())
        .route("/v1/feed", get(feed::open))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), outermost))
        .with_state(app)
}

fn resources() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/pages", post(page::create).get(page::list))
        .route("/v1/pages/{page}", get(page::read).patch(page::change).delete(page::delete))
        .route("/v1/pages/{page}/components", post(component::create).get(component::list))
        .route(
            "/v1/pages/{page}/components/{component}",
            get(component::read).patch(component::change).delete(component::delete),
        )
        .route("/v1/pages/{page}/incidents", post(incident::create).get(incident::list))
        .route(
            "/v1/pages/{page}/incidents/{id}",
            get(incident::read_of_page)
                .patch(incident::change_of_page)
                .delete(incident::delete_of_page),
        )
        .route(
            "/v1/pages/{page}/incidents/{id}/updates",
            post(incident::update_of_page).get(incident::updates_of_page),
        )
        .route(
            "/v1/incidents/{id}",
            get(incident::read).patch(incident::change).delete(incident::delete),
        )
        .route("/v1/incidents/{id}/updates", post(incident::update).get(incident::updates))
        .route("/v1/incidents/{id}/updates/{update}", patch(incident::edit_update))
        .route("/v1/sites", post(site::create).get(site::list))
        .route("/v1/sites/{site}", get(site::read).patch(site::change).delete(site::delete))
        .route("/v1/topics", get(topic::list))
        .route("/v1/topics/{topic}", get(topic::read))
        .route("/v1/topics/{topic}/events", post(topic::publish))
        .route("/v1/purges", post(purge::create).get(purge::list))
        .route("/v1/purges/{id}", get(purge::read))
        .route("/v1/keys", post(key::create).get(key::list))
        .route("/v1/keys/{id}", get(key::read).delete(key::revoke))
        .route("/v1/edges", post(edge::create).get(edge::list))
        .route("/v1/edges/{edge}", get(edge::read).delete(edge::revoke))
        .route("/v1/edges/{edge}/position", post(edge::position))
}

/// Gives each request an id, and writes every failure with it.
async fn outermost(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let api = request.uri().path().starts_with("/v1/");
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if api {
        app.counters.requests.fetch_add(1, Relaxed);
    }
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = if head_bytes(&request) > limits::HEAD_BYTES_MAX {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let detail = format!("a request head has at most {} bytes", limits::HEAD_BYTES_MAX);
        Failure::new(status, detail).into_response()
    } else {
        next.run(request).await
    };
    let status = response.status();
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        response = failure.write(&id);
    } else if api && (status.is_client_error() || status.is_server_error()) {
        // axum's own: a method that a path does not have, a path that is no UTF-8.
        let allow = response.headers().get(header::ALLOW).cloned();
        response = Failure::new(status, problem::title(status)).write(&id);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    if api {
        let status = response.status().as_u16();
        tracing::debug!(%method, path, status, request = id, "answered");
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

fn head_bytes(request: &Request) -> usize {
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + 4);
    request.uri().to_string().len() + fields.sum::<usize>()
}

/// The client's id for a request if it is sane, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let given = headers.get("x-request-id").and_then(|id| id.to_str().ok()).filter(sane);
    given.map_or_else(|| base32(&clock::random::<10>()), str::to_owned)
}

/// Refuses what is beyond the limit at once, instead of letting everything become slow.
async fn in_flight(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Ok(_permit) = Arc::clone(&app.api_permits).try_acquire_owned() else {
        app.counters.shed.fetch_add(1, Relaxed);
        let detail = "too many requests are in work: try again";
        return Failure::busy(StatusCode::TOO_MANY_REQUESTS, detail).into_response();
    };
    next.run(request).await
}

async fn unknown(request: Request) -> Failure {
    let path: String = request.uri().path().chars().take(200).collect();
    Failure::new(StatusCode::NOT_FOUND, format!("there is nothing at {path}; see /openapi.json"))
}

async fn healthz(State(app): State<Arc<App>>) -> Response {
    match app.read(|reader| reader.head()).await {
        Ok(head) => {
            let body = serde_json::json!({
                "status": "ok",
                "region": app.config.region,
                "position": head.position,
                "version": head.applied,
            });
            auth::json(StatusCode::OK, body.to_string())
        }
        Err(error) => Failure::from(error).into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let position = app.store.writer.head().borrow().position;
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4");
    ([(header::CONTENT_TYPE, content_type)], app.counters.render(position)).into_response()
}

async fn openapi() -> Response {
    match Documentation::openapi().to_json() {
        Ok(text) => auth::json(StatusCode::OK, text),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    info(title = "Pharos control", description = "Status pages, sites, purges, keys and edges."),
    modifiers(&Bearer),
    security(("bearer" = [])),
    paths(
        page::create, page::list, page::read, page::change, page::delete,
        component::create, component::list, component::read, component::change, component::delete,
        incident::create, incident::list, incident::read, incident::change, incident::delete,
        incident::update, incident::updates, incident::edit_update,
        incident::read_of_page, incident::change_of_page, incident::delete_of_page,
        incident::update_of_page, incident::updates_of_page,
        site::create, site::list, site::read, site::change, site::delete,
        purge::create, purge::list, purge::read,
        topic::publish, topic::list, topic::read,
        key::create, key::list, key::read, key::revoke,
        edge::create, edge::list, edge::read, edge::revoke, edge::position, feed::open,
    )
)]
pub struct Documentation;

/// Names how a caller shows its API key.
struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn beyond_the_in_flight_limit_a_request_is_refused_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = crate::Settings {
            listen: "127.0.0.1:0".parse().ok(),
            data: Some(dir.path().into()),
            ..Default::default()
        };
        let running = crate::start(settings.build().expect("valid")).await.expect("starts");
        let app = Arc::clone(&running.app);
        let get = |path: &str| Request::get(path).body(Body::empty()).expect("a request");
        let ask = |path: &str| router(Arc::clone(&app)).oneshot(get(path));
        let every = u32::try_from(limits::API_IN_FLIGHT_MAX).expect("few");
        let held = Arc::clone(&app.api_permits).acquire_many_owned(every).await.expect("free");
        let reply = ask("/v1/pages").await.expect("an answer");
        assert_eq!(reply.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(reply.headers().contains_key(header::RETRY_AFTER));
        assert_eq!(ask("/healthz").await.expect("an answer").status(), StatusCode::OK);
        drop(held);
        let reply = ask("/v1/pages").await.expect("an answer");
        assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
        drop(app);
        running.stop().await;
    }
}
