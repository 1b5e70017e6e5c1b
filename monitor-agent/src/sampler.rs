//! The thread that owns the kernel's counters and samples them.
//!
//! It has a thread of its own so that nothing else, a slow disk least of all,
//! makes a sample late.  Others ask it over a channel, or look at the newest
//! sample through one atomic pointer.

mod cgroups;

use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant as StdInstant},
};

use arc_swap::ArcSwapOption;
use cgroups::Cgroups;
use daemon::once_a_minute;
use delivery::lock;
use host_metrics::{
    HostReader, HostSample,
    gauges::{self, Gauges},
    namespace, read_cgroup,
};
use kernel_sample::{
    CounterSnapshot, CounterSource, EndpointSample, Instant, Level, Opened, Opener, SourceError,
    Target,
};
use monitor_proto::v1;
use tokio::sync::{oneshot, watch};
use window::{
    ContainerNames, Environment, Observation, Sample, TargetReading, round_trips, saw_traffic,
};

use crate::{
    clock::{self, monotonic_ns, process_cpu_ns},
    pace::{JUDGED_OVER, Pace},
    queue::{DropOldest, SAMPLES_MAX},
    target::{self, RunningNames},
};

/// A sample that is so much later than it was due leaves a gap that is worth telling.
const GAP: Duration = Duration::from_secs(2);

/// The newest sample, as anyone may read it.
#[derive(Clone, Debug)]
pub struct Newest {
    /// When it was taken.
    pub at: Instant,
    /// The host's gauges.
    pub gauges: Gauges,
    /// What was taken of the kernel's counters; absent where they could not be
    /// read.
    pub kernel: Option<Arc<CounterSnapshot>>,
    /// How long it took.
    pub took: Duration,
    /// The time until the next sample.
    pub interval: Duration,
    /// What the programs look at.
    pub level: Level,
}

/// Every counter of the backends at one moment.
#[derive(Clone, Debug)]
pub struct BackendCounters {
    /// When they were read.
    pub at: Instant,
    /// The time until the next sample.
    pub interval: Duration,
    /// What the programs look at.
    pub level: Level,
    /// The endpoints of upstream role.
    pub endpoints: Vec<EndpointSample>,
}

impl Default for BackendCounters {
    fn default() -> Self {
        Self {
            at: Instant::default(),
            interval: Duration::ZERO,
            level: Level::Tcp,
            endpoints: Vec::new(),
        }
    }
}

/// What the sampler shares with everyone.
#[derive(Debug)]
pub struct Shared {
    /// Samples that wait for their report.
    pub samples: DropOldest<Sample>,
    /// One atomic pointer; readers never wait.
    pub newest: ArcSwapOption<Newest>,
    /// Every counter of the backends, read with each sample while someone is subscribed.
    pub backends: watch::Sender<Arc<BackendCounters>>,
    failures: AtomicU64,
    watched: Mutex<Vec<Target>>,
}

impl Shared {
    /// How many times the kernel's counters could not be read.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// What is watched.
    #[must_use]
    pub fn targets(&self) -> Vec<String> {
        let watched = self.watched();
        watched.iter().map(|t| t.label.to_string()).collect()
    }

    /// The same with their places.
    #[must_use]
    pub fn watched(&self) -> Vec<Target> {
        lock(&self.watched).clone()
    }

    fn watches(&self, targets: &[Target]) {
        *lock(&self.watched) = targets.to_vec();
    }
}

/// Why the sampler did not answer.
#[derive(Debug, thiserror::Error)]
pub enum SamplerError {
    /// The kernel's counters cannot be read, or its programs not be changed.
    #[error(transparent)]
    Source(SourceError),
    /// No thread can be made.
    #[error("the operating system refuses a thread")]
    Thread(#[source] io::Error),
    /// Its thread has ended.
    #[error("the sampler has ended")]
    Ended,
}

enum Command {
    Read(oneshot::Sender<Result<Observation, SourceError>>),
    SetLevel(Level, oneshot::Sender<Result<(), SourceError>>),
    Watch(Vec<Target>),
    WatchOnly(Vec<Target>),
    Stop,
}

/// The running sampler; it ends when this is dropped.
#[derive(Debug)]
pub struct Sampler {
    level: Level,
    commands: Sender<Command>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What a sampler samples.
#[derive(Debug)]
pub struct SamplerOptions {
    /// The shortest time between two samples.
    pub interval: Duration,
    /// What the programs are to look at.
    pub level: Level,
    /// The watched cgroups.
    pub targets: Vec<Target>,
}

impl Sampler {
    /// Opens the source and starts sampling.
    ///
    /// # Errors
    /// Where the source cannot be opened, or no thread be made.
    pub fn start(mut open: Opener, options: SamplerOptions) -> Result<Self, SamplerError> {
        let cgroups = Cgroups::of(options.targets);
        let opened = open(cgroups.targets(), options.level).map_err(SamplerError::Source)?;
        let shared = Arc::new(Shared {
            samples: DropOldest::new(SAMPLES_MAX),
            newest: ArcSwapOption::empty(),
            backends: watch::channel(Arc::default()).0,
            failures: AtomicU64::new(0),
            watched: Mutex::default(),
        });
        shared.watches(cgroups.targets());
        // Where nothing is watched yet, nothing has a level.
        let level = if cgroups.targets().is_empty() {
            options.level
        } else {
            opened.level
        };
        let opened = Opened { level, ..opened };
        let (commands, receiver) = channel();
        let state = State::new(open, opened, cgroups, options.interval, Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("sampler".to_owned());
        let thread = thread.spawn(move || state.run(&receiver));
        Ok(Self {
            level,
            commands,
            shared,
            thread: Some(thread.map_err(SamplerError::Thread)?),
        })
    }

    /// What the programs looked at when sampling began.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// What everyone may look at.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Someone who can ask.
    #[must_use]
    pub fn handle(&self) -> SamplerHandle {
        SamplerHandle {
            commands: self.commands.clone(),
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        self.commands.send(Command::Stop).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Asks the sampler.
#[derive(Clone, Debug)]
pub struct SamplerHandle {
    commands: Sender<Command>,
}

impl SamplerHandle {
    /// Everything at this instant, histograms included.
    ///
    /// # Errors
    /// Where the counters cannot be read.
    pub async fn read(&self) -> Result<Observation, SamplerError> {
        self.ask(Command::Read).await
    }

    /// Changes what the programs look at.
    ///
    /// # Errors
    /// Where they cannot be changed.
    pub async fn set_level(&self, level: Level) -> Result<(), SamplerError> {
        self.ask(|reply| Command::SetLevel(level, reply)).await
    }

    /// Watches these too, from about a second after.
    pub fn watch(&self, targets: &[Target]) {
        // A sampler that is gone is noticed by the next report.
        self.commands.send(Command::Watch(targets.to_vec())).ok();
    }

    /// Watches these and no others, from about a second after.
    pub fn watch_only(&self, targets: &[Target]) {
        let command = Command::WatchOnly(targets.to_vec());
        self.commands.send(command).ok();
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, SourceError>>) -> Command,
    ) -> Result<T, SamplerError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(command(reply));
        sent.map_err(|_| SamplerError::Ended)?;
        let answer = answer.await.map_err(|_| SamplerError::Ended)?;
        answer.map_err(SamplerError::Source)
    }
}

struct State {
    open: Opener,
    // Absent after it could not be opened again.
    source: Option<Box<dyn CounterSource>>,
    level: Level,
    cgroups: Cgroups,
    // What the programs could be attached to the last time.
    counted: Vec<Target>,
    host: HostReader,
    running_names: RunningNames,
    pace: Pace,
    // The time that the next sample is due after the last one.
    interval: Duration,
    shared: Arc<Shared>,
    earlier_at: Instant,
    earlier_host: HostSample,
    earlier: Option<Arc<CounterSnapshot>>,
    judged: (Instant, u64),
    reasons: BTreeSet<String>,
}

impl State {
    fn new(
        open: Opener,
        opened: Opened,
        cgroups: Cgroups,
        interval: Duration,
        shared: Arc<Shared>,
    ) -> Self {
        let mut host = HostReader::open(Path::new("/proc"), Path::new("/"));
        let earlier_host = host.sample();
        let at = clock::now();
        Self {
            open,
            source: Some(opened.source),
            level: opened.level,
            counted: cgroups.targets().to_vec(),
            cgroups,
            host,
            running_names: RunningNames::default(),
            pace: Pace::new(interval),
            interval,
            shared,
            earlier_at: at,
            earlier_host,
            earlier: None,
            judged: (at, process_cpu_ns()),
            reasons: BTreeSet::new(),
        }
    }

    fn run(mut self, commands: &Receiver<Command>) {
        let mut due = StdInstant::now();
        loop {
            let wait = due.saturating_duration_since(StdInstant::now());
            match commands.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => due = StdInstant::now() + self.sample(),
                // Who asked may have gone in the meantime.
                Ok(Command::Read(reply)) => drop(reply.send(self.read())),
                Ok(Command::SetLevel(level, reply)) => drop(reply.send(self.set_level(level))),
                Ok(Command::Watch(targets)) => {
                    self.cgroups.add(targets);
                    self.shared.watches(self.cgroups.targets());
                }
                Ok(Command::WatchOnly(targets)) => {
                    self.cgroups.replace(targets);
                    self.shared.watches(self.cgroups.targets());
                }
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Takes one sample and says how long to wait for the next.
    fn sample(&mut self) -> Duration {
        let at = clock::now();
        self.follow_cgroups(at);
        let host = self.host.sample();
        let elapsed_ns = at.boot_ns.saturating_sub(self.earlier_at.boot_ns);
        if Duration::from_nanos(elapsed_ns) > self.interval + GAP {
            let gap = "nothing was sampled for seconds: the agent was stopped, or had no CPU";
            self.reasons.insert(gap.to_owned());
        }
        let gauges = gauges::between(&self.earlier_host, &host, elapsed_ns);
        let kernel = self.read_kernel();
        let both = self.earlier.as_deref().zip(kernel.as_deref());
        let both = both.map(|(earlier, later)| (&*earlier.endpoints, &*later.endpoints));
        let traffic = both.is_some_and(|(earlier, later)| saw_traffic(earlier, later));
        self.shared.samples.push(Sample {
            elapsed_ns,
            gauges,
            round_trips: both.map(|(a, b)| round_trips(a, b)).unwrap_or_default(),
        });
        self.judge(at);
        let interval = self.pace.next(traffic);
        self.interval = interval;
        self.shared.newest.store(Some(Arc::new(Newest {
            at,
            gauges,
            kernel: kernel.clone(),
            took: Duration::from_nanos(clock::now().boot_ns.saturating_sub(at.boot_ns)),
            interval,
            level: self.level,
        })));
        self.publish_backends(at);
        self.earlier_at = at;
        self.earlier_host = host;
        self.earlier = kernel.or(self.earlier.take());
        interval
    }

    fn source(&mut self) -> Result<&mut Box<dyn CounterSource>, SourceError> {
        let source = self.source.as_mut();
        source.ok_or_else(|| "the programs could not be attached again".into())
    }

    /// Opens the source anew when a watched cgroup was made anew: the programs
    /// are still attached to the one that is gone.
    fn follow_cgroups(&mut self, at: Instant) {
        if !self.cgroups.due(at) || !(self.cgroups.replaced() || self.source.is_none()) {
            return;
        }
        // The one before holds locks that the next one needs.
        self.source = None;
        let present = self.cgroups.remember();
        let mut opened = (self.open)(&present, self.level);
        if let Err(error) = &opened {
            if once_a_minute("a watched cgroup") {
                let error = daemon::error_chain(&**error);
                tracing::warn!(error, "a watched cgroup has come and cannot be counted");
            }
            // One that cannot be counted keeps no other from it.
            let known = |target: &&Target| self.counted.contains(target);
            let known: Vec<_> = present.iter().filter(known).cloned().collect();
            if known.len() < present.len() && !known.is_empty() {
                opened = (self.open)(&known, self.level);
            }
        } else {
            tracing::info!("a watched cgroup has come; it is counted from now on");
            self.counted.clone_from(&present);
        }
        if let Ok(opened) = opened {
            self.source = Some(opened.source);
            if !present.is_empty() {
                self.level = opened.level;
            }
        }
    }

    fn read_kernel(&mut self) -> Option<Arc<CounterSnapshot>> {
        match self.source().and_then(|s| s.counter_snapshot()) {
            Ok(snapshot) => Some(Arc::new(snapshot)),
            Err(error) => {
                // The first one is told; `status` and the reports have the count.
                if self.shared.failures.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(%error, "the kernel's counters cannot be read");
                }
                None
            }
        }
    }

    /// Costs nothing while nobody is subscribed.
    fn publish_backends(&mut self, at: Instant) {
        if self.shared.backends.receiver_count() == 0 {
            return;
        }
        // A failure was told by `read_kernel`, and the next sample tries again.
        if let Ok(endpoints) = self.source().and_then(|s| s.backend_counters()) {
            self.shared.backends.send_replace(Arc::new(BackendCounters {
                at,
                interval: self.interval,
                level: self.level,
                endpoints,
            }));
        }
    }

    fn judge(&mut self, at: Instant) {
        let (judged_at, judged_cpu_ns) = self.judged;
        let elapsed = Duration::from_nanos(at.boot_ns.saturating_sub(judged_at.boot_ns));
        if elapsed >= JUDGED_OVER {
            let cpu_ns = process_cpu_ns();
            let used = Duration::from_nanos(cpu_ns.saturating_sub(judged_cpu_ns));
            self.pace.consumed(used, elapsed);
            self.judged = (at, cpu_ns);
        }
    }

    fn read(&mut self) -> Result<Observation, SourceError> {
        // However far apart samples are, every window has one, at its end.
        self.sample();
        let kernel = self.source()?.read()?;
        Ok(Observation {
            environment: environment(
                &mut self.host,
                self.cgroups.targets(),
                &mut self.running_names,
            ),
            kernel,
            level: self.level,
            names: Arc::default(),
            notes: Vec::new(),
            incomplete_reasons: std::mem::take(&mut self.reasons),
        })
    }

    fn set_level(&mut self, level: Level) -> Result<(), SourceError> {
        if level != self.level {
            // Attempts that fail half-way changed something, too.
            self.reasons.insert("the level was changed".to_owned());
            self.source()?.set_level(level)?;
            self.level = level;
            // Who asks from now on is told the new level.
            self.sample();
        }
        Ok(())
    }
}

/// Everything but the kernel's counters, now.
#[must_use]
pub fn environment(
    host: &mut HostReader,
    targets: &[Target],
    names: &mut RunningNames,
) -> Environment {
    names.follow(targets, Path::new("/"));
    let reading = |target| target_reading(target, names.of(target));
    Environment {
        at: clock::now(),
        monotonic_ns: monotonic_ns(),
        host: host.detail(),
        targets: targets.iter().map(reading).collect(),
        namespaces: namespaces(targets),
        agent_cpu_ns: process_cpu_ns(),
        agent_memory_bytes: resident_bytes(),
        ..Environment::default()
    }
}

fn target_reading(target: &Target, names: ContainerNames) -> TargetReading {
    TargetReading {
        names,
        label: Arc::clone(&target.label),
        cgroup_id: cgroups::id(target).unwrap_or(0),
        process: target::first_process(target),
        usage: read_cgroup(&target.path),
    }
}

/// The network namespaces that the targets' first processes are in.
fn namespaces(targets: &[Target]) -> Vec<v1::NetworkNamespace> {
    let mut found: Vec<v1::NetworkNamespace> = Vec::new();
    for pid in targets.iter().filter_map(target::first_pid) {
        let namespace = namespace::read(Path::new("/proc"), pid);
        found.extend(namespace.filter(|n| found.iter().all(|f| f.id != n.id)));
    }
    found
}

/// The agent's resident memory.
pub(crate) fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests;
