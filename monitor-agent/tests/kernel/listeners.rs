//! Accept queues, as `ss` has them.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
};

use kernel_sample::ListenerSample;
use libtest_mimic::Failed;
use monitor_common::endpoint::Role;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
    sockopt::set_socket_reuseport,
};

use crate::{
    Case, Watch,
    lossy::run,
    watch::{Own, fresh, until},
};

pub(crate) const CASES: [Case; 2] = [
    ("a_full_accept_queue_is_that_of_ss", full_queue),
    (
        "sockets_that_share_an_address_are_one_listener",
        shared_address,
    ),
];

/// What keeps [`CASES`] from running here.
pub(crate) fn missing() -> Option<String> {
    crate::lossy::missing()
}

fn stream() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
}

fn listener(address: &SocketAddr, backlog: i32) -> Result<(OwnedFd, SocketAddr), Failed> {
    let listener = stream()?;
    set_socket_reuseport(&listener, true)?;
    bind(&listener, address)?;
    listen(&listener, backlog)?;
    let address = SocketAddr::try_from(getsockname(&listener)?)?;
    Ok((listener, address))
}

/// Queue, limit and drops, summed over the sockets of an address.
fn told_by_ss(address: SocketAddr) -> Result<[u64; 4], Failed> {
    let told = run(&format!("ss -tlnHmO src = {address}"))?;
    let mut sums = [0; 4];
    for line in told.lines() {
        let mut words = line.split_whitespace().skip(1);
        let mut number = || -> Result<u64, Failed> { Ok(words.next().unwrap().parse()?) };
        let memory = line.rsplit_once(",d").unwrap().1;
        let row = [
            1,
            number()?,
            number()?,
            memory.trim_end_matches(')').parse()?,
        ];
        sums = std::array::from_fn(|i| sums[i] + row[i]);
    }
    Ok(sums)
}

fn row(l: &ListenerSample) -> [u64; 4] {
    [
        l.sockets,
        l.accept_queue,
        l.accept_queue_limit,
        l.drops_total,
    ]
}

fn full_queue(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("accept-queue");
    let kernel = own.open(watch);
    let of = |address| {
        let found = kernel.read().listeners;
        found.into_iter().find(|l| l.address == address)
    };
    let (listener, address) = listener(&fresh(), 2)?;
    let empty = of(address).unwrap();
    assert_eq!((row(&empty), empty.accept_queue_max), ([1, 0, 2, 0], 0));
    let attempts: Vec<_> = (0..6)
        .map(|_| -> Result<OwnedFd, Failed> {
            let client = stream()?;
            let _in_progress = connect(&client, &address);
            Ok(client)
        })
        .collect::<Result<_, _>>()?;
    // One more than the backlog; the others' SYNs are dropped.
    watch.until(Role::Downstream, address, |c| {
        c.connections_established == 3
    });
    until("the SYNs were dropped", || {
        told_by_ss(address).unwrap()[3] >= 3
    });
    drop(attempts);
    let full = of(address).unwrap();
    assert_eq!(row(&full), told_by_ss(address)?);
    assert_eq!(
        (row(&full)[..3].to_vec(), full.accept_queue_max),
        (vec![1, 3, 2], 3)
    );
    assert_eq!(full.drops, full.drops_total);
    // What waited is taken; the most of the window stays until it was read.
    let accepted = TcpListener::from(listener);
    for _ in 0..2 {
        drop(accepted.accept()?);
    }
    let left = of(address).unwrap();
    assert_eq!(row(&left), told_by_ss(address)?);
    assert_eq!((left.accept_queue, left.drops), (1, 0));
    drop(accepted);
    assert_eq!(of(address), None);
    Ok(())
}

fn shared_address(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("accept-queues");
    let kernel = own.open(watch);
    let (first, address) = listener(&fresh(), 10)?;
    let (second, _) = listener(&address, 20)?;
    let clients: Vec<_> = (0..8)
        .map(|_| TcpStream::connect(address))
        .collect::<Result<_, _>>()?;
    watch.until(Role::Downstream, address, |c| {
        c.connections_established == 8
    });
    let found = kernel.read().listeners;
    let found = found.into_iter().find(|l| l.address == address).unwrap();
    assert_eq!(row(&found), told_by_ss(address)?);
    assert_eq!(row(&found), [2, 8, 30, 0]);
    drop((clients, first, second));
    Ok(())
}
