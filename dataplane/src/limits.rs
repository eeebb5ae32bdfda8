//! Maxima of everything a shard or an engine can hold. Each says what happens when it is reached.

/// Segments of one payload (one `iovec` each). A shard splits longer answers over several sends.
pub const SEGMENTS_MAX: usize = 64;
/// Room of a new send buffer; grows with what is put in.
pub const SEND_BUFFER_BYTES: usize = 4 * 1024;
/// Largest send buffer kept for reuse. Larger ones are let go.
pub const SPARE_BUFFER_BYTES_MAX: usize = 128 * 1024;
/// Send buffers kept for reuse by a shard. More are let go.
pub const SPARE_BUFFERS_MAX: usize = 256;
/// Connections of one peer address (an IPv6 /64) on one shard, loopback excepted. Beyond: the new
/// connection is reset.
pub const CONNECTIONS_PER_PEER_MAX: u32 = 1024;

/// Mails waiting in one shard's mailbox. When full, the sending engine keeps its mail, in order,
/// and takes nothing more from its sockets until there is room.
pub const MAIL_MAX: usize = 4096;
/// Kept connections to one origin on one shard. Beyond: a connection is closed after its exchange.
pub const ORIGIN_IDLE_MAX: usize = 64;
/// Addresses of one origin name. Beyond: ignored.
pub const ORIGIN_ADDRESSES_MAX: usize = 16;
/// How long a name look-up holds, in ms.
pub const RESOLVED_MS: u64 = 30_000;
/// How long a failed name look-up holds, in ms.
pub const UNRESOLVED_MS: u64 = 1_000;
