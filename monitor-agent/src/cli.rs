//! The command line, as it was written; `config` makes sense of it.
#![allow(
    clippy::doc_markdown,
    reason = "doc comments are the help text, where backticks would show"
)]

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, CommandFactory, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use daemon::log::LogFormat;
use daemon::units::{parse_address, parse_bytes, parse_duration};
use kernel_sample::{ClientPrefixes, InvalidPrefixes};
use settings::CommandLine;

use crate::{
    configured_host,
    target::{ContainerPattern, PodPattern},
};

/// Where pins are unless told otherwise.
pub const PIN_DIR: &str = "/sys/fs/bpf/speedmimi";

const EXAMPLES: &str = "\
Examples:
  speedmimi-agent doctor
  speedmimi-agent run --unit nginx.service --token-file /etc/speedmimi/token
  speedmimi-agent run --config /etc/speedmimi/agent.toml
  speedmimi-agent snapshot
  speedmimi-agent top --once --output json
  speedmimi-agent level tcp";

const RUN_EXAMPLES: &str = "\
Examples:
  speedmimi-agent run --auto
  speedmimi-agent run --cgroup system.slice/haproxy.service --level tcp
  speedmimi-agent run --pid $(pidof -s envoy) --collector http://127.0.0.1:7600
  speedmimi-agent run --container 'web-*' --container ingress
  speedmimi-agent run --pod 'ingress-nginx/*'
  speedmimi-agent run --whole-host --collector https://collector.example:7600 \\
    --ca-cert ca.pem --token-file /etc/speedmimi/token
  speedmimi-agent run --unit nginx.service --otlp http://127.0.0.1:4318
  speedmimi-agent run --unit nginx --metrics-listen 127.0.0.1:7602
  speedmimi-agent run --unit nginx --unit haproxy \\
    --names-from /system.slice/nginx.service=/etc/nginx/nginx.conf \\
    --names-from /system.slice/haproxy.service=/etc/haproxy/haproxy.cfg
  speedmimi-agent run --pid 4711 --names-root /proc/4711/root --names-from /etc/nginx/nginx.conf
  speedmimi-agent run --whole-host --report-interval 10s --spool-bytes 1GiB
  speedmimi-agent run --unit nginx --client-prefix 24,48
  speedmimi-agent run --auto --host-name edge-7 --label region=north \\
    --label deployment.environment=production";

const CONFIG_EXAMPLES: &str = "\
Examples:
  speedmimi-agent config example > /etc/speedmimi/agent.toml
  speedmimi-agent config check /etc/speedmimi/agent.toml
  speedmimi-agent config show --config /etc/speedmimi/agent.toml --level tcp

A flag counts more than its environment variable, that more than the file, and that
more than the default. An empty variable counts as absent; several values are separated
by commas in it.";

const UNINSTALL_EXAMPLES: &str = "\
Examples:
  speedmimi-agent uninstall
  speedmimi-agent uninstall --cgroup system.slice/haproxy.service";

const PROBLEMS_EXAMPLES: &str = "\
Examples:
  speedmimi-agent problems
  speedmimi-agent problems --interval 5s --threshold server_errors=1%

Exit codes: 0 no problem, 1 problems, 2 failure, 64 bad usage.  docs/problems.md
explains each kind.";

/// Lets the kernel count what a proxy does, and reports it.
#[derive(Debug, Parser)]
#[command(name = "speedmimi-agent", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Counts, samples and reports until it is told to stop
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Prints what has been counted so far as one report
    Snapshot(SnapshotArgs),
    /// Shows what is wrong at the watched targets and on the host now
    #[command(after_help = PROBLEMS_EXAMPLES)]
    Problems(ProblemsArgs),
    /// Live view of endpoints and sockets
    Top(TopArgs),
    /// Checks what the agent needs of this machine
    Doctor(DoctorArgs),
    /// Shows or sets what the running agent's programs look at
    Level(LevelArgs),
    /// Prints the running agent's state as JSON
    ///
    /// `reports_delivered` counts since the agent began; what was lost
    /// (`reports_dropped`, `reports_damaged`, `reports_rejected` and
    /// `reports_conflicting`) counts since its spool was made.
    Status(SocketArgs),
    /// Stops counting, and removes every program, map and pin, or those of some targets
    #[command(after_help = UNINSTALL_EXAMPLES)]
    Uninstall(UninstallArgs),
    /// Checks, shows and explains the configuration
    #[command(after_help = CONFIG_EXAMPLES)]
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Prints completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Prints a manual page
    Man {
        /// Of this command; of speedmimi-agent itself without it
        #[arg(value_name = "COMMAND", value_parser = command_name)]
        command: Option<String>,
        /// Writes the pages of all commands to this directory
        #[arg(long, value_name = "DIR", conflicts_with = "command")]
        dir: Option<PathBuf>,
    },
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Checks a configuration as `run` would read it, and the environment
    Check {
        /// The file [default: that of SPEEDMIMI_AGENT_CONFIG]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Prints a configuration file with every key, its default and its meaning
    Example,
    /// Prints the settings that count, and where each is from; secrets are left out
    Show {
        /// The settings.
        #[command(flatten)]
        run: Box<RunArgs>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Prints the reference of all keys, as Markdown
    #[command(hide = true)]
    Reference,
}

/// Where the pins are.
#[derive(Args, Clone, Debug)]
pub struct PinArgs {
    /// Directory of the pins, on a BPF filesystem
    #[arg(long, value_name = "DIR", default_value = PIN_DIR)]
    pub pin_dir: PathBuf,
}

/// What to remove.
#[derive(Args, Clone, Debug)]
pub struct UninstallArgs {
    /// Where the pins are.
    #[command(flatten)]
    pub pins: PinArgs,
    /// Removes this target alone, called as reports call it; may be repeated
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<PathBuf>,
}

/// Which agent to ask.
#[derive(Args, Clone, Debug)]
pub struct SocketArgs {
    /// Where the pins are: tells the control socket's place.
    #[command(flatten)]
    pub pins: PinArgs,
    /// Control socket of the running agent [default: NAME.sock in
    /// /run/speedmimi-agent, after --pin-dir's last part]
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<PathBuf>,
}

impl SocketArgs {
    /// The control socket that is meant.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let default = || crate::config::control_socket(&self.pins.pin_dir);
        self.control_socket.clone().unwrap_or_else(default)
    }
}

/// How to show what happens.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Where the pins are, and who knows the names.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Time between two updates
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = report_interval)]
    pub interval: Duration,
    /// Shows one interval and ends
    #[arg(long)]
    pub once: bool,
    /// Form of the output; JSON is one report per line
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How to judge what happens.
#[derive(Args, Clone, Debug)]
pub struct ProblemsArgs {
    /// Where the pins are, and who knows the names.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Length of a window; three are judged
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = report_interval)]
    pub interval: Duration,
    /// From which value on a kind of problem is told, such as `server_errors=1%`, or `off`; may
    /// be repeated
    #[arg(long, value_name = "KIND=VALUE")]
    pub threshold: Vec<String>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How to show what has been counted.
#[derive(Args, Clone, Debug)]
pub struct SnapshotArgs {
    /// Where the pins are, and who knows the names.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Output::Json)]
    pub output: Output,
}

/// How to show checks.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Where the pins are or will be, and which agent to ask.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Checks this configuration for names, as `run` reads it [default: the running agent's].
    #[arg(
        long,
        value_name = "FILE",
        help = "Checks the names in this configuration, as `run` would read it [default: those of the \
                running agent]"
    )]
    pub names_from: Vec<PathBuf>,
    /// Directory in which its paths begin, as for `run`
    #[arg(long, value_name = "DIR")]
    pub names_root: Vec<PathBuf>,
    /// Checks this cgroup's listeners [default: of the cgroups that are watched]
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<PathBuf>,
    /// Checks the listeners in the cgroup of this process
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Checks the listeners of this systemd unit
    #[arg(long, value_name = "NAME")]
    pub unit: Vec<String>,
    /// Checks the listeners of these containers
    #[arg(long, value_name = "NAME|GLOB")]
    pub container: Vec<ContainerPattern>,
    /// Checks the listeners of these pods
    #[arg(long, value_name = "NS/GLOB")]
    pub pod: Vec<PodPattern>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// What to do with the level.
#[derive(Args, Clone, Debug)]
pub struct LevelArgs {
    /// The level to set; without it, the current one is shown
    #[arg(value_enum)]
    pub level: Option<LevelName>,
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Forms of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What the kernel's programs look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LevelName {
    /// Connections and their bytes
    Tcp,
    /// HTTP requests, responses and their times as well
    Http,
}

/// How much the kernel's programs log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KernelLogName {
    /// Nothing, at no cost
    #[default]
    Off,
    /// What is unusual
    Info,
    /// Every connection
    Debug,
}

/// The settings of `run`: flags, environment variables and keys of a file.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Configuration file (.toml, .yaml or .yml); its keys are these flags' names, of
    /// those that can be given several times with one value or a list
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where reports go
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:7600",
        conflicts_with = "otlp"
    )]
    pub collector: String,
    /// Sends reports by OTLP in place of a collector: http(s)://HOST:4318 (to /v1/metrics
    /// where the URL has no path) or grpc(s)://HOST:4317 [env: OTEL_EXPORTER_OTLP_HEADERS,
    /// headers]
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
    /// What this host is called in reports [default: as `uname -n` says]
    #[arg(long, value_name = "NAME", value_parser = configured_host::parse_name)]
    pub host_name: Option<String>,
    /// File whose first line is this host's id, in place of one that is derived from
    /// /etc/machine-id; for machines that were copied with it
    #[arg(long, value_name = "FILE")]
    pub host_id_file: Option<PathBuf>,
    /// Label of this host in its reports, /metrics and OTLP, such as
    /// deployment.environment=production; may be repeated, at most 16
    #[arg(long, value_name = "KEY=VALUE", value_parser = configured_host::parse_label)]
    pub label: Vec<(String, String)>,
    /// Watches this cgroup: a path below the cgroup2 mount, or an absolute one; may be
    /// repeated
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<PathBuf>,
    /// Watches the cgroup of this process; may be repeated
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Watches the cgroup of this systemd unit; may be repeated
    #[arg(long, value_name = "NAME")]
    pub unit: Vec<String>,
    /// Watches containers by name or pattern, as they start and stop, within 10 s; an id, or
    /// 12 digits of one, is a name, too; may be repeated
    #[arg(long, value_name = "NAME|GLOB")]
    pub container: Vec<ContainerPattern>,
    /// Watches pods of Kubernetes by namespace and name or pattern, such as web/nginx-*, as
    /// they start and stop; may be repeated
    #[arg(long, value_name = "NS/GLOB")]
    pub pod: Vec<PodPattern>,
    /// Watches the whole host
    #[arg(long)]
    pub whole_host: bool,
    /// Watches every proxy that runs.
    #[arg(
        long,
        help = "Watches every proxy that runs in a service or a container of its own (nginx, HAProxy, \
                Envoy, Traefik, Caddy, Apache, Varnish, ours), and takes names from their \
                configurations"
    )]
    pub auto: bool,
    /// Takes a --pid whose cgroup holds unrelated processes too
    #[arg(long)]
    pub force: bool,
    /// Keeps CAP_SYS_ADMIN and CAP_SYS_PTRACE, to look at the sockets of containers that
    /// start later too; where there are some at the start, they are kept anyway
    #[arg(long)]
    pub network_namespaces: bool,
    /// What the kernel's programs look at
    #[arg(long, value_enum, default_value_t = LevelName::Http)]
    pub level: LevelName,
    /// How many bits of clients' IPv4 and IPv6 addresses reports keep, such as 24,48; with
    /// `off` they have no clients
    #[arg(long, value_name = "BITS,BITS|off", default_value = "32,64")]
    pub client_prefix: ClientPrefix,
    /// Directory of the pins, on a BPF filesystem
    #[arg(long, value_name = "DIR", default_value = PIN_DIR)]
    pub pin_dir: PathBuf,
    /// Control socket [default: NAME.sock in
    /// /run/speedmimi-agent, after --pin-dir's last part]
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<PathBuf>,
    /// File with the collector's token, read again for every connection [env:
    /// SPEEDMIMI_TOKEN, the token itself]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Authorities of the collector's certificate, in PEM [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// Own certificate, in PEM, for a collector that asks for one
    #[arg(long, value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// Shortest time between two samples, 10ms to 60s
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = sample_interval)]
    pub sample_interval: Duration,
    /// Length of a window, 100ms to 1h and at most 1,000 times --sample-interval
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = report_interval)]
    pub report_interval: Duration,
    /// Where reports wait for the collector
    #[arg(long, value_name = "DIR", default_value = "/var/lib/speedmimi-agent")]
    pub spool_dir: PathBuf,
    /// The most that waiting reports may take, 16MiB or more
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = spool_bytes)]
    pub spool_bytes: u64,
    /// Configuration of the proxy to take names from: ours, nginx's or HAProxy's; with
    /// TARGET, its cgroup as in reports, for that target alone; may be repeated
    #[arg(long, value_name = "[TARGET=]FILE")]
    pub names_from: Vec<PathBuf>,
    /// Directory in which the paths of --names-from, and those in it, begin: a container's
    /// root [default: /, or /proc/PID/root where FILE is below it]; with TARGET, for that
    /// target alone; may be repeated
    #[arg(long, value_name = "[TARGET=]DIR")]
    pub names_root: Vec<PathBuf>,
    /// Serves the agent's own metrics for Prometheus, as /metrics on this address
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub metrics_listen: Option<SocketAddr>,
    /// Serves the figures of every backend to balancers.
    #[arg(
        long,
        value_name = "PATH",
        help = "Serves the figures of every backend to balancers on this Unix socket, as a line of \
                JSON per sample; speedmimi-proxy reads them (agent.socket in its configuration)"
    )]
    pub backends_socket: Option<PathBuf>,
    /// Group, by name or number, that may connect to --backends-socket too [default: root alone]
    #[arg(long, value_name = "GROUP")]
    pub backends_socket_group: Option<String>,
    /// Answers HAProxy's agent checks on this address.
    #[arg(
        long,
        value_name = "ADDR",
        value_parser = parse_address,
        help = "Answers HAProxy's agent checks on this address with the weight of a backend in \
                percent, from its measured cost; HAProxy sends the backend's address: agent-check \
                agent-addr 127.0.0.1 agent-port PORT agent-inter 1s agent-send \"ADDRESS:PORT\\n\""
    )]
    pub agent_check_listen: Option<SocketAddr>,
    /// Lets --metrics-listen and --agent-check-listen be addresses that are not loopback: anyone may read there
    #[arg(long)]
    pub insecure: bool,
    /// How much the kernel's programs log
    #[arg(long, value_enum, default_value_t)]
    pub kernel_log: KernelLogName,
    /// How log lines look
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
}

impl Default for RunArgs {
    /// Those of the help.
    fn default() -> Self {
        let command = Self::augment_args(clap::Command::new("run"));
        let matches = command.get_matches_from(["run"]);
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// The command line as it was given, to be read, and read again.
#[must_use]
pub fn command_line(given: Vec<OsString>) -> CommandLine {
    CommandLine {
        command: Cli::command,
        prefix: "SPEEDMIMI_AGENT",
        // Two lists of targets would be a surprise.
        together: &[
            &[
                "cgroup",
                "container",
                "pid",
                "pod",
                "unit",
                "whole-host",
                "auto",
            ],
            &["collector", "otlp"],
        ],
        has_file: true,
        given,
    }
}

/// A configuration file with every key.
#[must_use]
pub fn example() -> String {
    let keys = command_line(Vec::new()).keys("run");
    settings::example(EXAMPLE_HEAD, &keys, settings::Format::Toml)
}

const EXAMPLE_HEAD: &str = "\
The configuration of speedmimi-agent, /etc/speedmimi/agent.toml: every key with its
default, or with what it takes where it has none. A flag or a variable of the
environment counts more than this file. `speedmimi-agent config check FILE` checks
it; a SIGHUP has it read again.";

/// How many bits of clients' addresses count, if clients are told of at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPrefix(pub Option<ClientPrefixes>);

impl FromStr for ClientPrefix {
    type Err = InvalidPrefixes;

    fn from_str(text: &str) -> Result<Self, InvalidPrefixes> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse().map(|prefixes| Self(Some(prefixes)))
    }
}

fn sample_interval(text: &str) -> Result<Duration, String> {
    between(
        text,
        Duration::from_millis(10),
        Duration::from_secs(60),
        "10ms to 60s",
    )
}

fn report_interval(text: &str) -> Result<Duration, String> {
    between(
        text,
        Duration::from_millis(100),
        Duration::from_secs(3_600),
        "100ms to 1h",
    )
}

fn between(text: &str, low: Duration, high: Duration, range: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(|error| error.to_string())?;
    let is_between = (low..=high).contains(&duration);
    is_between
        .then_some(duration)
        .ok_or_else(|| format!("`{text}`: write {range}"))
}

/// A spool must hold a report of the largest size, and one before it.
fn spool_bytes(text: &str) -> Result<u64, String> {
    const MIN: u64 = 16 << 20;
    let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
    (bytes >= MIN)
        .then_some(bytes)
        .ok_or_else(|| format!("`{text}`: write 16MiB or more"))
}

impl From<LevelName> for kernel_sample::Level {
    fn from(name: LevelName) -> Self {
        match name {
            LevelName::Tcp => Self::Tcp,
            LevelName::Http => Self::Http,
        }
    }
}

fn command_name(name: &str) -> Result<String, &'static str> {
    let command = Cli::command();
    let found = command.find_subcommand(name).map(|_| name.to_owned());
    found.ok_or("no such command: see --help")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_manual_page() {
        for name in ["run", "top", "status", "doctor"] {
            let mut page = Vec::new();
            daemon::manual::write(Cli::command(), Some(name), &mut page).unwrap();
            let text = String::from_utf8(page).unwrap();
            let head = format!(".TH speedmimi-agent-{name} ");
            assert!(text.contains(&head), "{text}");
        }
        assert!(Cli::try_parse_from(["speedmimi-agent", "man", "nothing"]).is_err());
    }

    #[test]
    fn what_is_given_in_one_place_counts_alone_for_targets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        let text =
            "collector = \"http://a:1\"\nunit = \"nginx\"\nlevel = \"tcp\"\nspool-dir = \"/f\"\n";
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let given = [
            "speedmimi-agent",
            "run",
            "--config",
            path,
            "--pid",
            "7",
            "--level",
            "http",
        ];
        let line = command_line(given.map(OsString::from).to_vec());
        let environment = |name: &str| match name {
            "SPEEDMIMI_AGENT_LEVEL" => Some("tcp".into()),
            "SPEEDMIMI_AGENT_SPOOL_DIR" => Some("/e".into()),
            "SPEEDMIMI_AGENT_OTLP" => Some("http://c:4318".into()),
            "SPEEDMIMI_AGENT_UNIT" => Some("a,b".into()),
            _ => None,
        };
        let loaded = line.load_in(&environment).unwrap();
        let cli = Cli::from_arg_matches(&loaded.matches).unwrap();
        let Command::Run(run) = cli.command else {
            panic!("run")
        };
        assert_eq!((run.pid, run.unit), (vec![7], vec![]));
        assert_eq!(
            run.level,
            LevelName::Http,
            "a flag counts more than the environment"
        );
        assert_eq!(
            run.spool_dir.to_str(),
            Some("/e"),
            "and that more than the file"
        );
        // The destination of the environment is one alone.
        assert_eq!(run.otlp.as_deref(), Some("http://c:4318"));
        assert_eq!(run.collector, RunArgs::default().collector);
    }
}
