//! One fetch for many: leases and those who wait for them.
//!
//! ```text
//!   lookup ─▶ Lease ──head──▶ Fill       a Writer for the body; waiters read it as it arrives
//!               │       ├───▶ Updated    304: a new entry with the stored body
//!               │       ├───▶ Stale      the origin's answer is an error, something stored serves
//!               │       └───▶ NotStored  waiters fetch for themselves; no collapse for a while
//!               ├──fail─────▶ something stale, or nothing
//!               ├──busy─────▶ the same, but nothing that was purged
//!               └──drop─────▶ waiters become orphans: Cache::take_orphans
//! ```
//! The holder of a lease carries out the fetch. Whatever ends the lease hands back every waiter
//! exactly once; the holder mails them. A waiter gets the response only if it could have been given
//! it by the rules of its own request: an entry is handed on only when it was fresh when it
//! arrived. Neither it, nor a failure, nor what is stale instead goes to one who came after a purge
//! that the fetch began before (DESIGN §6): where that can be known, such a one does not wait for
//! it.
//!
//! Leaves to others: mail, sockets, deadlines of fetches (`dataplane`).

use std::sync::Arc;

use proto::feed::rule::LifetimeRule;

use crate::{
    Cache,
    body::Body,
    cache_status::Forward,
    decision::NoStoreReason,
    draft::Draft,
    entry::Entry,
    fill::Writer,
    head::push_field,
    index::{Removed, Segment},
    key::{CacheKey, CacheKeyRef},
    limits,
    lookup::may_serve_on_error,
    memories::Failed,
    partial::Parts,
    purge::{PurgeCursor, Since},
    range::{self, ByteRange, Selection, Spec},
    request::{FieldSource, Method, Request},
    response::Response,
    stale::is_origin_error,
    stats::SharedStats,
    storability::Asked,
    validation,
    vary::Variant,
};

/// Who waits: a request of a shard, by the shard's own number for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Waiter {
    /// Its shard.
    pub shard: u16,
    /// Whatever the shard finds it again by.
    pub id: u64,
}

/// A waiter to be told something, by mail if it is another shard's.
#[derive(Clone, Debug)]
pub struct Wake {
    /// Whom.
    pub waiter: Waiter,
    /// What.
    pub with: WakeWith,
}

/// What a waiter is told.
#[derive(Clone, Debug)]
pub enum WakeWith {
    /// Use this entry: [`Cache::lookup_woken`].
    Entry(Arc<Entry>),
    /// The origin failed; use this stale entry: [`Cache::lookup_woken`].
    Stale(Arc<Entry>),
    /// Look up again: what came is not for sharing.
    Retry,
    /// The fetch failed and nothing stored may be served: answer as its holder does.
    Failed {
        /// By this status.
        status: u16,
    },
    /// The origin lives and will answer later; nothing stored may be served meanwhile.
    Busy,
    /// A body that it follows has changed: read on.
    Progress,
}

/// The right, and the duty, to fetch. Ends by [`Lease::head`], [`Lease::fail`] or being dropped.
#[derive(Debug)]
pub struct Lease {
    cache: Arc<Cache>,
    cache_key: CacheKey,
    id: u64,
    /// Purges its segment had seen when it began.
    began: u64,
    asked: Asked,
    forward: Forward,
    /// What to ask the origin for, if not for the whole.
    range: Option<Spec>,
    /// Whether that is to be joined with what is stored.
    joins: bool,
    /// Whether the origin is asked on condition that it has something else than what is stored.
    is_conditional: bool,
    /// The client's condition on `range`.
    if_range: Option<Box<[u8]>>,
    /// What a rule of the site says of lifetimes.
    rule: Option<Arc<LifetimeRule>>,
    /// What is stored and may be validated, or served if the origin fails.
    stored: Option<Arc<Entry>>,
    is_open: bool,
}

/// What became of a fetch's head.
#[derive(Debug)]
pub enum HeadOutcome {
    /// Write the body. Serve the entry to whom the fetch was for; it is followed like any filling
    /// body.
    Fill {
        /// Takes the body.
        writer: Writer,
        /// The new entry.
        entry: Arc<Entry>,
        /// Why later requests will not find it, if they will not.
        not_stored: Option<NoStoreReason>,
        /// Field lines for the one whom the fetch was for, behind the entry's head.
        first_hand: Box<[u8]>,
        /// Of an answer to POST: purges of what shares a group with what it outdated (RFC 9875
        /// §2.2.1).
        beside: Vec<PurgeCursor>,
    },
    /// What was stored still holds: serve this entry.
    Updated {
        /// The new entry, with the stored body.
        entry: Arc<Entry>,
        /// As above.
        first_hand: Box<[u8]>,
    },
    /// The origin answered with an error: drop that answer, serve this one as stale.
    Stale(Arc<Entry>),
    /// Pass the response on, store nothing.
    NotStored(NoStoreReason),
    /// What came is of no use with what is stored: drop it and ask again, for a whole now. What is
    /// stored stays, as what may be served meanwhile or if the origin fails.
    Again,
}

impl Lease {
    /// What is fetched.
    pub fn cache_key(&self) -> &CacheKey {
        &self.cache_key
    }

    /// What is stored already, stale or soft-purged.
    pub fn stored(&self) -> Option<&Arc<Entry>> {
        self.stored.as_ref()
    }

    /// Whether something is stored that must not be used without validation: if the origin cannot
    /// be asked, the answer is 504 (RFC 9111 §5.2.2.2).
    pub fn must_validate(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| stored.stale.forbidden)
    }

    /// The method to fetch with: GET, or HEAD where HEAD was asked of something stored, or of
    /// something that is not for sharing.
    pub fn method(&self) -> Method {
        self.asked.method
    }

    /// Why what is stored does not answer the request.
    pub fn forward(&self) -> Forward {
        self.forward
    }

    /// Writes the conditions to send, as field lines; nothing if there is nothing to validate. The
    /// client's own conditions and its `Range` are not sent.
    pub fn conditional_fields(&self, out: &mut Vec<u8>) {
        if let Some(range) = self.range {
            validation::push_range(range, self.stored.as_deref().filter(|_| self.joins), out);
            if let Some(value) = &self.if_range {
                push_field(out, b"If-Range", value);
            }
        } else if let Some(stored) = self.stored.as_ref().filter(|_| self.is_conditional) {
            validation::push_conditions(stored, out);
        }
    }

    /// With what a rule of the site says of lifetimes.
    pub fn with_rule(mut self, rule: Option<&Arc<LifetimeRule>>) -> Self {
        self.rule = rule.cloned();
        self
    }

    /// With the client's `If-Range`, where the client's own range is asked for.
    pub(crate) fn with_if_range(mut self, value: Option<&[u8]>) -> Self {
        self.if_range = value.filter(|_| self.range.is_some() && !self.joins).map(Box::from);
        self
    }

    /// Reports the head of the response. `request` has the fields that the fetch was made for, for
    /// `Vary`. Waiters to be woken are added to `wakes`.
    pub fn head(
        mut self,
        request: &dyn FieldSource,
        response: &Response<'_>,
        wakes: &mut Vec<Wake>,
    ) -> HeadOutcome {
        self.is_open = false;
        let now_ms = response.response_at_ms;
        if is_origin_error(response.status)
            && let Some(stale) = self.stale_for_error(now_ms)
        {
            self.release_failed(now_ms, Some(&stale), response.status, wakes);
            return HeadOutcome::Stale(stale);
        }
        match (response.status, self.asked.method, self.stored.clone()) {
            // It tells of something that is not stored, and must not update what is (§4.3.4). Nor
            // does one that nobody asked for: what was to be joined still lacks what is wanted.
            (304, _, Some(stored))
                if self.joins
                    || self.is_conditional
                        && !validation::selects(&stored, response.fields, now_ms) =>
            {
                self.again(&stored, response, wakes)
            }
            (304, _, Some(stored)) if self.is_conditional => {
                self.updated(&stored, request, response, wakes)
            }
            (206, Method::Get, _) => self.part(request, response, wakes),
            (416, _, Some(stored)) if self.joins => self.again(&stored, response, wakes),
            (200, Method::Head, Some(stored)) => {
                if validation::head_matches(&stored, response.fields) {
                    return self.updated(&stored, request, response, wakes);
                }
                // It tells of another representation: what is stored counts as stale (RFC 9111
                // §4.3.5), unless it is another for those credentials only.
                if self.asked.is_for_others() {
                    stored.soften();
                }
                self.not_stored(NoStoreReason::Method, None, response, wakes)
            }
            _ => {
                let key = self.cache_key.borrowed();
                let draft = Draft::of(
                    &self.cache,
                    &key,
                    self.asked,
                    self.rule.as_deref(),
                    request,
                    response,
                );
                match draft.and_then(|draft| self.cache.admit(response.length).map(|()| draft)) {
                    Ok(draft) => self.fill(draft, response, wakes),
                    Err(reason) => self.refused(reason, response, wakes),
                }
            }
        }
    }

    /// Reports that no response came, or none that counts. Returns what may be served instead, as
    /// stale; without it everyone is answered by `status`, or by 504 where the reason is that what
    /// is stored must be validated ([`Lease::must_validate`]).
    pub fn fail(mut self, now_ms: u64, status: u16, wakes: &mut Vec<Wake>) -> Option<Arc<Entry>> {
        self.is_open = false;
        let stale = self.stale_for_error(now_ms);
        let status = if self.must_validate() { 504 } else { status };
        self.release_failed(now_ms, stale.as_ref(), status, wakes);
        stale
    }

    /// Reports that the origin lives and will answer later. Returns what may be served meanwhile,
    /// as stale: not what was purged, because the origin has something newer.
    pub fn busy(mut self, now_ms: u64, wakes: &mut Vec<Wake>) -> Option<Arc<Entry>> {
        self.is_open = false;
        let stale =
            self.stored.clone().filter(|stored| !self.joins && holds_meanwhile(stored, now_ms));
        let mut segment = self.cache.segment_of(&self.cache_key);
        let released = self.release(&mut segment, now_ms, Release::Busy(stale.as_ref()));
        drop(segment);
        wakes.extend(released);
        stale
    }

    /// What is stored to be joined lacks what is wanted.
    fn stale_for_error(&self, now_ms: u64) -> Option<Arc<Entry>> {
        let stored = self.stored.clone().filter(|_| !self.joins);
        stored.filter(|stored| may_serve_on_error(stored, now_ms))
    }

    /// A part has come (RFC 9111 §3.3, §3.4).
    fn part(
        &self,
        request: &dyn FieldSource,
        response: &Response<'_>,
        wakes: &mut Vec<Wake>,
    ) -> HeadOutcome {
        match (self.draft_part(request, response), &self.stored) {
            (Ok(part), _) => self.fill_part(part, response, wakes),
            (Err(_), Some(stored)) if self.joins => self.again(stored, response, wakes),
            (Err(reason), _) => self.refused(reason, response, wakes),
        }
    }

    /// Judges a part: where it belongs, whether it may be stored, and with what it can be joined.
    fn draft_part(
        &self,
        request: &dyn FieldSource,
        response: &Response<'_>,
    ) -> Result<PartDraft, NoStoreReason> {
        let told = one_content_range(response.fields).and_then(range::parse_content_range);
        let Some((range, length)) = told else { return Err(NoStoreReason::Partial) };
        // A 206 to `If-Range` may leave out fields that the client has already.
        let is_odd = response.length.is_some_and(|length| length != range.length())
            || self.range.is_none()
            || self.if_range.is_some();
        if is_odd {
            return Err(NoStoreReason::Partial);
        }
        let key = self.cache_key.borrowed();
        let current = self.cache.segment_of(&self.cache_key).select(&key, request).cloned();
        let is_same = |entry: &Arc<Entry>| {
            entry.status() == 200
                && entry.length() == Some(length)
                && validation::same_representation(
                    &**entry,
                    response.fields,
                    response.response_at_ms,
                )
        };
        let older = current.as_ref().filter(|entry| is_same(entry)).cloned();
        if current.is_some_and(|entry| {
            !entry.is_partial() && entry.times.is_fresh(response.response_at_ms)
        }) {
            // Somebody has stored the whole meanwhile.
            return Err(NoStoreReason::Partial);
        }
        let older = older.filter(|entry| entry.is_partial());
        let fields = WithoutRange(response.fields);
        let draft = match &older {
            Some(older) => {
                let rule = self.rule.as_deref();
                match Draft::of_update(&self.cache, older, self.asked, rule, request, response)? {
                    (draft, None) => draft,
                    (_, Some(reason)) => return Err(reason),
                }
            }
            None if self.joins => return Err(NoStoreReason::Partial),
            None => {
                let whole = Response {
                    status: 200,
                    reason: b"OK",
                    fields: &fields,
                    length: Some(length),
                    ..*response
                };
                Draft::of(&self.cache, &key, self.asked, self.rule.as_deref(), request, &whole)?
            }
        };
        self.cache.admit(Some(range.length()))?;
        Ok(PartDraft { draft, range, length, older })
    }

    fn fill_part(
        &self,
        part: PartDraft,
        response: &Response<'_>,
        wakes: &mut Vec<Wake>,
    ) -> HeadOutcome {
        let PartDraft { mut draft, range, length, older } = part;
        let body = Arc::new(Body::filling(self.cache.account(), Some(range.length())));
        let partial = match older.as_ref().and_then(|older| older.partial.as_ref()) {
            Some(older) => older.with(range, Arc::clone(&body)),
            None => Parts::one(range, length, Arc::clone(&body)),
        };
        if self.joins && !self.is_joined(&partial) {
            // Less has come than was asked for.
            if let Some(stored) = &self.stored {
                return self.again(stored, response, wakes);
            }
        }
        let first_hand = std::mem::take(&mut draft.first_hand);
        let entry = Arc::new(draft.entry(&self.cache, &self.cache_key, body, Some(partial)));
        let (removed, not_stored) = self.settle(&entry, response.response_at_ms, true, wakes);
        drop(removed);
        let writer = Writer::new(Arc::clone(&self.cache), Arc::clone(&entry));
        HeadOutcome::Fill { writer, entry, not_stored, first_hand, beside: Vec::new() }
    }

    /// Whether all that was asked for, to be joined, is there now.
    fn is_joined(&self, partial: &Parts) -> bool {
        let asked = self.range.map(|range| range::select(&[range], partial.length));
        match asked {
            Some(Selection::Parts(asked)) => {
                asked.iter().all(|&one| partial.missing(one).is_none())
            }
            _ => false,
        }
    }

    /// What came is of no use with what is stored, and says nothing against serving that as it may
    /// be served: it stays, everyone asks again, and from now on for a whole. A 304 about something
    /// else updates nothing (RFC 9111 §4.3.4), and a part of something else joins nothing (§3.4);
    /// neither makes invalid what was stored under its own rules.
    fn again(
        &self,
        stored: &Arc<Entry>,
        response: &Response<'_>,
        wakes: &mut Vec<Wake>,
    ) -> HeadOutcome {
        stored.doubt();
        let mut segment = self.cache.segment_of(&self.cache_key);
        let released = self.release(&mut segment, response.response_at_ms, Release::Retry);
        drop(segment);
        wakes.extend(released);
        HeadOutcome::Again
    }

    /// What is stored has been updated to what may not be chosen by its key, or not be purged by
    /// all of its surrogate keys: it goes, and everyone asks again.
    fn again_without(
        &self,
        stored: &Arc<Entry>,
        response: &Response<'_>,
        wakes: &mut Vec<Wake>,
    ) -> HeadOutcome {
        let mut segment = self.cache.segment_of(&self.cache_key);
        let removed = segment.remove_outdated(stored);
        let released = self.release(&mut segment, response.response_at_ms, Release::Retry);
        drop(segment);
        drop(removed);
        wakes.extend(released);
        HeadOutcome::Again
    }

    fn fill(
        &self,
        mut draft: Draft,
        response: &Response<'_>,
        wakes: &mut Vec<Wake>,
    ) -> HeadOutcome {
        let first_hand = std::mem::take(&mut draft.first_hand);
        let account = self.cache.account();
        let body = Arc::new(Body::filling(account, response.length));
        let entry = Arc::new(draft.entry(&self.cache, &self.cache_key, body, None));
        let (removed, not_stored) = self.settle(&entry, response.response_at_ms, true, wakes);
        let beside = match self.asked.method {
            Method::Post => self.beside(&removed),
            _ => Vec::new(),
        };
        drop(removed);
        let cache = Arc::clone(&self.cache);
        let writer = Writer::new(cache, Arc::clone(&entry));
        HeadOutcome::Fill { writer, entry, not_stored, first_hand, beside }
    }

    /// Purges of what shares a group with what a POST outdated, its own answer apart.
    fn beside(&self, outdated: &Removed) -> Vec<PurgeCursor> {
        let key = self.cache_key.borrowed();
        let purges = self.cache.purges_beside(key.site, outdated.iter().map(|entry| &**entry));
        purges.into_iter().map(|purge| purge.sparing(Some(&self.cache_key))).collect()
    }

    fn updated(
        &self,
        stored: &Arc<Entry>,
        request: &dyn FieldSource,
        response: &Response<'_>,
        wakes: &mut Vec<Wake>,
    ) -> HeadOutcome {
        let rule = self.rule.as_deref();
        let draft = Draft::of_update(&self.cache, stored, self.asked, rule, request, response);
        // A 304 is no answer to one who may not have asked on condition.
        let Ok((mut draft, refusal)) = draft else {
            return self.again_without(stored, response, wakes);
        };
        let first_hand = std::mem::take(&mut draft.first_hand);
        let body = Arc::clone(stored.body());
        let partial = stored.partial.clone();
        let entry = Arc::new(draft.entry(&self.cache, &self.cache_key, body, partial));
        entry.inherit_encodings(self.cache.account(), stored);
        if refusal.is_some() {
            let is_outdated = self.outdates(stored, response);
            let mut segment = self.cache.segment_of(&self.cache_key);
            let removed = is_outdated.then(|| segment.remove_outdated(stored));
            let released = self.release(&mut segment, response.response_at_ms, Release::Retry);
            drop(segment);
            drop(removed);
            wakes.extend(released);
            entry.kill();
            return HeadOutcome::Updated { entry, first_hand };
        }
        let (removed, not_stored) = self.settle(&entry, response.response_at_ms, false, wakes);
        drop(removed);
        if not_stored.is_none() {
            SharedStats::count(&self.cache.stats.updated, 1);
        }
        HeadOutcome::Updated { entry, first_hand }
    }

    /// Checks the purges since the beginning, puts the entry into the index or not, and releases
    /// the waiters.
    fn settle(
        &self,
        entry: &Arc<Entry>,
        now_ms: u64,
        is_filling: bool,
        wakes: &mut Vec<Wake>,
    ) -> (Removed, Option<NoStoreReason>) {
        let is_shareable = !entry.is_no_cache && entry.times.is_fresh(now_ms);
        let mut segment = self.cache.segment_of(&self.cache_key);
        let key = self.cache_key.borrowed();
        let since = segment.recents.since(self.began, &key, &entry.surrogate_keys);
        let (not_stored, purged_at) = match since {
            Since::Nothing => (None, u64::MAX),
            Since::Purged(at) => (Some(NoStoreReason::Purged), at),
            Since::Forgotten => (Some(NoStoreReason::PurgesForgotten), 0),
        };
        // A POST that succeeded outdates what was stored, its own answer apart.
        let mut removed = match self.asked.method {
            Method::Post => segment.invalidate(&key),
            _ => Vec::new(),
        };
        if not_stored.is_none() {
            removed.extend(segment.insert(entry, is_filling));
        }
        let release = match is_shareable {
            true => Release::Entry { entry, before: purged_at },
            false => Release::Unshared { for_ms: limits::HIT_FOR_MISS_MS },
        };
        let released = self.release(&mut segment, now_ms, release);
        drop(segment);
        wakes.extend(released);
        let counter = match not_stored {
            None => &self.cache.stats.stored,
            Some(_) => &self.cache.stats.not_stored,
        };
        SharedStats::count(counter, 1);
        if not_stored.is_some() {
            entry.kill();
        }
        (removed, not_stored)
    }

    /// Whether an answer that may not be stored outdates what is stored all the same.
    ///
    /// RFC 9111 §4.3.3 lets a full answer replace what was to be validated, and says nothing of one
    /// that cannot take its place. Removing the old one costs everybody what could be served when
    /// the origin fails, so a visitor must not be able to bring it about by his own request alone.
    /// It takes all of these:
    ///
    /// * the answer could have been for others: it was asked for without credentials, and without
    ///   `no-store`;
    /// * it had to be asked for: what is stored was not fresh. A reload (`no-cache`, `max-age=0`)
    ///   of what is fresh shows its answer to the one who reloads;
    /// * it is the resource's word: success, a redirection, or that it is gone (404, 410, 451).
    ///   Other 4xx find fault with the request (416 with its range), 5xx with the origin; a 304
    ///   that comes here was not asked for, and tells of nothing that is stored.
    ///
    /// So `no-store`, `private` or 404 to an ordinary validation end what was stored before them.
    fn outdates(&self, stored: &Entry, response: &Response<'_>) -> bool {
        let is_unasked = response.status == 304 && !self.is_conditional;
        self.asked.is_for_others()
            && !is_unasked
            && !stored.is_fresh(response.response_at_ms)
            && matches!(response.status, 200..400 | 404 | 410 | 451)
    }

    /// An answer came that may not be stored.
    fn refused(
        &self,
        reason: NoStoreReason,
        response: &Response<'_>,
        wakes: &mut Vec<Wake>,
    ) -> HeadOutcome {
        let outdated = self.stored.as_ref().filter(|stored| self.outdates(stored, response));
        self.not_stored(reason, outdated, response, wakes)
    }

    fn not_stored(
        &self,
        reason: NoStoreReason,
        outdated: Option<&Arc<Entry>>,
        response: &Response<'_>,
        wakes: &mut Vec<Wake>,
    ) -> HeadOutcome {
        let mut segment = self.cache.segment_of(&self.cache_key);
        let removed = outdated.map(|stored| segment.remove_outdated(stored));
        // An error may be over soon.
        let for_ms =
            if response.status < 500 { limits::HIT_FOR_MISS_MS } else { limits::ORIGIN_FAILED_MS };
        let release = Release::Unshared { for_ms };
        let released = self.release(&mut segment, response.response_at_ms, release);
        drop(segment);
        drop(removed);
        wakes.extend(released);
        SharedStats::count(&self.cache.stats.not_stored, 1);
        HeadOutcome::NotStored(reason)
    }

    fn release_failed(
        &self,
        now_ms: u64,
        stale: Option<&Arc<Entry>>,
        status: u16,
        wakes: &mut Vec<Wake>,
    ) {
        SharedStats::count(&self.cache.stats.fetch_failures, 1);
        let mut segment = self.cache.segment_of(&self.cache_key);
        let release = match stale {
            Some(stale) => Release::FailedWith(stale),
            None => Release::Failed { status },
        };
        let released = self.release(&mut segment, now_ms, release);
        drop(segment);
        wakes.extend(released);
    }

    /// Ends the lease: takes it out of its segment and tells every waiter, once.
    fn release(&self, segment: &mut Segment, now_ms: u64, release: Release<'_>) -> Vec<Wake> {
        let key = self.cache_key.borrowed();
        let hash = key.hash;
        match release {
            Release::Entry { .. } => segment.memories.forget(hash),
            // What only one kind of request gets says nothing about the others.
            Release::Unshared { for_ms } if self.asked.is_plain() => {
                segment.memories.remember_unshared(hash, now_ms.saturating_add(for_ms));
            }
            Release::FailedWith(_) => {
                let is_undisturbed = segment.recents.count() == self.began;
                segment.memories.remember_failed(hash, Failed { at_ms: now_ms, is_undisturbed });
            }
            Release::Unshared { .. }
            | Release::Failed { .. }
            | Release::Busy(_)
            | Release::Retry => {}
        }
        segment.lease_count -= 1;
        if segment.lease_count == 0 {
            segment.recents.clear();
        }
        let Some(slot) = segment.slot_mut(&key) else { return Vec::new() };
        let Some(at) = slot.leases.iter().position(|lease| lease.id == self.id) else {
            return Vec::new();
        };
        let state = slot.leases.swap_remove(at);
        if slot.leases.is_empty() {
            // Most cache keys never have another; room for four would be half an entry of 1 KiB.
            slot.leases = Vec::new();
        }
        segment.drop_if_unused(&key);
        let tell = |waiting: Waiting| {
            let with = match release {
                Release::Entry { entry, before } if waiting.began < before => {
                    WakeWith::Entry(Arc::clone(entry))
                }
                // Who came after a purge asked for something newer than this fetch could bring.
                Release::FailedWith(_) | Release::Failed { .. } | Release::Busy(_)
                    if waiting.began > self.began =>
                {
                    WakeWith::Retry
                }
                Release::FailedWith(stale) | Release::Busy(Some(stale)) => {
                    WakeWith::Stale(Arc::clone(stale))
                }
                // The holder wanted something newer than is stored; this one need not.
                Release::Failed { status } => match waiting.fallback {
                    Some(stale) if may_serve_on_error(&stale, now_ms) => WakeWith::Stale(stale),
                    _ => WakeWith::Failed { status },
                },
                Release::Busy(None) => match waiting.fallback {
                    Some(stale) if holds_meanwhile(&stale, now_ms) => WakeWith::Stale(stale),
                    _ => WakeWith::Busy,
                },
                _ => WakeWith::Retry,
            };
            Wake { waiter: waiting.waiter, with }
        };
        state.waiting.into_iter().map(tell).collect()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_open {
            let cache = Arc::clone(&self.cache);
            let mut segment = cache.segment_of(&self.cache_key);
            let released = self.release(&mut segment, 0, Release::Retry);
            drop(segment);
            cache.add_orphans(released);
        }
    }
}

/// A part judged for storing.
struct PartDraft {
    draft: Draft,
    range: ByteRange,
    /// Of the whole.
    length: u64,
    /// What it is joined with.
    older: Option<Arc<Entry>>,
}

/// The value of `Content-Range` where there is one, of one part: several lines contradict each
/// other, and a response of several parts has none of its own (RFC 9110 §14.4, §15.3.7.2).
fn one_content_range(fields: &dyn FieldSource) -> Option<&[u8]> {
    let mut lines = 0;
    fields.get_all("Content-Range", &mut |_| lines += 1);
    let is_multipart = |kind: &[u8]| {
        kind.get(..MULTIPART.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(MULTIPART))
    };
    let is_one = lines == 1 && !fields.get("Content-Type").is_some_and(is_multipart);
    fields.get("Content-Range").filter(|_| is_one)
}

const MULTIPART: &[u8] = b"multipart/byteranges";

/// The fields of a 206 as those of the whole.
struct WithoutRange<'a>(&'a dyn FieldSource);

impl FieldSource for WithoutRange<'_> {
    fn each<'a>(&'a self, show: &mut dyn FnMut(&'a [u8], &'a [u8])) {
        self.0.each(&mut |name, value| {
            if !name.eq_ignore_ascii_case(b"content-range") {
                show(name, value);
            }
        });
    }
}

/// Whether a stored response may be served while the origin, which lives, has no answer: not what
/// was purged, because it has something newer.
fn holds_meanwhile(stored: &Entry, now_ms: u64) -> bool {
    may_serve_on_error(stored, now_ms) && !stored.state().is_soft()
}

/// How a lease ends for those who wait for it.
#[derive(Clone, Copy)]
enum Release<'a> {
    /// With an entry for those who began waiting before this purge.
    Entry { entry: &'a Arc<Entry>, before: u64 },
    /// With an answer that only its own request may see.
    Unshared { for_ms: u64 },
    /// With a failure, and something stale to serve instead.
    FailedWith(&'a Arc<Entry>),
    /// With a failure, told by this status.
    Failed { status: u16 },
    /// With an origin that will answer later, and maybe something stale that still holds.
    Busy(Option<&'a Arc<Entry>>),
    /// Without an outcome.
    Retry,
}

/// A lease as its segment knows it.
#[derive(Debug)]
pub(crate) struct LeaseState {
    id: u64,
    /// Purges the segment had seen when it began.
    began: u64,
    /// The variant it is for, as far as names are known; `None` if nobody may join.
    joinable: Option<Variant>,
    /// The range that its request wants, if not the whole.
    serves: Option<Spec>,
    waiting: Vec<Waiting>,
}

#[derive(Clone, Debug)]
struct Waiting {
    waiter: Waiter,
    /// What is stored that it may be given if the fetch fails.
    fallback: Option<Arc<Entry>>,
    /// Purges the segment had seen when it came.
    began: u64,
}

/// A lease that was given under the lock, to become a [`Lease`] outside of it.
#[derive(Debug)]
pub(crate) struct Ticket {
    cache_key: CacheKey,
    id: u64,
    began: u64,
    /// Why it is needed.
    pub(crate) forward: Forward,
    /// What to ask the origin for, if not for the whole.
    pub(crate) range: Option<Spec>,
    /// Whether that is to be joined with what is stored.
    pub(crate) joins: bool,
}

impl Ticket {
    pub(crate) fn lease(
        self,
        cache: &Arc<Cache>,
        asked: Asked,
        stored: Option<Arc<Entry>>,
    ) -> Lease {
        let is_conditional = self.range.is_none()
            && stored.as_ref().is_some_and(|stored| !stored.state().is_doubted());
        Lease {
            cache: Arc::clone(cache),
            cache_key: self.cache_key,
            id: self.id,
            began: self.began,
            asked,
            forward: self.forward,
            range: self.range,
            joins: self.joins,
            is_conditional,
            if_range: None,
            rule: None,
            stored,
            is_open: true,
        }
    }
}

impl Segment {
    /// Gives a lease. With `joinable`, others may wait for it, if they want the same range.
    pub(crate) fn give_lease(
        &mut self,
        key: &CacheKeyRef<'_>,
        fields: &dyn FieldSource,
        (joinable, serves): (bool, Option<Spec>),
        forward: Forward,
    ) -> Ticket {
        let id = self.next_lease;
        self.next_lease += 1;
        self.lease_count += 1;
        let began = self.recents.count();
        let variant = self.lease_variant(key, fields);
        let slot = self.slot_or_new(key);
        let is_room = slot.leases.len() < limits::LEASES_PER_KEY_MAX;
        let joinable = (joinable && is_room).then_some(variant);
        slot.leases.push(LeaseState { id, began, joinable, serves, waiting: Vec::new() });
        let cache_key = slot.cache_key().clone();
        Ticket { cache_key, id, began, forward, range: None, joins: false }
    }

    /// Whether a lease is out that a request with these fields may wait for.
    pub(crate) fn has_lease(&self, key: &CacheKeyRef<'_>, request: &Request<'_>) -> bool {
        self.lease_for(key, request).is_some()
    }

    /// The place of that lease. One that began before a purge which may reach what it fetches is
    /// for nobody who comes later (DESIGN §6).
    fn lease_for(&self, key: &CacheKeyRef<'_>, request: &Request<'_>) -> Option<usize> {
        let slot = self.slot(key)?;
        let known = self.any_variant(slot).map(|entry| &entry.surrogate_keys);
        slot.leases.iter().position(|lease| {
            lease.is_for(request) && !self.recents.may_reach(lease.began, key, known)
        })
    }

    /// Waits for the lease that [`Segment::has_lease`] told of; `false` if too many do.
    pub(crate) fn wait(
        &mut self,
        key: &CacheKeyRef<'_>,
        request: &Request<'_>,
        (waiter, fallback): (Waiter, Option<Arc<Entry>>),
        waiters_max: usize,
    ) -> bool {
        let began = self.recents.count();
        let Some(at) = self.lease_for(key, request) else { return false };
        let lease = self.slot_mut(key).and_then(|slot| slot.leases.get_mut(at));
        match lease {
            Some(lease) if lease.waiting.len() < waiters_max => {
                lease.waiting.push(Waiting { waiter, fallback, began });
                true
            }
            _ => false,
        }
    }

    /// Forgets a waiter that has gone.
    pub(crate) fn withdraw(&mut self, key: &CacheKeyRef<'_>, waiter: Waiter) {
        if let Some(slot) = self.slot_mut(key) {
            for lease in &mut slot.leases {
                lease.waiting.retain(|waiting| waiting.waiter != waiter);
            }
        }
    }

    fn lease_variant(&self, key: &CacheKeyRef<'_>, fields: &dyn FieldSource) -> Variant {
        self.slot(key)
            .and_then(|slot| self.any_variant(slot))
            .map_or_else(Variant::default, |entry| entry.variant.for_request(fields))
    }
}

impl LeaseState {
    /// Who brings the whole serves everyone.
    fn is_for(&self, request: &Request<'_>) -> bool {
        let is_range = self.serves.is_none()
            || (self.serves == request.one_range() && request.conditions.if_range.is_none());
        is_range && self.joinable.as_ref().is_some_and(|variant| variant.matches(request.fields))
    }
}
