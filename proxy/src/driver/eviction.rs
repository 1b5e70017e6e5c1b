//! Eviction of idle connections where file descriptors or client slots
//! (`server.max_conn`) run out: pooled connections to backends first, then clients
//! between two requests.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;

use super::timers::{TICK, Wait};
use super::worker::{Admission, Worker};

/// Idle connections to backends that are closed at once.
const CLOSED_AT_ONCE: usize = 8;
/// The pause between two looks for a free descriptor or slot.
const PAUSE: Duration = TICK;
/// Looks for a slot that another worker frees.
const LOOKS_MAX: u32 = 4;
/// The time between two warnings of the same kind, in ticks: a minute.
pub(super) const WARN_INTERVAL_TICKS: u32 = 1200;

/// What a worker lacks and other workers may be able to free.
#[derive(Debug, Default)]
pub struct Demand {
    descriptors: AtomicBool,
    slots: Mutex<SlotRequests>,
}

/// Clients that wait for a slot, by number.
#[derive(Debug, Default)]
struct SlotRequests {
    open: BTreeSet<u64>,
    latest: u64,
}

impl Demand {
    fn slots(&self) -> MutexGuard<'_, SlotRequests> {
        // A panic cannot leave it half-changed.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests a slot until one is granted or the request is dropped.
    fn request_slot(&self) -> SlotRequest<'_> {
        let mut slots = self.slots();
        slots.latest += 1;
        let number = slots.latest;
        slots.open.insert(number);
        SlotRequest { of: self, number }
    }

    /// Grants slots while any are requested and `free` frees one.
    fn grant_slots(&self, mut free: impl FnMut() -> bool) {
        let mut slots = self.slots();
        while !slots.open.is_empty() && free() {
            slots.open.pop_first();
        }
    }
}

/// An open request for a slot; dropping it withdraws it.
struct SlotRequest<'a> {
    of: &'a Demand,
    number: u64,
}

impl Drop for SlotRequest<'_> {
    fn drop(&mut self) {
        self.of.slots().open.remove(&self.number);
    }
}

impl Worker {
    /// Frees a descriptor, at once or as soon as this worker's other tasks ran.
    /// `false`: this worker has no idle connection, and the other workers are asked.
    pub fn evict_idle(&self) -> bool {
        let evicted = self.evict_own_idle();
        if !evicted {
            self.shared
                .demand
                .descriptors
                .store(true, Ordering::Relaxed);
        }
        evicted
    }

    fn evict_own_idle(&self) -> bool {
        self.close_idle(CLOSED_AT_ONCE) > 0 || self.timers.fire_oldest(Wait::NextRequest)
    }

    /// Frees what other workers lack, where this one has idle connections.
    pub fn serve_demand(&self) {
        let demand = &self.shared.demand;
        if demand.descriptors.load(Ordering::Relaxed) && self.evict_own_idle() {
            demand.descriptors.store(false, Ordering::Relaxed);
        }
        demand.grant_slots(|| self.timers.fire_oldest(Wait::NextRequest));
    }

    /// Waits until a client that was accepted may keep its descriptor. The
    /// others wait in the listener's queue meanwhile.
    pub async fn wait_for_descriptor(&self, stream: &TcpStream) {
        while !(self.evict_idle() || self.shared.descriptors.is_available_for_client(stream)) {
            self.warn_of_shortage();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Warns once a minute that descriptors have run out.
    pub fn warn_of_shortage(&self) {
        let now = self.timers.now();
        if now >= self.shortage_warned_until.get() {
            self.shortage_warned_until.set(now + WARN_INTERVAL_TICKS);
            tracing::warn!(
                "no file descriptor is free, and all connections are in use: raise the limit of open files \
                 (LimitNOFILE= of the unit), or lower server.max_conn"
            );
        }
    }
}

/// Waits for the slot of an idle client of another worker.
pub async fn wait_for_slot(worker: &Rc<Worker>, admission: &mut Admission) -> bool {
    let _request = worker.shared.demand.request_slot();
    for _ in 0..LOOKS_MAX {
        tokio::time::sleep(PAUSE).await;
        if admission.take_slot() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_slot_is_granted_to_a_withdrawn_request() {
        let demand = Demand::default();
        let given = || {
            let mut given = 0;
            demand.grant_slots(|| {
                given += 1;
                given <= 5
            });
            given
        };
        let (left, first, second) = (
            demand.request_slot(),
            demand.request_slot(),
            demand.request_slot(),
        );
        drop(left);
        assert_eq!(given(), 2);
        drop((first, demand.request_slot()));
        assert_eq!(given(), 0);
        let third = demand.request_slot();
        // A granted request withdraws no other when it is dropped.
        drop(second);
        assert_eq!(given(), 1);
        drop(third);
    }
}
