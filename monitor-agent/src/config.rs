//! What `run` was told, made sense of once: nothing here can be nonsense.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bpf::KernelLog;
use clap::{FromArgMatches as _, error::ErrorKind};
use daemon::{log::LogFormat, token::TokenError};
use delivery::{Destination, Tls, TlsError, token::Token};
use host_metrics::identity;
use kernel_sample::{ClientPrefixes, Level};
use monitor_otlp::{Headers, HeadersError, OtlpUrl};
use settings::{CommandLine, Setting, SettingsError};

use crate::{
    capabilities::Needs,
    cli::{Cli, Command, ConfigCommand, KernelLogName, RunArgs},
    configured_host,
    names::{NamesError, NamesFiles},
    queue::SAMPLES_MAX,
    target::{self, Resolved, Roots, TargetRequest},
};

/// Why a configuration is refused.  The agent exits with 64 then.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line, the environment or the file.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A setting does not go with another, or is not understood.
    #[error("{name}: {what}")]
    Setting {
        /// Its flag, its variable, or its place in the file.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// TLS cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The headers for it are not understood.
    #[error(transparent)]
    OtlpHeaders(#[from] HeadersError),
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
    /// Where it is from, to be read again.
    origin: Option<(CommandLine, Vec<Setting>)>,
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
    /// What reports say of this host.
    pub host: identity::Configured,
    /// What is watched.
    pub targets: TargetRequest,
    /// Whether network namespaces may come later.
    pub network_namespaces: bool,
    /// What the kernel's programs look at.
    pub level: Level,
    /// How many bits of clients' addresses count; `None` tells of no client.
    pub client_prefixes: Option<ClientPrefixes>,
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

    /// Reads the command line, its environment and its file.
    ///
    /// # Errors
    /// Where anything is not understood or out of its range.
    pub fn load(line: CommandLine) -> Result<Self, ConfigError> {
        let loaded = line.load()?;
        let cli = Cli::from_arg_matches(&loaded.matches).map_err(SettingsError::from)?;
        let (Command::Run(args)
        | Command::Config {
            command: ConfigCommand::Show { run: args, .. },
        }) = cli.command
        else {
            return Err(SettingsError::from(clap::Error::new(ErrorKind::InvalidSubcommand)).into());
        };
        let mut config = Self::new(
            *args,
            &loaded.settings,
            std::env::var("SPEEDMIMI_TOKEN").ok(),
        )?;
        config.origin = Some((line, loaded.settings));
        Ok(config)
    }

    /// Makes sense of settings; `settings` says where each is from.
    ///
    /// # Errors
    /// Where anything is not understood or out of its range.
    pub fn new(
        args: RunArgs,
        settings: &[Setting],
        environment_token: Option<String>,
    ) -> Result<Self, ConfigError> {
        let refuse = |key: &str, what: &str| ConfigError::Setting {
            name: Setting::label(settings, key),
            what: what.to_owned(),
        };
        for (key, address) in [
            ("metrics-listen", args.metrics_listen),
            ("agent-check-listen", args.agent_check_listen),
        ] {
            if !args.insecure && address.is_some_and(|a| !a.ip().is_loopback()) {
                return Err(refuse(
                    key,
                    "anyone may read there: give a loopback address (127.0.0.0/8, [::1]), or \
                     --insecure",
                ));
            }
        }
        if args.backends_socket_group.is_some() && args.backends_socket.is_none() {
            return Err(refuse(
                "backends-socket-group",
                "needs --backends-socket, too",
            ));
        }
        let (sample_interval, report_interval) = (args.sample_interval, args.report_interval);
        // Or every window would lose samples.
        if report_interval < sample_interval
            || report_interval > sample_interval * SAMPLES_MAX as u32
        {
            return Err(refuse(
                "report-interval",
                "must not be below --sample-interval, and at most 1,000 times as long: that many \
                 samples are kept",
            ));
        }
        let collector = collector(&args.collector).map_err(|what| refuse("collector", &what))?;
        let client = match (args.client_cert, args.client_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err(refuse("client-cert", "needs --client-key, too")),
            (None, Some(_)) => return Err(refuse("client-key", "needs --client-cert, too")),
        };
        let tls = Tls {
            ca_cert: args.ca_cert,
            client,
        };
        let tls = if collector.scheme_str() == Some("https") {
            // What is wrong with the files is told before anything is watched.
            tls.endpoint(&collector)?;
            Some(tls)
        } else if tls == Tls::default() {
            None
        } else {
            let what = "must begin with https:// for --ca-cert and --client-cert to mean anything";
            return Err(refuse("collector", what));
        };
        let otlp = match &args.otlp {
            Some(url) => Some(Otlp {
                url: OtlpUrl::try_new(url).map_err(|error| refuse("otlp", &error.to_string()))?,
                headers: Headers::try_new(&std::env::var(Headers::VARIABLE).unwrap_or_default())?,
            }),
            None => None,
        };
        let host = configured_host::of(args.host_name, args.host_id_file.as_deref(), args.label)
            .map_err(|(key, what)| refuse(key, &what))?;
        Ok(Self {
            origin: None,
            host,
            collector,
            tls,
            otlp,
            token: Token::new(args.token_file.clone(), environment_token)?,
            token_file: args.token_file,
            targets: TargetRequest {
                cgroups: args.cgroup,
                pids: args.pid,
                units: args.unit,
                containers: args.container,
                pods: args.pod,
                whole_host: args.whole_host,
                auto: args.auto,
                force: args.force,
            },
            network_namespaces: args.network_namespaces,
            level: args.level.into(),
            client_prefixes: args.client_prefix.0,
            control_socket: ControlSocket {
                required: args.control_socket.is_some(),
                path: args
                    .control_socket
                    .unwrap_or_else(|| control_socket(&args.pin_dir)),
            },
            checkpoint: checkpoint(&args.pin_dir),
            pin_dir: args.pin_dir,
            sample_interval,
            report_interval,
            spool_dir: args.spool_dir,
            spool_bytes: args.spool_bytes,
            names: NamesFiles::new(&args.names_from, &args.names_root)?,
            metrics_listen: args.metrics_listen,
            backends_socket: args.backends_socket.map(|path| BackendsSocket {
                path,
                group: args.backends_socket_group,
            }),
            agent_check_listen: args.agent_check_listen,
            kernel_log: match args.kernel_log {
                KernelLogName::Off => KernelLog::Off,
                KernelLogName::Info => KernelLog::Info,
                KernelLogName::Debug => KernelLog::Debug,
            },
            log_format: args.log_format,
        })
    }

    /// What is read again from where it is from.
    ///
    /// # Errors
    /// Where anything is not understood any more.
    pub fn again(&self) -> Result<Self, ConfigError> {
        match &self.origin {
            Some((line, _)) => Self::load(line.clone()),
            None => Ok(self.clone()),
        }
    }

    /// The settings that count, and where each is from.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        self.origin.as_ref().map_or(&[], |(_, settings)| settings)
    }

    /// The keys that another configuration has other values of, and that a running
    /// agent does not take over.
    #[must_use]
    pub fn needs_restart(&self, other: &Self) -> Vec<String> {
        let mut keys = Setting::differing(self.settings(), other.settings());
        keys.retain(|key| !RELOADED.contains(&key.as_str()));
        keys
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

    /// Why there is no token yet, where a file for it is given.
    #[must_use]
    pub fn missing_token(&self) -> Option<String> {
        let error = self.token.missing()?;
        Some(daemon::error_chain(&error))
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
        let by_name = !self.targets.containers.is_empty() || !self.targets.pods.is_empty();
        let names = by_name.then(|| target::files_with_names(&roots.host));
        Needs {
            container_names: names.into_iter().flatten().collect(),
            other_namespaces: by_name
                || self.network_namespaces
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

fn collector(url: &str) -> Result<tonic::transport::Uri, String> {
    let refuse = |what| Err(format!("{url}: {what}"));
    let Ok(uri) = url.parse::<tonic::transport::Uri>() else {
        return refuse("is no URL; give one like http://127.0.0.1:7600");
    };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return refuse("must begin with http:// or https://");
    }
    if uri.authority().is_none() || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return refuse("must be http://HOST:PORT or https://HOST:PORT and nothing more");
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::command_line;

    fn written(name: &str, text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let given = [
            "speedmimi-agent".into(),
            "run".into(),
            "--config".into(),
            path.into(),
        ];
        Config::load(command_line(given.to_vec()))
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let config = Config::new(RunArgs::default(), &[], None).unwrap();
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
    fn what_is_wrong_is_told_with_its_place_and_what_may_be_written() {
        for (name, text, told) in [
            (
                "a.toml",
                "\ncolector = \"x\"",
                "a.toml:2:1: unknown key \"colector\", did you mean \"collector\"?; allowed here: \
                 collector, otlp, ",
            ),
            (
                "a.yaml",
                "pid: 1\ncolector: x",
                "a.yaml:2:1: unknown key \"colector\", did",
            ),
            (
                "a.toml",
                "zzzz = 1",
                "a.toml:1:1: unknown key \"zzzz\"; allowed here: ",
            ),
            (
                "a.toml",
                "config = \"b\"",
                "a.toml:1:1: unknown key \"config\"",
            ),
            ("a.toml", "help = true", "a.toml:1:1: unknown key \"help\""),
            (
                "a.toml",
                "[agent]\nlevel = \"tcp\"",
                "a.toml:1:2: unknown key \"agent\"",
            ),
            (
                "a.toml",
                "level.x = 1",
                "a.toml:1:1: level: is a table of keys: write tcp or http",
            ),
            (
                "a.toml",
                "pid = 1\nspool-dir = 5",
                "a.toml:2:13: spool-dir: is a number: write a text in quotes",
            ),
            (
                "a.toml",
                "insecure = \"yes\"",
                "a.toml:1:12: insecure: \"yes\": write true or false",
            ),
            (
                "a.yaml",
                "pid: 1\ninsecure: [1]",
                "a.yaml:2:11: insecure: is a list: write true or",
            ),
            (
                "a.yaml",
                "insecure:",
                "a.yaml:1:9: insecure: is empty: write true or false",
            ),
            (
                "a.toml",
                "level = \"udp\"",
                "a.toml:1:9: level: \"udp\", did you mean \"tcp\"?: write tcp or http",
            ),
            (
                "a.toml",
                "pid = 0",
                "a.toml:1:7: pid: \"0\": write a whole number from 1 to 4294967295",
            ),
            (
                "a.toml",
                "pid = [1, -1]",
                "a.toml:1:11: pid[1]: \"-1\": write a whole number",
            ),
            (
                "a.toml",
                "pid = [[1]]",
                "a.toml:1:8: pid[0]: is a list: write a whole number",
            ),
            (
                "a.toml",
                "cgroup = true",
                "a.toml:1:10: cgroup: is true or false: write a text",
            ),
            (
                "a.toml",
                "unit = \"a\"\nunit = \"b\"",
                "a.toml:2:1: TOML: duplicate key",
            ),
            (
                "a.yaml",
                "unit: a\nunit: b",
                "a.yaml:2:1: \"unit\" is already set in line 1",
            ),
            (
                "a.toml",
                "sample-interval = \"1ms\"",
                "a.toml:1:19: sample-interval: `1ms`: write 10ms to 60s",
            ),
            (
                "a.toml",
                "report-interval = 5",
                "a.toml:1:19: report-interval: `5` is not a duration",
            ),
            (
                "a.toml",
                "report-interval = \"50ms\"",
                "report-interval: `50ms`: write 100ms to 1h",
            ),
            (
                "a.toml",
                "report-interval = \"1h\"",
                "a.toml:1:1: report-interval: must not be below --sample-interval, and at most 1,000",
            ),
            (
                "a.toml",
                "spool-bytes = \"1MiB\"",
                "a.toml:1:15: spool-bytes: `1MiB`: write 16MiB or more",
            ),
            (
                "a.toml",
                "spool-bytes = \"many\"",
                "spool-bytes: `many` is not a size",
            ),
            (
                "a.toml",
                "metrics-listen = \":7602\"",
                "a.toml:1:18: metrics-listen: `:7602` is not an address",
            ),
            (
                "a.toml",
                "metrics-listen = \"0.0.0.0:1\"",
                "a.toml:1:1: metrics-listen: anyone may read there",
            ),
            (
                "a.toml",
                "collector = \"ftp://h:1\"",
                "a.toml:1:1: collector: ftp://h:1: must begin with http",
            ),
            ("a.toml", "collector = \"http://h:1/x\"", "nothing more"),
            ("a.toml", "otlp = \"ftp://h:1\"", "grpc://"),
            (
                "a.toml",
                "collector = \"http://h:1\"\notlp = \"http://h:2\"",
                "a.toml: collector and otlp exclude each other: set one of them",
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
                "client-cert = \"x\"",
                "a.toml:1:1: client-cert: needs --client-key, too",
            ),
            ("a.ini", "", "its name must end in .toml, .yaml"),
            ("a.yaml", "unit: [", "a.yaml:"),
        ] {
            let error = daemon::error_chain(&written(name, text).unwrap_err());
            assert!(error.contains(told), "{text}: {error}");
            for word in [
                "invalid type",
                "u16",
                "u32",
                "unexpected argument",
                "Policy",
            ] {
                assert!(!error.contains(word), "{text}: {error}");
            }
        }
    }

    #[test]
    fn what_is_no_text_file_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let directory = dir.path().join("b.toml");
        fs::create_dir(&directory).unwrap();
        for (path, told) in [
            (
                file("huge.toml", &vec![b'#'; (1 << 20) + 1]),
                "larger than 1048576 bytes",
            ),
            (
                file("bytes.toml", b"level = \"\xff\""),
                "byte 10 is not UTF-8",
            ),
            (directory, "is not a regular file"),
            (dir.path().join("none.yaml"), "No such file"),
        ] {
            let given = [
                "speedmimi-agent".into(),
                "run".into(),
                "--config".into(),
                path.into(),
            ];
            let refused = Config::load(command_line(given.to_vec())).unwrap_err();
            let error = daemon::error_chain(&refused);
            assert!(
                error.starts_with("configuration file: cannot read "),
                "{error}"
            );
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn the_example_is_a_file_that_changes_nothing() {
        let text = crate::cli::example();
        let config = written("example.toml", &text).unwrap();
        let plain = written("empty.toml", "").unwrap();
        assert_eq!(
            Setting::differing(config.settings(), plain.settings()),
            ["config"; 0]
        );
        // Nor does it where every key that has a default is set to it.
        let set: String = text
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| {
                line.split_once(" = ")
                    .is_some_and(|(key, _)| !key.contains(' '))
            })
            .filter(|line| {
                plain
                    .settings()
                    .iter()
                    .any(|s| line.starts_with(&format!("{} = ", s.key)) && !s.values.is_empty())
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        assert!(
            set.contains("level = \"http\"\n") && set.lines().count() >= 10,
            "{set}"
        );
        let set = written("set.toml", &set).unwrap();
        assert_eq!(
            Setting::differing(set.settings(), plain.settings()),
            ["config"; 0]
        );
    }
}
