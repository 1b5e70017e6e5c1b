//! Spool, acknowledgements, epochs and windows together, without a clock: whatever
//! happens to the process, its disk or its files, what a collector has adds up to
//! what was counted, and what is missing is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use kernel_sample::{EndpointAddress, EndpointId, EndpointSample, Instant, KernelSample, Level};
use monitor_agent::resume::Resume;
use monitor_common::{counters::EndpointCounters, endpoint::Role, http::Method};
use monitor_proto::ReportKey;
use monitor_proto::v1;
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use prost::Message;
use spool::{Losses, Settled, Spool, checkpoint::Checkpoint};
use window::{ContainerNames, Environment, Observation, TargetReading, Windows};

use super::disk::Disk;

const SPOOL_BYTES: u64 = 24 << 10;
const START_MS: u64 = 1_763_860_000_000;

/// Where an agent is killed.
#[derive(Clone, Copy, Debug)]
enum Kill {
    BetweenReports,
    AmidAppend,
    BeforeCheckpoint,
}

#[derive(Clone, Debug)]
enum Step {
    Traffic(u8),
    Report,
    Deliver {
        reports: u8,
        last_is_acked: bool,
    },
    Kill(Kill),
    Snapshot,
    Restore,
    Empty,
    RemoveUnder,
    LoseCheckpoint,
    DamageState,
    Flip {
        running: bool,
        file: Index,
        at: Index,
    },
    Fill,
    Free,
    Reboot,
}

fn step(can_fill: bool) -> impl Strategy<Value = Step> {
    let fill = move |step| if can_fill { step } else { Step::Report };
    prop_oneof![
        8 => any::<u8>().prop_map(Step::Traffic),
        8 => Just(Step::Report),
        6 => (0u8..6, any::<bool>()).prop_map(|(reports, last_is_acked)| {
            Step::Deliver { reports, last_is_acked }
        }),
        1 => Just(Step::Kill(Kill::BetweenReports)),
        1 => Just(Step::Kill(Kill::AmidAppend)),
        1 => Just(Step::Kill(Kill::BeforeCheckpoint)),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Restore),
        1 => Just(Step::Empty),
        1 => Just(Step::RemoveUnder),
        1 => Just(Step::LoseCheckpoint),
        1 => Just(Step::DamageState),
        1 => (any::<bool>(), any::<Index>(), any::<Index>())
            .prop_map(|(running, file, at)| Step::Flip { running, file, at }),
        2 => Just(fill(Step::Fill)),
        2 => Just(fill(Step::Free)),
        1 => Just(Step::Reboot),
    ]
}

struct Running {
    spool: Spool,
    windows: Windows,
    reasons: BTreeSet<String>,
}

/// One host with its agent, and the collector that it reports to.
struct World {
    base: PathBuf,
    // Survives what happens to the disk of the spool, as /run does.
    _run: tempfile::TempDir,
    checkpoint: PathBuf,
    agent: Option<Running>,
    now_ms: u64,
    boot: u32,
    since_unix_ns: u64,
    counted: u64,
    // Of earlier boots, as far as it was reported.
    counted_before: u64,
    // Keys, bodies, and what is in their windows.
    made: Vec<(ReportKey, Vec<u8>, u64)>,
    made_twice: u64,
    // Of this boot: in the windows, and known to be in the totals alone.
    in_windows: u64,
    in_totals_alone: u64,
    totals_alone_before: u64,
    stored: BTreeMap<ReportKey, (Vec<u8>, u64)>,
    copy_is_unused: bool,
    keys_may_repeat: bool,
    losses_told: u64,
    told: bool,
    // Whether what was reported last may be unknown, or known wrongly.
    checkpoint_is_lost: bool,
    is_removed: bool,
    is_restored: bool,
    copy_is_trusted: bool,
    is_damaged: bool,
    // The report that an agent was killed after, before anybody else had it.
    behind: Option<ReportKey>,
    copy_has_it: bool,
    is_at_risk: bool,
}

impl World {
    fn new(base: &Path) -> Self {
        let run = tempfile::tempdir().unwrap();
        let mut world = Self {
            base: base.to_owned(),
            checkpoint: run.path().join("agent.checkpoint"),
            _run: run,
            agent: None,
            now_ms: START_MS,
            boot: 1,
            since_unix_ns: 0,
            counted: 0,
            counted_before: 0,
            made: Vec::new(),
            made_twice: 0,
            in_windows: 0,
            in_totals_alone: 0,
            totals_alone_before: 0,
            stored: BTreeMap::new(),
            copy_is_unused: false,
            keys_may_repeat: false,
            losses_told: 0,
            told: false,
            checkpoint_is_lost: true,
            is_removed: false,
            is_restored: false,
            copy_is_trusted: false,
            is_damaged: false,
            behind: None,
            copy_has_it: false,
            is_at_risk: false,
        };
        world.start();
        world
    }

    fn spool_dir(&self) -> PathBuf {
        self.base.join("spool")
    }

    fn boot_id(&self) -> String {
        format!("boot {}", self.boot)
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint::of(self.checkpoint.clone(), &self.boot_id(), Path::new("/pins"))
    }

    /// As `run` does it; the programs are attached once the spool is open.
    fn start(&mut self) {
        if self.agent.is_some() {
            return;
        }
        self.now_ms += 10;
        let opened = Spool::open(&self.spool_dir(), SPOOL_BYTES, self.now_ms);
        // A full disk may not even take what is new of a spool.
        let Ok((mut spool, recovered)) = opened else {
            return;
        };
        let (checkpoint, boot_id) = (self.checkpoint(), self.boot_id());
        if self.is_restored {
            // Without a checkpoint nothing is left that could tell.
            self.told = true;
            if checkpoint.read().is_none() {
                (self.copy_is_trusted, self.keys_may_repeat) = (true, true);
            }
        }
        let resume = Resume::find(&mut spool, recovered, &checkpoint, &boot_id, self.now_ms);
        let Ok(resume) = resume else { return };
        // What the spool has the checkpoint has too, from now on, unless it is damaged.
        self.is_at_risk = self.behind.take().is_some();
        self.checkpoint_is_lost |= self.is_at_risk;
        self.now_ms += 10;
        if self.since_unix_ns == 0 {
            self.since_unix_ns = self.now_ms * 1_000_000;
        }
        let host = v1::Host {
            boot_id,
            ..v1::Host::default()
        };
        let start = self.environment(spool.told());
        let windows = Windows::new(host, resume.baseline, start);
        self.agent = Some(Running {
            spool,
            windows: windows.reported_until(resume.reported_until_unix_ns),
            reasons: resume.reasons,
        });
    }

    fn environment(&self, spool_losses: Losses) -> Environment {
        let at_ns = self.now_ms * 1_000_000;
        Environment {
            at: Instant {
                unix_ns: at_ns,
                boot_ns: at_ns - START_MS * 1_000_000,
            },
            targets: vec![TargetReading {
                names: ContainerNames::default(),
                label: Arc::from("/web"),
                cgroup_id: 1,
                process: String::new(),
                usage: Default::default(),
            }],
            spool_losses: spool_losses.by_reason().into(),
            ..Environment::default()
        }
    }

    fn reading(&self, agent: &Running) -> Observation {
        let mut counters = EndpointCounters::ZERO;
        counters.requests[Method::Get as usize] = self.counted;
        let endpoint = EndpointSample {
            id: EndpointId {
                target: Arc::from("/web"),
                role: Role::Downstream,
                address: EndpointAddress::Socket(([127, 0, 0, 1], 80).into()),
            },
            counters: Box::new(counters),
            since_unix_ns: self.since_unix_ns,
        };
        Observation {
            environment: self.environment(agent.spool.losses()),
            kernel: KernelSample {
                endpoints: vec![endpoint],
                since_unix_ns: self.since_unix_ns,
                ..KernelSample::default()
            },
            level: Level::Http,
            names: Arc::default(),
            incomplete_reasons: agent.reasons.clone(),
            notes: Vec::new(),
        }
    }

    /// `kill` says where the agent is killed on the way.
    fn report(&mut self, kill: Option<Kill>) -> Result<(), TestCaseError> {
        self.now_ms += 5_000;
        let Some(mut agent) = self.agent.take() else {
            return Ok(());
        };
        let key = agent.spool.next_key();
        let closed = agent.windows.close(key, self.reading(&agent), &[]);
        let report = closed.report.encode_to_vec();
        let baseline = closed.baseline.encode();
        if matches!(kill, Some(Kill::AmidAppend)) {
            self.told |= self.is_removed;
            self.tear(&report);
            return Ok(());
        }
        if agent.spool.append(&report, &baseline).is_err() {
            self.agent = Some(agent);
            return Ok(());
        }
        self.check(key, &closed.report, report)?;
        if matches!(kill, Some(Kill::BeforeCheckpoint)) {
            (self.behind, self.copy_has_it) = (Some(key), false);
            return Ok(());
        }
        self.is_removed = false;
        self.checkpoint().write(key, &baseline);
        self.checkpoint_is_lost = false;
        agent.windows.commit(closed);
        agent.reasons.clear();
        self.agent = Some(agent);
        Ok(())
    }

    /// A window has what was counted since the last one, or says that it does not.
    fn check(
        &mut self,
        key: ReportKey,
        report: &v1::Report,
        body: Vec<u8>,
    ) -> Result<(), TestCaseError> {
        let endpoint = &report.endpoints[0];
        let requests =
            |c: &Option<v1::Counters>| c.as_ref().unwrap().http.as_ref().unwrap().requests;
        let (delta, totals) = (requests(&endpoint.window), requests(&endpoint.totals));
        prop_assert_eq!(totals, self.counted, "totals are never wrong");
        self.told |= report
            .incomplete_reasons
            .iter()
            .any(|r| r.contains("the spool was"));
        let is_unknown = report
            .incomplete_reasons
            .iter()
            .any(|r| r.contains("not known any more"));
        let missing = self.counted - self.in_windows - self.in_totals_alone;
        if is_unknown {
            prop_assert!(self.checkpoint_is_lost, "a checkpoint tells");
            prop_assert_eq!(delta, 0);
            self.in_totals_alone += missing;
        } else if self.copy_is_trusted {
            // The collector tells: it has another report by this key.
            self.made_twice += delta.saturating_sub(missing);
        } else if self.is_at_risk && self.is_damaged && delta > missing {
            // It was damaged before anybody had it: its window was open again.
            let (_, _, unread) = self.made.pop().unwrap();
            prop_assert_eq!(delta, missing + unread, "{:?}", key);
        } else {
            prop_assert_eq!(delta, missing, "{:?}", key);
        }
        let told = Losses::from_reasons(|reason| report.losses.get(reason).copied());
        self.losses_told += told.by_reason().iter().map(|(_, n)| n).sum::<u64>();
        (self.is_at_risk, self.is_restored) = (false, false);
        self.copy_is_trusted = false;
        self.in_windows = self.counted - self.in_totals_alone;
        let is_new = self.made.iter().all(|(made, ..)| *made != key);
        let may_repeat = self.made_twice > 0 || self.is_damaged || self.keys_may_repeat;
        prop_assert!(is_new || may_repeat, "{:?} is given out twice", key);
        self.made.push((key, body, delta));
        Ok(())
    }

    /// The spool goes, and with it a report that nobody else has: its window is open
    /// again.
    fn undo(&mut self) {
        if self.behind.take().is_some()
            && let Some((_, _, delta)) = self.made.pop()
        {
            self.in_windows -= delta;
        }
    }

    fn kill(&mut self) {
        // Nobody is left who knows of what was removed.
        self.told |= std::mem::take(&mut self.is_removed);
        self.agent = None;
    }

    /// Part of a record behind the last one, as a killed agent leaves it.
    fn tear(&self, report: &[u8]) {
        let Some(last) = self.segments().pop() else {
            return;
        };
        let mut bytes = fs::read(&last).unwrap();
        bytes.extend((report.len() as u32 + 100).to_le_bytes());
        bytes.extend(&report[..report.len() / 2]);
        // The disk may be full.
        fs::write(&last, bytes).ok();
    }

    fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.spool_dir())
            .into_iter()
            .flatten()
            .flatten();
        let paths = entries.map(|entry| entry.path());
        let mut paths: Vec<_> = paths
            .filter(|p| p.extension().is_some_and(|e| e == "seg"))
            .collect();
        paths.sort();
        paths
    }

    fn deliver(&mut self, reports: u8, last_is_acked: bool) -> Result<(), TestCaseError> {
        let Some(agent) = &mut self.agent else {
            return Ok(());
        };
        agent.spool.rewind();
        for n in 0..reports {
            let Some(pending) = agent.spool.read_next().unwrap() else {
                break;
            };
            let sent = v1::Report::decode(&*pending.report).unwrap();
            let key = ReportKey {
                epoch: sent.agent.as_ref().unwrap().epoch,
                sequence: sent.sequence,
            };
            prop_assert_eq!(key, pending.key);
            let delta = sent.endpoints[0]
                .window
                .as_ref()
                .unwrap()
                .http
                .as_ref()
                .unwrap()
                .requests;
            let settled = match self.stored.get(&key) {
                Some((body, _)) if *body == pending.report => Settled::Delivered,
                Some(_) => {
                    if agent.spool.next_key().epoch == key.epoch {
                        agent.spool.begin_epoch(self.now_ms, key).ok();
                    }
                    Settled::Conflicting
                }
                None => {
                    self.stored.insert(key, (pending.report, delta));
                    Settled::Delivered
                }
            };
            if n + 1 < reports || last_is_acked {
                prop_assert!(agent.spool.acknowledge(key, settled));
            }
        }
        Ok(())
    }

    fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Traffic(requests) => self.counted += u64::from(requests),
            Step::Report => {
                self.start();
                self.report(None)?;
            }
            Step::Deliver {
                reports,
                last_is_acked,
            } => self.deliver(reports, last_is_acked)?,
            Step::Kill(kill) => {
                self.report(Some(kill))?;
                self.kill();
            }
            Step::Snapshot => {
                fs::remove_dir_all(self.base.join("copy")).ok();
                copy(&self.spool_dir(), &self.base.join("copy"));
                self.copy_is_unused = self.segments().is_empty();
                self.copy_has_it = true;
            }
            Step::Restore if self.base.join("copy").exists() => {
                self.kill();
                if !self.copy_has_it {
                    self.undo();
                }
                self.is_restored = true;
                self.keys_may_repeat |= self.copy_is_unused;
                fs::remove_dir_all(self.spool_dir()).ok();
                copy(&self.base.join("copy"), &self.spool_dir());
            }
            Step::Restore => {}
            Step::RemoveUnder if self.agent.is_some() => {
                self.is_removed = true;
                fs::remove_dir_all(self.spool_dir()).ok();
            }
            Step::Empty | Step::RemoveUnder => {
                self.kill();
                self.undo();
                if self.copy_has_it {
                    fs::remove_dir_all(self.base.join("copy")).ok();
                }
                self.told = true;
                (self.is_restored, self.copy_is_trusted) = (false, false);
                fs::remove_dir_all(self.spool_dir()).ok();
            }
            Step::LoseCheckpoint => {
                fs::remove_file(&self.checkpoint).ok();
                self.checkpoint_is_lost = true;
            }
            Step::DamageState => {
                self.kill();
                fs::write(self.spool_dir().join("state"), "nonsense").ok();
                self.is_damaged = true;
            }
            Step::Flip { running, file, at } => {
                if !running {
                    self.kill();
                }
                self.flip(file, at);
            }
            Step::Fill => fill(&self.base.join("ballast")),
            Step::Free => drop(fs::remove_file(self.base.join("ballast"))),
            Step::Reboot => {
                self.kill();
                self.boot += 1;
                // What was not reported is gone with the kernel that counted it.
                self.counted_before += self.in_windows;
                self.totals_alone_before += self.in_totals_alone;
                (self.counted, self.since_unix_ns) = (0, 0);
                (self.in_windows, self.in_totals_alone) = (0, 0);
                self.checkpoint_is_lost = true;
                self.copy_is_trusted = false;
                self.behind = None;
            }
        }
        Ok(())
    }

    fn flip(&mut self, file: Index, at: Index) {
        let segments = self.segments();
        if segments.is_empty() {
            return;
        }
        let path = &segments[file.index(segments.len())];
        let mut bytes = fs::read(path).unwrap();
        if bytes.is_empty() {
            return;
        }
        let at = at.index(bytes.len());
        bytes[at] ^= 0x10;
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, &bytes[at..=at], at as u64).ok();
        self.is_damaged = true;
    }

    fn settle(&mut self) -> Result<(), TestCaseError> {
        drop(fs::remove_file(self.base.join("ballast")));
        self.start();
        self.report(None)?;
        while self.agent.as_ref().is_some_and(|a| a.spool.pending() > 0) {
            self.deliver(20, true)?;
        }
        // What a conflict or a damaged report took away is told now.
        self.report(None)?;
        self.deliver(20, true)?;
        self.kill();
        let stored: u64 = self.stored.values().map(|(_, delta)| delta).sum();
        let counted = self.counted_before + self.in_windows;
        let is_stored = |key, body| self.stored.get(key).is_some_and(|(have, _)| have == body);
        let not_stored = self
            .made
            .iter()
            .filter(|(key, body, _)| !is_stored(key, body));
        let lost: Vec<u64> = not_stored.map(|(_, _, delta)| *delta).collect();
        let made = stored + lost.iter().sum::<u64>();
        prop_assert_eq!(made, counted + self.made_twice, "windows add up");
        if !self.is_damaged {
            prop_assert!(
                stored <= counted,
                "nothing is there twice: {} of {}",
                stored,
                counted
            );
        }
        prop_assert!(
            lost.len() as u64 <= self.losses_told || self.told,
            "{} of {}",
            lost.len(),
            self.losses_told
        );
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).ok();
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        // A full disk takes part of it.
        fs::copy(entry.path(), to.join(entry.file_name())).ok();
    }
}

/// Takes what is left of the disk.
fn fill(path: &Path) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path);
    if let Ok(file) = &mut file {
        while std::io::Write::write_all(file, &[0; 4_096]).is_ok() {}
    }
}

/// Tried with the same steps each time; `SPEEDMIMI_TEST_SEED` gives others.
fn adds_up(base: &Path, can_fill: bool) {
    let given = std::env::var("SPEEDMIMI_TEST_SEED").ok();
    let seed = given.map_or(1, |seed| seed.parse::<u64>().unwrap());
    let bytes: Vec<u8> = seed.to_le_bytes().repeat(4);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    };
    let steps = prop::collection::vec(step(can_fill), 1..80);
    let tried = TestRunner::new_with_rng(config, rng).run(&steps, |steps| {
        for entry in fs::read_dir(base).unwrap().flatten() {
            drop(fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path())));
        }
        let mut world = World::new(base);
        for step in &steps {
            world.apply(step)?;
        }
        world.settle()
    });
    if let Err(error) = tried {
        panic!("SPEEDMIMI_TEST_SEED={seed}: {error}");
    }
}

pub(crate) fn windows_add_up_whatever_happens_to_the_spool() {
    let dir = tempfile::tempdir().unwrap();
    adds_up(dir.path(), false);
}

pub(crate) fn windows_add_up_on_a_disk_that_fills() {
    let disk = Disk::mount("96k").unwrap();
    adds_up(disk.path(), true);
}
