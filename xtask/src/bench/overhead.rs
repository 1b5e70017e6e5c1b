//! What watching costs: the same load on the same proxy with no agent, with
//! one at level tcp, and with one at level http.
//!
//! The cases take turns within every round, and the order turns too, so that
//! what the machine does besides falls on all of them alike; ratios are of one
//! round, and their median is what counts.  The load generator and the origin
//! are programs of their own, so that the proxy's CPU time is its own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use testkit::{
    Cgroup,
    fixtures::{AgentPlan, Binaries, Collector, CollectorPlan, Level, Proxy},
    traffic::Outcome,
};

use super::{Quartiles, Row};
use crate::{
    command::{output, run, step, timed},
    requirements,
    workspace::Workspace,
};

const CONNECTIONS: usize = 64;
const ANSWER_BYTES: u64 = 100;

/// What watches the proxy; the first is what the others are compared with.
const CASES: [Option<Level>; 3] = [None, Some(Level::Tcp), Some(Level::Http)];

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Extent {
    rounds: usize,
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

/// Measures and returns every figure.
pub(super) fn bench(workspace: &Workspace, quick: bool) -> Result<Vec<Row>> {
    requirements::for_kernel_programs("cargo xtask bench overhead")?;
    requirements::raise_open_files();
    let extent = if quick {
        Extent {
            rounds: 3,
            warm_up: Duration::from_millis(300),
            measure: Duration::from_secs(1),
        }
    } else {
        Extent {
            rounds: 24,
            warm_up: Duration::from_secs(1),
            measure: Duration::from_secs(4),
        }
    };
    let binaries = build(workspace)?;
    let origin = OriginProcess::start(&binaries)?;
    let collector = CollectorPlan::new(&binaries)?.start()?;
    let mut samples = vec![Vec::new(); CASES.len()];
    for round in 0..extent.rounds {
        for turn in 0..CASES.len() {
            let case = (turn + round) % CASES.len();
            let sample = measure(&binaries, &origin, &collector, CASES[case], extent)?;
            eprintln!(
                "    round {}/{} {:<22} {:>9.0} requests/s {:>7.2} us/request, proxy {:>6.2}",
                round + 1,
                extent.rounds,
                name(CASES[case]),
                sample.requests_per_second,
                sample.system_us_per_request,
                sample.proxy_us_per_request
            );
            samples[case].push(sample);
        }
    }
    collector.stop()?;
    Ok(rows(&samples))
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

fn name(level: Option<Level>) -> String {
    let watched = level.map_or("no agent".to_owned(), |level| {
        format!("level={}", level.name())
    });
    format!("proxy c{CONNECTIONS} {ANSWER_BYTES}B {watched}")
}

fn measure(
    binaries: &Binaries,
    origin: &OriginProcess,
    collector: &Collector,
    level: Option<Level>,
    extent: Extent,
) -> Result<Sample> {
    let cgroup = Cgroup::create("bench")?;
    let proxy = Proxy::start(binaries, &cgroup, &[origin.address])?;
    let agent = match level {
        Some(level) => Some(
            AgentPlan::watching(binaries, &cgroup)?
                .at_level(level)
                .every(Duration::from_secs(5))
                .reporting_to(collector)
                .start()?,
        ),
        None => None,
    };
    load(binaries, proxy.address(), extent.warm_up)?;
    let system = busy_us()?;
    let own = cgroup_us(cgroup.path())?;
    let outcome = load(binaries, proxy.address(), extent.measure)?;
    let system = busy_us()? - system;
    let own = cgroup_us(cgroup.path())? - own;
    if let Some(agent) = agent {
        agent.stop()?.uninstall()?;
    }
    proxy.stop()?;
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

fn load(binaries: &Binaries, target: SocketAddr, duration: Duration) -> Result<Outcome> {
    let text = output(
        Command::new(binaries.find("speedmimi-loadgen")?)
            .arg("load")
            .args(["--target", &target.to_string()])
            .args(["--connections", &CONNECTIONS.to_string()])
            .args(["--seconds", &duration.as_secs_f64().to_string()])
            .args(["--exchange", &format!("GET /bytes/{ANSWER_BYTES}")]),
    )?;
    serde_json::from_str(&text).context("reading what the load generator printed")
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
fn cgroup_us(cgroup: &Path) -> Result<u64> {
    let stat = fs::read_to_string(cgroup.join("cpu.stat")).context("reading cpu.stat")?;
    stat.lines()
        .find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())
        .context("cpu.stat has no usage_usec")
}

fn rows(samples: &[Vec<Sample>]) -> Vec<Row> {
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
    for (case, of_case) in CASES.iter().zip(samples) {
        for (absolute, ratio, figure) in FIGURES {
            let mut add = |metric, figures: Vec<f64>| {
                let rounds = figures.len();
                rows.extend(Quartiles::of(figures).map(|quartiles| Row {
                    case: name(*case),
                    metric,
                    quartiles,
                    rounds,
                }));
            };
            add(absolute, of_case.iter().map(figure).collect());
            if case.is_some() {
                let pairs = of_case.iter().zip(&samples[0]);
                add(
                    ratio,
                    pairs
                        .map(|(own, base)| figure(own) / figure(base))
                        .collect(),
                );
            }
        }
    }
    rows
}

/// The origin server as a program; it ends with its stdin.
#[derive(Debug)]
struct OriginProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    address: SocketAddr,
}

impl OriginProcess {
    fn start(binaries: &Binaries) -> Result<Self> {
        step("starting the origin");
        let mut child = Command::new(binaries.find("speedmimi-loadgen")?)
            .arg("origin")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting the origin")?;
        let stdin = child.stdin.take();
        let stderr = child.stderr.take().context("the origin has no stderr")?;
        let mut line = String::new();
        BufReader::new(stderr).read_line(&mut line)?;
        let address = line
            .trim()
            .strip_prefix("ready listen=")
            .with_context(|| format!("the origin said: {line}"))?
            .parse()?;
        Ok(Self {
            child,
            stdin,
            address,
        })
    }
}

impl Drop for OriginProcess {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.stdin.take() {
            stdin.flush().ok();
        }
        if let Err(error) = self.child.wait() {
            eprintln!("origin: {error}");
        }
    }
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
        ];
        let rows = rows(&samples);
        let ratio = |case: &str| {
            let row = rows
                .iter()
                .find(|row| row.case.ends_with(case) && row.metric == "cpu_per_request_ratio");
            row.unwrap().quartiles.median
        };
        assert!((ratio("level=tcp") - 2.0).abs() < 1e-12);
        assert!((ratio("level=http") - 1.0).abs() < 1e-12);
    }
}
