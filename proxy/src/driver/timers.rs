//! Coarse deadlines for every connection of a worker.
//!
//! Setting a deadline happens several times per request, so it is one store into
//! a table that a ticker walks. It reads no clock and touches no queue; the
//! price is a precision of one tick.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

/// The time between two walks of the table.
pub const TICK: Duration = Duration::from_millis(50);

const NEVER: u32 = u32::MAX;
const FIRED: u32 = 0;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Something that belongs to a request.
    Busy,
    /// Its first request, or the rest of a head.
    Head,
    /// A further request.
    NextRequest,
}

#[derive(Default)]
struct Slots {
    deadlines: Vec<u32>,
    wakers: Vec<Option<Waker>>,
    waits: Vec<Wait>,
    free: Vec<u32>,
}

/// All deadlines of one worker.
pub struct Timers {
    now: Cell<u32>,
    slots: RefCell<Slots>,
}

impl std::fmt::Debug for Timers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Timers")
            .field("now", &self.now.get())
            .finish_non_exhaustive()
    }
}

/// A duration in ticks, rounded up, at least one.
#[must_use]
pub fn ticks(duration: Duration) -> u32 {
    let ticks = duration.as_millis().div_ceil(TICK.as_millis());
    u32::try_from(ticks)
        .unwrap_or(NEVER / 2)
        .clamp(1, NEVER / 2)
}

impl Timers {
    /// An empty table.
    #[must_use]
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            now: Cell::new(1),
            slots: RefCell::default(),
        })
    }

    /// Ticks since the start.
    #[must_use]
    pub fn now(&self) -> u32 {
        self.now.get()
    }

    /// Moves time on to `now` and wakes the tasks whose deadline has passed.
    pub fn advance(&self, now: u32) {
        self.now.set(now);
        let mut slots = self.slots.borrow_mut();
        let slots = &mut *slots;
        for (index, deadline) in slots.deadlines.iter_mut().enumerate() {
            if *deadline <= now && *deadline != FIRED {
                *deadline = FIRED;
                if let Some(waker) = &slots.wakers[index] {
                    waker.wake_by_ref();
                }
            }
        }
    }

    /// Fires the deadline of every connection that waits so.
    pub fn fire(&self, wait: Wait) {
        let mut slots = self.slots.borrow_mut();
        let slots = &mut *slots;
        for (index, _) in slots
            .waits
            .iter()
            .enumerate()
            .filter(|(_, one)| **one == wait)
        {
            slots.deadlines[index] = FIRED;
            if let Some(waker) = &slots.wakers[index] {
                waker.wake_by_ref();
            }
        }
    }

    /// Puts the deadlines of those that wait so to `ticks` from now at the latest.
    pub fn bring_forward(&self, wait: Wait, ticks: u32) {
        let latest = self.now.get() + ticks + 1;
        let mut slots = self.slots.borrow_mut();
        let slots = &mut *slots;
        for (deadline, one) in slots.deadlines.iter_mut().zip(&slots.waits) {
            if *one == wait {
                *deadline = latest.min(*deadline);
            }
        }
    }

    /// Fires the earliest deadline of those that wait so; `false` where none is
    /// left that has not fired.
    pub fn fire_oldest(&self, wait: Wait) -> bool {
        let mut slots = self.slots.borrow_mut();
        let slots = &mut *slots;
        let waiting = slots.waits.iter().zip(&slots.deadlines).enumerate();
        let waiting = waiting.filter(|(_, (one, deadline))| **one == wait && **deadline != FIRED);
        let Some((index, _)) = waiting.min_by_key(|(_, (_, deadline))| **deadline) else {
            return false;
        };
        slots.deadlines[index] = FIRED;
        if let Some(waker) = &slots.wakers[index] {
            waker.wake_by_ref();
        }
        true
    }

    /// A deadline for the connection that calls.
    #[must_use]
    pub fn timer(self: &Rc<Self>) -> Timer {
        let mut slots = self.slots.borrow_mut();
        let index = slots.free.pop().unwrap_or_else(|| {
            slots.deadlines.push(NEVER);
            slots.wakers.push(None);
            slots.waits.push(Wait::Busy);
            u32::try_from(slots.deadlines.len() - 1).expect("fewer connections than descriptors")
        });
        Timer {
            timers: Rc::clone(self),
            index,
        }
    }
}

/// One connection's deadline.
#[derive(Debug)]
pub struct Timer {
    timers: Rc<Timers>,
    index: u32,
}

impl Timer {
    /// Registers the task to wake. A task's waker stays the same for its life, so
    /// once is enough.
    pub fn register(&self, cx: &Context<'_>) {
        self.timers.slots.borrow_mut().wakers[self.index as usize] = Some(cx.waker().clone());
    }

    /// Sets the deadline `ticks` from now.
    pub fn arm(&self, ticks: u32) {
        self.arm_for(Wait::Busy, ticks);
    }

    /// Sets the deadline of a wait that a stop may cut short.
    pub fn arm_for(&self, wait: Wait, ticks: u32) {
        let mut slots = self.timers.slots.borrow_mut();
        // The current tick is partly over, so one more keeps the promise.
        slots.deadlines[self.index as usize] = self.timers.now.get() + ticks + 1;
        slots.waits[self.index as usize] = wait;
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn fired(&self) -> bool {
        self.timers.slots.borrow().deadlines[self.index as usize] == FIRED
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut slots = self.timers.slots.borrow_mut();
        let at = self.index as usize;
        slots.deadlines[at] = NEVER;
        slots.wakers[at] = None;
        slots.waits[at] = Wait::Busy;
        slots.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_fires_once_it_has_passed() {
        let timers = Timers::new();
        let timer = timers.timer();
        timer.arm(2);
        timers.advance(3);
        assert!(!timer.fired());
        timers.advance(4);
        assert!(timer.fired());
        timer.arm(1);
        assert!(!timer.fired());
    }

    #[test]
    fn a_stop_fires_only_those_that_wait_for_a_next_request() {
        let timers = Timers::new();
        let (idle, busy) = (timers.timer(), timers.timer());
        idle.arm_for(Wait::NextRequest, 100);
        busy.arm(100);
        timers.fire(Wait::NextRequest);
        assert!(idle.fired());
        assert!(!busy.fired());
    }

    #[test]
    fn the_one_that_has_waited_longest_gives_way_first_and_once() {
        let timers = Timers::new();
        let waiting = [timers.timer(), timers.timer(), timers.timer()];
        waiting[0].arm_for(Wait::NextRequest, 9);
        waiting[1].arm_for(Wait::NextRequest, 7);
        waiting[2].arm(1);
        let fired = || [0, 1, 2].map(|at: usize| waiting[at].fired());
        assert!(timers.fire_oldest(Wait::NextRequest));
        assert_eq!(fired(), [false, true, false]);
        assert!(timers.fire_oldest(Wait::NextRequest));
        assert_eq!(fired(), [true, true, false]);
        assert!(!timers.fire_oldest(Wait::NextRequest));
    }

    #[test]
    fn a_stop_hastens_those_that_wait_for_a_head() {
        let timers = Timers::new();
        let (head, early, busy) = (timers.timer(), timers.timer(), timers.timer());
        head.arm_for(Wait::Head, 100);
        early.arm_for(Wait::Head, 1);
        busy.arm(100);
        timers.bring_forward(Wait::Head, 5);
        timers.advance(4);
        assert_eq!(
            [&head, &early, &busy].map(Timer::fired),
            [false, true, false]
        );
        timers.advance(7);
        assert_eq!(
            [&head, &early, &busy].map(Timer::fired),
            [true, true, false]
        );
    }

    #[test]
    fn slots_are_used_again() {
        let timers = Timers::new();
        drop(timers.timer());
        let timer = timers.timer();
        assert_eq!(timer.index, 0);
        assert!(!timer.fired());
    }

    #[test]
    fn durations_round_up() {
        assert_eq!(ticks(Duration::from_millis(1)), 1);
        assert_eq!(ticks(Duration::from_millis(101)), 3);
        assert_eq!(ticks(Duration::MAX), NEVER / 2);
    }
}
