//! The host's own metrics.
//!
//! Parsing is pure and bounded, one module per file of the kernel; reading is
//! in this one.  ARCHITECTURE.md says what sysinfo and procfs-core cost and lack,
//! hence files that are kept open.

pub mod cgroup;
pub mod cpu;
pub mod disk;
pub mod file;
pub mod gauges;
pub mod identity;
pub mod load;
pub mod memory;
pub mod namespace;
pub mod network;
pub mod pressure;

use std::path::{Path, PathBuf};

use monitor_proto::v1;

use cgroup::CgroupUsage;
use file::KeptFile;

/// What is read ten times a second.
#[derive(Clone, Debug, Default)]
pub struct HostSample {
    /// All cores together.
    pub cpu: Option<cpu::CpuTimes>,
    /// Memory and swap.
    pub memory: Option<v1::Memory>,
    /// The load averages.
    pub load: Option<load::Load>,
    /// Percent of the root filesystem.
    pub disk_usage: Option<f64>,
    /// Counters since boot.
    pub interfaces: Vec<v1::NetworkInterface>,
}

/// What is read once a report: counters since boot.
#[derive(Clone, Debug, Default)]
pub struct HostDetail {
    /// CPU time by mode and core.
    pub stat: Option<cpu::Stat>,
    /// Memory and swap.
    pub memory: Option<v1::Memory>,
    /// Block devices.
    pub disks: Vec<v1::Disk>,
    /// Network interfaces.
    pub interfaces: Vec<v1::NetworkInterface>,
    /// Pressure by resource.
    pub pressure: Vec<v1::Pressure>,
}

/// The kernel's files, kept open.  What could not be opened is not measured.
#[derive(Debug)]
pub struct HostReader {
    stat: Option<KeptFile>,
    memory: Option<KeptFile>,
    load: Option<KeptFile>,
    network: Option<KeptFile>,
    disks: Option<KeptFile>,
    pressure: Vec<(&'static str, KeptFile)>,
    root: PathBuf,
    buffer: Vec<u8>,
}

impl HostReader {
    /// Opens the files below `proc` (`/proc`); `root` is the filesystem whose
    /// usage is measured (`/`).
    #[must_use]
    pub fn open(proc: &Path, root: &Path) -> Self {
        let open = |name: &str| {
            let file = KeptFile::open(proc.join(name));
            file.inspect_err(|e| tracing::warn!(file = name, error = %e, "cannot be opened"))
                .ok()
        };
        // Kernels are built or booted without pressure: no reason to warn.
        let pressure = |resource: &'static str| {
            let path = proc.join("pressure").join(resource);
            Some((resource, KeptFile::open(path).ok()?))
        };
        Self {
            stat: open("stat"),
            memory: open("meminfo"),
            load: open("loadavg"),
            network: open("net/dev"),
            disks: open("diskstats"),
            pressure: pressure::RESOURCES
                .into_iter()
                .filter_map(pressure)
                .collect(),
            root: root.to_owned(),
            buffer: Vec::new(),
        }
    }

    /// Reads what every sample holds.
    pub fn sample(&mut self) -> HostSample {
        let buffer = &mut self.buffer;
        HostSample {
            cpu: text(self.stat.as_ref(), buffer)
                .and_then(cpu::parse)
                .map(|s| s.total),
            memory: text(self.memory.as_ref(), buffer).and_then(memory::parse),
            load: text(self.load.as_ref(), buffer).and_then(load::parse),
            disk_usage: disk::usage_percent(&self.root),
            interfaces: text(self.network.as_ref(), buffer)
                .map(network::parse)
                .unwrap_or_default(),
        }
    }

    /// Reads what every report holds.
    pub fn detail(&mut self) -> HostDetail {
        let buffer = &mut self.buffer;
        let pressure = |(resource, file): &(&str, KeptFile)| {
            pressure::parse(resource, text(Some(file), buffer)?)
        };
        let pressure = self.pressure.iter().filter_map(pressure).collect();
        let buffer = &mut self.buffer;
        HostDetail {
            stat: text(self.stat.as_ref(), buffer).and_then(cpu::parse),
            memory: text(self.memory.as_ref(), buffer).and_then(memory::parse),
            disks: text(self.disks.as_ref(), buffer)
                .map(disk::parse)
                .unwrap_or_default(),
            interfaces: text(self.network.as_ref(), buffer)
                .map(network::parse)
                .unwrap_or_default(),
            pressure,
        }
    }
}

fn text<'a>(file: Option<&KeptFile>, buffer: &'a mut Vec<u8>) -> Option<&'a str> {
    file?.read(buffer).ok()
}

/// Reads what the cgroup in this directory has used.  Opened anew each time: a
/// cgroup may be removed and made again while it is watched.
#[must_use]
pub fn read_cgroup(dir: &Path) -> CgroupUsage {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    let mut usage = CgroupUsage::default();
    usage.read_cpu_stat(&read("cpu.stat"));
    usage.memory_bytes = cgroup::number(&read("memory.current"));
    usage.memory_limit_bytes = cgroup::number(&read("memory.max"));
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_without_a_memory_controller_has_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        let memory = || {
            let usage = read_cgroup(dir.path());
            (usage.memory_bytes, usage.memory_limit_bytes)
        };
        assert_eq!(memory(), (None, None));
        std::fs::write(dir.path().join("memory.current"), "0\n").unwrap();
        std::fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(memory(), (Some(0), None));
    }

    #[test]
    fn this_host_is_measured() {
        let mut reader = HostReader::open(Path::new("/proc"), Path::new("/"));
        let sample = reader.sample();
        assert!(sample.cpu.is_some() && sample.memory.is_some() && sample.load.is_some());
        assert!(sample.disk_usage.is_some() && !sample.interfaces.is_empty());
        let detail = reader.detail();
        assert!(!detail.stat.unwrap().cores.is_empty());
    }

    #[test]
    fn a_host_without_files_is_not_measured_and_not_zero() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = HostReader::open(dir.path(), &dir.path().join("missing"));
        let gauges = gauges::between(&reader.sample(), &reader.sample(), 1_000_000);
        assert_eq!(gauges, [None; gauges::GAUGES]);
    }
}
