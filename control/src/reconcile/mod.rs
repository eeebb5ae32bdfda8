//! Idempotent tasks without input: each reads what is and what should be, and moves one toward the
//! other.
//!
//! They run on a period; a turn that leaves work behind runs again at once, in small transactions,
//! so that writers never wait for long.

pub mod retention;

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{App, state::stopped};

/// Runs until control stops.
pub async fn run(app: Arc<App>, mut stopping: watch::Receiver<bool>) {
    let mut period = tokio::time::interval(Duration::from_secs(PERIOD_S));
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut turns = 0u64;
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = stopped(&mut stopping) => {
                app.save_reports().await;
                return;
            }
        }
        app.save_reports().await;
        if turns.is_multiple_of(RETENTION_EVERY_TURNS) {
            app.forget_revoked().await;
            retention::run(&app).await;
            if let Err(error) = app.count_events().await {
                tracing::debug!(%error, "events were not counted");
            }
        }
        turns += 1;
    }
}

/// Time between two turns.
const PERIOD_S: u64 = 10;
/// Retention looks once every ten minutes.
const RETENTION_EVERY_TURNS: u64 = 60;
