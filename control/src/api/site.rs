//! `/v1/sites`.

use axum::{extract::Path, http::StatusCode, response::Response};
use proto::feed::site::{
    Origin, Placement, Policy, Route, Site as FeedSite, SlowPolicy, StreamRules, TokenAlg, TokenKey,
};

use super::{
    auth::{Call, answer, gone},
    body::Fields,
    problem::Failure,
    rule::{purge_keys, rules},
    types::{List, NewSite, Problem, Site, SitePatch},
};
use crate::{
    app::{Refusal, names::etag, site},
    limits,
    model::{self, Invalid, api_key::Scope, check_host, check_slug, site::check_pattern},
    store::sqlite::{
        read::{After, Tagged},
        writer::Answer,
    },
};

/// Make a site.
#[utoipa::path(post, path = "/v1/sites", tag = "sites", request_body = NewSite, responses(
    (status = 201, body = Site), (status = "4XX", body = Problem)))]
pub async fn create(call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let mut fields = call.fields()?;
    let hosts = hosts(&mut fields);
    let origins = origins(&mut fields);
    let new = FeedSite {
        id: String::new(),
        name: fields.needed_text("name", check_slug),
        hosts: fields.needed_list("hosts", hosts),
        origins: fields.needed_list("origins", origins),
        routes: routes(&mut fields).unwrap_or_default(),
        token_keys: token_keys(&mut fields).unwrap_or_default(),
        rules: rules(&mut fields).unwrap_or_default(),
        purge_keys: purge_keys(&mut fields).unwrap_or_default(),
    };
    fields.finish()?;
    call.write(move |txn| shown(StatusCode::CREATED, &site::create(txn, new)?)).await
}

/// List sites, oldest first.
#[utoipa::path(get, path = "/v1/sites", tag = "sites",
    responses((status = 200, body = List<Site>)))]
pub async fn list(call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Read)?;
    call.read_list(|reader, query| {
        let sites = reader.sites(query.cursor.as_ref(), query.read_limit())?;
        let at =
            |site: &model::site::Site| After { rank: site.created_at_ms, id: site.site.id.clone() };
        Ok(query.list(sites, at, |site| Site::of(&site)))
    })
    .await
}

/// Read a site, by name or id.
#[utoipa::path(get, path = "/v1/sites/{site}", tag = "sites", params(("site",)), responses(
    (status = 200, body = Site), (status = "4XX", body = Problem)))]
pub async fn read(Path(name): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Read)?;
    call.read_one(move |reader| {
        let found = site::find(reader, &name)?;
        Ok((Site::of(&found.value), etag(found.dot)))
    })
    .await
}

/// Change a site.
#[utoipa::path(patch, path = "/v1/sites/{site}", tag = "sites", params(("site",)),
    request_body = SitePatch, responses(
    (status = 200, body = Site), (status = "4XX", body = Problem)))]
pub async fn change(Path(name): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let mut fields = call.fields()?;
    let patch = site::Patch {
        name: fields.text("name", check_slug),
        hosts: hosts(&mut fields),
        origins: origins(&mut fields),
        routes: routes(&mut fields),
        token_keys: token_keys(&mut fields),
        rules: rules(&mut fields),
        purge_keys: purge_keys(&mut fields),
    };
    fields.finish()?;
    let if_match = call.if_match();
    call.write(move |txn| {
        shown(StatusCode::OK, &site::change(txn, &name, if_match.as_deref(), patch)?)
    })
    .await
}

/// Remove a site; what edges have stored of it goes.
#[utoipa::path(delete, path = "/v1/sites/{site}", tag = "sites", params(("site",)), responses(
    (status = 204), (status = "4XX", body = Problem)))]
pub async fn delete(Path(name): Path<String>, call: Call) -> Result<Response, Failure> {
    let call = call.allowed(Scope::Write)?;
    let if_match = call.if_match();
    call.write(move |txn| {
        site::delete(txn, &name, if_match.as_deref())?;
        Ok(gone())
    })
    .await
}

fn shown(status: StatusCode, found: &Tagged<model::site::Site>) -> Result<Answer, Refusal> {
    let location = Some(format!("/v1/sites/{}", found.value.site.name));
    answer(status, &Site::of(&found.value), location, Some(etag(found.dot)))
}

fn hosts(fields: &mut Fields) -> Option<Vec<String>> {
    fields.texts("hosts", limits::HOSTS_MAX, check_host)
}

fn origins(fields: &mut Fields) -> Option<Vec<Origin>> {
    fields.objects("origins", limits::ORIGINS_MAX, |origin| {
        let url = origin.needed_text("url", |_| Ok(()));
        // People copy addresses with a slash at the end; it says nothing.
        Some(Origin { url: url.trim_end_matches('/').to_owned() })
    })
}

fn routes(fields: &mut Fields) -> Option<Vec<Route>> {
    fields.objects("routes", limits::ROUTES_MAX, |route| {
        let prefix = route.needed_text("prefix", |_| Ok(()));
        let policy = route.needed_text("policy", |text| policy(text).map(|_| ()));
        let stream = route.object("stream", stream_rules);
        Some(Route { prefix, policy: policy_of(&policy), stream })
    })
}

fn stream_rules(fields: &mut Fields) -> StreamRules {
    let topics = fields.texts("topics", limits::ROUTE_TOPICS_MAX, check_pattern);
    let slow = fields.text("slow", |text| slow_policy(text).map(|_| ()));
    let placed = fields.text("placement", |text| placement(text).map(|_| ()));
    StreamRules {
        topics: fields.needed_list("topics", topics),
        slow: slow.and_then(|text| slow_policy(&text).ok()).unwrap_or_default(),
        snapshot: fields.boolean("snapshot").unwrap_or_default(),
        private: fields.boolean("private").unwrap_or_default(),
        retry_ms: number(fields, "retry_ms", limits::STREAM_RETRY_MS, "100 to 600,000"),
        age_s_max: number(fields, "age_s_max", limits::STREAM_AGE_S, "10 to 604,800"),
        placement: placed.and_then(|text| placement(&text).ok()).unwrap_or_default(),
    }
}

fn number(
    fields: &mut Fields,
    name: &'static str,
    range: std::ops::RangeInclusive<u64>,
    expected: &str,
) -> Option<u64> {
    let value = fields.integer(name)?;
    let number = u64::try_from(value).ok().filter(|number| range.contains(number));
    if number.is_none() {
        fields.error(name, "number", expected);
    }
    number
}

fn placement(text: &str) -> Result<Placement, Invalid> {
    Placement::ALL
        .into_iter()
        .find(|placement| placement.as_str() == text)
        .ok_or(Invalid { code: "placement", expected: "relay or redirect" })
}

fn slow_policy(text: &str) -> Result<SlowPolicy, Invalid> {
    SlowPolicy::ALL
        .into_iter()
        .find(|policy| policy.as_str() == text)
        .ok_or(Invalid { code: "slow_policy", expected: "follow, conflate, skip or disconnect" })
}

fn token_keys(fields: &mut Fields) -> Option<Vec<TokenKey>> {
    fields.objects("token_keys", limits::TOKEN_KEYS_MAX, |key| {
        let alg = key.needed_text("alg", |text| alg(text).map(|_| ()));
        Some(TokenKey {
            id: key.needed_text("id", |_| Ok(())),
            alg: alg_of(&alg),
            key: key.needed_text("key", |_| Ok(())),
        })
    })
}

fn alg(text: &str) -> Result<TokenAlg, Invalid> {
    match text {
        "HS256" => Ok(TokenAlg::Hs256),
        "EdDSA" => Ok(TokenAlg::EdDsa),
        _ => Err(Invalid { code: "alg", expected: "HS256 or EdDSA" }),
    }
}

/// An algorithm whose mistake, if any, has been named already.
fn alg_of(text: &str) -> TokenAlg {
    alg(text).unwrap_or(TokenAlg::EdDsa)
}

fn policy(text: &str) -> Result<Policy, Invalid> {
    match text {
        "cache" => Ok(Policy::Cache),
        "pass" => Ok(Policy::Pass),
        "stream" => Ok(Policy::Stream),
        _ => Err(Invalid { code: "policy", expected: "cache, pass or stream" }),
    }
}

/// A policy whose mistake, if any, has been named already.
fn policy_of(text: &str) -> Policy {
    policy(text).unwrap_or(Policy::Pass)
}
