//! The origin server as a program; it ends with its stdin.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context as _, Result};
use testkit::fixtures::Binaries;

use crate::command::step;

#[derive(Debug)]
pub(super) struct OriginProcess {
    child: Child,
    stdin: Option<ChildStdin>,
    pub(super) address: SocketAddr,
}

impl OriginProcess {
    pub(super) fn start(binaries: &Binaries) -> Result<Self> {
        step("starting the origin");
        let mut child = Command::new(binaries.find("speedmimi-loadgen")?)
            .arg("origin")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting the origin")?;
        let stdin = child.stdin.take();
        let stderr = child.stderr.take().context("the origin has no stderr")?;
        let mut line = String::new();
        BufReader::new(stderr).read_line(&mut line)?;
        let address = line
            .trim()
            .strip_prefix("ready listen=")
            .with_context(|| format!("the origin said: {line}"))?
            .parse()?;
        Ok(Self {
            child,
            stdin,
            address,
        })
    }
}

impl Drop for OriginProcess {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("origin: {error}");
        }
    }
}
