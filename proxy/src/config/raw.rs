//! The configuration file as written, before validation.
//!
//! Every struct refuses unknown keys.  `GET /api/v1/config` prints the configuration
//! again, so the types serialise to the same keys.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Size, Span};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
pub struct RawConfig {
    /// The listener for clients.
    pub server: RawServer,
    /// TLS for clients.
    pub ssl: RawSsl,
    /// Backends, by the name of their upstream.
    #[schemars(extend("examples" = [{"default": []}]))]
    pub backends: BTreeMap<String, Vec<RawBackend>>,
    /// Settings of upstreams, by the upstream's name under `backends`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub upstreams: BTreeMap<String, RawUpstream>,
    /// Routes by name.
    #[schemars(extend("examples" = [{"default": {}}]))]
    pub routing: BTreeMap<String, RawRoute>,
    /// Allowed CONNECT targets, by `host:port`.
    pub connect: BTreeMap<String, RawConnect>,
    /// The admin API.
    #[serde(alias = "grpc")]
    #[schemars(extend("x-alias" = "grpc"))]
    pub admin: RawAdmin,
    /// Timeouts.
    pub timeouts: RawTimeouts,
    /// Size limits.
    pub limits: RawLimits,
    /// Name resolution of backends.
    pub dns: RawDns,
    /// Retries of failed requests.
    pub retries: RawRetries,
    /// Outlier detection: ejects backends after failures of real requests.
    pub passive_health: RawPassiveHealth,
    /// The collector that reports the load of the backends' hosts.
    pub collector: RawCollector,
    /// The agent on this host that measures the backends.
    pub agent: RawAgent,
    /// The access log.
    pub access_log: RawAccessLog,
}

/// `server`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawServer {
    /// The address to listen on.
    pub host: String,
    /// The port to listen on; 0 lets the kernel choose.
    pub port: u16,
    /// Timeout of a request's head, and of each further read of its body.
    pub read_timeout: Span,
    /// Timeout of a response write during which the client reads nothing.
    pub write_timeout: Span,
    /// Maximum number of concurrent client connections over all workers; 0 or less: unlimited.
    pub max_conn: i64,
    /// Whether to complete a request whose client has closed its sending side; `false`
    /// cancels it, as nginx does with `proxy_ignore_client_abort off`.
    pub ignore_client_abort: bool,
    /// The header field from which the client's address is taken if a trusted proxy sends it.
    pub real_ip_header: String,
    /// Trusted proxies, in CIDR notation: `real_ip_header` is ignored from any other address.
    pub trusted_proxies: Vec<String>,
}

impl Default for RawServer {
    fn default() -> Self {
        Self {
            host: "0.0.0.0".to_owned(),
            port: 8080,
            read_timeout: Span::seconds(30),
            write_timeout: Span::seconds(30),
            max_conn: 10_000,
            ignore_client_abort: false,
            real_ip_header: "X-Real-IP".to_owned(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// `ssl`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawSsl {
    /// Whether to terminate TLS.
    pub enabled: bool,
    /// The certificate chain, PEM.
    pub cert_file: PathBuf,
    /// The private key, PEM.
    pub key_file: PathBuf,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawBackend {
    /// The backend's id, unique within its upstream.
    #[schemars(example = &"backend1")]
    pub id: String,
    /// A descriptive name.
    #[serde(default)]
    pub name: String,
    /// IP address or host name.
    #[schemars(example = &"127.0.0.1")]
    pub host: String,
    /// Port.
    #[schemars(example = 8081, range(min = 1))]
    pub port: u16,
    /// Weight, relative to the other backends of the upstream.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub weight: u32,
    /// The protocol to the backend.
    #[serde(default)]
    pub scheme: Scheme,
    /// Whether the backend takes part in load balancing.
    #[serde(default = "default_true")]
    pub active: bool,
    /// Maximum number of concurrent requests and tunnels over all workers; 0 or less: unlimited.
    #[serde(default)]
    pub max_conn: i64,
    /// Active health check; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<RawHealthCheck>,
    /// The monitored host on which the backend runs, by the collector's host id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// For `https`: PEM file of the CA certificates to trust instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

fn default_weight() -> u32 {
    100
}

fn default_true() -> bool {
    true
}

/// Settings of one upstream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawUpstream {
    /// Idle timeout of pooled connections; `timeouts.upstream_idle` if absent, and 0s disables
    /// the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// Maximum number of requests, over all workers, that wait while every backend is at its
    /// `max_conn`; 0 disables the queue. Beyond it: 503.
    pub queue: u32,
    /// Timeout of a queued request. On expiry: 503.
    pub queue_timeout: Span,
    /// For `adaptive`: the time over which the weight of a recovered backend rises from a tenth
    /// to its full value; 0s disables slow start.
    pub slow_start: Span,
    /// Panic threshold: if less than this percentage of the active backends is healthy, health
    /// is ignored and requests go to all of them; 0 disables it.
    pub panic_percent: u32,
}

impl Default for RawUpstream {
    fn default() -> Self {
        Self {
            idle_timeout: None,
            queue: 0,
            queue_timeout: Span::seconds(5),
            slow_start: Span::seconds(10),
            panic_percent: 0,
        }
    }
}

/// The protocol to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Plain TCP.
    #[default]
    Http,
    /// TLS.
    Https,
}

/// `health_check` of a backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawHealthCheck {
    /// The path of the GET request; a status of 200 to 399 is healthy.
    pub path: String,
    /// Interval between checks.
    pub interval: Span,
    /// Timeout of one check.
    pub timeout: Span,
    /// Consecutive failures after which the backend is unhealthy.
    pub failures: u32,
    /// Consecutive successes after which it is healthy again.
    pub successes: u32,
}

impl Default for RawHealthCheck {
    fn default() -> Self {
        Self {
            path: "/health".to_owned(),
            interval: Span::seconds(30),
            timeout: Span::seconds(5),
            failures: 3,
            successes: 2,
        }
    }
}

/// One route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawRoute {
    /// Path prefix; the longest matching prefix wins.
    #[serde(default = "default_path")]
    pub path: String,
    /// The upstream to which requests are forwarded.
    #[schemars(example = &"default")]
    pub upstream: String,
    /// Load balancing algorithm.
    #[serde(default)]
    pub load_balancer: Algorithm,
    /// Load balancing algorithms for single protocols.
    #[serde(default)]
    pub protocols: RawProtocols,
}

fn default_path() -> String {
    "/".to_owned()
}

/// One CONNECT target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawConnect {
    /// The upstream to whose backends the tunnels lead.
    pub upstream: String,
    /// Load balancing algorithm.
    #[serde(default)]
    pub load_balancer: Algorithm,
}

/// A load balancing algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Consistent hashing of the client's IP address.
    IpHash,
    /// Fewest requests in flight.
    LeastConnections,
    /// Fewest requests in flight relative to the weight.
    #[default]
    LeastConnectionsWeight,
    /// Requests in proportion to the weights, evenly spread.
    Weight,
    /// Requests in flight relative to the weight, and the host's load.
    PerformanceLeastConnectionsWeight,
    /// Power of two choices by measured cost: requests in flight relative to the weight, times
    /// the response time, with failures and the host's load.
    Adaptive,
}

/// `protocols` of a route.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawProtocols {
    /// For WebSocket handshakes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket: Option<Algorithm>,
    /// For requests for server-sent events (`Accept: text/event-stream`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sse: Option<Algorithm>,
    /// For other requests over plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Algorithm>,
    /// For other requests over HTTPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https: Option<Algorithm>,
}

/// `admin`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawAdmin {
    /// Whether the admin API is enabled.
    pub enabled: bool,
    /// The address to listen on.
    pub host: String,
    /// The port to listen on; 0 lets the kernel choose.
    pub port: u16,
    /// The token required for writes; prefer `token_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("writeOnly" = true))]
    pub token: Option<String>,
    /// File with the token required for writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self {
            enabled: false,
            host: "127.0.0.1".to_owned(),
            port: 9091,
            token: None,
            token_file: None,
        }
    }
}

/// `timeouts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawTimeouts {
    /// Receiving the whole request head; `server.read_timeout` if absent. On expiry: 408.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_head: Option<Span>,
    /// Idle time of a client connection between two requests. On expiry: close.
    pub keep_alive: Span,
    /// Connecting to a backend. On expiry: 504.
    pub connect: Span,
    /// From sending the request to receiving the response's head. On expiry: 504.
    pub response_head: Span,
    /// No progress of a body in either direction. On expiry: 408 or close.
    pub body_stall: Span,
    /// Idle time of a tunnel. On expiry: close.
    pub tunnel_idle: Span,
    /// Idle time of a pooled connection to a backend; a shorter `Keep-Alive: timeout=` of the
    /// backend wins. The default is below that of common servers (Node, Apache and Uvicorn:
    /// 5 s), so that they do not close it under a request. On expiry: close.
    pub upstream_idle: Span,
    /// Drain timeout: how long a graceful shutdown waits for requests in flight.
    pub drain: Span,
}

impl Default for RawTimeouts {
    fn default() -> Self {
        Self {
            request_head: None,
            keep_alive: Span::seconds(75),
            connect: Span::seconds(5),
            response_head: Span::seconds(60),
            body_stall: Span::seconds(60),
            tunnel_idle: Span::seconds(3600),
            upstream_idle: Span::seconds(4),
            drain: Span::seconds(30),
        }
    }
}

/// `limits`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLimits {
    /// Size of a request's or response's head. Beyond it: 431 or 502.
    pub head_bytes: Size,
    /// Number of header fields. Beyond it: 431 or 502.
    pub headers: usize,
    /// Size of a request body; 0: unlimited. Beyond it: 413.
    pub body_bytes: Size,
    /// Number of pipelined requests. Beyond it: close after the last.
    pub pipeline_depth: u32,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            head_bytes: Size(16 << 10),
            headers: 100,
            body_bytes: Size(0),
            pipeline_depth: 64,
        }
    }
}

/// `dns`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawDns {
    /// Interval at which the backends' host names are resolved again; 0: never.
    pub interval: Span,
}

impl Default for RawDns {
    fn default() -> Self {
        Self {
            interval: Span::seconds(30),
        }
    }
}

/// `retries`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawRetries {
    /// Maximum number of retries of one request.
    pub attempts: u32,
    /// Retry budget: retries as a percentage of requests, so that retries do not overload a
    /// failing backend.
    pub budget_percent: u32,
}

impl Default for RawRetries {
    fn default() -> Self {
        Self {
            attempts: 1,
            budget_percent: 20,
        }
    }
}

/// `passive_health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawPassiveHealth {
    /// Consecutive failed connects, or connections lost before the response, after which a
    /// backend is ejected; 0: never. An established tunnel does not reset the count.
    pub failures: u32,
    /// Error rate at which a backend is ejected, in percent of its responses: 5xx except 501
    /// and 505, timed out or malformed. The rate has to be at least twice that of the other
    /// backends; 0: never.
    pub error_percent: u32,
    /// Minimum number of responses in an interval for the error rate to be evaluated.
    pub answers_min: u32,
    /// Interval over which the error rate is evaluated.
    pub interval: Span,
    /// Base ejection time; multiplied by the number of consecutive ejections, up to 5 min.
    pub eject_for: Span,
    /// Maximum percentage of an upstream's backends that are ejected at once; of several
    /// backends one always may be. 0: none.
    pub ejected_percent_max: u32,
}

impl Default for RawPassiveHealth {
    fn default() -> Self {
        Self {
            failures: 5,
            error_percent: 50,
            answers_min: 100,
            interval: Span::seconds(10),
            eject_for: Span::seconds(10),
            ejected_percent_max: 50,
        }
    }
}

/// `collector`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawCollector {
    /// The collector's URL, `http://` or `https://`; empty: none.
    pub url: String,
    /// For `https`: PEM file of the CA certificates to trust instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// File with a token for reading, if the collector requires one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The collector's host id of this host.
    pub host_id: String,
    /// Time after which a reported load is stale and no longer used.
    pub report_expiry: Span,
}

impl Default for RawCollector {
    fn default() -> Self {
        Self {
            url: String::new(),
            ca_file: None,
            token_file: None,
            host_id: String::new(),
            report_expiry: Span::seconds(30),
        }
    }
}

/// `agent`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawAgent {
    /// The agent's `--backends-socket` on this host; empty: none.
    pub socket: PathBuf,
    /// Time after which the agent's measurements are stale and no longer used.
    pub expiry: Span,
    /// Time constant of the exponentially weighted moving averages.
    pub decay: Span,
}

impl Default for RawAgent {
    fn default() -> Self {
        Self {
            socket: PathBuf::new(),
            expiry: Span::seconds(10),
            decay: Span::seconds(10),
        }
    }
}

/// `access_log`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawAccessLog {
    /// Whether the access log is enabled.
    pub enabled: bool,
    /// The file; `-` is standard error.
    pub file: PathBuf,
    /// Log format.
    pub format: LogFormat,
}

impl Default for RawAccessLog {
    fn default() -> Self {
        Self {
            enabled: false,
            file: PathBuf::from("-"),
            format: LogFormat::Json,
        }
    }
}

/// The format of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// The combined log format.
    Combined,
}
