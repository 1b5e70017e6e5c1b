//! How connections end, told by who did what, and at which moment of an exchange.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    time::Duration,
};

use libtest_mimic::Failed;
use monitor_common::{
    counters::EndpointCounters,
    ending::{ENDINGS, Ending},
    endpoint::Role,
};
use rustix::net::sockopt::set_socket_linger;

use crate::{
    Case, Watch,
    network::{in_own_network, set_option},
    watch::{Own, fresh},
};

pub(crate) const CASES: [Case; 8] = [
    ("who_closes_first_is_told", who_closes_first),
    (
        "a_reset_is_told_by_both_sides",
        a_reset_is_told_by_both_sides,
    ),
    ("what_is_closed_unread_is_reset", closed_unread),
    (
        "payload_for_a_closed_socket_is_answered_by_a_reset",
        payload_for_a_closed_socket,
    ),
    (
        "what_nobody_has_accepted_is_reset_with_its_listener",
        never_accepted,
    ),
    ("ends_are_told_without_looking_at_packets", without_packets),
    (
        "an_end_is_told_by_the_moment_of_its_exchange",
        moments_of_an_exchange,
    ),
    ("a_response_is_whole_as_its_framing_says", framing),
];

pub(crate) const TIMEOUTS: [Case; 3] = [
    ("an_unacknowledged_stream_times_out", unacknowledged),
    ("an_idle_peer_that_is_gone_times_out", keepalive),
    ("a_window_that_stays_closed_times_out", closed_window),
];

/// What keeps [`TIMEOUTS`] from running here.
pub(crate) fn missing() -> Option<String> {
    let found = std::process::Command::new("nft").arg("-v").output().is_ok();
    (!found).then(|| "`nft` of nftables is not installed".to_owned())
}

/// One connection that ended so, and no other.
fn only(ending: Ending) -> [u64; ENDINGS] {
    let mut counts = [0; ENDINGS];
    counts[ending as usize] = 1;
    counts
}

struct Pair {
    client: TcpStream,
    server: TcpStream,
    address: SocketAddr,
}

impl Pair {
    fn new() -> Self {
        let listener = TcpListener::bind(fresh()).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let server = listener.accept().unwrap().0;
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        Self {
            client,
            server,
            address,
        }
    }

    fn ask(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).unwrap();
        self.server.read_exact(&mut vec![0; bytes.len()]).unwrap();
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.server.write_all(bytes).unwrap();
        self.client.read_exact(&mut vec![0; bytes.len()]).unwrap();
    }
}

fn reset(stream: TcpStream) {
    set_socket_linger(stream.as_fd(), Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Waits for the other side's end.
fn see_end(mut stream: TcpStream) {
    let _end_or_reset = stream.read(&mut [0; 9]);
}

/// How the connection of both sides ended.
#[track_caller]
fn check(
    counters: impl Fn(Role) -> EndpointCounters,
    what: &str,
    server: Ending,
    client: Ending,
) -> [EndpointCounters; 2] {
    let sides = [(Role::Downstream, server), (Role::Upstream, client)];
    sides.map(|(role, ending)| {
        let c = counters(role);
        assert_eq!(
            c.connections_closed,
            only(ending),
            "{what}: {role:?}, {ending:?}"
        );
        assert_eq!((c.closed(), c.connections_active()), (1, 0));
        c
    })
}

/// A way to end a connection, and what server and client are to be told.
type Way = (&'static str, fn(Pair), Ending, Ending);

const FINS: [Way; 6] = [
    (
        "the client, then the server",
        |p| {
            drop(p.client);
            see_end(p.server);
        },
        Ending::FinReceived,
        Ending::FinSent,
    ),
    (
        "the server, then the client",
        |p| {
            drop(p.server);
            see_end(p.client);
        },
        Ending::FinSent,
        Ending::FinReceived,
    ),
    (
        "half, then whole, by the client",
        |mut p| {
            p.client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(p.server.read(&mut [0; 9]).unwrap(), 0);
            p.answer(b"late");
            drop(p.server);
            see_end(p.client);
        },
        Ending::FinReceived,
        Ending::FinSent,
    ),
    (
        "half, then whole, by the server",
        |mut p| {
            p.server.shutdown(Shutdown::Write).unwrap();
            assert_eq!(p.client.read(&mut [0; 9]).unwrap(), 0);
            p.ask(b"late");
            drop(p.client);
            see_end(p.server);
        },
        Ending::FinSent,
        Ending::FinReceived,
    ),
    (
        "unread by anybody",
        |p| {
            p.client.shutdown(Shutdown::Both).unwrap();
            p.server.shutdown(Shutdown::Both).unwrap();
        },
        Ending::FinReceived,
        Ending::FinSent,
    ),
    (
        "after payload in both directions",
        |mut p| {
            p.ask(&[b'q'; 70_000]);
            p.answer(&[b'r'; 70_000]);
            drop(p.server);
            see_end(p.client);
        },
        Ending::FinSent,
        Ending::FinReceived,
    ),
];

fn who_closes_first(watch: &Watch) -> Result<(), Failed> {
    for (what, end, server, client) in FINS {
        let pair = Pair::new();
        let address = pair.address;
        end(pair);
        check(|role| watch.ended(role, address, 1), what, server, client);
    }
    Ok(())
}

const RESETS: [Way; 5] = [
    (
        "the client, before anything",
        |p| {
            reset(p.client);
            see_end(p.server);
        },
        Ending::ResetReceived,
        Ending::ResetSent,
    ),
    (
        "the server, after an answer",
        |mut p| {
            p.ask(b"question");
            p.answer(b"answer");
            reset(p.server);
            see_end(p.client);
        },
        Ending::ResetSent,
        Ending::ResetReceived,
    ),
    (
        "the server, with payload on its way",
        |mut p| {
            p.ask(b"question");
            p.server.write_all(&[b'x'; 100_000]).unwrap();
            reset(p.server);
            see_end(p.client);
        },
        Ending::ResetSent,
        Ending::ResetReceived,
    ),
    (
        "the client, behind the server's FIN",
        |mut p| {
            p.ask(b"question");
            p.server.shutdown(Shutdown::Write).unwrap();
            assert_eq!(p.client.read(&mut [0; 9]).unwrap(), 0);
            reset(p.client);
            see_end(p.server);
        },
        Ending::ResetReceived,
        Ending::ResetSent,
    ),
    (
        "the server, by connecting to nowhere",
        |mut p| {
            p.ask(b"question");
            p.server.write_all(b"answer").unwrap();
            disconnect(&p.server);
            see_end(p.client);
            drop(p.server);
        },
        Ending::Other,
        Ending::ResetReceived,
    ),
];

/// `connect` to no address takes a connection back.
fn disconnect(stream: &TcpStream) {
    rustix::net::connect_unspec(stream).unwrap();
}

fn a_reset_is_told_by_both_sides(watch: &Watch) -> Result<(), Failed> {
    for (what, end, server, client) in RESETS {
        let pair = Pair::new();
        let address = pair.address;
        end(pair);
        check(|role| watch.ended(role, address, 1), what, server, client);
    }
    Ok(())
}

fn closed_unread(watch: &Watch) -> Result<(), Failed> {
    let mut pair = Pair::new();
    let address = pair.address;
    pair.client.write_all(b"nobody reads this")?;
    pair.server.peek(&mut [0; 1])?;
    drop(pair.server);
    see_end(pair.client);
    let counters = |role| watch.ended(role, address, 1);
    check(counters, "unread", Ending::ResetSent, Ending::ResetReceived);
    Ok(())
}

/// Of a socket that its process has let go of the kernel keeps no more than what
/// answers, once its FIN is acknowledged.
fn payload_for_a_closed_socket(watch: &Watch) -> Result<(), Failed> {
    let mut pair = Pair::new();
    let address = pair.address;
    drop(pair.server);
    watch.ended(Role::Downstream, address, 1);
    pair.client.write_all(b"to nobody")?;
    see_end(pair.client);
    let counters = |role| watch.ended(role, address, 1);
    check(counters, "closed", Ending::FinSent, Ending::ResetReceived);
    Ok(())
}

fn never_accepted(watch: &Watch) -> Result<(), Failed> {
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    let client = TcpStream::connect(address)?;
    watch.until(Role::Downstream, address, |c| {
        c.connections_established == 1
    });
    drop(listener);
    see_end(client);
    let counters = |role| watch.ended(role, address, 1);
    check(
        counters,
        "not accepted",
        Ending::ResetSent,
        Ending::ResetReceived,
    );
    Ok(())
}

/// At level tcp all but what the kernel's counts do not tell.
fn without_packets(watch: &Watch) -> Result<(), Failed> {
    let mut own = Own::new("ends-tcp");
    own.options.level = kernel_sample::Level::Tcp;
    let kernel = own.open(watch);
    let told = |what: &str, end: fn(Pair), server, client| {
        let pair = Pair::new();
        let address = pair.address;
        end(pair);
        let counters = |role| {
            let counters = || own.counters(&kernel, role, address);
            crate::watch::until(what, || counters().closed() == 1);
            counters()
        };
        let both = check(counters, what, server, client);
        for c in both {
            assert_eq!(c.closed_before_response, [0; ENDINGS]);
            assert_eq!(
                (c.closed_within_response, c.closed_response_unknown),
                ([0; ENDINGS], 0)
            );
        }
    };
    for (what, end, server, client) in FINS {
        told(what, end, server, client);
    }
    for (what, end, server, client) in RESETS {
        // A server that has sent nothing may not have been accepted.
        let server = match what {
            "the client, before anything" => Ending::Other,
            "the server, by connecting to nowhere" => continue,
            _ => server,
        };
        told(what, end, server, client);
    }
    Ok(())
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";

/// Where an exchange is when its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    NoExchange,
    BeforeResponse,
    WithinResponse,
    AfterResponse,
}

#[track_caller]
fn check_moment(c: &EndpointCounters, ending: Ending, moment: Moment, what: &str) {
    let none = [0; ENDINGS];
    let (before, within) = match moment {
        Moment::BeforeResponse => (only(ending), none),
        Moment::WithinResponse => (none, only(ending)),
        Moment::NoExchange | Moment::AfterResponse => (none, none),
    };
    assert_eq!(c.connections_closed, only(ending), "{what}");
    assert_eq!(
        (
            c.closed_before_response,
            c.closed_within_response,
            c.closed_response_unknown
        ),
        (before, within, 0),
        "{what}"
    );
}

fn moments_of_an_exchange(watch: &Watch) -> Result<(), Failed> {
    use Moment::{AfterResponse, BeforeResponse, NoExchange, WithinResponse};
    type End = (&'static str, fn(Pair), Ending, Ending);
    let ends: [End; 4] = [
        (
            "the server resets",
            |p| {
                reset(p.server);
                see_end(p.client);
            },
            Ending::ResetSent,
            Ending::ResetReceived,
        ),
        (
            "the client resets",
            |p| {
                reset(p.client);
                see_end(p.server);
            },
            Ending::ResetReceived,
            Ending::ResetSent,
        ),
        (
            "the server closes",
            |p| {
                drop(p.server);
                see_end(p.client);
            },
            Ending::FinSent,
            Ending::FinReceived,
        ),
        (
            "the client closes",
            |p| {
                drop(p.client);
                see_end(p.server);
            },
            Ending::FinReceived,
            Ending::FinSent,
        ),
    ];
    for exchanges_before in 0..2 {
        for moment in [NoExchange, BeforeResponse, WithinResponse, AfterResponse] {
            for (what, end, server, client) in ends {
                let mut pair = Pair::new();
                let address = pair.address;
                for _ in 0..exchanges_before {
                    pair.ask(GET);
                    pair.answer(&[HEAD, b"hello"].concat());
                }
                if moment != NoExchange {
                    pair.ask(GET);
                }
                if moment == WithinResponse {
                    pair.answer(&[HEAD, b"hell"].concat());
                }
                if moment == AfterResponse {
                    pair.answer(&[HEAD, b"hello"].concat());
                }
                end(pair);
                let what = format!("{what}, {moment:?}, after {exchanges_before}");
                let c = watch.ended(Role::Downstream, address, 1);
                check_moment(&c, server, moment, &what);
                let c = watch.ended(Role::Upstream, address, 1);
                check_moment(&c, client, moment, &what);
            }
        }
    }
    Ok(())
}

/// Each cut after every byte of its body by a reset of the server.
fn framing(watch: &Watch) -> Result<(), Failed> {
    let responses: [(&[u8], &[u8], &[u8]); 5] = [
        (GET, HEAD, b"hello"),
        (
            GET,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
            b"",
        ),
        (
            GET,
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n",
            b"",
        ),
        (GET, b"HTTP/1.1 204 No Content\r\nServer: a\r\n\r\n", b""),
    ];
    for (request, head, body) in responses {
        for sent in 0..=body.len() {
            let mut pair = Pair::new();
            let address = pair.address;
            pair.ask(request);
            pair.answer(head);
            // A byte at a time.
            for byte in &body[..sent] {
                pair.answer(&[*byte]);
            }
            reset(pair.server);
            see_end(pair.client);
            let moment = if sent == body.len() {
                Moment::AfterResponse
            } else {
                Moment::WithinResponse
            };
            let what = format!("{sent} of {:?}", String::from_utf8_lossy(body));
            let c = watch.ended(Role::Downstream, address, 1);
            check_moment(&c, Ending::ResetSent, moment, &what);
            let c = watch.ended(Role::Upstream, address, 1);
            check_moment(&c, Ending::ResetReceived, moment, &what);
        }
    }
    // What tells no length ends with the server's FIN, and with nothing else.
    for (end, moment) in [
        (drop as fn(TcpStream), Moment::AfterResponse),
        (reset, Moment::WithinResponse),
    ] {
        let mut pair = Pair::new();
        let address = pair.address;
        pair.ask(GET);
        pair.answer(b"HTTP/1.0 200 OK\r\nServer: a\r\n\r\nhello");
        end(pair.server);
        see_end(pair.client);
        let ending = match moment {
            Moment::AfterResponse => Ending::FinReceived,
            _ => Ending::ResetReceived,
        };
        let c = watch.ended(Role::Upstream, address, 1);
        check_moment(&c, ending, moment, "no length");
    }
    Ok(())
}

/// Drops all that comes from the server's port from now on.
fn black_hole(address: SocketAddr) -> Result<(), Failed> {
    let rule = format!("tcp sport {0} drop; tcp dport {0} drop", address.port());
    for command in [
        "add table inet t".to_owned(),
        "add chain inet t c { type filter hook input priority 0; }".to_owned(),
        format!("add rule inet t c {}", rule.split("; ").next().unwrap()),
        format!("add rule inet t c {}", rule.split("; ").nth(1).unwrap()),
    ] {
        let mut nft = std::process::Command::new("nft");
        let done = nft.args(command.split(' ')).output()?;
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).into_owned().into());
        }
    }
    Ok(())
}

fn unacknowledged(watch: &Watch) -> Result<(), Failed> {
    let address = in_own_network(|| {
        let mut pair = Pair::new();
        pair.ask(GET);
        set_option(&pair.server, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 300)?;
        black_hole(pair.address)?;
        pair.server.write_all(&[HEAD, b"hell"].concat())?;
        let gone = pair.server.read(&mut [0; 9]).unwrap_err();
        assert_eq!(gone.kind(), std::io::ErrorKind::TimedOut);
        Ok(pair.address)
    })?;
    let c = watch.ended(Role::Downstream, address, 1);
    check_moment(&c, Ending::Timeout, Moment::WithinResponse, "no ACK");
    Ok(())
}

fn keepalive(watch: &Watch) -> Result<(), Failed> {
    let address = in_own_network(|| {
        let mut pair = Pair::new();
        pair.ask(GET);
        set_option(&pair.client, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        for (name, value) in [
            (libc::TCP_KEEPIDLE, 1),
            (libc::TCP_KEEPINTVL, 1),
            (libc::TCP_KEEPCNT, 1),
        ] {
            set_option(&pair.client, libc::IPPROTO_TCP, name, value)?;
        }
        black_hole(pair.address)?;
        let gone = pair.client.read(&mut [0; 9]).unwrap_err();
        assert_eq!(gone.kind(), std::io::ErrorKind::TimedOut);
        Ok(pair.address)
    })?;
    let c = watch.ended(Role::Upstream, address, 1);
    check_moment(
        &c,
        Ending::Timeout,
        Moment::BeforeResponse,
        "no answer to a probe",
    );
    Ok(())
}

/// The client does not read, and then is gone; the server has closed.
fn closed_window(watch: &Watch) -> Result<(), Failed> {
    let address = in_own_network(|| {
        let mut pair = Pair::new();
        pair.ask(GET);
        pair.server.write_all(HEAD)?;
        pair.server.set_nonblocking(true)?;
        let much = vec![b'x'; 65_536];
        let write = || (&pair.server).write(&much);
        // The client's queue is full, and so is the server's.
        crate::watch::until("the window is closed", || {
            write().is_err() && std::iter::repeat_with(write).take(20).all(|w| w.is_err())
        });
        set_option(&pair.server, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 300)?;
        black_hole(pair.address)?;
        let address = pair.address;
        drop(pair.server);
        watch.ended(Role::Downstream, address, 1);
        Ok(address)
    })?;
    let c = watch.ended(Role::Downstream, address, 1);
    assert_eq!(c.connections_closed, only(Ending::Timeout));
    Ok(())
}
