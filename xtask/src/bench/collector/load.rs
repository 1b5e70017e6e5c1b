//! What the generator delivers.

use std::{fmt, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;
use testkit::fixtures::{Binaries, Collector};

use crate::command::output;

/// Reports of some hosts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) hosts: usize,
    pub(super) endpoints: usize,
    reports: u64,
    window_s: u64,
    streams: usize,
    prefix: &'static str,
    paced: bool,
}

/// What was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivered {
    pub(super) reports: u64,
    pub(super) samples: u64,
    pub(super) seconds: f64,
    /// From sending a report to its acknowledgement.
    pub(super) ack_ms_p99: f64,
}

impl Load {
    /// Windows of 5 s, a connection a host.
    pub(super) fn new(hosts: usize, endpoints: usize, reports: u64) -> Self {
        Self {
            hosts,
            endpoints,
            reports,
            window_s: 5,
            streams: hosts,
            prefix: "host",
            paced: false,
        }
    }

    pub(super) fn reports(mut self, reports: u64) -> Self {
        self.reports = reports;
        self
    }

    pub(super) fn prefix(mut self, prefix: &'static str) -> Self {
        self.prefix = prefix;
        self
    }

    /// A report of each host every window, as agents send them.
    pub(super) fn paced(mut self) -> Self {
        self.paced = true;
        self
    }

    pub(super) fn every(mut self, window_s: u64) -> Self {
        self.window_s = window_s;
        self
    }

    pub(super) fn streams(mut self, streams: usize) -> Self {
        self.streams = streams.min(self.hosts);
        self
    }

    /// Delivers everything and waits for the acknowledgements.
    pub(super) fn deliver(self, binaries: &Binaries, to: &Collector) -> Result<Delivered> {
        let mut command = Command::new(binaries.find("speedmimi-reportgen")?);
        command
            .args(["--grpc", &to.grpc().to_string()])
            .arg("--token-file")
            .arg(to.token_file());
        for (flag, n) in [
            ("--hosts", self.hosts as u64),
            ("--endpoints", self.endpoints as u64),
            ("--reports", self.reports),
            ("--window", self.window_s),
            ("--streams", self.streams as u64),
        ] {
            command.args([flag, &n.to_string()]);
        }
        command.args(["--prefix", self.prefix]);
        if self.paced {
            command.arg("--paced");
        }
        let answer: Value = serde_json::from_str(&output(&mut command)?)
            .context("reading what the generator printed")?;
        let number = |key: &str| {
            let number = answer[key].as_u64();
            number.with_context(|| format!("the generator printed no {key}"))
        };
        Ok(Delivered {
            reports: number("reports")?,
            samples: number("samples")?,
            seconds: answer["seconds"].as_f64().context("no seconds")?,
            ack_ms_p99: answer["ack_ms_p99"].as_f64().context("no ack_ms_p99")?,
        })
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hosts x {} endpoints", self.hosts, self.endpoints)
    }
}
