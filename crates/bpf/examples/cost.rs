//! Measures what the packet programs cost, or what reading the counters costs, and
//! prints JSON.  `cargo xtask bench programs` and `bench scale` run it.

use std::path::PathBuf;

use bpf::cost::{Extent, cost};
use clap::Parser;

/// Measures what the packet programs cost, and prints JSON
#[derive(Debug, Parser)]
struct Args {
    /// How often every case is run
    #[arg(long, default_value_t = 64)]
    rounds: u32,
    /// How many packets a run has
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    packets: u32,
    /// Measure reads of what is pinned there, in place of packets
    #[arg(long, value_name = "DIR")]
    reads_of: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let Args {
        rounds,
        packets,
        reads_of,
    } = Args::parse();
    let json = match reads_of {
        Some(pin_dir) => serde_json::to_string(&bpf::read_cost::read_cost(&pin_dir, rounds)?)?,
        None => serde_json::to_string(&cost(Extent { rounds, packets })?)?,
    };
    println!("{json}");
    Ok(())
}
