//! Endpoints that are idle for long give their place to others.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bpf::Kernel;
use kernel_sample::EndpointAddress;
use libtest_mimic::Failed;
use monitor_common::{
    counters::EndpointCounters,
    endpoint::{EndpointKey, Role},
};
use rustix::net::connect;

use crate::{
    Case, Watch,
    bpf::PinnedMap,
    network::{in_own_network, tcp_socket},
    watch::{Own, fresh, until},
};

pub(crate) const CASES: [Case; 5] = [
    (
        "an_endpoint_that_comes_again_goes_on_from_its_totals",
        goes_on_from_its_totals,
    ),
    ("idle_endpoints_make_room_in_a_full_map", make_room),
    (
        "a_value_that_is_another_endpoints_by_now_counts_for_nobody_else",
        recycled_value,
    ),
    (
        "an_attempt_that_fails_when_its_place_was_given_away_counts_for_nobody_else",
        late_failure,
    ),
    (
        "endpoints_that_come_and_go_are_never_taken_for_each_other",
        come_and_go,
    ),
];

fn find(kernel: &Kernel, address: SocketAddr) -> Option<EndpointCounters> {
    let sample = kernel.read();
    let address = EndpointAddress::Socket(address);
    let mut endpoints = sample.endpoints.iter();
    let found = endpoints.find(|e| e.id.role == Role::Downstream && e.id.address == address);
    found.map(|e| *e.counters)
}

fn has_a_place(kernel: &Kernel, address: SocketAddr) -> bool {
    let address = EndpointAddress::Socket(address);
    let endpoints = kernel.counter_snapshot().endpoints;
    let mut endpoints = endpoints.iter();
    endpoints.any(|e| e.id.role == Role::Downstream && e.id.address == address)
}

/// A connection that carries three bytes and is closed.
fn converse(listener: &TcpListener) {
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut server = listener.accept().unwrap().0;
    client.write_all(b"abc").unwrap();
    server.read_exact(&mut [0; 3]).unwrap();
}

/// Opened, closed, received.
fn figures(counters: Option<EndpointCounters>) -> Option<[u64; 3]> {
    counters.map(|c| [c.connections_opened, c.closed(), c.bytes_received])
}

fn goes_on_from_its_totals(watch: &Watch) -> Result<(), Failed> {
    let mut own = Own::new("retirement");
    own.options.retire_after = Duration::from_millis(5);
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    let mut kernel = own.open(watch);
    let since = kernel.read().since_unix_ns;
    for n in 1..=3 {
        converse(&listener);
        let expected = Some([n, n, 3 * n]);
        until("it is counted", || {
            figures(find(&kernel, address)) == expected
        });
        // It has no slot any more, and its totals are there.
        until("it is retired", || {
            let _sample = kernel.read();
            !has_a_place(&kernel, address)
        });
        assert_eq!(figures(find(&kernel, address)), expected);
        let reader = Kernel::open_pinned(&own.options.pin_dir)?;
        assert_eq!(figures(find(&reader, address)), expected);
        drop(kernel);
        kernel = own.open(watch);
        assert_eq!(figures(find(&kernel, address)), expected);
        assert_eq!(kernel.read().since_unix_ns, since);
    }
    // An open connection keeps its endpoint's place, however idle it is.
    let client = TcpStream::connect(address)?;
    let server = listener.accept()?.0;
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(figures(find(&kernel, address)), Some([4, 3, 9]));
        assert!(has_a_place(&kernel, address));
    }
    drop((client, server));
    Ok(())
}

fn make_room(watch: &Watch) -> Result<(), Failed> {
    let mut own = Own::new("retirement-room");
    own.options.endpoints_max = 2;
    let kernel = own.open(watch);
    // Both roles of one connection take both places.
    let listeners: Vec<_> = (0..3)
        .map(|_| TcpListener::bind(fresh()).unwrap())
        .collect();
    listeners.iter().for_each(converse);
    let last = listeners[2].local_addr()?;
    let other = |kernel: &Kernel| {
        let sample = kernel.read();
        let endpoints = sample.endpoints.iter();
        let other = endpoints.filter(|e| e.id.address == EndpointAddress::Other);
        other.map(|e| e.counters.connections_opened).sum::<u64>()
    };
    assert_eq!(find(&kernel, last).map(|_| ()), None);
    assert!(other(&kernel) >= 4, "the rest is counted all the same");
    drop(kernel);
    own.options.retire_after = Duration::from_millis(5);
    let kernel = own.open(watch);
    until("it gets a place", || {
        converse(&listeners[2]);
        std::thread::sleep(Duration::from_millis(10));
        let _sample = kernel.read();
        find(&kernel, last).is_some()
    });
    Ok(())
}

/// The pinned map of the programs' slots.
fn slots(own: &Own) -> io::Result<PinnedMap<EndpointKey>> {
    let targets = |layout: PathBuf| fs::read_dir(layout).unwrap().flatten();
    let layouts = fs::read_dir(&own.options.pin_dir)?.flatten();
    let mut paths = layouts.flat_map(|layout| targets(layout.path()));
    PinnedMap::open(&paths.next().unwrap().path().join("ENDPOINTS"))
}

/// Between finding a value and reading it the kernel may give its place to another
/// endpoint; it is as if this had happened.
fn recycled_value(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("retirement-recycled");
    let kernel = own.open(watch);
    let (mine, others) = (TcpListener::bind(fresh())?, TcpListener::bind(fresh())?);
    let key = |listener: &TcpListener| {
        let address = listener.local_addr().unwrap();
        let SocketAddr::V4(v4) = address else {
            panic!("{address}")
        };
        EndpointKey {
            address: EndpointKey::v4_mapped(v4.ip().octets()),
            port: v4.port(),
            role: Role::Downstream as u8,
            flags: 0,
        }
    };
    for listener in [&mine, &others] {
        converse(listener);
    }
    let figures = |listener: &TcpListener| figures(find(&kernel, listener.local_addr().unwrap()));
    let once = Some([1, 1, 3]);
    until("both are counted", || {
        [&mine, &others].map(figures) == [once, once]
    });
    let slots = slots(&own)?;
    let (slot, other) = (slots.get(&key(&mine))?, slots.get(&key(&others))?);
    slots.set(&key(&mine), other)?;
    let full = own.lost(&kernel, "endpoint_map_full");
    converse(&mine);
    until("it is counted as another", || {
        own.lost(&kernel, "endpoint_map_full") > full
    });
    slots.set(&key(&mine), slot)?;
    converse(&mine);
    until("it is found again", || figures(&mine) == Some([2, 2, 6]));
    assert_eq!(figures(&others), once);
    Ok(())
}

/// Any address below 127.3 or 127.4 reaches a listener on all of them.
fn address_of(listener: &TcpListener, net: u8, n: u16) -> SocketAddr {
    let [high, low] = n.to_be_bytes();
    ([127, net, high, low], listener.local_addr().unwrap().port()).into()
}

fn upstream(kernel: &Kernel, wanted: impl Fn(EndpointAddress) -> bool) -> Vec<EndpointCounters> {
    let endpoints = kernel.read().endpoints.into_iter();
    let endpoints = endpoints.filter(|e| e.id.role == Role::Upstream && wanted(e.id.address));
    endpoints.map(|e| *e.counters).collect()
}

fn late_failure(watch: &Watch) -> Result<(), Failed> {
    const PORT: u16 = 9_999;
    let mut own = Own::new("retirement-late");
    own.options.retire_after = Duration::from_millis(5);
    own.options.endpoints_max = 60;
    let kernel = own.open(watch);
    // Without a route an attempt fails before its SYN; nobody tells of it while the
    // socket is held.
    let nowhere = SocketAddr::from(([10, 9, 9, 9], PORT));
    let attempt = in_own_network(|| {
        let attempt = tcp_socket()?;
        connect(&attempt, &nowhere).unwrap_err();
        Ok(attempt)
    })?;
    let has_a_place = || {
        let endpoints = kernel.counter_snapshot().endpoints.into_iter();
        let mut addresses = endpoints.map(|e| e.id.address);
        addresses.any(|address| address == EndpointAddress::Socket(nowhere))
    };
    assert!(has_a_place());
    until("its place is given back", || {
        let _sample = kernel.read();
        !has_a_place()
    });
    // As many others as there are places: one of them has got that one.
    let listener = TcpListener::bind("0.0.0.0:0")?;
    for n in 0..100 {
        drop(TcpStream::connect(address_of(&listener, 3, n))?);
        drop(listener.accept()?);
    }
    let failed = |counters: Vec<EndpointCounters>| -> u64 {
        counters.iter().map(|c| c.failed_before_syn).sum()
    };
    let other = || failed(upstream(&kernel, |a| a == EndpointAddress::Other));
    let before = other();
    drop(attempt);
    until("it is counted", || other() == before + 1);
    let port = listener.local_addr()?.port();
    let of_port =
        |a| matches!(a, EndpointAddress::Socket(a) if a.port() == port && a.ip() != nowhere.ip());
    assert_eq!(failed(upstream(&kernel, of_port)), 0);
    Ok(())
}

/// While endpoints lose and get places all the time, each has what was sent to it.
fn come_and_go(watch: &Watch) -> Result<(), Failed> {
    const ENDPOINTS: u16 = 40;
    const ROUNDS: u64 = 25;
    let mut own = Own::new("retirement-come-and-go");
    own.options.retire_after = Duration::from_millis(1);
    let kernel = own.open(watch);
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            for _ in 0..ROUNDS {
                for n in 0..ENDPOINTS {
                    let to = address_of(&listener, 4, n);
                    let mut client = TcpStream::connect(to).unwrap();
                    let mut server = listener.accept().unwrap().0;
                    client.write_all(&vec![b'x'; usize::from(n) + 1]).unwrap();
                    server.read_exact(&mut vec![0; usize::from(n) + 1]).unwrap();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let _sample = kernel.read();
        }
        clients.join().unwrap();
    });
    for n in 0..ENDPOINTS {
        let to = EndpointAddress::Socket(address_of(&listener, 4, n));
        let expected = (ROUNDS, ROUNDS, ROUNDS * (u64::from(n) + 1));
        until(&format!("what {to:?} has"), || {
            let counters = upstream(&kernel, |address| address == to);
            let figures = counters
                .iter()
                .map(|c| (c.connections_opened, c.closed(), c.bytes_sent));
            figures.eq([expected])
        });
    }
    Ok(())
}
