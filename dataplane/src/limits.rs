//! Maxima of everything a shard or an engine can hold. Each says what happens when it is reached.

/// Segments of one payload (one `iovec` each). A shard splits longer answers over several sends.
pub const SEGMENTS_MAX: usize = 64;
/// Mails taken in one turn of a shard. The rest waits for the next turn, sockets come between.
pub const MAIL_PER_TURN_MAX: usize = 256;
/// Inputs taken from sockets in one turn, before their effects are carried out.
pub const INPUTS_PER_TURN_MAX: usize = 256;
/// `File`, `Resolve` and `Cold` operations of one shard under way. One more fails at once with
/// `ResourceBusy`.
pub const HELPER_OPS_MAX: usize = 256;
/// Bytes of a file that holds an API key. Beyond: an error at start.
pub const KEY_FILE_BYTES_MAX: u64 = 4_096;
/// Threads that look names up, for all shards. Look-ups wait behind each other beyond.
pub const NAME_HELPERS: usize = 4;
/// Threads that do cold work, for all shards. Work waits behind other work beyond.
pub const COLD_HELPERS: usize = 2;
/// How far they stand back behind the shards, as nice(2) counts.
pub const COLD_NICE: i32 = 10;
/// Sockets of one shard: the table's index has 24 bits.
pub const SOCKETS_MAX: u32 = 1 << 24;
/// Direct descriptors of one ring: the kernel's own limit, whatever RLIMIT_NOFILE is.
pub const DIRECT_MAX: u32 = 1 << 20;
/// Shards of a process: what RLIMIT_NOFILE makes necessary beyond is refused in words.
pub const SHARDS_MAX: u16 = 1024;
/// Descriptors left for everything that is no shard's socket: files, rings, logs.
pub const DESCRIPTORS_SPARE: u32 = 64;
/// Accepts of one listener under way. New connections wait in the listener's backlog beyond.
pub const ACCEPTS_MAX: u32 = 32;
/// One socket in so many is kept for outgoing connections: with fewer free, nothing is accepted.
pub const CONNECT_SHARE: u32 = 16;
/// How long nothing is accepted after the process or the system ran out of descriptors or memory.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// Connections waiting to be accepted, a listener and shard; the kernel's `somaxconn` may be lower.
/// Beyond, the kernel drops SYNs and the peer tries again.
pub const BACKLOG_MAX: i32 = 4096;
/// How long a start waits for addresses, and for its data folder, that another process holds.
/// Beyond: an error.
pub const LISTEN_TRY_MS: u64 = 2_000;
/// Time between two tries.
pub const LISTEN_PAUSE_MS: u64 = 20;
/// How long a connect may take; then it fails with `TimedOut`.
pub const CONNECT_MS_MAX: u64 = 10_000;
/// How long a peer may leave sent bytes unacknowledged; then the kernel ends the connection.
pub const UNACKNOWLEDGED_MS_MAX: u64 = 120_000;
/// How long a graceful close reads on and discards, so that a response is not lost to a reset.
pub const CLOSE_DRAIN_MS: u64 = 2_000;
/// How long sends under way may take once every shard has stopped; then they are cut.
pub const STOP_FLUSH_MS: u64 = 5_000;
/// Submissions a ring holds; a full queue is handed to the kernel at once. Also the sends of one
/// fan-out batch (measured: batches of 1,024 cost 7.3 µs a delivery, of 16 8.5 µs).
pub const RING_ENTRIES: u32 = 1024;
/// Completions a ring holds; the kernel keeps what is beyond until there is room.
pub const RING_COMPLETIONS: u32 = 4096;
/// One receive buffer.
pub const RECEIVE_BYTES: usize = 16 * 1024;
/// Receive buffers of a shard at start. They are used in turn, so fewer stay in the core's cache.
pub const RECEIVE_BUFFERS_MIN: u16 = 64;
/// Receive buffers of all shards together at start; each has its share of them, up to
/// `RECEIVE_BUFFERS_MIN`, 16 at least.
pub const RECEIVE_BUFFERS_ALL_MIN: usize = 1024;
/// Receive buffers of a shard at most. When all are in use, receives wait a turn.
pub const RECEIVE_BUFFERS_MAX: u16 = 1024;
/// Receive buffers of all shards together at most (64 MiB); each has its share of them, 16 at
/// least.
pub const RECEIVE_BUFFERS_ALL_MAX: usize = 4096;
/// Room of a new send buffer; grows with what is put in.
pub const SEND_BUFFER_BYTES: usize = 4 * 1024;
/// Largest send buffer kept for reuse. Larger ones are let go.
pub const SPARE_BUFFER_BYTES_MAX: usize = 128 * 1024;
/// Send buffers kept for reuse by a shard. More are let go.
pub const SPARE_BUFFERS_MAX: usize = 256;
/// Connections of one peer address (an IPv6 /64) on one shard, loopback excepted, unless
/// `limits.connections_per_peer` says otherwise. Beyond: the new connection is reset.
pub const CONNECTIONS_PER_PEER: u32 = 1024;

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
/// Bytes that wait on one connection for its client. Beyond: the connection reads on and answers
/// only when they have left. It is also what must leave within `timeouts.transfer_ms`.
pub const WRITE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a request body. Beyond: 413.
pub const REQUEST_BODY_BYTES_MAX: u64 = 1 << 30;
/// Bytes of further requests kept while an answer is outstanding. Beyond: the connection stops
/// reading (and `proto` refuses when more than the kernel could have had at hand comes
/// nevertheless).
pub const PIPELINED_BYTES: usize = 32 * 1024;
/// Requests to origins of one shard at a time. Beyond: 503.
pub const FETCHES_MAX: usize = 8 * 1024;
/// Cost of purging what a request outdates or purges, in entries: in one go, and then in each turn.
/// Eight entries that are looked at and stay cost as much as one.
pub const GROUP_CUT_BUDGET: usize = 512;
/// Outdated groups that wait for their turn. Beyond: the oldest is done with at once.
pub const GROUP_CUTS_MAX: usize = 256;
/// Bytes that a rule adds to a cache key, of values of fields and cookies. Beyond: the request is
/// passed on, and nothing is stored.
pub const KEY_ADDED_BYTES_MAX: usize = 4 * 1024;
/// Bytes of an edge's own name. Beyond: refused at start.
pub const URL_BYTES_MAX: usize = 280;
/// Bytes of a site's id. Beyond: the site is not served.
pub const SITE_ID_BYTES_MAX: usize = 255;
/// Attempts kept of one request to have something of an origin. Beyond: the first ones and the
/// last.
pub const EXPLAIN_ATTEMPTS_MAX: usize = 4;
/// Surrogate keys of one request to purge. Beyond: 400.
pub const PURGE_REQUEST_KEYS_MAX: usize = 64;
/// Bytes of interim heads (1xx) that wait for their client. Beyond: later ones are dropped.
pub const INTERIM_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a relayed answer that wait for its client. Beyond: the origin is read no further.
pub const RELAY_PIPE_BYTES: usize = 256 * 1024;
/// Bytes of an answer too large to be stored that its slowest reader has not taken. Beyond: the
/// origin is read no further.
pub const SPILL_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// How often it is looked at whether its readers have taken enough, in ms.
pub const SPILL_LOOK_MS: u64 = 20;
/// Bytes of a request body that wait for the origin. Beyond: the client is read no further.
pub const REQUEST_PIPE_BYTES: usize = 128 * 1024;
/// The same while all that requests hold is over `limits.request_memory`.
pub const REQUEST_PIPE_BYTES_MIN: usize = 16 * 1024;
/// Bytes that requests which are not through hold, of all shards together, unless
/// `limits.request_memory` says otherwise. Beyond: heads that do not come whole are answered 503,
/// nothing further is read behind a request under way, bodies have [`REQUEST_PIPE_BYTES_MIN`] each.
pub const REQUEST_MEMORY: u64 = 256 * 1024 * 1024;
/// Pieces of a body up to this length are copied behind the head; longer ones are lent (measured:
/// copying 8 KiB costs 200 ns more than lending it).
pub const COPIED_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a host name; DNS allows 253. Beyond: nobody's.
pub const HOST_BYTES_MAX: usize = 255;
/// Sockets of a shard that visitors cannot have: for the operator and for origins. Beyond the rest:
/// a visitor's new connection is reset.
pub const SOCKETS_RESERVED: u32 = 256;
/// How often part of the near table is swept, in ms; all of it when much is dead.
pub const SWEEP_PERIOD_MS: u64 = 250;
/// Buckets of the near table swept in one turn.
pub const SWEEP_BUCKETS: usize = 512;
/// Entries of one shard's near table. Beyond: the one not used for longest goes; it stays in the
/// index.
pub const NEAR_ENTRIES: usize = 16 * 1024;

/// Fetches of one shard for pages at versions that no feed has announced to it: each may have to
/// wait at control for what never comes. Beyond: 503 with `Retry-After`.
pub const UNANNOUNCED_FETCHES_MAX: usize = 16;

// -- encodings of stored bodies --

/// Encodings of one shard under way. Beyond: the body is sent as it is, and a later request orders
/// the encoding again.
pub const ENCODINGS_MAX: usize = 32;
/// Bytes to be encoded of those under way. Beyond: as above.
pub const ENCODING_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Largest `compression.max`. Beyond: refused at start.
pub const ENCODED_BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

// -- the access log --

/// Bytes of lines that a shard gathers before it hands them over.
pub const ACCESS_BATCH_BYTES: usize = 16 * 1024;
/// How long lines are gathered at most.
pub const ACCESS_GATHER_MS: u64 = 200;
/// Batches of all shards that wait for the thread that writes. Beyond: a batch is dropped, and
/// counted.
pub const ACCESS_BATCHES_MAX: usize = 512;
/// Bytes of path and query in one line. Beyond: cut off.
pub const ACCESS_PATH_BYTES_MAX: usize = 2048;
/// How long the thread that writes sleeps when there is nothing to write.
pub const ACCESS_WRITE_MS: u64 = 100;
/// How long the end of the process waits for the last lines. Beyond: they are lost.
pub const ACCESS_CLOSE_MS: u64 = 1_000;

// -- live streams --

/// Sends of one fan-out batch while requests wait; the rest follows in the next turn.
pub const FANOUT_SENDS_BUSY: u32 = 32;
/// Sends of one fan-out batch when no request waits; the rest follows in the next turn.
pub const FANOUT_SENDS_MAX: u32 = 1024;
/// Sends of one batch that a topic gets at least when it is its turn; topics that the batch has no
/// room for are first in the next.
pub const FANOUT_SENDS_A_TOPIC_MIN: u32 = 32;
/// Bytes of one fan-out frame: several pending events of a topic leave as one send up to this size
/// (a single larger event goes alone).
pub const FANOUT_FRAME_BYTES_MAX: usize = 16 * 1024;
/// Bytes given to one catching-up stream in one send. The rest follows when they have left.
pub const CATCH_UP_BYTES_MAX: usize = 128 * 1024;
/// Bytes of one event's data. Beyond: the event is not delivered, its topic's streams are told a
/// gap.
pub const EVENT_DATA_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a topic's name. Beyond: no such topic.
pub const TOPIC_NAME_BYTES_MAX: usize = 200;
/// Words of control that it has nothing of what a stream's cursor names beyond us. At that many,
/// the cursor is taken back and the stream told a gap; until then it may be that the feed is late.
pub const WORDS_AHEAD_MAX: u8 = 3;
/// How far apart such words are to count, in ms: less than two beats of the feed.
pub const WORDS_APART_MS: u64 = 4_000;
/// Topics of one shard. Beyond: one without streams is forgotten (its next resume is told a gap);
/// if all have streams, the new one is refused.
pub const TOPICS_MAX: usize = 131_072;
/// Events kept of one topic. Beyond: the oldest is let go.
pub const HISTORY_COUNT_MAX: usize = 256;
/// Bytes kept of one topic. Beyond: the oldest event is let go.
pub const HISTORY_BYTES_MAX: usize = 512 * 1024;
/// So many times these a topic may hold because streams that take all they are sent have not been
/// sent it yet; while one does, the feed is not read. Beyond, the oldest go all the same.
pub const HISTORY_UNSENT_FACTOR: usize = 8;
/// How often shard 0 looks whether the feed can be read again.
pub const FEED_BEHIND_LOOK_MS: u64 = 5;
/// Age at which an event is let go.
pub const HISTORY_AGE_MS_MAX: u64 = 15 * 60 * 1000;
/// Events kept by one shard for all topics. Beyond: the oldest of all is let go.
pub const HISTORY_COUNT_ALL_MAX: usize = 65_536;
/// Bytes kept by one shard for all topics. Beyond: the oldest of all is let go.
pub const HISTORY_BYTES_ALL_MAX: usize = 32 * 1024 * 1024;
/// Event keys whose newest event is kept of one topic. Beyond: not kept, and a stream that begins
/// with a snapshot is told a gap first.
pub const LAST_VALUES_MAX: usize = 1_024;
/// Bytes kept of one topic's newest events of each key. Beyond: as above.
pub const LAST_VALUES_BYTES_MAX: usize = 128 * 1024;
/// Bytes kept of all topics' newest events of each key, a shard. Beyond: as above.
pub const LAST_VALUES_BYTES_ALL_MAX: usize = 32 * 1024 * 1024;
/// Topics of one stream. Beyond: 400.
pub const TOPICS_A_STREAM_MAX: usize = 16;
/// Bytes of a token for private topics. Beyond: 401.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Audiences of one shard: topics listened to together under the same rules. Beyond: one that
/// nobody listens in is forgotten; if all have streams, the new stream is refused.
pub const AUDIENCES_MAX: usize = 131_072;
/// Events let go in one turn for their age or for all topics' sake. The rest follows in the next.
pub const EXPIRE_A_TURN_MAX: usize = 4096;
/// Streams of one shard whose socket is full. Beyond: the next one that blocks is closed, and
/// resumes by its cursor.
pub const BLOCKED_STREAMS_MAX: usize = 65_536;
/// Time a stream's socket may stay full. Beyond: it is closed, and resumes by its cursor.
pub const BLOCKED_MS_MAX: u64 = 60_000;
/// Longest silence on a stream, then comes an `event: beat`; unless `timeouts.beat_ms` says
/// otherwise.
pub const BEAT_MS: u64 = 55_000;
/// `retry:` of a stream, in the middle; each gets half to one and a half times this.
pub const RETRY_MS: u64 = 2_000;
/// Longest wait that a refused stream is told beside that, however many wait before it. Beyond: it
/// comes sooner than there is room, and is refused anew.
pub const RETRY_MS_MAX: u64 = 60_000;
/// Time over which streams are moved that another edge is preferred for since the placement circle
/// has changed, unless `streams.move_over_ms` says otherwise.
pub const MOVE_OVER_MS: u64 = 60_000;
/// Slots of the streams' table that a drain looks at in one turn. The rest follows in the next.
pub const MOVE_VISITS_MAX: u32 = 16 * 1024;

// -- what is kept on disk --

/// Bytes of the kept configuration. Beyond: it is not restored, the edge waits for control.
pub const LAST_KNOWN_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of the kept cursor.
pub const LAST_KNOWN_CURSOR_BYTES_MAX: usize = 8 * 1024;
/// Bytes of one of the 256 files of pages. Beyond: documents are left out before pages, and among
/// equals what was kept longest.
pub const LAST_KNOWN_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one response of a page. Beyond: not kept.
pub const LAST_KNOWN_PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Changes of pages that wait for the disk. Beyond: dropped; the next fetch brings them again.
pub const LAST_KNOWN_CHANGES_MAX: usize = 4096;
/// How long changes are gathered before they are written.
pub const LAST_KNOWN_WRITE_MS: u64 = 1_000;
/// How long after a failed write the next one is tried.
pub const LAST_KNOWN_RETRY_MS: u64 = 10_000;

// -- the feed --

/// Purges that not every shard has passed. Beyond: the feed is not read until half are done.
pub const FEED_PURGES_MAX: usize = 256;
/// Records held behind purges. Beyond: the feed is not read until half are released.
pub const FEED_HELD_MAX: usize = 4096;
/// Cost of purging in one turn, in entries; eight segments of the index cost as much as one. The
/// rest follows in the next turn, behind what has come meanwhile. Of 5,000 hits a second beside it
/// (`bench compare purge`), half took 110 ms with 4,096; 99 % took 2.2 times what they took before
/// with 128, and 1.4 times with 64, for a receipt that comes 70 ms later.
pub const FEED_CUT_BUDGET: usize = 64;
/// Bytes of a snapshot's records. Beyond: the session is lost, and the log says so.
pub const FEED_SNAPSHOT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Silence after which control counts as gone; it beats every 5 s.
pub const FEED_SILENCE_MS_MAX: u64 = 15_000;
/// First back-off after a lost session, in the middle of its jitter.
pub const FEED_BACK_OFF_MS_MIN: u64 = 100;
/// Longest back-off.
pub const FEED_BACK_OFF_MS_MAX: u64 = 5_000;
/// Back-off after control refused the API key.
pub const FEED_UNAUTHORIZED_RETRY_MS: u64 = 30_000;
/// Time for looking control's name up. Beyond: tried again after a back-off.
pub const FEED_RESOLVE_MS_MAX: u64 = 10_000;
/// Time for connecting to one address. Beyond: the next one.
pub const FEED_CONNECT_MS_MAX: u64 = 5_000;
/// How often other shards learn of the feed's state, at most.
pub const FEED_STATE_MS: u64 = 250;
/// Between two reports behind purges, at least.
pub const REPORT_URGENT_MS: u64 = 20;
/// Between two reports of other changes, at least.
pub const REPORT_CHANGED_MS: u64 = 250;
/// Between two reports, at most.
pub const REPORT_EVERY_MS: u64 = 5_000;
/// Between two counts of who listens to customers' topics.
pub const TALLY_EVERY_MS: u64 = 5_000;
/// Topics whose listeners are reported. Beyond: those most listened to.
pub const REPORT_TOPICS_MAX: usize = 500;
/// Time for one report. Beyond: a new connection.
pub const REPORT_MS_MAX: u64 = 5_000;

// -- relaying the feed to other edges --

/// Edges that follow one edge, unless `relay.children_max` says otherwise. Beyond: refused by 503,
/// and they go on to the next one that they know, control at last.
pub const RELAY_CHILDREN_MAX: u32 = 64;
/// Largest `relay.children_max`. Beyond: refused at start.
pub const RELAY_CHILDREN_MOST: u32 = 4_096;
/// Edges that an edge may name to follow before control. Beyond: refused at start.
pub const RELAY_PARENTS_MAX: usize = 8;
/// Edges between control and an edge, at most. Beyond: not followed, as a loop is not.
pub const RELAY_HOPS_MAX: usize = 8;
/// Bytes of records that are kept for edges that follow. Beyond: the oldest are let go, and who is
/// behind them is cut, and finds what it lacks elsewhere.
pub const RELAY_LOG_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Records that are kept for edges that follow. Beyond: as above.
pub const RELAY_LOG_RECORDS_MAX: usize = 65_536;
/// Bytes of older events that are kept for edges that start. Beyond: those that start go elsewhere.
pub const RELAY_PAST_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes given to an edge that follows in one send. The rest follows when they have left.
pub const RELAY_SEND_BYTES_MAX: usize = 128 * 1024;
/// Bytes of one part of a snapshot.
pub const RELAY_PART_BYTES: usize = 128 * 1024;
/// Time in which an edge that follows must take a send. Beyond: it is cut.
pub const RELAY_STALL_MS_MAX: u64 = 20_000;
/// How long an edge that is ahead is kept until this one has come as far. Beyond: it is cut, and
/// goes elsewhere.
pub const RELAY_AHEAD_MS_MAX: u64 = 5_000;
/// Time in which an edge that relays must answer. Beyond: the next one is tried.
pub const RELAY_ANSWER_MS_MAX: u64 = 3_000;
/// How often an edge that follows none of the first looks whether it can again, in the middle of
/// its jitter.
pub const RELAY_LOOK_EVERY_MS: u64 = 10_000;

// -- only the topics that are listened to --

/// Topics that an edge may ask the edge that it follows for, at a time. Beyond: it asks for
/// everything, as an edge does that follows control.
pub const SUBSCRIBED_TOPICS_MAX: usize = 4_096;
/// How long it asks for everything then, at least.
pub const SUBSCRIBE_ALL_MS: u64 = 60_000;
/// Topics that are asked for a second, once a feed has begun. Beyond: they wait for their turn.
pub const SUBSCRIBES_PER_S_MAX: u32 = 500;
/// How long a topic that nobody listens to any more is still asked for.
pub const TOPIC_HELD_MS: u64 = 30_000;
/// Topics of one shard that nobody listens to and that are still asked for. Beyond: those that
/// have been so for longest are not.
pub const TOPICS_HELD_MAX: usize = 1_024;
/// Between two looks at which of them are.
pub const TOPICS_HELD_LOOK_MS: u64 = 1_000;
/// How long a stream waits for its topics to begin. Beyond: it is closed, and comes back.
pub const TOPIC_WAIT_MS_MAX: u64 = 5_000;
/// Bytes of the events that a topic begins with. Beyond: the newest, and the newest of each event
/// key.
pub const TOPIC_EVENTS_BYTES_MAX: usize = proto::limits::RECORD_BYTES_MAX / 4 * 3;
/// How far the cursor of an edge may be behind while nothing that it wants comes, at most.
pub const PASSED_EVERY_MS: u64 = 1_000;
/// Topics whose lost events a parent remembers one by one. Beyond: all together.
pub const PAST_TOPICS_MAX: usize = 65_536;
