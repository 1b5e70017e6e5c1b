//! HTTP/1 exchanges as the packets show them.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use monitor_common::{
    counters::EndpointCounters,
    endpoint::Role,
    http::{Method, code_index},
};

use crate::{
    Case, Watch,
    network::set_option,
    watch::{Own, fresh},
};

pub(crate) const CASES: [Case; 17] = [
    ("requests_and_responses_are_counted", requests_and_responses),
    (
        "exchange_times_lie_within_what_both_sides_saw",
        exchange_times,
    ),
    ("bodies_do_not_count", bodies_do_not_count),
    ("start_lines_may_be_split_anywhere", split_start_lines),
    (
        "interim_responses_do_not_end_an_exchange",
        interim_responses,
    ),
    ("tunnels_are_no_exchanges", tunnels),
    ("other_protocols_give_exchanges", other_protocols),
    ("a_request_without_a_response_is_told", without_response),
    ("an_early_answer_hides_no_request", early_answers),
    ("pipelined_requests_count_wherever_they_begin", pipelined),
    ("what_follows_a_head_that_is_too_long_is_told", long_heads),
    (
        "where_the_verifier_refuses_heads_they_are_not_read",
        refused_heads,
    ),
    ("the_proxy_protocol_comes_before_requests", proxy_protocol),
    ("a_response_without_a_request_counts", response_alone),
    ("a_request_to_a_closed_socket_is_none", closed_socket),
    ("packets_with_ip_options_count_as_any", ip_options),
    (
        "a_request_that_completes_the_handshake_counts",
        with_the_handshake,
    ),
];

/// A client and a server that speak in turn, each write a segment of its own.
struct Talk {
    address: SocketAddr,
    client: TcpStream,
    server: TcpStream,
}

impl Talk {
    fn new() -> Self {
        let listener = TcpListener::bind(fresh()).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let server = listener.accept().unwrap().0;
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
        }
        Self {
            address,
            client,
            server,
        }
    }

    fn ask(&self, payload: &[u8]) -> &Self {
        send(&self.client, &self.server, payload);
        self
    }

    fn answer(&self, payload: &[u8]) -> &Self {
        send(&self.server, &self.client, payload);
        self
    }

    /// Ends the connection, and has both sides' counts, which must agree.
    fn end(self, watch: &Watch) -> Result<EndpointCounters, Failed> {
        let Self {
            address,
            client,
            server,
        } = self;
        drop((client, server));
        let [down, up] =
            [Role::Downstream, Role::Upstream].map(|role| watch.ended(role, address, 1));
        let same = down.requests == up.requests
            && down.responses == up.responses
            && down.requests_without_response == up.requests_without_response
            && down.exchanges == up.exchanges;
        if same {
            Ok(down)
        } else {
            Err(format!("the sides differ: {down:?} {up:?}").into())
        }
    }
}

/// Sends a segment and waits until it has arrived.
fn send(mut from: &TcpStream, mut to: &TcpStream, payload: &[u8]) {
    from.write_all(payload).unwrap();
    to.read_exact(&mut vec![0; payload.len()]).unwrap();
}

fn requests(c: &EndpointCounters) -> u64 {
    c.requests.iter().sum()
}

fn code(c: &EndpointCounters, code: u16) -> u64 {
    c.responses[code_index(code).unwrap()]
}

fn exchanges_timed(c: &EndpointCounters) -> u64 {
    c.exchange.buckets.iter().sum()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

fn requests_and_responses(watch: &Watch) -> Result<(), Failed> {
    let talk = Talk::new();
    for status in [200, 204, 301, 404, 404, 500, 299] {
        talk.ask(GET)
            .answer(format!("HTTP/1.1 {status} x\r\n\r\n").as_bytes());
    }
    talk.ask(b"DELETE /x HTTP/1.1\r\n\r\n").answer(OK);
    talk.ask(b"PURGE /x HTTP/1.1\r\n\r\n").answer(OK);
    let c = talk.end(watch)?;
    assert_eq!(requests(&c), 9);
    assert_eq!(c.requests[Method::Get as usize], 7);
    assert_eq!(c.requests[Method::Delete as usize], 1);
    assert_eq!(c.requests[Method::Other as usize], 1);
    assert_eq!(
        [200, 204, 299, 301, 404, 500].map(|s| code(&c, s)),
        [3, 1, 1, 1, 2, 1]
    );
    assert_eq!(
        (exchanges_timed(&c), c.unparsed, c.pipelined, c.suspected),
        (9, 0, 0, 0)
    );
    assert!(c.exchange.sum_ns > 0);
    Ok(())
}

/// Times come from the packets where they are sent, and from the clock where they
/// arrive; both are the clock that this process reads.
fn exchange_times(watch: &Watch) -> Result<(), Failed> {
    let talk = Talk::new();
    let address = talk.address;
    let mut least = Duration::ZERO;
    let mut most = Duration::ZERO;
    for _ in 0..5 {
        let before = Instant::now();
        talk.ask(GET);
        let asked = Instant::now();
        std::thread::sleep(Duration::from_millis(5));
        least += asked.elapsed();
        talk.answer(OK);
        most += before.elapsed();
    }
    talk.end(watch)?;
    let least_ns = least.as_nanos();
    let most_ns = most.as_nanos();
    for role in [Role::Downstream, Role::Upstream] {
        let c = watch.counters(role, address);
        assert_eq!(exchanges_timed(&c), 5);
        let sum_ns = u128::from(c.exchange.sum_ns);
        assert!(
            (least_ns..=most_ns).contains(&sum_ns),
            "{role:?}: {least_ns} <= {sum_ns} <= {most_ns}"
        );
    }
    Ok(())
}

fn bodies_do_not_count(watch: &Watch) -> Result<(), Failed> {
    let talk = Talk::new();
    let length = 2 * GET.len();
    talk.ask(format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n").as_bytes())
        .ask(GET)
        .ask(GET);
    talk.answer(OK)
        .answer(b"HTTP/1.1 500 in the body\r\n\r\n")
        .answer(OK);
    talk.ask(GET).answer(OK);
    let c = talk.end(watch)?;
    assert_eq!((requests(&c), code(&c, 200), code(&c, 500)), (2, 2, 0));
    Ok(())
}

fn split_start_lines(watch: &Watch) -> Result<(), Failed> {
    let talk = Talk::new();
    let mut n = 0;
    for at in 1..20 {
        let ((a, b), (c, d)) = (GET.split_at(at), OK.split_at(at));
        talk.ask(a).ask(b).answer(c).answer(d);
        n += 1;
    }
    for byte in GET {
        talk.ask(&[*byte]);
    }
    for byte in OK {
        talk.answer(&[*byte]);
    }
    let c = talk.end(watch)?;
    assert_eq!((requests(&c), code(&c, 200), c.unparsed), (n + 1, n + 1, 0));
    Ok(())
}

fn interim_responses(watch: &Watch) -> Result<(), Failed> {
    let talk = Talk::new();
    talk.ask(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n");
    talk.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
        .ask(b"the body")
        .answer(OK);
    talk.ask(GET);
    talk.answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 no\r\n\r\n");
    // Three interim ones and the final one: as many heads as are looked for.
    let hints = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(3);
    talk.ask(GET).answer(&[&hints[..], OK].concat());
    talk.ask(GET).answer(OK);
    // The final one begins within the interim one's segment, wherever that ends.
    let both = [&b"HTTP/1.1 103 Early Hints\r\n\r\n"[..], OK].concat();
    let cuts = both.len() - OK.len()..both.len() - OK.len() + 12;
    let times = cuts.len() as u64;
    for cut in cuts {
        talk.ask(GET).answer(&both[..cut]).answer(&both[cut..]);
    }
    let c = talk.end(watch)?;
    assert_eq!(requests(&c), 4 + times);
    let expected = [1, 4 + times, 3 + times, 1];
    assert_eq!([100, 103, 200, 404].map(|s| code(&c, s)), expected);
    assert_eq!(
        (
            exchanges_timed(&c),
            c.pipelined,
            c.requests_without_response
        ),
        (4 + times, 0, 0)
    );
    Ok(())
}

fn tunnels(watch: &Watch) -> Result<(), Failed> {
    for (request, response) in [
        (
            b"GET /ws HTTP/1.1\r\n\r\n".as_slice(),
            b"HTTP/1.1 101 Switching\r\n\r\n".as_slice(),
        ),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
    ] {
        let talk = Talk::new();
        talk.ask(request).answer(response);
        for _ in 0..5 {
            talk.ask(GET).answer(OK);
        }
        let c = talk.end(watch)?;
        assert_eq!((requests(&c), exchanges_timed(&c)), (1, 1));
    }
    Ok(())
}

fn other_protocols(watch: &Watch) -> Result<(), Failed> {
    let talk = Talk::new();
    for _ in 0..3 {
        talk.ask(b"\x16\x03\x01\x00\x05hello")
            .answer(b"\x16\x03\x03\x00\x02hi")
            .answer(b"more");
    }
    let c = talk.end(watch)?;
    assert_eq!(
        (c.exchanges, requests(&c), exchanges_timed(&c), c.unparsed),
        (3, 0, 3, 0)
    );
    Ok(())
}

fn without_response(watch: &Watch) -> Result<(), Failed> {
    let talk = Talk::new();
    talk.ask(GET).answer(OK).ask(GET);
    let c = talk.end(watch)?;
    assert_eq!(
        (requests(&c), code(&c, 200), c.requests_without_response),
        (2, 1, 1)
    );
    Ok(())
}

/// The server throws away what comes of the body, and the next request begins within
/// the segment that ends it.
fn early_answers(watch: &Watch) -> Result<(), Failed> {
    const EARLY: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let talk = Talk::new();
    let length = 2 * GET.len() + 7;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    talk.ask(head.as_bytes()).answer(EARLY).ask(GET);
    talk.ask(&[GET, b"the end", GET].concat()).answer(OK);
    let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1b\r\n";
    talk.ask(chunked).answer(EARLY).ask(GET);
    talk.ask(&[b"\r\n0\r\n\r\n", GET].concat()).answer(OK);
    talk.ask(GET).answer(OK);
    let c = talk.end(watch)?;
    assert_eq!((requests(&c), code(&c, 404), code(&c, 200)), (5, 2, 3));
    assert_eq!((c.pipelined, c.suspected, c.unparsed), (0, 0, 0));
    Ok(())
}

fn pipelined(watch: &Watch) -> Result<(), Failed> {
    let talk = Talk::new();
    let post = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc".as_slice();
    talk.ask(post)
        .ask(b"DELETE /a HTTP/1.1\r\n\r\n")
        .ask(b"OPTIONS * HTTP/1.1\r\n\r\n");
    talk.ask(&[post, GET, post].concat());
    for _ in 0..6 {
        talk.answer(OK);
    }
    let c = talk.end(watch)?;
    assert_eq!((requests(&c), code(&c, 200)), (6, 6));
    assert_eq!((c.pipelined, c.requests_without_response), (1, 0));
    Ok(())
}

/// Its end is not looked for, and that of its body is not known.
fn long_heads(watch: &Watch) -> Result<(), Failed> {
    let lost = watch.lost("passed_over");
    let cookie = "x".repeat(4_000);
    let long = format!("POST / HTTP/1.1\r\nCookie: {cookie}\r\nContent-Length: 3\r\n\r\nabc");
    let talk = Talk::new();
    talk.ask(long.as_bytes()).answer(OK).answer(b"more of it");
    talk.ask(long.as_bytes()).ask(GET).answer(OK).answer(OK);
    talk.ask(GET).answer(OK);
    let c = talk.end(watch)?;
    assert_eq!((requests(&c), code(&c, 200), c.suspected), (3, 3, 1));
    assert!(
        watch.lost("passed_over") >= lost + 2,
        "each side has one response more"
    );
    Ok(())
}

/// Every verifier tires of heads without a bound.
fn refused_heads(watch: &Watch) -> Result<(), Failed> {
    let mut own = Own::new("parts");
    own.options.parts_max = 1 << 20;
    let kernel = own.open(watch);
    let talk = Talk::new();
    let address = talk.address;
    talk.ask(GET).answer(OK).ask(GET).answer(OK);
    talk.end(watch)?;
    let c = own.counters(&kernel, Role::Downstream, address);
    assert_eq!((requests(&c), code(&c, 200)), (2, 2));
    Ok(())
}

fn proxy_protocol(watch: &Watch) -> Result<(), Failed> {
    let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n".as_slice();
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\xdc\x04\x01\xbb";
    for (header, client) in [
        (v1, Some(([192, 0, 2, 1], 56_324).into())),
        (v2.as_slice(), Some(([192, 0, 2, 1], 56_324).into())),
        (b"PROXY UNKNOWN\r\n".as_slice(), None),
        (b"".as_slice(), None),
    ] {
        for apart in [false, true] {
            let talk = Talk::new();
            if apart && !header.is_empty() {
                talk.ask(header).ask(GET);
            } else {
                talk.ask(&[header, GET].concat());
            }
            talk.answer(OK).ask(GET).answer(OK);
            let sockets = watch.sockets(talk.address);
            assert_eq!(sockets.len(), 2, "both sides");
            for socket in sockets {
                assert_eq!(socket.live.client, client, "{header:?} {apart}");
            }
            let c = talk.end(watch)?;
            assert_eq!((requests(&c), code(&c, 200), c.exchanges), (2, 2, 0));
        }
    }
    Ok(())
}

fn response_alone(watch: &Watch) -> Result<(), Failed> {
    const TIMEOUT: &[u8] = b"HTTP/1.0 408 Request Time-out\r\n\r\n";
    let idle = Talk::new();
    idle.answer(TIMEOUT);
    let c = idle.end(watch)?;
    assert_eq!((requests(&c), code(&c, 408)), (0, 1));
    let slow = Talk::new();
    slow.ask(b"GET /slow HTTP").answer(TIMEOUT);
    let c = slow.end(watch)?;
    assert_eq!((requests(&c), code(&c, 408), c.unparsed), (0, 1, 1));
    Ok(())
}

/// The kernel answers it by a reset, and nobody reads it.
fn closed_socket(watch: &Watch) -> Result<(), Failed> {
    let talk = Talk::new();
    talk.ask(GET).answer(OK);
    let Talk {
        address,
        mut client,
        server,
    } = talk;
    drop(server);
    // Its FIN has come.
    assert_eq!(client.read(&mut [0])?, 0);
    client.write_all(GET)?;
    let c = watch.ended(Role::Downstream, address, 1);
    assert_eq!((requests(&c), c.requests_without_response), (1, 0));
    assert_eq!(c.bytes_received, GET.len() as u64);
    Ok(())
}

/// Four bytes that mean nothing between the headers of IP and TCP.
fn ip_options(watch: &Watch) -> Result<(), Failed> {
    const NOTHING: u32 = u32::from_ne_bytes([1; 4]);
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    for n in 1..=5 {
        let client = TcpStream::connect(address)?;
        let server = listener.accept()?.0;
        for socket in [&client, &server] {
            set_option(
                socket,
                libc::IPPROTO_IP,
                libc::IP_OPTIONS,
                NOTHING.cast_signed(),
            )?;
        }
        (&client).write_all(GET)?;
        (&server).read_exact(&mut [0; GET.len()])?;
        (&server).write_all(OK)?;
        (&client).read_exact(&mut [0; OK.len()])?;
        drop((client, server));
        for role in [Role::Downstream, Role::Upstream] {
            let c = watch.ended(role, address, n);
            assert_eq!(c.requests[Method::Get as usize], n, "{role:?}");
            assert_eq!(c.responses[code_index(200).unwrap()], n);
            assert_eq!((c.exchanges, c.unparsed), (0, 0));
        }
    }
    Ok(())
}

/// With `TCP_DEFER_ACCEPT` the connection is made by its first request.
fn with_the_handshake(watch: &Watch) -> Result<(), Failed> {
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    set_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 5)?;
    for n in 1..=10 {
        let client = TcpStream::connect(address)?;
        (&client).write_all(GET)?;
        let server = listener.accept()?.0;
        (&server).read_exact(&mut [0; GET.len()])?;
        send(&server, &client, OK);
        send(&client, &server, GET);
        send(&server, &client, OK);
        drop((client, server));
        for role in [Role::Downstream, Role::Upstream] {
            let c = watch.ended(role, address, n);
            assert_eq!((requests(&c), code(&c, 200)), (2 * n, 2 * n), "{role:?}");
        }
    }
    Ok(())
}
