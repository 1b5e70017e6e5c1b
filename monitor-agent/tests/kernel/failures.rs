//! Connections that are never established, by reason.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, OwnedFd},
};

use libtest_mimic::Failed;
use monitor_common::{counters::Failure, endpoint::Role};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::{Case, Watch, watch::fresh};

pub(crate) const CASES: [Case; 3] = [
    ("a_closed_port_refuses", a_closed_port_refuses),
    (
        "an_attempt_without_a_free_port_is_told",
        without_a_free_port,
    ),
    (
        "an_attempt_that_is_given_up_is_aborted",
        given_up_is_aborted,
    ),
];

fn a_closed_port_refuses(watch: &Watch) -> Result<(), Failed> {
    let address = {
        let listener = TcpListener::bind(fresh())?;
        listener.local_addr()?
    };
    for _ in 0..3 {
        assert!(TcpStream::connect(address).is_err());
    }
    let counters = watch.ended(Role::Upstream, address, 3);
    assert_eq!(counters.connections_opened, 3);
    assert_eq!(counters.connections_failed[Failure::Refused as usize], 3);
    assert_eq!(
        (counters.connections_established, counters.closed()),
        (0, 0)
    );
    Ok(())
}

/// A listener whose accept queue is full drops SYNs, so an attempt stays under
/// way until it is closed.
fn given_up_is_aborted(watch: &Watch) -> Result<(), Failed> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = || socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
    let listener = stream()?;
    rustix::net::bind(&listener, &fresh())?;
    rustix::net::listen(&listener, 0)?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&listener)?)?;
    let attempt = || -> Result<OwnedFd, Failed> {
        let client = stream()?;
        let _in_progress = connect(client.as_fd(), &address);
        Ok(client)
    };
    // One fits into the queue of length 0; from then on SYNs are dropped.
    let first = attempt()?;
    watch.until(Role::Downstream, address, |c| {
        c.connections_established == 1
    });
    let others = [attempt()?, attempt()?, attempt()?];
    drop(others);
    let counters = watch.ended(Role::Upstream, address, 3);
    assert_eq!(counters.connections_failed[Failure::Aborted as usize], 3);
    assert_eq!(counters.connections_failed.iter().sum::<u64>(), 3);
    assert_eq!(
        (counters.connections_opened, counters.connections_active()),
        (4, 1)
    );
    drop((first, listener));
    let counters = watch.ended(Role::Upstream, address, 4);
    assert_eq!((counters.closed(), counters.connections_active()), (1, 0));
    Ok(())
}

/// Bound to a port from which the peer is connected to already, a second
/// attempt dies before its SYN.
fn without_a_free_port(watch: &Watch) -> Result<(), Failed> {
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    let bound = |local: &SocketAddr| -> Result<OwnedFd, Failed> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, local)?;
        Ok(socket)
    };
    let first = bound(&fresh())?;
    connect(&first, &address)?;
    let _accepted = listener.accept()?;
    let local = SocketAddr::try_from(rustix::net::getsockname(&first)?)?;
    for _ in 0..3 {
        let second = bound(&local)?;
        // Twice on one socket: each is an attempt.
        assert!(connect(&second, &address).is_err());
        assert!(connect(&second, &address).is_err());
    }
    let counters = watch.until(Role::Upstream, address, |c| c.failed_before_syn >= 6);
    assert_eq!(
        (counters.failed_before_syn, counters.connections_opened),
        (6, 1)
    );
    assert_eq!(counters.connections_failed, [0; 6]);
    Ok(())
}
