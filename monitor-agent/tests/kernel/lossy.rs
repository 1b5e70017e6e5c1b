//! Networks that lose packets or lead nowhere: attempts that nobody answers, and
//! retransmissions as `ss` and `nstat` have them.
//!
//! The networks are made by `ip` and `tc`, each for one thread.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
};

use libtest_mimic::Failed;
use monitor_common::{
    counters::{EndpointCounters, Failure},
    endpoint::Role,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::{
    Case, Watch,
    network::{in_own_network, nstat, set_option, tcp_socket},
    watch::{fresh, until},
};

pub(crate) const CASES: [Case; 5] = [
    ("an_unanswered_attempt_times_out", times_out),
    ("syns_sent_again_are_those_of_nstat", syns_sent_again),
    (
        "an_attempt_at_an_absent_host_is_unreachable",
        absent_host_is_unreachable,
    ),
    (
        "an_attempt_without_a_route_dies_before_its_syn",
        without_a_route,
    ),
    (
        "retransmissions_and_bytes_are_those_of_ss",
        retransmissions_are_those_of_ss,
    ),
];

/// What keeps [`CASES`] from running here.
pub(crate) fn missing() -> Option<String> {
    ["ip", "ss", "tc"].into_iter().find_map(|program| {
        let found = Command::new(program).arg("-V").output().is_ok();
        (!found).then(|| format!("`{program}` of iproute2 is not installed"))
    })
}

/// Once full, a listener's accept queue drops SYNs without a word.
fn times_out(watch: &Watch) -> Result<(), Failed> {
    let stream = || {
        let flags = SocketFlags::CLOEXEC;
        socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
    };
    let (address, sent_again) = in_own_network(|| {
        let listener = stream()?;
        rustix::net::bind(&listener, &fresh())?;
        rustix::net::listen(&listener, 0)?;
        let address = SocketAddr::try_from(rustix::net::getsockname(&listener)?)?;
        let _first = TcpStream::connect(address)?;
        watch.until(Role::Downstream, address, |c| {
            c.connections_established == 1
        });
        let attempt = stream()?;
        set_option(&attempt, libc::IPPROTO_TCP, libc::TCP_SYNCNT, 1)?;
        let error = connect(&attempt, &address).unwrap_err();
        assert_eq!(error, rustix::io::Errno::TIMEDOUT);
        Ok((address, nstat("TcpRetransSegs")?))
    })?;
    let counters = watch.ended(Role::Upstream, address, 2);
    assert_eq!(failed_by(&counters, Failure::Timeout), (1, 1));
    assert_eq!((counters.connections_opened, counters.closed()), (2, 1));
    assert!(sent_again > 0);
    assert_eq!(counters.retransmits, sent_again);
    assert_eq!(counters.syn_retransmits, sent_again);
    Ok(())
}

/// A SYN that finds the accept queue full is sent again and answered when there is
/// room; the SYN-ACK of a listener that waits for a request is, when none comes.
fn syns_sent_again(watch: &Watch) -> Result<(), Failed> {
    let sent_again = || nstat("TcpExtTCPSynRetrans");
    let (full, deferred, told) = in_own_network(|| {
        let socket = tcp_socket()?;
        rustix::net::bind(&socket, &fresh())?;
        rustix::net::listen(&socket, 0)?;
        let listener = TcpListener::from(socket);
        let full = listener.local_addr()?;
        let _first = TcpStream::connect(full)?;
        watch.until(Role::Downstream, full, |c| c.connections_established == 1);
        let second = tcp_socket()?;
        rustix::io::ioctl_fionbio(&second, true)?;
        assert_eq!(connect(&second, &full), Err(rustix::io::Errno::INPROGRESS));
        until("a SYN was sent again", || sent_again().unwrap() > 0);
        drop(listener.accept()?);
        drop(listener.accept()?);
        drop(second);
        let sent_to_full = sent_again()?;

        let listener = TcpListener::bind(fresh())?;
        let deferred = listener.local_addr()?;
        set_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 1)?;
        let client = TcpStream::connect(deferred)?;
        drop(listener.accept()?);
        drop(client);
        Ok((full, deferred, [sent_to_full, sent_again()?]))
    })?;
    let counted = |role, address, n| {
        let c = watch.ended(role, address, n);
        assert_eq!(c.retransmits, c.syn_retransmits);
        c.syn_retransmits
    };
    assert_eq!(counted(Role::Upstream, full, 2), told[0]);
    assert_eq!(counted(Role::Downstream, full, 2), 0);
    assert_eq!(counted(Role::Upstream, deferred, 1), 0);
    assert_eq!(counted(Role::Downstream, deferred, 1), told[1] - told[0]);
    assert!(told[1] > told[0]);
    Ok(())
}

/// How many failed for this reason, and for any.
fn failed_by(counters: &EndpointCounters, reason: Failure) -> (u64, u64) {
    (
        counters.connections_failed[reason as usize],
        counters.connections_failed.iter().sum(),
    )
}

/// Runs a command in the calling thread's network; returns its stdout.
pub(crate) fn run(command: &str) -> Result<String, Failed> {
    let mut words = command.split(' ');
    let program = words.next().unwrap();
    let output = Command::new(program).args(words).output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{command}`: {stderr}").into())
}

/// Nobody answers who has this address, so the kernel sends itself an ICMP error.
fn absent_host_is_unreachable(watch: &Watch) -> Result<(), Failed> {
    let absent = SocketAddr::from(([10, 213, 7, 2], 80));
    in_own_network(|| {
        run("ip link add one type veth peer name other")?;
        run("ip address add 10.213.7.1/24 dev one")?;
        run("ip link set one up")?;
        run("ip link set other up")?;
        fs::write("/proc/sys/net/ipv4/neigh/one/retrans_time_ms", "100")?;
        for _ in 0..2 {
            let error = TcpStream::connect(absent).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
        }
        Ok(())
    })?;
    let counters = watch.ended(Role::Upstream, absent, 2);
    assert_eq!(failed_by(&counters, Failure::Unreachable), (2, 2));
    assert_eq!(
        (counters.connections_opened, counters.failed_before_syn),
        (2, 0)
    );
    Ok(())
}

fn without_a_route(watch: &Watch) -> Result<(), Failed> {
    let nowhere = SocketAddr::from(([10, 213, 8, 2], 80));
    in_own_network(|| {
        let error = TcpStream::connect(nowhere).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
        Ok(())
    })?;
    let counters = watch.until(Role::Upstream, nowhere, |c| c.failed_before_syn >= 1);
    assert_eq!(
        (counters.failed_before_syn, counters.connections_opened),
        (1, 0)
    );
    Ok(())
}

/// A queue that is too short for what TCP sends drops packets.
fn retransmissions_are_those_of_ss(watch: &Watch) -> Result<(), Failed> {
    const SENT: usize = 4 << 20;
    let (address, told) = in_own_network(|| {
        run("tc qdisc add dev lo root tbf rate 80mbit burst 80kb limit 100kb")?;
        let listener = TcpListener::bind(fresh())?;
        let address = listener.local_addr()?;
        let mut client = TcpStream::connect(address)?;
        let mut server = listener.accept()?.0;
        std::thread::scope(|scope| {
            scope.spawn(|| server.read_exact(&mut vec![0; SENT]).unwrap());
            client.write_all(&vec![b'x'; SENT])
        })?;
        let sockets = format!("ss -tinHO state established dport = {}", address.port());
        let acknowledged = format!("bytes_acked:{}", SENT + 1);
        let told = loop {
            let told = run(&sockets)?;
            if told.contains(&acknowledged) {
                break told;
            }
        };
        Ok((address, told))
    })?;
    let counters = watch.ended(Role::Upstream, address, 1);
    let retransmits: u64 = word(&told, "retrans:0/").map_or(0, |n| n.parse().unwrap());
    assert!(retransmits > 0, "nothing was lost: {told}");
    assert_eq!(counters.retransmits, retransmits);
    assert_eq!(
        (counters.bytes_sent, counters.bytes_unacked),
        (SENT as u64, 0)
    );
    let received = watch.ended(Role::Downstream, address, 1).bytes_received;
    assert_eq!(received, SENT as u64);
    Ok(())
}

/// What follows a name in what `ss` prints.
fn word<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split_whitespace().find_map(|w| w.strip_prefix(name))
}
