//! Accept queues, as `ss` and `nstat` have them.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::Arc,
};

use kernel_sample::{Level, ListenerSample};
use libtest_mimic::Failed;
use monitor_agent::view::View;
use monitor_common::endpoint::Role;
use monitor_proto::v1;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
    sockopt::set_socket_reuseport,
};

use crate::{
    Case, Watch,
    lossy::run,
    network::{in_own_network, nstat},
    watch::{Own, fresh, until},
};

pub(crate) const CASES: [Case; 3] = [
    ("a_full_accept_queue_is_that_of_ss", full_queue),
    (
        "sockets_that_share_an_address_are_one_listener",
        shared_address,
    ),
    ("a_report_has_a_queue_as_ss_and_nstat_have_it", reported),
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

/// Of a network of its own, whose counters no other test changes: a listener on every
/// address, in whose queue the connections to two addresses wait.
fn reported(watch: &Watch) -> Result<(), Failed> {
    const BACKLOG: u64 = 4;
    in_own_network(|| {
        let own = Own::new("accept-queue-report");
        let kernel = own.open(watch);
        let (socket, any) = listener(&([0, 0, 0, 0], 0).into(), BACKLOG as i32)?;
        let mut view = View::new(v1::Host::default(), &[&*watch.target().label]);
        let mut look = || view.look(kernel.read(), Level::Tcp, &Arc::default());
        look();
        let to = |n: u8| SocketAddr::from(([127, 0, 0, n], any.port()));
        let mut clients = Vec::new();
        for n in [1, 2, 1, 2, 1, 2, 1, 2] {
            let client = stream()?;
            let _in_progress = connect(&client, &to(n));
            clients.push(client);
        }
        until("the queue is full and SYNs were dropped", || {
            nstat("TcpExtListenOverflows").unwrap() >= 8 - (BACKLOG + 1)
        });
        // No SYN is sent again from now on.
        drop(clients);
        let [sockets, queue, limit, drops] = told_by_ss(any)?;
        assert_eq!([sockets, queue, limit], [1, BACKLOG + 1, BACKLOG]);
        assert_eq!(drops, nstat("TcpExtListenOverflows")?);
        assert_eq!(drops, nstat("TcpExtListenDrops")?);
        let full = look();
        let expected = v1::AcceptQueue {
            listener: any.to_string(),
            connections: queue,
            connections_max: queue,
            limit,
            drops,
            drops_total: drops,
        };
        for n in [1, 2] {
            let own = queue_of(&full, to(n));
            assert_eq!(own.as_ref(), Some(&expected), "both wait in one queue");
        }
        // Its owner accepts again.
        let accepting = TcpListener::from(socket);
        for _ in 0..queue {
            drop(accepting.accept()?);
        }
        let mended = v1::AcceptQueue {
            connections: 0,
            connections_max: 0,
            drops: 0,
            ..expected
        };
        assert_eq!(queue_of(&look(), to(1)), Some(mended));
        drop(accepting);
        assert_eq!(queue_of(&look(), to(1)), None, "nobody listens any more");
        Ok(())
    })
}

fn queue_of(report: &v1::Report, address: SocketAddr) -> Option<v1::AcceptQueue> {
    let address = address.to_string();
    let mut endpoints = report.endpoints.iter();
    let found = endpoints.find(|e| e.role() == v1::Role::Downstream && e.address == address);
    found.unwrap().accept_queue.clone()
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
