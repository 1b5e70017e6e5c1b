//! `cargo xtask bench NAME`: measurements, one file each.

mod balance;
mod charts;
mod collector;
mod overhead;
mod programs;
mod proxy;
mod publish;
mod scale;
mod statistics;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use self::{charts::Panel, statistics::Quartiles};
use crate::{command::output, workspace::Workspace};

/// `cargo xtask bench`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

/// What every bench takes.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Common {
    /// Few and short rounds: whether it works, not how much it is.
    #[arg(long)]
    quick: bool,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// Write docs/benchmarks/NAME.md and NAME.svg too.
    #[arg(long)]
    save: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// What balancers make of backends that differ: ours against nginx and haproxy.
    Balance {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: balance::Options,
    },
    /// What the collector costs: ingest, disk, memory and questions, and the
    /// same data in two other engines.
    Collector {
        #[command(flatten)]
        common: Common,
    },
    /// What watching costs the proxy and the machine: no program, level tcp,
    /// level http, and level http with the agent, in turn.
    Overhead {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: overhead::Options,
    },
    /// What the packet programs cost per packet, and how large all programs are.
    Programs {
        #[command(flatten)]
        common: Common,
    },
    /// What the proxy costs, against nginx, haproxy and a bare TCP relay.
    Proxy {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: proxy::Options,
    },
    /// What many live sockets cost: memory, samples, a look at all of them, and
    /// opening and ending one.
    Scale {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        options: scale::Options,
    },
}

/// One figure of a bench.
#[derive(Clone, Debug)]
struct Row {
    case: String,
    metric: &'static str,
    quartiles: Quartiles,
    rounds: usize,
}

/// Where figures come from.
#[derive(Clone, Debug)]
struct Provenance {
    bench: &'static str,
    kernel: String,
    commit: String,
    processors: usize,
}

impl Row {
    /// Of at least one figure, one a round.
    fn of(case: &str, metric: &'static str, figures: Vec<f64>) -> Option<Self> {
        let rounds = figures.len();
        Quartiles::of(figures).map(|quartiles| Self {
            case: case.to_owned(),
            metric,
            quartiles,
            rounds,
        })
    }
}

/// Runs the command.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    let (bench, common, rows, panels): (_, _, _, &[Panel]) = match &args.bench {
        Bench::Balance { common, options } => {
            let rows = balance::bench(workspace, options, common.quick)?;
            ("balance", common, rows, &balance::PANELS)
        }
        Bench::Collector { common } => {
            let rows = collector::bench(workspace, common.quick)?;
            ("collector", common, rows, &collector::PANELS)
        }
        Bench::Overhead { common, options } => {
            let rows = overhead::bench(workspace, options, common.quick)?;
            ("overhead", common, rows, &overhead::PANELS)
        }
        Bench::Programs { common } => {
            let rows = programs::bench(workspace, common.quick)?;
            ("programs", common, rows, &[PROGRAMS])
        }
        Bench::Proxy { common, options } => {
            let rows = proxy::bench(workspace, options, common.quick)?;
            ("proxy", common, rows, &proxy::PANELS)
        }
        Bench::Scale { common, options } => {
            let rows = scale::bench(workspace, options, common.quick)?;
            ("scale", common, rows, &scale::PANELS)
        }
    };
    let provenance = Provenance::of(workspace, bench)?;
    match common.output {
        Output::Table => print_table(&rows),
        Output::Json => println!("{}", document(&provenance, &rows)),
    }
    if common.save {
        publish::publish(workspace, &provenance, panels, &rows)?;
    }
    Ok(())
}

const PROGRAMS: Panel = Panel {
    metric: "ns_above_empty",
    cases: "",
    title: "ns per packet, above an empty program",
    reference: Some(0.0),
};

impl Provenance {
    fn of(workspace: &Workspace, bench: &'static str) -> Result<Self> {
        let uname = rustix::system::uname();
        let mut git = std::process::Command::new("git");
        git.args(["rev-parse", "--short=12", "HEAD"])
            .current_dir(workspace.root());
        Ok(Self {
            bench,
            kernel: uname.release().to_string_lossy().into_owned(),
            commit: output(&mut git)?,
            processors: std::thread::available_parallelism()?.get(),
        })
    }
}

fn document(provenance: &Provenance, rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let Quartiles {
                q1,
                median,
                q3,
                interval,
            } = row.quartiles;
            json!({"case": row.case, "metric": row.metric, "median": median,
                   "q1": q1, "q3": q3, "interval_95": interval, "rounds": row.rounds})
        })
        .collect();
    json!({"bench": provenance.bench, "kernel": provenance.kernel,
           "commit": provenance.commit, "rows": rows})
}

fn print_table(rows: &[Row]) {
    println!(
        "{:<36} {:<30} {:>12} {:>12} {:>12} {:>21} {:>6}",
        "CASE", "METRIC", "MEDIAN", "Q1", "Q3", "95 %", "ROUNDS"
    );
    for row in rows {
        let Quartiles {
            q1,
            median,
            q3,
            interval,
        } = row.quartiles;
        let interval = interval.map(|(low, high)| format!("{low:.3} {high:.3}"));
        println!(
            "{:<36} {:<30} {median:>12.3} {q1:>12.3} {q3:>12.3} {:>21} {:>6}",
            row.case,
            row.metric,
            interval.as_deref().unwrap_or("-"),
            row.rounds
        );
    }
}
