//! `/v1/pages/{page}/components`.

use axum::{extract::Path, http::StatusCode, response::Response};

use super::{
    auth::{Call, answer, gone},
    body::Fields,
    problem::Failure,
    types::{Component, ComponentPatch, List, NewComponent, Problem},
};
use crate::{
    app::{Refusal, component, names::etag, page},
    limits,
    model::{self, api_key::Scope, check_name, check_slug},
    store::sqlite::{read::Tagged, writer::Answer},
};

/// Make a component.
#[utoipa::path(post, path = "/v1/pages/{page}/components", tag = "components", params(("page",)),
    request_body = NewComponent, responses(
    (status = 201, body = Component), (status = "4XX", body = Problem)))]
pub async fn create(Path(page): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let new = read_new(call.fields()?)?;
    call.write(move |txn| shown(StatusCode::CREATED, &page, &component::create(txn, &page, new)?))
        .await
}

/// List all components of a page, in the page's order.
#[utoipa::path(get, path = "/v1/pages/{page}/components", tag = "components", params(("page",)),
    responses((status = 200, body = List<Component>), (status = "4XX", body = Problem)))]
pub async fn list(Path(page): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Read)?;
    call.read_list(move |reader, _| {
        let page = page::find(reader, &page)?.value;
        let components = reader.components(&page.id)?;
        let items = components.iter().map(Component::of).collect();
        Ok(List { items, next_cursor: None })
    })
    .await
}

/// Read a component.
#[utoipa::path(get, path = "/v1/pages/{page}/components/{component}", tag = "components",
    params(("page",), ("component",)), responses(
    (status = 200, body = Component), (status = "4XX", body = Problem)))]
pub async fn read(
    Path((page, slug)): Path<(String, String)>,
    call: Call,
) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Read)?;
    call.read_one(move |reader| {
        let (_, found) = component::find(reader, &page, &slug)?;
        Ok((Component::of(&found.value), etag(found.dot)))
    })
    .await
}

/// Change a component.
#[utoipa::path(patch, path = "/v1/pages/{page}/components/{component}", tag = "components",
    params(("page",), ("component",)), request_body = ComponentPatch, responses(
    (status = 200, body = Component), (status = "4XX", body = Problem)))]
pub async fn change(
    Path((page, slug)): Path<(String, String)>,
    call: Call,
) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let (patch, if_match) = (read_patch(call.fields()?)?, call.if_match());
    call.write(move |txn| {
        let found = component::change(txn, &page, &slug, if_match.as_deref(), patch)?;
        shown(StatusCode::OK, &page, &found)
    })
    .await
}

/// Delete a component.
#[utoipa::path(delete, path = "/v1/pages/{page}/components/{component}", tag = "components",
    params(("page",), ("component",)), responses((status = 204), (status = "4XX", body = Problem)))]
pub async fn delete(
    Path((page, slug)): Path<(String, String)>,
    call: Call,
) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let if_match = call.if_match();
    call.write(move |txn| {
        component::delete(txn, &page, &slug, if_match.as_deref())?;
        Ok(gone())
    })
    .await
}

fn shown(
    status: StatusCode,
    page: &str,
    found: &Tagged<model::component::Component>,
) -> Result<Answer, Refusal> {
    let location = Some(format!("/v1/pages/{page}/components/{}", found.value.slug));
    answer(status, &Component::of(&found.value), location, Some(etag(found.dot)))
}

fn read_new(mut fields: Fields) -> Result<component::New, Refusal> {
    let new = component::New {
        slug: fields.needed_text("slug", check_slug),
        name: fields.needed_text("name", check_name),
        description: description(&mut fields).unwrap_or_default(),
        status: fields.word("status").unwrap_or_default(),
        position: fields.integer("position"),
    };
    fields.finish()?;
    Ok(new)
}

fn read_patch(mut fields: Fields) -> Result<component::Patch, Refusal> {
    let patch = component::Patch {
        slug: fields.text("slug", check_slug),
        name: fields.text("name", check_name),
        description: description(&mut fields),
        status: fields.word("status"),
        position: fields.integer("position"),
    };
    fields.finish()?;
    Ok(patch)
}

fn description(fields: &mut Fields) -> Option<String> {
    fields.long_text("description", limits::DESCRIPTION_BYTES_MAX)
}
