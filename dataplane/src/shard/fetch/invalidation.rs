//! What an unsafe request outdates when it succeeds: its own URL in every form, what its answer
//! names, and the groups of both (RFC 9111 §4.4, RFC 9875).
//!
//! Leaves to others: what a purge reaches (`cache`), the exchange itself (`fetch`).

use proto::{
    feed::record::{Purge, Scope},
    http1::client::Response,
};

use super::super::{Edge, request::HeadFields};
use crate::limits;

/// A cache key that an unsafe method outdates (RFC 9111 §4.4).
pub struct Invalidation {
    /// The site's id.
    pub site_id: Box<str>,
    /// Host, as in the key.
    pub host: Box<str>,
    /// Path and query.
    pub target: Box<str>,
    /// Other targets that rules of the site store the same URL under.
    pub forms: Vec<String>,
    /// Whether it may be stored several times, by fields of requests.
    pub adds: bool,
}

impl Edge {
    /// An unsafe request has succeeded: what it outdates is gone (RFC 9111 §4.4). `is_stored`: the
    /// answer itself has taken the place of what was stored for its target.
    pub(super) fn fetch_invalidate(
        &mut self,
        invalidates: Option<Invalidation>,
        response: &Response<'_>,
        is_stored: bool,
    ) {
        let Some(invalidates) = invalidates else { return };
        let host = invalidates.host.as_bytes();
        let target = invalidates.target.as_bytes();
        let key = self.cache.cache_key(&invalidates.site_id, host, target);
        let fields = HeadFields(response.head.fields);
        if !is_stored {
            self.outdated.extend(self.cache.invalidate(&key));
        }
        self.outdated.extend(self.cache.invalidate_named(&key, &fields));
        self.outdated.extend(self.cache.invalidate_groups(&key, &fields));
        for target in &invalidates.forms {
            let form = self.cache.cache_key(&invalidates.site_id, host, target.as_bytes());
            self.outdated.extend(self.cache.invalidate(&form));
        }
        if invalidates.adds {
            let (site, target) = (invalidates.site_id.to_string(), invalidates.target.to_string());
            for target in invalidates.forms.into_iter().chain([target]) {
                let scope = Scope::Url { site: site.clone(), target };
                let purge = Purge { position: 0, scope, soft: false };
                self.outdated.push_back(self.cache.purge(&purge));
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
            self.outdated.pop_front();
            // A step's cost is not told.
            budget /= 2;
            if budget == 0 && !self.outdated.is_empty() {
                return self.out.yield_turn();
            }
        }
    }
}
