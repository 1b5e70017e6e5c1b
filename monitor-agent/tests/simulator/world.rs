//! One host with its agent, its disk and its connection to the collector.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};

use delivery::session::Session;
use fastrand::Rng;
use kernel_sample::{EndpointAddress, EndpointId, EndpointSample, Instant, KernelSample, Level};
use monitor_agent::resume::Resume;
use monitor_common::{counters::EndpointCounters, endpoint::Role, http::Method};
use monitor_proto::{
    ReportKey,
    v1::{self, ExportOutcome},
};
use prost::Message;
use spool::{Losses, Pending, Settled, Spool, checkpoint::Checkpoint};
use window::{ContainerNames, Environment, Observation, TargetReading, Windows};

use crate::{
    collector::{Collector, Kept},
    disk::{HostDisk, RUN},
};

const SPOOL: &str = "/spool";
/// A segment holds a few reports, and the spool a few segments.
const SPOOL_BYTES: u64 = 12 << 10;
const START_MS: u64 = 1_763_860_000_000;

/// What may happen besides kills, power failures and full disks, which are always
/// possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    /// Nothing: then every figure is exact.
    None,
    /// Files are removed, and older copies restored: every figure is exact unless
    /// nothing is left that tells what was reported.
    Replacement,
    /// Bits flip besides, and clocks are set.
    Damage,
}

struct Running {
    spool: Spool,
    windows: Windows,
    reasons: BTreeSet<String>,
    connection: Option<Connection>,
}

/// What is under way in both directions.
struct Connection {
    session: Session,
    sent: VecDeque<Pending>,
    answers: VecDeque<v1::ExportResponse>,
}

/// A report that was made.
struct Made {
    body: Vec<u8>,
    requests: u64,
    // What was counted since the totals that its window began from.
    since_baseline: u64,
    // What was counted and in no report yet.
    missing: u64,
    losses_told: u64,
    is_unknown: bool,
    says_damage: bool,
}

pub(crate) struct World<'a, D> {
    host: String,
    faults: Faults,
    rng: Rng,
    disk: D,
    collector: &'a Collector,
    kept: Kept,
    agent: Option<Running>,
    copy: Option<BTreeMap<PathBuf, Vec<u8>>>,
    rejects: bool,
    // The clocks: of the wall, which is set, and of the boot.
    unix_ms: u64,
    boot_ms: u64,
    boot: u32,
    since_unix_ns: u64,
    // The truth, of this boot and of those before as far as it was reported.
    counted: u64,
    counted_before: u64,
    // Of this boot: in the windows, and told to be in the totals alone.
    in_windows: u64,
    in_totals_alone: u64,
    in_totals_alone_before: u64,
    made: Vec<(ReportKey, Made)>,
    // What is in two windows, as the older one was forgotten.
    made_twice: u64,
    // What the next window begins from.
    baseline: u64,
    // The agent was killed while it made this one.
    in_doubt: Option<(ReportKey, Made)>,
    // The last report is in the spool, and not in the checkpoint.
    is_behind: bool,
    // Since the last report that is in both.
    checkpoint_is_lost: bool,
    losses_told: u64,
    says_damage: bool,
    // The spool is another one than the last agent left.
    is_replaced: bool,
    // It was removed under an agent that has not told so yet.
    is_removed: bool,
    // Those that the agent knows to be stored, and still does after a restart.
    acknowledged: BTreeSet<ReportKey>,
}

impl<'a, D: HostDisk> World<'a, D> {
    pub(crate) fn new(seed: u64, faults: Faults, disk: D, collector: &'a Collector) -> Self {
        let mut rng = Rng::with_seed(seed);
        // A report whose key is used again would be taken in the end.
        let rejects = faults != Faults::Replacement && rng.u8(..4) == 0;
        Self {
            host: format!("host-{seed}"),
            faults,
            rng,
            disk,
            collector,
            kept: Kept::default(),
            agent: None,
            copy: None,
            rejects,
            unix_ms: START_MS,
            boot_ms: 1,
            boot: 1,
            since_unix_ns: 0,
            counted: 0,
            counted_before: 0,
            in_windows: 0,
            in_totals_alone: 0,
            in_totals_alone_before: 0,
            made: Vec::new(),
            made_twice: 0,
            baseline: 0,
            in_doubt: None,
            is_behind: false,
            checkpoint_is_lost: true,
            losses_told: 0,
            says_damage: false,
            is_replaced: false,
            is_removed: false,
            acknowledged: BTreeSet::new(),
        }
    }

    pub(crate) fn run(mut self) {
        for _ in 0..self.rng.u32(10..80) {
            self.step();
        }
        self.settle();
        self.check();
    }

    fn step(&mut self) {
        match self.rng.u8(..100) {
            0..20 => self.counted += self.rng.u64(..100),
            20..45 => self.report(),
            45..55 => self.connect(),
            55..65 => self.send(),
            65..75 => self.collect(),
            75..85 => self.take_answers(),
            85..87 => self.disk.kill_in(self.rng.u32(..12)),
            87 => self.kill(),
            88 => self.fail_power(),
            89 => self.disk.leave_room(Some(self.rng.usize(..1_500))),
            90..92 => self.disk.leave_room(None),
            // With keys that are used again nothing would tell the reports apart.
            92 if self.faults != Faults::Replacement => {
                self.unix_ms = self.rng.u64(START_MS / 2..START_MS * 2);
            }
            92 | 93 => self.disconnect(),
            _ if self.faults == Faults::None => self.report(),
            94 | 95 if self.faults == Faults::Replacement => self.report(),
            94 => self.disk.flip(SPOOL.as_ref()),
            95 => {
                self.kill();
                self.disk.flip(SPOOL.as_ref());
            }
            96 => self.copy = Some(self.disk.copy(SPOOL.as_ref())),
            97 => {
                if let Some(copy) = self.copy.clone() {
                    self.kill();
                    self.disk.restore(SPOOL.as_ref(), &copy);
                    self.is_replaced = true;
                }
            }
            98 => {
                if self.faults == Faults::Damage || self.rng.bool() {
                    self.kill();
                }
                self.remove_spool();
            }
            _ => {
                self.kill();
                self.disk.restore(RUN.as_ref(), &BTreeMap::new());
                self.checkpoint_is_lost = true;
            }
        }
        if self.disk.is_killed() {
            self.kill();
        }
    }

    fn pass(&mut self, ms: u64) {
        self.unix_ms += ms;
        self.boot_ms += ms;
    }

    fn kill(&mut self) {
        self.agent = None;
        self.disk.revive();
        // Nobody is left who knows of what was removed.
        self.says_damage |= std::mem::take(&mut self.is_removed);
    }

    /// Under the agent, where one runs.
    fn remove_spool(&mut self) {
        self.disk.restore(SPOOL.as_ref(), &BTreeMap::new());
        self.is_removed = self.agent.is_some();
        self.is_replaced = self.agent.is_none();
    }

    /// The kernel's counters go with the boot, and what was not reported of them.
    fn fail_power(&mut self) {
        self.kill();
        self.disk.fail_power();
        self.acknowledged.clear();
        self.reboot();
    }

    fn reboot(&mut self) {
        // What is in doubt is of the boot that ends.
        if self.in_doubt.is_some() {
            let copy = self.disk.fork();
            copy.leave_room(None);
            let disk = copy.files();
            let opened = Spool::open_on(disk, SPOOL.as_ref(), SPOOL_BYTES, self.unix_ms);
            self.resolve(
                opened
                    .map(|(_, recovered)| recovered.newest)
                    .unwrap_or_default(),
            );
        }
        self.counted_before += self.in_windows + self.in_totals_alone;
        self.in_totals_alone_before += self.in_totals_alone;
        (self.counted, self.in_windows, self.in_totals_alone) = (0, 0, 0);
        (self.since_unix_ns, self.boot_ms) = (0, 1);
        (self.is_behind, self.checkpoint_is_lost) = (false, true);
        self.boot += 1;
    }

    fn boot_id(&self) -> String {
        format!("boot {}", self.boot)
    }

    fn checkpoint(&self) -> Checkpoint {
        let path = Path::new(RUN).join("agent.checkpoint");
        Checkpoint::on(self.disk.files(), path, &self.boot_id(), Path::new("/pins"))
    }

    /// As the agent does it; the programs are attached once the spool is open.
    fn start(&mut self) {
        if self.agent.is_some() {
            return;
        }
        self.pass(10);
        let opened = Spool::open_on(self.disk.files(), SPOOL.as_ref(), SPOOL_BYTES, self.unix_ms);
        // Killed, or the disk is too full for what is new of a spool.
        let Ok((mut spool, recovered)) = opened else {
            return;
        };
        self.resolve(recovered.newest);
        let (checkpoint, boot_id) = (self.checkpoint(), self.boot_id());
        // Without a checkpoint nothing is left that could tell.
        self.says_damage |= self.is_replaced && checkpoint.read().is_none();
        let kept = checkpoint.read().map(|kept| kept.key).unwrap_or_default();
        self.forget(recovered.newest.max(kept));
        let resume = Resume::find(&mut spool, recovered, &checkpoint, &boot_id, self.unix_ms);
        let Ok(resume) = resume else { return };
        // What the agent found is durable now.
        self.is_replaced = false;
        self.is_behind &= self.disk.is_killed();
        let of_this_boot = resume.baseline.as_ref().filter(|b| b.boot_id == boot_id);
        self.baseline = of_this_boot.map_or(0, |baseline| {
            let endpoints = baseline.endpoints.values();
            endpoints
                .map(|e| e.counters.requests[Method::Get as usize])
                .sum()
        });
        self.pass(10);
        if self.since_unix_ns == 0 {
            self.since_unix_ns = self.unix_ms * 1_000_000;
        }
        let host = v1::Host {
            id: self.host.clone(),
            boot_id,
            ..v1::Host::default()
        };
        let windows = Windows::new(host, resume.baseline, self.environment(spool.told()));
        self.agent = Some(Running {
            spool,
            windows: windows.reported_until(resume.reported_until_unix_ns),
            reasons: resume.reasons,
            connection: None,
        });
    }

    /// Whether the report that an agent was killed over was made tells the next one.
    fn resolve(&mut self, newest: ReportKey) {
        if let Some((key, made)) = self.in_doubt.take()
            && newest == key
        {
            self.add(key, made);
            self.is_behind = true;
        }
    }

    /// The spool is gone, and with it a report that nobody else has: its window is open
    /// again.
    fn forget(&mut self, newest: ReportKey) {
        if self.is_behind && self.made.last().is_some_and(|(key, _)| *key != newest) {
            self.is_behind = false;
            let (_, made) = self.made.pop().unwrap();
            let told = if made.is_unknown {
                &mut self.in_totals_alone
            } else {
                self.made_twice -= made.twice();
                &mut self.in_windows
            };
            *told -= made.missing;
            self.losses_told -= made.losses_told;
        }
    }

    fn environment(&self, spool_losses: Losses) -> Environment {
        Environment {
            at: Instant {
                unix_ns: self.unix_ms * 1_000_000,
                boot_ns: self.boot_ms * 1_000_000,
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

    fn observation(&self, agent: &Running) -> Observation {
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

    fn report(&mut self) {
        self.start();
        self.pass(5_000);
        let Some(mut agent) = self.agent.take() else {
            return;
        };
        let key = agent.spool.next_key();
        let closed = agent.windows.close(key, self.observation(&agent), &[]);
        let missing = self.counted - self.in_windows - self.in_totals_alone;
        let made = Made::of(&closed.report, missing, self.counted - self.baseline);
        assert_eq!(totals(&closed.report), self.counted, "totals are true");
        let baseline = closed.baseline.encode();
        match agent.spool.append(&made.body, &baseline) {
            Ok(given) => {
                assert_eq!(given, key);
                self.checkpoint().write(key, &baseline);
                agent.windows.commit(closed);
                agent.reasons.clear();
                self.add(key, made);
                self.baseline = self.counted;
                self.is_removed = false;
                self.is_behind = self.disk.is_killed();
                self.checkpoint_is_lost &= self.is_behind;
            }
            Err(_) if self.disk.is_killed() => self.in_doubt = Some((key, made)),
            Err(_) => {}
        }
        self.agent = Some(agent);
    }

    /// A window has what was counted since the last one, or says that it has not.
    fn add(&mut self, key: ReportKey, made: Made) {
        if made.is_unknown {
            assert_eq!(made.requests, 0, "{key:?}");
            self.in_totals_alone += made.missing;
        } else {
            self.in_windows += made.missing;
        }
        if self.faults != Faults::Damage {
            let is_whole = made.requests == made.missing;
            assert!(
                is_whole || self.checkpoint_is_lost,
                "{key:?}: a checkpoint tells"
            );
            let expected = if made.is_unknown {
                0
            } else {
                made.since_baseline
            };
            assert_eq!(made.requests, expected, "{key:?}");
            self.made_twice += made.twice();
        }
        if self.faults == Faults::None {
            assert_eq!(made.twice(), 0, "{key:?}");
            let is_new = self.made.iter().all(|(made, _)| *made != key);
            assert!(is_new, "{key:?} is given out twice");
        }
        self.losses_told += made.losses_told;
        self.says_damage |= made.says_damage;
        self.made.push((key, made));
    }

    fn connect(&mut self) {
        self.start();
        if let Some(agent) = &mut self.agent {
            agent.connection = Some(Connection {
                session: Session::begin(&mut agent.spool),
                sent: VecDeque::new(),
                answers: VecDeque::new(),
            });
        }
    }

    /// What was sent and not answered may have been stored.
    fn disconnect(&mut self) {
        if self.rng.bool() {
            self.collect();
        }
        if let Some(agent) = &mut self.agent {
            agent.connection = None;
        }
    }

    fn send(&mut self) {
        let Some(Running {
            spool,
            connection: Some(connection),
            ..
        }) = &mut self.agent
        else {
            return;
        };
        for _ in 0..self.rng.u8(1..8) {
            let next = connection.session.next(spool);
            let Ok(Some(pending)) = next else { return };
            connection.session.sent(&pending);
            connection.sent.push_back(pending);
        }
    }

    fn collect(&mut self) {
        let connection = self.agent.as_mut().and_then(|a| a.connection.as_mut());
        let Some(connection) = connection else { return };
        for _ in 0..self.rng.u8(1..8) {
            let Some(Pending { key, report }) = connection.sent.pop_front() else {
                return;
            };
            let outcome = if self.rejects && key.sequence.is_multiple_of(5) {
                ExportOutcome::Rejected
            } else {
                self.collector.take(&mut self.kept, key, &report)
            };
            connection.answers.push_back(v1::ExportResponse {
                epoch: key.epoch,
                sequence: key.sequence,
                outcome: outcome.into(),
                message: String::new(),
            });
        }
    }

    fn take_answers(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let Some(connection) = &mut agent.connection else {
            return;
        };
        for _ in 0..self.rng.u8(1..8) {
            let Some(answer) = connection.answers.front().cloned() else {
                return;
            };
            // One answer of many comes twice.
            if self.rng.u8(..30) != 0 {
                connection.answers.pop_front();
            }
            let pending = agent.spool.pending();
            let taken = connection
                .session
                .answered(&mut agent.spool, &answer, self.unix_ms);
            match taken {
                // One that was dropped meanwhile is acknowledged no longer.
                Ok(Settled::Delivered)
                    if agent.spool.pending() < pending && !self.disk.is_killed() =>
                {
                    let (epoch, sequence) = (answer.epoch, answer.sequence);
                    self.acknowledged.insert(ReportKey { epoch, sequence });
                }
                Ok(_) => {}
                Err(_) => {
                    agent.connection = None;
                    return;
                }
            }
        }
    }

    /// Nothing happens any more, and everything is delivered.
    fn settle(&mut self) {
        self.disk.leave_room(None);
        self.disk.revive();
        // What is lost while this is delivered is told by the reports that follow.
        for round in 0..4 {
            self.rejects &= round < 2;
            self.report();
            self.connect();
            for _ in 0..1_000 {
                if self.agent.as_ref().is_none_or(|a| a.spool.pending() == 0) {
                    break;
                }
                self.send();
                self.collect();
                self.take_answers();
                if self.agent.as_ref().is_some_and(|a| a.connection.is_none()) {
                    self.connect();
                }
            }
        }
        let agent = self.agent.as_ref().unwrap();
        assert_eq!(agent.spool.pending(), 0, "everything is delivered");
    }

    fn check(&self) {
        let is_stored = |made: &&(ReportKey, Made)| self.kept.0.get(&made.0) == Some(&made.1.body);
        let (stored, lost): (Vec<_>, Vec<_>) = self.made.iter().partition(is_stored);
        let requests = |of: &[&(ReportKey, Made)]| of.iter().map(|(_, m)| m.requests).sum::<u64>();
        let (_, newest) = self.made.last().unwrap();
        let newest = v1::Report::decode(&*newest.body).unwrap();
        let counted = self.counted_before + self.counted;
        let totals_alone = self.in_totals_alone_before + self.in_totals_alone;
        if self.faults != Faults::Damage {
            assert_eq!(
                stored.len(),
                self.kept.0.len(),
                "the store has what was made"
            );
            assert_eq!(
                requests(&stored) + requests(&lost) + totals_alone,
                counted + self.made_twice,
                "windows add up"
            );
            let windows = counted - totals_alone + self.stored_twice(&stored);
            assert!(requests(&stored) <= windows, "nothing is there twice");
            assert_eq!(totals(&newest), self.counted);
        }
        if self.faults == Faults::None {
            // One that was stored is told as dropped where its acknowledgement was lost.
            let is_known = |(key, _): &&&(ReportKey, Made)| self.acknowledged.contains(key);
            let known = stored.iter().filter(is_known).count();
            let most = (self.made.len() - known) as u64;
            let told = lost.len() as u64..=most;
            assert!(
                told.contains(&self.losses_told),
                "each loss is told once: {} of {told:?}",
                self.losses_told
            );
        } else if !self.says_damage {
            assert!(lost.len() as u64 <= self.losses_told, "each loss is told");
        }
    }

    /// By a copy of the spool from before an epoch of which nothing tells any more: its
    /// keys are free.
    fn stored_twice(&self, stored: &[&(ReportKey, Made)]) -> u64 {
        let is_stored = |key| stored.iter().any(|(stored, _)| stored == key);
        let mut newest = 0;
        let mut twice = 0;
        for (key, made) in &self.made {
            if key.epoch < newest && is_stored(key) {
                twice += made.twice();
            }
            newest = newest.max(key.epoch);
        }
        twice
    }
}

impl Made {
    fn of(report: &v1::Report, missing: u64, since_baseline: u64) -> Self {
        let says = |what: &str| report.incomplete_reasons.iter().any(|r| r.contains(what));
        let endpoint = &report.endpoints[0];
        let told = Losses::from_reasons(|reason| report.losses.get(reason).copied());
        Self {
            body: report.encode_to_vec(),
            requests: requests(&endpoint.window),
            since_baseline,
            missing,
            losses_told: told.by_reason().iter().map(|(_, n)| n).sum(),
            is_unknown: says("not known any more"),
            says_damage: says("the spool was"),
        }
    }

    /// What was in an older window, too.
    fn twice(&self) -> u64 {
        self.requests.saturating_sub(self.missing)
    }
}

fn totals(report: &v1::Report) -> u64 {
    requests(&report.endpoints[0].totals)
}

fn requests(counters: &Option<v1::Counters>) -> u64 {
    counters.as_ref().unwrap().http.as_ref().unwrap().requests
}
