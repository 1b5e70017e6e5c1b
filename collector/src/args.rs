//! The command line as the user wrote it; `config` makes sense of it.
#![allow(
    clippy::doc_markdown,
    reason = "doc comments are the help text, where backticks would show"
)]

use std::{
    ffi::OsString,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{CommandFactory, FromArgMatches as _, Parser, Subcommand, ValueEnum, error::ErrorKind};
use clap_complete::Shell;
use daemon::{
    log::LogFormat,
    manual,
    units::{parse_address, parse_bytes, parse_duration},
};
use settings::{CommandLine, Setting, SettingsError};

/// Receive, store and serve SpeedMimi reports.
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

SIGHUP reloads the configuration file, --token-file and the tokens; the log names
the settings that need a restart. An invalid configuration changes nothing.
Certificates are reloaded without a signal.

Exit codes: 0 stopped by SIGTERM or SIGINT, 1 failure, 64 bad usage or configuration.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the collector until SIGTERM or SIGINT.
    #[command(after_help = RUN_EXAMPLES, args_override_self = true)]
    Run(Box<RunArgs>),
    /// Back up the store to a file; a running collector need not be stopped.
    #[command(after_help = BACKUP_EXAMPLES)]
    Backup {
        /// Data directory of the collector.
        #[arg(
            long,
            value_name = "DIR",
            env = "SPEEDMIMI_COLLECTOR_DATA_DIR",
            default_value = DATA_DIR
        )]
        data_dir: PathBuf,
        /// Backup file to write; it must not exist yet.
        file: PathBuf,
    },
    /// Create, list and revoke tokens; a running collector need not be stopped.
    #[command(after_help = TOKEN_EXAMPLES)]
    Token {
        /// What to do.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Check, show and explain the configuration.
    #[command(after_help = CONFIG_EXAMPLES)]
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print a shell completion script.
    Completions {
        /// Target shell.
        shell: Shell,
    },
    /// Print a manual page (roff).
    Man {
        /// Subcommand to document [default: speedmimi-collector itself].
        #[arg(value_name = "COMMAND", value_parser = command_name)]
        command: Option<String>,
        /// Write the pages of all subcommands to this directory.
        #[arg(long, value_name = "DIR", conflicts_with = "command")]
        dir: Option<PathBuf>,
    },
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration as `run` would read it, and the environment.
    Check {
        /// The file [default: that of SPEEDMIMI_COLLECTOR_CONFIG].
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print a configuration file with every key, its default and its meaning.
    Example,
    /// Print the settings that count, and where each is from; secrets are left out.
    #[command(args_override_self = true)]
    Show {
        /// The settings.
        #[command(flatten)]
        run: Box<RunArgs>,
        /// Form of the output.
        #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Output,
    },
    /// Print the reference of all keys, as Markdown.
    #[command(hide = true)]
    Reference,
}

/// Forms of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

const CONFIG_EXAMPLES: &str = "\
Examples:
  speedmimi-collector config example > /etc/speedmimi/collector.toml
  speedmimi-collector config check /etc/speedmimi/collector.toml
  speedmimi-collector config show --config /etc/speedmimi/collector.toml --insecure

A flag takes precedence over its environment variable, that over the file, and that
over the default. An empty variable counts as absent; several values are separated by
commas in it.";

const DATA_DIR: &str = "/var/lib/speedmimi-collector";

const BACKUP_EXAMPLES: &str = "\
Example:
  speedmimi-collector backup /backup/speedmimi-2026-01-31.db

To restore, stop the collector, copy the backup to DATA_DIR/collector.db, and
remove DATA_DIR/collector.db-wal and DATA_DIR/collector.db-shm.";

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it; it cannot be shown again.
    Add {
        /// Id of the host whose reports the token may write.
        #[arg(long, value_name = "ID", required_unless_present = "read")]
        host_id: Option<String>,
        /// Create a read-only token for all hosts.
        #[arg(long, conflicts_with = "host_id")]
        read: bool,
        /// Options.
        #[command(flatten)]
        store: Store,
    },
    /// List the tokens by id, without their values.
    List {
        /// Options.
        #[command(flatten)]
        store: Store,
    },
    /// Revoke a token.
    Revoke {
        /// Token id, as printed by `token list`.
        id: String,
        /// Options.
        #[command(flatten)]
        store: Store,
    },
}

/// Where the collector keeps what it has.
#[derive(Clone, Debug, clap::Args)]
pub struct Store {
    /// Data directory with the store and the tokens.
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

`speedmimi hosts` lists the ids of hosts that have reported, and
`speedmimi-agent snapshot` prints the id of the local host. DATA_DIR/token,
created on the first start, may write reports of every host: use per-host tokens
for hosts that must not write as others.";

const RUN_EXAMPLES: &str = "\
Examples:
  speedmimi-collector run --data-dir /var/lib/speedmimi-collector
  SPEEDMIMI_TOKEN=… speedmimi-collector run --listen-grpc 127.0.0.1:0
  speedmimi-collector run --listen-grpc 0.0.0.0:7600 --listen-http 0.0.0.0:7601 \\
    --tls-cert cert.pem --tls-key key.pem --tls-client-ca agents-ca.pem

Agents need a token: DATA_DIR/token, created on the first start and readable only
by its owner, may write reports of every host; `speedmimi-collector token add`
creates tokens for one host each. Reading is open on loopback addresses; on
others it needs a token of `speedmimi-collector token add --read` (as bearer
token, or as the password in a browser's dialog) or a client certificate.";

/// The settings of `run`: flags, environment variables and keys of a file.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// TOML or YAML configuration file with these flags as keys, such as
    /// `data-dir = "/data"`; flags and environment variables take precedence.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of the gRPC server, to which agents send reports; port 0 selects a
    /// free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7600", value_parser = parse_address)]
    pub listen_grpc: SocketAddr,
    /// Address of the HTTP server with the API, /metrics and the web page; port 0
    /// selects a free port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7601", value_parser = parse_address)]
    pub listen_http: SocketAddr,
    /// Data directory with the store and the tokens.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Retention of reports, 1s or more. Roll-ups of a minute are kept three
    /// times as long, roll-ups of an hour 24 times.
    #[arg(long, value_name = "AGE", default_value = "30d", value_parser = retention_age)]
    pub retention_age: Duration,
    /// Maximum size of the store, 1MiB or more. When it is reached, the
    /// oldest data is deleted before --retention-age.
    #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = retention_bytes)]
    pub retention_bytes: u64,
    /// Trust the system clock for retention immediately. Without this flag, a
    /// clock that is ahead of the newest report, or that jumps while the collector
    /// runs, must be stable for an hour before reports are deleted by age. Applied
    /// at start and on SIGHUP.
    #[arg(long)]
    pub accept_clock: bool,
    /// Memory limit for requests and responses in flight, scrapes and watchers, 64MiB
    /// or more. Requests beyond it are rejected with HTTP 503 or gRPC
    /// RESOURCE_EXHAUSTED until memory is free. The process needs about 100 MiB in
    /// addition, more for thousands of hosts.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = memory_limit)]
    pub memory_limit: u64,
    /// Forward metrics to a Prometheus remote write receiver; repeatable.
    #[arg(long, value_name = "URL")]
    pub remote_write: Vec<String>,
    /// Forward metrics by OTLP: http(s)://HOST:4318 for OTLP/HTTP (path /v1/metrics
    /// if the URL has none), grpc(s)://HOST:4317 for OTLP/gRPC; repeatable.
    /// OTEL_EXPORTER_OTLP_HEADERS sets request headers.
    #[arg(long, value_name = "URL")]
    pub otlp: Vec<String>,
    /// Answer HTTP queries from a server with the Prometheus API instead of the
    /// collector's store, such as http://prometheus:9090 or
    /// http://vmselect:8481/select/0/prometheus; repeatable, the results are
    /// merged.
    #[arg(long, value_name = "URL")]
    pub query_url: Vec<String>,
    /// Threshold from which a kind of problem is reported, such as server_errors=10%,
    /// or `off`; repeatable. docs/problems.md lists the kinds and their defaults.
    /// Applied at start and on SIGHUP.
    #[arg(long, value_name = "KIND=VALUE")]
    pub problem_threshold: Vec<String>,
    /// File with the token that agents must send, instead of DATA_DIR/token
    /// (env: SPEEDMIMI_TOKEN holds the token itself).
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file with the certificate chain; enables TLS on both ports. A changed
    /// file is reloaded within seconds.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key of the certificate.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// PEM file with the CA certificates that verify client certificates. Agents
    /// must then present one whose DNS names are the ids of their hosts; one with
    /// the URI urn:speedmimi:read grants read access.
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Additional host name that the HTTP server accepts in the Host field on a
    /// loopback address, such as that of a reverse proxy in front; repeatable.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = allow_host)]
    pub allow_host: Vec<String>,
    /// Allow non-loopback addresses without TLS, and reading without a token there.
    /// Writing still needs a token.
    #[arg(long)]
    pub insecure: bool,
    /// Format of the log on stderr (level: env RUST_LOG, default info).
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// The command line as it was given, to be read, and read again.
#[must_use]
pub fn command_line(given: Vec<OsString>) -> CommandLine {
    CommandLine {
        command: Args::command,
        prefix: "SPEEDMIMI_COLLECTOR",
        together: &[],
        has_file: true,
        given,
    }
}

/// The settings of `run`, or of `config show`, and where each is from.
///
/// # Errors
/// Where the command line, the environment or the file cannot be used.
pub fn run_args(line: &CommandLine) -> Result<(Box<RunArgs>, Vec<Setting>), SettingsError> {
    let loaded = line.load()?;
    match Args::from_arg_matches(&loaded.matches)?.command {
        Command::Run(args)
        | Command::Config {
            command: ConfigCommand::Show { run: args, .. },
        } => Ok((args, loaded.settings)),
        _ => Err(clap::Error::new(ErrorKind::InvalidSubcommand).into()),
    }
}

/// A configuration file with every key.
#[must_use]
pub fn example() -> String {
    let keys = command_line(Vec::new()).keys("run");
    settings::example(EXAMPLE_HEAD, &keys, settings::Format::Toml)
}

const EXAMPLE_HEAD: &str = "\
The configuration of speedmimi-collector, /etc/speedmimi/collector.toml: every key with
its default, or with what it takes where it has none. A flag or a variable of the
environment counts more than this file. `speedmimi-collector config check FILE` checks
it; a SIGHUP has it read again.";

fn retention_age(text: &str) -> Result<Duration, String> {
    let age = parse_duration(text).map_err(|error| error.to_string())?;
    let is_enough = age >= Duration::from_secs(1);
    is_enough
        .then_some(age)
        .ok_or_else(|| format!("`{text}`: write 1s or more"))
}

fn retention_bytes(text: &str) -> Result<u64, String> {
    at_least(text, 1)
}

/// A page of reports, a large report and a scrape find room in their shares.
fn memory_limit(text: &str) -> Result<u64, String> {
    at_least(text, 64)
}

fn at_least(text: &str, mib: u64) -> Result<u64, String> {
    let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
    let is_enough = bytes >= mib << 20;
    is_enough
        .then_some(bytes)
        .ok_or_else(|| format!("`{text}`: write {mib}MiB or more"))
}

/// The name in lower case.
fn allow_host(text: &str) -> Result<String, String> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() || !name.chars().all(of_name) {
        return Err(format!(
            "`{text}`: write a name alone, such as monitor.example, without scheme or port"
        ));
    }
    Ok(name.to_ascii_lowercase())
}

/// Writes the completions of `shell` to stdout.
pub fn print_completions(shell: Shell) {
    clap_complete::generate(
        shell,
        &mut command_line(Vec::new()).documented(),
        "speedmimi-collector",
        &mut io::stdout(),
    );
}

fn command_name(name: &str) -> Result<String, &'static str> {
    let command = Args::command();
    let found = command.find_subcommand(name).map(|_| name.to_owned());
    found.ok_or("no such command: see --help")
}

/// Writes the manual page of a command, or of the program, to stdout; or those of
/// all commands to a directory.
///
/// # Errors
/// Where stdout is closed, or the directory cannot be written.
pub fn man(command: Option<&str>, dir: Option<&Path>) -> io::Result<()> {
    let program = command_line(Vec::new()).documented();
    match dir {
        Some(dir) => manual::write_all(program, dir),
        None => manual::write(program, command, &mut io::stdout()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }
}
