//! Who gives way where descriptors or places run out: connections that nobody
//! uses, to backends first, then those of clients that wait between two requests.

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
/// The pause before it is looked again for a free descriptor.
const PAUSE: Duration = TICK;
/// How often it is looked for a place that another worker makes.
const LOOKS_MAX: u32 = 4;
/// How often the log tells of what goes on, in ticks: once a minute.
pub(super) const WARN_INTERVAL_TICKS: u32 = 1200;

/// What some workers need and others may have to give.
#[derive(Debug, Default)]
pub struct Demand {
    descriptors: AtomicBool,
    places: Mutex<Places>,
}

/// Who wants a place, by number.
#[derive(Debug, Default)]
struct Places {
    wanted: BTreeSet<u64>,
    latest: u64,
}

impl Demand {
    fn places(&self) -> MutexGuard<'_, Places> {
        // What a panic left behind is whole.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a place until that is given or dropped.
    fn ask(&self) -> SlotRequest<'_> {
        let mut places = self.places();
        places.latest += 1;
        let number = places.latest;
        places.wanted.insert(number);
        SlotRequest { of: self, number }
    }

    /// Gives places for as long as they are wanted and `give` has one.
    fn grant_slots(&self, mut give: impl FnMut() -> bool) {
        let mut places = self.places();
        while !places.wanted.is_empty() && give() {
            places.wanted.pop_first();
        }
    }
}

/// One that wants a place; nobody is asked for it any more once this is dropped.
struct SlotRequest<'a> {
    of: &'a Demand,
    number: u64,
}

impl Drop for SlotRequest<'_> {
    fn drop(&mut self) {
        self.of.places().wanted.remove(&self.number);
    }
}

impl Worker {
    /// Frees a descriptor, at once or as soon as this worker's other tasks ran.
    /// `false`: this worker has none to give, and the others are asked.
    pub fn evict_idle(&self) -> bool {
        let given = self.evict_own_idle();
        if !given {
            self.shared
                .demand
                .descriptors
                .store(true, Ordering::Relaxed);
        }
        given
    }

    fn evict_own_idle(&self) -> bool {
        self.close_idle(CLOSED_AT_ONCE) > 0 || self.timers.fire_oldest(Wait::Next)
    }

    /// Gives what other workers want, where this one has it.
    pub fn serve_demand(&self) {
        let wanted = &self.shared.demand;
        if wanted.descriptors.load(Ordering::Relaxed) && self.evict_own_idle() {
            wanted.descriptors.store(false, Ordering::Relaxed);
        }
        wanted.grant_slots(|| self.timers.fire_oldest(Wait::Next));
    }

    /// Waits until a client that was accepted may keep its descriptor. The
    /// others wait in the listener's queue meanwhile.
    pub async fn wait_for_descriptor(&self, stream: &TcpStream) {
        while !(self.evict_idle() || self.shared.descriptors.is_available_for_client(stream)) {
            self.warn_of_shortage();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Says once a minute that descriptors have run out.
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

/// Waits for a place that an idle client of another worker gives up.
pub async fn wait_for_slot(worker: &Rc<Worker>, admission: &mut Admission) -> bool {
    let _asking = worker.shared.demand.ask();
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
    fn no_place_is_given_to_who_does_not_ask_any_more() {
        let wanted = Demand::default();
        let given = || {
            let mut given = 0;
            wanted.grant_slots(|| {
                given += 1;
                given <= 5
            });
            given
        };
        let (left, first, second) = (wanted.ask(), wanted.ask(), wanted.ask());
        drop(left);
        assert_eq!(given(), 2);
        drop((first, wanted.ask()));
        assert_eq!(given(), 0);
        let third = wanted.ask();
        // One that was given its place takes nobody else's back.
        drop(second);
        assert_eq!(given(), 1);
        drop(third);
    }
}
