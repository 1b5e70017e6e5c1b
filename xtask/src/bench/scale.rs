//! What many sockets cost: memory for each, a sample, a look at all of them, and
//! opening and ending one.
//!
//! Processes hold both ends of idle connections in a cgroup that is watched by
//! nothing, at level tcp, or at level http, in an order that turns. The sockets
//! are spread over many listeners, which is where their ports come from, and
//! over as many processes as the limit of open files asks for; they end with
//! them, by resets.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, getrlimit};
use serde::Deserialize;
use testkit::{
    Cgroup, Process,
    fixtures::{AgentPlan, Binaries, Level},
};

use super::{Panel, Row, overhead::cgroup_us};
use crate::{
    command::{output, run, step, timed},
    requirements,
    workspace::Workspace,
};

pub(super) const PANELS: [Panel; 3] = [
    Panel {
        metric: "connect_cpu_ratio",
        cases: "",
        title: "CPU of opening and ending a connection, to none",
        reference: Some(1.0),
    },
    Panel {
        metric: "memory_per_socket_bytes",
        cases: "",
        title: "Bytes of kernel memory per socket, above none",
        reference: None,
    },
    Panel {
        metric: "sample_us",
        cases: "",
        title: "µs per sample",
        reference: None,
    },
];

const LEVELS: [Option<Level>; 3] = [None, Some(Level::Tcp), Some(Level::Http)];

/// Half of them are listeners, half the same as seen by those who connect.
const ENDPOINTS: usize = 1_000;

/// Connections of one measurement of what a connection costs.
const CONNECTS: usize = 20_000;

/// How long one process may take to open its connections.
const READY: Duration = Duration::from_secs(120);

/// How many there are, and how often.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Live sockets, in place of 100,000; a connection has two
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2_000..=500_000))]
    sockets: Option<u32>,
    /// How often everything is measured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
}

/// What the example `cost` of the crate `bpf` prints with `--reads-of`.
#[derive(Debug, Default, Deserialize)]
struct Reads {
    endpoints: usize,
    sockets: usize,
    sample_us: Vec<f64>,
    dump_us: Vec<f64>,
}

/// One level in one round.
#[derive(Debug, Default)]
struct Sample {
    connect_us: f64,
    kernel_bytes_per_socket: f64,
    none: Reads,
    many: Reads,
}

/// For each level one a round.
type Samples = [Vec<Sample>; LEVELS.len()];

/// Measures and returns every figure.
pub(super) fn bench(workspace: &Workspace, options: &Options, quick: bool) -> Result<Vec<Row>> {
    requirements::for_kernel_programs("cargo xtask bench scale")?;
    requirements::raise_open_files();
    let sockets = options
        .sockets
        .unwrap_or(if quick { 5_000 } else { 100_000 });
    let rounds = options.rounds.unwrap_or(if quick { 2 } else { 12 });
    timed("building the agent and the load, optimised", || {
        let mut command = workspace.cargo();
        command.args(["build", "--release", "--bins"]);
        run(command.args(["-p", "monitor-agent", "-p", "tests"]))?;
        let mut command = workspace.cargo();
        command.args(["build", "--release", "-p", "bpf", "--example", "cost"]);
        run(command.args(["--features", "cost"]))
    })?;
    let binaries = Binaries::at(&workspace.target().join("release"));
    let mut samples = Samples::default();
    for round in 0..usize::from(rounds) {
        step(&format!("round {}/{rounds}", round + 1));
        for turn in 0..LEVELS.len() {
            let at = (turn + round) % LEVELS.len();
            let sample = measure(&binaries, LEVELS[at], sockets as usize)?;
            eprintln!(
                "    {:<12} {:>7.2} us/connection {:>8.0} bytes/socket",
                name(LEVELS[at]),
                sample.connect_us,
                sample.kernel_bytes_per_socket
            );
            samples[at].push(sample);
        }
    }
    Ok(rows(sockets as usize, &samples))
}

fn measure(binaries: &Binaries, level: Option<Level>, sockets: usize) -> Result<Sample> {
    let cgroup = Cgroup::create("scale")?;
    let plan = AgentPlan::watching(binaries, &cgroup)?;
    // The programs stay attached when the agent is gone.
    let programs = match level {
        Some(level) => Some(plan.at_level(level).start()?.kill()?),
        None => None,
    };
    let reads = || match &programs {
        Some(programs) => reads(binaries, programs.pins()),
        None => Ok(Reads::default()),
    };
    let connect_us = connect_us(binaries, &cgroup)?;
    let before = kernel_bytes()?;
    let held = hold(binaries, &cgroup, sockets, ENDPOINTS / 2)?;
    let grown = kernel_bytes()? - before;
    let many = reads()?;
    drop(held);
    // The endpoints stay for a while when their sockets are gone.
    let none = reads()?;
    if let Some(programs) = programs {
        for (reads, expected) in [(&many, sockets), (&none, 0)] {
            ensure!(
                reads.sockets == expected,
                "{} sockets were found in place of {expected}",
                reads.sockets
            );
        }
        programs.uninstall()?;
    }
    Ok(Sample {
        connect_us,
        kernel_bytes_per_socket: grown / sockets as f64,
        none,
        many,
    })
}

fn reads(binaries: &Binaries, pins: &Path) -> Result<Reads> {
    let mut command = Command::new(binaries.find("examples/cost")?);
    command.args(["--rounds", "20", "--reads-of"]).arg(pins);
    serde_json::from_str(&output(&mut command)?).context("reading what was measured")
}

/// The CPU time of opening and ending one connection, both ends of it.
fn connect_us(binaries: &Binaries, cgroup: &Cgroup) -> Result<f64> {
    let before = cgroup_us(cgroup.path())?;
    let mut command = Command::new(binaries.find("speedmimi-loadgen")?);
    command.args(["connect", "--connections", &CONNECTS.to_string()]);
    // It ends itself once it was ready.
    Process::start("connections", command, Some(cgroup))?.wait_ready(READY)?;
    Ok((cgroup_us(cgroup.path())? - before) as f64 / CONNECTS as f64)
}

/// Processes that hold so many sockets, at so many listeners, while they live.
fn hold(
    binaries: &Binaries,
    cgroup: &Cgroup,
    sockets: usize,
    listeners: usize,
) -> Result<Vec<Process>> {
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    let each = usize::try_from(open_files)? - listeners - 64;
    let processes = sockets.div_ceil(each);
    (0..processes)
        .map(|n| {
            let share = |all: usize| all * (n + 1) / processes - all * n / processes;
            let mut command = Command::new(binaries.find("speedmimi-loadgen")?);
            command.args(["hold", "--connections", &share(sockets / 2).to_string()]);
            command.args(["--listeners", &share(listeners).to_string()]);
            let mut process = Process::start("holder", command, Some(cgroup))?;
            process.wait_ready(READY)?;
            Ok(process)
        })
        .collect()
}

/// Memory that the kernel has taken for itself and cannot give back, programs'
/// own included.
fn kernel_bytes() -> Result<f64> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let kib = unreclaimable_kib(&meminfo).context("/proc/meminfo has no SUnreclaim and Percpu")?;
    Ok(kib as f64 * 1024.0)
}

fn unreclaimable_kib(meminfo: &str) -> Option<u64> {
    let value = |name| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(value("SUnreclaim:")? + value("Percpu:")?)
}

fn name(level: Option<Level>) -> &'static str {
    match level {
        None => "none",
        Some(Level::Tcp) => "level=tcp",
        Some(Level::Http) => "level=http",
    }
}

fn rows(sockets: usize, samples: &Samples) -> Vec<Row> {
    let mut rows = Vec::new();
    for (level, of_level) in LEVELS.into_iter().zip(samples) {
        let name = name(level);
        let mut add = |case: &str, metric, figures: Vec<f64>| {
            rows.extend(Row::of(case, metric, figures));
        };
        let of = |figure: fn(&Sample) -> f64| of_level.iter().map(figure).collect::<Vec<_>>();
        add(name, "connect_cpu_us", of(|s| s.connect_us));
        let crowd = format!("{name} {sockets} sockets");
        add(
            &crowd,
            "kernel_memory_per_socket_bytes",
            of(|s| s.kernel_bytes_per_socket),
        );
        if level.is_none() {
            continue;
        }
        let pairs = || of_level.iter().zip(&samples[0]);
        add(
            name,
            "connect_cpu_ratio",
            pairs()
                .map(|(own, base)| own.connect_us / base.connect_us)
                .collect(),
        );
        add(
            &crowd,
            "memory_per_socket_bytes",
            pairs()
                .map(|(own, base)| own.kernel_bytes_per_socket - base.kernel_bytes_per_socket)
                .collect(),
        );
        let both: [fn(&Sample) -> &Reads; 2] = [|s| &s.none, |s| &s.many];
        for reads in both {
            let Some(first) = of_level.first().map(reads) else {
                continue;
            };
            let case = format!(
                "{name} {} endpoints, {} sockets",
                first.endpoints, first.sockets
            );
            let all = |figures: fn(&Reads) -> &Vec<f64>| {
                let of_rounds = of_level.iter().map(reads);
                of_rounds.flat_map(|r| figures(r).iter().copied()).collect()
            };
            add(&case, "sample_us", all(|r| &r.sample_us));
            add(&case, "dump_us", all(|r| &r.dump_us));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_holds_is_read() {
        let meminfo = "MemFree: 9 kB\nSlab: 7 kB\nSUnreclaim:  4 kB\nPercpu:   3 kB\n";
        assert_eq!(unreclaimable_kib(meminfo), Some(7));
        assert_eq!(unreclaimable_kib("MemFree: 9 kB\n"), None);
    }

    #[test]
    fn levels_are_compared_with_none_of_the_same_round() {
        let sample = |connect_us, bytes| Sample {
            connect_us,
            kernel_bytes_per_socket: bytes,
            ..Sample::default()
        };
        let samples = [
            vec![sample(10.0, 1000.0), sample(20.0, 2000.0)],
            vec![sample(10.0, 1100.0), sample(20.0, 2100.0)],
            vec![sample(20.0, 1300.0), sample(40.0, 2300.0)],
        ];
        let rows = rows(8, &samples);
        let median = |case: &str, metric: &str| {
            let mut rows = rows.iter();
            let row = rows.find(|row| row.case == case && row.metric == metric);
            row.map(|row| row.quartiles.median)
        };
        assert_eq!(median("level=http", "connect_cpu_ratio"), Some(2.0));
        let memory = "memory_per_socket_bytes";
        assert_eq!(median("level=tcp 8 sockets", memory), Some(100.0));
        assert_eq!(median("none 8 sockets", memory), None);
    }
}
