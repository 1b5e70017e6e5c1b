//! Idle connections to a backend, per worker, last in first out: the one used
//! last is the one whose memory is still in the cache, and the ones at the
//! bottom grow old and are closed.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::io::Io;
use crate::backend::Backend;
use crate::tls;

/// Most idle connections that one worker keeps to one backend.
const IDLE_MAX: usize = 16 * 1024;

/// What happens to a backend's connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It is closed.
    Close,
    /// It is kept for the next request.
    Keep {
        /// For how long.
        ticks: u32,
        /// Whether the answer was one without a body, behind which some backends
        /// send one all the same: it is looked for before the next request.
        verify: bool,
    },
}

#[derive(Debug)]
struct Idle {
    io: Io,
    until: u32,
    verify: bool,
}

/// A backend as one worker sees it.
#[derive(Debug)]
pub struct LocalBackend {
    /// What all workers share.
    pub shared: Arc<Backend>,
    idle_ticks: Cell<u32>,
    idle: RefCell<Vec<Idle>>,
    retired: Cell<bool>,
    warned_until: Cell<u32>,
}

impl LocalBackend {
    /// A backend without connections.
    #[must_use]
    pub fn new(shared: Arc<Backend>) -> Rc<Self> {
        Rc::new(Self {
            shared,
            idle_ticks: Cell::new(0),
            idle: RefCell::default(),
            retired: Cell::new(false),
            warned_until: Cell::new(0),
        })
    }

    /// Keeps idle connections for so many ticks; 0: keeps none.
    pub fn keep_idle_for(&self, ticks: u32) {
        self.idle_ticks.set(ticks);
        if ticks == 0 {
            self.clear();
        }
    }

    /// Logs why the TLS handshake failed, once in so many ticks.
    pub fn warn_of_tls_failure(&self, error: &io::Error, now: u32, ticks: u32) {
        if now < self.warned_until.get() {
            return;
        }
        self.warned_until.set(now.saturating_add(ticks));
        let (upstream, backend) = (&self.shared.upstream, &self.shared.config.id);
        tracing::warn!(%upstream, %backend, %error, "the TLS handshake failed: {}", tls::remedy(error));
    }

    /// For how many ticks an idle connection is kept; 0: none is.
    #[must_use]
    pub fn idle_ticks(&self) -> u32 {
        self.idle_ticks.get()
    }

    /// A pooled connection on which nothing has happened since, as far as the
    /// driver knows or, with `ask_kernel`, the kernel.
    pub fn checkout(&self, now: u32, ask_kernel: bool) -> Option<Io> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut one) = idle.pop() {
            let quiet = if ask_kernel || one.verify {
                one.io.is_idle_by_kernel()
            } else {
                one.io.is_idle()
            };
            if quiet && one.until > now {
                return Some(one.io);
            }
        }
        None
    }

    /// Puts a connection back for the next request.
    pub fn put_back(&self, io: Io, now: u32, after: After) {
        let After::Keep { ticks, verify } = after else {
            return;
        };
        let mut idle = self.idle.borrow_mut();
        if !self.retired.get() && idle.len() < IDLE_MAX {
            idle.push(Idle {
                io,
                until: now.saturating_add(ticks),
                verify,
            });
        }
    }

    /// Closes what is too old or has been ended by the backend.
    pub fn prune(&self, now: u32) {
        self.idle
            .borrow_mut()
            .retain_mut(|one| one.until > now && one.io.is_idle());
    }

    /// Closes those that were used least lately, at most so many; gives how many.
    pub fn close_oldest(&self, most: usize) -> usize {
        let mut idle = self.idle.borrow_mut();
        let closed = most.min(idle.len());
        drop(idle.drain(..closed));
        closed
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

/// A slot at a backend, released when dropped.
#[derive(Debug)]
pub struct Lease {
    /// The backend.
    pub backend: Rc<LocalBackend>,
}

impl Lease {
    /// Takes a slot, where one is free.
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
