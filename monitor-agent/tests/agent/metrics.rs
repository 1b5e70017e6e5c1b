//! The agent's own metrics, as Prometheus' own tool reads them.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use monitor_agent::control;

use super::{Agent, End, collector::Collector, eventually, kernel::FakeKernel};

/// One request on a connection of its own: status and body.
fn get(address: SocketAddr, head: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    write!(stream, "{head}\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

pub(crate) fn missing_promtool() -> Option<String> {
    let found = Command::new("promtool").arg("--version").output();
    let refused = found.err()?;
    Some(format!("promtool cannot be run: {refused}"))
}

fn check_by_promtool(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8(said).unwrap(), "");
    assert!(output.status.success());
}

/// Where the metrics are, once something was delivered.
fn address(socket: &Path) -> SocketAddr {
    let mut address = None;
    eventually("reports are delivered", || {
        let status = control::ask(socket, "status").unwrap_or_default();
        address = status["metrics"].as_str().map(|a| a.parse().unwrap());
        status["reports_delivered"].as_u64() > Some(0)
    });
    address.unwrap()
}

pub(crate) fn prometheus_own_tool_takes_them() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = FakeKernel::start();
    let collector = Collector::default();
    let server = collector.serve(([127, 0, 0, 1], 0).into());
    let agent = Agent::start(dir.path(), server.address(), &kernel);
    let address = address(&dir.path().join("control.sock"));
    check_by_promtool(&get(address, "GET /metrics HTTP/1.1").1);
    agent.end(End::Graceful);
}

pub(crate) fn the_agent_s_own_metrics_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let kernel = FakeKernel::start();
    let collector = Collector::default();
    let server = collector.serve(([127, 0, 0, 1], 0).into());
    let agent = Agent::start(dir.path(), server.address(), &kernel);
    let socket = dir.path().join("control.sock");
    let address = address(&socket);
    let (status, text) = get(address, "GET /metrics HTTP/1.1");
    assert_eq!(status, 200);
    for line in [
        "speedmimi_agent_losses_total{reason=\"endpoint_map_full\"} 0",
        "speedmimi_agent_losses_total{reason=\"reports_dropped\"} 0",
        "speedmimi_agent_delivery_connected 1",
        "speedmimi_agent_endpoints 2",
        "speedmimi_agent_spool_limit_bytes 268435456",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert_eq!(get(address, "POST /metrics HTTP/1.1").0, 405);
    assert_eq!(get(address, "GET / HTTP/1.1").0, 404);

    // Who says nothing, or too much, keeps nobody else out for long.
    let idle: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut large = TcpStream::connect(address).unwrap();
    large.write_all(&"x".repeat(100_000).into_bytes()).ok();
    eventually("others are served again", || {
        let stream = TcpStream::connect(address).unwrap();
        served(stream).unwrap_or(false)
    });
    drop(idle);
    agent.end(End::Graceful);
}

fn served(mut stream: TcpStream) -> std::io::Result<bool> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200"))
}
