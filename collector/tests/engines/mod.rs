//! Real engines that take samples and answer queries.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "every test file uses its part of the fixture"
)]

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::{DEADLINE, get};

/// Which engine; both are packages of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Prometheus,
    VictoriaMetrics,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Prometheus, Self::VictoriaMetrics];

    /// The program's name, and that of the package.
    pub fn program(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::VictoriaMetrics => "victoria-metrics",
        }
    }

    /// Why it cannot be run here.
    pub fn missing(self) -> Option<String> {
        missing(self.program(), self.program())
    }
}

/// Why a program cannot be run here.
pub fn missing(program: &str, package: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null());
    let there = command.output().is_ok();
    (!there).then(|| format!("{program} is missing: apt-get install {package}"))
}

/// A running engine; killed when dropped.
pub struct Engine {
    child: Child,
    pub url: String,
}

impl Engine {
    /// An engine that scrapes nothing.
    pub fn start(kind: Kind, dir: &Path, port: u16) -> Self {
        Self::start_with(kind, dir, port, "global: {scrape_interval: 1h}\n")
    }

    /// `config` is a Prometheus configuration; the other engine ignores it.
    pub fn start_with(kind: Kind, dir: &Path, port: u16, config: &str) -> Self {
        let mut command = Command::new(kind.program());
        let data = dir.join("data");
        match kind {
            Kind::Prometheus => {
                let file = dir.join("prometheus.yml");
                fs::write(&file, config).unwrap();
                command
                    .arg(format!("--config.file={}", file.display()))
                    .arg(format!("--storage.tsdb.path={}", data.display()))
                    .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                    .args(["--web.enable-remote-write-receiver", "--log.level=error"])
            }
            Kind::VictoriaMetrics => command
                .arg(format!("-storageDataPath={}", data.display()))
                .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
                // The newest samples count, and nothing is remembered.
                .args(["-search.latencyOffset=0s", "-search.disableCache"])
                .args(["-loggerLevel=ERROR", "-memory.allowedBytes=134217728"]),
        };
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let engine = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        };
        let path = match kind {
            Kind::Prometheus => "/-/ready",
            Kind::VictoriaMetrics => "/health",
        };
        engine.wait(path);
        engine
    }

    fn wait(&self, path: &str) {
        let deadline = Instant::now() + DEADLINE;
        let url = format!("{}{path}", self.url);
        while !ureq::get(&url)
            .call()
            .is_ok_and(|answer| answer.status() == 200)
        {
            assert!(Instant::now() < deadline, "the engine does not get ready");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGTERM, and waits: one of them keeps what it took for a second in
    /// memory alone.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        let deadline = Instant::now() + DEADLINE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the engine does not stop");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// All results of an expression.
    pub fn series(&self, expression: &str) -> Vec<Value> {
        let encoded: String = expression.bytes().map(|b| format!("%{b:02X}")).collect();
        let answer = get(&format!("{}/api/v1/query?query={encoded}", self.url), &[]);
        let value: Value = serde_json::from_str(&answer.body)
            .unwrap_or_else(|_| panic!("{expression}: {}", answer.body));
        assert_eq!(value["status"], "success", "{expression}: {}", answer.body);
        value["data"]["result"].as_array().unwrap().clone()
    }

    /// The value of an expression with one result; 0 where there is none.
    pub fn query(&self, expression: &str) -> f64 {
        let result = self.series(expression);
        assert!(result.len() <= 1, "{expression}: {result:?}");
        let number = result.first().and_then(|r| r["value"][1].as_str());
        number.map_or(0.0, |n| n.parse().unwrap())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// An engine that says the same to every question, until the test ends.
pub fn saying(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            // The question does not matter.
            drop(socket.read(&mut vec![0; 65536]));
            let length = answer.len();
            drop(write!(
                socket,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{answer}"
            ));
            // What is left unread of a question would make the close a reset, which
            // may take the answer with it.
            drop(socket.shutdown(Shutdown::Write));
            drop(socket.set_read_timeout(Some(DEADLINE)));
            drop(io::copy(&mut socket, &mut io::sink()));
        }
    });
    url
}
