//! The command line, as it was written; `config` makes sense of it.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use daemon::log::LogFormat;
use daemon::units::parse_duration;
use serde::{Deserialize, Deserializer, Serialize};

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
  speedmimi-agent run --whole-host --collector https://collector.example:7600 \\
    --ca-cert ca.pem --token-file /etc/speedmimi/token
  speedmimi-agent run --unit nginx.service --otlp http://127.0.0.1:4318
  speedmimi-agent run --unit nginx --metrics-listen 127.0.0.1:7602
  speedmimi-agent run --unit nginx --unit haproxy \\
    --names-from /system.slice/nginx.service=/etc/nginx/nginx.conf \\
    --names-from /system.slice/haproxy.service=/etc/haproxy/haproxy.cfg
  speedmimi-agent run --pid 4711 --names-root /proc/4711/root --names-from /etc/nginx/nginx.conf
  speedmimi-agent run --whole-host --report-interval 10s --spool-bytes 1GiB";

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
    Status(SocketArgs),
    /// Stops counting, and removes every program, map and pin, or those of some targets
    #[command(after_help = UNINSTALL_EXAMPLES)]
    Uninstall(UninstallArgs),
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
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = look_interval)]
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
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = look_interval)]
    pub interval: Duration,
    /// From which value on a kind of problem is told, such as `server_errors=1%`, or `off`; may
    /// be repeated
    #[arg(long, value_name = "KIND=VALUE")]
    pub threshold: Vec<String>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

fn look_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|e| e.to_string())?;
    let bounds = Duration::from_millis(100)..=Duration::from_secs(3_600);
    if bounds.contains(&interval) {
        Ok(interval)
    } else {
        Err("must be 100ms to 1h".to_owned())
    }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LevelName {
    /// Connections and their bytes
    Tcp,
    /// HTTP requests, responses and their times as well
    Http,
}

/// How much the kernel's programs log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelLogName {
    /// Nothing, at no cost
    #[default]
    Off,
    /// What is unusual
    Info,
    /// Every connection
    Debug,
}

/// The flags of `run`, which are the keys of its configuration file too.  What
/// is given as a flag wins.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RunArgs {
    /// Configuration file (.toml, .yaml or .yml); its keys are these flags' names, of
    /// those that can be given several times with one value or a list
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Where reports go.
    #[arg(
        long,
        value_name = "URL",
        help = "Where reports go [default: http://127.0.0.1:7600]"
    )]
    pub collector: Option<String>,
    /// Sends reports to a receiver of OTLP in place of a collector.
    #[arg(
        long,
        value_name = "URL",
        help = "Sends reports by OTLP in place of a collector: http(s)://HOST:4318 (to /v1/metrics \
                where the URL has no path) or grpc(s)://HOST:4317 \
                [env: OTEL_EXPORTER_OTLP_HEADERS, headers]"
    )]
    pub otlp: Option<String>,
    /// Watches this cgroup: a path below the cgroup2 mount, or an absolute one; may be repeated
    #[arg(long, value_name = "PATH")]
    #[serde(deserialize_with = "one_or_more")]
    pub cgroup: Vec<PathBuf>,
    /// Watches the cgroup of this process; may be repeated
    #[arg(long, value_name = "PID")]
    #[serde(deserialize_with = "one_or_more")]
    pub pid: Vec<u32>,
    /// Watches the cgroup of this systemd unit; may be repeated
    #[arg(long, value_name = "NAME")]
    #[serde(deserialize_with = "one_or_more")]
    pub unit: Vec<String>,
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
    /// Keeps what it takes to look at containers that start later.
    #[arg(
        long,
        help = "Keeps CAP_SYS_ADMIN and CAP_SYS_PTRACE, to look at the sockets of containers that \
                start later too; where there are some at the start, they are kept anyway"
    )]
    pub network_namespaces: bool,
    /// What the kernel's programs look at [default: http]
    #[arg(long, value_enum)]
    pub level: Option<LevelName>,
    /// Directory of the pins, on a BPF filesystem [default: /sys/fs/bpf/speedmimi]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
    /// Control socket [default: NAME.sock in
    /// /run/speedmimi-agent, after --pin-dir's last part]
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<PathBuf>,
    /// File with the collector's token, read again for every connection.
    #[arg(
        long,
        value_name = "FILE",
        help = "File with the collector's token [env: SPEEDMIMI_TOKEN, the token itself]"
    )]
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
    /// Shortest time between two samples [default: 100ms]
    #[arg(long, value_name = "DURATION")]
    pub sample_interval: Option<String>,
    /// Length of a window [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub report_interval: Option<String>,
    /// Where reports wait for the collector [default: /var/lib/speedmimi-agent]
    #[arg(long, value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,
    /// The most that waiting reports may take [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub spool_bytes: Option<String>,
    /// Configurations of proxies, to take names from.
    #[arg(
        long,
        value_name = "[TARGET=]FILE",
        help = "Configuration of the proxy to take names from: ours, nginx's or HAProxy's; with \
                TARGET, its cgroup as in reports, for that target alone; may be repeated"
    )]
    #[serde(deserialize_with = "one_or_more")]
    pub names_from: Vec<PathBuf>,
    /// Where the paths in configurations begin.
    #[arg(
        long,
        value_name = "[TARGET=]DIR",
        help = "Directory in which the paths of --names-from, and those in it, begin: a container's \
                root [default: /, or /proc/PID/root where FILE is below it]; with TARGET, for that \
                target alone; may be repeated"
    )]
    #[serde(deserialize_with = "one_or_more")]
    pub names_root: Vec<PathBuf>,
    /// Serves the agent's own metrics for Prometheus, as /metrics on this address
    #[arg(long, value_name = "ADDR")]
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
    /// Answers `HAProxy`'s agent checks on this address.
    #[arg(
        long,
        value_name = "ADDR",
        help = "Answers HAProxy's agent checks on this address with the weight of a backend in \
                percent, from its measured cost; HAProxy sends the backend's address: agent-check \
                agent-addr 127.0.0.1 agent-port PORT agent-inter 1s agent-send \"ADDRESS:PORT\\n\""
    )]
    pub agent_check_listen: Option<SocketAddr>,
    /// Lets --metrics-listen and --agent-check-listen be addresses that are not loopback: anyone may read there
    #[arg(long)]
    pub insecure: bool,
    /// How much the kernel's programs log [default: off]
    #[arg(long, value_enum)]
    pub kernel_log: Option<KernelLogName>,
    /// How log lines look [default: text]
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
}

/// A flag that can be given several times is a list in a file, or one value.
fn one_or_more<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "one value, or a list of them, was expected")]
    enum OneOrMore<T> {
        One(T),
        More(Vec<T>),
    }
    Ok(match OneOrMore::deserialize(deserializer)? {
        OneOrMore::One(one) => vec![one],
        OneOrMore::More(more) => more,
    })
}

impl RunArgs {
    /// These, and the file's where these say nothing.  Targets are taken from
    /// one of both as a whole: two lists would be a surprise.
    #[must_use]
    pub fn over(self, file: Self) -> Self {
        let targets = |a: &Self| {
            a.whole_host
                || a.auto
                || !(a.cgroup.is_empty() && a.pid.is_empty() && a.unit.is_empty())
        };
        let named = if targets(&self) {
            self.clone()
        } else {
            file.clone()
        };
        Self {
            config: self.config,
            collector: self.collector.or(file.collector),
            otlp: self.otlp.or(file.otlp),
            cgroup: named.cgroup,
            pid: named.pid,
            unit: named.unit,
            whole_host: named.whole_host,
            auto: named.auto,
            force: self.force || file.force,
            network_namespaces: self.network_namespaces || file.network_namespaces,
            level: self.level.or(file.level),
            pin_dir: self.pin_dir.or(file.pin_dir),
            control_socket: self.control_socket.or(file.control_socket),
            token_file: self.token_file.or(file.token_file),
            ca_cert: self.ca_cert.or(file.ca_cert),
            client_cert: self.client_cert.or(file.client_cert),
            client_key: self.client_key.or(file.client_key),
            sample_interval: self.sample_interval.or(file.sample_interval),
            report_interval: self.report_interval.or(file.report_interval),
            spool_dir: self.spool_dir.or(file.spool_dir),
            spool_bytes: self.spool_bytes.or(file.spool_bytes),
            names_from: if self.names_from.is_empty() {
                file.names_from
            } else {
                self.names_from
            },
            names_root: if self.names_root.is_empty() {
                file.names_root
            } else {
                self.names_root
            },
            metrics_listen: self.metrics_listen.or(file.metrics_listen),
            backends_socket: self.backends_socket.or(file.backends_socket),
            backends_socket_group: self.backends_socket_group.or(file.backends_socket_group),
            agent_check_listen: self.agent_check_listen.or(file.agent_check_listen),
            insecure: self.insecure || file.insecure,
            kernel_log: self.kernel_log.or(file.kernel_log),
            log_format: self.log_format.or(file.log_format),
        }
    }
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

/// Writes the manual page of a command, or of the program.
///
/// # Errors
/// The writer's error.
pub fn man(command: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    let mut program = Cli::command();
    program.build();
    let page = command.and_then(|name| program.find_subcommand(name));
    clap_mangen::Man::new(page.unwrap_or(&program).clone()).render(out)
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
            man(Some(name), &mut page).unwrap();
            let text = String::from_utf8(page).unwrap();
            let head = format!(".TH speedmimi-agent-{name} ");
            assert!(text.contains(&head), "{text}");
        }
        assert!(Cli::try_parse_from(["speedmimi-agent", "man", "nothing"]).is_err());
    }

    #[test]
    fn flags_win_over_the_file_and_targets_are_taken_as_a_whole() {
        let file = RunArgs {
            collector: Some("http://a:1".to_owned()),
            unit: vec!["nginx".to_owned()],
            level: Some(LevelName::Tcp),
            ..RunArgs::default()
        };
        let flags = RunArgs {
            pid: vec![7],
            level: Some(LevelName::Http),
            ..RunArgs::default()
        };
        let both = flags.over(file);
        assert_eq!((both.pid, both.unit.len()), (vec![7], 0));
        assert_eq!(both.level, Some(LevelName::Http));
        assert_eq!(both.collector.as_deref(), Some("http://a:1"));
    }
}
