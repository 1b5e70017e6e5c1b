//! Prometheus and `VictoriaMetrics`, as Debian has them.

use std::{
    fmt, fs,
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use testkit::{http, try_eventually};

use super::usage::{Usage, disk_bytes};

/// The same question in words, of the collector, and in `PromQL`.
pub(super) const QUESTIONS: [(&str, &str, &str); 3] = [
    (
        "requests/s of one host's endpoints, 30 min",
        "/api/v1/series?host=host-0&metric=requests&since=30m&step=1m",
        "sum by (host_id, role, endpoint, target) (rate(speedmimi_requests_total{host=\"host-0\"}[1m]))",
    ),
    (
        "p99 of one host's listener, 30 min",
        "/api/v1/series?host=host-0&role=downstream&metric=exchange_duration_p99&since=30m&step=1m",
        "histogram_quantile(0.99, rate(speedmimi_exchange_duration_seconds_bucket{host=\"host-0\",role=\"downstream\"}[1m]))",
    ),
    (
        "CPU of all hosts, 30 min",
        "/api/v1/series?metric=cpu_usage&since=30m&step=1m",
        "avg_over_time(speedmimi_host_cpu_usage_ratio[1m])",
    ),
];

/// How long an engine may take to get ready.
const READY: Duration = Duration::from_secs(60);

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Prometheus,
    VictoriaMetrics,
}

impl Kind {
    /// The Debian package, which is also the program's name.
    pub(super) fn package(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::VictoriaMetrics => "victoria-metrics",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prometheus => "Prometheus",
            Self::VictoriaMetrics => "VictoriaMetrics",
        })
    }
}

/// A running engine; killed when dropped.
#[derive(Debug)]
pub(super) struct Engine {
    kind: Kind,
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Engine {
    /// `None` where it is not installed.
    pub(super) fn start(kind: Kind) -> Result<Option<Self>> {
        let installed = Command::new(kind.package())
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if installed.is_err() {
            return Ok(None);
        }
        let directory = TempDir::with_prefix("speedmimi-engine-")?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let data = directory.path().join("data");
        let mut command = Command::new(kind.package());
        match kind {
            Kind::Prometheus => {
                let config = directory.path().join("prometheus.yml");
                fs::write(&config, "global: {scrape_interval: 1h}\n")?;
                command
                    .arg(format!("--config.file={}", config.display()))
                    .arg(format!("--storage.tsdb.path={}", data.display()))
                    .arg(format!("--web.listen-address={address}"))
                    .args([
                        "--web.enable-remote-write-receiver",
                        "--web.enable-admin-api",
                    ])
                    .arg("--log.level=error");
            }
            Kind::VictoriaMetrics => {
                command
                    .arg(format!("-storageDataPath={}", data.display()))
                    .arg(format!("-httpListenAddr={address}"))
                    .args(["-loggerLevel=ERROR", "-search.disableCache"]);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {kind}"))?;
        let engine = Self {
            kind,
            child,
            address,
            directory,
        };
        let health = match kind {
            Kind::Prometheus => "/-/ready",
            Kind::VictoriaMetrics => "/health",
        };
        try_eventually(READY, || {
            http::get(address, health)
                .ok()
                .filter(|(status, _)| *status == 200)
        })
        .with_context(|| format!("{kind} does not get ready on {address}"))?;
        Ok(Some(engine))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }

    pub(super) fn write_url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    /// What the samples take once they are written as a block: of what is still
    /// in a log, Prometheus makes one for a snapshot.
    pub(super) fn disk_bytes(&self) -> Result<u64> {
        let data = self.directory.path().join("data");
        match self.kind {
            Kind::Prometheus => {
                let (status, body) = http::post(self.address, "/api/v1/admin/tsdb/snapshot")?;
                ensure!(status == 200, "the snapshot answered {status}");
                let answer: Value = serde_json::from_slice(&body)?;
                let name = answer["data"]["name"].as_str();
                let name = name.context("the snapshot has no name")?;
                disk_bytes(&data.join("snapshots").join(name))
            }
            Kind::VictoriaMetrics => {
                http::get(self.address, "/internal/force_flush")?;
                disk_bytes(&data)
            }
        }
    }

    /// How many samples it took.
    pub(super) fn samples(&self) -> Result<f64> {
        let name = match self.kind {
            Kind::Prometheus => "prometheus_tsdb_head_samples_appended_total",
            Kind::VictoriaMetrics => "vm_rows_inserted_total{type=\"promremotewrite\"}",
        };
        let (_, body) = http::get(self.address, "/metrics")?;
        let text = String::from_utf8(body)?;
        let samples = text
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        ensure!(samples > 0.0, "{} counts no samples as {name}", self.kind);
        Ok(samples)
    }
}

/// A question about the last 30 min in steps of a minute.
pub(super) fn range_query(expression: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let end = now.unwrap_or_default().as_secs() / 60 * 60;
    let encoded: String = expression.bytes().map(|b| format!("%{b:02X}")).collect();
    format!(
        "/api/v1/query_range?query={encoded}&start={}&end={end}&step=60",
        end - 1800
    )
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
