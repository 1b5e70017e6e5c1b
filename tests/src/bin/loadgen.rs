//! The load generator and the origin server as programs of their own, for
//! those who measure: compiled optimised, and in a process whose CPU time is
//! not that of what is measured.

use std::{
    io::{self, BufRead as _},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use testkit::traffic::{Crowd, Exchange, Load, Origin, open_and_end};

/// Exact HTTP/1.1 traffic: every byte is counted.
#[derive(Debug, Parser)]
#[command(name = "speedmimi-loadgen", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve /bytes/N, /chunked/N, /close/N and /status/CODE; print the counts as a line
    /// of JSON for every line on stdin, and end with stdin.
    Origin {
        /// Where to listen; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: Vec<SocketAddr>,
    },
    /// Send requests, and print what was sent and received as JSON.
    Load {
        /// Where to send them.
        #[arg(long)]
        target: SocketAddr,
        /// How many connections are open at once.
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// How many requests are sent in all.
        #[arg(long, default_value_t = 1, conflicts_with = "seconds")]
        requests: u64,
        /// Send requests for this long in place of a number of them.
        #[arg(long)]
        seconds: Option<f64>,
        /// What every connection sends in turn.
        #[arg(long, default_value = "GET /bytes/100")]
        exchange: Vec<Exchange>,
        /// Ask for the end of the connection with each request.
        #[arg(long)]
        close: bool,
    },
    /// Hold both ends of idle connections until it is ended.
    Hold {
        /// How many.
        #[arg(long)]
        connections: usize,
        /// At how many listeners.
        #[arg(long, default_value_t = 1)]
        listeners: usize,
    },
    /// Open and end connections, one after the other.
    Connect {
        /// How many.
        #[arg(long)]
        connections: usize,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Origin { listen } => {
            let origin = Origin::start(&listen)?;
            let addresses: Vec<_> = origin.addresses().iter().map(ToString::to_string).collect();
            eprintln!("ready listen={}", addresses.join(","));
            for line in io::stdin().lock().lines() {
                line?;
                println!("{}", serde_json::to_string(&origin.counts())?);
            }
        }
        Command::Load {
            target,
            connections,
            requests,
            seconds,
            exchange,
            close,
        } => {
            let mix = exchange.into_iter().map(|one| one.closing(close));
            let load = Load::on(target).connections(connections).mix(mix);
            let load = match seconds {
                Some(seconds) => {
                    ensure!(
                        (0.0..86_400.0).contains(&seconds),
                        "--seconds is between 0 and 86400"
                    );
                    load.duration(Duration::from_secs_f64(seconds))
                }
                None => load.requests(requests),
            };
            println!("{}", serde_json::to_string(&load.run()?)?);
        }
        Command::Hold {
            connections,
            listeners,
        } => {
            let crowd = Crowd::open(connections, listeners)?;
            let (connections, listeners) = crowd.size();
            eprintln!("ready connections={connections} listeners={listeners}");
            loop {
                std::thread::park();
            }
        }
        Command::Connect { connections } => {
            open_and_end(connections)?;
            eprintln!("ready connections={connections}");
        }
    }
    Ok(())
}
