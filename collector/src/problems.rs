//! What is wrong with the hosts: judged on a thread of its own, as reports come.
//!
//! Ingest only says which host has a newer report.  Where the thread lags behind, a
//! host's newest report is judged and those in between are not: nothing queues up.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use budget::{Budget, Use};
use daemon::clock::{steady_ns, unix_ns};
use monitor_proto::state::HostState as Reporting;
use problems::{HostJudge, Kind, Problem, Problems, Severity, Thresholds, silence};

use query::give_way;
use store::{Fleet, HostState};

/// How often the thread looks whether it is needed still.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// What is kept of all hosts together; 1,000 hosts with 45 busy endpoints take a sixth.
/// Hosts beyond it are not judged, and counted.
const BYTES_MAX: usize = 256 << 20;

/// A handle on the judgement; the thread ends when the last one is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Judgement(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    fleet: Fleet,
    thresholds: RwLock<Arc<Thresholds>>,
    /// By the host's id; only those with problems.
    judged: RwLock<BTreeMap<String, Arc<[Problem]>>>,
    stats: JudgementStats,
}

/// What the judgement says of itself.
#[derive(Debug, Default)]
pub(crate) struct JudgementStats {
    /// Windows that were judged.
    pub(crate) windows: AtomicU64,
    /// Windows for which there was no room.
    pub(crate) left_out: AtomicU64,
    /// What is kept of the last windows.
    pub(crate) bytes: AtomicU64,
}

/// Which problems are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// A host's id or name; empty means all.
    pub(crate) host: String,
    pub(crate) kind: Option<Kind>,
    /// This one and worse.
    pub(crate) severity: Option<Severity>,
}

impl Wanted {
    fn takes(&self, problem: &Problem) -> bool {
        self.kind.is_none_or(|kind| problem.kind == kind.name())
            && self.severity.is_none_or(|least| problem.severity >= least)
    }
}

impl Judgement {
    /// Starts the thread.
    pub(crate) fn start(fleet: Fleet, budget: Budget, thresholds: Thresholds) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            fleet: fleet.clone(),
            thresholds: RwLock::new(Arc::new(thresholds)),
            judged: RwLock::default(),
            stats: JudgementStats::default(),
        });
        let weak = Arc::downgrade(&shared);
        thread::Builder::new()
            .name("problems".to_owned())
            .spawn(move || judge_all(&fleet, &budget, &weak))?;
        Ok(Self(shared))
    }

    /// Other thresholds from the next windows on.
    pub(crate) fn replace(&self, thresholds: Thresholds) {
        let mut kept = self
            .0
            .thresholds
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *kept = Arc::new(thresholds);
    }

    pub(crate) fn stats(&self) -> &JudgementStats {
        &self.0.stats
    }

    /// What is wrong now: the worst `most`, and how many there are.
    pub(crate) fn now(&self, wanted: &Wanted, most: usize) -> Problems {
        let hosts = self.0.fleet.chosen(&wanted.host);
        let thresholds = self.0.thresholds();
        let judged = self.0.judged.read().unwrap_or_else(PoisonError::into_inner);
        let mut problems: Vec<Problem> = Vec::new();
        for host in &hosts {
            let summary = host.summary();
            problems.extend(silence(&summary, &thresholds));
            // Figures of a silent host say nothing of now.
            if Reporting::from(&summary) != Reporting::Silent
                && let Some(judged) = judged.get(&host.row.id)
            {
                problems.extend(judged.iter().cloned());
            }
        }
        problems.retain(|problem| wanted.takes(problem));
        problems::sort(&mut problems);
        let total = problems.len() as u64;
        problems.truncate(most);
        Problems {
            total,
            hosts: hosts.len() as u64,
            problems,
        }
    }
}

impl Shared {
    fn thresholds(&self) -> Arc<Thresholds> {
        Arc::clone(
            &self
                .thresholds
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// What the thread keeps of a host.
#[derive(Default)]
struct Kept {
    judge: HostJudge,
    /// The report that was judged last.
    last: Option<(u64, u64)>,
    bytes: usize,
}

fn judge_all(fleet: &Fleet, budget: &Budget, shared: &Weak<Shared>) {
    give_way();
    let mut all: HashMap<String, Kept> = HashMap::new();
    loop {
        let changed = fleet.wait_changed(LOOK_INTERVAL);
        let Some(shared) = shared.upgrade() else {
            return;
        };
        for id in changed {
            // A name is none where an id is asked for.
            let host = fleet.find(&id).into_iter().find(|host| host.row.id == id);
            match host {
                Some(host) => judge_one(&shared, budget, &host, &mut all),
                None => forget(&shared, &id, &mut all),
            }
        }
    }
}

fn judge_one(shared: &Shared, budget: &Budget, host: &HostState, all: &mut HashMap<String, Kept>) {
    let newest = (host.row.epoch, host.row.sequence_last);
    let id = &host.row.id;
    if all.get(id).is_some_and(|kept| kept.last == Some(newest)) {
        return;
    }
    let stats = &shared.stats;
    let taken = stats.bytes.load(Relaxed);
    let has_room = taken < BYTES_MAX as u64 || all.contains_key(id);
    let mut room = budget.open(Use::Scrapes, &"problems".into());
    let report = match host.report(&mut room) {
        Ok(Some(report)) if has_room => report,
        Ok(None) => return,
        Ok(Some(_)) | Err(_) => {
            stats.left_out.fetch_add(1, Relaxed);
            return;
        }
    };
    let received_ns = host.row.last_seen_ns(unix_ns(), steady_ns());
    let kept = all.entry(id.clone()).or_default();
    let thresholds = shared.thresholds();
    kept.judge.observe(&report, Some(received_ns), &thresholds);
    kept.last = Some(newest);
    let before = std::mem::replace(&mut kept.bytes, kept.judge.bytes());
    stats.bytes.fetch_add(kept.bytes as u64, Relaxed);
    stats.bytes.fetch_sub(before as u64, Relaxed);
    stats.windows.fetch_add(1, Relaxed);
    let found = kept.judge.problems();
    let mut judged = shared
        .judged
        .write()
        .unwrap_or_else(PoisonError::into_inner);
    if found.is_empty() {
        judged.remove(id);
    } else {
        judged.insert(id.clone(), found.into());
    }
}

fn forget(shared: &Shared, id: &str, all: &mut HashMap<String, Kept>) {
    if let Some(kept) = all.remove(id) {
        shared.stats.bytes.fetch_sub(kept.bytes as u64, Relaxed);
    }
    let mut judged = shared
        .judged
        .write()
        .unwrap_or_else(PoisonError::into_inner);
    judged.remove(id);
}
