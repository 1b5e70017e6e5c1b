//! Where the admin API is open. A reload may open it elsewhere and close it here.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::server;
use crate::control::Control;
use crate::driver::listener::{self, ListenError};

/// A listener whose clients are not answered yet.
#[derive(Debug)]
pub struct Closed {
    listener: StdListener,
    address: SocketAddr,
}

impl Closed {
    /// Listens at this host and port.
    ///
    /// # Errors
    /// [`ListenError`] where that cannot be.
    pub fn listen((host, port): &(String, u16)) -> Result<Self, ListenError> {
        let mut listeners = listener::open(listener::resolve(host, *port)?, 1)?;
        let (_, address) = listener::hold(&listeners)?;
        let listener = listeners.remove(0);
        Ok(Self { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to answer. Must be called within a runtime.
    ///
    /// # Errors
    /// The runtime's, where it cannot take the listener.
    pub fn open(self, control: Arc<Control>) -> Result<Door, ListenError> {
        let listener = TcpListener::from_std(self.listener).map_err(ListenError::Hold)?;
        let sign = Arc::new(Sign {
            is_loopback: self.address.ip().is_loopback(),
            is_open: AtomicBool::new(true),
        });
        let serving = tokio::spawn(server::serve(listener, control, Arc::clone(&sign)));
        Ok(Door {
            address: self.address,
            sign,
            acceptor: serving.abort_handle(),
        })
    }
}

/// What the connections of one listener go by.
#[derive(Debug)]
pub(super) struct Sign {
    /// Whether only this machine can come.
    pub(super) is_loopback: bool,
    is_open: AtomicBool,
}

impl Sign {
    /// Whether requests are still answered here.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }
}

/// A listener whose clients are answered. Dropping it closes it: a request that
/// is being handled is still answered, and no further one on its connection.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    sign: Arc<Sign>,
    acceptor: AbortHandle,
}

impl Door {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether only this machine can come.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.sign.is_loopback
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.sign.is_open.store(false, Ordering::Relaxed);
        self.acceptor.abort();
    }
}
