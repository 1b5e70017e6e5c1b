//! Reading threads: each has a connection, all take jobs from one queue.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use budget::Held;
use rusqlite::Connection;
use store::{HostState, kept::Damaged, open_reader};
use tokio::sync::oneshot;

use crate::{
    endpoint_filter::{EndpointFilter, HostFilter},
    pool::give_way,
    read_error::ReadError,
    reports::{self, Page, Selection},
    series::{Plan, Tier},
    stored_series::{self, Found},
    stored_summary::{self, Summed},
    summary::Question,
    top::{self, Clients, TopQuestion},
};

/// Enough that one long read does not hold up the others.
const THREADS: usize = 3;
/// Hosts whose series one thread reads before others take a share: fewer are
/// read in the time that sharing takes.
const HOSTS_SHARED_MIN: usize = 64;
/// Jobs that wait; beyond it readers are told to come back.
const QUEUE_MAX: usize = 256;

type Answer<T> = oneshot::Receiver<Result<T, ReadError>>;
type Job = Box<dyn FnOnce(&Connection) + Send>;

/// A handle on the reading threads.
#[derive(Clone, Debug)]
pub struct Readers {
    jobs: mpsc::SyncSender<Job>,
    damaged: Arc<Damaged>,
}

impl Readers {
    /// Starts the threads; they end when the last handle is dropped.
    pub fn start(path: &Path, damaged: Arc<Damaged>) -> Result<Self, rusqlite::Error> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(QUEUE_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..THREADS {
            let connection = open_reader(path)?;
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("store-read-{n}"))
                .spawn(move || serve(&connection, &queue))
                .map_err(|_| rusqlite::Error::InvalidPath(PathBuf::from(path)))?;
        }
        Ok(Self { jobs, damaged })
    }

    /// Runs a read on one of the threads.
    pub async fn read<T, F>(&self, read: F) -> Result<T, ReadError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    {
        awaited(self.submit(read)?).await
    }

    fn submit<T, F>(&self, read: F) -> Result<Answer<T>, ReadError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // The asker may have gone away meanwhile.
            drop(answer.send(read(connection)));
        });
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => ReadError::Busy,
            mpsc::TrySendError::Disconnected(_) => ReadError::Stopping,
        })?;
        Ok(answered)
    }

    /// The series of these hosts, and the room that they take.  What many hosts' roll-ups come to is read
    /// by all threads at once; reports are bounded for an answer, not a thread.
    pub async fn series(
        &self,
        hosts: &[Arc<HostState>],
        filter: EndpointFilter,
        plan: Plan,
        room: Held,
    ) -> Result<Found, ReadError> {
        let mut answers = Vec::new();
        for hosts in hosts.chunks(share(hosts.len(), plan.tier)) {
            let (hosts, filter) = (hosts.to_vec(), filter.clone());
            let mut part = room.another(0)?;
            answers.push(self.submit(move |connection| {
                let hosts = filters(&hosts, &filter, &mut part)?;
                stored_series::read(connection, &hosts, &plan, part)
            })?);
        }
        let mut all = Found::new(room);
        for answer in answers {
            all.join(awaited(answer).await?);
        }
        stored_series::bounded(all.series.len(), &plan)?;
        self.damaged.record_all(&all.reading.damaged);
        Ok(all)
    }

    /// What these hosts' reports and roll-ups of a range come to, and the room that it
    /// takes.
    pub async fn summary(
        &self,
        hosts: &[Arc<HostState>],
        question: Question,
        room: Held,
    ) -> Result<Summed, ReadError> {
        let mut answers = Vec::new();
        for hosts in hosts.chunks(share(hosts.len(), question.plan.tier)) {
            let hosts = hosts.to_vec();
            let part = room.another(0)?;
            answers.push(self.submit(move |connection| {
                stored_summary::read(connection, &hosts, &question, part)
            })?);
        }
        let mut all = Summed::new(room);
        for answer in answers {
            all.join(awaited(answer).await?);
        }
        self.damaged.record_all(&all.reading.damaged);
        Ok(all)
    }

    /// The clients of these hosts' listeners in a range, and the room that they take.
    pub async fn top(
        &self,
        hosts: Vec<Arc<HostState>>,
        question: TopQuestion,
        room: Held,
    ) -> Result<Clients, ReadError> {
        let clients = self
            .read(move |connection| top::read(connection, &hosts, question, room))
            .await?;
        self.damaged.record_all(&clients.reading.damaged);
        Ok(clients)
    }

    /// One page of reports, in room that it takes as it is read.
    pub async fn page(&self, selection: Selection, room: Held) -> Result<Page, ReadError> {
        let page = self
            .read(move |connection| reports::page(connection, &selection, room))
            .await?;
        self.damaged.record_all(&page.damaged);
        Ok(page)
    }
}

/// How many of so many hosts one thread reads.
/// What is asked of each host.
fn filters(
    hosts: &[Arc<HostState>],
    filter: &EndpointFilter,
    room: &mut Held,
) -> Result<Vec<(i64, HostFilter)>, ReadError> {
    let mut all = Vec::with_capacity(hosts.len());
    for host in hosts {
        let own = if filter.is_by_name() {
            let before = room.bytes();
            let newest = host.report(room)?;
            let own = HostFilter::new(filter, newest.as_ref());
            drop(newest);
            room.resize(before + own.bytes())?;
            own
        } else {
            HostFilter::new(filter, None)
        };
        all.push((host.row.key, own));
    }
    Ok(all)
}

fn share(hosts: usize, tier: Tier) -> usize {
    match tier {
        Tier::Raw => hosts.max(1),
        Tier::Rolled(_) => hosts.div_ceil(THREADS).max(HOSTS_SHARED_MIN),
    }
}

async fn awaited<T>(answer: Answer<T>) -> Result<T, ReadError> {
    answer.await.map_err(|_| ReadError::Stopping)?
}

fn serve(connection: &Connection, queue: &Mutex<mpsc::Receiver<Job>>) {
    give_way();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(connection),
            Err(mpsc::RecvError) => return,
        }
    }
}
