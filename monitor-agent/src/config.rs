//! What `run` was told, made sense of once: nothing here can be nonsense.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bpf::KernelLog;
use daemon::log::LogFormat;
use daemon::token::TokenError;
use daemon::units::{UnitError, parse_bytes, parse_duration};
use delivery::{Destination, Tls, TlsError, token::Token};
use kernel_sample::Level;
use monitor_otlp::{BadOtlpUrl, Headers, HeadersError, OtlpUrl};

use crate::{
    capabilities::Needs,
    cli::{KernelLogName, LevelName, PIN_DIR, RunArgs},
    config_file,
    names::{NamesError, NamesFiles},
    queue::SAMPLES_MAX,
    target::{self, Resolved, Roots, TargetRequest},
};

/// A spool must hold a report of the largest size, and one before it.
const SPOOL_BYTES_MIN: u64 = 16 << 20;

const SAMPLE_INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));
const REPORT_INTERVALS: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(3_600));

/// Why a configuration is refused.  The agent exits with 64 then.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {path} cannot be read")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no configuration file by its name or its size.
    #[error("configuration file {path} {what}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file's content is not understood.
    #[error("configuration file {path}:{line}: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// From 1 on.
        line: u64,
        /// Where and why.
        message: String,
    },
    /// A duration or a size is not understood.
    #[error("{flag}: {source}")]
    Unit {
        /// Which flag.
        flag: &'static str,
        /// Why.
        source: UnitError,
    },
    /// A value is out of its range.
    #[error("{flag} must be {range}")]
    Range {
        /// Which flag.
        flag: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// The collector's address is not understood.
    #[error("--collector {url}: {what}")]
    Collector {
        /// What was given.
        url: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// TLS cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The OTLP receiver's address is not understood.
    #[error(transparent)]
    Otlp(#[from] BadOtlpUrl),
    /// The headers for it are not understood.
    #[error(transparent)]
    OtlpHeaders(#[from] HeadersError),
    /// A report goes to one place alone.
    #[error(
        "--collector and --otlp: give one of them; a collector passes reports on by its own --otlp"
    )]
    TwoDestinations,
    /// The token cannot be had.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Where names are to be taken from is not understood.
    #[error(transparent)]
    Names(#[from] NamesError),
}

/// Where the control socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSocket {
    /// Its path.
    pub path: PathBuf,
    /// Whether it was asked for: then the agent does not start without it.
    pub required: bool,
}

/// Where balancers read the figures of backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendsSocket {
    /// Its path.
    pub path: PathBuf,
    /// The group that may connect besides root.
    pub group: Option<String>,
}

/// A receiver of OTLP.
#[derive(Clone, Debug)]
pub struct Otlp {
    /// Its address.
    pub url: OtlpUrl,
    /// The headers that it asks for.
    pub headers: Headers,
}

impl Otlp {
    fn try_new(url: &str) -> Result<Self, ConfigError> {
        let headers = std::env::var(Headers::VARIABLE).unwrap_or_default();
        Ok(Self {
            url: OtlpUrl::try_new(url)?,
            headers: Headers::try_new(&headers)?,
        })
    }
}

/// What a running agent takes over when it reloads; for the rest it has to be
/// started again.
const RELOADED: [&str; 7] = [
    "collector",
    "token-file",
    "ca-cert",
    "client-cert",
    "client-key",
    "level",
    "report-interval",
];

/// What `run` does.
#[derive(Clone, Debug)]
pub struct Config {
    flags: RunArgs,
    // The flags over what the file has.
    args: RunArgs,
    /// Where reports go.
    pub collector: tonic::transport::Uri,
    /// How, where the collector takes only TLS.
    pub tls: Option<Tls>,
    /// Where they go instead.
    pub otlp: Option<Otlp>,
    /// The collector's token.
    pub token: Token,
    /// Where it is read again and again.
    pub token_file: Option<PathBuf>,
    /// What is watched.
    pub targets: TargetRequest,
    /// Whether network namespaces may come later.
    pub network_namespaces: bool,
    /// What the kernel's programs look at.
    pub level: Level,
    /// Where the pins are.
    pub pin_dir: PathBuf,
    /// Where the agent can be asked.
    pub control_socket: ControlSocket,
    /// The shortest time between two samples.
    pub sample_interval: Duration,
    /// The length of a window.
    pub report_interval: Duration,
    /// Where what was reported last is kept beside the spool, for as long as the
    /// counters are there.
    pub checkpoint: PathBuf,
    /// Where reports wait.
    pub spool_dir: PathBuf,
    /// How much of them.
    pub spool_bytes: u64,
    /// What the backends are called.
    pub names: NamesFiles,
    /// Where the agent's own metrics are served.
    pub metrics_listen: Option<SocketAddr>,
    /// Where balancers read the figures of backends.
    pub backends_socket: Option<BackendsSocket>,
    /// Where `HAProxy`'s agent checks are answered.
    pub agent_check_listen: Option<SocketAddr>,
    /// How much the kernel's programs log.
    pub kernel_log: KernelLog,
    /// How log lines look.
    pub log_format: LogFormat,
}

impl Config {
    /// Where reports go, in words.
    #[must_use]
    pub fn destination(&self) -> String {
        let collector = || self.collector.to_string();
        let url = self.otlp.as_ref().map(|otlp| otlp.url.to_string());
        url.unwrap_or_else(collector)
    }

    /// Makes sense of the flags, and of the file that they name.
    ///
    /// # Errors
    /// Where anything is not understood or out of its range.
    pub fn new(flags: RunArgs, environment_token: Option<String>) -> Result<Self, ConfigError> {
        let args = match &flags.config {
            Some(path) => flags.clone().over(config_file::read(path)?),
            None => flags.clone(),
        };
        let merged = args.clone();
        let pin_dir = args.pin_dir.unwrap_or_else(|| PIN_DIR.into());
        let token_file = args.token_file.clone();
        let sample_interval = duration("--sample-interval", args.sample_interval, 100)?;
        let report_interval = duration("--report-interval", args.report_interval, 5_000)?;
        let spool_bytes = bytes("--spool-bytes", args.spool_bytes, 256 << 20)?;
        for (flag, address) in [
            ("--metrics-listen", args.metrics_listen),
            ("--agent-check-listen", args.agent_check_listen),
        ] {
            check(
                args.insecure || address.is_none_or(|a| a.ip().is_loopback()),
                flag,
                "a loopback address (127.0.0.0/8, [::1]), or --insecure be given: anyone may read there",
            )?;
        }
        check(
            args.backends_socket_group.is_none() || args.backends_socket.is_some(),
            "--backends-socket-group",
            "given with --backends-socket",
        )?;
        check(
            between(sample_interval, SAMPLE_INTERVALS),
            "--sample-interval",
            "10ms to 60s",
        )?;
        check(
            between(report_interval, REPORT_INTERVALS) && report_interval >= sample_interval,
            "--report-interval",
            "100ms to 1h, and not below --sample-interval",
        )?;
        // Or every window would lose samples.
        check(
            report_interval <= sample_interval * SAMPLES_MAX as u32,
            "--report-interval",
            "at most 1,000 times --sample-interval: that many samples are kept",
        )?;
        check(
            spool_bytes >= SPOOL_BYTES_MIN,
            "--spool-bytes",
            "16MiB or more",
        )?;
        if args.collector.is_some() && args.otlp.is_some() {
            return Err(ConfigError::TwoDestinations);
        }
        let url = args.collector.as_deref().unwrap_or("http://127.0.0.1:7600");
        let collector = collector(url)?;
        let client = match (args.client_cert, args.client_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(refuse(
                    url,
                    "needs --client-cert and --client-key, or neither",
                ));
            }
        };
        let tls = Tls {
            ca_cert: args.ca_cert,
            client,
        };
        Ok(Self {
            flags,
            args: merged,
            tls: tls_to(&collector, url, tls)?,
            collector,
            otlp: args.otlp.as_deref().map(Otlp::try_new).transpose()?,
            token: Token::new(args.token_file, environment_token)?,
            targets: TargetRequest {
                cgroups: args.cgroup,
                pids: args.pid,
                units: args.unit,
                whole_host: args.whole_host,
                auto: args.auto,
                force: args.force,
            },
            network_namespaces: args.network_namespaces,
            level: args.level.unwrap_or(LevelName::Http).into(),
            control_socket: ControlSocket {
                required: args.control_socket.is_some(),
                path: args
                    .control_socket
                    .unwrap_or_else(|| control_socket(&pin_dir)),
            },
            checkpoint: checkpoint(&pin_dir),
            pin_dir,
            sample_interval,
            report_interval,
            spool_dir: args
                .spool_dir
                .unwrap_or_else(|| "/var/lib/speedmimi-agent".into()),
            spool_bytes,
            token_file,
            names: NamesFiles::new(&args.names_from, &args.names_root)?,
            metrics_listen: args.metrics_listen,
            backends_socket: args.backends_socket.map(|path| BackendsSocket {
                path,
                group: args.backends_socket_group,
            }),
            agent_check_listen: args.agent_check_listen,
            kernel_log: match args.kernel_log.unwrap_or_default() {
                KernelLogName::Off => KernelLog::Off,
                KernelLogName::Info => KernelLog::Info,
                KernelLogName::Debug => KernelLog::Debug,
            },
            log_format: args.log_format.unwrap_or_default(),
        })
    }

    /// Makes sense of the same flags again, and of their file as it is now.
    ///
    /// # Errors
    /// Where anything is not understood any more.
    pub fn again(&self) -> Result<Self, ConfigError> {
        Self::new(self.flags.clone(), std::env::var("SPEEDMIMI_TOKEN").ok())
    }

    /// The keys that another configuration has other values of, and that a running
    /// agent does not take over.
    #[must_use]
    pub fn needs_restart(&self, other: &Self) -> Vec<String> {
        let fields = |args: &RunArgs| match serde_json::to_value(args) {
            Ok(serde_json::Value::Object(fields)) => fields,
            // A structure is an object; paths that are no UTF-8 cannot be told.
            _ => serde_json::Map::new(),
        };
        let (own, other) = (fields(&self.args), fields(&other.args));
        let changed = own
            .iter()
            .filter(|(key, value)| other.get(*key) != Some(value));
        let keys = changed.map(|(key, _)| key.clone());
        keys.filter(|key| !RELOADED.contains(&key.as_str()))
            .collect()
    }

    /// Where reports go, and by what right.
    #[must_use]
    pub fn collector_destination(&self) -> Destination {
        Destination {
            collector: self.collector.clone(),
            tls: self.tls.clone(),
            token: self.token.clone(),
        }
    }

    /// Makes sure that names which were given for one target have that target, unless
    /// it may still come.
    ///
    /// # Errors
    /// Where it is not watched.
    pub fn check_names(&mut self, resolved: &Resolved, roots: &Roots) -> Result<(), ConfigError> {
        let label = |path: &Path| roots.label_of(path);
        let mut watched: Vec<_> = resolved
            .targets
            .iter()
            .map(|t| t.label.to_string())
            .collect();
        if !resolved.awaited.is_empty() {
            watched.extend(self.names.targets().map(|target| label(Path::new(target))));
        }
        let watched: Vec<_> = watched.iter().map(String::as_str).collect();
        Ok(self.names.check(label, &watched)?)
    }

    /// What the agent goes on to use.
    #[must_use]
    pub fn needs(&self, targets: &[kernel_sample::Target], roots: &Roots) -> Needs {
        let beside = [&self.control_socket.path, &self.checkpoint];
        let beside = beside.into_iter().filter_map(|file| file.parent());
        let written = [self.spool_dir.clone(), self.pin_dir.clone()];
        let client = |tls: &Tls| tls.client.clone().map(|(cert, key)| [cert, key]);
        let tls = self.tls.iter().flat_map(|tls| {
            let own = client(tls).into_iter().flatten();
            own.chain(tls.ca_cert.clone())
        });
        Needs {
            other_namespaces: self.network_namespaces
                || target::in_other_namespaces(targets, roots),
            written: written
                .into_iter()
                .chain(beside.map(Path::to_owned))
                .collect(),
            read: tls
                .chain(self.token_file.clone())
                .chain(self.names.paths())
                .collect(),
            files_of_processes: self.names.are_of_processes(),
        }
    }
}

/// Where an agent has what does not outlive a boot; its unit makes it.
pub const RUN_DIR: &str = "/run/speedmimi-agent";

/// Where the control socket of the agent with these pins is unless told
/// otherwise: no two agents share their pins, so neither do they share this.
#[must_use]
pub fn control_socket(pin_dir: &Path) -> PathBuf {
    beside(pin_dir, ".sock")
}

/// Where what was reported last is kept: where nothing outlives a boot, as the
/// counters do not.
#[must_use]
pub fn checkpoint(pin_dir: &Path) -> PathBuf {
    beside(pin_dir, ".checkpoint")
}

fn beside(pin_dir: &Path, suffix: &str) -> PathBuf {
    let name = pin_dir.file_name().unwrap_or("speedmimi".as_ref());
    let mut file = name.to_owned();
    file.push(suffix);
    Path::new(RUN_DIR).join(file)
}

fn refuse(url: &str, what: &'static str) -> ConfigError {
    ConfigError::Collector {
        url: url.to_owned(),
        what,
    }
}

/// What is wrong with the files is told before anything is watched.
fn tls_to(
    collector: &tonic::transport::Uri,
    url: &str,
    tls: Tls,
) -> Result<Option<Tls>, ConfigError> {
    if collector.scheme_str() == Some("https") {
        tls.endpoint(collector)?;
        return Ok(Some(tls));
    }
    if tls == Tls::default() {
        Ok(None)
    } else {
        let what = "must begin with https:// for --ca-cert and --client-cert to mean anything";
        Err(refuse(url, what))
    }
}

fn collector(url: &str) -> Result<tonic::transport::Uri, ConfigError> {
    let refuse = |what| refuse(url, what);
    let uri: tonic::transport::Uri = url
        .parse()
        .map_err(|_| refuse("is no URL; give one like http://127.0.0.1:7600"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(refuse("must begin with http:// or https://"));
    }
    if uri.authority().is_none() || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(refuse(
            "must be http://HOST:PORT or https://HOST:PORT and nothing more",
        ));
    }
    Ok(uri)
}

fn duration(
    flag: &'static str,
    text: Option<String>,
    default_ms: u64,
) -> Result<Duration, ConfigError> {
    let parsed = text.map(|t| parse_duration(&t)).transpose();
    let parsed = parsed.map_err(|source| ConfigError::Unit { flag, source })?;
    Ok(parsed.unwrap_or(Duration::from_millis(default_ms)))
}

fn bytes(flag: &'static str, text: Option<String>, default: u64) -> Result<u64, ConfigError> {
    let parsed = text.map(|t| parse_bytes(&t)).transpose();
    let parsed = parsed.map_err(|source| ConfigError::Unit { flag, source })?;
    Ok(parsed.unwrap_or(default))
}

fn between(value: Duration, (low, high): (Duration, Duration)) -> bool {
    (low..=high).contains(&value)
}

fn check(holds: bool, flag: &'static str, range: &'static str) -> Result<(), ConfigError> {
    holds
        .then_some(())
        .ok_or(ConfigError::Range { flag, range })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn written(name: &str, text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let flags = RunArgs {
            config: Some(path),
            ..RunArgs::default()
        };
        Config::new(flags, None)
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let config = Config::new(RunArgs::default(), None).unwrap();
        assert_eq!(config.collector.to_string(), "http://127.0.0.1:7600/");
        assert_eq!(config.sample_interval, Duration::from_millis(100));
        assert_eq!(config.report_interval, Duration::from_secs(5));
        assert_eq!((config.spool_bytes, config.level), (256 << 20, Level::Http));
        assert_eq!(
            config.control_socket.path,
            Path::new("/run/speedmimi-agent/speedmimi.sock")
        );
        assert!(!config.control_socket.required);
    }

    #[test]
    fn a_file_has_the_same_keys_in_toml_and_yaml() {
        let toml = "unit = [\"nginx.service\"]\nlevel = \"tcp\"\nreport-interval = \"1s\"\n";
        let yaml = "unit: [nginx.service]\nlevel: tcp\nreport-interval: 1s\n";
        for config in [written("a.toml", toml), written("a.yaml", yaml)] {
            let config = config.unwrap();
            assert_eq!(config.targets.units, ["nginx.service"]);
            assert_eq!(config.level, Level::Tcp);
            assert_eq!(config.report_interval, Duration::from_secs(1));
        }
        assert!(written("empty.yml", "\n").is_ok());
    }

    #[test]
    fn names_that_cannot_be_read_are_no_reason_not_to_start() {
        let config = written("a.toml", "names-from = \"/nonexistent/nginx.conf\"\n").unwrap();
        assert_eq!(config.names.paths().count(), 1);
    }

    #[test]
    fn files_of_names_are_one_or_a_list() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nginx.conf");
        fs::write(&path, "http { upstream a { server 127.0.0.1:1; } }\n").unwrap();
        let file = path.display();
        for (name, text, count) in [
            ("a.toml", format!("names-from = \"{file}\"\n"), 1),
            ("a.yaml", format!("names-from: {file}\n"), 1),
            (
                "a.toml",
                format!("names-from = [\"{file}\", \"/t={file}\"]\n"),
                2,
            ),
            ("a.yaml", format!("names-from: [{file}, /t={file}]\n"), 2),
        ] {
            let config = written(name, &text).unwrap();
            let paths: Vec<_> = config.names.paths().collect();
            assert_eq!(paths, vec![path.clone(); count], "{text}");
        }
    }

    #[test]
    fn a_list_of_one_needs_no_brackets() {
        for (name, text, cgroups, pids) in [
            (
                "a.toml",
                "cgroup = \"/a\"\npid = [7, 8]",
                vec!["/a"],
                vec![7, 8],
            ),
            (
                "a.toml",
                "cgroup = [\"/a\", \"/b\"]\npid = 7",
                vec!["/a", "/b"],
                vec![7],
            ),
            ("a.yaml", "cgroup: /a\npid: [7, 8]", vec!["/a"], vec![7, 8]),
            (
                "a.yaml",
                "cgroup: [/a, /b]\npid: 7",
                vec!["/a", "/b"],
                vec![7],
            ),
        ] {
            let targets = written(name, text).unwrap().targets;
            let expected: Vec<_> = cgroups.iter().map(PathBuf::from).collect();
            assert_eq!((targets.cgroups, targets.pids), (expected, pids), "{text}");
        }
        let refused = written("a.toml", "cgroup = true").unwrap_err().to_string();
        assert!(refused.contains("one value, or a list"), "{refused}");
    }

    #[test]
    fn what_a_reload_does_not_take_over_is_named() {
        let before = written("a.toml", "collector = \"http://a:1\"\nlevel = \"tcp\"").unwrap();
        let text = "collector = \"http://b:1\"\nspool-bytes = \"20MiB\"\nunit = \"x\"";
        let after = written("a.toml", text).unwrap();
        let mut keys = before.needs_restart(&after);
        keys.sort();
        assert_eq!(keys, ["spool-bytes", "unit"]);
        assert!(before.needs_restart(&before).is_empty());
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        for name in ["a.toml", "a.yaml"] {
            let text = if name == "a.toml" {
                "colector = \"x\""
            } else {
                "colector: x"
            };
            let error = written(name, text).unwrap_err().to_string();
            assert!(
                error.contains("colector") && error.contains("collector"),
                "{error}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let refused = [
            ("a.toml", "sample-interval = \"1ms\"", "10ms to 60s"),
            ("a.toml", "report-interval = \"50ms\"", "100ms to 1h"),
            ("a.toml", "report-interval = \"1h\"", "at most 1,000 times"),
            ("a.toml", "spool-bytes = \"1MiB\"", "16MiB or more"),
            ("a.toml", "spool-bytes = \"many\"", "whole number"),
            ("a.toml", "collector = \"ftp://h:1\"", "https://"),
            ("a.toml", "otlp = \"ftp://h:1\"", "grpc://"),
            (
                "a.toml",
                "collector = \"http://h:1\"\notlp = \"http://h:2\"",
                "give one of them",
            ),
            (
                "a.toml",
                "collector = \"http://h:1\"\nca-cert = \"x\"",
                "https://",
            ),
            (
                "a.toml",
                "collector = \"https://h:1\"\nca-cert = \"/nowhere/ca.pem\"",
                "/nowhere/ca.pem",
            ),
            (
                "a.toml",
                "collector = \"https://h:1\"\nclient-cert = \"x\"",
                "--client-key",
            ),
            ("a.toml", "collector = \"http://h:1/x\"", "nothing more"),
            ("a.toml", "level = \"udp\"", "udp"),
            ("a.toml", "metrics-listen = \"0.0.0.0:1\"", "--insecure"),
            ("a.ini", "", ".toml"),
            ("a.yaml", "unit: [", "a.yaml"),
        ];
        for (name, text, expected) in refused {
            let error = written(name, text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
