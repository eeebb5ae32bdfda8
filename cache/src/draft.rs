//! A response judged for storing, before it has a place: its head encoded, its times and rules
//! computed, its variant and surrogate keys read.

use std::sync::Arc;

use crate::{
    Cache,
    account::Account,
    body::Body,
    decision::NoStoreReason,
    entry::{Entry, Parts},
    freshness::Times,
    head::Head,
    key::CacheKey,
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
}

impl Draft {
    /// Of a response that brings its own body.
    pub(crate) fn of(
        cache: &Cache,
        asked: Asked,
        request: &dyn FieldSource,
        response: &Response<'_>,
    ) -> Result<Self, NoStoreReason> {
        let config = cache.config();
        let policy = Policy::of(response.fields, &config.targets);
        let times = Times::of(response, &policy);
        let stale = StaleRules::of(&policy, config.stale_if_error_s);
        storability::check(asked, response, &policy, &times, &stale)?;
        Ok(Self {
            variant: Variant::of(request, response.fields)?,
            surrogate_keys: SurrogateKeys::of(response.fields)?,
            head: Head::of(response, &policy),
            times,
            stale,
            is_no_cache: policy.directives.no_cache.is_everything(),
        })
    }

    /// Of a stored entry and the 304 (or the answer to HEAD) that updates it. Second, why it may
    /// not be stored any more, if so: it still answers those who waited for it.
    pub(crate) fn of_update(
        cache: &Cache,
        stored: &Entry,
        request: &dyn FieldSource,
        response: &Response<'_>,
    ) -> Result<(Self, Option<NoStoreReason>), NoStoreReason> {
        let config = cache.config();
        let head = stored.head.updated(response);
        let policy = Policy::of(&head, &config.targets);
        let merged = Response { fields: &head, status: stored.status(), ..*response };
        let times = Times::with_age(&merged, &policy, response.fields.get("Age"));
        let stale = StaleRules::of(&policy, config.stale_if_error_s);
        // That it could be stored for its request was settled when it was.
        let asked = Asked { method: Method::Get, no_store: false, has_authorization: false };
        let refusal = storability::check(asked, &merged, &policy, &times, &stale).err();
        let draft = Self {
            variant: Variant::of(request, &head)?,
            surrogate_keys: SurrogateKeys::of(&head)?,
            times,
            stale,
            is_no_cache: policy.directives.no_cache.is_everything(),
            head: head.without_named(&policy),
        };
        Ok((draft, refusal))
    }

    /// The entry, with its key and its body.
    pub(crate) fn entry(
        self,
        account: &Arc<Account>,
        cache_key: &CacheKey,
        body: Arc<Body>,
    ) -> Entry {
        let Self { head, variant, surrogate_keys, times, stale, is_no_cache } = self;
        let cache_key = cache_key.clone();
        let parts = Parts { cache_key, variant, surrogate_keys, times, stale, is_no_cache, body };
        Entry::new(account, head, parts)
    }
}
