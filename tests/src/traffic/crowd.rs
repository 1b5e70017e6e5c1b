//! Many connections with nothing on them, both ends in this process.
//!
//! They end by a reset, so that no time-wait is left behind.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;

/// Connections that stay until they are dropped.
#[derive(Debug)]
pub struct Crowd {
    listeners: Vec<TcpListener>,
    connections: Vec<(TcpStream, TcpStream)>,
}

impl Crowd {
    /// How many connections, at how many listeners.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.connections.len(), self.listeners.len())
    }

    /// Opens connections, spread evenly over so many listeners.
    ///
    /// # Errors
    ///
    /// Where the process may not have so many open files.
    pub fn open(connections: usize, listeners: usize) -> io::Result<Self> {
        let listeners: Vec<TcpListener> = (0..listeners.max(1))
            .map(|_| listener())
            .collect::<io::Result<_>>()?;
        let addresses: Vec<SocketAddr> = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<io::Result<_>>()?;
        let connections = (0..connections)
            .map(|n| {
                let at = n % listeners.len();
                connect(&listeners[at], addresses[at])
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            listeners,
            connections,
        })
    }
}

/// Opens and ends so many connections, one after the other.
///
/// # Errors
///
/// Where one cannot be opened.
pub fn open_and_end(connections: usize) -> io::Result<()> {
    let listener = listener()?;
    let address = listener.local_addr()?;
    for _ in 0..connections {
        connect(&listener, address)?;
    }
    Ok(())
}

fn listener() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

fn connect(listener: &TcpListener, address: SocketAddr) -> io::Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect(address)?;
    let server = listener.accept()?.0;
    set_socket_linger(&client, Some(Duration::ZERO))?;
    Ok((client, server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_spread_over_its_listeners() {
        let crowd = Crowd::open(5, 2).unwrap();
        let at = |n: usize| crowd.connections[n].0.peer_addr().unwrap();
        assert_eq!(crowd.size(), (5, 2));
        assert_eq!(at(0), at(2));
        assert_ne!(at(0), at(1));
        open_and_end(3).unwrap();
    }
}
