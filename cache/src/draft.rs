//! A response judged for storing, before it has a place: its head encoded, its times and rules
//! computed, its variant and surrogate keys read.

use std::sync::Arc;

use proto::feed::rule::LifetimeRule;

use crate::{
    Cache,
    body::Body,
    cache_status,
    decision::NoStoreReason,
    entry::{Entry, Parts},
    freshness::Times,
    head::{Head, first_hand},
    key::{CacheKey, CacheKeyRef},
    location,
    partial::Parts as Partial,
    request::{FieldSource, Method},
    response::Response,
    stale::StaleRules,
    storability::{self, Asked},
    surrogate::SurrogateKeys,
    targeted::Policy,
    vary::Variant,
};

/// An entry without key and body.
#[derive(Debug)]
pub(crate) struct Draft {
    head: Head,
    variant: Variant,
    surrogate_keys: SurrogateKeys,
    times: Times,
    stale: StaleRules,
    is_no_cache: bool,
    is_immutable: bool,
    shares_authorized: bool,
    /// What only the request behind the response may be given beside the head.
    pub(crate) first_hand: Box<[u8]>,
}

impl Draft {
    /// Of a response that brings its own body.
    pub(crate) fn of(
        cache: &Cache,
        cache_key: &CacheKeyRef<'_>,
        asked: Asked,
        rule: Option<&LifetimeRule>,
        request: &dyn FieldSource,
        response: &Response<'_>,
    ) -> Result<Self, NoStoreReason> {
        if asked.method == Method::Post
            && !is_own_location(cache_key, cache.config().scheme, response)
        {
            return Err(NoStoreReason::Method);
        }
        let config = cache.config();
        let policy = Policy::of(response.fields, &config.targets);
        let policy = policy.with_rule(rule, response.status, response.fields);
        let times = Times::of(response, &policy);
        let stale = StaleRules::of(&policy, config.stale_if_error_s);
        storability::check(asked, response, &policy, &times, &stale)?;
        Ok(Self {
            variant: Variant::of(request, response.fields)?,
            surrogate_keys: SurrogateKeys::of(cache_key.host, response.fields)?,
            head: Head::of(response, &policy, tail_bytes_max(cache, cache_key)),
            first_hand: first_hand(response, &policy),
            times,
            stale,
            is_no_cache: policy.directives.no_cache.is_everything(),
            is_immutable: policy.directives.immutable,
            shares_authorized: storability::shares_authorized(&policy.directives),
        })
    }

    /// Of a stored entry and the 304 (or the answer to HEAD) that updates it. Second, why it may
    /// not be stored, if so: it still answers the one who asked. To `Authorization` that is so
    /// unless the updated response lets it be shared: what a 304 says may be for its request alone,
    /// as a full answer may (RFC 9111 §3.5).
    pub(crate) fn of_update(
        cache: &Cache,
        stored: &Entry,
        asked: Asked,
        rule: Option<&LifetimeRule>,
        request: &dyn FieldSource,
        response: &Response<'_>,
    ) -> Result<(Self, Option<NoStoreReason>), NoStoreReason> {
        let config = cache.config();
        let cache_key = stored.cache_key.borrowed();
        let tail_bytes_max = tail_bytes_max(cache, &cache_key);
        let head = stored.head.updated(response, tail_bytes_max);
        let policy = Policy::of(&head, &config.targets);
        let policy = policy.with_rule(rule, stored.status(), &head);
        let merged = Response { fields: &head, status: stored.status(), ..*response };
        let times = Times::with_age(&merged, &policy, response.fields.get("Age"));
        let stale = StaleRules::of(&policy, config.stale_if_error_s);
        // What else of its request allowed storing was settled when it was stored.
        let asked = Asked { has_authorization: asked.has_authorization, ..Asked::GET };
        let refusal = storability::check(asked, &merged, &policy, &times, &stale).err();
        let variant = Variant::of(request, &head)?;
        // The response is still the one that its own request selected.
        let is_same_choice = variant.same_names(&stored.variant);
        let draft = Self {
            variant: if is_same_choice { stored.variant.clone() } else { variant },
            surrogate_keys: SurrogateKeys::of(cache_key.host, &head)?,
            times,
            stale,
            is_no_cache: policy.directives.no_cache.is_everything(),
            is_immutable: policy.directives.immutable,
            shares_authorized: storability::shares_authorized(&policy.directives),
            first_hand: first_hand(response, &policy),
            head: head.without_named(&policy, tail_bytes_max),
        };
        Ok((draft, refusal))
    }

    /// The entry, with its key and its body.
    pub(crate) fn entry(
        self,
        cache: &Cache,
        cache_key: &CacheKey,
        body: Arc<Body>,
        partial: Option<Partial>,
    ) -> Entry {
        let Self {
            head,
            variant,
            surrogate_keys,
            times,
            stale,
            is_no_cache,
            is_immutable,
            shares_authorized,
            first_hand: _,
        } = self;
        let cache_key = cache_key.clone();
        let compression = &cache.config().compression;
        let is_encodable =
            partial.is_none() && compression.suits(head.status, &head, body.length());
        // Behind the fields, because it is ours: the origin's own `Vary` says what selects it.
        let is_varied = is_encodable && !variant.is_by("accept-encoding");
        let vary = if is_varied { VARY } else { b"" };
        let beginning = cache_status::beginning(&cache.config().name, &cache_key.borrowed());
        let head = head.with_tail(&[vary, &beginning]);
        let parts = Parts {
            cache_key,
            variant,
            surrogate_keys,
            times,
            stale,
            is_no_cache,
            is_immutable,
            shares_authorized,
            body,
            partial,
            is_encodable,
        };
        Entry::new(cache.account(), head, parts)
    }
}

/// At most what [`Draft::entry`] puts behind the fields.
fn tail_bytes_max(cache: &Cache, cache_key: &CacheKeyRef<'_>) -> usize {
    let config = cache.config();
    let vary = if config.compression.codings.is_empty() { b"" } else { VARY };
    vary.len() + cache_status::beginning(&config.name, cache_key).len()
}

/// For what may be had in several codings.
const VARY: &[u8] = b"Vary: Accept-Encoding\r\n";

/// Whether a response says that it is the representation of its own target.
fn is_own_location(cache_key: &CacheKeyRef<'_>, scheme: &str, response: &Response<'_>) -> bool {
    let named = response.fields.get("Content-Location");
    named
        .and_then(|reference| location::same_origin_target(cache_key, scheme, reference))
        .is_some_and(|target| target == cache_key.target())
}
