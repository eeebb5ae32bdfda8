//! `/v1/pages`.

use axum::{extract::Path, http::StatusCode, response::Response};

use super::{
    auth::{Call, answer, gone},
    body::Fields,
    problem::Failure,
    types::{List, NewPage, Page, PagePatch, Problem},
};
use crate::{
    app::{Refusal, names::etag, page},
    limits,
    model::{self, api_key::Scope, check_host, check_name, page::check_page_slug},
    store::sqlite::read::{After, Tagged},
};

/// Make a page.
#[utoipa::path(post, path = "/v1/pages", tag = "pages", request_body = NewPage, responses(
    (status = 201, body = Page), (status = "4XX", body = Problem)))]
pub async fn create(call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let new = read_new(call.fields()?)?;
    call.write(move |txn| shown(StatusCode::CREATED, &page::create(txn, new)?)).await
}

/// List pages, oldest first.
#[utoipa::path(get, path = "/v1/pages", tag = "pages",
    responses((status = 200, body = List<Page>)))]
pub async fn list(call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Read)?;
    call.read_list(|reader, query| {
        let pages = reader.pages(query.cursor.as_ref(), query.read_limit())?;
        let at = |page: &model::page::Page| After { rank: page.created_at_ms, id: page.id.clone() };
        Ok(query.list(pages, at, |page| Page::of(&page)))
    })
    .await
}

/// Read a page, by slug or id.
#[utoipa::path(get, path = "/v1/pages/{page}", tag = "pages", params(("page",)), responses(
    (status = 200, body = Page), (status = "4XX", body = Problem)))]
pub async fn read(Path(slug): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Read)?;
    call.read_one(move |reader| {
        let found = page::find(reader, &slug)?;
        Ok((Page::of(&found.value), etag(found.dot)))
    })
    .await
}

/// Change a page.
#[utoipa::path(patch, path = "/v1/pages/{page}", tag = "pages", params(("page",)),
    request_body = PagePatch, responses(
    (status = 200, body = Page), (status = "4XX", body = Problem)))]
pub async fn change(Path(slug): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let (patch, if_match) = (read_patch(call.fields()?)?, call.if_match());
    call.write(move |txn| {
        shown(StatusCode::OK, &page::change(txn, &slug, if_match.as_deref(), patch)?)
    })
    .await
}

/// Delete a page.
#[utoipa::path(delete, path = "/v1/pages/{page}", tag = "pages", params(("page",)), responses(
    (status = 204), (status = "4XX", body = Problem)))]
pub async fn delete(Path(slug): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let if_match = call.if_match();
    call.write(move |txn| {
        page::delete(txn, &slug, if_match.as_deref())?;
        Ok(gone())
    })
    .await
}

fn shown(
    status: StatusCode,
    found: &Tagged<model::page::Page>,
) -> Result<crate::store::sqlite::writer::Answer, Refusal> {
    let location = Some(format!("/v1/pages/{}", found.value.slug));
    answer(status, &Page::of(&found.value), location, Some(etag(found.dot)))
}

fn read_new(mut fields: Fields) -> Result<page::New, Refusal> {
    let new = page::New {
        slug: fields.needed_text("slug", check_page_slug),
        name: fields.needed_text("name", check_name),
        hosts: fields.texts("hosts", limits::HOSTS_MAX, check_host).unwrap_or_default(),
    };
    fields.finish()?;
    Ok(new)
}

fn read_patch(mut fields: Fields) -> Result<page::Patch, Refusal> {
    let patch = page::Patch {
        slug: fields.text("slug", check_page_slug),
        name: fields.text("name", check_name),
        hosts: fields.texts("hosts", limits::HOSTS_MAX, check_host),
    };
    fields.finish()?;
    Ok(patch)
}
