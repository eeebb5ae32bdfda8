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
/// Bytes of one SSE event on the feed, all lines together. Beyond: the parser reports it and the
/// session reconnects with a snapshot.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Replicas in one version vector. A cursor with more is refused as malformed.
pub const VECTOR_ENTRIES_MAX: usize = 32;
/// Bytes of a cursor in its text form. Longer ones are refused unread.
pub const CURSOR_BYTES_MAX: usize = 2048;
