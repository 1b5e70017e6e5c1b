//! The command line as the user wrote it.
#![allow(
    clippy::doc_markdown,
    reason = "doc comments are the help text, where backticks would show"
)]

use std::{
    convert::Infallible,
    io::{self, Write},
    path::PathBuf,
};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::time;

/// Shows what a SpeedMimi collector knows of hosts, proxies and backends.
#[derive(Debug, Parser)]
#[command(name = "speedmimi", version, about, after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// When to colour: on a terminal unless NO_COLOR is set.
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub color: Color,
}

const EXAMPLES: &str = "\
Examples:
  speedmimi hosts
  speedmimi reports --host web-1 --since 10m
  speedmimi reports --follow --output json | jq .endpoints
  speedmimi top
  speedmimi stats web-1 --collector https://collector.example:7601 --token-file read-token

Exit codes: 0 done, 1 failure, 64 bad usage.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the hosts.
    Hosts(Common),
    /// Show reports, oldest first.
    #[command(after_help = REPORTS_EXAMPLES)]
    Reports(Reports),
    /// Show the newest figures of one host.
    Stats {
        /// Its id, or its name.
        host: String,
        /// Options.
        #[command(flatten)]
        common: Common,
    },
    /// Watch hosts and their endpoints live.
    #[command(after_help = TOP_KEYS)]
    Top {
        /// Print the newest report of each host and end.
        #[arg(long)]
        once: bool,
        /// Options.
        #[command(flatten)]
        common: Common,
    },
    /// Write reports for other programs.
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(Export),
    /// Print the completions of a shell.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Print the hosts that a line can be completed to.
    #[command(hide = true)]
    CompleteHosts {
        /// The line, up to the cursor.
        line: String,
    },
    /// Print a manual page (roff).
    Man {
        /// Of this command; of speedmimi itself without it.
        #[arg(value_name = "COMMAND", value_parser = command_name)]
        command: Option<String>,
    },
}

const TOP_KEYS: &str = "\
Keys: Tab goes from the hosts to the endpoints of the chosen one and back; up, down, k, j, Page up,
Page down, Home and End choose; n, r, e, l, b and a sort endpoints by name, requests, 5xx, p99,
bytes and active connections, i inverts; q or Esc ends.
On a narrow terminal columns are left out; figures are always whole.";

const EXPORT_EXAMPLES: &str = "\
Examples:
  speedmimi export --format csv --since 24h > day.csv
  speedmimi export --format jsonl --host web-1 > web-1.jsonl";

const REPORTS_EXAMPLES: &str = "\
Examples:
  speedmimi reports --since 10m
  speedmimi reports --since 00:05 --until 00:20
  speedmimi reports --since 2026-01-31T12:00:00Z --until 2026-01-31T13:00:00Z --output json
  speedmimi reports --follow --host web-1";

/// Which collector is asked, and how.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Collector")]
pub struct Connection {
    /// The collector: http://HOST:PORT or https://HOST:PORT.
    #[arg(
        long,
        value_name = "URL",
        env = "SPEEDMIMI_COLLECTOR",
        default_value = "http://127.0.0.1:7601"
    )]
    pub collector: String,
    /// Authorities of its certificate, in PEM; those of the system without it.
    #[arg(long, value_name = "FILE", env = "SPEEDMIMI_CA_CERT")]
    pub ca_cert: Option<PathBuf>,
    /// A file with a read token, which a collector on another address asks for
    /// (env: SPEEDMIMI_TOKEN holds the token itself).
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A certificate to show, in PEM.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
}

/// Options of every command that asks a collector.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Which collector.
    #[command(flatten)]
    pub connection: Connection,
    /// How to print.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Format,
}

/// Options of `reports`.
#[derive(Clone, Debug, clap::Args)]
pub struct Reports {
    /// Only of this host, by id or name.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// From this time or age on; all that are kept without it, or with --follow
    /// only new ones.
    ///
    /// An age (10m, 24h, 7d), a local time of day (00:05: when it was last), a
    /// local date or date and time (2026-01-31, "2026-01-31 12:00"), or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<String>,
    /// Up to this time or age, in the same forms.
    #[arg(long, value_name = "TIME", conflicts_with = "follow", value_parser = time)]
    pub until: Option<String>,
    /// At most so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Go on with new reports as they come, until interrupted.
    #[arg(long, short)]
    pub follow: bool,
    /// Options.
    #[command(flatten)]
    pub common: Common,
}

/// Options of `export`.
#[derive(Clone, Debug, clap::Args)]
pub struct Export {
    /// In which form.
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: ExportFormat,
    /// Only of this host, by id or name.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// From this time or age on.
    ///
    /// An age (10m, 24h, 7d), a local time of day (00:05: when it was last), a
    /// local date or date and time (2026-01-31, "2026-01-31 12:00"), or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<String>,
    /// Up to this time or age, in the same forms.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<String>,
    /// Which collector.
    #[command(flatten)]
    pub connection: Connection,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A line an endpoint.
    Csv,
    /// A report a line, as JSON.
    Jsonl,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// JSON; reports one a line.
    Json,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

fn time(text: &str) -> Result<String, Infallible> {
    Ok(time::absolute(text, &jiff::Zoned::now()))
}

fn command_name(name: &str) -> Result<String, &'static str> {
    let command = Args::command();
    let found = command.find_subcommand(name).map(|_| name.to_owned());
    found.ok_or("there is no such command")
}

/// Writes the manual page of a command, or of the program.
///
/// # Errors
/// Where it cannot be written.
pub fn print_man(command: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    let mut program = Args::command();
    program.build();
    let page = command.and_then(|name| program.find_subcommand(name));
    clap_mangen::Man::new(page.unwrap_or(&program).clone()).render(&mut { out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }
}
