//! What an unsafe request outdates when it succeeds: its own URL and those that its answer names,
//! each in every form that it may be stored in, and their groups (RFC 9111 §4.4, RFC 9875).
//!
//! Leaves to others: what a purge reaches (`cache`), the exchange itself (`fetch`).

use cache::CacheKey;
use proto::{
    feed::record::{Purge, Scope},
    http1::client::Response,
};

use super::super::{Edge, request::HeadFields, rule::Rules};
use crate::limits;

/// A cache key that an unsafe method outdates (RFC 9111 §4.4).
pub struct Invalidation {
    /// The site's id.
    pub site_id: Box<str>,
    /// Host, as in the key.
    pub host: Box<str>,
    /// Path and query, as in the key.
    pub target: Box<str>,
    /// The same as the client wrote it: what references in the answer start from.
    pub raw: Box<str>,
    /// They say in which forms a URL may be stored.
    pub rules: Rules,
}

impl Edge {
    /// An unsafe request has succeeded: what it outdates is gone (RFC 9111 §4.4). `stored`: the
    /// answer itself has taken the place of what was stored under this cache key.
    pub(super) fn fetch_invalidate(
        &mut self,
        invalidates: Option<Invalidation>,
        response: &Response<'_>,
        stored: Option<&CacheKey>,
    ) {
        let Some(invalidates) = invalidates else { return };
        let Invalidation { site_id, host, target, raw, rules } = invalidates;
        let fields = HeadFields(response.head.fields);
        let key = self.cache.cache_key(&site_id, host.as_bytes(), raw.as_bytes());
        let mut forms = vec![target.to_string()];
        for url in [raw.to_string()].into_iter().chain(self.cache.named_targets(&key, &fields)) {
            let new = rules.targets(&url).into_iter().filter(|form| !forms.contains(form));
            forms.extend(new.collect::<Vec<_>>());
        }
        self.outdated.extend(self.cache.invalidate_groups(&key, &fields));
        for form in &forms[usize::from(stored.is_some())..] {
            let key = self.cache.cache_key(&site_id, host.as_bytes(), form.as_bytes());
            let beside = self.cache.invalidate(&key).into_iter();
            self.outdated.extend(beside.map(|purge| purge.sparing(stored)));
        }
        if rules.adds() {
            for target in forms {
                let scope = Scope::Url { site: site_id.to_string(), target };
                let purge = Purge { position: 0, scope, soft: false };
                let purge = self.cache.purge(&purge).sparing(stored);
                self.outdated.push_back(purge.with_groups_of(&site_id, &host));
            }
        }
        self.cut_groups();
    }

    /// Purges outdated groups (RFC 9875), a budget a turn.
    pub fn cut_groups(&mut self) {
        let mut budget = limits::GROUP_CUT_BUDGET;
        loop {
            let is_full = self.outdated.len() > limits::GROUP_CUTS_MAX;
            let Some(purge) = self.outdated.front_mut() else { return };
            if is_full {
                budget = usize::MAX;
            }
            if !purge.step(&self.cache, budget).done {
                return self.out.yield_turn();
            }
            let beside = purge.take_beside(&self.cache);
            self.outdated.pop_front();
            self.outdated.extend(beside);
            // A step's cost is not told.
            budget /= 2;
            if budget == 0 && !self.outdated.is_empty() {
                return self.out.yield_turn();
            }
        }
    }
}
