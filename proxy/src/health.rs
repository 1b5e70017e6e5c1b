//! Health of backends: active checks, ejection and its end, and the load of their
//! hosts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::adaptive;
use crate::backend::Backend;
use crate::collector::{self, Collector};
use crate::config::raw::RawHealthCheck;
use crate::descriptors::is_local_shortage;
use crate::fetch::{self, FetchError};
use crate::outliers::{Rules, outliers};
use crate::table::Table;

/// How often the collector is asked for the load of a backend's host; it learns
/// of it every 5 s.
const LOAD_INTERVAL: Duration = Duration::from_secs(5);
/// How often ejections and old loads are looked at.
const MAINTENANCE_INTERVAL: Duration = Duration::from_millis(100);

/// Monitors the backends of a table; ends when dropped.
#[derive(Debug, Default)]
pub struct HealthMonitor {
    /// Checks go on over changes of the table, for as long as their backend is
    /// the same: one that is begun anew at each change may never come to its end.
    checks: Vec<(Arc<Backend>, JoinSet<()>)>,
    others: JoinSet<()>,
    window: Arc<Window>,
}

/// When the outcomes that are counted now began to be; goes on over changes of the
/// table: where it were begun anew at each, it might never come to its end.
#[derive(Debug, Default)]
struct Window(Mutex<Option<Instant>>);

impl Window {
    /// Whether it is over, and another begins.
    fn ends(&self, now: Instant, lasts: Duration) -> bool {
        let mut began = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(*began.get_or_insert(now));
        let ends = since >= lasts;
        if ends {
            *began = Some(now);
        }
        ends
    }
}

impl HealthMonitor {
    /// Monitors the backends of `table` from now on. Must be called within a
    /// runtime.
    pub fn set_table(&mut self, table: &Arc<Table>) {
        let mut earlier = std::mem::take(&mut self.checks);
        for backend in table.upstreams.iter().flatten() {
            match backend.config.health_check.clone() {
                Some(check) if backend.config.active => {
                    let known = earlier
                        .iter()
                        .position(|(known, _)| Arc::ptr_eq(known, backend));
                    self.checks.push(match known {
                        Some(at) => earlier.swap_remove(at),
                        None => {
                            let mut task = JoinSet::new();
                            task.spawn(check_forever(Arc::clone(backend), check));
                            (Arc::clone(backend), task)
                        }
                    });
                }
                // What a check once found must not outlive the check.
                _ => drop(backend.note_check(true, 1)),
            }
        }
        self.others = JoinSet::new();
        if let Some(collector) = &table.collector {
            let expiry = table.config.raw.collector.report_expiry.0;
            for backend in table.upstreams.iter().flatten() {
                if let Some(host_id) = &backend.config.host_id {
                    let (backend, host_id) = (Arc::clone(backend), host_id.clone());
                    self.others.spawn(poll_host_load(
                        backend,
                        Arc::clone(collector),
                        host_id,
                        expiry,
                    ));
                }
            }
        }
        let agent = &table.config.raw.agent;
        if !agent.socket.as_os_str().is_empty() {
            self.others.spawn(adaptive::follow_agent(
                agent.socket.clone(),
                Arc::clone(table),
            ));
        }
        let window = Arc::clone(&self.window);
        self.others
            .spawn(maintain_forever(Arc::clone(table), window));
    }
}

async fn check_forever(backend: Arc<Backend>, check: RawHealthCheck) {
    let mut interval = tokio::time::interval(check.interval.0);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut possible = true;
    loop {
        interval.tick().await;
        let outcome = check_once(&backend, &check).await;
        let was_possible =
            std::mem::replace(&mut possible, !matches!(outcome, Err(Failed::Here(_))));
        let (id, upstream) = (&backend.config.id, &backend.upstream);
        match outcome {
            Ok(()) => {
                if backend.note_check(true, check.successes) {
                    tracing::info!(%upstream, backend = %id, "the backend is healthy again");
                }
            }
            Err(Failed::There(reason)) => {
                if backend.note_check(false, check.failures) {
                    tracing::warn!(%upstream, backend = %id, %reason, "the backend is unhealthy");
                }
            }
            Err(Failed::Here(error)) if was_possible => {
                tracing::warn!(
                    %upstream, backend = %id, %error,
                    "cannot run the health check, keeping the state of the backend: raise the limit of open files (LimitNOFILE= of the unit)"
                );
            }
            Err(Failed::Here(_)) => {}
        }
    }
}

/// Why a check was not passed.
enum Failed {
    /// The backend's fault, in words.
    There(String),
    /// For want of something of our own, which says nothing about the backend.
    Here(std::io::Error),
}

async fn check_once(backend: &Backend, check: &RawHealthCheck) -> Result<(), Failed> {
    let address = backend
        .address()
        .ok_or_else(|| Failed::There("it has no address".to_owned()))?;
    let target = fetch::Target {
        host: &backend.authority,
        path: &check.path,
        token: None,
    };
    match fetch::get(&[address], target, check.timeout.0, backend.tls.as_ref()).await {
        Ok((200..=399, _)) => Ok(()),
        Ok((status, _)) => Err(Failed::There(format!("{} answered {status}", check.path))),
        Err(FetchError::Io(error)) if is_local_shortage(&error) => Err(Failed::Here(error)),
        Err(error) => Err(Failed::There(format!("{}: {error}", check.path))),
    }
}

/// Reads the load of a backend's host from the collector, for the balancer that
/// looks at it. Values that are too old count as unknown.
async fn poll_host_load(
    backend: Arc<Backend>,
    collector: Arc<Collector>,
    host_id: String,
    expiry: Duration,
) {
    let mut interval = tokio::time::interval(LOAD_INTERVAL.min(expiry));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut reachable = true;
    loop {
        interval.tick().await;
        match collector.stats(&host_id).await {
            Ok(stats) => {
                reachable = true;
                let age = collector::age_seconds(&stats);
                let is_fresh = age.is_some_and(|age| age <= expiry.as_secs().max(1));
                if let Some(load) = collector::utilisation(&stats).filter(|_| is_fresh) {
                    backend.report(load);
                }
            }
            Err(error) => {
                if std::mem::replace(&mut reachable, false) {
                    tracing::warn!(backend = %backend.config.id, %error, "cannot read the load of the backend's host, balancing without it");
                }
            }
        }
    }
}

/// Ejects backends, ends ejections, and clears loads that are too old.
async fn maintain_forever(table: Arc<Table>, window: Arc<Window>) {
    let passive = &table.config.raw.passive_health;
    let rules = Rules {
        failures: passive.failures,
        error_percent: passive.error_percent,
        answers_min: passive.answers_min,
        ejected_percent_max: passive.ejected_percent_max,
    };
    let expiry = table.config.raw.collector.report_expiry.0;
    let mut interval = tokio::time::interval(MAINTENANCE_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let now = Instant::now();
        let window_ended = window.ends(now, passive.interval.0);
        for (upstream, backends) in table.config.upstreams.iter().zip(&table.upstreams) {
            update_ejections(backends, &rules, window_ended, now, passive.eject_for.0);
            for backend in backends {
                backend.expire_report(expiry);
            }
            adaptive::update_costs(backends, upstream.slow_start, &table.config.raw.agent, now);
        }
    }
}

/// Does so for one upstream.
fn update_ejections(
    backends: &[Arc<Backend>],
    rules: &Rules,
    window_ended: bool,
    now: Instant,
    eject_for: Duration,
) {
    for backend in backends.iter().filter(|one| one.is_ejected()) {
        if backend.readmit(now, eject_for) {
            let (id, upstream) = (&backend.config.id, &backend.upstream);
            tracing::info!(%upstream, backend = %id, "the ejection of the backend has ended");
        }
    }
    let counted: Vec<_> = backends
        .iter()
        .map(|backend| backend.outcomes().read(window_ended))
        .collect();
    let ejected: Vec<_> = backends.iter().map(|one| one.is_ejected()).collect();
    for (at, cause) in outliers(&counted, &ejected, rules) {
        let backend = &backends[at];
        let lasts = backend.eject(now, eject_for);
        let (id, upstream) = (&backend.config.id, &backend.upstream);
        tracing::warn!(%upstream, backend = %id, ?lasts, %cause, "the backend is ejected");
    }
}
