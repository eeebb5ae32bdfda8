//! A request for a site: what its routes and rules make of it, before the cache or an origin is
//! asked.
//!
//! ```text
//!   PURGE? ─ route passes? ─ rule ─┬─ pass ────────────────▶ origin, relayed
//!                                  └─ key, lifetime ───────▶ cache
//! ```
//! Leaves to others: which route (`route`), which rule and what key (`rule`), what comes of it
//! (`request`).

use std::rc::Rc;

use cache::Forward;
use proto::{
    feed::site::Policy,
    http1::{head::Method, server::Request},
};

use super::{
    Edge,
    conn::Exchange,
    kept_head::host_of,
    purge_request::PURGE,
    request::{AskedRef, CacheLabel, Place, Turn},
    respond::{Own, Writer},
    route::SiteRoute,
    rule::About,
};
use crate::seam::Now;

impl Edge {
    /// Answers a request for a site, or says what it waits for.
    pub(super) fn site(
        &mut self,
        now: Now,
        turn: Turn<'_>,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        (site, policy): (&Rc<SiteRoute>, Policy),
        writer: &mut Writer,
    ) -> Exchange {
        if request.head.method.as_str() == PURGE {
            return self.purge_request(now, turn, request, asked, site, writer);
        }
        let target = request.head.target.path_and_query();
        let Some(host) = host_of(&request.head.authority) else {
            let own = Own::text(400, "The host name is too long.");
            return self.own(now, &own, asked, writer);
        };
        let host = &*host;
        let origins = site.rows(&mut self.origins);
        let rules = (!site.rules.is_empty()).then_some(&site.rules);
        let mut place = Place {
            site_id: &site.id,
            key_host: host,
            target,
            added: b"",
            asks: target,
            raw: target,
            lifetime: None,
            rules,
            host,
            origins,
            is_page: false,
        };
        let method = request.head.method;
        let about = About { host, target, method: method.as_str(), fields: &request.head.fields };
        let rule = rules.and_then(|rules| rules.find(about));
        if let Some(rule) = rule {
            self.explain_rule(&rule.name);
        }
        // A GET with content is legal and means nothing that a cache could know.
        let is_read = matches!(method, Method::Get | Method::Head);
        let is_passed = policy == Policy::Pass || rule.is_some_and(|rule| rule.is_pass);
        if is_passed || (is_read && request.body.has_content()) {
            return self.pass(now, turn, request, asked, place);
        }
        let Some(rule) = rule else {
            return self.cached(now, request, asked, turn, place, writer);
        };
        place.lifetime = rule.lifetime.as_ref();
        if rule.key.is_none() {
            return self.cached(now, request, asked, turn, place, writer);
        }
        let mut written = std::mem::take(&mut self.scratch);
        let mut added = std::mem::take(&mut self.scratch_added);
        let exchange = match rule.write_key(about, &mut written, &mut added) {
            Ok(()) => {
                let asks = if rule.forwards_dropped() { target } else { &written };
                let place = Place { target: &written, added: &added, asks, ..place };
                self.cached(now, request, asked, turn, place, writer)
            }
            Err(_) => self.pass(now, turn, request, asked, place),
        };
        (self.scratch, self.scratch_added) = (written, added);
        exchange
    }

    fn pass(
        &mut self,
        now: Now,
        turn: Turn<'_>,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        place: Place<'_>,
    ) -> Exchange {
        let how = (CacheLabel::Pass, Forward::Bypass, None);
        self.relay(now, turn.scene, request, asked, place, how)
    }
}
