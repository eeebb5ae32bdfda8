//! `/v1/pages/{page}/incidents`, `/v1/incidents/{id}` and their updates.

use axum::{extract::Path, http::StatusCode, response::Response};

use super::{
    auth::{Call, answer, gone},
    body::Fields,
    problem::Failure,
    types::{Incident, IncidentPatch, List, NewIncident, NewUpdate, Problem, Update, UpdatePatch},
};
use crate::{
    app::{Refusal, incident, names::etag, page},
    limits,
    model::{api_key::Scope, check_name, impact::Impact, incident::IncidentStatus},
    store::sqlite::{read::After, writer::Answer},
};

/// Declare an incident.
#[utoipa::path(post, path = "/v1/pages/{page}/incidents", tag = "incidents", params(("page",)),
    request_body = NewIncident, responses(
    (status = 201, body = Incident), (status = "4XX", body = Problem)))]
pub async fn create(Path(page): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let new = read_new(call.fields()?)?;
    call.write(move |txn| shown(StatusCode::CREATED, &incident::create(txn, &page, new)?)).await
}

/// List a page's incidents, newest first.
#[utoipa::path(get, path = "/v1/pages/{page}/incidents", tag = "incidents", params(("page",)),
    responses((status = 200, body = List<Incident>), (status = "4XX", body = Problem)))]
pub async fn list(Path(page): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Read)?;
    call.read_list(move |reader, query| {
        let page = page::find(reader, &page)?.value;
        let components = reader.components(&page.id)?;
        let found = reader.incidents(&page.id, query.cursor.as_ref(), query.read_limit())?;
        let at = |incident: &crate::model::incident::Incident| After {
            rank: incident.created_at_ms,
            id: incident.id.clone(),
        };
        Ok(query.list(found, at, |incident| Incident::of(&incident, &page, &components)))
    })
    .await
}

/// Read an incident.
#[utoipa::path(get, path = "/v1/incidents/{id}", tag = "incidents", params(("id",)), responses(
    (status = 200, body = Incident), (status = "4XX", body = Problem)))]
pub async fn read(Path(id): Path<String>, call: Call) -> Result<Response, Failure> {
    read_on(None, id, call).await
}

/// Read an incident of a page.
#[utoipa::path(get, path = "/v1/pages/{page}/incidents/{id}", tag = "incidents",
    params(("page",), ("id",)), responses(
    (status = 200, body = Incident), (status = "4XX", body = Problem)))]
pub async fn read_of_page(
    Path((page, id)): Path<(String, String)>,
    call: Call,
) -> Result<Response, Failure> {
    read_on(Some(page), id, call).await
}

async fn read_on(page: Option<String>, id: String, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Read)?;
    call.read_one(move |reader| {
        let found = incident::find(reader, &id)?;
        check_page(page.as_deref(), &found)?;
        Ok((wire(&found), etag(found.incident.dot)))
    })
    .await
}

/// Change an incident's title or impact.
#[utoipa::path(patch, path = "/v1/incidents/{id}", tag = "incidents", params(("id",)),
    request_body = IncidentPatch, responses(
    (status = 200, body = Incident), (status = "4XX", body = Problem)))]
pub async fn change(Path(id): Path<String>, call: Call) -> Result<Response, Failure> {
    change_on(None, id, call).await
}

/// Change an incident of a page.
#[utoipa::path(patch, path = "/v1/pages/{page}/incidents/{id}", tag = "incidents",
    params(("page",), ("id",)), request_body = IncidentPatch, responses(
    (status = 200, body = Incident), (status = "4XX", body = Problem)))]
pub async fn change_of_page(
    Path((page, id)): Path<(String, String)>,
    call: Call,
) -> Result<Response, Failure> {
    change_on(Some(page), id, call).await
}

async fn change_on(page: Option<String>, id: String, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let mut fields = call.fields()?;
    let patch =
        incident::Patch { title: fields.text("title", check_name), impact: impact(&mut fields) };
    fields.finish()?;
    let if_match = call.if_match();
    call.write(move |txn| {
        check_page(page.as_deref(), &incident::find(txn, &id)?)?;
        shown(StatusCode::OK, &incident::change(txn, &id, if_match.as_deref(), patch)?)
    })
    .await
}

/// Delete an incident.
#[utoipa::path(delete, path = "/v1/incidents/{id}", tag = "incidents", params(("id",)), responses(
    (status = 204), (status = "4XX", body = Problem)))]
pub async fn delete(Path(id): Path<String>, call: Call) -> Result<Response, Failure> {
    delete_on(None, id, call).await
}

/// Delete an incident of a page.
#[utoipa::path(delete, path = "/v1/pages/{page}/incidents/{id}", tag = "incidents",
    params(("page",), ("id",)), responses((status = 204), (status = "4XX", body = Problem)))]
pub async fn delete_of_page(
    Path((page, id)): Path<(String, String)>,
    call: Call,
) -> Result<Response, Failure> {
    delete_on(Some(page), id, call).await
}

async fn delete_on(page: Option<String>, id: String, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let if_match = call.if_match();
    call.write(move |txn| {
        check_page(page.as_deref(), &incident::find(txn, &id)?)?;
        incident::delete(txn, &id, if_match.as_deref())?;
        Ok(gone())
    })
    .await
}

/// Append an update; answers with the whole incident.
#[utoipa::path(post, path = "/v1/incidents/{id}/updates", tag = "incidents", params(("id",)),
    request_body = NewUpdate, responses(
    (status = 201, body = Incident), (status = "4XX", body = Problem)))]
pub async fn update(Path(id): Path<String>, call: Call) -> Result<Response, Failure> {
    update_on(None, id, call).await
}

/// Append an update to an incident of a page; answers with the whole incident.
#[utoipa::path(post, path = "/v1/pages/{page}/incidents/{id}/updates", tag = "incidents",
    params(("page",), ("id",)), request_body = NewUpdate, responses(
    (status = 201, body = Incident), (status = "4XX", body = Problem)))]
pub async fn update_of_page(
    Path((page, id)): Path<(String, String)>,
    call: Call,
) -> Result<Response, Failure> {
    update_on(Some(page), id, call).await
}

async fn update_on(page: Option<String>, id: String, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let new = read_update(call.fields()?)?;
    let if_match = call.if_match();
    call.write(move |txn| {
        check_page(page.as_deref(), &incident::find(txn, &id)?)?;
        shown(StatusCode::CREATED, &incident::update(txn, &id, if_match.as_deref(), new)?)
    })
    .await
}

/// List an incident's updates, newest first.
#[utoipa::path(get, path = "/v1/incidents/{id}/updates", tag = "incidents", params(("id",)),
    responses((status = 200, body = List<Update>), (status = "4XX", body = Problem)))]
pub async fn updates(Path(id): Path<String>, call: Call) -> Result<Response, Failure> {
    updates_on(None, id, call).await
}

/// List the updates of an incident of a page, newest first.
#[utoipa::path(get, path = "/v1/pages/{page}/incidents/{id}/updates", tag = "incidents",
    params(("page",), ("id",)),
    responses((status = 200, body = List<Update>), (status = "4XX", body = Problem)))]
pub async fn updates_of_page(
    Path((page, id)): Path<(String, String)>,
    call: Call,
) -> Result<Response, Failure> {
    updates_on(Some(page), id, call).await
}

async fn updates_on(page: Option<String>, id: String, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Read)?;
    call.read_list(move |reader, _| {
        let found = incident::find(reader, &id)?;
        check_page(page.as_deref(), &found)?;
        Ok(List { items: wire(&found).updates, next_cursor: None })
    })
    .await
}

/// Give an update a better text.
#[utoipa::path(patch, path = "/v1/incidents/{id}/updates/{update}", tag = "incidents",
    params(("id",), ("update",)), request_body = UpdatePatch, responses(
    (status = 200, body = Incident), (status = "4XX", body = Problem)))]
pub async fn edit_update(
    Path((id, update)): Path<(String, String)>,
    call: Call,
) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let mut fields = call.fields()?;
    let message = fields.long_text("message", limits::MESSAGE_BYTES_MAX);
    if message.is_none() {
        fields.error("message", "required", "text");
    }
    fields.finish()?;
    let if_match = call.if_match();
    call.write(move |txn| {
        let message = message.unwrap_or_default();
        let found = incident::edit_update(txn, &id, &update, if_match.as_deref(), message)?;
        shown(StatusCode::OK, &found)
    })
    .await
}

fn wire(found: &incident::Found) -> Incident {
    Incident::of(&found.incident.value, &found.page, &found.components)
}

fn shown(status: StatusCode, found: &incident::Found) -> Result<Answer, Refusal> {
    let location = Some(format!("/v1/incidents/{}", found.incident.value.id));
    answer(status, &wire(found), location, Some(etag(found.incident.dot)))
}

/// An incident named below a page must be one of that page.
fn check_page(page: Option<&str>, found: &incident::Found) -> Result<(), Refusal> {
    match page {
        Some(page) if page != found.page.slug && page != found.page.id => {
            Err(Refusal::not_found("incident", &found.incident.value.id))
        }
        _ => Ok(()),
    }
}

fn read_new(mut fields: Fields) -> Result<incident::New, Refusal> {
    let new = incident::New {
        title: fields.needed_text("title", check_name),
        status: fields.word("status").unwrap_or(IncidentStatus::Investigating),
        impact: impact(&mut fields),
        components: fields.words("components", limits::COMPONENTS_MAX).unwrap_or_default(),
        message: message(&mut fields),
    };
    fields.finish()?;
    Ok(new)
}

fn read_update(mut fields: Fields) -> Result<incident::NewUpdate, Refusal> {
    let new = incident::NewUpdate {
        status: fields.word("status"),
        message: message(&mut fields),
        components: fields.words("components", limits::COMPONENTS_MAX).unwrap_or_default(),
    };
    fields.finish()?;
    if new == incident::NewUpdate::default() {
        let expected = "at least one of status, message, components";
        return Err(Refusal::invalid("", "empty", expected));
    }
    Ok(new)
}

fn message(fields: &mut Fields) -> String {
    fields.long_text("message", limits::MESSAGE_BYTES_MAX).unwrap_or_default()
}

/// `impact`, or its other word `severity`; not both.
fn impact(fields: &mut Fields) -> Option<Impact> {
    let impact = fields.word("impact");
    let check = |text: &str| Impact::from_severity(text).map(|_| ());
    let severity = fields.text("severity", check);
    if impact.is_some() && severity.is_some() {
        fields.error("severity", "twice", "either impact or severity");
    }
    impact.or_else(|| severity.and_then(|text| Impact::from_severity(&text).ok()))
}
