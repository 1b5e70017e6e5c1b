//! A backend as all workers share it: its configuration, and its state, which
//! outlives reloads for as long as the backend is named, so that its count in
//! flight stays true.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;

use crate::adaptive::Measured;
use crate::balance;
use crate::config::raw::RawBackend;
use crate::driver::queue::Queue;
use crate::fetch;
use crate::names::bare;
use crate::outliers::{Ejection, Outcomes};

/// The state of a backend that changes. It is kept over reloads for as long as the
/// backend is named, even where its configuration changes.
#[derive(Debug)]
pub(crate) struct BackendState {
    in_flight: AtomicU32,
    healthy: AtomicBool,
    disconnected: AtomicBool,
    ejected: AtomicBool,
    outcomes: Outcomes,
    /// Consecutive checks whose outcome differs from `healthy`.
    checks: AtomicU32,
    /// Kept by the health monitor.
    ejection: Mutex<Ejection>,
    utilisation: AtomicU32,
    /// When the load of its host was last reported.
    reported_at: Mutex<Option<Instant>>,
    cost: AtomicU32,
    /// What the agent measured of it; the request path reads `cost` alone.
    pub(crate) measured: Mutex<Measured>,
}

impl Default for BackendState {
    fn default() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            healthy: AtomicBool::new(true),
            disconnected: AtomicBool::new(false),
            ejected: AtomicBool::new(false),
            outcomes: Outcomes::default(),
            checks: AtomicU32::new(0),
            ejection: Mutex::default(),
            utilisation: AtomicU32::new(UNKNOWN),
            reported_at: Mutex::default(),
            cost: AtomicU32::new(UNKNOWN),
            measured: Mutex::default(),
        }
    }
}

impl BackendState {
    /// The state of a backend that is added to a running proxy.
    pub(crate) fn of_addition() -> Self {
        Self {
            measured: Mutex::new(Measured::of_addition()),
            ..Self::default()
        }
    }
}

/// How to speak TLS to a backend, and the name in its certificate.
pub type ClientTls = (Arc<rustls::ClientConfig>, ServerName<'static>);

/// One backend, shared by all workers.
#[derive(Debug)]
pub struct Backend {
    /// The upstream it belongs to.
    pub upstream: String,
    /// What was configured.
    pub config: RawBackend,
    /// Where it listens; the first is tried first.
    pub addresses: Vec<SocketAddr>,
    /// Host and port as configured; an IPv6 address in brackets.
    pub authority: String,
    /// A hash of upstream and id.
    pub identity: u64,
    /// Most exchanges at once; `u32::MAX`: no limit.
    pub in_flight_max: u32,
    /// How to speak TLS to it, and the name in its certificate.
    pub tls: Option<ClientTls>,
    /// What its `ca_file` held when `tls` was made of it.
    pub(crate) ca_pem: Option<Vec<u8>>,
    next_address: AtomicUsize,
    /// Requests that wait for a slot at a backend of its upstream.
    queue: Arc<Queue>,
    pub(crate) state: Arc<BackendState>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bits of no load; no share of 1 has them.
const UNKNOWN: u32 = u32::MAX;

impl Backend {
    pub(crate) fn new(
        upstream: &str,
        config: RawBackend,
        addresses: Vec<SocketAddr>,
        (tls, ca_pem): (Option<ClientTls>, Option<Vec<u8>>),
        state: Arc<BackendState>,
        queue: Arc<Queue>,
    ) -> Self {
        let identity = balance::identity(format!("{upstream}/{}", config.id).as_bytes());
        let limit = u32::try_from(config.max_conn).unwrap_or(0);
        Self {
            authority: fetch::authority(bare(&config.host), config.port),
            upstream: upstream.to_owned(),
            addresses,
            identity,
            in_flight_max: if limit == 0 { u32::MAX } else { limit },
            tls,
            ca_pem,
            next_address: AtomicUsize::new(0),
            queue,
            state,
            config,
        }
    }

    /// Exchanges and tunnels in flight, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    /// Takes one slot; `false` where all are taken. Each slot taken must be
    /// given back by [`Backend::release`].
    #[must_use]
    pub fn try_acquire(&self) -> bool {
        if self.in_flight_max == u32::MAX {
            self.state.in_flight.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let more = |count| (count < self.in_flight_max).then_some(count + 1);
        let in_flight = &self.state.in_flight;
        let taken = in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        taken.is_ok()
    }

    /// Releases a slot, to the first request that waits for one.
    pub fn release(&self) {
        // Sequentially consistent with the check of a request that has entered the
        // queue: either it sees the slot, or it is seen in the queue.
        self.state.in_flight.fetch_sub(1, Ordering::SeqCst);
        // Also where this one has no limit: the slot may have been taken before a
        // reload that brought one.
        self.queue.wake_first();
    }

    /// Whether new exchanges may go there: it is switched on, connected and
    /// passes its checks.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.is_enabled() && self.is_healthy()
    }

    /// Whether new exchanges should go there: it has not failed of late either.
    #[must_use]
    pub fn is_preferred(&self) -> bool {
        self.is_usable() && !self.is_ejected()
    }

    /// Whether it passes its active checks.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.state.healthy.load(Ordering::Relaxed)
    }

    /// Records the outcome of a check; `wanted` consecutive ones that differ from its
    /// state change that. Gives whether this one did.
    pub fn note_check(&self, passed: bool, wanted: u32) -> bool {
        if passed == self.is_healthy() {
            self.state.checks.store(0, Ordering::Relaxed);
            return false;
        }
        let before = self.state.checks.fetch_add(1, Ordering::Relaxed);
        let config_lock = before.saturating_add(1) >= wanted;
        if config_lock {
            self.state.checks.store(0, Ordering::Relaxed);
            self.state.healthy.store(passed, Ordering::Relaxed);
            if passed {
                self.wake_waiting();
            }
        }
        config_lock
    }

    /// Whether it was disconnected by the admin API.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.state.disconnected.load(Ordering::Relaxed)
    }

    /// Disconnects or reconnects it. Exchanges in flight go on.
    pub fn set_disconnected(&self, disconnected: bool) {
        self.state
            .disconnected
            .store(disconnected, Ordering::Relaxed);
        if !disconnected {
            self.wake_waiting();
        }
    }

    /// Wakes the queue once this backend may be used again. Whoever takes a slot
    /// wakes the next one, while slots are free.
    fn wake_waiting(&self) {
        // Sequentially consistent with the check of a queued request, as above.
        fence(Ordering::SeqCst);
        self.queue.wake_first();
    }

    /// Whether a slot is free.
    #[must_use]
    pub fn has_capacity(&self) -> bool {
        self.in_flight() < self.in_flight_max
    }

    /// Whether passive health checks have ejected it.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.state.ejected.load(Ordering::Relaxed)
    }

    /// The outcomes that the request path counts for passive health checks.
    #[must_use]
    pub fn outcomes(&self) -> &Outcomes {
        &self.state.outcomes
    }

    /// Ejects it; gives for how long.
    pub fn eject(&self, now: Instant, base: Duration) -> Duration {
        self.state.ejected.store(true, Ordering::Relaxed);
        lock(&self.state.ejection).begin(now, base)
    }

    /// Ends its ejection where that is over; gives whether it did.
    pub fn readmit(&self, now: Instant, base: Duration) -> bool {
        let over = lock(&self.state.ejection).end(now, base);
        if over {
            self.state.outcomes.reset();
            self.state.ejected.store(false, Ordering::Relaxed);
            self.wake_waiting();
        }
        over
    }

    /// The load of its host from 0 to 1, while known.
    #[must_use]
    pub fn utilisation(&self) -> Option<f32> {
        let bits = self.state.utilisation.load(Ordering::Relaxed);
        (bits != UNKNOWN).then(|| f32::from_bits(bits))
    }

    /// Sets the load of its host.
    pub fn report(&self, utilisation: f32) {
        let mut reported_at = lock(&self.state.reported_at);
        self.state
            .utilisation
            .store(utilisation.to_bits(), Ordering::Relaxed);
        *reported_at = Some(Instant::now());
    }

    /// Clears a load that was reported longer than `expiry` ago.
    pub fn expire_report(&self, expiry: Duration) {
        let mut reported_at = lock(&self.state.reported_at);
        if reported_at.is_some_and(|at| at.elapsed() >= expiry) {
            self.state.utilisation.store(UNKNOWN, Ordering::Relaxed);
            *reported_at = None;
        }
    }

    /// What a request to it costs, while known.
    #[must_use]
    pub fn cost(&self) -> Option<f32> {
        let bits = self.state.cost.load(Ordering::Relaxed);
        (bits != UNKNOWN).then(|| f32::from_bits(bits))
    }

    /// Sets what a request to it costs.
    pub(crate) fn set_cost(&self, cost: f64) {
        self.state
            .cost
            .store((cost as f32).to_bits(), Ordering::Relaxed);
    }

    /// What is known of it for its cost.
    pub(crate) fn measured(&self) -> MutexGuard<'_, Measured> {
        lock(&self.state.measured)
    }

    /// Whether it may be used at all, whatever the checks say.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.config.active && !self.is_disconnected()
    }

    /// The address to connect to.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let count = self.addresses.len();
        if count == 0 {
            return None;
        }
        self.addresses
            .get(self.next_address.load(Ordering::Relaxed) % count)
            .copied()
    }

    /// Selects the next address after a failed connect.
    pub fn rotate_address(&self) {
        self.next_address.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::table::Table;

    fn backend() -> Arc<Backend> {
        let text = "backends: {u: [{id: a, host: 127.0.0.1, port: 1}]}";
        let table = Table::build(Config::parse(text).unwrap(), None).unwrap();
        Arc::clone(&table.upstreams[0][0])
    }

    #[test]
    fn one_good_check_does_not_revive_a_backend() {
        let backend = backend();
        let checks = [false, true, false, false, true, false, true, true, false];
        let config_lock = checks.map(|passed| backend.note_check(passed, 2));
        assert_eq!(
            config_lock,
            [false, false, false, true, false, false, false, true, false]
        );
        assert!(backend.is_healthy());
    }

    #[test]
    fn a_load_is_forgotten_once_it_is_too_old() {
        let backend = backend();
        backend.report(0.5);
        backend.expire_report(Duration::from_secs(3600));
        assert_eq!(backend.utilisation(), Some(0.5));
        backend.expire_report(Duration::ZERO);
        assert_eq!(backend.utilisation(), None);
    }
}
