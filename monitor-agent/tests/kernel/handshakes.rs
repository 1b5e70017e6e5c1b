//! Connections that begin in unusual ways.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use monitor_common::{
    counters::{EndpointCounters, Failure},
    endpoint::Role,
    http::code_index,
};
use rustix::net::{bind, connect, listen};

use crate::{
    Case, Watch,
    network::{in_own_network, nstat, set_ipv4, set_option, tcp_socket},
    watch::fresh,
};

pub(crate) const CASES: [Case; 8] = [
    ("a_request_within_the_syn_counts", fast_open),
    (
        "data_of_a_syn_that_is_not_taken_counts_once",
        fast_open_refused,
    ),
    ("syn_cookies_are_connections_as_any", syn_cookies),
    ("a_socket_that_connects_to_itself_counts", to_itself),
    ("what_waits_for_a_full_queue_counts_once", full_queue),
    ("a_queue_that_dies_with_its_listener_is_closed", queue_dies),
    (
        "a_pair_of_ports_that_comes_again_is_a_new_connection",
        same_ports_again,
    ),
    (
        "a_request_within_a_syn_that_is_refused_has_no_response",
        fast_open_at_a_closed_port,
    ),
];

pub(crate) const MOVING: [Case; 1] = [(
    "a_queue_that_moves_to_another_listener_is_closed_once",
    queue_moves,
)];

/// What keeps [`MOVING`] from running here.
pub(crate) fn missing_moving() -> Option<String> {
    let error = nstat("TcpExtTCPMigrateReqSuccess").err()?;
    Some(format!(
        "the kernel does not move queues, Linux 5.14 does: {error}"
    ))
}

pub(crate) const MULTIPATH: [Case; 1] = [("multipath_connections_count_by_their_paths", multipath)];

/// What keeps [`MULTIPATH`] from running here.
pub(crate) fn missing_multipath() -> Option<String> {
    let error = multipath_socket().err()?;
    Some(format!("the kernel has no Multipath TCP: {error}"))
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

const DEADLINE: Duration = Duration::from_secs(30);

/// Opened, established, closed, received, sent, not acknowledged; requests and
/// responses, and what is doubtful of them.
fn figures(c: &EndpointCounters) -> [u64; 9] {
    [
        c.connections_opened,
        c.connections_established,
        c.closed(),
        c.bytes_received,
        c.bytes_sent,
        c.bytes_unacked,
        c.requests.iter().sum(),
        c.responses[code_index(200).unwrap()],
        c.unparsed + c.suspected + c.pipelined + c.exchanges + c.requests_without_response,
    ]
}

/// Compares both sides of connections, each of which carried so many exchanges.
#[track_caller]
fn check(watch: &Watch, address: SocketAddr, connections: u64, exchanges: u64) {
    let (asked, answered) = (GET.len() as u64 * exchanges, OK.len() as u64 * exchanges);
    for (role, received, sent) in [
        (Role::Downstream, asked, answered),
        (Role::Upstream, answered, asked),
    ] {
        let n = connections;
        let expected = [n, n, n, received, sent, 0, exchanges, exchanges, 0];
        let counted = watch.ended(role, address, n);
        assert_eq!(figures(&counted), expected, "{role:?}");
        assert_eq!(counted.connections_failed, [0; 6]);
    }
}

fn answer(server: &mut TcpStream) -> io::Result<()> {
    server.read_exact(&mut [0; GET.len()])?;
    server.write_all(OK)
}

fn exchange(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    client.write_all(GET)?;
    answer(server)?;
    client.read_exact(&mut [0; OK.len()])
}

/// Connects with a request in the SYN, where the kernel has a cookie for it.
fn ask_with_the_syn(address: SocketAddr) -> io::Result<TcpStream> {
    let client = tcp_socket()?;
    let SocketAddr::V4(address) = address else {
        unreachable!("the tests use IPv4");
    };
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.ip().octets()),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: both places outlive the call, and are of the sizes given.
    let sent = unsafe {
        libc::sendto(
            client.as_raw_fd(),
            GET.as_ptr().cast(),
            GET.len(),
            libc::MSG_FASTOPEN,
            (&raw const to).cast(),
            size_of_val(&to) as libc::socklen_t,
        )
    };
    if sent == GET.len() as isize {
        Ok(client.into())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn fast_open_listener() -> Result<TcpListener, Failed> {
    set_ipv4("tcp_fastopen", 3)?;
    let listener = TcpListener::bind(fresh())?;
    set_option(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16)?;
    Ok(listener)
}

/// A connection of two exchanges, the first of which comes with the SYN.
fn converse_from_the_syn(listener: &TcpListener) -> io::Result<()> {
    let mut client = ask_with_the_syn(listener.local_addr()?)?;
    let mut server = listener.accept()?.0;
    answer(&mut server)?;
    client.read_exact(&mut [0; OK.len()])?;
    exchange(&mut client, &mut server)
}

fn fast_open(watch: &Watch) -> Result<(), Failed> {
    // The first one has no cookie yet; the others begin at any sequence number.
    const TIMES: u64 = 12;
    let address = in_own_network(|| {
        let listener = fast_open_listener()?;
        for _ in 0..TIMES {
            converse_from_the_syn(&listener)?;
        }
        assert_eq!(nstat("TcpExtTCPFastOpenPassive")?, TIMES - 1);
        Ok(listener.local_addr()?)
    })?;
    check(watch, address, TIMES, 2 * TIMES);
    Ok(())
}

/// Where the server does not know the cookie, the data is sent again.
fn fast_open_refused(watch: &Watch) -> Result<(), Failed> {
    const TIMES: u64 = 8;
    let address = in_own_network(|| {
        let listener = fast_open_listener()?;
        converse_from_the_syn(&listener)?;
        set_option(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 0)?;
        set_ipv4("tcp_fastopen", 1)?;
        for _ in 1..TIMES {
            converse_from_the_syn(&listener)?;
        }
        assert_eq!(nstat("TcpExtTCPFastOpenPassive")?, 0);
        Ok(listener.local_addr()?)
    })?;
    check(watch, address, TIMES, 2 * TIMES);
    Ok(())
}

/// Who has a cookie asks a port at which nobody listens any more.
fn fast_open_at_a_closed_port(watch: &Watch) -> Result<(), Failed> {
    let address = in_own_network(|| {
        let listener = fast_open_listener()?;
        let address = listener.local_addr()?;
        for _ in 0..2 {
            converse_from_the_syn(&listener)?;
        }
        drop(listener);
        let error = ask_with_the_syn(address).and_then(|mut client| client.read(&mut [0; 1]));
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        Ok(address)
    })?;
    let c = watch.ended(Role::Upstream, address, 3);
    assert_eq!(c.connections_failed[Failure::Refused as usize], 1);
    assert_eq!(c.requests.iter().sum::<u64>(), 5);
    assert_eq!(c.responses[code_index(200).unwrap()], 4);
    assert_eq!(c.requests_without_response, 1);
    Ok(())
}

fn syn_cookies(watch: &Watch) -> Result<(), Failed> {
    const TIMES: u64 = 8;
    let address = in_own_network(|| {
        set_ipv4("tcp_syncookies", 2)?;
        let listener = TcpListener::bind(fresh())?;
        for n in 0..TIMES {
            // Half of them begin with the packet that carries the cookie back.
            let seconds = if n % 2 == 0 { 5 } else { 0 };
            set_option(
                &listener,
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                seconds,
            )?;
            let mut client = TcpStream::connect(listener.local_addr()?)?;
            client.write_all(GET)?;
            let mut server = listener.accept()?.0;
            answer(&mut server)?;
            client.read_exact(&mut [0; OK.len()])?;
            exchange(&mut client, &mut server)?;
        }
        assert_eq!(nstat("TcpExtSyncookiesRecv")?, TIMES);
        Ok(listener.local_addr()?)
    })?;
    check(watch, address, TIMES, 2 * TIMES);
    Ok(())
}

/// A simultaneous open with one socket: its SYN crosses itself.
fn to_itself(watch: &Watch) -> Result<(), Failed> {
    let socket = tcp_socket()?;
    bind(&socket, &fresh())?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    connect(&socket, &address)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(GET)?;
    stream.read_exact(&mut [0; GET.len()])?;
    drop(stream);
    let c = watch.ended(Role::Upstream, address, 1);
    let bytes = GET.len() as u64;
    assert_eq!(figures(&c)[..6], [1, 1, 1, bytes, bytes, 0]);
    assert_eq!(c.connect.buckets.iter().sum::<u64>(), 1);
    Ok(())
}

/// Clients have sent a request each until the queue is full; what others send,
/// who were connected before, is dropped, and sent again.
fn full_queue(watch: &Watch) -> Result<(), Failed> {
    const BACKLOG: usize = 4;
    const LATE: usize = BACKLOG - 1;
    // A queue takes one more than its backlog.
    const CLIENTS: usize = BACKLOG + 1 + LATE;
    let address = in_own_network(|| {
        let socket = tcp_socket()?;
        bind(&socket, &fresh())?;
        set_option(&socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 30)?;
        listen(&socket, BACKLOG.try_into()?)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        let mut clients = (0..LATE)
            .map(|_| TcpStream::connect(address))
            .collect::<io::Result<Vec<_>>>()?;
        while clients.len() < CLIENTS {
            let mut client = TcpStream::connect(address)?;
            client.write_all(GET)?;
            clients.push(client);
        }
        for client in &mut clients[..LATE] {
            client.write_all(GET)?;
        }
        let started = Instant::now();
        while nstat("TcpExtListenOverflows")? < LATE as u64 {
            assert!(started.elapsed() < DEADLINE, "the queue never was full");
            std::thread::sleep(Duration::from_millis(1));
        }
        for _ in &clients {
            answer(&mut listener.accept()?.0)?;
        }
        for mut client in clients {
            client.read_exact(&mut [0; OK.len()])?;
        }
        Ok(address)
    })?;
    check(watch, address, CLIENTS as u64, CLIENTS as u64);
    Ok(())
}

fn reuseport(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp_socket()?;
    rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, 64)?;
    Ok(socket.into())
}

/// As many clients as come, while the first of two listeners is closed.
fn clients_of_two_listeners(
    migrate: i32,
) -> Result<(SocketAddr, Vec<TcpStream>, TcpListener), Failed> {
    if missing_moving().is_none() {
        set_ipv4("tcp_migrate_req", migrate)?;
    }
    let first = reuseport(fresh())?;
    let address = first.local_addr()?;
    let second = reuseport(address)?;
    let clients = (0..32)
        .map(|_| TcpStream::connect(address))
        .collect::<io::Result<Vec<_>>>()?;
    drop(first);
    Ok((address, clients, second))
}

fn queue_moves(watch: &Watch) -> Result<(), Failed> {
    let address = in_own_network(|| {
        let (address, mut clients, listener) = clients_of_two_listeners(1)?;
        assert!(nstat("TcpExtTCPMigrateReqSuccess")? > 0);
        for client in &mut clients {
            client.write_all(GET)?;
        }
        for _ in &clients {
            answer(&mut listener.accept()?.0)?;
        }
        for mut client in clients {
            client.read_exact(&mut [0; OK.len()])?;
        }
        Ok(address)
    })?;
    check(watch, address, 32, 32);
    Ok(())
}

fn queue_dies(watch: &Watch) -> Result<(), Failed> {
    let address = in_own_network(|| {
        let (address, clients, listener) = clients_of_two_listeners(0)?;
        drop((listener, clients));
        Ok(address)
    })?;
    for role in [Role::Downstream, Role::Upstream] {
        let counted = watch.ended(role, address, 32);
        assert_eq!(
            figures(&counted),
            [32, 32, 32, 0, 0, 0, 0, 0, 0],
            "{role:?}"
        );
        assert_eq!(counted.connections_active(), 0);
    }
    Ok(())
}

/// The server closes first and is left in `TIME_WAIT`; the client comes again from
/// the same port at once.
fn same_ports_again(watch: &Watch) -> Result<(), Failed> {
    const TIMES: u64 = 20;
    let address = in_own_network(|| {
        let listener = TcpListener::bind(fresh())?;
        let address = listener.local_addr()?;
        let mut local = fresh();
        for _ in 0..TIMES {
            let socket = tcp_socket()?;
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &local)?;
            connect(&socket, &address)?;
            let mut client = TcpStream::from(socket);
            local = client.local_addr()?;
            let mut server = listener.accept()?.0;
            exchange(&mut client, &mut server)?;
            drop(server);
            assert_eq!(client.read(&mut [0; 1])?, 0);
        }
        Ok(address)
    })?;
    check(watch, address, TIMES, TIMES);
    Ok(())
}

const IPPROTO_MPTCP: libc::c_int = 262;

fn multipath_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    let fd = unsafe {
        libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            IPPROTO_MPTCP,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Some runtimes listen for Multipath TCP unless told not to; most clients do not
/// speak it.
fn multipath(watch: &Watch) -> Result<(), Failed> {
    let kinds: [fn() -> io::Result<OwnedFd>; 2] = [tcp_socket, multipath_socket];
    for listens in kinds {
        for connects in kinds {
            let socket = listens()?;
            bind(&socket, &fresh())?;
            listen(&socket, 16)?;
            let listener = TcpListener::from(socket);
            let address = listener.local_addr()?;
            for _ in 0..3 {
                let socket = connects()?;
                connect(&socket, &address)?;
                let mut client = TcpStream::from(socket);
                let mut server = listener.accept()?.0;
                exchange(&mut client, &mut server)?;
                exchange(&mut client, &mut server)?;
            }
            check(watch, address, 3, 6);
        }
    }
    Ok(())
}
