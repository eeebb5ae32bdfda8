//! `/v1/keys`: API keys. A secret is shown once, in the answer that made it.

use axum::{extract::Path, http::StatusCode, response::Response};

use super::{
    auth::{Call, answer, gone},
    problem::Failure,
    types::{ApiKey, List, NewApiKey, Problem},
};
use crate::{
    app::{Refusal, api_key, names::etag},
    clock,
    model::{
        self,
        api_key::{Scope, secret},
        check_name,
    },
    store::sqlite::{StoreError, read::After, writer::Answer},
};

/// Make an API key.
#[utoipa::path(post, path = "/v1/keys", tag = "keys", request_body = NewApiKey, responses(
    (status = 201, body = ApiKey), (status = "4XX", body = Problem)))]
pub async fn create(call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Admin)?;
    let mut fields = call.fields()?;
    let name = fields.needed_text("name", check_name);
    let scopes = fields.texts("scopes", Scope::ALL.len(), |text| text.parse::<Scope>().map(|_| ()));
    let scopes = fields.needed_list("scopes", scopes);
    if scopes.is_empty() {
        fields.error("scopes", "count", "at least one of admin, write, read, purge, edge");
    }
    fields.finish()?;
    let scopes: Vec<Scope> = scopes.iter().filter_map(|scope| scope.parse().ok()).collect();
    let secret = secret(&clock::random());
    call.write(move |txn| {
        let found = api_key::create(txn, name, scopes, None, &secret)?;
        let location = Some(format!("/v1/keys/{}", found.value.id));
        let shown = ApiKey::of(&found.value, Some(secret));
        let replayed = ApiKey::of(&found.value, None);
        once(answer(StatusCode::CREATED, &shown, location, Some(etag(found.dot)))?, &replayed)
    })
    .await
}

/// List live API keys, oldest first.
#[utoipa::path(get, path = "/v1/keys", tag = "keys",
    responses((status = 200, body = List<ApiKey>)))]
pub async fn list(call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Admin)?;
    call.read_list(|reader, query| {
        let keys = reader.api_keys(query.cursor.as_ref(), query.read_limit())?;
        let at =
            |key: &model::api_key::ApiKey| After { rank: key.created_at_ms, id: key.id.clone() };
        Ok(query.list(keys, at, |key| ApiKey::of(&key, None)))
    })
    .await
}

/// Read an API key, without its secret.
#[utoipa::path(get, path = "/v1/keys/{id}", tag = "keys", params(("id",)), responses(
    (status = 200, body = ApiKey), (status = "4XX", body = Problem)))]
pub async fn read(Path(id): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Admin)?;
    call.read_one(move |reader| {
        let found = reader.api_key(&id)?.ok_or_else(|| Refusal::not_found("API key", id))?;
        Ok((ApiKey::of(&found.value, None), etag(found.dot)))
    })
    .await
}

/// Revoke an API key.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "keys", params(("id",)), responses(
    (status = 204), (status = "4XX", body = Problem)))]
pub async fn revoke(Path(id): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Admin)?;
    let if_match = call.if_match();
    call.write(move |txn| {
        api_key::revoke(txn, &id, if_match.as_deref())?;
        Ok(gone())
    })
    .await
}

/// An answer with a secret that a replay leaves out: the store keeps digests only.
pub(super) fn once<T: serde::Serialize>(answer: Answer, replayed: &T) -> Result<Answer, Refusal> {
    let body = serde_json::to_string(replayed).map_err(StoreError::from)?;
    Ok(Answer { body_replayed: Some(body), ..answer })
}
