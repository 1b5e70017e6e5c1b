//! One proxy under one load, once.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use testkit::{Process, fixtures::Binaries, try_eventually};

use super::{
    cells::{Cell, Tls},
    peers::{Certificate, Peer, Place},
};

/// How long a program may take to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// What wrk prints on its standard error when it is done.
pub(super) const REPORT_LUA: &str = r#"done = function(summary, latency, requests)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"requests":%d,"us":%d,"bytes":%d,"errors":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"#;

/// What the load generator saw.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Load {
    requests: u64,
    us: u64,
    bytes: u64,
    errors: u64,
    p50_us: u64,
    p99_us: u64,
}

/// One proxy under one load, once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) requests_per_second: f64,
    pub(super) cpu_us_per_request: f64,
    pub(super) cpu_seconds_per_gb: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) rss_peak_mib: f64,
    pub(super) errors: f64,
}

/// What stays the same over all runs.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) binaries: Binaries,
    pub(super) certificate: Certificate,
    pub(super) lua: std::path::PathBuf,
    pub(super) origin: SocketAddr,
    pub(super) seconds: u64,
    pub(super) workers: usize,
    pub(super) open_files: u64,
}

impl Bench {
    /// Starts the proxy afresh, loads it, and stops it.
    pub(super) fn measure(&self, peer: Peer, cell: Cell) -> Result<Sample> {
        let directory = tempfile::tempdir()?;
        let listen = free_address()?;
        let place = Place {
            listen,
            origin: self.origin,
            directory: directory.path(),
            certificate: (cell.tls != Tls::Off).then_some(&self.certificate),
            workers: self.workers,
            open_files: self.open_files,
        };
        let command = peer.command(&self.binaries, place)?;
        let mut process = start(peer.name(), command, listen)?;
        let before = cpu_us(&family(process.id())?);
        let load = self.load(listen, cell);
        // Children may have come since; their time began at 0.
        let family = family(process.id())?;
        let cpu_us = cpu_us(&family) - before;
        let rss_peak_kib: u64 = family.iter().map(|&id| rss_peak_kib(id)).sum();
        let survived = process.is_running();
        // Whoever waits for idle clients is not waited for.
        drop(process.terminate(PATIENCE));
        ensure!(survived, "{} ended under load", peer.name());
        let load = load?;
        ensure!(load.requests > 0, "{} answered nothing", peer.name());
        Ok(Sample {
            requests_per_second: load.requests as f64 / load.us as f64 * 1e6,
            cpu_us_per_request: cpu_us as f64 / load.requests as f64,
            cpu_seconds_per_gb: cpu_us as f64 * 1e3 / load.bytes.max(1) as f64,
            p50_ms: load.p50_us as f64 / 1e3,
            p99_ms: load.p99_us as f64 / 1e3,
            rss_peak_mib: rss_peak_kib as f64 / 1024.0,
            errors: load.errors as f64,
        })
    }

    fn load(&self, target: SocketAddr, cell: Cell) -> Result<Load> {
        let scheme = if cell.tls == Tls::Off {
            "http"
        } else {
            "https"
        };
        let mut command = Command::new("wrk");
        command
            .args(["--threads", "1", "--timeout", "10s"])
            .args(["--connections", &cell.connections.to_string()])
            .args(["--duration", &format!("{}s", cell.seconds(self.seconds))])
            .arg("--script")
            .arg(&self.lua);
        if cell.tls == Tls::New {
            command.args(["--header", "Connection: close"]);
        }
        command.arg(format!("{scheme}://{target}{}", cell.path));
        let output = command.output().context("cannot start wrk")?;
        let text = String::from_utf8_lossy(&output.stderr);
        let Some(line) = text.lines().find(|line| line.starts_with('{')) else {
            bail!("wrk ended with {} and said: {text}", output.status);
        };
        serde_json::from_str(line).with_context(|| format!("wrk said: {line}"))
    }
}

/// Starts a program and waits until its port answers.
pub(super) fn start(name: &str, command: Command, listen: SocketAddr) -> Result<Process> {
    let mut process = Process::start(name, command, None)?;
    let up = try_eventually(PATIENCE, || {
        let over = !process.is_running();
        (over || TcpStream::connect(listen).is_ok()).then_some(())
    });
    ensure!(
        up.is_some() && process.is_running(),
        "{name} did not start: {}",
        process.log()
    );
    Ok(process)
}

/// An address on which nobody listens at the moment.
pub(super) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?)
}

/// A process and its descendants: nginx works in children.
fn family(root: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(id) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        if let Some(parent) = stat_field(id, 3) {
            parents.push((id, parent));
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        let children = parents.iter().filter(|(_, of)| *of == u64::from(parent));
        found.extend(children.map(|(id, _)| *id));
        at += 1;
    }
    Ok(found)
}

/// User and system time.
fn cpu_us(family: &[u32]) -> u64 {
    let ticks: u64 = family
        .iter()
        .map(|&id| stat_field(id, 13).unwrap_or(0) + stat_field(id, 14).unwrap_or(0))
        .sum();
    ticks * 1_000_000 / rustix::param::clock_ticks_per_second()
}

/// A field of `/proc/PID/stat`, counted from 0.
fn stat_field(id: u32, index: usize) -> Option<u64> {
    field_of(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?, index)
}

/// The name stands in parentheses and may hold anything, parentheses too.
fn field_of(stat: &str, index: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace()
        .nth(index.checked_sub(2)?)?
        .parse()
        .ok()
}

fn rss_peak_kib(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse().ok())
        .unwrap_or(0)
}

/// A certificate for this run alone.
pub(super) fn certificate(directory: &Path) -> Result<Certificate> {
    let made = Certificate {
        certificate: directory.join("certificate.pem"),
        key: directory.join("key.pem"),
        both: directory.join("both.pem"),
    };
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
        .arg("-out")
        .arg(&made.certificate)
        .arg("-keyout")
        .arg(&made.key);
    crate::command::output(&mut command)?;
    let both = [fs::read(&made.certificate)?, fs::read(&made.key)?].concat();
    fs::write(&made.both, both)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 7 42 42 0 -1 4194304 100 0 0 0 11 12 0 0 20";
        assert_eq!(field_of(stat, 3), Some(7));
        assert_eq!(field_of(stat, 13), Some(11));
        assert_eq!(field_of(stat, 14), Some(12));
        assert_eq!(field_of("42 (a) S", 13), None);
    }

    #[test]
    fn this_process_is_in_its_own_family() {
        let own = std::process::id();
        assert_eq!(family(own).unwrap()[0], own);
        assert!(rss_peak_kib(own) > 0);
    }
}
