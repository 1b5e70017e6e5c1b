//! Listening sockets: one per worker on the same address.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::overlap;

/// Connections that the kernel holds for a worker that is busy.
const BACKLOG: i32 = 65_535;

/// Why the proxy cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The host has no address.
    #[error("cannot resolve the address {host}:{port} to listen on: {source}")]
    Resolve {
        /// As configured.
        host: String,
        /// As configured.
        port: u16,
        /// The reason.
        source: io::Error,
    },
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The kernel would divide the clients between two listeners.
    #[error(
        "admin.port: the admin API at {admin} overlaps with server.port at {traffic}: \
         write another port at one of them"
    )]
    Shared {
        /// The admin API's address.
        admin: SocketAddr,
        /// The traffic's.
        traffic: SocketAddr,
    },
    /// An open listener cannot be kept hold of.
    #[error("cannot register the listening socket: {0}")]
    Handle(io::Error),
}

/// The address to listen on.
///
/// # Errors
/// [`ListenError::Resolve`] where the host has none.
pub fn resolve(host: &str, port: u16) -> Result<SocketAddr, ListenError> {
    let error = |source| ListenError::Resolve {
        host: host.to_owned(),
        port,
        source,
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let mut found = (bare, port).to_socket_addrs().map_err(error)?;
    found
        .next()
        .ok_or_else(|| error(io::ErrorKind::NotFound.into()))
}

/// Refuses an admin API where the traffic is. The configuration is checked for
/// that as well, but names and ports that the kernel chose are known only here.
///
/// # Errors
/// [`ListenError::Shared`] where they have clients in common.
pub fn check_apart(traffic: SocketAddr, admin: SocketAddr) -> Result<(), ListenError> {
    let same_port = admin.port() == traffic.port() && admin.port() != 0;
    if same_port && overlap(admin.ip(), traffic.ip()) {
        return Err(ListenError::Shared { admin, traffic });
    }
    Ok(())
}

/// Opens `count` listeners on one address. With port 0 the kernel chooses for
/// the first, and the others share its choice.
///
/// # Errors
/// [`ListenError::Bind`] where the address cannot be used.
pub fn open(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, ListenError> {
    let mut actual = address;
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let listener = bind(actual).map_err(|source| ListenError::Bind {
            address: actual,
            source,
        })?;
        actual = listener.local_addr().map_err(|source| ListenError::Bind {
            address: actual,
            source,
        })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// A second hold on the first of some listeners, and its address.
///
/// # Errors
/// [`ListenError::Handle`] where the system gives neither.
pub fn duplicate_first(
    listeners: &[TcpListener],
) -> Result<(TcpListener, SocketAddr), ListenError> {
    let first = listeners
        .first()
        .ok_or_else(|| ListenError::Handle(io::ErrorKind::NotFound.into()))?;
    let held = first.try_clone().map_err(ListenError::Handle)?;
    let address = first.local_addr().map_err(ListenError::Handle)?;
    Ok((held, address))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
