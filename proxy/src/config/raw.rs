//! The configuration as it is written, before it is judged.
//!
//! Every struct refuses unknown keys. What is written here can also be printed
//! again (`GET /api/v1/config`), so the types serialise to the same keys.

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
    /// Where clients connect.
    pub server: RawServer,
    /// TLS for clients.
    pub ssl: RawSsl,
    /// Upstreams: lists of backends by name.
    #[schemars(extend("examples" = [{"default": []}]))]
    pub backends: BTreeMap<String, Vec<RawBackend>>,
    /// Settings of upstreams by their names under `backends`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub upstreams: BTreeMap<String, RawUpstream>,
    /// Routes by name.
    #[schemars(extend("examples" = [{"default": {}}]))]
    pub routing: BTreeMap<String, RawRoute>,
    /// Which CONNECT requests are tunnelled, by host and port.
    pub connect: BTreeMap<String, RawConnect>,
    /// The admin API.
    #[serde(alias = "grpc")]
    #[schemars(extend("x-alias" = "grpc"))]
    pub admin: RawAdmin,
    /// How long each thing may take.
    pub timeouts: RawTimeouts,
    /// How large each thing may be.
    pub limits: RawLimits,
    /// How host names become addresses.
    pub dns: RawDns,
    /// When a request may be sent again.
    pub retries: RawRetries,
    /// When a backend is left alone after failures of real requests.
    pub passive_health: RawPassiveHealth,
    /// Where measured statistics are read.
    pub collector: RawCollector,
    /// Where this host's own measurements of the backends are read.
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
    /// Longest wait for a request's head, and for each further piece of its body.
    pub read_timeout: Span,
    /// Longest time a client may take nothing of its response.
    pub write_timeout: Span,
    /// Most client connections at once, over all workers; 0 or less: no limit.
    pub max_conn: i64,
    /// Whether the request of a client that has ended its side is carried on;
    /// else it is given up, as nginx does with `proxy_ignore_client_abort off`.
    pub ignore_client_abort: bool,
    /// The field in which trusted proxies give the client's address.
    pub real_ip_header: String,
    /// Networks whose word about the client is believed.
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
    /// Whether clients speak TLS.
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
    /// Its name within the upstream.
    #[schemars(example = &"backend1")]
    pub id: String,
    /// A name for people.
    #[serde(default)]
    pub name: String,
    /// Address or host name.
    #[schemars(example = &"127.0.0.1")]
    pub host: String,
    /// Port.
    #[schemars(example = 8081, range(min = 1))]
    pub port: u16,
    /// Its share, relative to the others.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub weight: u32,
    /// `http` or `https`.
    #[serde(default)]
    pub scheme: Scheme,
    /// Whether it is used at all.
    #[serde(default = "default_true")]
    pub active: bool,
    /// Most exchanges and tunnels at once, over all workers; 0 or less: no limit.
    #[serde(default)]
    pub max_conn: i64,
    /// How it is checked; not at all without this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<RawHealthCheck>,
    /// The monitored host it runs on, as the collector names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// For `https`: PEM file of the authorities to trust instead of the system's.
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
    /// How long a pooled connection that nobody uses is kept;
    /// `timeouts.upstream_idle` where not given, and 0s pools none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// Requests that may wait while every backend is at its `max_conn`, over all
    /// workers; 0: none does. Outcome for others: 503.
    pub queue: u32,
    /// How long they wait. Outcome: 503.
    pub queue_timeout: Span,
    /// For `adaptive`: how long a backend that comes back has less than its weight, a
    /// tenth at first; 0s: not at all.
    pub slow_start: Span,
    /// Where less than this percent of the active backends are usable, requests go to
    /// all of them, whatever the checks say; 0: never.
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

/// How a backend is spoken to.
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
    /// The path to GET; 200 to 399 is healthy.
    pub path: String,
    /// Time between checks.
    pub interval: Span,
    /// Longest time for one check.
    pub timeout: Span,
    /// Failures in a row until the backend counts as unhealthy.
    pub failures: u32,
    /// Successes in a row until it counts as healthy again.
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
    /// The prefix of the paths it takes.
    #[serde(default = "default_path")]
    pub path: String,
    /// The upstream it leads to.
    #[schemars(example = &"default")]
    pub upstream: String,
    /// How a backend is chosen.
    #[serde(default)]
    pub load_balancer: Algorithm,
    /// Other choices for some protocols.
    #[serde(default)]
    pub protocols: RawProtocols,
}

fn default_path() -> String {
    "/".to_owned()
}

/// Where one CONNECT target leads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawConnect {
    /// The upstream with whose backends the tunnels are.
    pub upstream: String,
    /// How a backend is chosen.
    #[serde(default)]
    pub load_balancer: Algorithm,
}

/// How a backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// By the client's address, consistent when backends come and go.
    IpHash,
    /// Fewest exchanges in flight.
    LeastConnections,
    /// Fewest exchanges in flight relative to the weight.
    #[default]
    LeastConnectionsWeight,
    /// In proportion to the weight.
    Weight,
    /// Exchanges in flight relative to the weight, and the host's load.
    PerformanceLeastConnectionsWeight,
    /// The better of two random backends by measured cost: exchanges in flight relative
    /// to the weight, times the exchange time, with failures and the host's load.
    Adaptive,
}

/// `protocols` of a route.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawProtocols {
    /// For WebSocket handshakes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub websocket: Option<Algorithm>,
    /// For requests that accept server-sent events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sse: Option<Algorithm>,
    /// For other requests without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Algorithm>,
    /// For other requests with TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https: Option<Algorithm>,
}

/// `admin`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawAdmin {
    /// Whether there is one.
    pub enabled: bool,
    /// The address to listen on.
    pub host: String,
    /// The port to listen on; 0 lets the kernel choose.
    pub port: u16,
    /// The token that writes need; prefer `token_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("writeOnly" = true))]
    pub token: Option<String>,
    /// A file with the token.
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
    /// The whole request head; `server.read_timeout` where not given. Outcome: 408.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_head: Option<Span>,
    /// Between two requests of a connection. Outcome: close.
    pub keep_alive: Span,
    /// Connecting to a backend. Outcome: 504.
    pub connect: Span,
    /// From the request to the backend's head. Outcome: 504.
    pub response_head: Span,
    /// A body of which a side sends or takes nothing. Outcome: 408 or close.
    pub body_stall: Span,
    /// A tunnel in which nothing moves. Outcome: close.
    pub tunnel_idle: Span,
    /// A pooled connection that nobody uses, unless its backend's `Keep-Alive`
    /// says less. Below what common backends have (Node, Apache and Uvicorn 5 s),
    /// so that they do not close it under a request. Outcome: close.
    pub upstream_idle: Span,
    /// How long a stop waits for what is in flight.
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
    /// Bytes of a head. Outcome: 431.
    pub head_bytes: Size,
    /// Fields of a head. Outcome: 431.
    pub headers: usize,
    /// Bytes of a request body; 0: no limit. Outcome: 413.
    pub body_bytes: Size,
    /// Requests that a client may send ahead. Outcome: close after the last.
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
    /// How often the backends' host names are looked up again; 0: never.
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
    /// How often one request may be sent again.
    pub attempts: u32,
    /// Retries per hundred requests, so that a failing backend is not buried.
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
    /// Failed connects, or connections lost before the answer, in a row that
    /// eject a backend; 0: never. A tunnel that opens ends no such row.
    pub failures: u32,
    /// Percent of a backend's answers that are 5xx (but 501 and 505), late or
    /// malformed, and at least twice the share of the other backends, that eject
    /// it; 0: never.
    pub error_percent: u32,
    /// Fewer answers in an interval say nothing.
    pub answers_min: u32,
    /// Over how long the share of errors is taken.
    pub interval: Span,
    /// How long it stays ejected; each time in a row longer by as much, up to 5 min.
    pub eject_for: Span,
    /// Most percent of an upstream's backends that are ejected at once; one of
    /// several always may be. 0: none.
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
    /// The collector's address, `http://` or `https://`; empty: none.
    pub url: String,
    /// For `https`: PEM file of the authorities to trust instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// A file with a token that may read; needed where the collector asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// This host, as the collector names it.
    pub host_id: String,
    /// How long a backend's reported load counts.
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
    /// How long its figures count after the last one.
    pub expiry: Span,
    /// The time constant with which past measurements lose their weight.
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
    /// Whether one is written.
    pub enabled: bool,
    /// The file; `-` is standard error.
    pub file: PathBuf,
    /// The format of its lines.
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
