//! `/v1/topics`: publish events, see which topics there are.
//!
//! Publishers are held back before they hold others up: they have permits of their own, and the
//! last part of the writer's queue is not for them.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use axum::{extract::Path, http::StatusCode, response::Response};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    auth::{Call, answer},
    body::Fields,
    problem::Failure,
    types::{List, NewEvents, Problem, Published, PublishedEvent, Topic},
};
use crate::{
    App,
    app::publish,
    clock::rfc3339,
    limits,
    log::operation::TopicEvent,
    model::{
        api_key::Scope,
        topic::{self, check_data, check_event, check_key},
    },
    store::sqlite::read::After,
};

/// Publish one event, or several in their order, all or none. Answered when they are durable; an
/// `Idempotency-Key` makes it once.
#[utoipa::path(post, path = "/v1/topics/{topic}/events", tag = "topics", params(("topic",)),
    request_body = NewEvents, responses(
    (status = 202, body = Published), (status = "4XX", body = Problem),
    (status = 429, body = Problem, description = "too many publish at once, or too many events are \
        kept: come back after Retry-After"),
    (status = 503, body = Problem, description = "the log is busy: come back after Retry-After")))]
pub async fn publish(Path(name): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Publish)?;
    let app = Arc::clone(call.app());
    let _permit = permit(&app).inspect_err(|_| {
        app.counters.publish_refused.fetch_add(1, Relaxed);
    })?;
    let events = read_events(call.fields()?)?;
    let (count, dry_run) = (events.len() as u64, call.query().dry_run);
    let topics = app.counters.topics.load(Relaxed);
    let counters = Arc::clone(&app.counters);
    let response = call
        .write(move |txn| {
            // Counted at once, counted anew by retention.
            let is_new = u64::from(txn.topic(&name)?.is_none());
            let published = publish::publish(txn, &name, events, topics)?;
            counters.topics.fetch_add(if dry_run { 0 } else { is_new }, Relaxed);
            let events = published.iter().map(|event| PublishedEvent {
                id: event.dot.to_string(),
                position: event.position,
            });
            let body = Published { topic: name.clone(), events: events.collect() };
            let location = format!("/v1/topics/{}", name.replace('/', "%2F"));
            answer(StatusCode::ACCEPTED, &body, Some(location), None)
        })
        .await?;
    if !dry_run && !response.headers().contains_key("idempotency-replayed") {
        app.counters.events.fetch_add(count, Relaxed);
        app.counters.events_kept.fetch_add(count, Relaxed);
    }
    Ok(response)
}

/// List the topics that customers publish to, by name.
#[utoipa::path(get, path = "/v1/topics", tag = "topics",
    responses((status = 200, body = List<Topic>)))]
pub async fn list(call: Call) -> Result<Response, Failure> {
    let call = call.allowed_any(&[Scope::Read, Scope::Publish])?;
    let app = Arc::clone(call.app());
    call.read_list(move |reader, query| {
        let after = query.cursor.as_ref().map(|after| unhex(&after.id)).unwrap_or_default();
        let topics = reader.topics(&after, query.read_limit())?;
        let at = |topic: &topic::Topic| After { rank: topic.at_ms, id: hex(&topic.name) };
        Ok(query.list(topics, at, |topic| wire(&app, topic)))
    })
    .await
}

/// Read a topic.
#[utoipa::path(get, path = "/v1/topics/{topic}", tag = "topics", params(("topic",)), responses(
    (status = 200, body = Topic), (status = "4XX", body = Problem)))]
pub async fn read(Path(name): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed_any(&[Scope::Read, Scope::Publish])?;
    let app = Arc::clone(call.app());
    call.read_list(move |reader, _| Ok(wire(&app, publish::find(reader, &name)?))).await
}

fn permit(app: &App) -> Result<OwnedSemaphorePermit, Failure> {
    if app.counters.events_kept.load(Relaxed) >= limits::EVENTS_KEPT_MAX {
        let detail =
            "as many events are kept as there is room for: wait until the oldest have left";
        let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, detail);
        return Err(Failure { retry_after_s: Some(limits::EVENTS_KEPT_RETRY_S), ..failure });
    }
    if app.store.writer.waiting() >= limits::PUBLISH_QUEUE_MAX {
        let detail = "the log is busy: publish again later";
        return Err(Failure::busy(StatusCode::SERVICE_UNAVAILABLE, detail));
    }
    Arc::clone(&app.publish_permits).try_acquire_owned().map_err(|_| {
        let detail =
            "too many publish at once: publish again later, or several events in a request";
        Failure::busy(StatusCode::TOO_MANY_REQUESTS, detail)
    })
}

fn read_events(mut fields: Fields) -> Result<Vec<TopicEvent>, Failure> {
    let events = if fields.has("events") {
        let read = |event: &mut Fields| Some(read_event(event));
        let events = fields.objects("events", limits::EVENTS_A_REQUEST_MAX, read);
        let events = fields.needed_list("events", events);
        if events.is_empty() {
            fields.error("events", "count", "1 to 100 events");
        }
        events
    } else {
        vec![read_event(&mut fields)]
    };
    fields.finish()?;
    Ok(events)
}

fn read_event(fields: &mut Fields) -> TopicEvent {
    let event = fields.text("event", check_event).unwrap_or_else(|| "message".into());
    let key = fields.text("key", check_key);
    let data = match fields.value("data") {
        Some(Value::String(text)) => text,
        // Compact, so that it is one line.
        Some(value) => value.to_string(),
        None => {
            fields.error("data", "required", "text, or any JSON value");
            String::new()
        }
    };
    if let Err(invalid) = check_data(&data) {
        fields.error("data", invalid.code, invalid.expected);
    }
    TopicEvent { event, data, key }
}

fn wire(app: &App, topic: topic::Topic) -> Topic {
    Topic {
        streams: app.streams_of(&topic.name),
        last_event_at: rfc3339(topic.at_ms),
        events: topic.events,
        topic: topic.name,
    }
}

/// A name in a list's cursor, which knows letters and digits only.
fn hex(name: &str) -> String {
    name.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> String {
    let bytes = text.as_bytes().chunks(2).map(|pair| {
        std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
    });
    bytes
        .collect::<Option<Vec<u8>>>()
        .and_then(|name| String::from_utf8(name).ok())
        .unwrap_or_default()
}
