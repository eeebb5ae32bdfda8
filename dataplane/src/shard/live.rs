//! What may change while an edge runs: handed over whole by whoever has read `edge.toml` again, and
//! taken by each shard when it is told to reload.
//!
//! ```text
//!   file ─▶ checked ─▶ LiveSlot ─▶ Control::Reload ─▶ each shard takes the newest
//! ```
//! Leaves to others: reading and checking (`config`), which keys need a restart
//! (`crate::reload`).

use std::sync::{Arc, Mutex, PoisonError};

use proto::feed::site::{Placement, Site};

use super::{Edge, Shard, access::AccessQueue, explain::Shown, mail::ConfigChange, opening::Rates};
use crate::{
    config::{Limits, Timeouts},
    seam::Now,
};

/// The settings of one shard that may change. The same for each.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// What is waited for, and how long; from the next wait on.
    pub timeouts: Timeouts,
    /// What one peer may have.
    pub limits: Limits,
    /// Most streams on this shard. Those above it stay open.
    pub streams_max: u32,
    /// How many may open or be moved a second, for the whole process.
    pub rates: Rates,
    /// Which edge streams of pages are on.
    pub pages: Placement,
    /// Sites from `edge.toml`; only without control.
    pub sites: Arc<[Site]>,
    /// `Authorization` toward control, if there is one.
    pub authorization: Option<Arc<str>>,
    /// To whom answers are explained in a field.
    pub shown: Shown,
    /// Where requests are logged, if they are.
    pub access: Option<Arc<AccessQueue>>,
}

/// Where the newest [`Live`] lies. Locked for the length of a pointer's copy, at start and reload.
#[derive(Debug, Default)]
pub struct LiveSlot(Mutex<Option<Arc<Live>>>);

impl LiveSlot {
    /// Replaces what lies there.
    pub fn put(&self, live: Live) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(live));
    }

    /// The newest; `None` where nothing was ever put, which leaves everything as it is.
    pub fn newest(&self) -> Option<Arc<Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Edge {
    /// Takes what is new of everything that concerns connections.
    pub(super) fn take_live(&mut self, live: &Live) {
        self.timeouts = live.timeouts;
        self.origins.set_idle_ms(live.timeouts.origin_idle_ms);
        self.sockets.set_peer_max(live.limits.connections_per_peer);
        let shards = u64::from(self.settings.shard_count.max(1));
        self.held.set_max(live.limits.request_memory / shards);
        self.streams.set_max(live.streams_max);
        self.streams.set_beat_ms(live.timeouts.beat_ms);
        self.rates = live.rates;
        self.place_pages(live.pages);
        self.streams.set_rates(live.rates, self.settings.shard_count);
        self.set_access(live.access.clone());
        self.explain.set_shown(&live.shown);
    }
}

impl Shard {
    /// Takes the newest settings. Connections, streams and what is cached are not touched.
    pub(super) fn reload(&mut self, now: Now) {
        let Some(live) = self.edge.settings.live.newest() else { return };
        self.edge.take_live(&live);
        if self.edge.settings.control.is_none() && self.edge.settings.sites != live.sites {
            self.edge.settings.sites = Arc::clone(&live.sites);
            let sites = live.sites.to_vec();
            self.edge.routes.apply(&ConfigChange::Replace { sites, pages: Vec::new() });
        }
        if let (Some(feed), Some(authorization)) = (&mut self.feed, &live.authorization) {
            feed.set_authorization(now, authorization, &mut self.edge.out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        seam::{Close, Control},
        shard::{
            observe::Metric,
            testing::{World, page, site},
        },
    };

    const GET: &str = "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n";

    fn reload(world: &mut World, change: impl FnOnce(&mut Live)) {
        let mut live = world.live_now();
        change(&mut live);
        world.live.put(live);
        world.control(Control::Reload);
    }

    #[test]
    fn another_limit_of_a_peers_connections_holds_for_the_next_one() {
        let mut world = World::new(1);
        let peer = "192.0.2.1:50000".parse().expect("an address");
        reload(&mut world, |live| live.limits.connections_per_peer = 2);
        let ends: Vec<_> = (0..3).map(|_| world.accept_from(0, peer)).collect();
        let closed: Vec<_> = ends.iter().map(|&end| world.peer(end).close).collect();
        assert_eq!(closed, [None, None, Some(Close::Abort)]);
        assert_eq!(world.metric(Metric::PeerRefused), 1);
        reload(&mut world, |live| live.limits.connections_per_peer = 1);
        assert!(!world.peer(ends[1]).closed, "what is open stays");
        reload(&mut world, |live| live.limits.connections_per_peer = 0);
        for _ in 0..50 {
            let end = world.accept_from(0, peer);
            assert!(!world.peer(end).closed, "no limit");
        }
    }

    #[test]
    fn requests_in_part_have_one_budget_and_whole_ones_never_notice_it() {
        let mut world = World::new(1);
        reload(&mut world, |live| live.limits.request_memory = 20_000);
        let part = format!("GET /x HTTP/1.1\r\nHost: a.example\r\nX: {}", "a".repeat(9_000));
        let ends: Vec<_> = (0..3).map(|_| world.connect(0)).collect();
        for &end in &ends {
            world.say(end, &part);
        }
        assert_eq!(world.take(ends[0]) + &world.take(ends[1]), "");
        let answer = world.take(ends[2]);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After:"), "{answer}");
        assert!(world.peer(ends[2]).closed);
        assert_eq!(world.metric(Metric::NoMemory), 1);
        // A body beside them has a narrow pipe, and goes through.
        let late = world.connect(0);
        let body = "b".repeat(30_000);
        let head = "POST /up HTTP/1.1\r\nHost: a.example\r\nContent-Length: 30000\r\n\r\n";
        world.say(late, &format!("{head}{body}"));
        let upstream = world.upstream();
        let sent = world.take(upstream);
        assert!(sent.ends_with(&body), "{} of {}", sent.len(), body.len());
        world.say(upstream, "HTTP/1.1 204 No Content\r\n\r\n");
        assert!(world.take(late).starts_with("HTTP/1.1 204 "));
        // What they held is given back with them.
        for end in [ends[0], ends[1]] {
            world.say(end, "\r\n\r\n");
        }
        assert_eq!(world.metric(Metric::RequestBytes), 0);
    }

    #[test]
    fn sites_of_the_file_are_replaced_and_what_was_cached_stays() {
        let mut world = World::new(1);
        let client = world.connect(0);
        world.say(client, GET);
        let upstream = world.upstream();
        let fields = "Content-Length: 2\r\nCache-Control: max-age=60";
        world.say(upstream, &format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok"));
        let mut renamed = site();
        renamed.hosts = vec!["b.example".into(), "a.example".into()];
        reload(&mut world, |live| live.sites = [renamed].into());
        world.take(client);
        world.say(client, GET);
        assert!(world.take(client).contains("X-Cache-Status: HIT"));
        reload(&mut world, |live| live.sites = [].into());
        world.say(client, GET);
        assert!(world.take(client).starts_with("HTTP/1.1 421 "));
    }

    #[test]
    fn sites_of_control_are_not_the_files_to_change() {
        let mut world = World::with_control(1);
        reload(&mut world, |live| live.sites = [].into());
        let client = world.connect(0);
        world.say(client, "GET /x HTTP/1.1\r\nHost: nobody\r\n\r\n");
        assert!(world.take(client).starts_with("HTTP/1.1 404 "), "still the shared host");
        world.configure(vec![site()], vec![page()]);
        world.say(client, "GET /demo HTTP/1.1\r\nHost: nobody\r\n\r\n");
        assert!(world.take(client).starts_with("HTTP/1.1 308 "));
    }

    #[test]
    fn a_shorter_wait_holds_from_the_next_one_on() {
        let mut world = World::new(1);
        reload(&mut world, |live| live.timeouts.request_head_ms = 500);
        let client = world.connect(0);
        world.say(client, "GET /x HT");
        world.wait_ms(1_000);
        assert!(world.take(client).starts_with("HTTP/1.1 408 "));
    }
}
