//! Who gives way where descriptors or places run out: connections that nobody
//! uses, to backends first, then those of clients that wait between two requests.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
pub(super) const TOLD_TICKS: u32 = 1200;

/// What some workers need and others may have to give.
#[derive(Debug, Default)]
pub struct Wanted {
    descriptors: AtomicUsize,
    places: AtomicUsize,
}

/// Takes one off, unless that was done already.
fn settle(wanted: &AtomicUsize) {
    let less = |count: usize| count.checked_sub(1);
    if let Err(none) = wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
        debug_assert_eq!(none, 0, "another worker has given it");
    }
}

impl Worker {
    /// Frees a descriptor, at once or as soon as this worker's other tasks ran.
    /// `false`: this worker has none to give, and the others are asked.
    pub fn give_way(&self) -> bool {
        let given = self.give_way_here();
        if !given {
            self.shared.wanted.descriptors.store(1, Ordering::Relaxed);
        }
        given
    }

    fn give_way_here(&self) -> bool {
        self.close_idle(CLOSED_AT_ONCE) > 0 || self.timers.fire_oldest(Wait::Next)
    }

    /// Gives what other workers want, where this one has it.
    pub fn give_wanted(&self) {
        let wanted = &self.shared.wanted;
        if wanted.descriptors.load(Ordering::Relaxed) > 0 && self.give_way_here() {
            settle(&wanted.descriptors);
        }
        while wanted.places.load(Ordering::Relaxed) > 0 && self.timers.fire_oldest(Wait::Next) {
            settle(&wanted.places);
        }
    }

    /// Waits until a client that was accepted may keep its descriptor. The
    /// others wait in the listener's queue meanwhile.
    pub async fn room_for(&self, stream: &TcpStream) {
        while !(self.give_way() || self.shared.room.is_free_for_client(stream)) {
            self.tell_of_shortage();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Says once a minute that descriptors have run out.
    pub fn tell_of_shortage(&self) {
        let now = self.timers.now();
        if now >= self.shortage_told_until.get() {
            self.shortage_told_until.set(now + TOLD_TICKS);
            tracing::warn!(
                "no file descriptor is free, and all connections are in use: raise the limit of open files \
                 (LimitNOFILE= of the unit), or lower server.max_conn"
            );
        }
    }
}

/// Waits for a place that an idle client of another worker gives up.
pub async fn place_soon(worker: &Rc<Worker>, admission: &mut Admission) -> bool {
    let wanted = &worker.shared.wanted.places;
    wanted.fetch_add(1, Ordering::Relaxed);
    for _ in 0..LOOKS_MAX {
        tokio::time::sleep(PAUSE).await;
        if admission.take_place() {
            return true;
        }
    }
    settle(wanted);
    false
}
