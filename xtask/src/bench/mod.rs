//! `cargo xtask bench NAME`: measurements, one file each.

mod collector;
mod overhead;
mod programs;
mod proxy;
mod statistics;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use self::statistics::Quartiles;
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
    /// What the collector costs: ingest, disk, memory and questions, and the
    /// same data in two other engines.
    Collector {
        #[command(flatten)]
        common: Common,
    },
    /// What watching costs the proxy and the machine: no agent, level tcp,
    /// level http, in turn.
    Overhead {
        #[command(flatten)]
        common: Common,
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
}

/// One figure of a bench.
#[derive(Clone, Debug)]
struct Row {
    case: String,
    metric: &'static str,
    quartiles: Quartiles,
    rounds: usize,
}

/// Runs the command.
pub(crate) fn main(workspace: &Workspace, args: &Args) -> Result<()> {
    let (name, common, rows) = match &args.bench {
        Bench::Collector { common } => (
            "collector",
            common,
            collector::bench(workspace, common.quick)?,
        ),
        Bench::Overhead { common } => (
            "overhead",
            common,
            overhead::bench(workspace, common.quick)?,
        ),
        Bench::Programs { common } => (
            "programs",
            common,
            programs::bench(workspace, common.quick)?,
        ),
        Bench::Proxy { common, options } => {
            let rows = proxy::bench(workspace, options, common.quick)?;
            ("proxy", common, rows)
        }
    };
    match common.output {
        Output::Table => print_table(&rows),
        Output::Json => println!("{}", document(workspace, name, &rows)?),
    }
    Ok(())
}

fn document(workspace: &Workspace, bench: &str, rows: &[Row]) -> Result<Value> {
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut git = std::process::Command::new("git");
    git.args(["rev-parse", "--short=12", "HEAD"])
        .current_dir(workspace.root());
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({"case": row.case, "metric": row.metric, "median": row.quartiles.median,
                   "q1": row.quartiles.q1, "q3": row.quartiles.q3, "rounds": row.rounds})
        })
        .collect();
    Ok(json!({"bench": bench, "kernel": kernel, "commit": output(&mut git)?, "rows": rows}))
}

fn print_table(rows: &[Row]) {
    println!(
        "{:<32} {:<30} {:>12} {:>12} {:>12} {:>6}",
        "CASE", "METRIC", "MEDIAN", "Q1", "Q3", "ROUNDS"
    );
    for row in rows {
        let Quartiles { q1, median, q3 } = row.quartiles;
        println!(
            "{:<32} {:<30} {median:>12.3} {q1:>12.3} {q3:>12.3} {:>6}",
            row.case, row.metric, row.rounds
        );
    }
}
