//! Field names: the token rule, and the names that Pharos itself looks at.
//!
//! A head is classified once, while it is parsed: each name is looked up in a perfect hash built at
//! compile time, and whoever asks later asks by [`Known`], without a second scan.

/// Whether `bytes` is a token (RFC 9110 §5.6.2): what field names, methods and codings are made of.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| TOKEN[b as usize])
}

/// Whether `b` may stand in a token.
pub const fn is_token_byte(b: u8) -> bool {
    TOKEN[b as usize]
}

/// Whether `bytes` can be sent as a field value as it is: no control bytes except HTAB (so no CR,
/// LF or NUL), no white space at either end (RFC 9110 §5.5).
pub fn is_value(bytes: &[u8]) -> bool {
    let is_space = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    // No early exit: compiles to a vector loop.
    let clean =
        bytes.iter().fold(true, |clean, &b| clean & ((b >= 0x20 && b != 0x7f) || b == b'\t'));
    clean && !is_space(bytes.first()) && !is_space(bytes.last())
}

/// Whether two field names are the same name: case does not count.
pub fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

macro_rules! known {
    ($($variant:ident = $text:literal),+ $(,)?) => {
        /// A field name that Pharos looks at.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Known {
            $(#[doc = concat!("`", $text, "`")] $variant,)+
        }

        const ALL: &[(Known, &str)] = &[$((Known::$variant, $text)),+];
    };
}

known! {
    Host = "Host",
    Connection = "Connection",
    ContentLength = "Content-Length",
    TransferEncoding = "Transfer-Encoding",
    Expect = "Expect",
    Te = "TE",
    Trailer = "Trailer",
    Upgrade = "Upgrade",
    KeepAlive = "Keep-Alive",
    ProxyConnection = "Proxy-Connection",
    ProxyAuthenticate = "Proxy-Authenticate",
    ProxyAuthorization = "Proxy-Authorization",
    CacheControl = "Cache-Control",
    Pragma = "Pragma",
    IfMatch = "If-Match",
    IfNoneMatch = "If-None-Match",
    IfModifiedSince = "If-Modified-Since",
    IfUnmodifiedSince = "If-Unmodified-Since",
    IfRange = "If-Range",
    Range = "Range",
    Authorization = "Authorization",
    Cookie = "Cookie",
    Accept = "Accept",
    AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language",
    UserAgent = "User-Agent",
    Origin = "Origin",
    LastEventId = "Last-Event-ID",
    MaxForwards = "Max-Forwards",
    Via = "Via",
    CdnLoop = "CDN-Loop",
    Forwarded = "Forwarded",
    XForwardedFor = "X-Forwarded-For",
    XForwardedProto = "X-Forwarded-Proto",
    XForwardedHost = "X-Forwarded-Host",
    XRequestId = "X-Request-Id",
    PharosMinVersion = "Pharos-Min-Version",
    PharosVersion = "Pharos-Version",
    Age = "Age",
    Date = "Date",
    Expires = "Expires",
    ETag = "ETag",
    LastModified = "Last-Modified",
    Vary = "Vary",
    SetCookie = "Set-Cookie",
    Warning = "Warning",
    Server = "Server",
    Location = "Location",
    ContentLocation = "Content-Location",
    ContentType = "Content-Type",
    ContentEncoding = "Content-Encoding",
    ContentRange = "Content-Range",
    AcceptRanges = "Accept-Ranges",
    RetryAfter = "Retry-After",
    CdnCacheControl = "CDN-Cache-Control",
    SurrogateKey = "Surrogate-Key",
    SurrogateControl = "Surrogate-Control",
    CacheStatus = "Cache-Status",
    XCacheStatus = "X-Cache-Status",
    CacheGroups = "Cache-Groups",
    CacheGroupInvalidation = "Cache-Group-Invalidation",
    XAccelBuffering = "X-Accel-Buffering",
}

impl Known {
    /// How many there are; ≤ 64, so that a set of them is one word.
    pub const COUNT: usize = ALL.len();

    /// Which of them `name` is, in whatever case.
    #[inline(always)]
    pub fn of(name: &str) -> Option<Self> {
        let bytes = name.as_bytes();
        let &(known, text) = ALL.get(usize::from(TABLE.slots[slot(bytes, TABLE.seed)?]))?;
        same_folded(bytes, text.as_bytes()).then_some(known)
    }

    /// The usual spelling.
    pub const fn as_str(self) -> &'static str {
        ALL[self as usize].1
    }

    /// Whether it concerns one connection only and is never passed on, named by `Connection` or not
    /// (RFC 9110 §7.6.1). `Transfer-Encoding` is among them: each hop frames for itself.
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::TransferEncoding
                | Self::Te
                | Self::Trailer
                | Self::Upgrade
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
        )
    }
}

/// Case-insensitive equality, eight bytes at a time: half the cost of `eq_ignore_ascii_case` on
/// names (2 to 24 bytes).
#[inline]
fn same_folded(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if let (Some(a_last), Some(b_last)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) {
        // The last eight bytes overlap with the chunks before them.
        let (a_words, b_words) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
        return fold(u64::from_le_bytes(*a_last)) == fold(u64::from_le_bytes(*b_last))
            && a_words
                .iter()
                .zip(b_words)
                .all(|(a, b)| fold(u64::from_le_bytes(*a)) == fold(u64::from_le_bytes(*b)));
    }
    fold(short_word(a)) == fold(short_word(b))
}

/// Up to seven bytes as one word, the same for the same bytes only (of one length).
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
    }
    bytes.iter().fold(0, |word, &b| word << 8 | u64::from(b))
}

/// Letters to lower case. Only bytes with bit 6 are touched, so `-` and digits stay apart from
/// control bytes; of those touched, only capital letters become lower-case ones.
#[inline]
const fn fold(word: u64) -> u64 {
    word | (word & 0x4040_4040_4040_4040) >> 1
}

/// Perfect hash over [`ALL`]: a seed under which no two names share a slot, found at compile time.
struct Table {
    seed: u32,
    /// Index into [`ALL`], or 255.
    slots: [u8; SLOTS],
}

const SLOTS: usize = 512;
const TABLE: Table = build();

/// Slot of a name: from its length and three of its bytes, case folded.
#[inline]
const fn slot(name: &[u8], seed: u32) -> Option<usize> {
    let len = name.len();
    if len == 0 {
        return None;
    }
    // `| 0x20` folds letters and maps other bytes somewhere, which is all that is needed.
    let first = (name[0] | 0x20) as u32;
    let middle = (name[len / 2] | 0x20) as u32;
    let last = (name[len - 1] | 0x20) as u32;
    let mixed = (first | middle << 8 | last << 16 | (len as u32) << 24).wrapping_mul(seed);
    Some((mixed >> 23) as usize)
}

const fn build() -> Table {
    let mut seed = 0x9e37_79b1_u32;
    loop {
        if let Some(slots) = try_seed(seed) {
            return Table { seed, slots };
        }
        seed = seed.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f) | 1;
    }
}

const fn try_seed(seed: u32) -> Option<[u8; SLOTS]> {
    assert!(ALL.len() <= 64, "a set of known names is one word");
    let mut slots = [u8::MAX; SLOTS];
    let mut at = 0;
    while at < ALL.len() {
        match slot(ALL[at].1.as_bytes(), seed) {
            Some(slot) if slots[slot] == u8::MAX => slots[slot] = at as u8,
            _ => return None,
        }
        at += 1;
    }
    Some(slots)
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = matches!(
            b as u8,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9'
            | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
            | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        b += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for &(known, text) in ALL {
            assert_eq!(Known::of(text), Some(known));
            assert_eq!(Known::of(&text.to_ascii_lowercase()), Some(known));
            assert_eq!(Known::of(&text.to_ascii_uppercase()), Some(known));
            assert_eq!(known.as_str(), text);
            assert!(is_token(text.as_bytes()));
        }
    }

    proptest! {
        #[test]
        fn other_names_are_unknown(
            name in "[!-~]{0,24}",
            known in 0..Known::COUNT,
            at: usize,
            b in 0u8..128,
        ) {
            let by_scan = |name: &str| {
                ALL.iter().find(|(_, text)| same(text, name)).map(|&(known, _)| known)
            };
            let mut damaged = ALL[known].1.as_bytes().to_vec();
            let at = at % damaged.len();
            damaged[at] = b;
            let damaged = String::from_utf8(damaged).expect("ASCII");
            prop_assert_eq!(Known::of(&damaged), by_scan(&damaged));

            prop_assert_eq!(Known::of(&name), by_scan(&name));
        }
    }

    #[test]
    fn a_value_has_no_control_bytes_and_no_space_around_it() {
        for good in [&b""[..], b"a", b"a b", b"a\tb", b"\xff\x80", b"\"quoted\""] {
            assert!(is_value(good), "{good:?}");
        }
        for bad in
            [&b" a"[..], b"a ", b"a\r\nb", b"a\nb", b"a\rb", b"a\0b", b"a\x7fb", b"\x1b", b"\t"]
        {
            assert!(!is_value(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_token_is_not_empty_and_has_no_delimiters() {
        assert!(is_token(b"M-SEARCH"));
        for bad in [&b""[..], b"a b", b"a:", b"a(", b"\xc3\xa9", b"a\0", b"{}"] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }
}
