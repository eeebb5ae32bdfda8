//! What every request shares: the store's handles, the keys, what edges reported, the limits in
//! use.
//!
//! Owns nothing durable: telemetry of edges lives here and is saved now and then, all else is in
//! the store.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use proto::feed::record::{CircleEdge, Position};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    Config,
    app::receipt::{Heard, is_away},
    clock,
    feed::circle,
    limits,
    log::{append::Head, dot::VersionVector},
    model::{api_key::ApiKey, edge::Report},
    observe::Counters,
    store::sqlite::{
        ReadPool, Reader, StoreError,
        identity::{Draw, Reason},
        writer::{Keyring, Writer},
    },
};

/// The store's handles.
#[derive(Clone)]
pub struct Store {
    /// Sends commands to the one writer.
    pub writer: Writer,
    /// For API and public pages.
    pub reads: ReadPool,
    /// For feeds.
    pub feed_reads: ReadPool,
    /// The database file.
    pub database: PathBuf,
}

/// What every request shares.
pub struct App {
    /// What control runs with.
    pub config: Config,
    /// The store.
    pub store: Store,
    /// What control counts.
    pub counters: Arc<Counters>,
    pub(crate) keyring: Keyring,
    pub(crate) bound: OnceLock<SocketAddr>,
    pub(crate) api_permits: Arc<Semaphore>,
    pub(crate) public_permits: Arc<Semaphore>,
    public_queue: Semaphore,
    public_waiting: Semaphore,
    pub(crate) feed_permits: Arc<Semaphore>,
    pub(crate) publish_permits: Arc<Semaphore>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) edges: Mutex<Edges>,
    /// Something of the edges that visitors can be led to may have changed.
    circle_changed: watch::Sender<()>,
    started: tokio::time::Instant,
    pub(crate) renewing: tokio::sync::Mutex<()>,
}

/// Telemetry of edges.
#[derive(Default)]
pub(crate) struct Edges {
    reports: HashMap<String, Report>,
    unsaved: HashMap<String, Report>,
    /// Open feeds of each edge that has opened one since the start.
    feeds: HashMap<String, u32>,
}

impl App {
    pub(crate) fn new(
        config: Config,
        store: Store,
        keyring: Keyring,
        counters: Arc<Counters>,
        reports: HashMap<String, Report>,
    ) -> Self {
        Self {
            config,
            store,
            counters,
            keyring,
            bound: OnceLock::new(),
            api_permits: Arc::new(Semaphore::new(limits::API_IN_FLIGHT_MAX)),
            public_permits: Arc::new(Semaphore::new(limits::PUBLIC_IN_FLIGHT_MAX)),
            public_queue: Semaphore::new(limits::PUBLIC_QUEUE_MAX),
            public_waiting: Semaphore::new(limits::PUBLIC_WAITING_MAX),
            feed_permits: Arc::new(Semaphore::new(limits::FEED_STREAMS_MAX)),
            publish_permits: Arc::new(Semaphore::new(limits::PUBLISH_IN_FLIGHT_MAX)),
            stop: watch::channel(false).0,
            edges: Mutex::new(Edges { reports, ..Edges::default() }),
            circle_changed: watch::channel(()).0,
            started: tokio::time::Instant::now(),
            renewing: tokio::sync::Mutex::new(()),
        }
    }

    /// Reads at one moment: whatever is read beside [`Reader::version`] is what that version says.
    pub async fn read<T, E, F>(&self, read: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnOnce(&Reader<'_>) -> Result<T, E> + Send + 'static,
    {
        self.store.reads.with(read).await
    }

    /// Everything durable here and now.
    pub fn version(&self) -> VersionVector {
        self.store.writer.head().borrow().applied.clone()
    }

    /// Waits until everything in `wanted` is here, at most [`limits::MIN_VERSION_WAIT_MS_MAX`], and
    /// not at all when too many wait. Returns whether it is.
    pub async fn wait_for(&self, wanted: &VersionVector) -> bool {
        let mut head = self.store.writer.head();
        if head.borrow().applied.covers(wanted) {
            return true;
        }
        let Ok(_waiting) = self.public_waiting.try_acquire() else { return false };
        let wait = head.wait_for(|head| head.applied.covers(wanted));
        let limit = Duration::from_millis(limits::MIN_VERSION_WAIT_MS_MAX);
        matches!(tokio::time::timeout(limit, wait).await, Ok(Ok(_)))
    }

    /// A permit to render a public page, in the order of asking; `None` when too many queue, or for
    /// too long.
    pub async fn public_permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.public_permits).try_acquire_owned() {
            return Some(permit);
        }
        let _queued = self.public_queue.try_acquire().ok()?;
        let turn = Arc::clone(&self.public_permits).acquire_owned();
        let limit = Duration::from_millis(limits::PUBLIC_QUEUE_MS_MAX);
        tokio::time::timeout(limit, turn).await.ok()?.ok()
    }

    /// Where edges reach this control.
    pub fn url(&self) -> String {
        self.config.url(self.bound.get().copied().unwrap_or(self.config.listen))
    }

    /// The live API key whose secret has this digest.
    pub fn api_key(&self, digest: &str) -> Option<ApiKey> {
        let keyring = self.keyring.read().unwrap_or_else(PoisonError::into_inner);
        keyring.get(digest).cloned()
    }

    /// Notes what an edge reports.
    pub(crate) fn report(&self, edge: String, report: Report) {
        let mut edges = self.edges();
        edges.unsaved.insert(edge.clone(), report.clone());
        // Who follows through another edge has something stored, whether it was heard of or not.
        for child in &report.position.children {
            edges.feeds.entry(child.clone()).or_default();
        }
        let told = |report: &Report| {
            let Position { url, draining, children, .. } = &report.position;
            (url.clone(), *draining, children.clone())
        };
        let old = edges.reports.get(&edge).map(told);
        let matters = report.position.url.is_some() || !report.position.children.is_empty();
        let had_children = old.as_ref().is_some_and(|(_, _, children)| !children.is_empty());
        let changed = (matters || had_children) && old != Some(told(&report));
        edges.reports.insert(edge, report);
        drop(edges);
        if changed {
            self.circle_changed.send_replace(());
        }
    }

    /// The edges that visitors can be led to; `None` while that cannot be told.
    pub(crate) fn circle(&self) -> Option<Vec<CircleEdge>> {
        if !circle::has_settled(self.started.elapsed()) {
            return None;
        }
        let edges = self.edges();
        let now_ms = clock::wall_ms();
        // Whom another edge has is told by that one, at once when it is gone.
        let here = edges.reports.values().filter(|report| !is_away(Some(report), now_ms));
        let relayed: HashSet<&str> =
            here.flat_map(|report| &report.position.children).map(String::as_str).collect();
        let follows = |edge: &str| {
            relayed.contains(edge) || edges.feeds.get(edge).is_some_and(|count| *count > 0)
        };
        Some(circle::members(&edges.reports, follows, now_ms))
    }

    /// Wakes when they may be others.
    pub(crate) fn circle_changes(&self) -> watch::Receiver<()> {
        self.circle_changed.subscribe()
    }

    /// What edges last reported, by edge id.
    pub(crate) fn reports(&self) -> HashMap<String, Report> {
        self.edges().reports.clone()
    }

    /// What is known of edges for a purge's receipt.
    pub(crate) fn heard(&self) -> Heard {
        let edges = self.edges();
        Heard { reports: edges.reports.clone(), followed: edges.feeds.keys().cloned().collect() }
    }

    /// Streams of a topic on all edges, as they last reported.
    pub(crate) fn streams_of(&self, topic: &str) -> u64 {
        let edges = self.edges();
        let reports = edges.reports.values().flat_map(|report| &report.position.topics);
        reports.filter(|told| told.topic == topic).map(|told| told.streams).sum()
    }

    /// Counts anew what is kept of topics.
    pub(crate) async fn count_events(&self) -> Result<(), StoreError> {
        let (events, topics) = self.read(|reader| reader.count_events()).await?;
        self.counters.events_kept.store(events, Relaxed);
        self.counters.topics.store(topics, Relaxed);
        Ok(())
    }

    /// The edges that have their feed open.
    pub(crate) fn open_feeds(&self) -> Vec<String> {
        let edges = self.edges();
        edges.feeds.iter().filter(|(_, count)| **count > 0).map(|(edge, _)| edge.clone()).collect()
    }

    /// Counts an edge's feed as open until the guard is dropped.
    pub(crate) fn feed_opened(self: &Arc<Self>, edge: Option<String>) -> FeedGuard {
        self.counters.feeds.fetch_add(1, Relaxed);
        if let Some(edge) = &edge {
            *self.edges().feeds.entry(edge.clone()).or_default() += 1;
            self.circle_changed.send_replace(());
        }
        FeedGuard { app: Arc::clone(self), edge }
    }

    /// Keeps what edges reported over a restart. Telemetry: a failure loses nothing that is not
    /// said again.
    pub(crate) async fn save_reports(&self) {
        let unsaved: Vec<_> = self.edges().unsaved.drain().collect();
        if unsaved.is_empty() {
            return;
        }
        if let Err(error) = self.store.writer.save_reports(unsaved).await {
            tracing::debug!(%error, "edge reports were not saved");
        }
    }

    /// Forgets what edges reported that are no longer enrolled.
    pub(crate) async fn forget_revoked(&self) {
        let enrolled = self.read(|reader| reader.edges(None, limits::EDGES_MAX)).await;
        let Ok(enrolled) = enrolled else { return };
        let enrolled: HashSet<String> = enrolled.into_iter().map(|edge| edge.id).collect();
        let mut edges = self.edges();
        edges.reports.retain(|edge, _| enrolled.contains(edge));
        edges.feeds.retain(|edge, count| *count > 0 || enrolled.contains(edge));
    }

    /// Draws a new incarnation, unless that has happened since `seen`.
    pub(crate) async fn renew_after(&self, seen: &Head) -> Result<Head, StoreError> {
        let _one_at_a_time = self.renewing.lock().await;
        let now = self.store.writer.head().borrow().clone();
        if now.store != seen.store {
            return Ok(now);
        }
        let draw = Draw {
            region: self.config.region.clone(),
            now_ms: clock::wall_ms(),
            random: clock::random(),
        };
        self.store.writer.renew(draw, Reason::EdgeAhead).await
    }

    /// Becomes true when control stops.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub(crate) fn count_edge_ahead(&self) {
        self.counters.edges_ahead.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_snapshot(&self) {
        self.counters.snapshots.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_records(&self, count: usize) {
        self.counters.records.fetch_add(count as u64, Relaxed);
    }

    fn edges(&self) -> MutexGuard<'_, Edges> {
        self.edges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when control stops.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A sender that is gone has stopped too.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// An open feed, as `GET /v1/edges` and the metrics count it.
pub(crate) struct FeedGuard {
    app: Arc<App>,
    edge: Option<String>,
}

impl Drop for FeedGuard {
    fn drop(&mut self) {
        self.app.counters.feeds.fetch_sub(1, Relaxed);
        if let Some(edge) = &self.edge {
            let mut edges = self.app.edges();
            if let Some(count) = edges.feeds.get_mut(edge) {
                *count -= 1;
            }
            drop(edges);
            self.app.circle_changed.send_replace(());
        }
    }
}
