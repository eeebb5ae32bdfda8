//! The cache key: site, host, target, and what a rule adds of the request's fields, hashed once.
//!
//! The hash carries two things: the segment, chosen by site and target alone, so that a purge of a
//! URL on all hosts of a site, and whatever was added, touches one segment; and the rest, which
//! host and addition take part in.
//!
//! Leaves to others: which site a host belongs to and how a target is normalised (`dataplane`), the
//! choice among variants ([`crate::vary`]).

use std::{
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use crate::limits;

/// A cache key as a look-up makes it: borrowed, with its hash.
#[derive(Clone, Copy, Debug)]
pub struct CacheKeyRef<'a> {
    pub(crate) site: &'a str,
    pub(crate) host: &'a [u8],
    pub(crate) target: &'a [u8],
    pub(crate) added: &'a [u8],
    pub(crate) hash: u64,
}

impl<'a> CacheKeyRef<'a> {
    /// The site's id; empty for status pages.
    pub fn site(&self) -> &'a str {
        self.site
    }

    /// Host, as the caller normalised it.
    pub fn host(&self) -> &'a [u8] {
        self.host
    }

    /// Path and query.
    pub fn target(&self) -> &'a [u8] {
        self.target
    }

    /// What a rule added of the request's fields; empty for most.
    pub fn added(&self) -> &'a [u8] {
        self.added
    }

    /// The hash that tables use.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn to_key(self) -> CacheKey {
        let Self { site, host, target, added, hash } = self;
        let text = [site.as_bytes(), host, added, target].concat().into();
        let [site_len, host_len, added_len] = [site.len(), host.len(), added.len()].map(short);
        CacheKey { text, site_len, host_len, added_len, hash }
    }
}

/// A cache key that an entry or a lease keeps; cloning shares its text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CacheKey {
    /// Site, host, addition and target, one after the other.
    text: Arc<[u8]>,
    site_len: u16,
    host_len: u16,
    added_len: u16,
    hash: u64,
}

impl CacheKey {
    /// The borrowed form.
    pub fn borrowed(&self) -> CacheKeyRef<'_> {
        let (site, rest) = self.text.split_at(self.site_len as usize);
        let (host, rest) = rest.split_at(self.host_len as usize);
        let (added, target) = rest.split_at(self.added_len as usize);
        // It was a `str` when it came in.
        let site = std::str::from_utf8(site).unwrap_or_default();
        CacheKeyRef { site, host, target, added, hash: self.hash }
    }

    /// Host, addition and target, one after the other.
    pub fn text_on_site(&self) -> &[u8] {
        &self.text[self.site_len as usize..]
    }

    /// Whether there is an addition.
    pub fn has_added(&self) -> bool {
        self.added_len > 0
    }

    /// Whether `other` names the same thing.
    pub fn is(&self, other: &CacheKeyRef<'_>) -> bool {
        let host_at = self.site_len as usize;
        let added_at = host_at + self.host_len as usize;
        let target_at = added_at + self.added_len as usize;
        self.hash == other.hash
            && host_at == other.site.len()
            && added_at - host_at == other.host.len()
            && target_at - added_at == other.added.len()
            && self.text[target_at..] == *other.target
            && (other.added.is_empty() || self.text[added_at..target_at] == *other.added)
            && self.text[host_at..added_at] == *other.host
            && self.text[..host_at] == *other.site.as_bytes()
    }

    /// The hash that tables use.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Bytes of its text.
    pub(crate) fn text_bytes(&self) -> usize {
        self.text.len()
    }
}

/// Makes hashes; seeded, so that peers cannot choose collisions.
#[derive(Clone, Debug)]
pub struct KeyHasher(foldhash::quality::FixedState);

impl KeyHasher {
    /// A hasher for one process.
    pub fn new(seed: u64) -> Self {
        Self(foldhash::quality::FixedState::with_seed(seed))
    }

    /// Joins the parts of a cache key and hashes them.
    pub fn cache_key<'a>(
        &self,
        site: &'a str,
        host: &'a [u8],
        target: &'a [u8],
        added: &'a [u8],
    ) -> CacheKeyRef<'a> {
        let mut hasher = self.url_hasher(site, target);
        let url_hash = hasher.finish();
        hasher.write(host);
        if !added.is_empty() {
            hasher.write_u64(host.len() as u64);
            hasher.write(added);
        }
        let hash = (hasher.finish() & !SEGMENT_MASK) | (url_hash & SEGMENT_MASK);
        CacheKeyRef { site, host, target, added, hash }
    }

    /// The segment of a URL on any host of a site.
    pub(crate) fn url_segment(&self, site: &str, target: &[u8]) -> usize {
        segment_of(self.url_hasher(site, target).finish())
    }

    /// Hash of a surrogate key of a site.
    pub(crate) fn surrogate_hash(&self, site: &str, surrogate_key: &[u8]) -> u64 {
        self.url_hasher(site, surrogate_key).finish()
    }

    fn url_hasher(&self, site: &str, target: &[u8]) -> impl Hasher {
        let mut hasher = self.0.build_hasher();
        hasher.write_u64(site.len() as u64);
        hasher.write(site.as_bytes());
        hasher.write(target);
        hasher
    }
}

/// The length of a part of a key.
fn short(len: usize) -> u16 {
    // One that were longer would be found by nobody.
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// The segment that a hash belongs to.
pub(crate) fn segment_of(hash: u64) -> usize {
    ((hash & SEGMENT_MASK) >> SEGMENT_SHIFT) as usize
}

/// Neither the lowest bits nor the highest seven: tables within a segment tell entries apart by
/// those.
const SEGMENT_SHIFT: u32 = 40;
const SEGMENT_MASK: u64 = (limits::SEGMENT_COUNT as u64 - 1) << SEGMENT_SHIFT;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_in_the_same_segment_on_every_host() {
        let hasher = KeyHasher::new(7);
        for at in 0..100 {
            let target = format!("/{at}");
            let a = hasher.cache_key("s", b"a.example", target.as_bytes(), b"");
            let b = hasher.cache_key("s", b"b.example", target.as_bytes(), b"x");
            assert_ne!(a.hash, b.hash);
            assert_eq!(segment_of(a.hash), segment_of(b.hash));
            assert_eq!(segment_of(a.hash), hasher.url_segment("s", target.as_bytes()));
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let hasher = KeyHasher::new(7);
        let key = hasher.cache_key("ab", b"c", b"/d", b"").to_key();
        assert!(key.is(&hasher.cache_key("ab", b"c", b"/d", b"")));
        for (site, host, target) in [("a", "bc", "/d"), ("abc", "", "/d"), ("ab", "c/", "d")] {
            assert!(!key.is(&hasher.cache_key(site, host.as_bytes(), target.as_bytes(), b"")));
        }
        assert_eq!(key.borrowed().target(), b"/d");
        assert!(!key.is(&hasher.cache_key("ab", b"", b"/d", b"c")));
        let added = hasher.cache_key("ab", b"c", b"/d", b"\nx: 1").to_key();
        assert_eq!(
            (added.borrowed().added(), added.borrowed().host()),
            (&b"\nx: 1"[..], &b"c"[..])
        );
        assert!(!added.is(&hasher.cache_key("ab", b"c", b"/d", b"")));
    }

    #[test]
    fn segments_fill_evenly() {
        let hasher = KeyHasher::new(1);
        let mut counts = vec![0u32; limits::SEGMENT_COUNT];
        for at in 0..25_600 {
            let target = format!("/item/{at}");
            counts[segment_of(hasher.cache_key("s", b"h", target.as_bytes(), b"").hash)] += 1;
        }
        assert!(counts.iter().all(|&count| (50..=160).contains(&count)), "{counts:?}");
    }
}
