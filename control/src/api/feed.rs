//! `GET /v1/feed`: opens a feed and hands it to `feed::tail`.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::{auth::Call, problem::Failure, types::Problem};
use crate::{
    feed::tail::{self, End, Session},
    limits,
    model::api_key::Scope,
};

/// Follow the log: `text/event-stream` of records, resumable by `Last-Event-ID`.
#[utoipa::path(get, path = "/v1/feed", tag = "edges", responses(
    (status = 200, content_type = "text/event-stream"), (status = "4XX", body = Problem)))]
pub async fn open(call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Edge)?;
    let app = Arc::clone(call.app());
    let permit = Arc::clone(&app.feed_permits).try_acquire_owned().map_err(|_| {
        Failure::busy(StatusCode::SERVICE_UNAVAILABLE, "as many feeds are open as this control has")
    })?;
    let session = Session {
        // A cursor that cannot be read is treated like an unknown one.
        cursor: call.header("last-event-id").and_then(|text| text.parse().ok()),
        history: call.query().history,
        digest: call.digest().to_owned(),
    };
    let edge = call.api_key().edge.clone();
    let (out, chunks) = mpsc::channel(limits::FEED_BUFFER_CHUNKS_MAX);
    let guard = app.feed_opened(edge.clone());
    tokio::spawn(async move {
        let end = tail::run(app, session, out).await;
        match &end {
            End::Store(error) => tracing::warn!(?edge, %error, "a feed ended"),
            end => tracing::info!(?edge, ?end, "a feed ended"),
        }
        drop((guard, permit));
    });
    let chunks = ReceiverStream::new(chunks).map(Ok::<_, std::convert::Infallible>);
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}
