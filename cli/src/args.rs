//! The command line as the user wrote it.
#![allow(
    clippy::doc_markdown,
    reason = "doc comments are the help text, where backticks would show"
)]

use std::{convert::Infallible, path::PathBuf};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use problems::Severity;

use crate::time;

/// Query and watch the hosts, proxies and backends of a SpeedMimi collector.
#[derive(Debug, Parser)]
#[command(name = "speedmimi", version, about, after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// When to use colours.
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub color: Color,
}

const EXAMPLES: &str = "\
Examples:
  speedmimi problems
  speedmimi summary --since 10m --sort 5xx
  speedmimi hosts
  speedmimi reports --host web-1 --since 10m
  speedmimi reports --follow --output json | jq .endpoints
  speedmimi top
  speedmimi stats web-1 --collector https://collector.example:7601 --token-file read-token

Exit codes: 0 done, 1 failure, 64 bad usage; of `problems`: 0 none, 1 some,
2 failure.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what is wrong now, worst first.
    #[command(after_help = PROBLEMS_EXAMPLES)]
    Problems(Problems),
    /// List the hosts.
    Hosts(Common),
    /// Sum up a time range by upstream, backend, listener or host.
    #[command(after_help = SUMMARY_EXAMPLES)]
    Summary(Summary),
    /// Show reports, oldest first.
    #[command(after_help = REPORTS_EXAMPLES)]
    Reports(Reports),
    /// Show the newest report of one host.
    Stats {
        /// Host id or name.
        host: String,
        /// Options.
        #[command(flatten)]
        common: Common,
    },
    /// Watch hosts and their endpoints live.
    #[command(after_help = TOP_KEYS)]
    Top {
        /// Print the newest report of each host and exit.
        #[arg(long)]
        once: bool,
        /// Options.
        #[command(flatten)]
        common: Common,
    },
    /// Export reports as CSV or JSON Lines.
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(Export),
    /// Print a shell completion script.
    Completions {
        /// Target shell.
        shell: Shell,
    },
    /// Print the completion candidates of a host argument.
    #[command(hide = true)]
    CompleteHosts {
        /// Command line up to the cursor.
        line: String,
    },
    /// Print a manual page (roff).
    Man {
        /// Subcommand to document [default: speedmimi itself].
        #[arg(value_name = "COMMAND", value_parser = command_name)]
        command: Option<String>,
        /// Write the pages of all subcommands to this directory.
        #[arg(long, value_name = "DIR", conflicts_with = "command")]
        dir: Option<PathBuf>,
    },
}

const PROBLEMS_EXAMPLES: &str = "\
Examples:
  speedmimi problems
  speedmimi problems --severity warning && echo all is well
  speedmimi problems --watch --host web-1
  speedmimi problems --output json | jq -r '.problems[].summary'

Exit codes: 0 no problem, 1 problems, 2 failure, 64 bad usage. docs/problems.md
explains each kind.";

const SUMMARY_EXAMPLES: &str = "\
Examples:
  speedmimi summary                                    the last hour by backend
  speedmimi summary --since 10m --sort p99 --top 5     which backend is slow
  speedmimi summary --by upstream --since 10:05 --until 10:06
  speedmimi summary --by listener --sort bytes         which listener uses the bandwidth
  speedmimi summary --by client --since 10m            which client uses the bandwidth
  speedmimi summary --by client --sort resets --top 5  whose connections break
  speedmimi summary --since 10m --against 1d           what changed since yesterday
  speedmimi summary --since \"yesterday 10:05\" --until \"yesterday 10:15\"
  speedmimi summary --top 1000 --output csv > day.csv

Columns: FAILED connections that were not established; RESET connections that
the peer reset; NOANS requests whose connection ended before a response; RETR
segments that were sent again. Quantiles (P50, P99) are of all exchanges together.
A narrow terminal shows fewer columns; --output json and csv have all. – is what
was not measured or cannot be seen, a gap in TREND too.

By client: CONNS connections that began, RESET those that the client reset. A client
counts where it was among the 50 largest of a report's window; all else of the
listeners is in ~other, so that the rows and ~other are ~total. Ranges are made of
reports alone, as roll-ups have no clients.";

const TOP_KEYS: &str = "\
Keys:
  Tab                                  switch between the hosts and the selected host's endpoints
  Up, Down, k, j, Page Up, Page Down,
  Home, End                            move the selection
  n, r, e, l, b, a                     sort endpoints by name, requests, 5xx, p99, bytes or
                                       active connections
  i                                    reverse the order
  q, Esc                               quit

A narrow terminal shows fewer columns; values are never truncated.";

const EXPORT_EXAMPLES: &str = "\
Examples:
  speedmimi export --format csv --since 24h > day.csv
  speedmimi export --format jsonl --host web-1 > web-1.jsonl";

const REPORTS_EXAMPLES: &str = "\
Examples:
  speedmimi reports --since 10m
  speedmimi reports --since 00:05 --until 00:20 --endpoint 10.0.0.7:8080
  speedmimi reports --since 2026-01-31T12:00:00Z --until 2026-01-31T13:00:00Z --output json
  speedmimi reports --follow --host web-1";

/// Which collector is asked, and how.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Collector")]
pub struct Connection {
    /// Collector URL: http://HOST:PORT or https://HOST:PORT.
    #[arg(
        long,
        value_name = "URL",
        env = "SPEEDMIMI_COLLECTOR",
        default_value = "http://127.0.0.1:7601"
    )]
    pub collector: String,
    /// PEM file with the CA certificates that verify the collector [default: the system's].
    #[arg(long, value_name = "FILE", env = "SPEEDMIMI_CA_CERT")]
    pub ca_cert: Option<PathBuf>,
    /// File with a read token, required by a collector that listens on a
    /// non-loopback address (env: SPEEDMIMI_TOKEN holds the token itself).
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file with the client certificate.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// PEM file with the private key of the client certificate.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
}

/// Options of every command that asks a collector.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Which collector.
    #[command(flatten)]
    pub connection: Connection,
    /// Output format.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Format,
}

/// Options of `problems`.
#[derive(Clone, Debug, clap::Args)]
pub struct Problems {
    /// Only problems of this host (id or name).
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Only problems of this kind.
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Only problems of this severity and worse: info, warning or critical.
    #[arg(long, value_name = "SEVERITY", value_parser = severity)]
    pub severity: Option<Severity>,
    /// Keep printing what begins and what is over, until interrupted.
    #[arg(long, short)]
    pub watch: bool,
    /// Options.
    #[command(flatten)]
    pub common: Common,
}

/// Options of `summary`.
#[derive(Clone, Debug, clap::Args)]
pub struct Summary {
    /// What a row is.
    #[arg(long, value_name = "WHAT", default_value = "backend",
          value_parser = ["upstream", "backend", "listener", "host", "client"])]
    pub by: String,
    /// Of which endpoints the rows of --by host are made [default: downstream].
    #[arg(long, value_name = "ROLE", value_parser = ["downstream", "upstream"])]
    pub role: Option<String>,
    /// Only this host (id or name).
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Start time or age [default: 1h].
    ///
    /// Accepts an age (10m, 24h, 7d), a local time of day (00:05: its most recent
    /// occurrence), a local date or date and time (2026-01-31, "2026-01-31 12:00",
    /// yesterday, "yesterday 10:05"), or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<String>,
    /// End time or age, in the formats of --since [default: now].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<String>,
    /// Compare with the same range so long before (1h, 1d, 7d).
    #[arg(long, value_name = "AGE")]
    pub against: Option<String>,
    /// Order of the rows, the largest first [default: requests; of --by client: bytes].
    ///
    /// 5xx is by how many there were.  Clients are ordered by bytes, connections,
    /// requests, resets or unanswered.
    #[arg(long, value_name = "FIGURE",
          value_parser = ["requests", "p99", "5xx", "bytes", "failed", "resets", "unanswered", "retransmits",
                          "connections"])]
    pub sort: Option<String>,
    /// Number of rows, 1 to 1000; the others are summed up in ~other.
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub top: u64,
    /// Which collector.
    #[command(flatten)]
    pub connection: Connection,
    /// Output format.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: SummaryFormat,
}

/// The form of a summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SummaryFormat {
    /// Aligned columns.
    #[default]
    Table,
    /// JSON.
    Json,
    /// One line per row and range.
    Csv,
}

/// Options of `reports`.
#[derive(Clone, Debug, clap::Args)]
pub struct Reports {
    /// Only reports of this host (id or name).
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Start time or age [default: all stored reports; with --follow only new
    /// ones].
    ///
    /// Accepts an age (10m, 24h, 7d), a local time of day (00:05: its most recent
    /// occurrence), a local date or date and time (2026-01-31, "2026-01-31 12:00",
    /// yesterday, "yesterday 10:05"), or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<String>,
    /// End time or age, in the formats of --since [default: now].
    #[arg(long, value_name = "TIME", conflicts_with = "follow", value_parser = time)]
    pub until: Option<String>,
    /// Only this endpoint: an address, or the name of a listener, a backend or an
    /// upstream.
    #[arg(long, value_name = "ENDPOINT")]
    pub endpoint: Option<String>,
    /// Maximum number of reports [default: 100 in a table, else all; with --follow
    /// all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Keep printing new reports as they arrive, until interrupted.
    #[arg(long, short)]
    pub follow: bool,
    /// Options.
    #[command(flatten)]
    pub common: Common,
}

/// Reports that a table has where nothing else is asked for.
const TABLE_REPORTS: u64 = 100;

impl Reports {
    /// How many are wanted; `None` means all.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        let is_table = self.common.output == Format::Table && !self.follow;
        self.limit.or(is_table.then_some(TABLE_REPORTS))
    }
}

/// Options of `export`.
#[derive(Clone, Debug, clap::Args)]
pub struct Export {
    /// Export format.
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: ExportFormat,
    /// Only reports of this host (id or name).
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Start time or age [default: all stored reports].
    ///
    /// Accepts an age (10m, 24h, 7d), a local time of day (00:05: its most recent
    /// occurrence), a local date or date and time (2026-01-31, "2026-01-31 12:00",
    /// yesterday, "yesterday 10:05"), or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<String>,
    /// End time or age, in the formats of --since [default: now].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<String>,
    /// Which collector.
    #[command(flatten)]
    pub connection: Connection,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// One line per endpoint.
    Csv,
    /// One report per line, as JSON.
    Jsonl,
}

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// JSON; one report per line.
    Json,
}

/// When to use colours.
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

fn severity(text: &str) -> Result<Severity, &'static str> {
    Severity::named(text).ok_or("use info, warning or critical")
}

fn time(text: &str) -> Result<String, Infallible> {
    Ok(time::absolute(text, &jiff::Zoned::now()))
}

fn command_name(name: &str) -> Result<String, &'static str> {
    let command = Args::command();
    let found = command.find_subcommand(name).map(|_| name.to_owned());
    found.ok_or("no such command: see --help")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }
}
