//! What watching costs: the same load on the same proxy with no program, with
//! those of level tcp, those of level http, and with the agent besides.
//!
//! Every round goes through all loads, and for each through all cases in an
//! order that turns, so that what the machine does besides falls on all of them
//! alike; ratios are of one round, and their median is what counts.  The load
//! generator and the origin are programs of their own, so that the proxy's CPU
//! time is its own.  The proxy is started anew each time, as connections that
//! are older than the programs cost less.

mod matrix;
mod origin;

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use testkit::{
    Cgroup,
    fixtures::{Agent, AgentPlan, Binaries, Collector, CollectorPlan, Level, Nginx, Proxy},
    traffic::Outcome,
};

use self::{
    matrix::{CASES, Cell, KeepAlive, Target, Watching},
    origin::OriginProcess,
};
use super::{Panel, Row};
use crate::{
    command::{output, run, step, timed},
    debian, requirements,
    workspace::Workspace,
};

pub(super) const PANELS: [Panel; 3] = [
    ratio(
        "cpu_per_request_ratio",
        "CPU of the whole machine per request, to none",
    ),
    ratio(
        "proxy_cpu_per_request_ratio",
        "The watched proxy's own CPU per request, to none",
    ),
    ratio("requests_per_second_ratio", "Requests per second, to none"),
];

const fn ratio(metric: &'static str, title: &'static str) -> Panel {
    Panel {
        metric,
        cases: "",
        title,
        reference: Some(1.0),
    }
}

/// What is measured, and how often.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Only this target
    #[arg(long, value_enum)]
    target: Option<Target>,
    /// Only this many connections, in place of 64 and 1,000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9000))]
    connections: Option<u16>,
    /// Only answers of this many bytes, in place of 100 and 65,536
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(..=64 << 20))]
    size: Option<u64>,
    /// Only with this keep-alive, in place of all three
    #[arg(long, value_enum, value_name = "CONNECTIONS")]
    keep_alive: Option<KeepAlive>,
    /// How often everything is measured; 24 where nothing is said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
}

/// How long one case of one round is.
#[derive(Clone, Copy, Debug)]
struct Extent {
    warm_up: Duration,
    measure: Duration,
}

/// One case of one round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    requests_per_second: f64,
    system_us_per_request: f64,
    proxy_us_per_request: f64,
}

/// The samples of one cell: for each case one a round.
type Samples = [Vec<Sample>; CASES.len()];

/// Measures and returns every figure.
pub(super) fn bench(workspace: &Workspace, options: &Options, quick: bool) -> Result<Vec<Row>> {
    requirements::for_kernel_programs("cargo xtask bench overhead")?;
    requirements::raise_open_files();
    let rounds = options.rounds.unwrap_or(if quick { 1 } else { 24 });
    let extent = if quick {
        Extent {
            warm_up: Duration::from_millis(100),
            measure: Duration::from_millis(400),
        }
    } else {
        Extent {
            warm_up: Duration::from_millis(250),
            measure: Duration::from_millis(1_200),
        }
    };
    let cells = matrix::cells(
        options.target,
        options.connections.map(usize::from),
        options.size,
        options.keep_alive,
    );
    if cells.iter().any(|cell| cell.target == Target::Nginx) {
        debian::install_without_starting("nginx-light", "nginx")?;
    }
    let binaries = build(workspace)?;
    let origin = OriginProcess::start(&binaries)?;
    let bench = Bench {
        collector: CollectorPlan::new(&binaries)?.start()?,
        binaries,
        origin: origin.address,
        extent,
    };
    let mut samples: Vec<Samples> = cells.iter().map(|_| Samples::default()).collect();
    for round in 0..usize::from(rounds) {
        step(&format!("round {}/{rounds}", round + 1));
        for (cell, of_cell) in cells.iter().zip(&mut samples) {
            for turn in 0..CASES.len() {
                let case = (turn + round) % CASES.len();
                let name = cell.name(CASES[case]);
                let sample = bench
                    .measure(*cell, CASES[case])
                    .with_context(|| format!("measuring {name}"))?;
                eprintln!(
                    "    {name:<36} {:>9.0} requests/s {:>7.2} us/request, proxy {:>6.2}",
                    sample.requests_per_second,
                    sample.system_us_per_request,
                    sample.proxy_us_per_request
                );
                of_cell[case].push(sample);
            }
        }
    }
    bench.collector.stop()?;
    let all = cells.iter().zip(&samples);
    Ok(all
        .flat_map(|(cell, of_cell)| rows(*cell, of_cell))
        .collect())
}

fn build(workspace: &Workspace) -> Result<Binaries> {
    timed("building everything, optimised", || {
        let packages = ["monitor-agent", "collector", "proxy", "tests"];
        let mut command = workspace.cargo();
        command.args(["build", "--release", "--bins"]);
        run(command.args(packages.iter().flat_map(|package| ["-p", package])))
    })?;
    Ok(Binaries::at(&workspace.target().join("release")))
}

/// What every measurement uses.
struct Bench {
    binaries: Binaries,
    collector: Collector,
    origin: SocketAddr,
    extent: Extent,
}

/// The proxy that is watched.
enum Watched {
    Proxy(Proxy),
    Nginx(Nginx),
}

/// What is left to end after a case.
enum Watcher {
    None,
    Programs(AgentPlan),
    Agent(Agent),
}

impl Bench {
    fn measure(&self, cell: Cell, watching: Watching) -> Result<Sample> {
        let cgroup = Cgroup::create("bench")?;
        let watcher = self.watch(&cgroup, watching)?;
        let watched = match cell.target {
            Target::Proxy => Watched::Proxy(Proxy::start(&self.binaries, &cgroup, &[self.origin])?),
            Target::Nginx => Watched::Nginx(Nginx::start(&cgroup, self.origin)?),
        };
        self.load(cell, watched.address(), self.extent.warm_up)?;
        let system = busy_us()?;
        let own = cgroup_us(cgroup.path())?;
        let outcome = self.load(cell, watched.address(), self.extent.measure)?;
        let system = busy_us()? - system;
        let own = cgroup_us(cgroup.path())? - own;
        watched.stop()?;
        watcher.stop()?;
        let answered = outcome.responses.total_final() as f64;
        ensure!(
            outcome.errors.total() == 0 && answered > 0.0,
            "the load went wrong: {:?}",
            outcome.errors
        );
        Ok(Sample {
            requests_per_second: outcome.requests_per_second(),
            system_us_per_request: system as f64 / answered,
            proxy_us_per_request: own as f64 / answered,
        })
    }

    fn watch(&self, cgroup: &Cgroup, watching: Watching) -> Result<Watcher> {
        let start = |level| {
            AgentPlan::watching(&self.binaries, cgroup)?
                .at_level(level)
                .reporting_to(&self.collector)
                .start()
        };
        Ok(match watching {
            Watching::None => Watcher::None,
            // The programs stay attached.
            Watching::Tcp => Watcher::Programs(start(Level::Tcp)?.kill()?),
            Watching::Http => Watcher::Programs(start(Level::Http)?.kill()?),
            Watching::Agent => Watcher::Agent(start(Level::Http)?),
        })
    }

    fn load(&self, cell: Cell, target: SocketAddr, duration: Duration) -> Result<Outcome> {
        let text = output(
            Command::new(self.binaries.find("speedmimi-loadgen")?)
                .arg("load")
                .args(["--target", &target.to_string()])
                .args(["--seconds", &duration.as_secs_f64().to_string()])
                .args(cell.load()),
        )?;
        serde_json::from_str(&text).context("reading what the load generator printed")
    }
}

impl Watched {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Proxy(proxy) => proxy.address(),
            Self::Nginx(nginx) => nginx.address(),
        }
    }

    fn stop(self) -> Result<()> {
        match self {
            Self::Proxy(proxy) => proxy.stop(),
            Self::Nginx(nginx) => nginx.stop(),
        }
    }
}

impl Watcher {
    fn stop(self) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Programs(plan) => plan.uninstall(),
            Self::Agent(agent) => agent.stop()?.uninstall(),
        }
    }
}

/// The time that all processors were busy since the start of the machine.
fn busy_us() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let ticks = busy_ticks(&stat).context("/proc/stat has no line `cpu`")?;
    Ok(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// user, nice, system, irq and softirq; not idle, iowait, or what another
/// guest of the same machine took.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let figures: Vec<u64> = line
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    [0, 1, 2, 5, 6]
        .iter()
        .map(|&index| figures.get(index))
        .sum()
}

/// The CPU time of everything in a cgroup; cgroup2 keeps it without a
/// controller.
pub(super) fn cgroup_us(cgroup: &Path) -> Result<u64> {
    let stat = fs::read_to_string(cgroup.join("cpu.stat")).context("reading cpu.stat")?;
    stat.lines()
        .find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())
        .context("cpu.stat has no usage_usec")
}

fn rows(cell: Cell, samples: &Samples) -> Vec<Row> {
    type Figure = fn(&Sample) -> f64;
    const FIGURES: [(&str, &str, Figure); 3] = [
        ("requests_per_second", "requests_per_second_ratio", |s| {
            s.requests_per_second
        }),
        ("cpu_per_request_us", "cpu_per_request_ratio", |s| {
            s.system_us_per_request
        }),
        (
            "proxy_cpu_per_request_us",
            "proxy_cpu_per_request_ratio",
            |s| s.proxy_us_per_request,
        ),
    ];
    let mut rows = Vec::new();
    for (case, of_case) in CASES.into_iter().zip(samples) {
        let name = cell.name(case);
        for (absolute, ratio, figure) in FIGURES {
            rows.extend(Row::of(
                &name,
                absolute,
                of_case.iter().map(figure).collect(),
            ));
            if case != Watching::None {
                let pairs = of_case.iter().zip(&samples[0]);
                let ratios = pairs.map(|(own, base)| figure(own) / figure(base));
                rows.extend(Row::of(&name, ratio, ratios.collect()));
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_and_other_guests_are_not_busy() {
        let stat = "cpu  1 2 4 1000 2000 8 16 4000 0 0\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(busy_ticks(stat), Some(31));
        assert_eq!(busy_ticks("intr 1"), None);
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let sample = |x: f64| Sample {
            requests_per_second: x,
            system_us_per_request: x,
            proxy_us_per_request: x,
        };
        let samples = [
            vec![sample(1.0), sample(10.0)],
            vec![sample(2.0), sample(20.0)],
            vec![sample(1.0), sample(10.0)],
            vec![sample(3.0), sample(30.0)],
        ];
        let cell = matrix::cells(None, None, None, None)[0];
        let rows = rows(cell, &samples);
        let ratio = |case: Watching| {
            let name = cell.name(case);
            let mut rows = rows.iter();
            let row = rows.find(|r| r.case == name && r.metric == "cpu_per_request_ratio");
            row.map(|row| row.quartiles.median)
        };
        assert_eq!(ratio(Watching::None), None);
        assert_eq!(ratio(Watching::Tcp), Some(2.0));
        assert_eq!(ratio(Watching::Http), Some(1.0));
        assert_eq!(ratio(Watching::Agent), Some(3.0));
    }
}
