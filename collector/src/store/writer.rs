//! The writer thread: takes what waits in its queue, commits it as one
//! transaction, then answers everyone in it.

use std::{
    collections::HashMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use monitor_proto::v1;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::{
    hosts::{self, HostRow},
    to_sql,
};
use crate::{
    codec,
    fleet::{Fleet, Newest},
    live::{Live, LiveReport},
    self_stats::SelfStats,
};

/// Reports that wait for the writer; beyond it their senders wait.
const QUEUE_MAX: usize = 1024;
/// Reports of one transaction: a bound for the time to the first answer.
const BATCH_MAX: usize = 512;

/// A report on its way into the store; `validate` has passed it.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) host: v1::Host,
    pub(crate) agent: v1::Agent,
    pub(crate) sequence: u64,
    pub(crate) window_end_ns: u64,
    pub(crate) received_ns: u64,
    pub(crate) body: Arc<[u8]>,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stored,
    Duplicate,
    Conflict,
}

/// Why a report was not stored; it may be sent again.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the collector's disk is full: free some space or lower its retention")]
    Full,
    #[error("the collector keeps {0} hosts already: remove some or raise its bound")]
    TooManyHosts(usize),
    #[error("the collector cannot write its store: {0}")]
    Failed(String),
    #[error("the collector is stopping")]
    Stopping,
}

impl WriteError {
    fn from_sqlite(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Failed(error.to_string()),
        }
    }
}

type Answer = Result<Outcome, WriteError>;

enum Request {
    Store {
        incoming: Box<Incoming>,
        answer: oneshot::Sender<Answer>,
    },
    Stop,
}

/// A handle on the writer thread.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    requests: mpsc::Sender<Request>,
}

/// What the writer tells after a commit.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) fleet: Fleet,
    pub(crate) live: Live,
    pub(crate) stats: Arc<SelfStats>,
}

impl Writer {
    /// Loads the hosts and starts the thread.
    pub(crate) fn start(
        connection: Connection,
        told: Told,
        hosts_max: usize,
    ) -> Result<(Self, thread::JoinHandle<()>), rusqlite::Error> {
        let hosts = hosts::load(&connection)?;
        publish_all(&connection, &hosts, &told.fleet)?;
        let next_key = hosts.values().map(|row| row.key).max().unwrap_or(0) + 1;
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let state = State {
            connection,
            hosts,
            next_key,
            hosts_max,
            told,
        };
        let thread = thread::Builder::new()
            .name("store-write".to_owned())
            .spawn(move || state.serve(queue))
            .map_err(|_| rusqlite::Error::InvalidQuery)?;
        Ok((Self { requests }, thread))
    }

    /// Hands a report to the writer, waiting for a place in its queue; the
    /// answer comes after the commit.
    pub(crate) async fn submit(
        &self,
        incoming: Incoming,
    ) -> Result<oneshot::Receiver<Answer>, WriteError> {
        let (answer, answered) = oneshot::channel();
        let incoming = Box::new(incoming);
        self.requests
            .send(Request::Store { incoming, answer })
            .await
            .map_err(|_| WriteError::Stopping)?;
        Ok(answered)
    }

    /// Ends the thread once everything sent before is answered; what is sent
    /// after is refused.
    pub(crate) async fn stop(&self) {
        // It may have ended already.
        drop(self.requests.send(Request::Stop).await);
    }
}

/// A host whose newest report cannot be read is shown without one.
fn publish_all(
    connection: &Connection,
    hosts: &HashMap<String, HostRow>,
    fleet: &Fleet,
) -> Result<(), rusqlite::Error> {
    for row in hosts.values() {
        let Some(body) = hosts::newest_body(connection, row)? else {
            continue;
        };
        match codec::decode(&body) {
            Ok(report) => fleet.publish(
                row.clone(),
                Some(Newest {
                    host: report.host.unwrap_or_default(),
                    agent: report.agent.unwrap_or_default(),
                    window_end_ns: report.window_end_unix_ns,
                    body: body.into(),
                }),
            ),
            Err(error) => {
                tracing::error!(host = row.id, %error, "the newest report of a host is unreadable");
            }
        }
    }
    Ok(())
}

struct State {
    connection: Connection,
    hosts: HashMap<String, HostRow>,
    next_key: i64,
    hosts_max: usize,
    told: Told,
}

/// The rows that a transaction changes: they count only once it is committed.
#[derive(Default)]
struct Changes {
    rows: HashMap<String, HostRow>,
    newest: HashMap<String, Newest>,
    stored: Vec<usize>,
    added: usize,
}

impl State {
    fn serve(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while queue.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
            let (mut incoming, mut answers) = (Vec::new(), Vec::new());
            for request in batch.drain(..) {
                match request {
                    Request::Store {
                        incoming: one,
                        answer,
                    } => {
                        incoming.push(*one);
                        answers.push(answer);
                    }
                    Request::Stop => queue.close(),
                }
            }
            if incoming.is_empty() {
                continue;
            }
            let started = Instant::now();
            let outcomes = self.commit(&incoming);
            self.told.stats.commit(started.elapsed(), outcomes.is_ok());
            match outcomes {
                Ok(outcomes) => {
                    for (answer, outcome) in answers.into_iter().zip(outcomes) {
                        // A sender that went away asks again.
                        drop(answer.send(outcome));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, reports = answers.len(), "a commit failed");
                    let error = WriteError::from_sqlite(&error);
                    for answer in answers {
                        drop(answer.send(Err(error.clone())));
                    }
                }
            }
        }
        if let Err(error) = self.connection.execute_batch("PRAGMA optimize;") {
            tracing::debug!(%error, "the store's statistics were not refreshed");
        }
    }

    /// One transaction; on an error nothing of it was kept.
    fn commit(&mut self, batch: &[Incoming]) -> rusqlite::Result<Vec<Answer>> {
        let mut changes = Changes::default();
        let first_new_key = self.next_key;
        let result = self.write(batch, &mut changes);
        match result {
            Ok(outcomes) => {
                self.tell(batch, changes);
                Ok(outcomes)
            }
            Err(error) => {
                self.next_key = first_new_key;
                Err(error)
            }
        }
    }

    fn write(
        &mut self,
        batch: &[Incoming],
        changes: &mut Changes,
    ) -> rusqlite::Result<Vec<Answer>> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for (i, incoming) in batch.iter().enumerate() {
            let known = changes
                .rows
                .get(&incoming.host.id)
                .or_else(|| self.hosts.get(&incoming.host.id));
            let mut row = match known {
                Some(row) => row.clone(),
                None if self.hosts.len() + changes.added >= self.hosts_max => {
                    outcomes.push(Err(WriteError::TooManyHosts(self.hosts_max)));
                    continue;
                }
                None => {
                    let key = self.next_key;
                    self.next_key += 1;
                    changes.added += 1;
                    let row = HostRow::new(key, incoming.host.id.clone(), incoming.received_ns);
                    hosts::save(&transaction, &row)?;
                    row
                }
            };
            let outcome = insert(&transaction, row.key, incoming)?;
            row.last_seen_ns = row.last_seen_ns.max(incoming.received_ns);
            match outcome {
                Outcome::Stored => {
                    changes.stored.push(i);
                    if row.count(incoming.agent.epoch, incoming.sequence) {
                        changes
                            .newest
                            .insert(row.id.clone(), Newest::from(incoming));
                    }
                }
                Outcome::Duplicate => {}
                Outcome::Conflict => row.conflicts += 1,
            }
            changes.rows.insert(row.id.clone(), row);
            outcomes.push(Ok(outcome));
        }
        for row in changes.rows.values() {
            hosts::save(&transaction, row)?;
        }
        transaction.commit()?;
        Ok(outcomes)
    }

    fn tell(&mut self, batch: &[Incoming], mut changes: Changes) {
        for &i in &changes.stored {
            self.told.live.send(LiveReport::from(&batch[i]));
        }
        for (id, row) in changes.rows {
            self.told
                .fleet
                .publish(row.clone(), changes.newest.remove(&id));
            self.hosts.insert(id, row);
        }
    }
}

fn insert(connection: &Connection, host: i64, incoming: &Incoming) -> rusqlite::Result<Outcome> {
    let (epoch, sequence) = (to_sql(incoming.agent.epoch), to_sql(incoming.sequence));
    let inserted = connection
        .prepare_cached(
            "INSERT OR IGNORE INTO reports (host, epoch, sequence, window_end_ns, body)
             VALUES (?, ?, ?, ?, ?)",
        )?
        .execute(params![
            host,
            epoch,
            sequence,
            to_sql(incoming.window_end_ns),
            &*incoming.body,
        ])?;
    if inserted == 1 {
        return Ok(Outcome::Stored);
    }
    let kept: Vec<u8> = connection
        .prepare_cached("SELECT body FROM reports WHERE host = ? AND epoch = ? AND sequence = ?")?
        .query_row(params![host, epoch, sequence], |row| row.get(0))?;
    // A kept body that cannot be read cannot be the same.
    Ok(match codec::same_report(&kept, &incoming.body) {
        Ok(true) => Outcome::Duplicate,
        Ok(false) | Err(_) => Outcome::Conflict,
    })
}

impl From<&Incoming> for Newest {
    fn from(incoming: &Incoming) -> Self {
        Self {
            host: incoming.host.clone(),
            agent: incoming.agent.clone(),
            window_end_ns: incoming.window_end_ns,
            body: Arc::clone(&incoming.body),
        }
    }
}

impl From<&Incoming> for LiveReport {
    fn from(incoming: &Incoming) -> Self {
        Self {
            host_id: incoming.host.id.as_str().into(),
            host_name: incoming.host.name.as_str().into(),
            epoch: incoming.agent.epoch,
            sequence: incoming.sequence,
            body: Arc::clone(&incoming.body),
        }
    }
}

/// How long the writer may take to finish what is queued when stopping.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(10);
