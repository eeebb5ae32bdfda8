//! The one decision: what to do with a request.
//!
//! ```text
//!   request ─▶ takes part? ─no─▶ Bypass
//!                 │yes
//!              near table: usable and fresh? ─yes─▶ Hit       (no lock)
//!                 │no
//!              index: usable? ─fresh enough─▶ Hit
//!                 │no             └stale, allowed─▶ Stale (+ lease)
//!              a lease is out? ─yes─▶ Wait, or Stale while the origin fails
//!                 │no
//!              give a lease ─▶ Revalidate or Miss
//! ```
//! [`judge`] holds the rules of RFC 9111 §4 and §5.2.1 and is the same for both tables.

use std::sync::Arc;

use proto::feed::cursor::VersionVector;

use crate::{
    Cache,
    cache_status::Forward,
    collapse::{Ticket, Waiter, WakeWith},
    decision::{Answer, BypassReason, Decision, Freshness, Hit, Tier},
    entry::Entry,
    index::Segment,
    limits,
    near::{Local, Near},
    request::{Method, Request},
    storability::Asked,
    validation,
};

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Wall clock.
    pub now_ms: u64,
    /// Whom to wake if the request has to wait.
    pub waiter: Waiter,
    /// `Pharos-Min-Version`: no entry with a version below this one is used.
    pub min_version: Option<&'a VersionVector>,
    /// How often this request has waited already. Past [`limits::WAITS_MAX`] it fetches for itself.
    pub waits: u8,
}

impl Cache {
    /// Decides what to do with a request.
    pub fn lookup(
        self: &Arc<Self>,
        near: &mut Near,
        request: &Request<'_>,
        asking: &Asking<'_>,
    ) -> Decision {
        near.stats.lookups += 1;
        if let Some(reason) = bypass_reason(request) {
            near.stats.bypasses += 1;
            return Decision::Bypass(reason);
        }
        if let Some(local) = near.find(request)
            && judge(local.entry(), request, asking) == Verdict::Serve(Freshness::Fresh)
        {
            let found = (local.clone(), Tier::Near);
            let hit = hit(self, found, request, asking.now_ms, Freshness::Fresh);
            near.stats.near_hits += 1;
            return Decision::Hit(hit);
        }
        let decided = self.segment_by_hash(request.cache_key.hash).decide(
            request,
            asking,
            self.config().waiters_per_lease_max,
        );
        self.carry_out(near, request, asking, decided)
    }

    /// Decides for a request that waited and was woken. [`WakeWith::Retry`] looks up again;
    /// [`WakeWith::Failed`], [`WakeWith::Busy`] and [`WakeWith::Progress`] are not for this.
    pub fn lookup_woken(
        self: &Arc<Self>,
        near: &mut Near,
        request: &Request<'_>,
        asking: &Asking<'_>,
        with: &WakeWith,
    ) -> Decision {
        let (entry, freshness) = match with {
            WakeWith::Entry(entry) => (entry, Freshness::Collapsed),
            // One that was purged for good meanwhile is not for anyone.
            WakeWith::Stale(entry) if !entry.state().is_dead() => (entry, Freshness::OriginFailed),
            WakeWith::Stale(_)
            | WakeWith::Retry
            | WakeWith::Failed { .. }
            | WakeWith::Busy
            | WakeWith::Progress => {
                return self.lookup(near, request, asking);
            }
        };
        let is_for_it = entry.cache_key.is(&request.cache_key)
            && entry.variant.matches(request.fields)
            && covers(entry, asking)
            && bypass_reason(request).is_none()
            && (!entry.is_partial() || validation::answer(entry, request).is_some());
        if !is_for_it {
            return self.lookup(near, request, asking);
        }
        near.stats.lookups += 1;
        let hit = self.serve(near, request, asking.now_ms, entry, freshness);
        if freshness.is_stale() {
            near.stats.stale_hits += 1;
            return Decision::Stale { hit, revalidate: None };
        }
        near.stats.hits += 1;
        Decision::Hit(hit)
    }

    /// How to answer `request` with `entry`: for the holder of a lease, after its outcome.
    pub fn serve(
        &self,
        near: &mut Near,
        request: &Request<'_>,
        now_ms: u64,
        entry: &Arc<Entry>,
        freshness: Freshness,
    ) -> Hit {
        entry.visit(entry.state());
        hit(self, (near.adopt(entry), Tier::Shared), request, now_ms, freshness)
    }

    fn carry_out(
        self: &Arc<Self>,
        near: &mut Near,
        request: &Request<'_>,
        asking: &Asking<'_>,
        decided: Decided,
    ) -> Decision {
        let asked = Asked::of(request);
        match decided {
            Decided::Serve(entry, freshness) if freshness.is_stale() => {
                near.stats.stale_hits += 1;
                let hit = self.serve(near, request, asking.now_ms, &entry, freshness);
                Decision::Stale { hit, revalidate: None }
            }
            Decided::Serve(entry, freshness) => {
                near.stats.hits += 1;
                Decision::Hit(self.serve(near, request, asking.now_ms, &entry, freshness))
            }
            Decided::Background(entry, ticket) => {
                near.stats.stale_hits += 1;
                near.stats.revalidations += 1;
                let freshness = Freshness::WhileRevalidating;
                let hit = self.serve(near, request, asking.now_ms, &entry, freshness);
                let asked = Asked { method: Method::Get, range: None, ..asked };
                let lease = ticket.lease(self, asked, Some(entry));
                Decision::Stale { hit, revalidate: Some(lease) }
            }
            Decided::Fetch(Some(stored), ticket, _)
                if asked.method == Method::Get
                    && ticket.range.is_none()
                    && validation::can_validate(&stored) =>
            {
                near.stats.revalidations += 1;
                Decision::Revalidate(ticket.lease(self, asked, Some(stored)))
            }
            Decided::Fetch(stored, ticket, method) => {
                near.stats.misses += 1;
                let lease = ticket.lease(self, Asked { method, ..asked }, stored);
                Decision::Miss(lease.with_if_range(request.conditions.if_range))
            }
            Decided::Wait => {
                near.stats.waits += 1;
                Decision::Wait
            }
            Decided::Bypass(reason) => {
                near.stats.bypasses += 1;
                Decision::Bypass(reason)
            }
            Decided::Unsatisfiable => Decision::Unsatisfiable,
        }
    }
}

/// A decision before it leaves the lock.
#[derive(Debug)]
enum Decided {
    Serve(Arc<Entry>, Freshness),
    /// Serve, and validate behind it.
    Background(Arc<Entry>, Ticket),
    /// Fetch by this method; something may be stored that can be validated, or served if the origin
    /// fails.
    Fetch(Option<Arc<Entry>>, Ticket, Method),
    Wait,
    Bypass(BypassReason),
    Unsatisfiable,
}

impl Segment {
    fn decide(
        &mut self,
        request: &Request<'_>,
        asking: &Asking<'_>,
        waiters_max: usize,
    ) -> Decided {
        let key = &request.cache_key;
        let mut stored = self.select(key, request.fields).cloned();
        let mut while_revalidating = false;
        let mut joins = None;
        let mut forward = match &stored {
            None if self.has_entries(key) => Forward::VaryMiss,
            _ => Forward::UriMiss,
        };
        if let Some(entry) = &stored {
            match judge(entry, request, asking) {
                Verdict::Serve(freshness) => return Decided::Serve(Arc::clone(entry), freshness),
                Verdict::Validate { may_serve_meanwhile, because } => {
                    while_revalidating = may_serve_meanwhile;
                    forward = because;
                }
                Verdict::Unusable => {
                    stored = None;
                    forward = Forward::Request;
                }
                Verdict::Incomplete { may_join } => {
                    forward = Forward::Partial;
                    // A request that has come back often enough takes the whole.
                    // With credentials, what comes may be another's representation.
                    let may_join =
                        may_join && asking.waits < limits::WAITS_MAX && !request.has_authorization;
                    joins = validation::missing(entry, request).filter(|_| may_join);
                    if joins.is_none() {
                        stored = None;
                    }
                }
            }
        }
        if request.directives.only_if_cached {
            return Decided::Unsatisfiable;
        }
        let wants = request.one_range();
        let has_lease = self.has_lease(key, request);
        if let Some(entry) = stored.as_ref().filter(|_| joins.is_none()) {
            if while_revalidating && (has_lease || !may_revalidate_behind(entry, request)) {
                return Decided::Serve(Arc::clone(entry), Freshness::WhileRevalidating);
            }
            if self.origin_fails(entry, request, asking.now_ms, has_lease) {
                return Decided::Serve(Arc::clone(entry), Freshness::OriginFailed);
            }
        }
        if request.directives.no_store {
            return Decided::Bypass(BypassReason::RequestNoStore);
        }
        let may_wait = !request.has_authorization
            && !request.is_alone
            && asking.waits < limits::WAITS_MAX
            && !self.memories.is_unshared(key.hash, asking.now_ms);
        let fallback = stored.as_ref().filter(|_| joins.is_none());
        let waiter = (asking.waiter, fallback.cloned());
        if has_lease && may_wait && self.wait(key, request, waiter, waiters_max) {
            return Decided::Wait;
        }
        // Who asks for the head of what is not stored will soon be followed by one who asks for the
        // whole: GET is fetched, so that it is stored. Known as not to be shared, it is not.
        let is_get = request.method == Method::Get || while_revalidating || stored.is_none();
        let joinable = may_wait && !has_lease && is_get && request.conditions.if_range.is_none();
        let serves = wants.filter(|_| !while_revalidating);
        let mut ticket = self.give_lease(key, request.fields, (joinable, serves), forward);
        ticket.range = match &stored {
            _ if joins.is_some() => joins,
            // It is asked for on condition, or was stored whole and will be again.
            Some(entry) if !entry.is_partial() || validation::can_validate(entry) => None,
            _ => serves,
        };
        ticket.joins = joins.is_some();
        match stored {
            Some(entry) if while_revalidating => Decided::Background(entry, ticket),
            // Only what others wait for must be whole.
            None if joinable => Decided::Fetch(None, ticket, Method::Get),
            stored => Decided::Fetch(stored, ticket, request.method),
        }
    }

    /// Whether the origin failed so recently, or is being asked again at this moment after it
    /// failed, that what is stored is served without asking. What was purged only the latter, if
    /// what failed was to bring the new: the first request after control returns must see the new
    /// state (DESIGN §6), and where control hangs no more than one at a time waits to find that
    /// out.
    fn origin_fails(
        &self,
        entry: &Entry,
        request: &Request<'_>,
        now_ms: u64,
        has_lease: bool,
    ) -> bool {
        let Some(failed) = self.memories.failed(request.cache_key.hash) else { return false };
        let is_recent = now_ms.saturating_sub(failed.at_ms) < limits::ORIGIN_FAILED_MS;
        let fails = match entry.state().is_soft() {
            true => has_lease && failed.is_undisturbed,
            false => has_lease || is_recent,
        };
        fails && may_serve_on_error(entry, now_ms)
    }
}

/// Whether a fetch behind the answer may be made with a request's fields. Not with those of one
/// that wants nothing of its exchange stored (RFC 9111 §5.2.1.5), nor with credentials where what
/// they bring could not be shared (§3.5): it is served what is stale, and the next one validates.
fn may_revalidate_behind(entry: &Entry, request: &Request<'_>) -> bool {
    !request.directives.no_store && (!request.has_authorization || entry.shares_authorized)
}

/// What a stored response is worth to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// It may be served as it is.
    Serve(Freshness),
    /// Only after validation, or while that goes on.
    Validate {
        /// RFC 5861 §3.
        may_serve_meanwhile: bool,
        /// Who does not want it as it is: the request, or its own lifetime.
        because: Forward,
    },
    /// Not even for validation: it is older than the request knows it must be.
    Unusable,
    /// Bytes that the request wants are not there.
    Incomplete {
        /// They can be fetched for themselves and joined with what is.
        may_join: bool,
    },
}

/// The rules of RFC 9111 §4 and §5.2.1 for one stored response, whose key and variant match.
fn judge(entry: &Entry, request: &Request<'_>, asking: &Asking<'_>) -> Verdict {
    let state = entry.state();
    entry.visit(state);
    if !covers(entry, asking) {
        return Verdict::Unusable;
    }
    if entry.is_partial() && validation::answer(entry, request).is_none() {
        // That the new part is of the same representation validates the old one, too. Without a
        // validator that could tell it is tried only where nothing needs validation.
        let is_fresh = entry.times.is_fresh(asking.now_ms) && !request.directives.no_cache;
        let may_join = is_fresh || validation::can_join(entry);
        // What is soft or doubted may be of another representation.
        return Verdict::Incomplete {
            may_join: may_join && !state.is_soft() && !state.is_doubted(),
        };
    }
    let asks = &request.directives;
    let now_ms = asking.now_ms;
    let validate = |because| Verdict::Validate { may_serve_meanwhile: false, because };
    if state.is_soft() || entry.is_no_cache {
        return validate(Forward::Stale);
    }
    let refused = || match entry.times.is_fresh(now_ms) {
        true => validate(Forward::Request),
        false => validate(Forward::Stale),
    };
    if asks.no_cache {
        return refused();
    }
    let is_too_old = |max_s: u64| entry.times.age_ms(now_ms) > max_s.saturating_mul(1000);
    if asks.max_age_s.is_some_and(is_too_old) {
        // A reload does not ask again for what cannot have changed (RFC 8246 §2).
        match entry.is_immutable && entry.times.is_fresh(now_ms) {
            true => return Verdict::Serve(Freshness::Fresh),
            false => return refused(),
        }
    }
    if let Some(min_fresh_s) = asks.min_fresh_s {
        let until_ms = now_ms.saturating_add(min_fresh_s.saturating_mul(1000));
        if entry.times.fresh_until_ms() < until_ms {
            return refused();
        }
    }
    if entry.times.is_fresh(now_ms) {
        return Verdict::Serve(Freshness::Fresh);
    }
    let staleness_ms = entry.times.staleness_ms(now_ms);
    let is_asked_for =
        asks.max_stale_s.is_some_and(|max_s| staleness_ms <= max_s.saturating_mul(1000));
    if is_asked_for && !entry.stale.forbidden {
        return Verdict::Serve(Freshness::MaxStale);
    }
    Verdict::Validate {
        may_serve_meanwhile: staleness_ms < entry.stale.while_revalidating_ms,
        because: Forward::Stale,
    }
}

/// Whether an entry is not older than the request demands. What has no version belongs to no log.
fn covers(entry: &Entry, asking: &Asking<'_>) -> bool {
    match (asking.min_version, entry.version()) {
        (Some(min_version), Some(version)) => version.covers(min_version),
        _ => true,
    }
}

/// Whether a stored response may be served because the origin failed (RFC 5861 §4).
pub(crate) fn may_serve_on_error(entry: &Entry, now_ms: u64) -> bool {
    if entry.is_dead() {
        return false;
    }
    let if_error_ms = entry.stale.if_error_ms;
    entry.is_fresh(now_ms) || (if_error_ms > 0 && entry.times.staleness_ms(now_ms) <= if_error_ms)
}

/// For the one whose own fetch brought another part than it had asked for.
fn newest_part(entry: &Entry) -> Answer {
    match &entry.partial {
        Some(partial) => Answer::Parts([partial.newest].into()),
        None => Answer::Full,
    }
}

fn bypass_reason(request: &Request<'_>) -> Option<BypassReason> {
    match request.method {
        Method::Safe | Method::Post | Method::Unsafe => Some(BypassReason::Method),
        Method::Get | Method::Head if request.conditions.for_origin => {
            Some(BypassReason::Precondition)
        }
        Method::Get | Method::Head => None,
    }
}

fn hit(
    cache: &Cache,
    (whole, tier): (Local, Tier),
    request: &Request<'_>,
    now_ms: u64,
    freshness: Freshness,
) -> Hit {
    let (encoded, order) = cache.choose_encoding(&whole, request);
    let entry = whole.entry();
    let sent = encoded.as_ref().map_or(entry, Local::entry);
    let answer = validation::answer(sent, request).unwrap_or_else(|| newest_part(entry));
    let age_ms = entry.times.age_ms(now_ms);
    let ttl_ms = entry.times.lifetime_ms as i64 - age_ms as i64;
    let ttl_s = (!entry.state().is_soft()).then_some(ttl_ms / 1000);
    let local = encoded.unwrap_or_else(|| whole.clone());
    Hit { age_s: age_ms / 1000, ttl_s, answer, freshness, tier, local, order }
}
