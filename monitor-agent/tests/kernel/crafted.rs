//! Segments as only a peer of one's own makes them: in another order, twice,
//! unanswered, or amid the handshake.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    time::{Duration, Instant},
};

use libtest_mimic::Failed;
use monitor_common::{
    counters::{EndpointCounters, Failure},
    ending::{ENDINGS, Ending},
    endpoint::Role,
    http::code_index,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use crate::{
    Case, Watch,
    lossy::{self, run},
    network::{in_own_network, nstat, tcp_socket},
    watch::DEADLINE,
};

pub(crate) const CASES: [Case; 6] = [
    ("a_reset_amid_the_handshake_is_told", reset_amid_handshake),
    (
        "payload_behind_our_fin_is_answered_by_a_reset_of_ours",
        payload_behind_our_fin,
    ),
    (
        "a_reset_that_tcp_does_not_take_ends_nothing",
        reset_that_is_not_taken,
    ),
    (
        "a_client_that_sends_twice_and_out_of_order_counts_once",
        disorderly_client,
    ),
    (
        "a_server_that_sends_twice_and_out_of_order_counts_once",
        disorderly_server,
    ),
    (
        "a_request_with_a_bad_checksum_counts_once_with_the_one_that_is_sent_again",
        bad_checksum,
    ),
];

/// What keeps [`CASES`] from running here.
pub(crate) fn missing() -> Option<String> {
    let no_device = || {
        let there = File::open("/dev/net/tun").is_ok();
        (!there).then(|| "there is no /dev/net/tun".to_owned())
    };
    lossy::missing().or_else(no_device)
}

const OURS: Ipv4Addr = Ipv4Addr::new(10, 213, 9, 1);
const PEERS: Ipv4Addr = Ipv4Addr::new(10, 213, 9, 2);

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const NOP: u8 = 1;
const ACK: u8 = 16;

/// A peer that is no kernel: it sends what it is told to, and nothing else.
struct Peer {
    tun: File,
    port: u16,
    our_port: u16,
    /// Of its next payload.
    seq: u32,
    /// What it has taken of ours.
    taken: u32,
    window: u16,
    /// How many segments it has sent.
    sent: usize,
    /// Whether what it sends is damaged on its way.
    damaged: bool,
}

/// A segment of ours.
#[derive(Debug)]
struct Segment {
    from: u16,
    to: u16,
    seq: u32,
    ack: u32,
    flags: u8,
    payload: Vec<u8>,
}

impl Peer {
    /// At the other end of a device of the calling thread's network.
    fn start(port: u16) -> Result<Self, Failed> {
        const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK);
        let tun = options.open("/dev/net/tun")?;
        // SAFETY: plain old data, of which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"wire") {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the request outlives the call.
        let made = unsafe { libc::ioctl(tun.as_raw_fd(), TUNSETIFF, &raw mut request) };
        if made != 0 {
            return Err(io::Error::last_os_error().into());
        }
        run(&format!("ip address add {OURS}/24 dev wire"))?;
        run("ip link set wire up")?;
        Ok(Self {
            tun,
            port,
            our_port: 0,
            // Its numbers wrap amid what it sends.
            seq: u32::MAX - 20,
            taken: 0,
            window: 60_000,
            sent: 0,
            damaged: false,
        })
    }

    /// Sends so many bytes of sequence space from here on, at this distance from
    /// what it has sent in order.
    fn send_at(&mut self, ahead: u32, flags: u8, payload: &[u8]) -> io::Result<()> {
        let seq = self.seq.wrapping_add(ahead);
        let mut tcp = Vec::new();
        tcp.extend(self.port.to_be_bytes());
        tcp.extend(self.our_port.to_be_bytes());
        tcp.extend(seq.to_be_bytes());
        tcp.extend(self.taken.to_be_bytes());
        // Every other segment has as many options as one with timestamps.
        let options: &[u8] = if self.sent.is_multiple_of(2) {
            &[NOP; 12]
        } else {
            &[]
        };
        self.sent += 1;
        tcp.extend([((20 + options.len()) << 2) as u8, flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.extend(payload);
        let len = u16::try_from(tcp.len()).unwrap();
        let addresses = [PEERS.octets(), OURS.octets()].concat();
        let pseudo = [&addresses[..], &[0, 6], &len.to_be_bytes()].concat();
        let sum = checksum(&[&pseudo[..], &tcp[..]].concat());
        let sum = if self.damaged { !sum } else { sum };
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut ip = vec![0x45, 0];
        ip.extend((len + 20).to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        ip.extend(addresses);
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        self.tun.write_all(&[ip, tcp].concat())
    }

    fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.send_at(0, ACK, payload)?;
        self.seq = self.seq.wrapping_add(u32::try_from(payload.len()).unwrap());
        Ok(())
    }

    /// The next segment of ours that is like this.
    #[track_caller]
    fn expect(&mut self, what: &str, wanted: impl Fn(&Segment) -> bool) -> Segment {
        let deadline = Instant::now() + DEADLINE;
        let mut packet = [0; 2048];
        loop {
            match self.tun.read(&mut packet) {
                Ok(len) => {
                    let segment = parse(&packet[..len]).filter(|s| s.to == self.port);
                    if let Some(segment) = segment.filter(&wanted) {
                        return segment;
                    }
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    assert!(Instant::now() < deadline, "{what}");
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    /// Takes a segment that comes in order.
    fn take(&mut self, segment: &Segment) {
        let controls = u32::from(segment.flags & SYN != 0) + u32::from(segment.flags & FIN != 0);
        let len = u32::try_from(segment.payload.len()).unwrap();
        self.taken = segment.seq.wrapping_add(len + controls);
    }

    /// Takes all that we send, in order, until it ends so; says how often
    /// something came that it had.
    fn take_until(&mut self, end: &[u8]) -> io::Result<u32> {
        let (mut taken, mut again) = (Vec::new(), 0);
        while !taken.ends_with(end) {
            let segment = self.expect("payload", |s| !s.payload.is_empty());
            if segment.seq == self.taken {
                self.take(&segment);
                taken.extend(&segment.payload);
            } else {
                again += 1;
            }
            self.send_at(0, ACK, b"")?;
        }
        Ok(again)
    }

    /// Answers our FIN by its own.
    fn close(&mut self) -> io::Result<()> {
        let fin = self.expect("our FIN", |s| s.flags & FIN != 0);
        self.take(&fin);
        self.send_at(0, ACK | FIN, b"")?;
        self.seq = self.seq.wrapping_add(1);
        let next = self.seq;
        self.expect("an acknowledgement of its FIN", |s| s.ack == next);
        Ok(())
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let mut sum: u32 = words
        .map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A TCP segment over IPv4; anything else is `None`.
fn parse(packet: &[u8]) -> Option<Segment> {
    if packet.len() < 40 || packet[0] != 0x45 || packet[9] != 6 {
        return None;
    }
    let tcp = &packet[20..];
    let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    Some(Segment {
        from: (word(0) >> 16) as u16,
        to: word(0) as u16,
        seq: word(4),
        ack: word(8),
        flags: tcp[13],
        payload: tcp[usize::from(tcp[12] >> 4) * 4..].to_vec(),
    })
}

/// Our SYN crosses the peer's, which then takes it back.
fn reset_amid_handshake(watch: &Watch) -> Result<(), Failed> {
    let to = SocketAddr::from((PEERS, 80));
    in_own_network(|| {
        let mut peer = Peer::start(80)?;
        let client = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        assert_eq!(
            connect(&client, &to).unwrap_err(),
            rustix::io::Errno::INPROGRESS
        );
        let syn = peer.expect("our SYN", |s| s.flags == SYN);
        peer.our_port = syn.from;
        peer.send_at(0, SYN, b"")?;
        peer.seq = peer.seq.wrapping_add(1);
        peer.expect("our answer to its SYN", |s| s.flags == SYN | ACK);
        peer.send_at(0, RST, b"")?;
        Ok(())
    })?;
    let counters = watch.ended(Role::Upstream, to, 1);
    let failed = counters.connections_failed;
    assert_eq!(
        (failed[Failure::Reset as usize], failed.iter().sum()),
        (1, 1)
    );
    assert_eq!((counters.connections_opened, counters.closed()), (1, 0));
    Ok(())
}

/// One connection that ended so, and no other.
fn only(ending: Ending) -> [u64; ENDINGS] {
    let mut counts = [0; ENDINGS];
    counts[ending as usize] = 1;
    counts
}

/// The process has closed the socket, so nobody is going to read what the peer sends.
fn payload_behind_our_fin(watch: &Watch) -> Result<(), Failed> {
    let address = in_own_network(|| {
        let (mut peer, server, address) = accepted()?;
        drop(server);
        let fin = peer.expect("our FIN", |s| s.flags & FIN != 0);
        // Our FIN is not acknowledged: the socket is there yet.
        assert_eq!(peer.taken, fin.seq);
        peer.send(b"to nobody")?;
        peer.expect("a reset", |s| s.flags & RST != 0);
        Ok(address)
    })?;
    let counters = watch.ended(Role::Downstream, address, 1);
    assert_eq!(counters.connections_closed, only(Ending::ResetSent));
    Ok(())
}

/// One outside of the window, and one that is not exactly in order (RFC 5961), which are
/// passed over and challenged.
fn reset_that_is_not_taken(watch: &Watch) -> Result<(), Failed> {
    let address = in_own_network(|| {
        let (mut peer, mut server, address) = accepted()?;
        peer.send_at(0u32.wrapping_sub(1_000), RST, b"")?;
        peer.send_at(5, RST, b"")?;
        peer.expect("a challenge", |s| s.flags == ACK);
        peer.send(GET)?;
        server.read_exact(&mut [0; GET.len()])?;
        server.write_all(OK)?;
        peer.take_until(OK)?;
        drop(server);
        peer.close()?;
        Ok(address)
    })?;
    let counters = watch.ended(Role::Downstream, address, 1);
    assert_eq!(counters.connections_closed, only(Ending::FinSent));
    assert_eq!(counters.closed_within_response, [0; ENDINGS]);
    Ok(())
}

/// Requests, responses, and payload in the order of an endpoint's role.
#[track_caller]
fn check(counters: &EndpointCounters, exchanges: u64, received: usize, sent: usize) {
    let connections = (counters.connections_opened, counters.closed());
    assert_eq!(connections, (1, 1));
    let requests: u64 = counters.requests.iter().sum();
    let responses = counters.responses[code_index(200).unwrap()];
    assert_eq!((requests, responses), (exchanges, exchanges));
    let odd = counters.unparsed + counters.suspected + counters.pipelined + counters.exchanges;
    assert_eq!(odd + counters.requests_without_response, 0);
    let bytes = (
        counters.bytes_received,
        counters.bytes_sent,
        counters.bytes_unacked,
    );
    assert_eq!(bytes, (received as u64, sent as u64, 0));
}

const GET: &[u8] = b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";

/// Sends parts of a message: the rest before its beginning, then all twice.
fn send_in_disorder(peer: &mut Peer, message: &[u8]) -> io::Result<()> {
    let (begin, rest) = message.split_at(7);
    peer.send_at(7, ACK, rest)?;
    peer.send_at(0, ACK, begin)?;
    peer.send_at(7, ACK, rest)?;
    peer.send(message)
}

/// A connection that the peer opens, the server's side of it, and its address.
fn accepted() -> Result<(Peer, TcpStream, SocketAddr), Failed> {
    let mut peer = Peer::start(40_000)?;
    let socket = tcp_socket()?;
    bind(&socket, &SocketAddr::from((OURS, 0)))?;
    rustix::net::listen(&socket, 4)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    peer.our_port = address.port();
    peer.send_at(0, SYN, b"")?;
    peer.seq = peer.seq.wrapping_add(1);
    let answer = peer.expect("the answer to its SYN", |s| s.flags == SYN | ACK);
    peer.take(&answer);
    peer.send(b"")?;
    let server = listener.accept()?.0;
    server.set_read_timeout(Some(DEADLINE))?;
    Ok((peer, server, address))
}

/// Of segments beyond 76 bytes the packet programs run before TCP looks at the
/// checksum, and they are not told whether the device has: a damaged request counts
/// when it comes.  TCP does not take it, and what is sent in its place is to them what
/// came before.
fn bad_checksum(watch: &Watch) -> Result<(), Failed> {
    let long = [b"GET / HTTP/1.1\r\nCookie: ", &[b'c'; 100][..], b"\r\n\r\n"].concat();
    let address = in_own_network(|| {
        let (mut peer, mut server, address) = accepted()?;
        peer.damaged = true;
        // Shorter ones are looked at before.
        peer.send_at(0, ACK, GET)?;
        peer.send_at(0, ACK, &long)?;
        let counted = watch.until(Role::Downstream, address, |c| {
            c.requests.iter().sum::<u64>() == 1
        });
        assert_eq!((counted.requests[0], counted.bytes_received), (1, 0));
        peer.damaged = false;
        peer.send(&long)?;
        server.read_exact(&mut vec![0; long.len()])?;
        server.write_all(OK)?;
        peer.take_until(OK)?;
        drop(server);
        peer.close()?;
        assert_eq!(nstat("TcpInCsumErrors")?, 2);
        Ok(address)
    })?;
    let counters = watch.ended(Role::Downstream, address, 1);
    check(&counters, 1, long.len(), OK.len());
    Ok(())
}

fn disorderly_client(watch: &Watch) -> Result<(), Failed> {
    let address = in_own_network(|| {
        let (mut peer, mut server, address) = accepted()?;
        send_in_disorder(&mut peer, GET)?;
        server.read_exact(&mut [0; GET.len()])?;
        server.write_all(OK)?;
        // Unanswered, it comes again.
        for _ in 0..2 {
            peer.expect("the response", |s| s.payload == OK);
        }
        peer.take_until(OK)?;

        // The next one finds its way closed, and is probed for.
        peer.window = 0;
        peer.send(GET)?;
        server.read_exact(&mut [0; GET.len()])?;
        server.write_all(OK)?;
        let taken = peer.taken;
        peer.expect("a probe", |s| s.seq == taken.wrapping_sub(1));
        peer.window = 60_000;
        peer.send_at(0, ACK, b"")?;
        peer.take_until(OK)?;

        // And one that is sent again once it was answered.
        peer.send(GET)?;
        server.read_exact(&mut [0; GET.len()])?;
        server.write_all(OK)?;
        peer.take_until(OK)?;
        peer.seq = peer.seq.wrapping_sub(GET.len() as u32);
        peer.send(GET)?;
        drop(server);
        peer.close()?;
        Ok(address)
    })?;
    let counters = watch.ended(Role::Downstream, address, 1);
    check(&counters, 3, 3 * GET.len(), 3 * OK.len());
    assert!(counters.retransmits > 0);
    Ok(())
}

fn disorderly_server(watch: &Watch) -> Result<(), Failed> {
    let to = SocketAddr::from((PEERS, 81));
    in_own_network(|| {
        let mut peer = Peer::start(81)?;
        let connecting = std::thread::scope(|scope| -> Result<TcpStream, Failed> {
            // A thread that is made here is in this network too.
            let connecting = scope.spawn(|| TcpStream::connect(to));
            let syn = peer.expect("our SYN", |s| s.flags == SYN);
            peer.our_port = syn.from;
            peer.take(&syn);
            peer.send_at(0, SYN | ACK, b"")?;
            peer.seq = peer.seq.wrapping_add(1);
            Ok(connecting.join().unwrap()?)
        });
        let mut client = connecting?;
        client.set_read_timeout(Some(DEADLINE))?;
        for times in [2, 1, 1] {
            client.write_all(GET)?;
            // Unanswered, it comes again.
            for _ in 1..times {
                peer.expect("the request", |s| s.payload == GET);
            }
            peer.take_until(GET)?;
            send_in_disorder(&mut peer, OK)?;
            client.read_exact(&mut [0; OK.len()])?;
        }
        // An interim response is lost, and comes after the final one.
        client.write_all(GET)?;
        peer.take_until(GET)?;
        peer.send_at(HINTS.len() as u32, ACK, OK)?;
        peer.send(HINTS)?;
        peer.seq = peer.seq.wrapping_add(OK.len() as u32);
        client.read_exact(&mut [0; HINTS.len() + OK.len()])?;
        client.write_all(GET)?;
        peer.take_until(GET)?;
        peer.send(OK)?;
        client.read_exact(&mut [0; OK.len()])?;
        drop(client);
        peer.close()?;
        Ok(())
    })?;
    let counters = watch.ended(Role::Upstream, to, 1);
    check(&counters, 5, 5 * OK.len() + HINTS.len(), 5 * GET.len());
    assert_eq!(counters.responses[code_index(103).unwrap()], 1);
    assert!(counters.retransmits > 0);
    Ok(())
}
