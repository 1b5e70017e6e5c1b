//! The real collector, filled over gRPC, and the real command line.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "every test file uses its part of the fixture"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use monitor_proto::v1::{self, report_service_client::ReportServiceClient};
use tonic::{Request, transport::Channel};

pub const DEADLINE: Duration = Duration::from_secs(30);

/// A running collector; killed when dropped.
pub struct Collector {
    child: Child,
    grpc: String,
    pub url: String,
    token: String,
}

/// The collector as its sources are now.  Its binary belongs to another crate,
/// which this one must not depend on, so cargo is asked: it alone knows what a
/// binary is made of, and builds nothing where all of that is unchanged.
pub fn collector_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_speedmimi")).parent().unwrap();
        let profile = match built.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            other => other,
        };
        // With the features that a build of the whole workspace has: after one,
        // nothing is left to do.
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--workspace"])
            .args(["--bin", "speedmimi-collector", "--profile", profile])
            .arg("--target-dir")
            .arg(built.parent().unwrap())
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .status()
            .unwrap();
        assert!(status.success(), "the collector cannot be built");
        built.join("speedmimi-collector")
    })
}

impl Collector {
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &["--listen-http", "127.0.0.1:0"])
    }

    pub fn start_with(data_dir: &Path, flags: &[&str]) -> Self {
        let mut child = Command::new(collector_binary())
            .args(["run", "--listen-grpc", "127.0.0.1:0"])
            .args(flags)
            .arg("--data-dir")
            .arg(data_dir)
            .env_remove("SPEEDMIMI_TOKEN")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = ready_line(&mut child);
        let address = |name: &str| {
            let rest = ready.split(&format!("{name}=")).nth(1).unwrap();
            rest.split_whitespace().next().unwrap().to_owned()
        };
        let token = fs::read_to_string(data_dir.join("token")).unwrap();
        Self {
            child,
            grpc: address("grpc"),
            url: format!("http://{}", address("http")),
            token: token.trim().to_owned(),
        }
    }

    pub async fn store(&self, reports: Vec<v1::Report>) {
        let channel = Channel::from_shared(format!("http://{}", self.grpc)).unwrap();
        let mut client = ReportServiceClient::new(channel.connect().await.unwrap());
        let wanted = reports.len();
        let requests = reports.into_iter().map(|report| v1::ExportRequest {
            report: Some(report),
        });
        let mut request = Request::new(tokio_stream::iter(requests));
        let value = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        let mut answers = client.export(request).await.unwrap().into_inner();
        let mut stored = 0;
        while let Some(answer) = answers.message().await.unwrap() {
            assert_eq!(answer.outcome(), v1::ExportOutcome::Stored);
            stored += 1;
        }
        assert_eq!(stored, wanted);
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn ready_line(child: &mut Child) -> String {
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let (found, ready) = mpsc::channel();
    thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            if line.contains("ready grpc=") {
                drop(found.send(line));
            }
        }
    });
    ready
        .recv_timeout(DEADLINE)
        .expect("a ready line on stderr")
}

/// A collector of these very answers: the URL of one that says what no real one
/// can be made to say at once.
pub fn answering(answers: &'static [(&'static str, &'static str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut question = [0; 4096];
            let n = socket.read(&mut question).unwrap_or(0);
            let question = String::from_utf8_lossy(&question[..n]);
            let path = question.split_whitespace().nth(1).unwrap_or("");
            let found = answers.iter().find(|(asked, _)| *asked == path);
            let (status, body) =
                found.map_or(("404 Not Found", "{}"), |(_, body)| ("200 OK", *body));
            let length = body.len();
            drop(write!(
                socket,
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
        }
    });
    format!("http://{address}")
}

pub fn speedmimi(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_speedmimi"));
    command
        .args(args)
        .env_remove("SPEEDMIMI_COLLECTOR")
        .env("TZ", "UTC")
        .stdin(Stdio::null());
    command
}

/// Runs a command that must succeed, and gives its stdout.
#[track_caller]
pub fn stdout(args: &[&str]) -> String {
    let output = speedmimi(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn report(host: &str, sequence: u64) -> v1::Report {
    const WINDOW_NS: u64 = 5_000_000_000;
    let start = 1_763_860_000_000_000_000 + sequence * WINDOW_NS;
    v1::Report {
        host: Some(v1::Host {
            id: format!("id-{host}"),
            name: host.to_owned(),
            labels: [("region".to_owned(), "north".to_owned())].into(),
            ..Default::default()
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
            cpu_usage: Some(v1::Gauge {
                last: 12.5,
                ..Default::default()
            }),
            ..Default::default()
        }),
        endpoints: vec![v1::Endpoint {
            role: v1::Role::Downstream.into(),
            address: "127.0.0.1:8080".into(),
            target: "/proxy".into(),
            window: Some(v1::Counters {
                bytes_sent: 5 * 1536,
                http: Some(v1::HttpCounters {
                    requests: 50,
                    responses_by_code: [("503".to_owned(), 3)].into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    }
}
