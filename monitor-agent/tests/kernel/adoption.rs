//! Connections that are older than the programs.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use bpf::Kernel;
use kernel_sample::EndpointAddress;
use libtest_mimic::Failed;
use monitor_common::{counters::EndpointCounters, ending::Ending, endpoint::Role};
use rustix::net::sockopt::set_socket_linger;

use crate::{
    Case, Watch,
    network::{in_own_network, tcp_socket},
    watch::{self, Own, fresh},
};

pub(crate) const CASES: [Case; 8] = [
    (
        "exchanges_of_an_adopted_connection_count_from_its_next_request",
        exchanges_count,
    ),
    (
        "older_connections_are_adopted_and_counted_from_then_on",
        adopted_and_counted,
    ),
    (
        "adopted_connections_end_in_every_way_exact_to_the_byte",
        every_way_to_end,
    ),
    (
        "an_adopted_connection_that_is_reset_is_closed",
        reset_is_closed,
    ),
    (
        "an_agent_that_comes_later_goes_on_with_adopted_connections",
        the_next_agent_goes_on,
    ),
    (
        "an_end_that_nobody_saw_is_a_counted_loss",
        an_end_that_nobody_saw,
    ),
    (
        "more_ends_than_there_is_room_for_are_a_counted_loss",
        a_flood_of_ends,
    ),
    (
        "a_closed_connection_whose_socket_is_still_held_is_closed",
        closed_and_held,
    ),
];

const DEADLINE: Duration = Duration::from_secs(30);

/// A connection that was opened before the programs came, and what it carried
/// before that does not count.
struct Older {
    address: SocketAddr,
    client: TcpStream,
    server: TcpStream,
}

impl Older {
    fn new(listener: &TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let server = listener.accept().unwrap().0;
        let mut older = Self {
            address,
            client,
            server,
        };
        older.carry(321, 4_321);
        older
    }

    fn carry(&mut self, asked: usize, answered: usize) {
        self.client.write_all(&vec![b'q'; asked]).unwrap();
        self.server.read_exact(&mut vec![0; asked]).unwrap();
        self.server.write_all(&vec![b'r'; answered]).unwrap();
        self.client.read_exact(&mut vec![0; answered]).unwrap();
    }
}

fn counters(kernel: &Kernel, role: Role, address: SocketAddr) -> EndpointCounters {
    let sample = kernel.read();
    let address = EndpointAddress::Socket(address);
    let mut found = sample.endpoints.iter();
    let found = found.find(|e| e.id.address == address && e.id.role == role);
    found.map_or(EndpointCounters::ZERO, |e| *e.counters)
}

fn until(
    kernel: &Kernel,
    role: Role,
    address: SocketAddr,
    satisfied: impl Fn(&EndpointCounters) -> bool,
) -> EndpointCounters {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let counters = counters(kernel, role, address);
        if satisfied(&counters) || Instant::now() > deadline {
            return counters;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Adopted, opened, closed, failed, active, received, sent, unacknowledged.
fn figures(c: &EndpointCounters) -> [u64; 8] {
    [
        c.connections_adopted,
        c.connections_opened,
        c.closed(),
        c.connections_failed.iter().sum(),
        c.connections_active(),
        c.bytes_received,
        c.bytes_sent,
        c.bytes_unacked,
    ]
}

/// Compares both sides with what the client and the server sent.
fn check(kernel: &Kernel, address: SocketAddr, connections: [u64; 5], asked: u64, answered: u64) {
    for (role, received, sent) in [
        (Role::Downstream, asked, answered),
        (Role::Upstream, answered, asked),
    ] {
        let [adopted, opened, closed, failed, active] = connections;
        let expected = [adopted, opened, closed, failed, active, received, sent, 0];
        let found = until(kernel, role, address, |c| figures(c) == expected);
        assert_eq!(figures(&found), expected, "{role:?} of {address}");
    }
}

fn adopted_and_counted(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("adopted");
    for local in [fresh(), "[::1]:0".parse()?] {
        let listener = TcpListener::bind(local)?;
        let mut older: Vec<_> = (0..3).map(|_| Older::new(&listener)).collect();
        let address = older[0].address;
        let kernel = own.open(watch);
        check(&kernel, address, [3, 0, 0, 0, 3], 0, 0);
        for (n, older) in older.iter_mut().enumerate() {
            older.carry(1_000 + n, 70_000);
        }
        check(&kernel, address, [3, 0, 0, 0, 3], 3_003, 210_000);
        // One that is opened later is none of them.
        let later = TcpStream::connect(address)?;
        let accepted = listener.accept()?;
        check(&kernel, address, [3, 1, 0, 0, 4], 3_003, 210_000);
        drop((later, accepted));
        drop(older);
        check(&kernel, address, [3, 1, 4, 0, 0], 3_003, 210_000);
        drop(kernel);
        own.uninstall();
    }
    Ok(())
}

/// Who closes first, how, and whether the other side had read it.
fn every_way_to_end(watch: &Watch) -> Result<(), Failed> {
    /// A way to end, and how the server's side ended so, where the state it was let go
    /// of in tells.
    type End = (fn(Older), Option<Ending>);
    let ends: [End; 6] = [
        (
            |o| {
                o.client.shutdown(Shutdown::Write).unwrap();
                assert_eq!((&o.server).read(&mut [0; 9]).unwrap(), 0);
                o.server.shutdown(Shutdown::Write).unwrap();
                assert_eq!((&o.client).read(&mut [0; 9]).unwrap(), 0);
            },
            None,
        ),
        (
            |o| {
                o.server.shutdown(Shutdown::Write).unwrap();
                assert_eq!((&o.client).read(&mut [0; 9]).unwrap(), 0);
                o.client.shutdown(Shutdown::Write).unwrap();
                assert_eq!((&o.server).read(&mut [0; 9]).unwrap(), 0);
            },
            None,
        ),
        (
            |o| {
                drop(o.client);
                assert_eq!((&o.server).read(&mut [0; 9]).unwrap(), 0);
            },
            Some(Ending::FinReceived),
        ),
        (
            |o| {
                drop(o.server);
                assert_eq!((&o.client).read(&mut [0; 9]).unwrap(), 0);
            },
            Some(Ending::FinSent),
        ),
        // Nobody reads the other's end.
        (
            |o| {
                drop(o.client);
                std::thread::sleep(Duration::from_millis(20));
                drop(o.server);
            },
            None,
        ),
        (
            |o| {
                drop(o.server);
                drop(o.client);
            },
            Some(Ending::FinSent),
        ),
    ];
    let own = Own::new("adopted-ends");
    let listeners: Vec<_> = ends
        .iter()
        .map(|_| TcpListener::bind(fresh()).unwrap())
        .collect();
    let older: Vec<_> = listeners.iter().map(Older::new).collect();
    let kernel = own.open(watch);
    for (mut older, (end, ending)) in older.into_iter().zip(ends) {
        let address = older.address;
        older.carry(10, 50);
        older.carry(1, 2_000_000);
        end(older);
        check(&kernel, address, [1, 0, 1, 0, 0], 11, 2_000_050);
        if let Some(ending) = ending {
            let closed = counters(&kernel, Role::Downstream, address).connections_closed;
            assert_eq!(closed[ending as usize], 1, "{ending:?}: {closed:?}");
        }
    }
    Ok(())
}

fn reset_is_closed(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("adopted-reset");
    let listener = TcpListener::bind(fresh())?;
    let mut older = Older::new(&listener);
    let address = older.address;
    let kernel = own.open(watch);
    older.carry(77, 88);
    check(&kernel, address, [1, 0, 0, 0, 1], 77, 88);
    let lost = own.lost(&kernel, "adopted_unseen");
    set_socket_linger(older.server.as_fd(), Some(Duration::ZERO))?;
    drop(older.server);
    let _reset = older.client.read(&mut [0; 9]).unwrap_err();
    drop(older.client);
    check(&kernel, address, [1, 0, 1, 0, 0], 77, 88);
    for (role, ending) in [
        (Role::Downstream, Ending::ResetSent),
        (Role::Upstream, Ending::ResetReceived),
    ] {
        let closed = counters(&kernel, role, address).connections_closed;
        assert_eq!(closed[ending as usize], 1, "{role:?}: {closed:?}");
    }
    // The kernel erases a socket's counts where its own process resets it.
    assert!(own.lost(&kernel, "adopted_unseen") > lost);
    Ok(())
}

/// An agent that goes, in whatever way, leaves all that the next one needs in the
/// kernel: dropping it does nothing but to close its descriptors, as a kill does.
fn the_next_agent_goes_on(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("adopted-restart");
    let listener = TcpListener::bind(fresh())?;
    let mut older = Older::new(&listener);
    let address = older.address;
    let mut kernel = own.open(watch);
    for n in 1..=4 {
        older.carry(100, 1_000);
        check(
            &kernel,
            address,
            [1, 0, 0, 0, 1],
            200 * n - 100,
            2_000 * n - 1_000,
        );
        drop(kernel);
        older.carry(100, 1_000);
        kernel = own.open(watch);
        check(&kernel, address, [1, 0, 0, 0, 1], 200 * n, 2_000 * n);
    }
    // A reader sees what the agent has seen.
    let reader = Kernel::open_pinned(&own.options.pin_dir)?;
    check(&reader, address, [1, 0, 0, 0, 1], 800, 8_000);
    older.carry(5, 6);
    drop(older);
    check(&kernel, address, [1, 0, 1, 0, 0], 805, 8_006);
    check(&reader, address, [1, 0, 1, 0, 0], 805, 8_006);
    drop(kernel);
    let kernel = own.open(watch);
    check(&kernel, address, [1, 0, 1, 0, 0], 805, 8_006);
    Ok(())
}

fn an_end_that_nobody_saw(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("adopted-unseen");
    let listener = TcpListener::bind(fresh())?;
    let mut older = Older::new(&listener);
    let address = older.address;
    let kernel = own.open(watch);
    older.carry(100, 1_000);
    check(&kernel, address, [1, 0, 0, 0, 1], 100, 1_000);
    let lost = own.lost(&kernel, "adopted_unseen");
    drop(kernel);
    // Nobody can have the last seven bytes.
    older.carry(3, 4);
    drop(older);
    let kernel = own.open(watch);
    check(&kernel, address, [1, 0, 1, 0, 0], 100, 1_000);
    assert!(
        own.lost(&kernel, "adopted_unseen") >= lost + 2,
        "both sides"
    );
    drop(kernel);
    let kernel = own.open(watch);
    check(&kernel, address, [1, 0, 1, 0, 0], 100, 1_000);
    Ok(())
}

/// Whether a listener of `NETLINK_SOCK_DIAG` in this network missed something.
fn ends_are_dropped() -> std::io::Result<bool> {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink")?;
    let mut sockets = sockets.lines().skip(1).map(str::split_whitespace);
    Ok(sockets.any(|mut socket| {
        // Protocol and drops are columns of their own.
        socket.nth(1) == Some("4") && socket.nth(6).is_some_and(|drops| drops != "0")
    }))
}

/// The kernel drops what an agent that is not scheduled has no room for. In a network
/// of its own, as the kernel tells of every socket's end there.
fn a_flood_of_ends(watch: &Watch) -> Result<(), Failed> {
    in_own_network(|| {
        let own = Own::new("adopted-overrun");
        let listener = TcpListener::bind(fresh())?;
        let mut older = Older::new(&listener);
        let address = older.address;
        let kernel = own.open(watch);
        older.carry(100, 1_000);
        check(&kernel, address, [1, 0, 0, 0, 1], 100, 1_000);
        let unseen = own.lost(&kernel, "adopted_unseen");
        assert_eq!(own.lost(&kernel, "ends_overrun"), 0);
        let deadline = Instant::now() + 2 * DEADLINE;
        while !ends_are_dropped()? {
            assert!(Instant::now() < deadline, "there is room for all of them");
            for _ in 0..1_000 {
                drop(tcp_socket()?);
            }
        }
        older.carry(3, 4);
        drop(older);
        let mut unseen_sides = 0;
        for (role, received, sent) in [(Role::Downstream, 100, 1_000), (Role::Upstream, 1_000, 100)]
        {
            let ended = until(&kernel, role, address, |c| c.closed() == 1);
            let (more_received, more_sent) = match role {
                Role::Downstream => (3, 4),
                Role::Upstream => (4, 3),
            };
            // Told among the last, or not at all.
            if ended.bytes_received != received + more_received {
                assert_eq!((ended.bytes_received, ended.bytes_sent), (received, sent));
                unseen_sides += 1;
            } else {
                assert_eq!(ended.bytes_sent, sent + more_sent);
            }
            assert_eq!(figures(&ended)[..5], [1, 0, 1, 0, 0], "{role:?}");
        }
        assert!(own.lost(&kernel, "ends_overrun") > 0);
        assert_eq!(own.lost(&kernel, "adopted_unseen"), unseen + unseen_sides);
        Ok(())
    })
}

/// Adopted while a request is under way: its response is nobody's, and what
/// follows are exchanges as any.
fn exchanges_count(watch: &Watch) -> Result<(), Failed> {
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    const RESPONSE: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
    let own = Own::new("adopted-http");
    let listener = TcpListener::bind(fresh())?;
    let mut older = Older::new(&listener);
    let address = older.address;
    older.client.write_all(REQUEST)?;
    older.server.read_exact(&mut [0; REQUEST.len()])?;
    let kernel = own.open(watch);
    older.server.write_all(RESPONSE)?;
    older.client.read_exact(&mut [0; RESPONSE.len()])?;
    for _ in 0..3 {
        older.client.write_all(REQUEST)?;
        older.server.read_exact(&mut [0; REQUEST.len()])?;
        older.server.write_all(RESPONSE)?;
        older.client.read_exact(&mut [0; RESPONSE.len()])?;
    }
    let (asked, answered) = (3 * REQUEST.len() as u64, 4 * RESPONSE.len() as u64);
    check(&kernel, address, [1, 0, 0, 0, 1], asked, answered);
    // A reader sees the same, and as many connections as are open.
    let reader = Kernel::open_pinned(&own.options.pin_dir)?;
    check(&reader, address, [1, 0, 0, 0, 1], asked, answered);
    watch::until("both sides are among the sockets", || {
        reader.read().connection_difference == Some(0)
    });
    drop(older);
    check(&kernel, address, [1, 0, 1, 0, 0], asked, answered);
    for role in [Role::Downstream, Role::Upstream] {
        let c = counters(&kernel, role, address);
        let (requests, responses): (u64, u64) = (c.requests.iter().sum(), c.responses.iter().sum());
        assert_eq!((requests, responses), (3, 3), "{role:?}");
        assert_eq!(
            (c.pipelined, c.suspected, c.unparsed, c.exchanges),
            (0, 0, 0, 0)
        );
    }
    Ok(())
}

fn closed_and_held(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("adopted-held");
    let listener = TcpListener::bind(fresh())?;
    let mut older = Older::new(&listener);
    let address = older.address;
    let kernel = own.open(watch);
    older.carry(7, 8);
    check(&kernel, address, [1, 0, 0, 0, 1], 7, 8);
    older.client.shutdown(Shutdown::Both)?;
    older.server.shutdown(Shutdown::Both)?;
    check(&kernel, address, [1, 0, 1, 0, 0], 7, 8);
    drop(older);
    check(&kernel, address, [1, 0, 1, 0, 0], 7, 8);
    Ok(())
}
