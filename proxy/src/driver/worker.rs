//! The state of one worker thread.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::eviction::Demand;
use super::exchange::Exchange;
use super::pool::{Lease, LocalBackend};
use super::splice::{Pipe, Splice};
use super::timers::{Timers, Wait, ticks};
use crate::access_log::AccessLog;
use crate::backend::Backend;
use crate::balance::{self, Candidate, Choice, Draw};
use crate::config::{Algorithm, Timeouts, Upstream};
use crate::descriptors::DescriptorLimits;
use crate::table::Table;
use http1::reject::Reject;

/// Bytes of the buffer that everything is read into. Larger than two heads, so
/// that what is left of one read never keeps the next from fitting.
pub const SCRATCH_BYTES: usize = 64 << 10;
/// Spare buffers that a worker keeps, and the largest of them.
const BUFFERS_MAX: usize = 1024;
const BUFFER_BYTES_MAX: usize = 4 << 10;
/// Bodies that move within the kernel at once, and pipes kept for later. A pipe
/// is two descriptors; bodies beyond the bound are copied.
const PIPES_MAX: usize = 512;
const IDLE_PIPES_MAX: usize = 64;
/// A retry costs as much as a hundred requests earn at one percent; ten may be
/// saved up, so that a quiet proxy can retry too.
const RETRY_COST: u32 = 100;
const RETRY_CREDIT_MAX: u32 = 10 * RETRY_COST;

/// State that all workers share.
#[derive(Debug)]
pub struct Shared {
    /// Client connections.
    pub connections: AtomicUsize,
    /// What workers request of each other.
    pub demand: Demand,
    /// How many workers there are.
    pub workers: usize,
    /// The descriptors that they may take.
    pub descriptors: DescriptorLimits,
}

impl Shared {
    /// The state shared by so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            connections: AtomicUsize::new(0),
            demand: Demand::default(),
            workers,
            descriptors: DescriptorLimits::of_process(),
        })
    }
}

/// The buffers through which all bytes of a worker pass. They are borrowed
/// within one poll and never across a wait.
#[derive(Debug)]
pub struct Scratch {
    /// What is read.
    pub input: Box<[u8]>,
    /// Heads that are written.
    pub out: Vec<u8>,
}

/// The timeouts in ticks.
#[derive(Debug, Clone, Copy)]
pub struct TickTimeouts {
    /// See [`Timeouts`].
    pub request_head: u32,
    /// See [`Timeouts`].
    pub request_body: u32,
    /// See [`Timeouts`].
    pub client_write: u32,
    /// See [`Timeouts`].
    pub keep_alive: u32,
    /// See [`Timeouts`].
    pub connect: u32,
    /// See [`Timeouts`].
    pub response_head: u32,
    /// See [`Timeouts`].
    pub body_stall: u32,
    /// See [`Timeouts`].
    pub tunnel_idle: u32,
}

impl TickTimeouts {
    fn new(timeouts: &Timeouts) -> Self {
        Self {
            request_head: ticks(timeouts.request_head),
            request_body: ticks(timeouts.request_body),
            client_write: ticks(timeouts.client_write),
            keep_alive: ticks(timeouts.keep_alive),
            connect: ticks(timeouts.connect),
            response_head: ticks(timeouts.response_head),
            body_stall: ticks(timeouts.body_stall),
            tunnel_idle: ticks(timeouts.tunnel_idle),
        }
    }
}

/// The table with this worker's side of each backend.
#[derive(Debug)]
pub struct LocalTable {
    /// What all workers share.
    pub table: Arc<Table>,
    upstreams: Vec<Vec<Rc<LocalBackend>>>,
}

impl LocalTable {
    fn new(table: Arc<Table>, earlier: Option<&LocalTable>) -> Self {
        let known = |shared: &Arc<_>| {
            earlier
                .into_iter()
                .flat_map(|earlier| earlier.upstreams.iter().flatten())
                .find(|local| Arc::ptr_eq(&local.shared, shared))
                .map_or_else(|| LocalBackend::new(Arc::clone(shared)), Rc::clone)
        };
        let configured = table.config.upstreams.iter();
        let upstreams = table.upstreams.iter().zip(configured);
        let upstreams = upstreams
            .map(|(backends, upstream)| {
                let local = backends.iter().map(known);
                local
                    .inspect(|local| local.keep_idle_for(idle_ticks(upstream)))
                    .collect()
            })
            .collect();
        Self { table, upstreams }
    }

    /// The first backend of an upstream.
    pub(super) fn first(&self, upstream: usize) -> Option<&Rc<LocalBackend>> {
        self.upstreams.get(upstream)?.first()
    }

    /// The index of an upstream.
    pub(super) fn upstream(&self, name: &str) -> Option<usize> {
        let all = &self.table.config.upstreams;
        all.iter().position(|upstream| upstream.name == name)
    }

    /// Whether a slot is free at a backend of an upstream that would be chosen.
    pub(super) fn has_capacity(&self, upstream: usize) -> bool {
        let backends = self.table.upstreams.get(upstream);
        let panics = self.panics(upstream);
        let mut usable = backends
            .into_iter()
            .flatten()
            .filter(|one| is_usable(one, panics));
        let mut preferred = usable.clone().filter(|one| one.is_preferred()).peekable();
        if preferred.peek().is_some() {
            preferred.any(|one| one.has_capacity())
        } else {
            usable.any(|one| one.has_capacity())
        }
    }

    /// Whether so few backends of an upstream are usable that the checks are not
    /// believed: the few would be buried.
    fn panics(&self, upstream: usize) -> bool {
        let config = self.table.config.upstreams.get(upstream);
        let percent = config.map_or(0, |config| config.panic_percent) as usize;
        if percent == 0 {
            return false;
        }
        let backends = self
            .table
            .upstreams
            .get(upstream)
            .map_or(&[][..], Vec::as_slice);
        let enabled = backends.iter().filter(|one| one.is_enabled()).count();
        let usable = backends.iter().filter(|one| one.is_preferred()).count();
        usable * 100 < enabled * percent
    }

    fn backends(&self) -> impl Iterator<Item = &Rc<LocalBackend>> {
        self.upstreams.iter().flatten()
    }
}

/// For how many ticks a pooled connection is kept; 0: none is.
fn idle_ticks(upstream: &Upstream) -> u32 {
    upstream.idle_timeout.map_or(0, ticks)
}

/// The state of one worker.
#[derive(Debug)]
#[expect(
    clippy::vec_box,
    reason = "the boxes themselves are what is kept for the next request"
)]
pub struct Worker {
    /// Counts over all workers.
    pub shared: Arc<Shared>,
    /// Deadlines of this worker's connections.
    pub timers: Rc<Timers>,
    /// The buffers.
    pub scratch: RefCell<Scratch>,
    /// Timeouts in ticks.
    pub ticks: Cell<TickTimeouts>,
    /// The current date for `Date` fields.
    pub date: Cell<[u8; 29]>,
    /// Whether the worker drains: it stops once its connections have ended.
    pub draining: Cell<bool>,
    /// Whether the drain timeout has passed, and connections are aborted.
    pub aborting: Cell<bool>,
    /// Notified when the last connection ends.
    pub drained: Notify,
    live: Cell<usize>,
    table: RefCell<Rc<LocalTable>>,
    candidates: RefCell<Vec<Candidate>>,
    buffers: RefCell<Vec<Vec<u8>>>,
    exchanges: RefCell<Vec<Box<Exchange>>>,
    random: Cell<u64>,
    ticket: Cell<u64>,
    pipes: RefCell<Vec<Pipe>>,
    pipes_in_use: Cell<usize>,
    retry_credit: Cell<u32>,
    /// Until when a shortage is not logged again.
    pub(super) shortage_warned_until: Cell<u32>,
}

impl Worker {
    /// A worker on `table`; `seed` sets its random numbers apart.
    #[must_use]
    pub fn new(shared: Arc<Shared>, table: Arc<Table>, seed: u64) -> Rc<Self> {
        let ticks = TickTimeouts::new(&table.config.timeouts);
        let worker = Self {
            shared,
            timers: Timers::new(),
            scratch: RefCell::new(Scratch {
                input: vec![0; SCRATCH_BYTES].into_boxed_slice(),
                out: Vec::with_capacity(SCRATCH_BYTES),
            }),
            ticks: Cell::new(ticks),
            date: Cell::new(http_date()),
            draining: Cell::new(false),
            aborting: Cell::new(false),
            drained: Notify::new(),
            live: Cell::new(0),
            table: RefCell::new(Rc::new(LocalTable::new(table, None))),
            candidates: RefCell::default(),
            buffers: RefCell::default(),
            exchanges: RefCell::default(),
            random: Cell::new(balance::mix(seed.wrapping_add(1))),
            ticket: Cell::new(balance::mix(seed)),
            pipes: RefCell::default(),
            pipes_in_use: Cell::new(0),
            retry_credit: Cell::new(RETRY_CREDIT_MAX),
            shortage_warned_until: Cell::new(0),
        };
        Rc::new(worker)
    }

    /// The table in use.
    #[must_use]
    pub fn table(&self) -> Rc<LocalTable> {
        Rc::clone(&self.table.borrow())
    }

    /// Works by `table` from now on. Exchanges in flight end at the backend
    /// where they are; pools of backends that are gone are closed.
    pub fn set_table(&self, table: Arc<Table>) {
        self.ticks.set(TickTimeouts::new(&table.config.timeouts));
        let earlier = self.table();
        let next = Rc::new(LocalTable::new(table, Some(&earlier)));
        for backend in earlier.backends() {
            if !next.backends().any(|kept| Rc::ptr_eq(kept, backend)) {
                backend.retire();
            }
        }
        *self.table.borrow_mut() = next;
        for queue in &self.table().table.queues {
            queue.wake_all();
        }
    }

    /// Updates the date, and closes pooled connections that have expired or were
    /// closed by their backend.
    pub fn prune(&self) {
        self.date.set(http_date());
        for backend in self.table.borrow().backends() {
            if backend.shared.is_disconnected() {
                backend.clear();
            }
            backend.prune(self.timers.now());
        }
    }

    /// Closes idle connections to backends, at most so many; gives how many.
    pub(super) fn close_idle(&self, most: usize) -> usize {
        let table = self.table();
        table.backends().fold(0, |closed, backend| {
            closed + backend.close_oldest(most - closed)
        })
    }

    /// An empty buffer, used before where possible.
    #[must_use]
    pub fn take_buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps a buffer for later use.
    pub fn recycle_buffer(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        let fits = (1..=BUFFER_BYTES_MAX).contains(&buffer.capacity());
        if fits && buffers.len() < BUFFERS_MAX {
            buffer.clear();
            buffers.push(buffer);
        }
    }

    /// A blank exchange.
    #[must_use]
    pub fn exchange(&self) -> Box<Exchange> {
        self.exchanges.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps an exchange for later use.
    pub fn recycle_exchange(&self, mut exchange: Box<Exchange>) {
        self.recycle_buffer(exchange.to_up.take());
        self.recycle_buffer(exchange.to_client.take());
        for splice in [exchange.splice_in.take(), exchange.splice_out.take()]
            .into_iter()
            .flatten()
        {
            self.recycle_splice(splice);
        }
        *exchange = Exchange::default();
        let mut exchanges = self.exchanges.borrow_mut();
        if exchanges.len() < BUFFERS_MAX {
            exchanges.push(exchange);
        }
    }

    /// A direction that moves within the kernel, where a pipe can be had.
    #[must_use]
    pub fn splice(&self) -> Option<Splice> {
        let in_use = self.pipes_in_use.get();
        if in_use >= PIPES_MAX {
            return None;
        }
        let pipe = match self.pipes.borrow_mut().pop() {
            Some(pipe) => pipe,
            None => Pipe::new()
                .ok()
                .filter(|pipe| self.shared.descriptors.allows_backend(pipe))?,
        };
        self.pipes_in_use.set(in_use + 1);
        Some(Splice::new(pipe))
    }

    /// Takes a direction's pipe back; one that still holds bytes is closed.
    pub fn recycle_splice(&self, splice: Splice) {
        self.pipes_in_use.set(self.pipes_in_use.get() - 1);
        let mut pipes = self.pipes.borrow_mut();
        if let Some(pipe) = splice.into_pipe()
            && pipes.len() < IDLE_PIPES_MAX
        {
            pipes.push(pipe);
        }
    }

    /// Chooses a backend of an upstream in `local` and takes a slot there; `None`
    /// where the request has to wait for one.
    ///
    /// # Errors
    /// As those of [`Worker::choose`].
    pub fn choose_or_queue(
        &self,
        local: &LocalTable,
        upstream: usize,
        algorithm: Algorithm,
        client: IpAddr,
    ) -> Result<Option<Lease>, Reject> {
        let configured = local.table.config.upstreams.get(upstream);
        let can_queue = configured.is_some_and(|upstream| upstream.queue > 0);
        let queue = local.table.queues.get(upstream).filter(|_| can_queue);
        // Requests that wait already come first.
        if queue.is_some_and(|queue| queue.is_occupied()) {
            return Ok(None);
        }
        match self.choose(local, upstream, algorithm, client, None) {
            Err(Reject::BackendsFull) if can_queue => Ok(None),
            chosen => chosen.map(Some),
        }
    }

    /// Chooses a backend of an upstream in `local` and takes a slot there. `but` is
    /// avoided where another will do.
    ///
    /// # Errors
    /// The [`Reject`] that says why none could be had.
    pub fn choose(
        &self,
        local: &LocalTable,
        upstream: usize,
        algorithm: Algorithm,
        client: IpAddr,
        but: Option<&Rc<LocalBackend>>,
    ) -> Result<Lease, Reject> {
        let backends = local.upstreams.get(upstream).map_or(&[][..], Vec::as_slice);
        let panics = local.panics(upstream);
        if let ([only], None) = (backends, but) {
            if !is_usable(&only.shared, panics) {
                return Err(Reject::NoBackend);
            }
            return Lease::acquire(only).ok_or(Reject::BackendsFull);
        }
        let mut candidates = self.candidates.borrow_mut();
        candidates.clear();
        candidates.extend(backends.iter().map(|local| candidate(local, but, panics)));
        let draw = self.draw(algorithm, client);
        loop {
            match balance::choose(algorithm, &candidates, &draw) {
                Choice::Backend(index) => match Lease::acquire(&backends[index]) {
                    Some(lease) => return Ok(lease),
                    // Another worker was faster.
                    None => candidates[index].in_flight = candidates[index].in_flight_max,
                },
                // Backends that failed of late are better than none at all.
                Choice::Unavailable => {
                    let mut found = false;
                    for (candidate, local) in candidates.iter_mut().zip(backends) {
                        let avoided = but.is_some_and(|but| Rc::ptr_eq(but, local));
                        candidate.available = is_usable(&local.shared, panics) && !avoided;
                        found |= candidate.available;
                    }
                    if !found {
                        return Err(Reject::NoBackend);
                    }
                }
                Choice::Full => return Err(Reject::BackendsFull),
            }
        }
    }

    /// Deposits a request into the retry budget.
    pub fn deposit_retry(&self) {
        let percent = self.table.borrow().table.config.raw.retries.budget_percent;
        let earned = self.retry_credit.get().saturating_add(percent);
        self.retry_credit.set(earned.min(RETRY_CREDIT_MAX));
    }

    /// Withdraws one retry from the budget, where it suffices.
    #[must_use]
    pub fn withdraw_retry(&self) -> bool {
        let left = self.retry_credit.get().checked_sub(RETRY_COST);
        self.retry_credit
            .set(left.unwrap_or(self.retry_credit.get()));
        left.is_some()
    }

    fn draw(&self, algorithm: Algorithm, client: IpAddr) -> Draw {
        let random = balance::mix(self.random.get());
        self.random
            .set(self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        self.ticket.set(self.ticket.get().wrapping_add(1));
        let client = match (algorithm, client) {
            (Algorithm::IpHash, IpAddr::V4(address)) => balance::identity(&address.octets()),
            (Algorithm::IpHash, IpAddr::V6(address)) => balance::identity(&address.octets()),
            _ => 0,
        };
        Draw {
            client,
            random,
            ticket: self.ticket.get(),
        }
    }

    /// Counts a client connection, which has no slot yet.
    #[must_use]
    pub fn admit(self: &Rc<Self>) -> Admission {
        self.live.set(self.live.get() + 1);
        Admission {
            worker: Rc::clone(self),
            has_slot: false,
        }
    }

    /// Does `then` with the access log, where there is one.
    pub fn with_access_log(&self, then: impl FnOnce(&AccessLog)) {
        if let Some(log) = &self.table.borrow().table.access_log {
            then(log);
        }
    }

    /// Client connections of this worker.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.get()
    }
}

fn is_usable(backend: &Backend, panics: bool) -> bool {
    if panics {
        backend.is_enabled()
    } else {
        backend.is_usable()
    }
}

fn candidate(local: &Rc<LocalBackend>, but: Option<&Rc<LocalBackend>>, panics: bool) -> Candidate {
    let shared = &local.shared;
    let avoided = but.is_some_and(|but| Rc::ptr_eq(but, local));
    Candidate {
        available: (shared.is_preferred() || panics && shared.is_enabled()) && !avoided,
        in_flight: shared.in_flight(),
        in_flight_max: shared.in_flight_max,
        weight: shared.config.weight,
        identity: shared.identity,
        utilisation: shared.utilisation(),
        cost: shared.cost(),
    }
}

/// A counted client connection.
#[derive(Debug)]
pub struct Admission {
    worker: Rc<Worker>,
    /// Whether it holds one of the `max_conn` slots.
    has_slot: bool,
}

impl Admission {
    /// Takes a slot, where one is free.
    pub fn take_slot(&mut self) -> bool {
        let table = self.worker.table();
        let most = table.table.config.connections_max.unwrap_or(usize::MAX);
        let more = |count| (count < most).then_some(count + 1);
        let connections = &self.worker.shared.connections;
        let taken = connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        self.has_slot |= taken.is_ok();
        taken.is_ok()
    }

    /// Takes the slot of the client that has been idle for the longest time,
    /// where there is one.
    pub fn evict_idle_client(&mut self) -> bool {
        let given = self.worker.timers.fire_oldest(Wait::NextRequest);
        if given {
            self.has_slot = true;
            let connections = &self.worker.shared.connections;
            connections.fetch_add(1, Ordering::Relaxed);
        }
        given
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.has_slot {
            let connections = &self.worker.shared.connections;
            connections.fetch_sub(1, Ordering::Relaxed);
        }
        self.worker.live.set(self.worker.live.get() - 1);
        if self.worker.live.get() == 0 {
            self.worker.drained.notify_waiters();
        }
    }
}

fn http_date() -> [u8; 29] {
    use std::io::Write as _;
    let mut text = [0; 29];
    let written = write!(
        &mut text[..],
        "{}",
        httpdate::HttpDate::from(std::time::SystemTime::now())
    );
    debug_assert!(written.is_ok(), "an IMF-fixdate has 29 bytes");
    text
}
