//! Counters and gauges: one row of relaxed atomics a shard, written by that shard only, read by
//! whoever answers `/metrics`.
//!
//! A single writer needs no locked instruction: adding is a load and a store of a line that no
//! other core writes. Names and labels are fixed here; nothing that a peer chooses becomes a label.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::seam::ShardId;

/// Declares the metrics: variant, exposed name, labels, kind, help.
macro_rules! metrics {
    ($($variant:ident $name:literal $labels:literal $kind:ident $help:literal,)+) => {
        /// What is counted.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Metric {
            $(#[doc = $help] $variant,)+
        }

        const METRICS: &[Exposed] = &[
            $(Exposed { name: $name, labels: $labels, kind: Kind::$kind, help: $help },)+
        ];
    };
}

struct Exposed {
    name: &'static str,
    labels: &'static str,
    kind: Kind,
    help: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    /// A gauge that is the largest of all shards', not their sum.
    Largest,
}

metrics! {
    Accepted "pharos_connections_accepted_total" "" Counter "Connections from visitors.",
    Sockets "pharos_sockets" "" Gauge "Open sockets, of all kinds.",
    TurnLongest "pharos_turn_longest_us" "" Largest
        "Longest time since the start from one turn of a shard to a next that it had to take at once.",
    HttpConns "pharos_http_connections" "" Gauge "Connections that speak HTTP.",
    PeerRefused "pharos_connections_refused_total" "reason=\"peer_limit\"" Counter
        "Connections reset at once.",
    TableRefused "pharos_connections_refused_total" "reason=\"table_full\"" Counter
        "Connections reset at once.",
    Requests "pharos_requests_total" "" Counter "Requests answered.",
    Answer1xx "pharos_responses_total" "class=\"1xx\"" Counter "Answers by class of status.",
    Answer2xx "pharos_responses_total" "class=\"2xx\"" Counter "Answers by class of status.",
    Answer3xx "pharos_responses_total" "class=\"3xx\"" Counter "Answers by class of status.",
    Answer4xx "pharos_responses_total" "class=\"4xx\"" Counter "Answers by class of status.",
    Answer5xx "pharos_responses_total" "class=\"5xx\"" Counter "Answers by class of status.",
    Hit "pharos_cache_requests_total" "result=\"hit\"" Counter "Requests by cache status.",
    Miss "pharos_cache_requests_total" "result=\"miss\"" Counter "Requests by cache status.",
    Revalidated "pharos_cache_requests_total" "result=\"revalidated\"" Counter
        "Requests by cache status.",
    Stale "pharos_cache_requests_total" "result=\"stale\"" Counter "Requests by cache status.",
    Bypass "pharos_cache_requests_total" "result=\"bypass\"" Counter "Requests by cache status.",
    Pass "pharos_cache_requests_total" "result=\"pass\"" Counter "Requests by cache status.",
    Collapsed "pharos_collapsed_requests_total" "" Counter
        "Requests that followed another's fetch.",
    EncodingsKept "pharos_encodings_total" "result=\"kept\"" Counter
        "Encodings of stored bodies that were ordered.",
    EncodingsUseless "pharos_encodings_total" "result=\"useless\"" Counter
        "Encodings of stored bodies that were ordered.",
    EncodingsDropped "pharos_encodings_total" "result=\"dropped\"" Counter
        "Encodings of stored bodies that were ordered.",
    EncodingsPutOff "pharos_encodings_total" "result=\"put_off\"" Counter
        "Encodings of stored bodies that were ordered.",
    EncodingsActive "pharos_encodings_active" "" Gauge "Encodings that helpers have or wait for.",
    BadRequest "pharos_requests_refused_total" "reason=\"malformed\"" Counter
        "Requests refused before routing.",
    NoMemory "pharos_requests_refused_total" "reason=\"memory\"" Counter
        "Requests refused before routing.",
    SlowClient "pharos_requests_refused_total" "reason=\"slow\"" Counter
        "Requests refused before routing.",
    NotOffered "pharos_requests_refused_total" "reason=\"not_offered\"" Counter
        "Requests refused before routing.",
    UnknownHost "pharos_requests_refused_total" "reason=\"unknown_host\"" Counter
        "Requests refused before routing.",
    Overloaded "pharos_requests_refused_total" "reason=\"overloaded\"" Counter
        "Requests refused before routing.",
    Loop "pharos_requests_refused_total" "reason=\"loop\"" Counter
        "Requests refused before routing.",
    VersionShed "pharos_requests_refused_total" "reason=\"version\"" Counter
        "Requests refused before routing.",
    RequestBytes "pharos_request_bytes" "" Gauge
        "Bytes held of requests that are not through.",
    SentBytes "pharos_sent_bytes_total" "" Counter "Bytes sent to visitors, streams apart.",
    Fetches "pharos_fetches_total" "" Counter "Requests to origins.",
    FetchActive "pharos_fetches_active" "" Gauge "Requests to origins under way.",
    FetchRetries "pharos_fetch_retries_total" "" Counter
        "Requests repeated because a kept connection was dead.",
    FetchConnectFailed "pharos_fetch_failures_total" "reason=\"connect\"" Counter
        "Fetches that failed.",
    FetchTimeout "pharos_fetch_failures_total" "reason=\"timeout\"" Counter "Fetches that failed.",
    FetchBroken "pharos_fetch_failures_total" "reason=\"broken\"" Counter "Fetches that failed.",
    FetchMalformed "pharos_fetch_failures_total" "reason=\"malformed\"" Counter
        "Fetches that failed.",
    PutOff "pharos_fetch_failures_total" "reason=\"put_off\"" Counter "Fetches that failed.",
    VersionTooOld "pharos_fetch_version_retries_total" "" Counter
        "Answers older than `Pharos-Min-Version` asked, fetched again.",
    OriginConnects "pharos_origin_connections_opened_total" "" Counter
        "Connections opened to origins.",
    OriginReused "pharos_origin_connections_reused_total" "" Counter
        "Requests sent on a kept connection.",
    OriginIdle "pharos_origin_connections_idle" "" Gauge "Kept connections to origins.",
    Streams "pharos_streams" "" Gauge "Open live streams.",
    StreamsOpened "pharos_streams_opened_total" "" Counter "Requests that became a stream.",
    StreamsRefused "pharos_streams_refused_total" "" Counter
        "Streams refused by `retry:` and a close: over the limit, or draining.",
    StreamsOverBudget "pharos_streams_over_budget_total" "" Counter
        "Streams refused because more came in a second than streams.opens_per_s.",
    StreamsMigrated "pharos_streams_migrated_total" "" Counter
        "Streams told to go to another edge.",
    StreamsLed "pharos_streams_redirected_total" "" Counter
        "Requests for a stream that were sent to another edge's own name.",
    StreamsCut "pharos_streams_cut_total" "" Counter
        "Streams that were open when the process had to end.",
    StreamsBlocked "pharos_streams_blocked" "" Gauge "Streams whose socket is full.",
    TopicsBehind "pharos_topics_behind" "" Gauge
        "Topics whose streams are not sent their events as fast as they come; the feed waits.",
    StreamsAside "pharos_streams_aside" "" Gauge
        "Streams that are opening, catching up, blocked, or ahead of this edge.",
    StreamsSlowClosed "pharos_streams_slow_closed_total" "" Counter
        "Streams closed because they were blocked too long or as one too many.",
    StreamsSlowFollow "pharos_streams_slow_total" "policy=\"follow\"" Counter
        "Times a stream fell behind, by the policy that it was treated by.",
    StreamsSlowConflate "pharos_streams_slow_total" "policy=\"conflate\"" Counter
        "Times a stream fell behind, by the policy that it was treated by.",
    StreamsSlowSkip "pharos_streams_slow_total" "policy=\"skip\"" Counter
        "Times a stream fell behind, by the policy that it was treated by.",
    StreamsSlowDisconnect "pharos_streams_slow_total" "policy=\"disconnect\"" Counter
        "Times a stream fell behind, by the policy that it was treated by.",
    StreamsExpired "pharos_streams_expired_total" "" Counter
        "Streams ended because their token had expired.",
    StreamsAged "pharos_streams_aged_total" "" Counter
        "Streams ended because they were as old as their route lets them be.",
    StreamTableBytes "pharos_stream_table_bytes" "" Gauge
        "Bytes of the streams' records, those of free slots included.",
    StreamsAsideBytes "pharos_streams_aside_bytes" "" Gauge
        "Bytes of the rows of streams that are not caught up, begun frames not included.",
    LastValuesBytes "pharos_last_values_bytes" "" Gauge
        "Bytes of the newest events of each event key.",
    TokensRefused "pharos_tokens_refused_total" "" Counter
        "Requests for private topics without a token that is good for them.",
    StreamsOpenedWithGap "pharos_streams_opened_with_gap_total" "" Counter
        "Streams told of a gap when they opened.",
    StreamsTakenBack "pharos_streams_taken_back_total" "" Counter
        "Streams told that their cursor names what control does not have.",
    StreamSends "pharos_stream_sends_total" "" Counter "Frames of events given to streams.",
    StreamSendsBlocked "pharos_stream_sends_blocked_total" "" Counter
        "Fanned-out frames that a stream's socket did not take whole.",
    StreamBeats "pharos_stream_beats_total" "" Counter "Heartbeats given to silent streams.",
    StreamsAwaiting "pharos_streams_awaiting" "" Gauge
        "Streams that wait until their topics are told here.",
    StreamsAwaitedInVain "pharos_streams_awaited_in_vain_total" "" Counter
        "Streams closed because their topics were not told here in time.",
    EventsPublished "pharos_events_published_total" "" Counter
        "Events taken into a history, by each shard.",
    EventsSeen "pharos_events_seen_total" "" Counter
        "Events dropped because they had come before, by each shard.",
    Topics "pharos_topics" "" Gauge "Topics held, by each shard.",
    HistoryBytes "pharos_history_bytes" "" Gauge "Bytes of events held for resuming streams.",
    FeedSessions "pharos_feed_sessions_total" "" Counter "Sessions with control that brought news.",
    FeedLost "pharos_feed_sessions_lost_total" "" Counter
        "Sessions with control, and attempts at one, that ended.",
    FeedUnknownKinds "pharos_feed_unknown_records_total" "" Counter
        "Records of control that this version does not know.",
    FeedTooLarge "pharos_feed_too_large_records_total" "" Counter
        "Records of control that were passed over because they were over the limit.",
    FeedPurgesOpen "pharos_feed_purges_open" "" Gauge "Purges that not every shard has passed.",
    FeedHeld "pharos_feed_held" "" Gauge "Records that wait for purges before them.",
    FeedRelayed "pharos_feed_relayed" "" Gauge
        "1 where the feed comes through another edge, 0 from control itself.",
    RelayChildren "pharos_relay_children" "" Gauge "Edges that follow this one.",
    RelayJoined "pharos_relay_joined_total" "" Counter "Edges that were let in to follow this one.",
    RelayRefused "pharos_relay_refused_total" "" Counter
        "Requests of edges to follow this one that were refused.",
    RelayCutStalled "pharos_relay_cut_total" "reason=\"stalled\"" Counter
        "Edges that were sent elsewhere.",
    RelayCutLagging "pharos_relay_cut_total" "reason=\"lagging\"" Counter
        "Edges that were sent elsewhere.",
    RelayCutUnplaced "pharos_relay_cut_total" "reason=\"unplaced\"" Counter
        "Edges that were sent elsewhere.",
    RelayCutGarbled "pharos_relay_cut_total" "reason=\"garbled\"" Counter
        "Edges that were sent elsewhere.",
    RelayCutBroken "pharos_relay_cut_total" "reason=\"broken\"" Counter
        "Edges that were sent elsewhere.",
    RelayCutDraining "pharos_relay_cut_total" "reason=\"draining\"" Counter
        "Edges that were sent elsewhere.",
    RelayLogBytes "pharos_relay_log_bytes" "" Gauge
        "Bytes of records and events held for edges that follow.",
    RelaySentBytes "pharos_relay_sent_bytes_total" "" Counter "Bytes sent to edges that follow.",
    RelayTopics "pharos_relay_topics" "" Gauge
        "Topics that edges that follow have asked this one for.",
    RelayFiltered "pharos_relay_filtered_total" "" Counter
        "Records not sent to an edge that follows, because it has not asked for their topics.",
    RelayBegun "pharos_relay_topics_begun_total" "" Counter
        "Topics that began at an edge that follows.",
    FeedTopics "pharos_feed_topics" "" Gauge "Topics that streams of this edge want to hear of.",
    FeedFiltered "pharos_feed_filtered" "" Gauge
        "1 where only the topics come that this edge has asked for, 0 where all come.",
    FeedAllForRoom "pharos_feed_all_topics" "" Gauge
        "1 while all topics are asked for because streams listen to too many.",
    LastKnownWritten "pharos_last_known_writes_total" "" Counter
        "Files written of what is kept on disk.",
    LastKnownFailed "pharos_last_known_failures_total" "" Counter
        "Reads and writes of what is kept on disk that failed.",
    LastKnownIgnored "pharos_last_known_ignored_total" "" Counter
        "Files of what is kept on disk that were damaged.",
    LastKnownPagesRestored "pharos_last_known_pages_restored_total" "" Counter
        "Pages put back into the cache at start.",
    LastKnownPagesDropped "pharos_last_known_pages_dropped_total" "" Counter
        "Changes of pages that found no room to wait for the disk.",
    AccessLines "pharos_access_log_lines_total" "" Counter
        "Lines handed to the thread that writes the access log.",
    AccessDropped "pharos_access_log_dropped_total" "" Counter
        "Lines dropped because that thread was behind.",
    PurgeOrdered "pharos_purge_requests_total" "result=\"ordered\"" Counter
        "Requests with the method PURGE, for sites that have a key for it.",
    PurgeRefused "pharos_purge_requests_total" "result=\"refused\"" Counter
        "Requests with the method PURGE, for sites that have a key for it.",
    ExplainStories "pharos_explain_stories_total" "" Counter
        "Records of requests that were not answered at once.",
    Draining "pharos_draining" "" Gauge "1 on each shard that drains.",
    DrainStreams "pharos_drain_streams" "" Gauge
        "Streams that were open when the drain under way began to move them.",
    DrainMoved "pharos_drain_streams_moved" "" Gauge
        "Of these, those that were told to go to another edge.",
}

/// One shard's row. Its own lines: no core writes another's.
#[repr(align(128))]
struct Row([AtomicU64; METRICS.len()]);

/// All rows of a process.
pub struct Board {
    rows: Box<[Row]>,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("rows", &self.rows.len()).finish()
    }
}

impl Board {
    /// A row for each of `shard_count` shards.
    pub fn new(shard_count: u16) -> Arc<Self> {
        let row = |_| Row(std::array::from_fn(|_| AtomicU64::new(0)));
        Arc::new(Self { rows: (0..shard_count).map(row).collect() })
    }

    /// Sum over all shards.
    pub fn sum(&self, metric: Metric) -> u64 {
        self.rows.iter().map(|row| row.0[metric as usize].load(Ordering::Relaxed)).sum()
    }

    /// All metrics in Prometheus' text format.
    pub fn write_prometheus(&self, text: &mut String) {
        let mut last = "";
        for (at, exposed) in METRICS.iter().enumerate() {
            let values = self.rows.iter().map(|row| row.0[at].load(Ordering::Relaxed));
            let value: u64 = match exposed.kind {
                Kind::Largest => values.max().unwrap_or(0),
                Kind::Counter | Kind::Gauge => values.sum(),
            };
            if exposed.name != last {
                let kind = if exposed.kind == Kind::Counter { "counter" } else { "gauge" };
                write_header(text, exposed.name, exposed.help, kind);
                last = exposed.name;
            }
            write_value(text, exposed.name, exposed.labels, value);
        }
    }
}

/// One metric that is not on the board, with its header.
pub fn write_metric(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    write_header(text, name, help, kind);
    write_value(text, name, "", value);
}

fn write_header(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn write_value(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = match labels {
        "" => writeln!(text, "{name} {value}"),
        labels => writeln!(text, "{name}{{{labels}}} {value}"),
    };
}

/// A shard's hand on its own row.
#[derive(Clone)]
pub struct Observe {
    board: Arc<Board>,
    shard: usize,
}

impl Observe {
    /// For shard `shard` of the board.
    pub fn new(board: Arc<Board>, shard: ShardId) -> Self {
        Self { board, shard: shard.into() }
    }

    /// All shards' rows.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Adds one.
    pub fn count(&self, metric: Metric) {
        self.add(metric, 1);
    }

    /// Adds `value`.
    pub fn add(&self, metric: Metric, value: u64) {
        let cell = self.cell(metric);
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, metric: Metric, value: u64) {
        self.cell(metric).store(value, Ordering::Relaxed);
    }

    /// Sets a gauge to `value` if that is more.
    pub fn raise(&self, metric: Metric, value: u64) {
        let cell = self.cell(metric);
        if value > cell.load(Ordering::Relaxed) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Counts an answer by its status.
    pub fn answered(&self, status: u16) {
        self.count(match status {
            ..200 => Metric::Answer1xx,
            200..300 => Metric::Answer2xx,
            300..400 => Metric::Answer3xx,
            400..500 => Metric::Answer4xx,
            _ => Metric::Answer5xx,
        });
    }

    fn cell(&self, metric: Metric) -> &AtomicU64 {
        &self.board.rows[self.shard].0[metric as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_sums_over_shards_and_each_name_is_described_once() {
        let board = Board::new(2);
        for shard in 0..2 {
            let observe = Observe::new(Arc::clone(&board), shard);
            observe.add(Metric::Hit, 3);
            observe.answered(204);
            observe.set(Metric::Sockets, 5);
            observe.raise(Metric::TurnLongest, 7 + u64::from(shard));
            observe.raise(Metric::TurnLongest, 3);
        }
        assert_eq!(board.sum(Metric::Hit), 6);
        let mut text = String::new();
        board.write_prometheus(&mut text);
        assert!(text.contains("pharos_cache_requests_total{result=\"hit\"} 6\n"), "{text}");
        assert!(text.contains("pharos_responses_total{class=\"2xx\"} 2\n"));
        assert!(text.contains("pharos_sockets 10\n"));
        assert!(text.contains("pharos_turn_longest_us 8\n"));
        for exposed in METRICS {
            let header = format!("# TYPE {} ", exposed.name);
            assert_eq!(text.matches(&header).count(), 1, "{header}");
            assert!(exposed.name.starts_with("pharos_"));
        }
    }
}
