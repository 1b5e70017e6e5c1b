//! The programs, attached to the test's own cgroup.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use bpf::{Kernel, KernelOptions, uninstall};
use kernel_sample::{CounterSource, EndpointAddress, KernelSample, SocketSample, Target};
use monitor_common::{counters::EndpointCounters, endpoint::Role};

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::cgroup::Cgroup;

pub(crate) struct Watch {
    cgroup: Cgroup,
    target: Target,
    pin_dir: PathBuf,
    kernel: Mutex<Kernel>,
}

/// How long the kernel may take to end a connection, time-wait not included.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A loopback address that no other listener has had: ports are used again, and
/// an endpoint keeps its counts.
pub(crate) fn fresh() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    ([127, 1, high, low], 0).into()
}

/// Leaves the calling thread, which must end with its test, these capabilities.
pub(crate) fn give_up_all_but(these: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: these,
        permitted: these,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

fn find(sample: &KernelSample, role: Role, address: SocketAddr) -> EndpointCounters {
    let address = EndpointAddress::Socket(address);
    let mut endpoints = sample.endpoints.iter();
    let found = endpoints.find(|e| e.id.role == role && e.id.address == address);
    found.map_or(EndpointCounters::ZERO, |e| *e.counters)
}

fn lost(kernel: &Kernel, reason: &str) -> u64 {
    let losses = kernel.losses();
    let mut losses = losses.iter();
    losses.find(|(name, _)| *name == reason).unwrap().1
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, satisfied: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !satisfied() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Watch {
    pub(crate) fn start() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("loading kernel programs needs root".to_owned());
        }
        let name = format!("speedmimi-test-{}", std::process::id());
        let cgroup = Cgroup::enter(&name)?;
        let pin_dir = PathBuf::from("/sys/fs/bpf").join(&name);
        let target = Target {
            path: cgroup.path().to_owned(),
            label: format!("/{name}").into(),
        };
        let kernel = Kernel::open(&options(pin_dir.clone()), std::slice::from_ref(&target));
        match kernel {
            Ok(kernel) => Ok(Self {
                cgroup,
                target,
                pin_dir,
                kernel: Mutex::new(kernel),
            }),
            Err(error) => {
                cgroup.leave();
                // Root on a kernel that refuses the programs is a failure.
                panic!("{}", chain(&error));
            }
        }
    }

    pub(crate) fn stop(&self) {
        // The lock on the pins must go first.
        let mut kernel = self.kernel.lock().unwrap();
        *kernel = Kernel::open_pinned(&self.pin_dir).unwrap();
        let removed = uninstall(&self.pin_dir).unwrap();
        assert_eq!(removed.targets, 1);
        assert!(!self.pin_dir.exists(), "nothing is left behind");
        self.cgroup.leave();
    }

    fn sample(&self) -> KernelSample {
        CounterSource::read(&mut *self.kernel.lock().unwrap()).unwrap()
    }

    pub(crate) fn target(&self) -> Target {
        self.target.clone()
    }

    /// The counters of an endpoint, zero where it has none yet.
    pub(crate) fn counters(&self, role: Role, address: SocketAddr) -> EndpointCounters {
        find(&self.sample(), role, address)
    }

    pub(crate) fn lost(&self, reason: &str) -> u64 {
        lost(&self.kernel.lock().unwrap(), reason)
    }

    /// The live sockets of an endpoint, both roles.
    pub(crate) fn sockets(&self, address: SocketAddr) -> Vec<SocketSample> {
        let mut sample = self.sample();
        let address = EndpointAddress::Socket(address);
        sample.sockets.retain(|s| s.endpoint.address == address);
        sample.sockets
    }

    /// The counters once so many connections have ended, well or not.
    pub(crate) fn ended(&self, role: Role, address: SocketAddr, n: u64) -> EndpointCounters {
        self.until(role, address, |c| {
            c.closed() + c.connections_failed.iter().sum::<u64>() >= n
        })
    }

    /// The counters as soon as they satisfy a condition, or at the deadline.
    pub(crate) fn until(
        &self,
        role: Role,
        address: SocketAddr,
        satisfied: impl Fn(&EndpointCounters) -> bool,
    ) -> EndpointCounters {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let counters = self.counters(role, address);
            if satisfied(&counters) || Instant::now() > deadline {
                return counters;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Programs of a test's own beside those of the others.
pub(crate) struct Own {
    pub(crate) options: KernelOptions,
}

impl Own {
    pub(crate) fn new(name: &str) -> Self {
        let pin_dir = format!("/sys/fs/bpf/speedmimi-test-{}-{name}", std::process::id());
        Self {
            options: options(PathBuf::from(pin_dir)),
        }
    }

    pub(crate) fn open(&self, watch: &Watch) -> Kernel {
        Kernel::open(&self.options, &[watch.target()]).unwrap()
    }

    /// The counters of an endpoint, zero where it has none yet.
    pub(crate) fn counters(
        &self,
        kernel: &Kernel,
        role: Role,
        address: SocketAddr,
    ) -> EndpointCounters {
        find(&kernel.read(), role, address)
    }

    pub(crate) fn lost(&self, kernel: &Kernel, reason: &str) -> u64 {
        lost(kernel, reason)
    }

    pub(crate) fn uninstall(&self) {
        let removed = uninstall(&self.options.pin_dir).unwrap();
        assert!(removed.pins > 0 && !self.options.pin_dir.exists());
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.options.pin_dir.exists() {
            self.uninstall();
        }
    }
}

/// Tests look at the live sockets as often as they like.
fn options(pin_dir: PathBuf) -> KernelOptions {
    KernelOptions {
        dump_budget: f64::INFINITY,
        ..KernelOptions::new(pin_dir)
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}\n  because: {error}");
        source = error.source();
    }
    text
}
