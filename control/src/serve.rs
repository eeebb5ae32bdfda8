//! Accepting connections and speaking HTTP/1.1 on them, with limits on how many and how slow.
//!
//! One seat is always kept free: when the house is full, the connection that has been here longest
//! of those without a request under way leaves. Nobody can lock others out by holding connections
//! open and asking nothing.
//!
//! Leaves to others: what a request means (`api`, `public`), which seats are idle (`seats`).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::{
    limits,
    observe::Counters,
    seats::{Seat, Seats},
    state::stopped,
};

/// Serves until `stopping`, then gives open requests a bounded time to finish.
pub async fn run(
    listener: TcpListener,
    router: Router,
    counters: Arc<Counters>,
    mut stopping: watch::Receiver<bool>,
) {
    let connections_max = connections_max();
    let mut seats = Seats::default();
    let mut connections = JoinSet::new();
    loop {
        let full = connections.len() >= connections_max;
        if full && seats.ask_one_to_leave() {
            counters.connections_ended.fetch_add(1, Ordering::Relaxed);
        }
        let accepted = tokio::select! {
            accepted = accept(&listener), if !full => accepted,
            // All have a request under way: newcomers wait in the kernel's queue.
            () = tokio::time::sleep(FULL_PAUSE), if full => continue,
            () = stopped(&mut stopping) => break,
            Some(ended) = connections.join_next() => {
                ended.into_iter().for_each(|seat| seats.leave(seat));
                continue;
            }
        };
        let Some(stream) = accepted else { continue };
        let (number, seat) = seats.take();
        let (router, stopping) = (router.clone(), stopping.clone());
        connections.spawn(async move {
            connection(stream, router, seat, stopping).await;
            number
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    let limit = Duration::from_millis(limits::DRAIN_AFTER_MS_MAX);
    if tokio::time::timeout(limit, drained).await.is_err() {
        tracing::warn!(open = connections.len(), "connections closed before they were done");
    }
}

/// How many connections there is room for, after raising the limit on descriptors as far as it
/// goes.
fn connections_max() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        limit = raised;
    }
    let descriptors = limit.current.map_or(usize::MAX, |limit| limit as usize);
    let room = descriptors.saturating_sub(limits::DESCRIPTORS_KEPT).max(1);
    if room < limits::CONNECTIONS_MAX {
        tracing::warn!(descriptors, "RLIMIT_NOFILE leaves room for {room} connections");
    }
    room.min(limits::CONNECTIONS_MAX)
}

async fn accept(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept().await {
        Ok((stream, _)) => {
            // Small answers and beats must not wait for each other's acknowledgements.
            let _ = stream.set_nodelay(true);
            Some(stream)
        }
        Err(error) => {
            // Out of descriptors, most likely: it passes when a connection ends.
            tracing::warn!(%error, "accept refused");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    seat: Arc<Seat>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits::HEAD_AFTER_MS_MAX))
        .max_buf_size(2 * limits::HEAD_BYTES_MAX);
    let service = TowerToHyperService::new(router);
    let busy = Arc::clone(&seat);
    let service = hyper::service::service_fn(move |request| {
        let under_way = busy.begin();
        let answer = service.call(request);
        async move {
            let answer = answer.await?;
            // A feed is under way as long as its body goes on.
            Ok::<_, std::convert::Infallible>(answer.map(|body| Body::new(under_way.body(body))))
        }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(%error, "connection ended");
            }
            return;
        }
        () = seat.asked_to_leave() => return,
        () = stopped(&mut stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended");
    }
}

/// How soon a full house, in which everybody is busy, is looked at again.
const FULL_PAUSE: Duration = Duration::from_millis(20);
