//! Who is refused is told and counted, once a minute; who merely goes away is not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::mpsc,
    thread,
};

use common::{Agent, Collector, DEADLINE, eventually, report};
use monitor_proto::v1::ExportOutcome;
use tonic::transport::Channel;

fn counted(collector: &Collector, series: &str) -> u64 {
    let metrics = collector.get("/metrics").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("{series} is missing"))
        .trim()
        .parse()
        .unwrap()
}

fn lines(collector: &Collector, with: &str) -> usize {
    let log = collector.log();
    log.lines().filter(|line| line.contains(with)).count()
}

#[tokio::test]
async fn an_agent_without_a_right_leaves_one_line_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    for _ in 0..3 {
        assert!(Agent::connect(&collector, "Bearer wrong").await.is_err());
    }
    let refused = "speedmimi_collector_refused_total{reason=\"unauthenticated\"}";
    assert_eq!(counted(&collector, refused), 3);
    let said = "request rejected reason=\"unauthenticated\" peer=\"127.0.0.1\"";
    eventually("the line", || lines(&collector, said) > 0);
    assert_eq!(lines(&collector, said), 1);
    assert!(collector.log().contains("speedmimi-collector token add"));
}

/// A network between an agent and the collector that can be cut.
struct Relay {
    address: String,
    ends: mpsc::Receiver<[TcpStream; 2]>,
}

impl Relay {
    /// Of one connection.
    fn to(collector: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, ends) = mpsc::channel();
        let collector = collector.to_owned();
        thread::spawn(move || {
            let near = listener.accept().unwrap().0;
            let far = TcpStream::connect(collector).unwrap();
            let clone = |end: &TcpStream| end.try_clone().unwrap();
            sender.send([clone(&near), clone(&far)]).unwrap();
            for (mut from, mut to) in [(clone(&near), clone(&far)), (far, near)] {
                thread::spawn(move || io::copy(&mut from, &mut to));
            }
        });
        Self { address, ends }
    }

    fn cut(self) {
        for end in self.ends.recv().unwrap() {
            end.shutdown(Shutdown::Both).unwrap();
        }
    }
}

#[tokio::test]
async fn a_report_that_breaks_a_rule_is_refused_and_a_stream_that_breaks_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let invalid = "speedmimi_collector_refused_total{reason=\"invalid\"}";
    let broken = "speedmimi_collector_streams_broken_total";

    let relay = Relay::to(&collector.grpc);
    let channel = Channel::from_shared(format!("http://{}", relay.address)).unwrap();
    let channel = channel.connect().await.unwrap();
    let token = format!("Bearer {}", collector.token);
    let mut agent = Agent::over(channel, &token).await.unwrap();
    assert_eq!(agent.export(report("web", 1)).await, ExportOutcome::Stored);
    relay.cut();
    eventually("the break is counted", || counted(&collector, broken) == 1);
    assert_eq!(counted(&collector, invalid), 0);

    let mut agent = collector.agent().await;
    let mut bad = report("web", 2);
    bad.host = None;
    assert_eq!(agent.export(bad).await, ExportOutcome::Rejected);
    assert_eq!(counted(&collector, invalid), 1);
    assert_eq!(counted(&collector, broken), 1);
}

#[tokio::test]
async fn a_receiver_that_is_gone_leaves_one_line() {
    let dir = tempfile::tempdir().unwrap();
    // A port on which nothing listens any more.
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/v1/write", port.local_addr().unwrap());
    drop(port);
    let collector = Collector::start_with(dir.path(), &["--remote-write", &url]);
    let mut agent = collector.agent().await;
    agent.export(report("web", 1)).await;
    let retries = format!("speedmimi_collector_remote_write_retries_total{{url=\"{url}\"}}");
    eventually("it is tried again", || counted(&collector, &retries) >= 3);
    assert_eq!(lines(&collector, "the receiver does not accept reports"), 1);
}

/// The head of the answer to these bytes.
fn answer(collector: &Collector, request: &str) -> String {
    let mut stream = TcpStream::connect(&collector.http).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

#[test]
fn other_methods_than_get_and_head_are_refused_whatever_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    for line in [
        "CONNECT localhost:80",
        "TRACE /",
        "POST /",
        "POST /metrics",
        "DELETE /api/v1/hosts",
        "OPTIONS *",
        "PUT /app.js",
    ] {
        let head = answer(
            &collector,
            &format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"),
        );
        assert!(head.starts_with("http/1.1 405 "), "{line}: {head}");
        assert!(head.contains("\r\nallow: get, head\r\n"), "{line}: {head}");
    }
    for line in ["GET /", "HEAD /", "GET /healthz"] {
        let head = answer(
            &collector,
            &format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        );
        assert!(head.starts_with("http/1.1 200 "), "{line}: {head}");
    }
}

#[test]
fn a_request_has_one_host_field_with_a_name_of_the_collector() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["--allow-host", "Monitor.Example", "--allow-host", "other"];
    let collector = Collector::start_with(dir.path(), &names);
    let status = |line: &str, hosts: &[&str]| {
        let fields: String = hosts.iter().map(|h| format!("Host: {h}\r\n")).collect();
        let head = answer(&collector, &format!("{line}\r\n{fields}\r\n"));
        head[9..12].parse::<u16>().unwrap()
    };
    let get = "GET /healthz HTTP/1.1";
    for host in [
        "monitor.example",
        "MONITOR.example.:443",
        "other",
        "127.0.0.1",
    ] {
        assert_eq!(status(get, &[host]), 200, "{host}");
    }
    assert_eq!(status(get, &["evil.example"]), 421);
    assert_eq!(status(get, &["localhost", "localhost"]), 400);
    assert_eq!(status(get, &["localhost", "evil.example"]), 400);
    assert_eq!(status(get, &[]), 400);
    let whole = |host: &str| format!("GET http://{host}/healthz HTTP/1.1");
    assert_eq!(status(&whole("evil.example"), &["localhost"]), 421);
    assert_eq!(status(&whole("localhost"), &["evil.example"]), 200);
}
