//! `Cache-Status` (RFC 9211): how a response came about, as one member of the list that every cache
//! on its way appends to.
//!
//! ```text
//!   Cache-Status: pharos-e1; key="a.example/x"; hit; ttl=59
//!                 └ stored with the entry ────┘└ written for each answer
//! ```
//! What an entry's answers have in common is made when it is stored, so that a hit copies it with
//! its head and writes one number.

use proto::http1::encode::decimal;

use crate::key::CacheKeyRef;

/// Why a request went on to the origin (RFC 9211 §2.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Forward {
    /// The route is not cached.
    Bypass,
    /// The method cannot be answered from a cache.
    Method,
    /// Nothing is stored under the cache key.
    UriMiss,
    /// What is stored under the cache key does not fit the request's other fields.
    VaryMiss,
    /// One of the two; who waits for another's fetch does not know which.
    Miss,
    /// Something fresh is stored, but the request does not want it.
    Request,
    /// Something is stored that is not fresh.
    Stale,
    /// Only a part of what is wanted is stored.
    Partial,
}

impl Forward {
    /// The token.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// What is told of one answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheStatus {
    /// Why it was asked of the origin; `None` for a hit.
    pub forward: Option<Forward>,
    /// What the origin answered.
    pub forward_status: Option<u16>,
    /// The origin's answer was stored, or updated what is.
    pub stored: bool,
    /// Another request's fetch answered it, too.
    pub collapsed: bool,
    /// Seconds of freshness that are left; negative when stale.
    pub ttl_s: Option<i64>,
    /// A reason, as a token; may be empty.
    pub detail: &'static str,
}

impl CacheStatus {
    /// From the cache, with so much freshness left.
    pub fn hit(ttl_s: Option<i64>) -> Self {
        Self {
            forward: None,
            forward_status: None,
            stored: false,
            collapsed: false,
            ttl_s,
            detail: "",
        }
    }

    /// From the origin.
    pub fn forwarded(forward: Forward) -> Self {
        Self { forward: Some(forward), ..Self::hit(None) }
    }

    /// Writes the parameters that differ from answer to answer, and the line's end.
    pub fn write(&self, to: &mut Vec<u8>) {
        match self.forward {
            None => to.extend_from_slice(b"; hit"),
            Some(forward) => {
                to.extend_from_slice(b"; fwd=");
                to.extend_from_slice(forward.as_str().as_bytes());
            }
        }
        if let Some(status) = self.forward_status {
            to.extend_from_slice(b"; fwd-status=");
            decimal(to, status.into());
        }
        if self.stored {
            to.extend_from_slice(b"; stored");
        }
        if self.collapsed {
            to.extend_from_slice(b"; collapsed");
        }
        if let Some(ttl_s) = self.ttl_s {
            to.extend_from_slice(b"; ttl=");
            if ttl_s < 0 {
                to.push(b'-');
            }
            decimal(to, ttl_s.unsigned_abs());
        }
        if !self.detail.is_empty() {
            to.extend_from_slice(b"; detail=");
            to.extend_from_slice(self.detail.as_bytes());
        }
        to.extend_from_slice(b"\r\n");
    }
}

/// The beginning of the line: this cache's name, and the cache key if it is short and plain enough.
pub(crate) fn beginning(name: &str, cache_key: &CacheKeyRef<'_>) -> Vec<u8> {
    let mut line = Vec::with_capacity(128);
    line.extend_from_slice(b"Cache-Status: ");
    line.extend_from_slice(name.as_bytes());
    let key = [cache_key.host, cache_key.target].concat();
    let is_plain = key.iter().all(|b| matches!(b, 0x20..=0x7e) && !matches!(b, b'"' | b'\\'));
    if is_plain && key.len() <= KEY_BYTES_MAX {
        line.extend_from_slice(b"; key=\"");
        line.extend_from_slice(&key);
        line.push(b'"');
    }
    line
}

/// Longest cache key that is told; longer ones are left out.
const KEY_BYTES_MAX: usize = 256;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::key::KeyHasher;

    fn text(status: CacheStatus) -> String {
        let mut to = Vec::new();
        status.write(&mut to);
        String::from_utf8(to).expect("text")
    }

    #[test]
    fn rfc9211_2_parameters_of_a_hit_and_of_a_forwarded_request() {
        assert_eq!(text(CacheStatus::hit(Some(376))), "; hit; ttl=376\r\n");
        assert_eq!(text(CacheStatus::hit(Some(-7))), "; hit; ttl=-7\r\n");
        let status = CacheStatus {
            forward_status: Some(304),
            stored: true,
            collapsed: true,
            ttl_s: Some(0),
            detail: "x",
            ..CacheStatus::forwarded(Forward::Stale)
        };
        let expected = "; fwd=stale; fwd-status=304; stored; collapsed; ttl=0; detail=x\r\n";
        assert_eq!(text(status), expected);
        assert_eq!(text(CacheStatus::forwarded(Forward::UriMiss)), "; fwd=uri-miss\r\n");
    }

    #[test]
    fn rfc9211_2_7_the_key_is_a_string_or_left_out() {
        let hasher = KeyHasher::new(0);
        let line = |target: &str| {
            let key = hasher.cache_key("s", b"a.example", target.as_bytes(), b"");
            String::from_utf8(beginning("pharos-e1", &key)).expect("text")
        };
        assert_eq!(line("/x?y"), "Cache-Status: pharos-e1; key=\"a.example/x?y\"");
        for target in ["/\"", "/\\", "/\u{e4}", &"/x".repeat(200)] {
            assert_eq!(line(target), "Cache-Status: pharos-e1", "{target}");
        }
    }
}
