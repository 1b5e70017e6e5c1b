//! The admin API's listener. A reload may open one elsewhere and close this one.

use std::net::{SocketAddr, TcpListener as StdListener};

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::driver::listener::{self, ListenError};

/// A listener from which nothing is accepted yet.
#[derive(Debug)]
pub struct BoundAdmin {
    listener: StdListener,
    address: SocketAddr,
}

impl BoundAdmin {
    /// Binds to this host and port.
    ///
    /// # Errors
    /// [`ListenError`] where that is not possible.
    pub fn bind((host, port): &(String, u16)) -> Result<Self, ListenError> {
        let mut listeners = listener::open(listener::resolve(host, *port)?, 1)?;
        let (_, address) = listener::duplicate_first(&listeners)?;
        let listener = listeners.remove(0);
        Ok(Self { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands the listener to `serve`. Must be called within a runtime.
    ///
    /// # Errors
    /// The runtime's, where it cannot register the listener.
    pub(super) fn start(
        self,
        serve: impl FnOnce(AdminSocket),
    ) -> Result<AdminListener, ListenError> {
        let (open, closing) = watch::channel(());
        let is_loopback = self.address.ip().is_loopback();
        serve(AdminSocket {
            listener: TcpListener::from_std(self.listener).map_err(ListenError::Handle)?,
            is_loopback,
            closing,
        });
        Ok(AdminListener {
            address: self.address,
            is_loopback,
            _open: open,
        })
    }
}

/// What the admin API's server accepts connections from.
#[derive(Debug)]
pub struct AdminSocket {
    /// The listener.
    pub listener: TcpListener,
    /// Whether only this machine can connect.
    pub is_loopback: bool,
    /// Its sender is dropped when the listener closes: no further request is
    /// answered then.
    pub closing: watch::Receiver<()>,
}

/// The listener in use. Dropping it closes it: a request that is being handled is
/// still answered, and no further one on its connection.
#[derive(Debug)]
pub(super) struct AdminListener {
    pub(super) address: SocketAddr,
    pub(super) is_loopback: bool,
    _open: watch::Sender<()>,
}
