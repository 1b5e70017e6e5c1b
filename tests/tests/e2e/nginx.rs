//! The same with an unmodified nginx in place of our proxy, and its own counts
//! as a third witness.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;
use testkit::{
    Cgroup,
    fixtures::{Level, Nginx},
    traffic::{Exchange, Load},
};

use super::{
    Case,
    scene::{Scene, assert_endpoint, downstream, origin_on, send, upstream},
};

pub(crate) const CASES: &[Case] = &[
    ("nginx_and_the_load_generator_count_alike", witnesses),
    ("nginx_agrees_with_its_own_counts_ipv4", || {
        agrees("127.0.0.1");
    }),
    ("nginx_agrees_with_its_own_counts_ipv6", || agrees("::1")),
    ("nginx_sends_segments_of_more_than_64_kib_ipv4", || {
        large_uploads("127.0.0.1");
    }),
    ("nginx_sends_segments_of_more_than_64_kib_ipv6", || {
        large_uploads("::1");
    }),
    (
        "how_an_upstream_ends_its_connections_to_nginx_is_told",
        ends,
    ),
];

pub(crate) fn mix() -> [Exchange; 8] {
    [
        Exchange::get(100),
        Exchange::head(100),
        Exchange::post(500, 10),
        Exchange::status(404),
        Exchange::get(64 << 10),
        Exchange::post(64 << 10, 64 << 10),
        Exchange::get(5 << 20),
        Exchange::post(5 << 20, 0),
    ]
}

/// The third witness is worth something only if the first two agree with it.
fn witnesses() {
    let origin = origin_on("127.0.0.1");
    let cgroup = Cgroup::create("nginx").unwrap();
    let nginx = Nginx::start(&cgroup, origin.address()).unwrap();
    let outcome = send(
        Load::on(nginx.address())
            .connections(8)
            .requests(800)
            .mix(mix()),
    );
    let own = nginx.counts().unwrap();
    assert_eq!(outcome.connections, own.connections);
    assert_eq!(outcome.requests, own.requests);
    assert_eq!(outcome.bytes_sent, own.bytes_received);
    assert_eq!(outcome.bytes_received, own.bytes_sent);
    nginx.stop().unwrap();
}

fn agrees(ip: &str) {
    let origin = origin_on(ip);
    let scene = Scene::watched_at(Level::Http);
    let nginx = Nginx::start(&scene.cgroup, origin.address()).unwrap();
    let address = nginx.address();
    let outcome = send(Load::on(address).connections(8).requests(800).mix(mix()));
    let own = nginx.counts().unwrap();
    nginx.stop().unwrap();
    let served = origin.ended();
    let sums = scene.end();

    assert_endpoint(&sums, "downstream", address, &downstream(&outcome));
    assert_endpoint(&sums, "upstream", origin.address(), &upstream(&served));
    let counted = &sums[&("downstream".to_owned(), address.to_string())];
    assert_eq!(counted["connections_opened"], own.connections);
    assert_eq!(counted["requests"], own.requests);
    assert_eq!(counted["requests"], own.logged);
    assert_eq!(counted["bytes_received"], own.bytes_received);
    assert_eq!(counted["bytes_sent"], own.bytes_sent);
}

/// Uploads that wait for the origin's window are sent in pieces of more than
/// 64 KiB; over IPv6 the kernel puts a jumbo option before each, and a request
/// begins behind it.
fn large_uploads(ip: &str) {
    let origin = origin_on(ip);
    let scene = Scene::watched_at(Level::Http);
    let nginx = Nginx::start(&scene.cgroup, origin.address()).unwrap();
    let address = nginx.address();
    let mix = [Exchange::post(5 << 20, 0)];
    let outcome = send(Load::on(address).connections(8).requests(200).mix(mix));
    nginx.stop().unwrap();
    let served = origin.ended();
    let sums = scene.end();
    assert_endpoint(&sums, "downstream", address, &downstream(&outcome));
    assert_endpoint(&sums, "upstream", origin.address(), &upstream(&served));
}

/// How an upstream ends a connection after its one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By a FIN, which ends the response too.
    Fin,
    /// By a reset in the place of a response.
    ResetBefore,
    /// By a reset when part of the response is sent.
    ResetWithin,
}

/// How often each, one after the other.
const ENDS: [(End, u64); 3] = [
    (End::Fin, 20),
    (End::ResetBefore, 12),
    (End::ResetWithin, 8),
];

fn end_as_told(socket: &TcpStream, end: End) {
    let mut head = BufReader::new(socket).lines();
    while !head.next().unwrap().unwrap().is_empty() {}
    let answer: &[u8] = match end {
        End::Fin => b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
        End::ResetBefore => b"",
        End::ResetWithin => b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\nok",
    };
    { socket }.write_all(answer).unwrap();
    if end != End::Fin {
        set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
    }
}

/// Asks once, and reads whatever comes until nginx ends the connection.
fn ask(nginx: SocketAddr) {
    let mut client = TcpStream::connect(nginx).unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.write_all(request).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap();
}

fn ends() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = upstream.local_addr().unwrap();
    let scene = Scene::watched_at(Level::Http);
    let nginx = Nginx::start(&scene.cgroup, origin).unwrap();
    let address = nginx.address();
    let times = ENDS
        .into_iter()
        .flat_map(|(end, n)| (0..n).map(move |_| end));
    let asked: u64 = ENDS.into_iter().map(|(_, n)| n).sum();
    thread::scope(|scope| {
        scope.spawn(|| {
            for end in times {
                end_as_told(&upstream.accept().unwrap().0, end);
            }
        });
        for _ in 0..asked {
            ask(address);
        }
    });
    nginx.stop().unwrap();
    let sums = scene.end();
    let of = |role: &str, at: SocketAddr| &sums[&(role.to_owned(), at.to_string())];
    let ended = of("upstream", origin);
    let [(_, fins), (_, before), (_, within)] = ENDS;
    for (name, expected) in [
        ("connections_opened", asked),
        ("connections_closed", asked),
        ("requests", asked),
        ("requests_without_response", before),
        ("responses.2xx", fins + within),
        ("closed_fin_received", fins),
        ("closed_reset_received", before + within),
        ("closed_before_response_reset_received", before),
        ("closed_within_response_reset_received", within),
        ("closed_response_unknown", 0),
    ] {
        assert_eq!(ended[name], expected, "{name} of {ended:?}");
    }
    // Of nobody's connections is it left open how they ended.
    for counted in [ended, of("downstream", address)] {
        let ends = [
            "closed_fin_sent",
            "closed_fin_received",
            "closed_reset_sent",
            "closed_reset_received",
            "closed_timeout",
            "closed_other",
        ];
        let sum: u64 = ends.into_iter().map(|name| counted[name]).sum();
        assert_eq!((sum, counted["closed_other"]), (asked, 0), "{counted:?}");
        assert_eq!(counted["connections_closed"], asked);
    }
}
