//! Maxima of everything a peer can make this crate hold. Callers may lower them, never raise them
//! past
//! what their own memory contract states. Each value names what happens when it is reached.

/// Bytes of one request or response head, request line included. Beyond: 431 (or 414 when the
/// target alone is over [`TARGET_BYTES_MAX`]); an upstream head beyond it is a bad gateway.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Fields in one head or trailer section. Beyond: 431.
pub const FIELD_COUNT_MAX: usize = 128;
/// Bytes of a request target. Beyond: 414.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a chunk-size line, extensions included. Beyond: 400.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes of a trailer section. Beyond: 400.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Bytes of one SSE event on the feed, all lines together. Control sends none that is near it
/// ([`RECORD_BYTES_MAX`]). Beyond: the edge reads past it and says so. For an event of a topic it
/// tells its streams a gap; for a change of configuration or a purge it begins anew with a
/// snapshot.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a record's JSON as control writes it. Beyond: an event of a page tells less, a snapshot
/// has more parts, a site is refused.
pub const RECORD_BYTES_MAX: usize = EVENT_BYTES_MAX / 2;
/// Bytes of a line of an event that is too large. Beyond: the line counts for nothing.
pub const LINE_BYTES_OF_TOO_LARGE_MAX: usize = CURSOR_BYTES_MAX + 64;
/// Replicas in one version vector. A cursor with more is refused as malformed.
pub const VECTOR_ENTRIES_MAX: usize = 32;
/// Bytes of a cursor in its text form. Longer ones are refused unread.
pub const CURSOR_BYTES_MAX: usize = 2048;
/// Rules of one site. Beyond: refused, with what was expected.
pub const RULES_MAX: usize = 128;
/// Items of one list in a rule. Beyond: refused.
pub const RULE_LIST_MAX: usize = 64;
/// Bytes of one pattern or name in a rule. Beyond: refused.
pub const RULE_PATTERN_BYTES_MAX: usize = 1024;
/// Longest lifetime that a rule gives, s (RFC 9111 §1.2.2). Beyond: refused.
pub const RULE_LIFETIME_S_MAX: u64 = 1 << 31;
/// Keys of one site that purge by the method `PURGE`. Beyond: refused.
pub const PURGE_KEYS_MAX: usize = 16;

/// Bytes of a request body, unless the caller says less. Beyond: 413.
pub const REQUEST_BODY_BYTES_MAX: u64 = 1 << 30;
/// Bytes of chunk extensions in one body, all chunks together. Beyond: 400; it is more likely an
/// attack (one data byte behind 250 bytes of extension) than a use.
pub const CHUNK_EXTENSION_BYTES_MAX: u32 = 16 * 1024;
/// Empty lines before a request line (RFC 9112 §2.2 asks for at least one). Beyond: 400.
pub const EMPTY_LINES_MAX: u8 = 4;
/// Bytes of an unwanted request body that are read and thrown away to keep a connection. Beyond: it
/// closes.
pub const DRAIN_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of pipelined requests kept while a response is outstanding; the caller stops receiving, so
/// this is what the kernel had already handed over. Beyond: 400 and close.
pub const PIPELINE_BYTES_MAX: usize = 256 * 1024;
/// Informational (1xx) heads before a final one. Beyond: a bad gateway.
pub const INFORMATIONAL_COUNT_MAX: u8 = 16;

/// From the first byte of a request head to its last, ms. Beyond: 408.
pub const HEAD_DEADLINE_MS: u64 = 10_000;
/// Without a byte of a request body that is not complete, ms. Beyond: 408.
pub const BODY_IDLE_MS: u64 = 30_000;
/// Between requests, or before the first one, ms. Beyond: the connection closes without a word.
pub const KEEP_ALIVE_IDLE_MS: u64 = 60_000;
