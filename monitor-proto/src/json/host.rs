//! The host's metrics and the watched cgroups.

use serde::{Deserialize, Serialize};

use crate::v1;

/// A gauge over the samples of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Gauge {
    /// The newest.
    pub last: f64,
    /// The smallest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The largest.
    pub max: f64,
}

/// What the host did in the window; `null` where it was not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct HostMetrics {
    /// Percent of all cores.
    pub cpu_usage: Option<Gauge>,
    /// Percent of memory not available.
    pub memory_usage: Option<Gauge>,
    /// Percent of the root filesystem.
    pub disk_usage: Option<Gauge>,
    /// As /proc/loadavg has it.
    pub load_avg_1: Option<Gauge>,
    /// As /proc/loadavg has it.
    pub load_avg_5: Option<Gauge>,
    /// As /proc/loadavg has it.
    pub load_avg_15: Option<Gauge>,
    /// Bytes per second over all interfaces but loopback.
    pub network_in: Option<Gauge>,
    /// Bytes per second over all interfaces but loopback.
    pub network_out: Option<Gauge>,
    /// CPU time by mode and core.
    pub cpu: Option<Cpu>,
    /// Memory and swap.
    pub memory: Option<Memory>,
    /// Block devices.
    pub disks: Vec<Disk>,
    /// Network interfaces.
    pub interfaces: Vec<NetworkInterface>,
    /// Pressure stall information.
    pub pressure: Vec<Pressure>,
}

macro_rules! mirror {
    ($(#[$meta:meta])* $name:ident from $wire:ty {
        $($(#[$field_meta:meta])* $field:ident: $ty:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl From<&$wire> for $name {
            fn from(wire: &$wire) -> Self {
                Self { $($field: wire.$field.clone(),)* }
            }
        }
    };
}

mirror! {
    /// Memory and swap at the window's end.
    Memory from v1::Memory {
        /// All of it.
        total_bytes: u64,
        /// What could be had without swapping.
        available_bytes: u64,
        /// Unused.
        free_bytes: u64,
        /// Raw block buffers.
        buffers_bytes: u64,
        /// The page cache.
        cached_bytes: u64,
        /// Swap space.
        swap_total_bytes: u64,
        /// Swap space unused.
        swap_free_bytes: u64,
    }
}

mirror! {
    /// One block device in the window.
    Disk from v1::Disk {
        /// Its name.
        device: String,
        /// Bytes read.
        read_bytes: u64,
        /// Bytes written.
        written_bytes: u64,
        /// Reads completed.
        reads: u64,
        /// Writes completed.
        writes: u64,
        /// Time with at least one request in flight.
        io_time_ms: u64,
    }
}

mirror! {
    /// One network interface in the window.
    NetworkInterface from v1::NetworkInterface {
        /// Its name.
        device: String,
        /// Bytes received.
        receive_bytes: u64,
        /// Bytes sent.
        transmit_bytes: u64,
        /// Packets received.
        receive_packets: u64,
        /// Packets sent.
        transmit_packets: u64,
        /// Receive errors.
        receive_errors: u64,
        /// Transmit errors.
        transmit_errors: u64,
        /// Received packets dropped.
        receive_dropped: u64,
        /// Packets to be sent dropped.
        transmit_dropped: u64,
    }
}

mirror! {
    /// Pressure stall information of one resource.
    Pressure from v1::Pressure {
        /// `cpu`, `memory` or `io`.
        resource: String,
        /// Percent of the last 10 s in which some task waited.
        some_avg10: f64,
        /// Percent of the last 10 s in which all tasks waited.
        full_avg10: f64,
        /// Time in which some task waited, since boot.
        some_total_us: u64,
        /// Time in which all tasks waited, since boot.
        full_total_us: u64,
    }
}

mirror! {
    /// One watched cgroup.
    Target from v1::Target {
        /// Its path below the cgroup2 mount.
        path: String,
        /// Its id, the inode of its directory.
        cgroup_id: u64,
        /// A process in it.
        process: String,
        /// Its systemd unit.
        unit: String,
        /// Its container's id.
        container: String,
        /// Its container's name; empty where it is none, or that may not be read.
        container_name: String,
        /// Its pod.
        pod: String,
        /// Its pod's namespace.
        namespace: String,
        /// CPU time used in the window.
        cpu_usage_us: u64,
        /// Time throttled in the window.
        throttled_us: u64,
        /// Periods throttled in the window.
        throttled_periods: u64,
        /// Memory charged at the window's end; `None` without a memory controller.
        memory_bytes: Option<u64>,
        /// Its limit; `None` where there is none, too.
        memory_limit_bytes: Option<u64>,
        /// CPU time used since it was made.
        cpu_usage_us_total: Option<u64>,
        /// Time throttled since it was made.
        throttled_us_total: Option<u64>,
        /// Periods throttled since it was made.
        throttled_periods_total: Option<u64>,
    }
}

mirror! {
    /// What one network namespace counted in the window.
    NetworkNamespace from v1::NetworkNamespace {
        /// The inode of its /proc/PID/ns/net.
        id: u64,
        /// Connections dropped because an accept queue was full.
        listen_overflows: u64,
        /// SYNs to listeners that were dropped.
        listen_drops: u64,
        /// Handshakes that never completed.
        attempt_fails: u64,
        /// SYN cookies that did not check.
        syncookies_failed: u64,
        /// The same since the namespace was made.
        listen_overflows_total: Option<u64>,
        /// The same since the namespace was made.
        listen_drops_total: Option<u64>,
        /// The same since the namespace was made.
        attempt_fails_total: Option<u64>,
        /// The same since the namespace was made.
        syncookies_failed_total: Option<u64>,
    }
}

/// Percent of CPU time, mean over the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Cpu {
    /// In user mode.
    pub user: f64,
    /// In user mode, niced.
    pub nice: f64,
    /// In the kernel.
    pub system: f64,
    /// Idle.
    pub idle: f64,
    /// Idle, waiting for I/O.
    pub iowait: f64,
    /// In interrupts.
    pub irq: f64,
    /// In soft interrupts.
    pub softirq: f64,
    /// Taken by the hypervisor.
    pub steal: f64,
    /// Percent busy of each core.
    pub cores: Vec<f64>,
}

fn gauge(g: Option<&v1::Gauge>) -> Option<Gauge> {
    g.map(|g| Gauge {
        last: g.last,
        min: g.min,
        mean: g.mean,
        max: g.max,
    })
}

impl From<&v1::HostMetrics> for HostMetrics {
    fn from(m: &v1::HostMetrics) -> Self {
        Self {
            cpu_usage: gauge(m.cpu_usage.as_ref()),
            memory_usage: gauge(m.memory_usage.as_ref()),
            disk_usage: gauge(m.disk_usage.as_ref()),
            load_avg_1: gauge(m.load_avg_1.as_ref()),
            load_avg_5: gauge(m.load_avg_5.as_ref()),
            load_avg_15: gauge(m.load_avg_15.as_ref()),
            network_in: gauge(m.network_in.as_ref()),
            network_out: gauge(m.network_out.as_ref()),
            cpu: m.cpu_modes.as_ref().map(|c| Cpu {
                user: c.user,
                nice: c.nice,
                system: c.system,
                idle: c.idle,
                iowait: c.iowait,
                irq: c.irq,
                softirq: c.softirq,
                steal: c.steal,
                cores: m.core_usage.clone(),
            }),
            memory: m.memory.as_ref().map(Into::into),
            disks: m.disks.iter().map(Into::into).collect(),
            interfaces: m.interfaces.iter().map(Into::into).collect(),
            pressure: m.pressure.iter().map(Into::into).collect(),
        }
    }
}
