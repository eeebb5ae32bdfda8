//! Control's counters and their text form for `GET /metrics`. No label ever comes from a client.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// What control counts since it started.
#[derive(Default, Debug)]
pub struct Counters {
    /// Commits to the store.
    pub commits: AtomicU64,
    /// Operations appended.
    pub operations: AtomicU64,
    /// Commits refused because the disk was full.
    pub disk_full: AtomicU64,
    /// Incarnations drawn while running.
    pub incarnations: AtomicU64,
    /// Edges whose cursor was ahead of this store.
    pub edges_ahead: AtomicU64,
    /// Requests under `/v1`.
    pub requests: AtomicU64,
    /// Requests answered 429 at the in-flight limit.
    pub shed: AtomicU64,
    /// Answers replayed by their `Idempotency-Key`.
    pub replayed: AtomicU64,
    /// Events published to topics.
    pub events: AtomicU64,
    /// Requests to publish that were answered 429 or 503.
    pub publish_refused: AtomicU64,
    /// Events of topics that are kept, about: counted anew by retention.
    pub events_kept: AtomicU64,
    /// Topics that customers publish to, as retention last counted them.
    pub topics: AtomicU64,
    /// Feeds open now.
    pub feeds: AtomicU64,
    /// Connections closed to make room for others.
    pub connections_ended: AtomicU64,
    /// Snapshots sent.
    pub snapshots: AtomicU64,
    /// Records sent on feeds.
    pub records: AtomicU64,
}

impl Counters {
    /// Prometheus text.
    pub fn render(&self, position: u64) -> String {
        let mut text = String::new();
        let counters = [
            ("commits_total", "Commits to the store.", &self.commits),
            ("operations_total", "Operations appended to the log.", &self.operations),
            ("disk_full_total", "Commits refused because the disk was full.", &self.disk_full),
            ("incarnations_total", "Incarnations drawn while running.", &self.incarnations),
            ("edges_ahead_total", "Edges that knew more than this store.", &self.edges_ahead),
            ("requests_total", "API requests.", &self.requests),
            ("requests_shed_total", "API requests over the in-flight limit.", &self.shed),
            ("replays_total", "Answers replayed by Idempotency-Key.", &self.replayed),
            ("events_total", "Events published to topics.", &self.events),
            ("publish_refused_total", "Publishers told to come later.", &self.publish_refused),
            (
                "connections_ended_total",
                "Connections without a request, closed for others.",
                &self.connections_ended,
            ),
            ("snapshots_total", "Feed snapshots sent.", &self.snapshots),
            ("feed_records_total", "Records sent on feeds.", &self.records),
        ];
        for (name, help, value) in counters {
            metric(&mut text, name, help, "counter", value.load(Relaxed));
        }
        let kept = self.events_kept.load(Relaxed);
        metric(&mut text, "events_kept", "Events of topics that are kept.", "gauge", kept);
        metric(&mut text, "topics", "Topics of customers.", "gauge", self.topics.load(Relaxed));
        metric(&mut text, "feeds", "Feeds open.", "gauge", self.feeds.load(Relaxed));
        metric(&mut text, "log_position", "Position of the last operation.", "gauge", position);
        text
    }
}

fn metric(text: &mut String, name: &str, help: &str, kind: &str, value: u64) {
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "# HELP pharos_control_{name} {help}\n# TYPE pharos_control_{name} {kind}\n\
         pharos_control_{name} {value}\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_help_type_and_value() {
        let text = Counters::default().render(7);
        assert_eq!(text.lines().count(), 17 * 3);
        assert!(text.contains("pharos_control_log_position 7\n"));
    }
}
