//! A bounded queue that forgets its oldest items rather than make anyone wait.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How many samples wait for the next report.
pub const SAMPLES_MAX: usize = 1_000;

/// A bounded queue; what does not fit pushes the oldest out, and is counted.
#[derive(Debug)]
pub struct DropOldest<T> {
    capacity: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    dropped: u64,
}

impl<T> DropOldest<T> {
    /// A queue of at most `capacity` items.  Memory is taken as it fills.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let state = State {
            items: VecDeque::new(),
            dropped: 0,
        };
        Self {
            capacity,
            state: Mutex::new(state),
        }
    }

    /// Adds an item, at the cost of the oldest one where there is no room.
    pub fn push(&self, item: T) {
        let mut state = self.lock();
        if state.items.len() >= self.capacity {
            state.items.pop_front();
            state.dropped += 1;
        }
        state.items.push_back(item);
    }

    /// Takes everything, oldest first.  The lock is held for a pointer swap.
    pub fn drain(&self) -> VecDeque<T> {
        std::mem::take(&mut self.lock().items)
    }

    /// How many items wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().items.len()
    }

    /// How many items were pushed out so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code that can panic runs under the lock, and the state is whole
        // between any two statements of it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_are_counted() {
        let queue = DropOldest::new(3);
        (0..5).for_each(|n| queue.push(n));
        assert_eq!(queue.dropped(), 2);
        assert_eq!(queue.drain(), [2, 3, 4]);
        assert!(queue.drain().is_empty());
        assert_eq!(queue.dropped(), 2);
    }
}
