//! Maxima of everything a shard or an engine can hold. Each says what happens when it is reached.

/// Segments of one payload (one `iovec` each). A shard splits longer answers over several sends.
pub const SEGMENTS_MAX: usize = 64;
