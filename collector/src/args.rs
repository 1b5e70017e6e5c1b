//! The command line as the user wrote it; `config` makes sense of it.
#![allow(
    clippy::doc_markdown,
    reason = "doc comments are the help text, where backticks would show"
)]

use std::{io, net::SocketAddr, path::PathBuf};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Receives, stores and serves SpeedMimi's reports.
#[derive(Debug, Parser)]
#[command(
    name = "speedmimi-collector",
    version,
    about,
    after_help = EXAMPLES,
    max_term_width = 100
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  speedmimi-collector run
  speedmimi-collector run --data-dir ./data --listen-http 127.0.0.1:0
  speedmimi-collector completions bash > /etc/bash_completion.d/speedmimi-collector

Exit codes: 0 ended on SIGTERM or SIGINT, 1 failure, 64 bad usage or configuration.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the collector until SIGTERM or SIGINT.
    #[command(after_help = RUN_EXAMPLES, args_override_self = true)]
    Run(RunArgs),
    /// Copy the store to a file, while a collector runs or not.
    #[command(after_help = BACKUP_EXAMPLES)]
    Backup {
        /// Where the store is kept.
        #[arg(
            long,
            value_name = "DIR",
            env = "SPEEDMIMI_COLLECTOR_DATA_DIR",
            default_value = DATA_DIR
        )]
        data_dir: PathBuf,
        /// The copy; it must not exist yet.
        file: PathBuf,
    },
    /// Print the completions of a shell.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Print the manual page (roff).
    Man,
}

const DATA_DIR: &str = "/var/lib/speedmimi-collector";

const BACKUP_EXAMPLES: &str = "\
Example:
  speedmimi-collector backup /backup/speedmimi-2026-01-31.db

To restore, stop the collector and put the copy into its data directory as
collector.db, without collector.db-wal and collector.db-shm beside it.";

const RUN_EXAMPLES: &str = "\
Examples:
  speedmimi-collector run --data-dir /var/lib/speedmimi-collector
  SPEEDMIMI_TOKEN=… speedmimi-collector run --listen-grpc 127.0.0.1:0

Agents need the token; it is made on the first start as DATA_DIR/token, readable
by its owner alone.";

/// Flags of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// A TOML file with these flags as keys, such as `data-dir = "/data"`; flags
    /// that are given here count more.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where agents deliver their reports; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7600")]
    pub listen_grpc: SocketAddr,
    /// Where JSON, metrics and the web page are served; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7601")]
    pub listen_http: SocketAddr,
    /// Where the store and the token are kept.
    #[arg(
        long,
        value_name = "DIR",
        env = "SPEEDMIMI_COLLECTOR_DATA_DIR",
        default_value = DATA_DIR
    )]
    pub data_dir: PathBuf,
    /// How long reports are kept: s, m, h, d or w.
    #[arg(long, value_name = "AGE", default_value = "30d")]
    pub retention_age: String,
    /// How large the store may get: KiB, MiB, GiB or TiB; the oldest reports
    /// are deleted first.
    #[arg(long, value_name = "SIZE", default_value = "10GiB")]
    pub retention_bytes: String,
    /// Pass reports on to a receiver of Prometheus remote write; may be given
    /// several times.
    #[arg(long, value_name = "URL")]
    pub remote_write: Vec<String>,
    /// A file with the token that writers must show, instead of DATA_DIR/token
    /// (env: SPEEDMIMI_TOKEN holds the token itself).
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Listen also on addresses that are not loopback, without encryption: the
    /// token and all reports can be read on the way, and anyone there can read
    /// what is kept.
    #[arg(long)]
    pub insecure: bool,
    /// The form of the log on stderr (level: env RUST_LOG, default info).
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Writes the completions of `shell` to stdout.
pub fn print_completions(shell: Shell) {
    clap_complete::generate(
        shell,
        &mut Args::command(),
        "speedmimi-collector",
        &mut io::stdout(),
    );
}

/// Writes the manual page to stdout.
///
/// # Errors
/// Where stdout cannot be written to.
pub fn print_man() -> io::Result<()> {
    clap_mangen::Man::new(Args::command()).render(&mut io::stdout())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }
}
