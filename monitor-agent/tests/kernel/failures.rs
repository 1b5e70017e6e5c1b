//! Connections that are never established, by reason.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
};

use libtest_mimic::Failed;
use monitor_common::{counters::Failure, endpoint::Role};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::{Case, Watch};

pub(crate) const CASES: [Case; 2] = [
    ("a_closed_port_refuses", a_closed_port_refuses),
    (
        "an_attempt_that_is_given_up_is_aborted",
        given_up_is_aborted,
    ),
];

fn a_closed_port_refuses(watch: &Watch) -> Result<(), Failed> {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.local_addr()?
    };
    for _ in 0..3 {
        assert!(TcpStream::connect(address).is_err());
    }
    let counters = watch.ended(Role::Upstream, address, 3);
    assert_eq!(counters.connections_opened, 3);
    assert_eq!(counters.connections_failed[Failure::Refused as usize], 3);
    assert_eq!(
        (
            counters.connections_established,
            counters.connections_closed
        ),
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
    rustix::net::bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
    rustix::net::listen(&listener, 0)?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&listener)?)?;
    // One fits into the queue of length 0; the others wait for an answer.
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = stream()?;
        let _in_progress = connect(client.as_fd(), &address);
        clients.push(client);
    }
    watch.until(Role::Upstream, address, |c| c.connections_established >= 1);
    drop(clients);
    let counters = watch.ended(Role::Upstream, address, 4);
    let aborted = counters.connections_failed[Failure::Aborted as usize];
    assert!(
        aborted >= 2,
        "{aborted} aborted, {} established",
        counters.connections_established
    );
    assert_eq!(counters.connections_failed.iter().sum::<u64>(), aborted);
    assert_eq!(aborted + counters.connections_closed, 4);
    assert_eq!(counters.connections_active(), 0);
    Ok(())
}
