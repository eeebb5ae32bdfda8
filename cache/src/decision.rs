//! What a look-up decided, and the named reasons for every decision not to do something.

use crate::{collapse::Lease, encoding::EncodeOrder, near::Local, range::ByteRange};

/// What to do with a request.
///
/// ```text
///   near table ─┐                 ┌─ Hit ─────── serve now (its body may still be filling)
///   index ──────┴─▶ one decision ─┼─ Stale ───── serve now, and maybe validate behind it
///                                 ├─ Revalidate ─ ask the origin whether it still holds
///                                 ├─ Miss ────── fetch, and report the head to the lease
///                                 ├─ Wait ────── a shard fetches already; mail will come
///                                 ├─ Bypass ──── fetch for this request alone, store nothing
///                                 └─ Unsatisfiable ─ only-if-cached, and it is not: 504
/// ```
#[derive(Debug)]
pub enum Decision {
    /// Serve it.
    Hit(Hit),
    /// Serve it though stale; with a lease, validate it in the background.
    Stale {
        /// What to serve.
        hit: Hit,
        /// The fetch to make, if no other shard makes it already.
        revalidate: Option<Lease>,
    },
    /// Send a conditional request ([`Lease::conditional_fields`]) before anything else.
    Revalidate(Lease),
    /// Fetch without the client's conditions and without its `Range`: what is to be asked instead,
    /// the lease knows ([`Lease::conditional_fields`]).
    Miss(Lease),
    /// Nothing to do until [`crate::Wake`] comes for the waiter that was given.
    Wait,
    /// Forward the request as it is and store nothing.
    Bypass(BypassReason),
    /// Answer 504 (RFC 9111 §5.2.1.7).
    Unsatisfiable,
}

/// A stored response that answers the request.
#[derive(Debug)]
pub struct Hit {
    /// The bytes.
    pub local: Local,
    /// `Age` to send, seconds.
    pub age_s: u64,
    /// Freshness that is left, seconds; negative when stale, `None` if it was purged softly.
    pub ttl_s: Option<i64>,
    /// Whole, a part, or 304.
    pub answer: Answer,
    /// Fresh, or why stale is allowed.
    pub freshness: Freshness,
    /// Where it was found.
    pub tier: Tier,
    /// An encoding that the request would rather have had: to be made, by whoever gets this.
    pub order: Option<EncodeOrder>,
}

/// Where a stored response was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// In the shard's own table.
    Near,
    /// In the index that all shards share.
    Shared,
}

/// Which response to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The stored one, its body included unless the request is HEAD.
    Full,
    /// 304, [`Local::not_modified_head`]: the client's own copy still holds.
    NotModified,
    /// 206, [`Local::partial_head`]: these parts, at least one, in this order.
    Parts(Box<[ByteRange]>),
    /// 416: none of the ranges asked for lies inside; how long the representation is.
    Unsatisfiable(u64),
}

/// Why a stored response may be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness {
    /// It is fresh.
    Fresh,
    /// It was fetched for this request, among others, that waited for it.
    Collapsed,
    /// The request said `max-stale`.
    MaxStale,
    /// RFC 5861 §3.
    WhileRevalidating,
    /// The origin failed (RFC 5861 §4, or 24 h by default).
    OriginFailed,
}

impl Freshness {
    /// Whether it must be marked STALE.
    pub fn is_stale(self) -> bool {
        !matches!(self, Self::Fresh | Self::Collapsed)
    }
}

/// Why a request does not take part in caching.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BypassReason {
    /// Neither GET nor HEAD.
    Method,
    /// `If-Match` or `If-Unmodified-Since`: only the origin can tell.
    Precondition,
    /// The request said `no-store` and nothing stored answers it.
    RequestNoStore,
}

impl BypassReason {
    /// A short name for fields, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Precondition => "precondition",
            Self::RequestNoStore => "request-no-store",
        }
    }
}

/// Why a response was not kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NoStoreReason {
    /// Answer to a method whose responses are not stored.
    Method,
    /// 1xx, 206, 304 without a stored response, or a code unknown where `must-understand` asks for
    /// knowledge.
    Status,
    /// The request said `no-store`.
    RequestNoStore,
    /// The response said `no-store`.
    NoStore,
    /// The response said `private`.
    Private,
    /// The request had `Authorization` and the response does not allow sharing it (RFC 9111 §3.5).
    Authorization,
    /// `Vary: *`, or more names than [`crate::limits::VARY_NAMES_MAX`].
    Vary,
    /// A part whose `Content-Range` is missing or at odds with what came, or that cannot be joined
    /// with what is stored.
    Partial,
    /// Neither a lifetime, nor a validator, nor permission to serve it stale: it could never be
    /// used.
    NothingToReuse,
    /// `Set-Cookie` without an explicit lifetime: a guess must not share a session.
    SetCookie,
    /// Longer than the largest entry.
    TooLarge,
    /// More or longer surrogate keys than a purge is sure to find.
    SurrogateKeys,
    /// Memory is full of what cannot be evicted.
    MemoryFull,
    /// Purged while it was being fetched.
    Purged,
    /// More purges came during the fetch than are remembered.
    PurgesForgotten,
}

impl NoStoreReason {
    /// A short name for fields, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::RequestNoStore => "request-no-store",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::Vary => "vary",
            Self::Partial => "partial",
            Self::NothingToReuse => "nothing-to-reuse",
            Self::SetCookie => "set-cookie",
            Self::TooLarge => "too-large",
            Self::SurrogateKeys => "surrogate-keys",
            Self::MemoryFull => "memory-full",
            Self::Purged => "purged",
            Self::PurgesForgotten => "purges-forgotten",
        }
    }
}
