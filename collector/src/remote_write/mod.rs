//! Passing reports on by Prometheus remote write 1.0.
//!
//! One thread a receiver reads reports in the order they were stored, sends
//! one request a report and keeps, in the store, how far it came.  A request
//! follows from its report alone: after a crash the last one is sent again
//! byte for byte, which a receiver takes as the duplicate it is.  Ingest never
//! waits for any of this.

mod url;
mod wire;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use rusqlite::Connection;

pub(crate) use url::{BadUrl, RemoteUrl};

use crate::{
    codec,
    store::{Writer, open_reader, progress, stored_after},
};

/// How often the store is asked for new reports.
const INTERVAL: Duration = Duration::from_millis(500);
/// Reports read at once.
const BATCH_MAX: u32 = 200;
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);

/// What one receiver took.
#[derive(Debug)]
pub(crate) struct RemoteStats {
    /// Without what would be a secret.
    pub(crate) url: String,
    pub(crate) sent: AtomicU64,
    /// Reports that it will never take.
    pub(crate) rejected: AtomicU64,
    pub(crate) retries: AtomicU64,
}

impl RemoteStats {
    pub(crate) fn new(url: &RemoteUrl) -> Self {
        Self {
            url: url.to_string(),
            sent: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        }
    }
}

/// The thread of one receiver; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct RemoteWrite {
    _alive: mpsc::Sender<()>,
}

impl RemoteWrite {
    pub(crate) fn start(
        store: &Path,
        writer: Writer,
        url: RemoteUrl,
        stats: Arc<RemoteStats>,
    ) -> Result<Self, rusqlite::Error> {
        let connection = open_reader(store)?;
        let name = format!("remote-write {url}");
        let from = progress(&connection, &name)?;
        let (alive, ended) = mpsc::channel();
        let sender = Sender {
            name,
            url,
            writer,
            stats,
            ended,
            agent: agent(),
        };
        thread::Builder::new()
            .name("remote-write".to_owned())
            .spawn(move || sender.run(&connection, from))
            .map_err(|_| rusqlite::Error::InvalidQuery)?;
        Ok(Self { _alive: alive })
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .max_redirects(0)
        .user_agent(concat!("speedmimi-collector/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

struct Sender {
    name: String,
    url: RemoteUrl,
    writer: Writer,
    stats: Arc<RemoteStats>,
    ended: mpsc::Receiver<()>,
    agent: ureq::Agent,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Taken,
    /// Another try would end the same way.
    Rejected(u16),
    /// It may be taken later.
    Later,
}

/// The collector stops.
struct Stopping;

impl Sender {
    fn run(self, connection: &Connection, from: u64) {
        let mut at = from;
        loop {
            let wait = match self.pass(connection, at) {
                Ok(Some(next)) => {
                    at = next;
                    Duration::ZERO
                }
                Ok(None) => INTERVAL,
                Err(Stopping) => return,
            };
            if self.pause(wait).is_err() {
                return;
            }
        }
    }

    fn pause(&self, wait: Duration) -> Result<(), Stopping> {
        match self.ended.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopping),
        }
    }

    /// Sends some reports; how far it came, or `None` where there was nothing.
    fn pass(&self, connection: &Connection, at: u64) -> Result<Option<u64>, Stopping> {
        let bodies = match stored_after(connection, at, BATCH_MAX) {
            Ok(bodies) => bodies,
            Err(error) => {
                tracing::warn!(%error, "reports cannot be read for remote write");
                return Ok(None);
            }
        };
        let mut last = None;
        for (stored_ns, body) in bodies {
            match codec::decode(&body) {
                Ok(report) => self.deliver(&wire::encode(report))?,
                Err(error) => tracing::error!(%error, "a kept report is unreadable"),
            }
            last = Some(stored_ns);
        }
        if let Some(stored_ns) = last {
            self.writer.save_progress(self.name.clone(), stored_ns);
        }
        Ok(last)
    }

    /// Tries until the request is taken or never will be.
    fn deliver(&self, request: &[u8]) -> Result<(), Stopping> {
        let mut retry = RETRY_FIRST;
        loop {
            match self.send(request) {
                Sent::Taken => {
                    self.stats.sent.fetch_add(1, Relaxed);
                    return Ok(());
                }
                Sent::Rejected(status) => {
                    self.stats.rejected.fetch_add(1, Relaxed);
                    tracing::warn!(url = %self.url, status, "a report was rejected by remote write");
                    return Ok(());
                }
                Sent::Later => {
                    self.stats.retries.fetch_add(1, Relaxed);
                    self.pause(retry)?;
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }

    fn send(&self, request: &[u8]) -> Sent {
        let answer = self
            .agent
            .post(self.url.as_str())
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .send(request);
        match answer {
            Ok(answer) => judge(answer.status().as_u16()),
            Err(error) => {
                tracing::debug!(url = %self.url, %error, "remote write cannot reach its receiver");
                Sent::Later
            }
        }
    }
}

/// The retry rules of the remote write specification: 5xx and 429 are tried
/// again, other refusals are final.
fn judge(status: u16) -> Sent {
    match status {
        200..=299 => Sent::Taken,
        429 | 500..=599 => Sent::Later,
        other => Sent::Rejected(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_later_is_tried_again() {
        assert_eq!(judge(204), Sent::Taken);
        assert_eq!((judge(429), judge(503)), (Sent::Later, Sent::Later));
        assert_eq!(
            (judge(400), judge(301)),
            (Sent::Rejected(400), Sent::Rejected(301))
        );
    }
}
