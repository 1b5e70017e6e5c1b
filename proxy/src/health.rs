//! Watching over backends: active checks, the return of ejected ones, and the
//! load of their hosts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::collector::{self, Collector};
use crate::config::raw::RawHealthCheck;
use crate::fetch;
use crate::state::{Backend, Table};

/// How often the collector is asked for the load of a backend's host; it learns
/// of it every 5 s.
const LOAD_INTERVAL: Duration = Duration::from_secs(5);
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
        if let Some(collector) = &table.collector {
            let expiry = table.config.raw.collector.report_expiry.0;
            for backend in table.upstreams.iter().flatten() {
                if let Some(host_id) = &backend.config.host_id {
                    let (backend, host_id) = (Arc::clone(backend), host_id.clone());
                    tasks.spawn(follow_load(backend, Arc::clone(collector), host_id, expiry));
                }
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
    let question = fetch::Question {
        host: &backend.authority,
        path: &check.path,
        token: None,
    };
    match fetch::get(&[address], question, check.timeout.0, backend.tls.as_ref()).await {
        Ok((200..=399, _)) => Ok(()),
        Ok((status, _)) => Err(format!("{} answered {status}", check.path)),
        Err(error) => Err(format!("{}: {error}", check.path)),
    }
}

/// Reads the load of a backend's host from the collector, for the balancer that
/// looks at it. Values that are too old count as unknown.
async fn follow_load(
    backend: Arc<Backend>,
    collector: Arc<Collector>,
    host_id: String,
    expiry: Duration,
) {
    let mut interval = tokio::time::interval(LOAD_INTERVAL.min(expiry));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut fresh_at, mut reachable) = (Instant::now(), true);
    loop {
        interval.tick().await;
        match collector.stats(&host_id).await {
            Ok(stats) => {
                reachable = true;
                let age = collector::age_seconds(&stats);
                let is_fresh = age.is_some_and(|age| age <= expiry.as_secs().max(1));
                if let Some(load) = collector::utilisation(&stats).filter(|_| is_fresh) {
                    fresh_at = Instant::now();
                    // The number is for reports that expire on their own.
                    let _number = backend.report(load);
                }
            }
            Err(error) => {
                if std::mem::replace(&mut reachable, false) {
                    tracing::warn!(backend = %backend.config.id, %error, "the load of the backend's host is unknown");
                }
            }
        }
        if fresh_at.elapsed() >= expiry {
            backend.forget_utilisation();
        }
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
