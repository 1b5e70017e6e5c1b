//! Endpoints that are idle for long give their place to others.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use libtest_mimic::Failed;
use monitor_agent::kernel::{EndpointAddress, Kernel};
use monitor_common::{counters::EndpointCounters, endpoint::Role};

use crate::{
    Case, Watch,
    watch::{Own, fresh, until},
};

pub(crate) const CASES: [Case; 2] = [
    (
        "an_endpoint_that_comes_again_goes_on_from_its_totals",
        goes_on_from_its_totals,
    ),
    ("idle_endpoints_make_room_in_a_full_map", make_room),
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
    let endpoints = kernel.glance().endpoints;
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
    counters.map(|c| [c.connections_opened, c.connections_closed, c.bytes_received])
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
