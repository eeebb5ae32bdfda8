//! Maxima of everything control holds, and what happens when one is reached.

/// Commands waiting for the writer. Beyond: 503 with `Retry-After`.
pub const WRITER_QUEUE_MAX: usize = 512;
/// Commands committed together. More wait for the next commit.
pub const COMMIT_BATCH_MAX: usize = 256;
/// Read-only connections for API and public pages; more readers wait for one, the in-flight limits
/// bound how many.
pub const READ_CONNECTIONS_MAX: usize = 4;
/// Read-only connections for feeds, so that pages and feeds never wait for each other.
pub const FEED_CONNECTIONS_MAX: usize = 2;
/// Requests under `/v1` in work at once. Beyond: 429 with `Retry-After`.
pub const API_IN_FLIGHT_MAX: usize = 256;
/// Requests for public pages in work at once. Beyond: they queue.
pub const PUBLIC_IN_FLIGHT_MAX: usize = 500;
/// Requests for public pages that queue for their turn. Beyond: 503 with `Retry-After`.
pub const PUBLIC_QUEUE_MAX: usize = 2_000;
/// Time a request for a public page queues. Beyond: 503 with `Retry-After`.
pub const PUBLIC_QUEUE_MS_MAX: u64 = 2_000;
/// Requests for public pages that wait for a version that is not here yet; they keep nobody else
/// from being answered. Beyond: 503 with `Retry-After`, at once.
pub const PUBLIC_WAITING_MAX: usize = 256;
/// Time an edge may serve a page or its JSON without asking again, in seconds; a purge ends it
/// sooner.
pub const PUBLIC_FRESH_S: u32 = 3_600;
/// How long an edge may serve the last of a page when control is gone, seconds: 90 days. A status
/// page is to outlive its own outage.
pub const PUBLIC_STALE_S: u32 = 90 * 24 * 3_600;
/// Pages in the list of pages. Beyond: it says how many more there are.
pub const PUBLIC_INDEX_MAX: usize = 500;
/// Open feeds. Beyond: 503 with `Retry-After`.
pub const FEED_STREAMS_MAX: usize = 1_024;
/// Open connections. At it: the one longest here without a request under way is closed; if all have
/// one, accepting waits and the kernel's queue holds the rest.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Descriptors that connections leave to the store, its temporary files and the log.
pub const DESCRIPTORS_KEPT: usize = 128;
/// Bytes of a request head. Beyond: 431; far beyond, the connection is closed unread.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Time a client has for a request head, from the end of the one before. Beyond: its connection is
/// closed.
pub const HEAD_AFTER_MS_MAX: u64 = 30_000;
/// Time a client has for a request body. Beyond: 408.
pub const BODY_AFTER_MS_MAX: u64 = 10_000;
/// Bytes of a request body. Beyond: 413.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// Time given to open requests when control stops. Beyond: their connections are closed.
pub const DRAIN_AFTER_MS_MAX: u64 = 5_000;

/// Bytes in one answer buffer of a feed that its client has not taken yet; then the log is read
/// slower, nothing is queued.
pub const FEED_BUFFER_CHUNKS_MAX: usize = 4;
/// Time for which a feed's client may take nothing. Beyond: the feed ends, the edge comes back with
/// its cursor.
pub const FEED_STALL_AFTER_MS_MAX: u64 = 60_000;
/// Log positions read for a feed in one go.
pub const FEED_BATCH_POSITIONS_MAX: usize = 256;
/// Bytes of one snapshot part. Entities that do not fit go into the next one.
pub const SNAPSHOT_PART_BYTES_MAX: usize = 256 * 1024;
/// Bytes of what an event of a page says. Beyond: it says less, in the end only that the page is to
/// be read again.
pub const PAGE_EVENT_BYTES_MAX: usize = 96 * 1024;
/// Publish records sent again to refill an edge's history. Older ones are left out; a stream that
/// asks for them is told a gap.
pub const REFILL_RECORDS_MAX: usize = 20_000;
/// Time between two beats of a feed.
pub const BEAT_EVERY_MS: u64 = 5_000;
/// Edges that visitors can be led to by their own names. Beyond: the first ones by name.
pub const CIRCLE_EDGES_MAX: usize = 256;
/// Bytes of an edge's own name. Beyond: nobody is led there.
pub const CIRCLE_NAME_BYTES_MAX: usize = 280;
/// From control's start until it tells which edges there are: they come back one by one.
pub const CIRCLE_SETTLE_MS: u64 = 15_000;
/// From a change of them until it is told: changes of that time are told together.
pub const CIRCLE_TELL_MS: u64 = 100;
/// Time a reader may wait for a version that is not here yet. Beyond: 503.
pub const MIN_VERSION_WAIT_MS_MAX: u64 = 2_000;

/// Bytes of a slug or a site's name.
pub const SLUG_BYTES_MAX: usize = 63;
/// Bytes of a host name.
pub const HOST_BYTES_MAX: usize = 253;
/// Hosts of one page or site.
pub const HOSTS_MAX: usize = 64;
/// Origins of one site.
pub const ORIGINS_MAX: usize = 32;
/// Bytes of a site as edges get it, with its rules and keys. Beyond: 422.
pub const SITE_BYTES_MAX: usize = 240 * 1024;
/// Routes of one site.
pub const ROUTES_MAX: usize = 256;
/// Bytes of a display name or title.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a description.
pub const DESCRIPTION_BYTES_MAX: usize = 4_096;
/// Bytes of an incident update's text.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Components of one page. Beyond: 422.
pub const COMPONENTS_MAX: usize = 1_000;
/// Updates of one incident. Beyond: 422.
pub const UPDATES_MAX: usize = 500;
/// Edges enrolled. Beyond: 422.
pub const EDGES_MAX: usize = 10_000;
/// Live API keys. Beyond: 422.
pub const API_KEYS_MAX: usize = 20_000;
/// Bytes of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Bytes of a URL, prefix or surrogate key in a purge.
pub const PURGE_TARGET_BYTES_MAX: usize = 8 * 1024;
/// Surrogate keys of one order to purge. Beyond: 422.
pub const PURGE_ORDER_KEYS_MAX: usize = 64;
/// Events of one request to publish. Beyond: 422.
pub const EVENTS_A_REQUEST_MAX: usize = 100;
/// Bytes of what an event says. Beyond: 422.
pub const EVENT_DATA_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an event's name.
pub const EVENT_NAME_BYTES_MAX: usize = 64;
/// Bytes of an event key.
pub const EVENT_KEY_BYTES_MAX: usize = 200;
/// Requests to publish in work at once. Beyond: 429 with `Retry-After`; incidents and all else go
/// on beside them.
pub const PUBLISH_IN_FLIGHT_MAX: usize = 64;
/// Commands that may wait for the writer for one more publisher to be let in. Beyond: 503 with
/// `Retry-After`; what is left of the queue is for everyone else.
pub const PUBLISH_QUEUE_MAX: usize = WRITER_QUEUE_MAX / 4;
/// Events kept of all topics: an hour of 1,000 a second, about 1 KB each beside their data. Beyond:
/// 429 with `Retry-After`, until retention has removed some.
pub const EVENTS_KEPT_MAX: u64 = 4_000_000;
/// How long a publisher waits for retention, s.
pub const EVENTS_KEPT_RETRY_S: u32 = 60;
/// Topics that customers publish to. Beyond: 422 for a new one.
pub const TOPICS_MAX: u64 = 100_000;
/// Patterns of topics of one route.
pub const ROUTE_TOPICS_MAX: usize = 64;
/// Middle of a stream's `retry:`, ms.
pub const STREAM_RETRY_MS: std::ops::RangeInclusive<u64> = 100..=600_000;
/// Age at which a stream is closed, s.
pub const STREAM_AGE_S: std::ops::RangeInclusive<u64> = 10..=604_800;
/// Keys of one site that tokens are signed with.
pub const TOKEN_KEYS_MAX: usize = 16;
/// Items on one page of a list.
pub const LIST_ITEMS_MAX: usize = 500;
/// Items on one page of a list when the client names no number.
pub const LIST_ITEMS_DEFAULT: usize = 50;
/// Errors named in one answer.
pub const FIELD_ERRORS_MAX: usize = 32;

/// How far a remote replica's clock may be ahead of ours. Beyond: its operations are quarantined.
pub const REMOTE_AHEAD_MS_MAX: u64 = 500;
/// Incarnations of this region kept in the version vector. Drawing one more forgets the oldest:
/// cursors naming it get a snapshot.
pub const INCARNATIONS_MAX: usize = 16;
/// Rows a retention turn removes before it lets other writes go first.
pub const COMPACTION_ROWS_MAX: usize = 2_000;
/// Age of the file that tells the store from its copies, at which a commit makes another.
pub const WITNESS_AFTER_MS: u64 = 60_000;
/// Commits between two checkpoints of the write-ahead log.
pub const CHECKPOINT_EVERY_COMMITS: u32 = 256;
