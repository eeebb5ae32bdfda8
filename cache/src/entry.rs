//! A stored response: its head, ready to be sent, its times and rules, and one word that changes.
//!
//! ```text
//!            purge, replaced, evicted
//!   linked ──────────────────────▶ DEAD   never served again, held until the last reader lets go
//!     │  ▲
//!     │  └ it failed ────────┐
//!     ├ newer one filling ─▶ SUPERSEDED   not chosen, unless the newer one fails
//!     ├ soft purge ────────▶ SOFT         never fresh again, served when the origin fails
//!     └ origin's odd answer ▶ DOUBTED      served as it may be, and not asked about again
//! ```
//! Everything else is immutable: a 304 or a HEAD makes a new entry that shares the body. The state
//! word is read with one relaxed load on every near hit; whoever orders a purge tells the shards by
//! mail, which orders the load behind the store.
//!
//! Owned by [`crate::index`] and by every near table that holds it.

use std::{fmt, sync::Arc};

use proto::feed::cursor::VersionVector;

use crate::{
    account::{Account, Charge},
    body::Body,
    coding::Coding,
    encoding::Encodings,
    eviction::USES_MAX,
    freshness::{Times, date_field_ms},
    head::Head,
    key::CacheKey,
    partial::Parts as Partial,
    request::FieldSource,
    stale::StaleRules,
    surrogate::SurrogateKeys,
    sync::{AtomicU32, Ordering},
    vary::Variant,
};

/// A stored response. In this order, so that a near hit reads two cache lines of it.
#[repr(C)]
pub struct Entry {
    state: AtomicU32,
    /// Whether each use needs validation (`no-cache`).
    pub(crate) is_no_cache: bool,
    /// Whether `partial` is to be looked at.
    is_partial: bool,
    /// Whether it does not change while it is fresh (RFC 8246).
    pub(crate) is_immutable: bool,
    /// Whether its origin lets the answer to one with credentials be shared (RFC 9111 §3.5).
    pub(crate) shares_authorized: bool,
    /// Whether `encodings` is to be looked at.
    is_encodable: bool,
    /// Whether there is more to tell of it than its key: its variant, or its coding.
    is_chosen: bool,
    /// The coding that it was given here.
    coding: Option<Coding>,
    pub(crate) variant: Variant,
    pub(crate) cache_key: CacheKey,
    pub(crate) times: Times,
    pub(crate) version: Option<VersionVector>,
    pub(crate) stale: StaleRules,
    pub(crate) surrogate_keys: SurrogateKeys,
    pub(crate) last_modified_ms: Option<u64>,
    pub(crate) head: Head,
    /// The body; of a partial one, that of the part that came last.
    pub(crate) body: Arc<Body>,
    /// What is there, where that is not simply the body.
    pub(crate) partial: Option<Partial>,
    /// Its body in other codings, where it may be had so.
    encodings: Option<Box<Encodings>>,
    charge: Charge,
}

/// What an entry is made of beside its head.
pub(crate) struct Parts {
    pub(crate) cache_key: CacheKey,
    pub(crate) variant: Variant,
    pub(crate) surrogate_keys: SurrogateKeys,
    pub(crate) times: Times,
    pub(crate) stale: StaleRules,
    pub(crate) is_no_cache: bool,
    pub(crate) is_immutable: bool,
    pub(crate) shares_authorized: bool,
    pub(crate) body: Arc<Body>,
    pub(crate) partial: Option<Partial>,
    pub(crate) is_encodable: bool,
}

impl Entry {
    pub(crate) fn new(account: &Arc<Account>, head: Head, parts: Parts) -> Self {
        let Parts {
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
        } = parts;
        let encodings = is_encodable.then(Box::<Encodings>::default);
        let version = head
            .get("Pharos-Version")
            .and_then(|value| std::str::from_utf8(value).ok())
            .and_then(|text| text.parse().ok());
        let last_modified_ms = date_field_ms(&head, "Last-Modified", times.response_at_ms);
        let bytes = OVERHEAD_BYTES
            + cache_key.text_bytes()
            + head.heap_bytes()
            + variant.heap_bytes()
            + surrogate_keys.heap_bytes()
            + partial.as_ref().map_or(0, Partial::heap_bytes)
            + encodings.as_ref().map_or(0, |_| size_of::<Encodings>() + 16);
        match &partial {
            None => body.link(),
            Some(partial) => partial.bodies().for_each(|body| body.link()),
        }
        let charge = Charge::new(account, bytes as u64);
        charge.link();
        Self {
            state: AtomicU32::new(0),
            times,
            stale,
            is_no_cache,
            is_immutable,
            shares_authorized,
            is_partial: partial.is_some(),
            is_encodable,
            is_chosen: !variant.is_plain() || head.get("Content-Encoding").is_some(),
            coding: None,
            encodings,
            partial,
            cache_key,
            variant,
            version,
            surrogate_keys,
            last_modified_ms,
            head,
            body,
            charge,
        }
    }

    /// The same response with another body of the same bytes.
    pub(crate) fn sealed(account: &Arc<Account>, stored: &Self, body: Arc<Body>) -> Self {
        let head = stored.head.with_length(body.length());
        let parts = Parts {
            cache_key: stored.cache_key.clone(),
            variant: stored.variant.clone(),
            surrogate_keys: stored.surrogate_keys.clone(),
            times: stored.times,
            stale: stored.stale,
            is_no_cache: stored.is_no_cache,
            is_immutable: stored.is_immutable,
            shares_authorized: stored.shares_authorized,
            body,
            partial: None,
            is_encodable: stored.is_encodable,
        };
        Self::new(account, head, parts)
    }

    /// `whole` in another coding. What selects an entry is not asked of it.
    pub(crate) fn encoded(
        account: &Arc<Account>,
        whole: &Self,
        coding: Coding,
        body: Arc<Body>,
    ) -> Self {
        let head = whole.head.encoded(coding, body.length());
        let parts = Parts {
            cache_key: whole.cache_key.clone(),
            variant: Variant::default(),
            surrogate_keys: SurrogateKeys::default(),
            times: whole.times,
            stale: whole.stale,
            is_no_cache: whole.is_no_cache,
            is_immutable: whole.is_immutable,
            shares_authorized: whole.shares_authorized,
            body,
            partial: None,
            is_encodable: false,
        };
        let mut entry = Self::new(account, head, parts);
        (entry.is_chosen, entry.coding) = (true, Some(coding));
        entry
    }

    /// Whether there is more to tell of it than its key: its variant, or its coding.
    #[inline]
    pub fn is_chosen(&self) -> bool {
        self.is_chosen
    }

    /// The coding that it was given here; what it came in stands in its head.
    pub fn coding(&self) -> Option<Coding> {
        self.coding
    }

    /// Whether it may be had in a content coding that it did not come in.
    pub fn is_encodable(&self) -> bool {
        self.is_encodable
    }

    /// Its encodings, if it may have any.
    pub(crate) fn encodings(&self) -> Option<&Encodings> {
        if self.is_encodable { self.encodings.as_deref() } else { None }
    }

    /// Bytes charged for all of its encodings.
    pub(crate) fn encoded_bytes(&self) -> u64 {
        let bytes = |(_, made): (_, &Arc<Self>)| made.charged_bytes() + made.body_bytes();
        self.encodings().map_or(0, |encodings| encodings.iter().map(bytes).sum())
    }

    /// Status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// Status line and fields, each with its line end, without the empty line behind them: `Age`
    /// and what else changes is written behind it.
    pub fn head(&self) -> &[u8] {
        self.head.fields()
    }

    /// The same, and behind it the beginning of `Cache-Status`, to be ended by
    /// [`crate::CacheStatus::write`].
    pub fn head_and_status(&self) -> &[u8] {
        self.head.bytes()
    }

    /// Whether the head says how long the body is. If not, the body is sent in chunks until it is
    /// complete.
    pub fn has_length(&self) -> bool {
        self.head.has_length
    }

    /// Whether it will not be found any more, or never was: its readers go on all the same.
    pub fn is_dead(&self) -> bool {
        self.state().is_dead()
    }

    /// Its whole body, if that lies in one piece of at most so many bytes: worth copying behind the
    /// head. Reading from [`Self::body`] serves every other.
    pub fn short_body(&self, bytes_max: usize) -> Option<&[u8]> {
        match self.partial {
            None => self.body.whole(bytes_max),
            Some(_) => None,
        }
    }

    /// Its body.
    pub fn body(&self) -> &Arc<Body> {
        &self.body
    }

    /// Bytes of the whole representation, as soon as that is known.
    pub fn length(&self) -> Option<u64> {
        match &self.partial {
            None => self.body.length(),
            Some(partial) => Some(partial.length),
        }
    }

    /// Whether only parts of the representation are, or were, stored.
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Bytes charged for its body, or for those of its parts.
    pub(crate) fn body_bytes(&self) -> u64 {
        match &self.partial {
            None => self.body.charged_bytes(),
            Some(partial) => partial.bodies().map(|body| body.charged_bytes()).sum(),
        }
    }

    /// What it is stored under.
    pub fn cache_key(&self) -> &CacheKey {
        &self.cache_key
    }

    /// The variant that it is of its cache key.
    pub fn variant(&self) -> &Variant {
        &self.variant
    }

    /// Its surrogate keys.
    pub fn surrogate_keys(&self) -> &SurrogateKeys {
        &self.surrogate_keys
    }

    /// `Pharos-Version`: the state it was rendered from.
    pub fn version(&self) -> Option<&VersionVector> {
        self.version.as_ref()
    }

    /// When it arrived, how old it was, how old it may become.
    pub fn times(&self) -> &Times {
        &self.times
    }

    /// Bytes charged for it, its body's apart.
    pub fn charged_bytes(&self) -> u64 {
        self.charge.bytes()
    }

    /// One relaxed load.
    pub(crate) fn state(&self) -> State {
        State(self.state.load(Ordering::Relaxed))
    }

    /// Whether it may be served to anyone without asking: within its lifetime, not purged softly,
    /// and not `no-cache`.
    pub(crate) fn is_fresh(&self, now_ms: u64) -> bool {
        self.times.is_fresh(now_ms) && !self.state().is_soft() && !self.is_no_cache
    }

    /// Counts a use for eviction, as far as it counts, so that a hot entry's line stays shared.
    pub(crate) fn visit(&self, state: State) {
        if state.uses() < USES_MAX {
            self.state.fetch_add(ONE_USE, Ordering::Relaxed);
        }
    }

    /// Uses counted, and from now on none. Under the lock of eviction.
    pub(crate) fn reset_uses(&self) -> u32 {
        State(self.state.fetch_and(!USES, Ordering::Relaxed)).uses()
    }

    /// Uses left, and from now on one less. Under the lock of eviction.
    pub(crate) fn decrement_uses(&self) -> u32 {
        let uses = self.state().uses();
        if uses > 0 {
            self.state.fetch_sub(ONE_USE, Ordering::Relaxed);
        }
        uses
    }

    /// Whether this one, being newer, takes the place of `older`: the same variant, or another list
    /// of names to vary by.
    pub(crate) fn replaces(&self, older: &Self) -> bool {
        self.variant.same(&older.variant) || !self.variant.same_names(&older.variant)
    }

    /// Takes over what has happened to `older`, whose place it takes.
    pub(crate) fn inherit(&self, older: &Self) {
        let bits = older.state.load(Ordering::Relaxed) & (USES | SOFT | SUPERSEDED);
        self.state.fetch_or(bits, Ordering::Relaxed);
    }

    /// Never served again. Idempotent.
    pub(crate) fn kill(&self) {
        if self.state.fetch_or(DEAD, Ordering::Relaxed) & DEAD == 0 {
            self.charge.unlink();
            match &self.partial {
                None => self.body.unlink(),
                Some(partial) => partial.bodies().for_each(|body| body.unlink()),
            }
        }
        if let Some(encodings) = self.encodings() {
            encodings.iter().for_each(|(_, made)| made.kill());
        }
    }

    /// Never fresh again.
    pub(crate) fn soften(&self) {
        self.state.fetch_or(SOFT, Ordering::Relaxed);
    }

    /// What came of asking the origin about it was of no use: it is not asked about it again.
    pub(crate) fn doubt(&self) {
        self.state.fetch_or(DOUBTED, Ordering::Relaxed);
    }

    /// A newer one is being filled, or has failed.
    pub(crate) fn set_superseded(&self, superseded: bool) {
        if superseded {
            self.state.fetch_or(SUPERSEDED, Ordering::Relaxed);
        } else {
            self.state.fetch_and(!SUPERSEDED, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("target", &String::from_utf8_lossy(self.cache_key.borrowed().target))
            .field("state", &self.state())
            .field("times", &self.times)
            .field("body", &self.body.progress())
            .finish_non_exhaustive()
    }
}

impl FieldSource for Entry {
    fn each<'a>(&'a self, show: &mut dyn FnMut(&'a [u8], &'a [u8])) {
        self.head.each(show);
    }
}

/// What the state word said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State(u32);

impl State {
    /// Whether it may be chosen at all.
    pub(crate) fn is_usable(self) -> bool {
        self.0 & (DEAD | SUPERSEDED) == 0
    }

    pub(crate) fn is_dead(self) -> bool {
        self.0 & DEAD != 0
    }

    pub(crate) fn is_superseded(self) -> bool {
        self.0 & SUPERSEDED != 0
    }

    fn uses(self) -> u32 {
        self.0 >> USES_SHIFT
    }

    /// Whether the origin is asked for a whole in its place, and neither for a validation nor for
    /// what is missing of it.
    pub(crate) fn is_doubted(self) -> bool {
        self.0 & DOUBTED != 0
    }

    /// Whether it was soft-purged.
    pub(crate) fn is_soft(self) -> bool {
        self.0 & SOFT != 0
    }
}

const DEAD: u32 = 1;
const SOFT: u32 = 2;
const SUPERSEDED: u32 = 4;
const DOUBTED: u32 = 8;
/// The rest counts uses: up to [`USES_MAX`], and as many more as there are cores that count at
/// once.
const USES: u32 = !0 << USES_SHIFT;
const ONE_USE: u32 = 1 << USES_SHIFT;
const USES_SHIFT: u32 = 8;

/// What an entry costs beside its texts: itself, the counters of its `Arc`, its part of the index
/// (node 16, slot 95, place in eviction 48, ghost 20 bytes), and the allocator's share of four
/// allocations and of what lies unused between them, as `examples/memory` measures it.
const OVERHEAD_BYTES: usize = size_of::<Entry>() + 16 + 179 + 6 * 16;

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{sync::atomic::AtomicBool, thread};

    use super::*;
    use crate::{key::KeyHasher, response::Response, targeted::Policy};

    fn entry(account: &Arc<Account>) -> Arc<Entry> {
        let none: &[(&str, &str)] = &[];
        let response = Response {
            status: 200,
            reason: b"OK",
            fields: &none,
            length: Some(0),
            request_at_ms: 0,
            response_at_ms: 0,
            append: b"",
        };
        let policy = Policy::NONE;
        let parts = Parts {
            cache_key: KeyHasher::new(0).cache_key("s", b"h", b"/", b"").to_key(),
            variant: Variant::default(),
            surrogate_keys: SurrogateKeys::default(),
            times: Times::of(&response, &policy),
            stale: StaleRules::of(&policy, 0),
            is_no_cache: false,
            is_immutable: false,
            shares_authorized: false,
            body: Arc::new(Body::complete(account, b"".as_slice().into())),
            partial: None,
            is_encodable: false,
        };
        Arc::new(Entry::new(account, Head::of(&response, &policy, 0), parts))
    }

    #[test]
    fn who_was_told_of_a_purge_sees_the_entry_dead() {
        loom::model(|| {
            let account = Arc::default();
            let entry = entry(&account);
            let mail = Arc::new(AtomicBool::new(false));
            let shard = thread::spawn({
                let (entry, mail) = (Arc::clone(&entry), Arc::clone(&mail));
                move || {
                    let was_told = mail.load(Ordering::Acquire);
                    let state = entry.state();
                    assert!(!was_told || state.is_dead());
                    // A hit at the same moment notes its use and takes nothing back.
                    entry.visit(state);
                }
            });
            entry.kill();
            mail.store(true, Ordering::Release);
            shard.join().expect("the shard does not panic");
            assert!(entry.state().is_dead());
            assert_eq!(account.dead_bytes(), account.used_bytes());
        });
    }
}
