//! Maxima of everything the bench tool holds. Each says what happens when it is reached.

/// Connections of one generator. More is wrong usage.
pub(crate) const CONNECTIONS_MAX: u32 = 100_000;
/// Requests outstanding on one connection. More is wrong usage.
pub(crate) const PIPELINE_MAX: u32 = 1_024;
/// Streams held by one run. More is wrong usage.
pub(crate) const STREAMS_MAX: u32 = 4_000_000;
/// Topics of one run. More is wrong usage.
pub(crate) const TOPICS_MAX: u32 = 1_000_000;
/// Connections that one run publishes over. More is wrong usage.
pub(crate) const PUBLISH_LINES_MAX: u32 = 256;
/// Source addresses `127.0.0.2` and on. More is wrong usage.
pub(crate) const SOURCES_MAX: u32 = 65_000;
/// Bytes of one response head; a longer one is an error of kind `head`.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one request head at the origin; a longer one is answered 431 and closed.
pub(crate) const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a body kept as the expectation of the next ones; a longer body is checked by length and
/// hash.
pub(crate) const BODY_KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one body that the origin makes; more is answered 400.
pub(crate) const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Bytes of a line of an event; a longer one is an error of kind `event`.
pub(crate) const EVENT_LINE_BYTES_MAX: usize = 256 * 1024;
/// Events of one run whose identity is remembered; later ones are counted without an order check.
pub(crate) const EVENTS_MAX: usize = 1_000_000;
/// Paths that the origin counts one by one; requests to further paths share the count `other`.
pub(crate) const COUNTED_PATHS_MAX: usize = 1_000_000;
/// Longest latency a histogram tells apart, in microseconds; longer ones count as this.
pub(crate) const LATENCY_US_MAX: u64 = 600_000_000;
