//! Configuration: the file ([`raw`]) is validated once and becomes a [`Config`],
//! which cannot hold a route without an upstream, a timeout of zero or a duplicate
//! backend id.

pub mod cidr;
pub mod error;
pub mod raw;
pub mod units;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use schemars::generate::SchemaSettings;
use serde::Deserialize as _;
use settings::{Fault, Format, Key, Merged, Node, Overrides, Schema, Setting};

pub use self::cidr::Cidr;
pub use self::error::ConfigError;
pub use self::raw::{Algorithm, RawConfig, Scheme};
use http1::request::is_authority;
use http1::{HEADERS_MAX, HeadLimits};

/// The keys of a file, which its types define.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let schema = settings
        .into_generator()
        .into_root_schema_for::<RawConfig>();
    Schema::new(schema.as_value(), PREFIX)
});

/// What the environment variables of settings begin with.
pub const PREFIX: &str = "SPEEDMIMI_PROXY";

/// The keys of a file.
#[must_use]
pub fn keys() -> &'static [Key] {
    SCHEMA.keys()
}

/// A file that was emptied to be written anew must not be taken for one in which
/// everything is left to its default.
fn merged(node: Node, overrides: &Overrides) -> Result<Merged, Fault> {
    if node.is_empty() {
        return Err(Fault::of("", "the file is empty"));
    }
    SCHEMA.merge(node, overrides)
}

/// Where the configuration is read, and what is put over it.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The file.
    pub path: PathBuf,
    /// What counts more.
    pub overrides: Overrides,
}

impl Origin {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`] where it cannot be read or used.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Ok(self.read()?.0)
    }

    /// The same, with the settings that count and where each is from.
    ///
    /// # Errors
    /// [`ConfigError`] where it cannot be read or used.
    pub fn settings(&self) -> Result<(Config, Vec<Setting>), ConfigError> {
        let (config, merged) = self.read()?;
        let value = serde_json::to_value(&config.raw).unwrap_or_default();
        let settings = SCHEMA.settings(&value, &merged, &self.path);
        Ok((config, settings))
    }

    fn read(&self) -> Result<(Config, Merged), ConfigError> {
        let node = settings::read(&self.path, Some(Format::Yaml))?;
        let in_file = |fault: Fault| fault.in_file(&self.path);
        let merged = merged(node, &self.overrides).map_err(in_file)?;
        let config = Config::of(&merged).map_err(in_file)?;
        Ok((config, merged))
    }
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// What was written.
    pub raw: RawConfig,
    /// Address and port of the listener.
    pub listen: (String, u16),
    /// Address and port of the admin API, where it is enabled.
    pub admin: Option<(String, u16)>,
    /// Maximum number of client connections; `None`: unlimited.
    pub connections_max: Option<usize>,
    /// Trusted proxies.
    pub trusted_proxies: Vec<Cidr>,
    /// The header field in which they send the client's address.
    pub real_ip_header: String,
    /// Certificate and key, where clients speak TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Upstreams by name, in the order of their names.
    pub upstreams: Vec<Upstream>,
    /// Routes by descending prefix length.
    pub routes: Vec<Route>,
    /// Allowed CONNECT targets.
    pub connects: Vec<ConnectTarget>,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Size limits.
    pub limits: Limits,
    /// Interval of name resolution; `None`: never again.
    pub resolve_interval: Option<Duration>,
}

/// A named list of backends.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Its backends.
    pub backends: Vec<raw::RawBackend>,
    /// Idle timeout of pooled connections; `None`: no pool.
    pub idle_timeout: Option<Duration>,
    /// Maximum length of the queue.
    pub queue: u32,
    /// Timeout of a queued request.
    pub queue_timeout: Duration,
    /// Slow start of recovered backends.
    pub slow_start: Duration,
    /// Panic threshold, in percent of the active backends.
    pub panic_percent: u32,
}

/// A route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Path prefix.
    pub prefix: String,
    /// The index of its upstream in [`Config::upstreams`].
    pub upstream: usize,
    /// Load balancing algorithm.
    pub algorithm: Algorithm,
    /// Load balancing algorithms for single protocols.
    pub protocols: raw::RawProtocols,
}

/// A CONNECT target.
#[derive(Debug, Clone)]
pub struct ConnectTarget {
    /// Host and port as the client names them, in lower case.
    pub authority: String,
    /// The index of its upstream in [`Config::upstreams`].
    pub upstream: usize,
    /// Load balancing algorithm.
    pub algorithm: Algorithm,
}

/// Timeouts; none is zero, but for `drain`.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Receiving the whole request head.
    pub request_head: Duration,
    /// Between two reads of a request body.
    pub request_body: Duration,
    /// A response write during which the client reads nothing.
    pub client_write: Duration,
    /// Idle time of a client connection.
    pub keep_alive: Duration,
    /// Connecting to a backend.
    pub connect: Duration,
    /// From sending the request to receiving the response's head.
    pub response_head: Duration,
    /// No progress of a body to or from a backend.
    pub body_stall: Duration,
    /// Idle time of a tunnel.
    pub tunnel_idle: Duration,
    /// Graceful shutdown.
    pub drain: Duration,
}

/// Size limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Limits of heads.
    pub head: HeadLimits,
    /// Size of a request body in bytes.
    pub body_bytes_max: u64,
    /// Number of pipelined requests.
    pub pipeline_depth_max: u32,
}

impl Config {
    /// Checks a text, YAML or JSON.
    ///
    /// # Errors
    /// [`ConfigError`] where it cannot be used.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let node = settings::parse(text, Format::Yaml).map_err(ConfigError::fault)?;
        let merged = merged(node, &Overrides::default()).map_err(ConfigError::fault)?;
        Self::of(&merged).map_err(ConfigError::fault)
    }

    fn of(merged: &Merged) -> Result<Self, Fault> {
        let raw = RawConfig::deserialize(&merged.value);
        let raw = raw.map_err(|error| Fault::of("", error.to_string()))?;
        Self::try_new(raw).map_err(|error| match error {
            ConfigError::Invalid { key, message } => {
                merged.located(Fault::of(key.as_str(), message), &key)
            }
            other => Fault::of("", other.to_string()),
        })
    }

    /// Checks what was written.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming the key.
    pub fn try_new(raw: RawConfig) -> Result<Self, ConfigError> {
        let trusted_proxies = trusted_proxies(&raw)?;
        let collector = &raw.collector;
        let secure = collector.url.starts_with("https://");
        if !(collector.url.is_empty() || secure || collector.url.starts_with("http://")) {
            let message = "write an http:// or https:// URL, such as http://127.0.0.1:7601";
            return Err(ConfigError::invalid("collector.url", message));
        }
        if collector.ca_file.is_some() && !secure {
            let message = "CA certificates are used with TLS only: write an https:// URL at collector.url, or remove this key";
            return Err(ConfigError::invalid("collector.ca_file", message));
        }
        for (key, span) in [
            ("agent.expiry", raw.agent.expiry),
            ("agent.decay", raw.agent.decay),
        ] {
            if span.0.is_zero() {
                return Err(ConfigError::invalid(
                    key,
                    "write a duration above 0, such as 10s",
                ));
            }
        }
        if collector.report_expiry.0.is_zero() {
            let message = "must be above 0: write a duration, such as 30s";
            return Err(ConfigError::invalid("collector.report_expiry", message));
        }
        check_token("server.real_ip_header", &raw.server.real_ip_header)?;
        check_host("server.host", &raw.server.host)?;
        check_host("admin.host", &raw.admin.host)?;
        check_admin(&raw)?;
        let tls = tls(&raw)?;
        let upstreams = upstreams(&raw)?;
        let routes = routes(&raw, &upstreams)?;
        let connects = connects(&raw, &upstreams)?;
        let timeouts = timeouts(&raw)?;
        let limits = limits(&raw)?;
        let connections_max = usize::try_from(raw.server.max_conn)
            .ok()
            .filter(|max| *max > 0);
        Ok(Self {
            listen: (raw.server.host.clone(), raw.server.port),
            admin: raw
                .admin
                .enabled
                .then(|| (raw.admin.host.clone(), raw.admin.port)),
            connections_max,
            trusted_proxies,
            real_ip_header: raw.server.real_ip_header.clone(),
            tls,
            upstreams,
            routes,
            connects,
            timeouts,
            limits,
            resolve_interval: Some(raw.dns.interval.0).filter(|interval| !interval.is_zero()),
            raw,
        })
    }

    /// Where a CONNECT to `authority` leads, if anywhere.
    #[must_use]
    pub fn connect_target(&self, authority: &str) -> Option<&ConnectTarget> {
        self.connects
            .iter()
            .find(|target| target.authority.eq_ignore_ascii_case(authority))
    }
}

fn trusted_proxies(raw: &RawConfig) -> Result<Vec<Cidr>, ConfigError> {
    let parse = |text: &String| {
        text.parse::<Cidr>()
            .map_err(|error| ConfigError::invalid("server.trusted_proxies", error.to_string()))
    };
    raw.server.trusted_proxies.iter().map(parse).collect()
}

fn check_token(key: &str, text: &str) -> Result<(), ConfigError> {
    let valid = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if valid {
        return Ok(());
    }
    Err(ConfigError::invalid(
        key,
        "write the name of a header field, such as X-Real-IP",
    ))
}

/// Whether this can be a host: an address, or a name as resolvers take them. What
/// is no name (`*`) would otherwise only be found at the start.
fn check_host(key: &str, host: &str) -> Result<(), ConfigError> {
    let bare = crate::names::bare(host);
    let label = |label: &str| {
        let mut bytes = label.bytes();
        (1..=63).contains(&label.len())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(label)) {
        return Ok(());
    }
    let message = if host == "*" {
        "write \"0.0.0.0\" for all IPv4 addresses or \"[::]\" for all addresses".to_owned()
    } else {
        format!("\"{host}\" is neither an IP address nor a host name: write one, such as 127.0.0.1")
    };
    Err(ConfigError::invalid(key, message))
}

/// Refuses an admin API at the traffic's address. Both are listened on with
/// `SO_REUSEPORT`, so the kernel would divide the clients between them.
fn check_admin(raw: &RawConfig) -> Result<(), ConfigError> {
    let (server, admin) = (&raw.server, &raw.admin);
    let same_port = admin.port == server.port && admin.port != 0;
    if admin.enabled && same_port && hosts_overlap(&server.host, &admin.host) {
        let message = format!(
            "{}:{} overlaps with server.port at {}:{}: write another port at one of them",
            admin.host, admin.port, server.host, server.port
        );
        return Err(ConfigError::invalid("admin.port", message));
    }
    Ok(())
}

fn hosts_overlap(one: &str, other: &str) -> bool {
    let address = |host: &str| host.trim_matches(['[', ']']).parse::<IpAddr>();
    match (address(one), address(other)) {
        (Ok(one), Ok(other)) => overlap(one, other),
        (Ok(address), Err(_)) | (Err(_), Ok(address)) => address.is_unspecified(),
        (Err(_), Err(_)) => one.eq_ignore_ascii_case(other),
    }
}

/// Whether listeners at these addresses and one port may have clients in common.
#[must_use]
pub fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one == other || one.is_unspecified() || other.is_unspecified()
}

fn tls(raw: &RawConfig) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    if !raw.ssl.enabled {
        return Ok(None);
    }
    for (key, path) in [
        ("ssl.cert_file", &raw.ssl.cert_file),
        ("ssl.key_file", &raw.ssl.key_file),
    ] {
        if path.as_os_str().is_empty() {
            return Err(ConfigError::invalid(
                key,
                "ssl is enabled: write the path of a PEM file",
            ));
        }
    }
    Ok(Some((raw.ssl.cert_file.clone(), raw.ssl.key_file.clone())))
}

fn upstreams(raw: &RawConfig) -> Result<Vec<Upstream>, ConfigError> {
    let mut upstreams = Vec::with_capacity(raw.backends.len());
    for (name, backends) in &raw.backends {
        for (index, backend) in backends.iter().enumerate() {
            check_backend(&format!("backends.{name}[{index}]"), backend)?;
            if backends[..index].iter().any(|other| other.id == backend.id) {
                let key = format!("backends.{name}[{index}].id");
                let message = format!(
                    "\"{}\" is a duplicate: each id must be unique within its upstream",
                    backend.id
                );
                return Err(ConfigError::invalid(key, message));
            }
        }
        let given = raw.upstreams.get(name).cloned().unwrap_or_default();
        let idle = given.idle_timeout.unwrap_or(raw.timeouts.upstream_idle).0;
        if given.queue_timeout.0.is_zero() {
            let key = format!("upstreams.{name}.queue_timeout");
            let message =
                "must be above 0: write a duration, such as 5s, or disable the queue with queue: 0";
            return Err(ConfigError::invalid(key, message));
        }
        if given.panic_percent > 100 {
            let key = format!("upstreams.{name}.panic_percent");
            return Err(ConfigError::invalid(
                key,
                "write a percentage from 0 to 100",
            ));
        }
        upstreams.push(Upstream {
            name: name.clone(),
            backends: backends.clone(),
            idle_timeout: Some(idle).filter(|idle| !idle.is_zero()),
            queue: given.queue,
            queue_timeout: given.queue_timeout.0,
            slow_start: given.slow_start.0,
            panic_percent: given.panic_percent,
        });
    }
    for name in raw.upstreams.keys() {
        find_upstream(&upstreams, name, &format!("upstreams.{name}"))?;
    }
    Ok(upstreams)
}

/// Checks one backend on its own; `key` is its path in the file.
///
/// # Errors
/// [`ConfigError::Invalid`] naming the key.
pub fn check_backend(key: &str, backend: &raw::RawBackend) -> Result<(), ConfigError> {
    let invalid =
        |field: &str, message: &str| Err(ConfigError::invalid(format!("{key}.{field}"), message));
    if backend.id.is_empty() {
        return invalid(
            "id",
            "must not be empty: write an id that is unique within the upstream",
        );
    }
    check_host(&format!("{key}.host"), &backend.host)?;
    if backend.port == 0 {
        return invalid(
            "port",
            "write the port that the backend listens on, 1 to 65535",
        );
    }
    if !(1..=1_000_000).contains(&backend.weight) {
        return invalid(
            "weight",
            "write 1 to 1000000; active: false disables a backend",
        );
    }
    let Some(check) = &backend.health_check else {
        return Ok(());
    };
    check_request_path(&format!("{key}.health_check.path"), &check.path)?;
    if check.interval.0.is_zero() || check.timeout.0.is_zero() {
        return invalid(
            "health_check",
            "interval and timeout must be more than zero",
        );
    }
    if check.failures == 0 {
        return invalid("health_check.failures", "write 1 or more");
    }
    if check.successes == 0 {
        return invalid("health_check.successes", "write 1 or more");
    }
    Ok(())
}

/// How much of a refused path is shown.
const PATH_SHOWN_MAX: usize = 100;

/// The path of a request, with its query, as it is sent.
fn check_request_path(key: &str, path: &str) -> Result<(), ConfigError> {
    let sent = path.parse::<hyper::Uri>().map(|uri| uri.to_string());
    let is_plain = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain && sent.is_ok_and(|sent| sent == path) {
        return Ok(());
    }
    let short: String = path.chars().take(PATH_SHOWN_MAX).collect();
    let message = format!(
        "{short:?} is not a valid request path: write one that begins with /, such as \
         /health?full=1, with any other character as %XX, and no # part"
    );
    Err(ConfigError::invalid(key, message))
}

fn routes(raw: &RawConfig, upstreams: &[Upstream]) -> Result<Vec<Route>, ConfigError> {
    let mut routes: Vec<Route> = Vec::with_capacity(raw.routing.len());
    for (name, route) in &raw.routing {
        let key = |field: &str| format!("routing.{name}.{field}");
        if !route.path.starts_with('/') {
            return Err(ConfigError::invalid(
                key("path"),
                "must begin with /: write a path prefix, such as /api/",
            ));
        }
        let upstream = find_upstream(upstreams, &route.upstream, &key("upstream"))?;
        if let Some(other) = routes.iter().find(|other| other.prefix == route.path) {
            let message = format!(
                "duplicate path: route \"{}\" has {}, too",
                other.name, route.path
            );
            return Err(ConfigError::invalid(key("path"), message));
        }
        routes.push(Route {
            name: name.clone(),
            prefix: route.path.clone(),
            upstream,
            algorithm: route.load_balancer,
            protocols: route.protocols,
        });
    }
    routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
    Ok(routes)
}

fn find_upstream(upstreams: &[Upstream], name: &str, key: &str) -> Result<usize, ConfigError> {
    let found = upstreams.iter().position(|upstream| upstream.name == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = upstreams.iter().map(|known| known.name.as_str()).collect();
        let message = format!(
            "upstream \"{name}\" is not defined under backends (defined: {})",
            known.join(", ")
        );
        ConfigError::invalid(key, message)
    })
}

fn connects(raw: &RawConfig, upstreams: &[Upstream]) -> Result<Vec<ConnectTarget>, ConfigError> {
    let mut connects: Vec<ConnectTarget> = Vec::with_capacity(raw.connect.len());
    for (name, given) in &raw.connect {
        let key = format!("connect.{name}");
        let authority = name.to_ascii_lowercase();
        if !is_authority(name) {
            let message = "write HOST:PORT as clients request it, such as db.example:5432";
            return Err(ConfigError::invalid(key, message));
        }
        if connects.iter().any(|other| other.authority == authority) {
            let message = "duplicate target: host names are case-insensitive";
            return Err(ConfigError::invalid(key, message));
        }
        let upstream = find_upstream(upstreams, &given.upstream, &format!("{key}.upstream"))?;
        let encrypted = |backend: &raw::RawBackend| backend.scheme == Scheme::Https;
        if upstreams[upstream].backends.iter().any(encrypted) {
            let message = "a tunnel passes the client's bytes through, TLS included: \
                           write an upstream whose backends have scheme http";
            return Err(ConfigError::invalid(format!("{key}.upstream"), message));
        }
        connects.push(ConnectTarget {
            authority,
            upstream,
            algorithm: given.load_balancer,
        });
    }
    Ok(connects)
}

fn timeouts(raw: &RawConfig) -> Result<Timeouts, ConfigError> {
    let positive = |key: &str, span: units::Span| {
        if span.0.is_zero() {
            return Err(ConfigError::invalid(
                key,
                "a timeout must be more than zero",
            ));
        }
        Ok(span.0)
    };
    let (server, given) = (&raw.server, &raw.timeouts);
    Ok(Timeouts {
        request_head: positive(
            "timeouts.request_head",
            given.request_head.unwrap_or(server.read_timeout),
        )?,
        request_body: positive("server.read_timeout", server.read_timeout)?,
        client_write: positive("server.write_timeout", server.write_timeout)?,
        keep_alive: positive("timeouts.keep_alive", given.keep_alive)?,
        connect: positive("timeouts.connect", given.connect)?,
        response_head: positive("timeouts.response_head", given.response_head)?,
        body_stall: positive("timeouts.body_stall", given.body_stall)?,
        tunnel_idle: positive("timeouts.tunnel_idle", given.tunnel_idle)?,
        drain: given.drain.0,
    })
}

/// A head has to fit into the worker's scratch buffer with room to spare.
const HEAD_BYTES_MAX: u64 = 32 << 10;

fn limits(raw: &RawConfig) -> Result<Limits, ConfigError> {
    let given = &raw.limits;
    let head_bytes = given.head_bytes.0;
    if !(1024..=HEAD_BYTES_MAX).contains(&head_bytes) {
        return Err(ConfigError::invalid(
            "limits.head_bytes",
            "write 1KiB to 32KiB",
        ));
    }
    if !(8..=HEADERS_MAX).contains(&given.headers) {
        let message = format!("write 8 to {HEADERS_MAX}");
        return Err(ConfigError::invalid("limits.headers", message));
    }
    if given.pipeline_depth == 0 {
        return Err(ConfigError::invalid(
            "limits.pipeline_depth",
            "write 1 or more",
        ));
    }
    let body_bytes = given.body_bytes.0;
    Ok(Limits {
        head: HeadLimits {
            head_bytes_max: usize::try_from(head_bytes).unwrap_or(usize::MAX),
            headers_max: given.headers,
            connect: !raw.connect.is_empty(),
        },
        body_bytes_max: if body_bytes == 0 {
            u64::MAX
        } else {
            body_bytes
        },
        pipeline_depth_max: given.pipeline_depth,
    })
}

#[cfg(test)]
mod tests;
