//! Watching over backends: active checks, and the return of ejected ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::config::raw::RawHealthCheck;
use crate::fetch;
use crate::state::{Backend, Table};

/// How often ejected backends are looked for.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// The watch over one table's backends; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    _tasks: JoinSet<()>,
}

impl Watch {
    /// Starts to watch. Must be called within a runtime.
    #[must_use]
    pub fn start(table: &Arc<Table>) -> Self {
        let mut tasks = JoinSet::new();
        for backend in table.upstreams.iter().flatten() {
            match backend.config.health_check.clone() {
                Some(check) if backend.config.active => {
                    tasks.spawn(check_forever(Arc::clone(backend), check));
                }
                // What a check once found must not outlive the check.
                _ => drop(backend.set_healthy(true)),
            }
        }
        tasks.spawn(readmit_forever(Arc::clone(table)));
        Self { _tasks: tasks }
    }
}

async fn check_forever(backend: Arc<Backend>, check: RawHealthCheck) {
    let mut interval = tokio::time::interval(check.interval.0);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failures = 0;
    loop {
        interval.tick().await;
        let outcome = check_once(&backend, &check).await;
        let (id, upstream) = (&backend.config.id, &backend.upstream);
        match outcome {
            Ok(()) => {
                failures = 0;
                if !backend.set_healthy(true) {
                    tracing::info!(%upstream, backend = %id, "the backend is healthy again");
                }
            }
            Err(reason) => {
                failures += 1;
                if failures >= check.failures && backend.set_healthy(false) {
                    tracing::warn!(%upstream, backend = %id, %reason, "the backend is unhealthy");
                }
            }
        }
    }
}

async fn check_once(backend: &Backend, check: &RawHealthCheck) -> Result<(), String> {
    let address = backend
        .address()
        .ok_or_else(|| "it has no address".to_owned())?;
    match fetch::get(
        address,
        &backend.authority,
        &check.path,
        check.timeout.0,
        backend.tls.as_ref(),
    )
    .await
    {
        Ok((200..=399, _)) => Ok(()),
        Ok((status, _)) => Err(format!("{} answered {status}", check.path)),
        Err(error) => Err(format!("{}: {error}", check.path)),
    }
}

async fn readmit_forever(table: Arc<Table>) {
    let eject_for = table.config.raw.passive_health.eject_for.0;
    let backends: Vec<&Arc<Backend>> = table.upstreams.iter().flatten().collect();
    let mut since: Vec<Option<Instant>> = vec![None; backends.len()];
    let mut interval = tokio::time::interval(WATCH_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        for (backend, since) in backends.iter().zip(&mut since) {
            let (id, upstream) = (&backend.config.id, &backend.upstream);
            match (backend.is_ejected(), *since) {
                (true, None) => {
                    tracing::warn!(%upstream, backend = %id, ?eject_for, "the backend is ejected: its requests fail");
                    *since = Some(Instant::now());
                }
                (true, Some(start)) if start.elapsed() >= eject_for => {
                    tracing::info!(%upstream, backend = %id, "the backend is tried again");
                    backend.readmit();
                    *since = None;
                }
                (true, Some(_)) => {}
                (false, _) => *since = None,
            }
        }
    }
}
