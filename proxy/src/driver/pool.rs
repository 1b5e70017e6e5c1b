//! Idle connections to a backend, per worker, last in first out: the one used
//! last is the one whose memory is still in the cache, and the ones at the
//! bottom grow old and are closed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::io::Io;
use crate::state::Backend;

/// Most idle connections that one worker keeps to one backend.
const IDLE_MAX: usize = 16 * 1024;

#[derive(Debug)]
struct Idle {
    io: Io,
    since: u32,
}

/// A backend as one worker sees it.
#[derive(Debug)]
pub struct LocalBackend {
    /// What all workers share.
    pub shared: Arc<Backend>,
    idle: RefCell<Vec<Idle>>,
    retired: Cell<bool>,
}

impl LocalBackend {
    /// A backend without connections.
    #[must_use]
    pub fn new(shared: Arc<Backend>) -> Rc<Self> {
        Rc::new(Self {
            shared,
            idle: RefCell::default(),
            retired: Cell::new(false),
        })
    }

    /// A pooled connection on which nothing has happened since.
    pub fn checkout(&self) -> Option<Io> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut one) = idle.pop() {
            if one.io.is_quiet() {
                return Some(one.io);
            }
        }
        None
    }

    /// Puts a connection back for the next request.
    pub fn put_back(&self, io: Io, now: u32) {
        let mut idle = self.idle.borrow_mut();
        if !self.retired.get() && idle.len() < IDLE_MAX {
            idle.push(Idle { io, since: now });
        }
    }

    /// Closes what is older than `oldest` or has been ended by the backend.
    pub fn prune(&self, oldest: u32) {
        self.idle
            .borrow_mut()
            .retain_mut(|one| one.since >= oldest && one.io.is_quiet());
    }

    /// Closes all.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    /// Closes all and keeps none from now on.
    pub fn retire(&self) {
        self.retired.set(true);
        self.idle.borrow_mut().clear();
    }
}

/// A place at a backend, given back when dropped.
#[derive(Debug)]
pub struct Lease {
    /// The backend.
    pub backend: Rc<LocalBackend>,
}

impl Lease {
    /// Takes a place, where there is one.
    #[must_use]
    pub fn acquire(backend: &Rc<LocalBackend>) -> Option<Self> {
        backend.shared.try_acquire().then(|| Self {
            backend: Rc::clone(backend),
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.backend.shared.release();
    }
}
