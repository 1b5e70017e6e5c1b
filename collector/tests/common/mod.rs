//! A real collector on ephemeral ports, and a real agent's client.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "every test file uses its part of the fixture"
)]

pub mod pki;

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Completion, Trial};
use monitor_proto::v1::{self, report_service_client::ReportServiceClient};
use serde_json::Value;
pub use testkit::wait_until as eventually;
use tokio::sync::mpsc as async_mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, transport::Channel};

pub const DEADLINE: Duration = Duration::from_secs(30);

/// A test, or the reason why this machine cannot run it: then it counts as
/// ignored, which a plain test harness cannot tell apart from passed.
pub fn trial(
    name: &str,
    missing: Option<String>,
    run: impl AsyncFnOnce() + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || {
        if let Some(reason) = missing {
            return Ok(Completion::ignored_with(reason));
        }
        tokio::runtime::Runtime::new().unwrap().block_on(run());
        Ok(Completion::Completed)
    })
}

/// A running collector; killed when dropped.
pub struct Collector {
    pub child: Child,
    pub grpc: String,
    pub http: String,
    pub token: String,
    log: Arc<Mutex<String>>,
}

pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_speedmimi-collector"));
    command
        .env_remove("SPEEDMIMI_TOKEN")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

impl Collector {
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    pub fn start_with(data_dir: &Path, more: &[&str]) -> Self {
        let loopback = [
            "--listen-grpc",
            "127.0.0.1:0",
            "--listen-http",
            "127.0.0.1:0",
        ];
        let data_dir_flag = ["--data-dir", data_dir.to_str().unwrap()];
        Self::start_args(&[&loopback[..], &data_dir_flag, more].concat(), data_dir)
    }

    pub fn start_args(args: &[&str], data_dir: &Path) -> Self {
        Self::start_command(command().arg("run").args(args), data_dir)
    }

    /// On loopback, with the most talkative log.
    pub fn start_traced(data_dir: &Path, more: &[String]) -> Self {
        let mut command = command();
        command
            .env("RUST_LOG", "trace")
            .args(["run", "--listen-grpc", "127.0.0.1:0"])
            .args(["--listen-http", "127.0.0.1:0"])
            .args(["--data-dir", data_dir.to_str().unwrap()])
            .args(more);
        Self::start_command(&mut command, data_dir)
    }

    fn start_command(command: &mut Command, data_dir: &Path) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::default();
        let ready = ready_line(&mut child, Arc::clone(&log));
        let address = |name: &str| {
            let rest = ready.split(&format!("{name}=")).nth(1).unwrap();
            let end = rest.find([' ', '"']).unwrap_or(rest.len());
            rest[..end].to_owned()
        };
        let token = std::fs::read_to_string(data_dir.join("token")).unwrap_or_default();
        Self {
            child,
            grpc: address("grpc"),
            http: address("http"),
            token: token.trim().to_owned(),
            log,
        }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// As power loss to the process: nothing is flushed, nothing is said.
    pub fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for it to end by itself; its exit code.
    pub fn wait(mut self) -> Option<i32> {
        eventually("it ends", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the collector did not stop");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    pub fn get(&self, path: &str) -> Answer {
        get(&self.url(path), &[])
    }

    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Every report, page by page.
    pub fn all_reports(&self, query: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let mut page = self.json(&format!("/api/v1/reports?{query}&cursor={cursor}"));
            all.append(page["reports"].as_array_mut().unwrap());
            match page["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => return all,
            }
        }
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    pub async fn agent(&self) -> Agent {
        Agent::connect(self, &format!("Bearer {}", self.token))
            .await
            .unwrap()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The ready line; what follows on stderr is read on, so that the collector
/// never waits for a full pipe.
fn ready_line(child: &mut Child, log: Arc<Mutex<String>>) -> String {
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (found, ready) = mpsc::channel();
    thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            if !line.contains("TRACE") && !line.contains("DEBUG") {
                eprintln!("collector: {line}");
            }
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
            drop(log);
            if line.contains("ready grpc=") {
                drop(found.send(line));
            }
        }
    });
    ready
        .recv_timeout(DEADLINE)
        .expect("a ready line on stderr")
}

pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

pub fn get(url: &str, headers: &[(&str, &str)]) -> Answer {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(DEADLINE))
        .build()
        .new_agent();
    let mut request = agent.get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.call().unwrap();
    let (parts, body) = response.into_parts();
    let mut text = String::new();
    body.into_reader().read_to_string(&mut text).unwrap();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: text,
    }
}

/// One export stream.
pub struct Agent {
    requests: async_mpsc::Sender<v1::ExportRequest>,
    answers: Streaming<v1::ExportResponse>,
}

impl Agent {
    pub async fn connect(collector: &Collector, authorization: &str) -> Result<Self, Status> {
        Self::over(collector.channel().await, authorization).await
    }

    pub async fn over(channel: Channel, authorization: &str) -> Result<Self, Status> {
        let mut client = ReportServiceClient::new(channel);
        let (requests, queue) = async_mpsc::channel(1024);
        let mut request = Request::new(ReceiverStream::new(queue));
        if !authorization.is_empty() {
            let value = authorization.parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let answers = client.export(request).await?.into_inner();
        Ok(Self { requests, answers })
    }

    pub async fn send(&self, report: v1::Report) {
        let request = v1::ExportRequest {
            report: Some(report),
        };
        self.requests.send(request).await.unwrap();
    }

    pub async fn answer(&mut self) -> Result<v1::ExportResponse, Status> {
        tokio::time::timeout(DEADLINE, self.answers.message())
            .await
            .expect("an answer in time")?
            .ok_or_else(|| Status::aborted("the stream ended"))
    }

    /// Sends a report and returns what became of it.
    pub async fn export(&mut self, report: v1::Report) -> v1::ExportOutcome {
        let sequence = report.sequence;
        self.send(report).await;
        let answer = self.answer().await.unwrap();
        assert_eq!(answer.sequence, sequence);
        answer.outcome()
    }
}

pub fn now_ns() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

/// The n-th report of a host whose windows last 5 s; the figures follow from
/// `sequence`.
pub fn report(host: &str, sequence: u64) -> v1::Report {
    const WINDOW_NS: u64 = 5_000_000_000;
    let start = 1_763_860_000_000_000_000 + sequence * WINDOW_NS;
    let gauge = |last| {
        Some(v1::Gauge {
            last,
            min: 0.5,
            mean: 1.0,
            max: 99.0,
        })
    };
    v1::Report {
        host: Some(v1::Host {
            id: format!("id-{host}"),
            name: host.to_owned(),
            boot_id: "b".into(),
            labels: [("region".into(), "north".into())].into(),
            kernel: "6.18".into(),
            cores: 2,
        }),
        agent: Some(v1::Agent {
            version: "0.1.0".into(),
            epoch: 1_763_860_000_123,
            level: v1::Level::Http.into(),
            ..Default::default()
        }),
        sequence,
        window_start_unix_ns: start,
        window_end_unix_ns: start + WINDOW_NS,
        window_duration_ns: WINDOW_NS,
        complete: true,
        host_metrics: Some(v1::HostMetrics {
            cpu_usage: gauge(12.5),
            memory_usage: gauge(25.0),
            load_avg_1: gauge(0.5),
            ..Default::default()
        }),
        endpoints: vec![
            endpoint(v1::Role::Downstream, "127.0.0.1:8080", sequence),
            endpoint(v1::Role::Upstream, "127.0.0.1:8081", sequence),
        ],
        ..Default::default()
    }
}

fn endpoint(role: v1::Role, address: &str, sequence: u64) -> v1::Endpoint {
    v1::Endpoint {
        role: role.into(),
        address: address.to_owned(),
        target: "/proxy".into(),
        connections_active: 3,
        window: Some(counters(1)),
        totals: Some(counters(sequence)),
        totals_since_unix_ns: 1_763_860_000_000_000_000,
        ..Default::default()
    }
}

fn counters(times: u64) -> v1::Counters {
    v1::Counters {
        connections_opened: 2 * times,
        connections_closed: times,
        bytes_received: 120 * times,
        bytes_sent: 900 * times,
        http: Some(v1::HttpCounters {
            requests: 5 * times,
            requests_by_method: [("GET".to_owned(), 5 * times)].into(),
            responses_by_code: [("200".to_owned(), 4 * times), ("503".to_owned(), times)].into(),
            exchange_duration: Some(v1::Histogram {
                count: 5 * times,
                sum_ns: 2_000_000 * times,
                scale: 2,
                offset: -46,
                buckets: vec![4 * times, times],
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A report that does not compress: about 64 KiB in the store.
pub fn bulky(host: &str, sequence: u64) -> v1::Report {
    let mut r = report(host, sequence);
    let mut state = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    r.incomplete_reasons = (0..16)
        .map(|_| {
            let letter = |_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                char::from(b'0' + (state % 75) as u8)
            };
            (0..4000).map(letter).collect()
        })
        .collect();
    r
}
