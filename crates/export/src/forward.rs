//! Passing reports on.
//!
//! One thread a receiver reads reports in the order they were stored, sends
//! them, and keeps in the store how far it came.  A request follows from its
//! reports alone: after a crash the last ones are sent again byte for byte,
//! which a receiver takes as the duplicates they are.  Ingest never waits for
//! any of this: what is not sent yet is in the store.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use daemon::{clock::steady_ns, log_limit};
use rusqlite::Connection;
use store::{
    Fleet, Writer,
    kept::{self, Damage, Damaged},
    last_stored, open_reader, progress, stored_after, stored_before,
};

use crate::{
    ended::Reporting,
    receiver::{Answer, Part, Receiver, Rejection},
    stats::ForwardStats,
};

/// How often the store is asked for new reports.
const INTERVAL: Duration = Duration::from_millis(500);
/// Reports read at once.
const BATCH_MAX: u32 = 200;
/// Of them, as they are kept: a report may have megabytes.
const BATCH_BYTES_MAX: usize = 4 << 20;
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The thread of one receiver; it ends when this is dropped.
#[derive(Debug)]
pub struct Forward {
    _alive: mpsc::Sender<()>,
}

/// Where what is passed on comes from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The store's file.
    pub store: &'a Path,
    pub writer: &'a Writer,
    pub damaged: &'a Arc<Damaged>,
    pub fleet: &'a Fleet,
}

impl Forward {
    /// Goes on where the receiver with this name came to.
    pub fn start(
        from: Sources<'_>,
        name: String,
        receiver: Box<dyn Receiver>,
        stats: Arc<ForwardStats>,
    ) -> Result<Self, rusqlite::Error> {
        let connection = open_reader(from.store)?;
        let at = progress(&connection, &name, from.damaged)?.unwrap_or(0);
        let (alive, ended) = mpsc::channel();
        let sender = Sender {
            name,
            receiver,
            writer: from.writer.clone(),
            stats,
            damaged: Arc::clone(from.damaged),
            fleet: from.fleet.clone(),
            ended,
        };
        thread::Builder::new()
            .name("forward".to_owned())
            .spawn(move || sender.run(&connection, at))
            .map_err(|_| rusqlite::Error::InvalidQuery)?;
        Ok(Self { _alive: alive })
    }
}

struct Sender {
    name: String,
    receiver: Box<dyn Receiver>,
    writer: Writer,
    stats: Arc<ForwardStats>,
    damaged: Arc<Damaged>,
    fleet: Fleet,
    ended: mpsc::Receiver<()>,
}

/// The collector stops.
struct Stopping;

/// A request that is being put together.
#[derive(Default)]
struct Request {
    parts: Vec<Part>,
    bytes: usize,
    /// When its last whole report was stored.
    up_to_ns: u64,
}

impl Sender {
    fn run(mut self, connection: &Connection, from: u64) {
        let mut at = from;
        let mut reporting = Reporting::default();
        loop {
            let before = at;
            let mut passed = self.pass(connection, &mut at);
            if at != before {
                self.writer.save_progress(self.name.clone(), at);
            } else if passed.is_ok() {
                let ended = reporting.ended(&self.fleet.all(), steady_ns());
                passed = self.end(connection, &ended);
            }
            let wait = if at == before {
                INTERVAL
            } else {
                Duration::ZERO
            };
            if passed.and_then(|()| self.pause(wait)).is_err() {
                return;
            }
        }
    }

    /// Tells that these hosts are silent, once all of their reports are sent.
    fn end(&mut self, connection: &Connection, hosts: &[i64]) -> Result<(), Stopping> {
        for host in hosts {
            let last = last_stored(connection, *host, u64::MAX, u64::MAX);
            let last = last
                .ok()
                .flatten()
                .and_then(|stored| kept::read(&stored).ok());
            if let Some(part) = last.and_then(|last| self.receiver.ended(last)) {
                self.delivered(&[part])?;
            }
        }
        Ok(())
    }

    fn pause(&self, wait: Duration) -> Result<(), Stopping> {
        match self.ended.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopping),
        }
    }

    /// Sends some reports; `at` follows what is done with.
    fn pass(&mut self, connection: &Connection, at: &mut u64) -> Result<(), Stopping> {
        let mut waiting = Vec::new();
        let mut bytes = 0;
        let read = stored_after(connection, *at, BATCH_MAX, |stored| {
            bytes += stored.body.len();
            waiting.push(stored);
            bytes < BATCH_BYTES_MAX
        });
        if let Err(error) = read {
            if let Some(left_out) = log_limit::line("forward read", &self.name) {
                tracing::warn!(
                    %error, name = self.name, left_out, "cannot read the reports to forward"
                );
            }
            return Ok(());
        }
        let oldest_ns = waiting.first().map_or(0, |oldest| oldest.received_ns);
        self.stats.waiting_since_ns.store(oldest_ns, Relaxed);
        let request_bytes_max = self.receiver.request_bytes_max();
        let mut request = Request::default();
        for stored in waiting {
            let stored_ns = stored.stored_ns;
            let received_ns = stored.received_ns;
            let parts = match kept::read(&stored) {
                Ok(report) => self.receiver.parts(report, &|| {
                    let before = stored_before(connection, &stored.at, stored_ns);
                    kept::read(&before.ok()??).ok()
                }),
                Err(error) => {
                    let damage = Damage::new(connection, stored.at, &error);
                    self.damaged.record(&damage);
                    Vec::new()
                }
            };
            for part in parts {
                if request.bytes + part.body.len() > request_bytes_max {
                    self.deliver(&std::mem::take(&mut request), at, received_ns)?;
                }
                request.bytes += part.body.len();
                request.parts.push(part);
            }
            request.up_to_ns = stored_ns;
        }
        self.deliver(&request, at, 0)
    }

    /// Tries until the request is taken or never will be; `next_ns` is when
    /// the report behind it was received, 0 where there is none yet.
    fn deliver(&mut self, request: &Request, at: &mut u64, next_ns: u64) -> Result<(), Stopping> {
        if !self.delivered(&request.parts)? {
            // One of them may have spoilt it for the others.
            for part in request.parts.chunks(1) {
                self.delivered(part)?;
            }
        }
        *at = request.up_to_ns.max(*at);
        self.stats.waiting_since_ns.store(next_ns, Relaxed);
        Ok(())
    }

    /// False where several parts were refused together.
    fn delivered(&mut self, parts: &[Part]) -> Result<bool, Stopping> {
        let units = parts.iter().map(|part| part.units).sum::<u64>();
        let joined;
        let body = match parts {
            [] => return Ok(true),
            [part] => &part.body,
            _ => {
                joined = parts.iter().flat_map(|p| p.body.iter().copied()).collect();
                &joined
            }
        };
        let mut retry = RETRY_FIRST;
        loop {
            match self.receiver.send(body) {
                Answer::Taken { rejected, message } => {
                    let rejected = rejected.min(units);
                    self.stats.sent.fetch_add(units - rejected, Relaxed);
                    if rejected > 0 {
                        self.rejected(Rejection::Partial, rejected, &message);
                    }
                    return Ok(true);
                }
                Answer::Never { .. } if parts.len() > 1 => return Ok(false),
                Answer::Never { reason, message } => {
                    self.rejected(reason, units, &message);
                    return Ok(true);
                }
                Answer::Later { message, after } => {
                    self.stats.retries.fetch_add(1, Relaxed);
                    let url = &self.stats.url;
                    if let Some(left_out) = log_limit::line("forward", url) {
                        tracing::warn!(
                            url,
                            error = message,
                            left_out,
                            "the receiver does not accept reports: they stay in the store and are \
                             retried; check that the receiver runs and that the URL is correct"
                        );
                    }
                    self.pause(after.unwrap_or(retry).max(retry))?;
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }

    fn rejected(&self, reason: Rejection, units: u64, message: &str) {
        self.stats.reject(reason, units);
        let url = &self.stats.url;
        if let Some(left_out) = log_limit::line("forward rejected", url) {
            tracing::warn!(
                url,
                ?reason,
                units,
                error = message,
                left_out,
                "the receiver rejected data permanently: docs/metrics.md explains the reasons"
            );
        }
    }
}
