//! Sockets of other network namespaces, and the comparison of what is counted
//! with the sockets there are.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    process::{Child, Command, Stdio},
    time::Instant,
};

use bpf::Kernel;
use kernel_sample::EndpointAddress;
use libtest_mimic::Failed;
use monitor_common::endpoint::Role;
use rustix::thread::CapabilitySet;

use crate::{
    Case, Watch,
    network::leave_the_network,
    watch::{DEADLINE, Own, fresh, give_up_all_but, until},
};

pub(crate) const CASES: [Case; 4] = [
    (
        "sockets_of_a_namespace_that_a_process_is_in_or_holds_are_found",
        found_where_a_process_is,
    ),
    (
        "sockets_of_a_namespace_that_nothing_holds_are_told",
        found_nowhere,
    ),
    ("namespaces_that_may_not_be_entered_are_told", hidden),
    (
        "a_look_at_the_sockets_waits_for_its_budget",
        waits_for_its_budget,
    ),
];

const UPLOADED: usize = 12_345;

/// A process that stays until it is ended.
struct Resident(Child);

impl Resident {
    fn new(namespace: &File) -> io::Result<Self> {
        // SAFETY: changes the calling thread alone.
        if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let child = Command::new("cat").stdin(Stdio::piped()).spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn difference(kernel: &Kernel, expected: i64) -> Option<i64> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let difference = kernel.read().connection_difference;
        if difference == Some(expected) || Instant::now() > deadline {
            return difference;
        }
    }
}

/// An upload from and to another network namespace, without an answer.
struct Elsewhere {
    /// What finds it, as a proxy holds one that it makes sockets in.
    namespace: Option<File>,
    address: SocketAddr,
    _connection: (TcpListener, TcpStream, TcpStream),
}

fn elsewhere() -> io::Result<Elsewhere> {
    leave_the_network()?;
    let listener = TcpListener::bind(fresh())?;
    let address = listener.local_addr()?;
    let mut client = TcpStream::connect(address)?;
    let mut server = listener.accept()?.0;
    client.write_all(&[b'u'; UPLOADED])?;
    server.read_exact(&mut [0; UPLOADED])?;
    Ok(Elsewhere {
        namespace: Some(File::open("/proc/thread-self/ns/net")?),
        address,
        _connection: (listener, client, server),
    })
}

/// On a thread that may change its namespace.
fn apart<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// What no callback told is in a dump of that namespace.
fn check_found(kernel: &Kernel, elsewhere: &Elsewhere) {
    let sample = kernel.read();
    assert!(!sample.sockets_hidden);
    let address = EndpointAddress::Socket(elsewhere.address);
    let mut endpoints = sample.endpoints.iter();
    let found = endpoints.find(|e| e.id.address == address && e.id.role == Role::Downstream);
    assert_eq!(found.unwrap().counters.bytes_received, UPLOADED as u64);
    let sockets = sample.sockets.iter();
    assert_eq!(sockets.filter(|s| s.endpoint.address == address).count(), 2);
}

fn found_where_a_process_is(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("namespaces");
    let kernel = own.open(watch);
    let elsewhere = apart(elsewhere)?;
    // No process is there, but one holds it.
    assert_eq!(difference(&kernel, 0), Some(0));
    check_found(&kernel, &elsewhere);
    let namespace = elsewhere.namespace.as_ref().unwrap();
    let resident = apart(|| Resident::new(namespace))?;
    assert_eq!(difference(&kernel, 0), Some(0));
    check_found(&kernel, &elsewhere);
    drop(elsewhere);
    assert_eq!(difference(&kernel, 0), Some(0), "both ended");
    drop(resident);
    Ok(())
}

/// Where nothing but its sockets keeps a namespace they can be counted alone.
fn found_nowhere(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("namespaces-nowhere");
    let kernel = own.open(watch);
    let mut elsewhere = apart(elsewhere)?;
    elsewhere.namespace = None;
    until("it is told", || {
        let sample = kernel.read();
        sample.sockets_hidden && sample.connection_difference.is_none()
    });
    drop(elsewhere);
    until("both ended", || {
        let sample = kernel.read();
        !sample.sockets_hidden && sample.connection_difference == Some(0)
    });
    Ok(())
}

/// Their sockets can be counted and not be looked at.
fn hidden(watch: &Watch) -> Result<(), Failed> {
    let own = Own::new("hidden");
    fs::create_dir_all(&own.options.pin_dir)?;
    let elsewhere = apart(elsewhere)?;
    let resident = apart(|| Resident::new(elsewhere.namespace.as_ref().unwrap()))?;
    // With the latter it is known which namespace they are in, without it only that
    // it is another one.
    for seeing in [CapabilitySet::SYS_PTRACE, CapabilitySet::empty()] {
        let sample = apart(|| {
            let programs = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
            give_up_all_but(programs | seeing)?;
            Ok(own.open(watch).read())
        })?;
        assert!(sample.sockets_hidden, "{seeing:?}");
        assert_eq!(sample.connection_difference, None, "not comparable");
    }
    drop(resident);
    Ok(())
}

/// What no callback tells is left to the next look, however long that takes, and
/// how old the last one is can be read.
fn waits_for_its_budget(watch: &Watch) -> Result<(), Failed> {
    let mut own = Own::new("budget");
    // A look that took a millisecond is followed by a pause of years.
    own.options.dump_budget = 1e-12;
    let kernel = own.open(watch);
    let first = kernel.read();
    assert!(first.connection_difference.is_some() || first.sockets_hidden);
    let listener = TcpListener::bind(fresh())?;
    let address = EndpointAddress::Socket(listener.local_addr()?);
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let mut server = listener.accept()?.0;
    client.write_all(&[b'u'; UPLOADED])?;
    server.read_exact(&mut [0; UPLOADED])?;
    let received = |kernel: &Kernel| {
        let sample = kernel.read();
        let mut endpoints = sample.endpoints.iter();
        let found = endpoints.find(|e| e.id.address == address && e.id.role == Role::Downstream);
        (found.unwrap().counters.bytes_received, sample)
    };
    until("the last look grows older", || {
        kernel.read().live_bytes_age_ms >= 20
    });
    let (bytes, later) = received(&kernel);
    assert_eq!((bytes, later.sockets.len()), (0, 0));
    assert_eq!(later.connection_difference, None, "not looked at");
    let (bytes, _) = received(&Kernel::open_pinned(&own.options.pin_dir)?);
    assert_eq!(bytes, UPLOADED as u64, "a reader looks by itself");
    drop((client, server));
    until("the end brings the rest", || {
        received(&kernel).0 == UPLOADED as u64
    });
    Ok(())
}
