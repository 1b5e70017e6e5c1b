//! Bytes and the life of connections, however they end.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    time::Duration,
};

use libtest_mimic::Failed;
use monitor_common::{counters::EndpointCounters, endpoint::Role};
use rustix::net::sockopt::set_socket_linger;
use window::socket_summary;

use crate::{Case, Watch, watch::fresh};

pub(crate) const CASES: [Case; 9] = [
    ("the_client_closes_first", the_client_closes_first),
    ("the_server_closes_first", the_server_closes_first),
    ("both_close_at_once", both_close_at_once),
    (
        "a_half_closed_connection_goes_on",
        a_half_closed_connection_goes_on,
    ),
    (
        "the_process_closes_with_data_on_its_way",
        closes_with_data_on_its_way,
    ),
    ("a_reset_ends_a_connection", a_reset_ends_a_connection),
    (
        "ipv6_and_mapped_addresses_are_endpoints",
        ipv6_and_mapped_addresses,
    ),
    ("live_sockets_are_right_without_callbacks", live_sockets),
    (
        "connections_are_active_while_they_are_open",
        active_while_open,
    ),
];

const ASKED: &[u8] = &[b'a'; 12_345];
const ANSWERED: &[u8] = &[b'b'; 5_000_001];

struct Pair {
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

fn pair(address: SocketAddr) -> Pair {
    let listener = TcpListener::bind(address).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    for stream in [&client, &server] {
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
    }
    Pair {
        listener,
        client,
        server,
    }
}

impl Pair {
    /// Sends both ways at once, and reads all of it.
    fn exchange(&self, asked: &[u8], answered: &[u8]) {
        std::thread::scope(|scope| {
            scope.spawn(|| (&self.client).write_all(asked).unwrap());
            scope.spawn(|| (&self.server).write_all(answered).unwrap());
            scope.spawn(|| {
                (&self.server)
                    .read_exact(&mut vec![0; asked.len()])
                    .unwrap();
            });
            (&self.client)
                .read_exact(&mut vec![0; answered.len()])
                .unwrap();
        });
    }

    /// Both sides' counters, once the connection has ended.
    fn ended(&self, watch: &Watch) -> [EndpointCounters; 2] {
        let address = self.listener.local_addr().unwrap();
        [Role::Downstream, Role::Upstream].map(|role| watch.ended(role, address, 1))
    }

    /// Compares both sides with what was sent, all of which arrived.
    fn check(&self, watch: &Watch, asked: usize, answered: usize) -> Result<(), Failed> {
        let [server, client] = self.ended(watch);
        for (side, counters, received, sent) in [
            ("server", &server, asked, answered),
            ("client", &client, answered, asked),
        ] {
            let found = (
                counters.connections_opened,
                counters.connections_established,
                counters.closed(),
                counters.bytes_received,
                counters.bytes_sent,
                counters.bytes_unacked,
            );
            let expected = (1, 1, 1, received as u64, sent as u64, 0);
            if found != expected {
                return Err(format!("{side}: counted {found:?}, expected {expected:?}").into());
            }
        }
        if client.connect.buckets.iter().sum::<u64>() != 1 || client.connect.sum_ns == 0 {
            return Err("the connect time was not counted once".into());
        }
        Ok(())
    }
}

fn read_to_end(mut stream: &TcpStream) -> usize {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap()
}

fn the_client_closes_first(watch: &Watch) -> Result<(), Failed> {
    let pair = pair(fresh());
    pair.exchange(ASKED, ANSWERED);
    pair.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&pair.server), 0);
    pair.server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&pair.client), 0);
    pair.check(watch, ASKED.len(), ANSWERED.len())
}

fn the_server_closes_first(watch: &Watch) -> Result<(), Failed> {
    let pair = pair(fresh());
    pair.exchange(ASKED, ANSWERED);
    pair.server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&pair.client), 0);
    pair.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&pair.server), 0);
    pair.check(watch, ASKED.len(), ANSWERED.len())
}

fn both_close_at_once(watch: &Watch) -> Result<(), Failed> {
    // Whether the two FINs cross is the scheduler's choice, so it is tried
    // often; every order must give the same counts.
    for _ in 0..50 {
        let pair = pair(fresh());
        pair.exchange(b"hello", b"world!");
        std::thread::scope(|scope| {
            scope.spawn(|| pair.client.shutdown(Shutdown::Both).unwrap());
            pair.server.shutdown(Shutdown::Both).unwrap();
        });
        pair.check(watch, 5, 6)?;
    }
    Ok(())
}

fn a_half_closed_connection_goes_on(watch: &Watch) -> Result<(), Failed> {
    let pair = pair(fresh());
    (&pair.client).write_all(ASKED).unwrap();
    pair.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&pair.server), ASKED.len());
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            (&pair.server).write_all(ANSWERED).unwrap();
            pair.server.shutdown(Shutdown::Write).unwrap();
        });
        read_to_end(&pair.client)
    });
    assert_eq!(answer, ANSWERED.len());
    pair.check(watch, ASKED.len(), ANSWERED.len())
}

fn closes_with_data_on_its_way(watch: &Watch) -> Result<(), Failed> {
    let Pair {
        listener,
        client,
        mut server,
    } = pair(fresh());
    let address = listener.local_addr()?;
    let reader = std::thread::spawn(move || read_to_end(&client));
    server.write_all(ANSWERED)?;
    // The socket is an orphan while the kernel delivers the rest.
    drop(server);
    assert_eq!(reader.join().unwrap(), ANSWERED.len());
    let counters = watch.ended(Role::Downstream, address, 1);
    let client = watch.ended(Role::Upstream, address, 1);
    assert_eq!(
        (counters.bytes_sent, counters.bytes_unacked),
        (ANSWERED.len() as u64, 0)
    );
    assert_eq!(
        (client.bytes_received, client.bytes_sent),
        (ANSWERED.len() as u64, 0)
    );
    Ok(())
}

fn a_reset_ends_a_connection(watch: &Watch) -> Result<(), Failed> {
    let Pair {
        listener,
        client,
        server,
    } = pair(fresh());
    let address = listener.local_addr()?;
    (&client).write_all(ASKED)?;
    (&server).read_exact(&mut vec![0; ASKED.len()])?;
    set_socket_linger(server.as_fd(), Some(Duration::ZERO))?;
    drop(server);
    let server = watch.ended(Role::Downstream, address, 1);
    let client = watch.ended(Role::Upstream, address, 1);
    assert_eq!((server.closed(), client.closed()), (1, 1));
    assert_eq!((server.bytes_received, client.bytes_sent), (12_345, 12_345));
    assert_eq!((server.bytes_sent, client.bytes_received), (0, 0));
    Ok(())
}

fn ipv6_and_mapped_addresses(watch: &Watch) -> Result<(), Failed> {
    let six = pair("[::1]:0".parse()?);
    six.exchange(b"hello", b"world!");
    six.client.shutdown(Shutdown::Both)?;
    six.server.shutdown(Shutdown::Both)?;
    six.check(watch, 5, 6)?;

    // A dual-stack listener is one endpoint, whatever its clients speak.
    let listener = TcpListener::bind("[::]:0")?;
    let port = listener.local_addr()?.port();
    let client = TcpStream::connect(("127.0.0.1", port))?;
    drop((listener.accept()?, client));
    let mapped = ([127, 0, 0, 1], port).into();
    for role in [Role::Downstream, Role::Upstream] {
        assert_eq!(watch.ended(role, mapped, 1).closed(), 1);
    }
    Ok(())
}

fn active_while_open(watch: &Watch) -> Result<(), Failed> {
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    let clients: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let servers: Vec<_> = (0..20).map(|_| listener.accept().unwrap().0).collect();
    for role in [Role::Downstream, Role::Upstream] {
        assert_eq!(watch.counters(role, address).connections_active(), 20);
    }
    drop(clients);
    drop(servers);
    for role in [Role::Downstream, Role::Upstream] {
        let counters = watch.ended(role, address, 20);
        assert_eq!(
            (counters.connections_active(), counters.connections_opened),
            (0, 20)
        );
    }
    Ok(())
}

/// An upload that the server never answers brings it no round-trip callback.
fn live_sockets(watch: &Watch) -> Result<(), Failed> {
    let mut pair = pair(fresh());
    let address = pair.listener.local_addr()?;
    let mut total = 0;
    for part in [1, 999, 70_000, 1_000_000] {
        pair.client.write_all(&vec![b'u'; part])?;
        pair.server.read_exact(&mut vec![0; part])?;
        total += part as u64;
        let server = watch.until(Role::Downstream, address, |c| c.bytes_received >= total);
        let client = watch.until(Role::Upstream, address, |c| c.bytes_sent >= total);
        assert_eq!((server.bytes_received, server.bytes_sent), (total, 0));
        assert_eq!((client.bytes_received, client.bytes_sent), (0, total));
    }
    let sockets = watch.sockets(address);
    assert_eq!(sockets.len(), 2, "both sides, once each");
    for socket in sockets {
        let (received, sent) = match socket.endpoint.role {
            Role::Downstream => (total, 0),
            Role::Upstream => (0, total + 1),
        };
        assert_eq!(socket.live.reading.bytes_received, received);
        assert_eq!(
            socket.live.reading.bytes_acked, sent,
            "with the SYN of who opened"
        );
        let storage = socket.live.storage.unwrap();
        assert_eq!(storage.exchange.role, socket.endpoint.role as u8);
    }
    shown(watch, address, total);
    // The client's FIN is no payload either, of neither side.
    pair.client.shutdown(Shutdown::Write)?;
    assert_eq!(pair.server.read(&mut [0; 9])?, 0);
    shown(watch, address, total);
    pair.server.shutdown(Shutdown::Both)?;
    pair.check(watch, usize::try_from(total)?, 0)
}

/// Both sides of an upload as reports show them.
fn shown(watch: &Watch, address: SocketAddr, total: u64) {
    let sockets = watch.sockets(address);
    assert_eq!(sockets.len(), 2, "both sides");
    for socket in sockets {
        let shown = socket_summary(&socket, 0);
        let payload = match socket.endpoint.role {
            Role::Downstream => (total, 0),
            Role::Upstream => (0, total),
        };
        let state = shown.state;
        assert_eq!((shown.bytes_received, shown.bytes_sent), payload, "{state}");
    }
}
