//! The edges that visitors can be led to, as beats tell them to all edges.
//!
//! An edge belongs to them while it has a name of its own, follows the feed, has reported lately
//! and does not drain. Telemetry, not state: nothing of it is in the log, and after a start nothing
//! is told until edges have had the time to come back, or the circle would grow from nothing and
//! every stream would move.
//!
//! Leaves to others: what an edge makes of it (the edge), when it is told (`tail`).

use std::{collections::HashMap, time::Duration};

use proto::feed::record::CircleEdge;

use crate::{app::receipt::is_away, limits, model::edge::Report};

/// Those edges, by name; beyond [`limits::CIRCLE_EDGES_MAX`] the first ones.
pub fn members(
    reports: &HashMap<String, Report>,
    follows: impl Fn(&str) -> bool,
    now_ms: u64,
) -> Vec<CircleEdge> {
    let here = reports.iter().filter(|(edge, report)| {
        !report.position.draining && follows(edge) && !is_away(Some(report), now_ms)
    });
    let named = here.filter_map(|(_, report)| {
        let (url, streams) = (report.position.url.clone()?, report.position.streams);
        (url.len() <= limits::CIRCLE_NAME_BYTES_MAX).then_some(CircleEdge { url, streams })
    });
    let mut edges: Vec<CircleEdge> = named.collect();
    edges.sort_unstable_by(|a, b| (&a.url, a.streams).cmp(&(&b.url, b.streams)));
    edges.dedup_by(|b, a| {
        let same = a.url == b.url;
        a.streams += if same { b.streams } else { 0 };
        same
    });
    edges.truncate(limits::CIRCLE_EDGES_MAX);
    edges
}

/// Whether edges have had the time to come back since the start.
pub fn has_settled(since_start: Duration) -> bool {
    since_start >= Duration::from_millis(limits::CIRCLE_SETTLE_MS)
}

#[cfg(test)]
mod tests {
    use proto::feed::record::Position;

    use super::*;

    fn report(url: Option<&str>, draining: bool, seen_at_ms: u64) -> Report {
        let position = Position {
            cursor: "00000000000000ff.10.eu-00000001:7".parse().expect("valid"),
            version: "0".into(),
            streams: 5,
            hits: 0,
            lookups: 0,
            topics: Vec::new(),
            url: url.map(Into::into),
            draining,
            path: Vec::new(),
            children: Vec::new(),
        };
        Report { position, seen_at_ms }
    }

    #[test]
    fn members_have_a_name_follow_report_and_do_not_drain() {
        let now_ms = 1_000_000;
        let reports: HashMap<String, Report> = [
            ("b", report(Some("http://b"), false, now_ms)),
            ("a", report(Some("http://a"), false, now_ms)),
            ("a2", report(Some("http://a"), false, now_ms)),
            ("unnamed", report(None, false, now_ms)),
            ("drains", report(Some("http://c"), true, now_ms)),
            ("silent", report(Some("http://d"), false, 0)),
            ("gone", report(Some("http://e"), false, now_ms)),
        ]
        .map(|(edge, report)| (edge.to_owned(), report))
        .into();
        let told = members(&reports, |edge| edge != "gone", now_ms);
        let told: Vec<_> = told.iter().map(|edge| (&*edge.url, edge.streams)).collect();
        assert_eq!(told, [("http://a", 10), ("http://b", 5)]);
    }
}
