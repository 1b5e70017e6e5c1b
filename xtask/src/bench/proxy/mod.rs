//! What the proxy costs, against nginx, `HAProxy` and a bare TCP relay.
//!
//! Every cell runs each proxy once a round, in an order that turns, each time
//! started afresh. What the machine does besides falls on all of them alike, so
//! the ratios of one round are what counts, and of these the median. CPU time
//! is the proxy's own, of all its processes, as `/proc` has it.

mod cells;
mod peers;
mod run;

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use anyhow::{Result, ensure};
use rustix::process::{Resource, getrlimit};
use testkit::fixtures::Binaries;

use self::{
    cells::{CELLS, Cell, Tls},
    peers::{PEERS, Peer},
    run::{Bench, Sample},
};
use super::{Row, charts::Panel};
use crate::{
    command::{run as run_command, step, timed},
    debian, requirements,
    workspace::Workspace,
};

/// What is drawn.
pub(super) const PANELS: [Panel; 4] = [
    panel(
        "cpu_per_request_ratio_to_best",
        "CPU per request, to the better of nginx and HAProxy",
        Some(1.0),
    ),
    panel(
        "cpu_per_request_ratio_to_relay",
        "CPU per request, to a bare TCP relay",
        Some(1.0),
    ),
    panel(
        "p99_ratio_to_nginx",
        "99th percentile of the time to answer, to nginx",
        Some(1.0),
    ),
    panel(
        "cpu_per_request_us",
        "CPU per request, in microseconds",
        None,
    ),
];

const fn panel(metric: &'static str, title: &'static str, reference: Option<f64>) -> Panel {
    Panel {
        metric,
        cases: "",
        title,
        reference,
    }
}

/// How long the origin may take to end.
const END: Duration = Duration::from_secs(15);

/// What is measured, and how long.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Only loads whose name has this in it, such as "c64" or "tls"
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How often each load is run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// How long a load lasts, in seconds; with 5,000 connections twice as long
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: Option<u16>,
    /// Worker threads or processes of each proxy
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: u8,
}

/// All samples of one cell, by peer, in the order of the rounds.
type Samples = Vec<(Peer, Vec<Sample>)>;

/// Measures and returns every figure.
pub(super) fn bench(workspace: &Workspace, options: &Options, quick: bool) -> Result<Vec<Row>> {
    let rounds = options.rounds.unwrap_or(if quick { 2 } else { 6 });
    let seconds = options.seconds.unwrap_or(if quick { 1 } else { 3 });
    let cells: Vec<Cell> = CELLS
        .into_iter()
        .filter(|cell| {
            let only = options.only.as_deref().unwrap_or("");
            cell.name().contains(only)
        })
        .collect();
    ensure!(!cells.is_empty(), "--only: no load has such a name");
    requirements::raise_open_files();
    for (package, unit) in [("nginx-light", "nginx"), ("haproxy", "haproxy")] {
        debian::install_without_starting(package, unit)?;
    }
    debian::ensure_installed(&["wrk", "openssl"])?;
    let binaries = build(workspace)?;
    let directory = tempfile::tempdir()?;
    // nginx serves files as another user.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let lua = directory.path().join("report.lua");
    fs::write(&lua, run::REPORT_LUA)?;
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20) - 64;
    let origin_address = run::free_address()?;
    let origin_command = peers::origin(origin_address, directory.path(), open_files)?;
    let mut origin = run::start("the origin", origin_command, origin_address)?;
    let bench = Bench {
        binaries,
        certificate: run::certificate(directory.path())?,
        lua,
        origin: origin_address,
        seconds: u64::from(seconds),
        workers: usize::from(options.workers),
        open_files,
    };
    let mut rows = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        step(&format!("{} ({}/{})", cell.name(), index + 1, cells.len()));
        rows.extend(rows_of(*cell, &rounds_of(&bench, *cell, rounds)?));
    }
    origin.terminate(END)?;
    Ok(rows)
}

fn build(workspace: &Workspace) -> Result<Binaries> {
    timed("building the proxy, optimised", || {
        let mut command = workspace.cargo();
        run_command(command.args(["build", "--release", "--bins", "-p", "proxy", "-p", "tests"]))
    })?;
    Ok(Binaries::at(&workspace.target().join("release")))
}

fn rounds_of(bench: &Bench, cell: Cell, rounds: u16) -> Result<Samples> {
    // Bytes alone say nothing of TLS.
    let peers = PEERS
        .iter()
        .filter(|&&peer| cell.tls == Tls::Off || peer != Peer::Relay);
    let mut samples: Samples = peers.map(|&peer| (peer, Vec::new())).collect();
    for round in 0..rounds {
        for turn in 0..samples.len() {
            let at = (turn + usize::from(round)) % samples.len();
            let (peer, of_peer) = &mut samples[at];
            let sample = bench.measure(*peer, cell)?;
            eprintln!(
                "    round {}/{rounds} {:<8} {:>8.0} requests/s {:>8.2} us/request, p99 {:>8.2} ms, {} errors",
                round + 1,
                peer.name(),
                sample.requests_per_second,
                sample.cpu_us_per_request,
                sample.p99_ms,
                sample.errors
            );
            of_peer.push(sample);
        }
    }
    Ok(samples)
}

/// The figures of every peer, and ours as shares of the others'.
fn rows_of(cell: Cell, samples: &Samples) -> Vec<Row> {
    type Figure = fn(&Sample) -> f64;
    const FIGURES: [(&str, Figure); 7] = [
        ("requests_per_second", |s| s.requests_per_second),
        ("cpu_per_request_us", |s| s.cpu_us_per_request),
        ("cpu_seconds_per_gb", |s| s.cpu_seconds_per_gb),
        ("p50_ms", |s| s.p50_ms),
        ("p99_ms", |s| s.p99_ms),
        ("rss_peak_mib", |s| s.rss_peak_mib),
        ("errors", |s| s.errors),
    ];
    let mut rows = Vec::new();
    let mut add = |peer: &str, metric, figures: Vec<f64>| {
        let case = format!("{peer} {}", cell.name());
        rows.extend(Row::of(&case, metric, figures));
    };
    for (peer, of_peer) in samples {
        for (metric, figure) in FIGURES {
            add(peer.name(), metric, of_peer.iter().map(figure).collect());
        }
    }
    let of = |peer| {
        samples
            .iter()
            .find(|(one, _)| *one == peer)
            .map_or(&[][..], |(_, of_peer)| of_peer)
    };
    let (ours, nginx, haproxy, relay) = (
        of(Peer::Proxy),
        of(Peer::Nginx),
        of(Peer::Haproxy),
        of(Peer::Relay),
    );
    let cpu = |sample: &Sample| sample.cpu_us_per_request;
    let best = nginx
        .iter()
        .zip(haproxy)
        .map(|(nginx, haproxy)| cpu(nginx).min(cpu(haproxy)));
    let shares = |others: Vec<f64>, figure: Figure| {
        ours.iter()
            .zip(others)
            .map(|(own, other)| figure(own) / other)
            .collect()
    };
    let name = Peer::Proxy.name();
    add(
        name,
        "cpu_per_request_ratio_to_best",
        shares(best.collect(), cpu),
    );
    add(
        name,
        "cpu_per_request_ratio_to_nginx",
        shares(nginx.iter().map(cpu).collect(), cpu),
    );
    add(
        name,
        "cpu_per_request_ratio_to_relay",
        shares(relay.iter().map(cpu).collect(), cpu),
    );
    add(
        name,
        "p99_ratio_to_nginx",
        shares(nginx.iter().map(|s| s.p99_ms).collect(), |s| s.p99_ms),
    );
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu: f64) -> Sample {
        Sample {
            requests_per_second: 1.0,
            cpu_us_per_request: cpu,
            cpu_seconds_per_gb: 1.0,
            p50_ms: 1.0,
            p99_ms: cpu,
            rss_peak_mib: 1.0,
            errors: 0.0,
        }
    }

    #[test]
    fn ours_is_compared_with_the_best_of_the_same_round() {
        let samples = vec![
            (Peer::Proxy, vec![sample(2.0), sample(2.0)]),
            (Peer::Nginx, vec![sample(4.0), sample(8.0)]),
            (Peer::Haproxy, vec![sample(8.0), sample(4.0)]),
        ];
        let rows = rows_of(CELLS[0], &samples);
        let median = |metric: &str| {
            let row = rows.iter().find(|row| row.metric == metric);
            row.map(|row| row.quartiles.median)
        };
        assert_eq!(median("cpu_per_request_ratio_to_best"), Some(0.5));
        assert_eq!(median("p99_ratio_to_nginx"), Some(0.375));
        assert_eq!(median("cpu_per_request_ratio_to_relay"), None);
    }
}
