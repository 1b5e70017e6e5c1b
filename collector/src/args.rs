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

SIGHUP reads the configuration file, --token-file and the tokens again, and the
log says what of it needs a restart; a configuration that cannot be used changes
nothing.  Certificates are followed without it.

Exit codes: 0 ended on SIGTERM or SIGINT, 1 failure, 64 bad usage or configuration.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the collector until SIGTERM or SIGINT.
    #[command(after_help = RUN_EXAMPLES, args_override_self = true)]
    Run(Box<RunArgs>),
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
    /// Give out tokens and take them back, while a collector runs or not.
    #[command(after_help = TOKEN_EXAMPLES)]
    Token {
        /// What to do.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Print the completions of a shell.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Print a manual page (roff).
    Man {
        /// Of this command; of speedmimi-collector itself without it.
        #[arg(value_name = "COMMAND", value_parser = command_name)]
        command: Option<String>,
    },
}

const DATA_DIR: &str = "/var/lib/speedmimi-collector";

const BACKUP_EXAMPLES: &str = "\
Example:
  speedmimi-collector backup /backup/speedmimi-2026-01-31.db

To restore, stop the collector and put the copy into its data directory as
collector.db, without collector.db-wal and collector.db-shm beside it.";

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it: it is told this once.
    Add {
        /// The host whose reports it may bring, by id.
        #[arg(long, value_name = "ID", required_unless_present = "read")]
        host_id: Option<String>,
        /// It may read everything, and bring nothing.
        #[arg(long, conflicts_with = "host_id")]
        read: bool,
        /// Options.
        #[command(flatten)]
        store: Store,
    },
    /// List the tokens, without themselves.
    List {
        /// Options.
        #[command(flatten)]
        store: Store,
    },
    /// Take a token back, by the id that `list` shows.
    Revoke {
        /// Its id.
        id: String,
        /// Options.
        #[command(flatten)]
        store: Store,
    },
}

/// Where the collector keeps what it has.
#[derive(Clone, Debug, clap::Args)]
pub struct Store {
    /// Where the store and the tokens are kept.
    #[arg(
        long,
        value_name = "DIR",
        env = "SPEEDMIMI_COLLECTOR_DATA_DIR",
        default_value = DATA_DIR
    )]
    pub data_dir: PathBuf,
}

const TOKEN_EXAMPLES: &str = "\
Examples:
  speedmimi-collector token add --host-id 0123456789abcdef0123456789abcdef
  speedmimi-collector token add --read > /etc/speedmimi/read-token
  speedmimi-collector token list
  speedmimi-collector token revoke 5a0c1d2e3f40

`speedmimi hosts` shows the ids of hosts that have reported, and
`speedmimi-agent snapshot` the id of its own. DATA_DIR/token, made on the first
start, writes for every host: give it to no host that must not write as others.";

const RUN_EXAMPLES: &str = "\
Examples:
  speedmimi-collector run --data-dir /var/lib/speedmimi-collector
  SPEEDMIMI_TOKEN=… speedmimi-collector run --listen-grpc 127.0.0.1:0
  speedmimi-collector run --listen-grpc 0.0.0.0:7600 --listen-http 0.0.0.0:7601 \\
    --tls-cert cert.pem --tls-key key.pem --tls-client-ca agents-ca.pem

Agents need the token; it is made on the first start as DATA_DIR/token, readable
by its owner alone, and writes for every host; `speedmimi-collector token add`
makes tokens for one host each. Reading is open on loopback addresses; on others
it needs a token of `speedmimi-collector token add --read` (as a bearer token,
or as the password that a browser asks for) or a client certificate.";

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
    /// How long reports are kept: s, m, h, d or w; sums of minutes three times as
    /// long, sums of hours 24 times.
    #[arg(long, value_name = "AGE", default_value = "30d")]
    pub retention_age: String,
    /// How large the store may get: KiB, MiB, GiB or TiB; where that is too little,
    /// all is kept for a shorter age.
    #[arg(long, value_name = "SIZE", default_value = "10GiB")]
    pub retention_bytes: String,
    /// Delete by this machine's clock at once.  Else a clock that is ahead of the
    /// newest report, or jumps while the collector runs, must hold for an hour
    /// before anything is deleted for its age by it.  Counts at a start and on
    /// SIGHUP.
    #[arg(long)]
    pub accept_clock: bool,
    /// How much memory everything in flight may take: messages of agents, answers
    /// that are not read yet, scrapes and watchers; KiB, MiB or GiB.  What finds no
    /// room is refused for a while, by HTTP with 503, by gRPC with
    /// RESOURCE_EXHAUSTED.  The process takes about 100 MiB beside it, more for
    /// thousands of hosts.
    #[arg(
        long,
        value_name = "SIZE",
        env = "SPEEDMIMI_COLLECTOR_MEMORY_LIMIT",
        default_value = "256MiB"
    )]
    pub memory_limit: String,
    /// Pass reports on to a receiver of Prometheus remote write; may be given
    /// several times.
    #[arg(long, value_name = "URL")]
    pub remote_write: Vec<String>,
    /// Pass reports on by OTLP: http(s)://HOST:4318 for OTLP/HTTP, to
    /// /v1/metrics where the URL has no path, grpc(s)://HOST:4317 for OTLP/gRPC;
    /// may be given several times.  OTEL_EXPORTER_OTLP_HEADERS holds headers.
    #[arg(long, value_name = "URL")]
    pub otlp: Vec<String>,
    /// Answer by HTTP from an engine with the Prometheus API in place of the
    /// own store, such as http://prometheus:9090 or
    /// http://vmselect:8481/select/0/prometheus; may be given several times,
    /// then the answers are joined.
    #[arg(long, value_name = "URL")]
    pub query_url: Vec<String>,
    /// A file with the token that writers must show, instead of DATA_DIR/token
    /// (env: SPEEDMIMI_TOKEN holds the token itself).
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A PEM file with the certificate chain for both ports, which speak TLS
    /// then; a new file is used within seconds.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// A PEM file with the certificate's private key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// A PEM file with the authorities of client certificates.  Agents must show
    /// one then, whose DNS names are the ids of the hosts that it reports for;
    /// one with the URI urn:speedmimi:read may read.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// A name under which the HTTP port on a loopback address is reached besides
    /// localhost, such as that of a proxy which passes the Host field on; may be
    /// given several times, in the environment with commas between.
    #[arg(
        long,
        value_name = "NAME",
        env = "SPEEDMIMI_COLLECTOR_ALLOW_HOST",
        value_delimiter = ','
    )]
    pub allow_host: Vec<String>,
    /// Listen also on addresses that are not loopback without encryption, and
    /// let anyone there read what is kept; writing needs a token all the same.
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

fn command_name(name: &str) -> Result<String, &'static str> {
    let command = Args::command();
    let found = command.find_subcommand(name).map(|_| name.to_owned());
    found.ok_or("there is no such command")
}

/// Writes the manual page of a command, or of the program, to stdout.
///
/// # Errors
/// Where stdout is closed.
pub fn print_man(command: Option<&str>) -> io::Result<()> {
    let mut program = Args::command();
    program.build();
    let page = command.and_then(|name| program.find_subcommand(name));
    clap_mangen::Man::new(page.unwrap_or(&program).clone()).render(&mut io::stdout())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }
}
