//! The writer thread: takes what waits in its queue, commits it as one
//! transaction, then answers everyone in it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use budget::{Budget, Held};
use daemon::log_limit;
use monitor_proto::v1;
use rusqlite::ErrorCode;
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};

use super::{
    clock,
    commit::State,
    open::{OpenError, is_damage, mark_damaged, open},
    progress::save_progress,
    retention::{Retention, RollsDue, Tidied},
    roller::Rolled,
};
use crate::{
    fleet::{Facts, Fleet},
    live::Live,
    stats::StoreStats,
};

/// Reports that wait for the writer; beyond it their senders wait.
const QUEUE_MAX: usize = 1024;
/// Reports of one transaction: a bound for the time to the first answer.
const BATCH_MAX: usize = 512;

/// A report on its way into the store; `validate` has passed it.
#[derive(Debug)]
pub struct Incoming {
    pub host: v1::Host,
    pub agent: v1::Agent,
    pub sequence: u64,
    pub window_end_ns: u64,
    pub received_ns: u64,
    /// The same by the steady clock.
    pub steady_ns: u64,
    pub body: Arc<[u8]>,
    pub facts: Facts,
    /// Its room in the budget, until it is answered.
    pub _held: Held,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Stored,
    Duplicate,
    Conflict,
}

/// Why a report was not stored; it may be sent again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    #[error("the collector's disk is full: free space or lower --retention-bytes")]
    Full,
    #[error(
        "the collector already has its maximum of {0} hosts, each until its last report is deleted \
         by age: lower --retention-age, or send this host's reports to another collector"
    )]
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

/// Why the writer cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot read the hosts in the store")]
    Load(#[from] rusqlite::Error),
    #[error("cannot move a damaged store aside, or start a thread")]
    System(#[from] io::Error),
}

pub(super) type Answer = Result<Outcome, WriteError>;

enum Request {
    Store {
        incoming: Box<Incoming>,
        answer: oneshot::Sender<Answer>,
    },
    Roll {
        rolled: Box<Rolled>,
        done: oneshot::Sender<bool>,
    },
    Progress {
        name: String,
        stored_ns: u64,
    },
    /// Other bounds than before.
    Keep(Retention),
    /// Time to see what is too old or too much.
    Tidy,
    Stop,
}

/// A handle on the writer thread.
#[derive(Clone, Debug)]
pub struct Writer {
    requests: mpsc::Sender<Request>,
}

/// Where the writer publishes what it has committed.
#[derive(Clone, Debug)]
pub struct Published {
    pub fleet: Fleet,
    pub live: Live,
    pub stats: Arc<StoreStats>,
    pub budget: Budget,
}

impl Writer {
    /// Opens the store, loads the hosts and starts the thread.
    pub fn start(
        path: &Path,
        published: &Published,
        hosts_max: usize,
        retention: Retention,
    ) -> Result<(Self, thread::JoinHandle<()>), StartError> {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let load = || -> Result<State, StartError> {
            let accept_clock = retention.accept_clock;
            Ok(State::load(
                open(path)?,
                published.clone(),
                hosts_max,
                accept_clock,
            )?)
        };
        let state = match load() {
            Err(StartError::Load(error)) if is_damage(&error) => {
                tracing::error!(%error, "the store is damaged");
                mark_damaged(path)?;
                load()
            }
            loaded => loaded,
        }?;
        let writer = Thread {
            path: path.to_owned(),
            state,
            retention,
            rolls_due: RollsDue::new(),
            clock_due: Instant::now(),
            damaged: false,
        };
        let thread = thread::Builder::new()
            .name("store-write".to_owned())
            .spawn(move || writer.serve(queue))?;
        Ok((Self { requests }, thread))
    }

    /// Hands a report to the writer, waiting for a place in its queue; the
    /// answer comes after the commit.
    pub async fn submit(
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

    /// Lets the writer delete what is too old or too much; where its queue is
    /// full, that waits for the next time.
    pub fn tidy(&self) {
        drop(self.requests.try_send(Request::Tidy));
    }

    /// Keeps to other bounds from now on.
    pub async fn keep(&self, retention: Retention) {
        // A writer that has ended deletes nothing.
        drop(self.requests.send(Request::Keep(retention)).await);
    }

    /// Adds roll-ups to those that are kept, waiting for it; whether it was
    /// done.  Not to be called from an asynchronous task.
    pub(super) fn roll(&self, rolled: Rolled) -> bool {
        let (done, when_done) = oneshot::channel();
        let rolled = Box::new(rolled);
        self.requests
            .blocking_send(Request::Roll { rolled, done })
            .is_ok()
            && when_done.blocking_recv().unwrap_or(false)
    }

    /// Keeps how far a reader came; one that does not find it again starts a
    /// little earlier.  Not to be called from an asynchronous task.
    pub fn save_progress(&self, name: String, stored_ns: u64) {
        // A writer that has ended keeps nothing any more.
        drop(
            self.requests
                .blocking_send(Request::Progress { name, stored_ns }),
        );
    }

    /// Returns when the writer has ended, for whatever reason.
    pub async fn ended(&self) {
        self.requests.closed().await;
    }

    /// Ends the thread once everything sent before is answered; what is sent
    /// after is refused.
    pub async fn stop(&self) {
        // It may have ended already.
        drop(self.requests.send(Request::Stop).await);
    }
}

/// Takes what waits, and waits for it where there is nothing else to do; false once
/// nothing will come any more.
fn take(queue: &mut mpsc::Receiver<Request>, batch: &mut Vec<Request>, busy: bool) -> bool {
    if !busy {
        return queue.blocking_recv_many(batch, BATCH_MAX) > 0;
    }
    while batch.len() < BATCH_MAX {
        match queue.try_recv() {
            Ok(request) => batch.push(request),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return !batch.is_empty(),
        }
    }
    true
}

struct Thread {
    path: PathBuf,
    state: State,
    retention: Retention,
    rolls_due: RollsDue,
    clock_due: Instant,
    damaged: bool,
}

impl Thread {
    fn serve(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut tidying = false;
        while take(&mut queue, &mut batch, tidying) {
            let (mut incoming, mut answers) = (Vec::new(), Vec::new());
            let mut to_roll = None;
            for request in batch.drain(..) {
                match request {
                    Request::Store {
                        incoming: one,
                        answer,
                    } => {
                        incoming.push(*one);
                        answers.push(answer);
                    }
                    Request::Roll { rolled, done } => to_roll = Some((rolled, done)),
                    Request::Progress { name, stored_ns } => self.progress(&name, stored_ns),
                    Request::Keep(retention) => {
                        self.retention = retention;
                        if retention.accept_clock {
                            self.state.clock.accept();
                        }
                    }
                    Request::Tidy => {
                        tidying = true;
                        self.keep_clock();
                        Retention::begin(&self.state, &mut self.rolls_due);
                    }
                    Request::Stop => queue.close(),
                }
            }
            if !incoming.is_empty() {
                self.store(incoming, answers);
            }
            if let Some((rolled, done)) = to_roll {
                // There is one roller, and it waits.
                let _gone_if_stopping = done.send(self.roll(&rolled));
            }
            tidying = tidying && self.tidy();
            if self.damaged {
                // Its end ends the collector, and the next one makes a new store.
                return;
            }
        }
        if let Err(error) = self.state.connection.execute_batch("PRAGMA optimize;") {
            tracing::debug!(%error, "cannot refresh the statistics of the store");
        }
    }

    fn store(&mut self, incoming: Vec<Incoming>, answers: Vec<oneshot::Sender<Answer>>) {
        let started = Instant::now();
        let outcomes = self.state.commit(&incoming);
        // Their room is free before their senders go on.
        drop(incoming);
        let stats = &self.state.published.stats;
        stats.commit(started.elapsed(), outcomes.is_ok());
        match outcomes {
            Ok(outcomes) => {
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    // A sender that went away asks again.
                    drop(answer.send(outcome));
                }
            }
            Err(error) => {
                self.failed(&error, "cannot commit to the store");
                let error = WriteError::from_sqlite(&error);
                for answer in answers {
                    drop(answer.send(Err(error.clone())));
                }
            }
        }
    }

    /// Says what could not be done; where the store is damaged, no more is tried.
    fn failed(&mut self, error: &rusqlite::Error, what: &'static str) {
        if let Some(left_out) = log_limit::line("store", what) {
            tracing::warn!(%error, left_out, "{what}");
        }
        if !is_damage(error) || std::mem::replace(&mut self.damaged, true) {
            return;
        }
        let store = self.path.display();
        match mark_damaged(&self.path) {
            Ok(()) => tracing::error!(
                %store,
                "the store is damaged: restart the collector, which moves it aside"
            ),
            Err(error) => tracing::error!(
                %store, %error,
                "the store is damaged and cannot be marked so: stop the collector and move it away"
            ),
        }
    }

    fn progress(&mut self, name: &str, stored_ns: u64) {
        if let Err(error) = save_progress(&self.state.connection, name, stored_ns) {
            self.failed(&error, "cannot store the progress of forwarding");
        }
    }

    fn roll(&mut self, rolled: &Rolled) -> bool {
        let written = self.state.lightly(|state| state.roll(rolled));
        if let Err(error) = &written {
            self.failed(error, "cannot write roll-ups");
        }
        written.is_ok()
    }

    /// So that a clock that jumps is known after a restart.
    fn keep_clock(&mut self) {
        if self.clock_due <= Instant::now() {
            self.clock_due = Instant::now() + clock::KEEP_INTERVAL;
            let now_ns = self.state.clock.now_ns();
            self.progress(clock::NAME, now_ns);
        }
    }

    /// A moment's worth of deleting; whether there is more to do.
    fn tidy(&mut self) -> bool {
        let result = self
            .state
            .lightly(|state| self.retention.step(state, &mut self.rolls_due));
        match result {
            Ok(Tidied::Done) => false,
            Ok(Tidied::More(deleted)) => {
                self.state
                    .published
                    .stats
                    .retired
                    .fetch_add(deleted, Relaxed);
                true
            }
            Err(error) => {
                self.failed(&error, "cannot delete expired data");
                false
            }
        }
    }
}

/// How long the writer may take to finish what is queued when stopping.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);
