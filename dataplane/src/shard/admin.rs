//! What the admin listener answers: health, readiness, metrics, status, drain.
//!
//! Ready means: configuration loaded, listening, not draining. It does not mean that control is
//! reachable, because an edge serves without control; `/v1/status` tells of that.
//!
//! It asks for no key, and listens on loopback unless told otherwise; what changes something is
//! refused to web pages.
//!
//! Leaves to others: counting (`observe`), carrying a drain out (`drain`).

use std::rc::Rc;

use proto::http1::{
    head::{Method, RequestHead},
    server::Request,
};
use serde_json::json;

use super::{
    Edge,
    answer::{Answer, State},
    conn::Exchange,
    drain::Order,
    explain::{self, Found},
    mail::Mail,
    observe::{Metric, write_metric},
    request::AskedRef,
    respond::{Own, Writer, usable_request_id},
    slab::Ref,
};
use crate::seam::Now;

/// Whether a request that changes something may come from a page in somebody's browser: a browser
/// says where the page is from, and a page that had its own name point here (DNS rebinding) sends
/// that name as the host. Operators' tools use an address, or `localhost`.
fn may_be_a_web_page(head: &RequestHead<'_>) -> bool {
    let host = head.authority.host.trim_start_matches('[').trim_end_matches(']');
    let is_address = host.parse::<std::net::IpAddr>().is_ok() || host == "localhost";
    !is_address
        || head.fields.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("origin") || name.eq_ignore_ascii_case("sec-fetch-site")
        })
}

impl Edge {
    /// Answers a request of the admin listener.
    pub fn admin(
        &mut self,
        now: Now,
        at: Ref,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        writer: &mut Writer,
    ) -> Exchange {
        let head = &request.head;
        // It tells what visitors ask for: no page in a browser shall read that.
        if let Some(id) = head.target.path().strip_prefix("/v1/explain/")
            && matches!(head.method, Method::Get | Method::Head)
            && usable_request_id(id.as_bytes())
            && !may_be_a_web_page(head)
        {
            return self.ask_shards(at, id, asked);
        }
        let reads = matches!(head.method, Method::Get | Method::Head);
        let changes = matches!(head.method, Method::Post | Method::Delete);
        let mut text = String::new();
        let own = match (head.target.path(), head.method) {
            ("/livez", _) if reads => Own::text(200, "alive\n"),
            ("/readyz", _) if reads => match self.unready_reason() {
                None => Own::text(200, "ready\n"),
                Some(reason) => Own::text(503, reason),
            },
            ("/metrics", _) if reads => {
                self.write_metrics(&mut text);
                let content_type = "text/plain; version=0.0.4; charset=utf-8";
                Own { content_type, ..Own::text(200, &text) }
            }
            ("/v1/status", _) if reads => {
                text = self.status().to_string() + "\n";
                Own { content_type: "application/json", ..Own::text(200, &text) }
            }
            ("/v1/drain", Method::Get | Method::Head) => {
                text = self.drain_report(now).to_string() + "\n";
                Own { content_type: "application/json", ..Own::text(200, &text) }
            }
            ("/livez" | "/readyz" | "/metrics" | "/v1/status", _) => {
                Own { fields: "Allow: GET, HEAD\r\n", ..Own::text(405, "Only GET and HEAD.") }
            }
            (path, _)
                if (changes || path.starts_with("/v1/explain/")) && may_be_a_web_page(head) =>
            {
                Own::text(403, "A web page asks, or the host is a name: use the address.\n")
            }
            ("/v1/drain", Method::Post | Method::Delete) => {
                let on = head.method == Method::Post;
                let order = if on { Order::Drain { then_stop: false } } else { Order::Undo };
                self.out.mail(0, Mail::DrainAsked(order));
                text = json!({ "draining": on }).to_string() + "\n";
                Own { content_type: "application/json", ..Own::text(202, &text) }
            }
            (path, _) if reads && path.starts_with("/v1/explain") => {
                Own::text(404, "No such id: /v1/explain/<X-Request-Id>, 1 to 64 characters.")
            }
            ("/v1/drain", _) => Own {
                fields: "Allow: GET, HEAD, POST, DELETE\r\n",
                ..Own::text(405, "GET tells, POST drains, DELETE undoes.")
            },
            _ => {
                let text = "There are /livez, /readyz, /metrics, /v1/status, /v1/drain and \
                            /v1/explain/<id>.";
                Own::text(404, text)
            }
        };
        self.own(now, &own, asked, writer)
    }

    /// Asks every shard what it knows of a request.
    fn ask_shards(&mut self, at: Ref, id: &str, asked: AskedRef<'_>) -> Exchange {
        let (from, id) = (self.settings.shard, explain::number_of(id.as_bytes()));
        self.out.mail_all(|| Mail::Explain { from, at, id });
        let state = State::Explain { left: self.settings.shard_count, newest: None };
        let (asked, kept) = (asked.keep(), Rc::from([]));
        Exchange::Answer(Box::new(Answer { asked, kept, waits: 0, state }))
    }

    /// Tells the operator what was found.
    pub(super) fn tell_explained(
        &mut self,
        now: Now,
        found: Option<&Found>,
        asked: AskedRef<'_>,
        writer: &mut Writer,
    ) -> Exchange {
        let text = found.map(|found| format!("{}\n", found.text));
        let own = match &text {
            Some(text) => Own { content_type: "application/json", ..Own::text(200, text) },
            None => Own::text(
                404,
                "Nothing is kept of a request with this id: it was answered by another edge, or \
                 too many came after it (explain.memory).",
            ),
        };
        self.own(now, &own, asked, writer)
    }

    fn unready_reason(&self) -> Option<&'static str> {
        if self.drain.is_some() {
            return Some("Draining.");
        }
        (!self.routes.loaded()).then_some("No configuration yet: waiting for control.")
    }

    fn status(&self) -> serde_json::Value {
        let board = self.observe.board();
        let cache = self.cache.stats();
        let (sites, pages) = self.routes.counts();
        let state = &self.feed_state;
        json!({
            "id": &*self.settings.edge_id,
            "pop": &*self.settings.pop,
            "version": env!("CARGO_PKG_VERSION"),
            "engine": &*self.settings.engine,
            "shards": self.settings.shard_count,
            "cursor": (!state.cursor.is_empty()).then_some(&state.cursor),
            "watermark": self.watermark,
            "feed": {
                "connected": state.connected,
                "lag_ms": state.lag_ms,
                "control": self.settings.control.is_some(),
                "from": state.from.as_deref(),
                "path": state.path,
                "children": &*state.children,
            },
            "streams": board.sum(Metric::Streams),
            "topics": &*state.topics,
            "sites": sites,
            "pages": pages,
            "cache": {
                "entries": cache.entries,
                "used_bytes": cache.used_bytes,
                "dead_bytes": cache.dead_bytes,
                "memory_bytes": cache.memory_bytes,
            },
            "draining": self.drain.is_some(),
        })
    }

    fn write_metrics(&self, text: &mut String) {
        self.observe.board().write_prometheus(text);
        let cache = self.cache.stats();
        let state = &self.feed_state;
        let unwritten = self.settings.live.newest().and_then(|live| live.access.clone());
        for (name, kind, help, value) in [
            (
                "pharos_access_log_unwritten_total",
                "counter",
                "Lines of the access log that could not be written, since it was opened.",
                unwritten.map_or(0, |queue| queue.unwritten()),
            ),
            ("pharos_cache_entries", "gauge", "Stored responses.", cache.entries),
            (
                "pharos_cache_used_bytes",
                "gauge",
                "Bytes held, the dead included.",
                cache.used_bytes,
            ),
            (
                "pharos_cache_dead_bytes",
                "gauge",
                "Bytes of purged or evicted responses still held.",
                cache.dead_bytes,
            ),
            ("pharos_cache_memory_bytes", "gauge", "Limit of the bytes held.", cache.memory_bytes),
            ("pharos_cache_stored_total", "counter", "Responses stored.", cache.stored),
            (
                "pharos_cache_updated_total",
                "counter",
                "Stored responses updated by a 304.",
                cache.updated,
            ),
            ("pharos_cache_not_stored_total", "counter", "Responses not stored.", cache.not_stored),
            (
                "pharos_cache_evicted_total",
                "counter",
                "Responses given up for space.",
                cache.evicted,
            ),
            ("pharos_cache_purged_total", "counter", "Responses purged.", cache.purged),
            (
                "pharos_feed_connected",
                "gauge",
                "Whether control's feed is followed.",
                u64::from(state.connected),
            ),
            (
                "pharos_feed_lag_ms",
                "gauge",
                "Age of the newest news from control.",
                state.lag_ms.unwrap_or(0),
            ),
            ("pharos_watermark", "gauge", "Feed position applied by all shards.", self.watermark),
        ] {
            write_metric(text, name, kind, help, value);
        }
    }
}
