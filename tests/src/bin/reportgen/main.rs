//! Reports of many made-up hosts, delivered to a collector by gRPC as agents
//! deliver them: every host has a connection of its own, keeps a few reports
//! in flight and waits for the acknowledgement of each.
//!
//! What it prints is JSON: how many reports and samples were acknowledged and
//! how long that took.  A sample is one stored value: a number of a report
//! that is not 0 (a 0 takes no place in the encoding), or one bucket of a
//! histogram; times, names and sequence numbers are none.

mod deliver;
mod fleet;
mod pace;
mod samples;

use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

/// Delivers the reports of many hosts and says how long it took.
#[derive(Clone, Debug, Parser)]
#[command(name = "speedmimi-reportgen", version)]
struct Cli {
    /// The collector's gRPC address.
    #[arg(long)]
    grpc: SocketAddr,
    /// The token that agents show.
    #[arg(long)]
    token_file: PathBuf,
    /// How many hosts there are.
    #[arg(long, default_value_t = 1)]
    hosts: usize,
    /// How many endpoints each host has.
    #[arg(long, default_value_t = 10)]
    endpoints: usize,
    /// How many reports each host delivers; the last window ends now.
    #[arg(long, default_value_t = 1)]
    reports: u64,
    /// How long a window lasts, in seconds.
    #[arg(long, default_value_t = 5)]
    window: u64,
    /// How many connections deliver; the hosts are spread over them.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    streams: usize,
    /// Send a report of each host every window, spread over it, instead of as fast as
    /// the collector takes them.
    #[arg(long)]
    paced: bool,
    /// What the names of the hosts begin with.
    #[arg(long, default_value = "host")]
    prefix: String,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    ensure!(
        cli.hosts > 0 && cli.reports > 0 && cli.window > 0 && cli.streams > 0,
        "every number is at least 1"
    );
    let token = fs::read_to_string(&cli.token_file)
        .with_context(|| format!("reading {}", cli.token_file.display()))?;
    let delivered = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(deliver::all(cli, token.trim()))?;
    println!("{delivered}");
    Ok(())
}
