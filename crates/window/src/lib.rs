//! Windows and reports: what happened between two readings.
//!
//! Architecture invariant: pure.  Whoever closes a window gives it everything,
//! the time included, and commits it only after the report is durable; until
//! then the window is still open, and the next attempt covers it too.

mod accept_queues;
mod baseline;
mod clients;
mod fit;
mod ledger;
mod names;
mod round_trips;
mod sample;
mod sockets;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use monitor_proto::v1;

pub use baseline::{Baseline, Totals};
pub use clients::ToldClients;
use host_metrics::{
    HostDetail,
    cgroup::CgroupUsage,
    cpu, disk,
    gauges::{self, Fold},
    namespace, network,
};
use kernel_sample::{Instant, KernelSample, Level, Settled};
use monitor_proto::ReportKey;
pub use names::TargetNames;
pub use sample::{Sample, round_trips, saw_traffic};
pub use sockets::summary as socket_summary;

use accept_queues::{AcceptQueues, Drops};
use ledger::{Ledger, Losses, Row};

/// A window that begins more than this before its agent did has a time without
/// samples that is worth telling.
const UNSAMPLED_NS_MAX: u64 = 1_000_000_000;

/// A wall clock that lies further behind than this was set back for good, and
/// windows go by its new time; until then the next one waits for it.
const CLOCK_BEHIND_NS_MAX: u64 = 60_000_000_000;

/// One watched cgroup at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetReading {
    /// Its path below the cgroup2 mount; `/` is the whole host.
    pub label: Arc<str>,
    /// Its id.
    pub cgroup_id: u64,
    /// The command of its first process; empty where there is none.
    pub process: String,
    /// What its container is called.
    pub names: ContainerNames,
    /// What it has used.
    pub usage: CgroupUsage,
}

/// What a container or a pod is called; empty where that is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerNames {
    /// The container's name.
    pub name: String,
    /// The pod's name, in Kubernetes.
    pub pod: String,
    /// The pod's namespace.
    pub namespace: String,
}

/// Everything but the kernel's counters at one instant.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// When.
    pub at: Instant,
    /// The same by the clock that the programs use.
    pub monotonic_ns: u64,
    /// The host's counters.
    pub host: HostDetail,
    /// The watched cgroups.
    pub targets: Vec<TargetReading>,
    /// Their network namespaces, each once.
    pub namespaces: Vec<v1::NetworkNamespace>,
    /// CPU time that the agent has used.
    pub agent_cpu_ns: u64,
    /// The agent's resident memory.
    pub agent_memory_bytes: u64,
    /// What the agent itself has lost since it began, by reason.
    pub losses: BTreeMap<&'static str, u64>,
    /// What the spool has lost since it was made, by reason; at an agent's start, how
    /// much of it was reported.
    pub spool_losses: BTreeMap<&'static str, u64>,
}

/// Everything at one instant.
#[derive(Clone, Debug)]
pub struct Observation {
    /// All but the kernel's counters.
    pub environment: Environment,
    /// The kernel's counters.
    pub kernel: KernelSample,
    /// What the programs look at.
    pub level: Level,
    /// What the backends are called.
    pub names: Arc<TargetNames>,
    /// What is to be known of the agent, and takes nothing from the figures.
    pub notes: Vec<String>,
    /// What makes the window incomplete, as far as the reader knows.
    pub incomplete_reasons: BTreeSet<String>,
}

/// A window that was closed but not yet committed.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Its report.
    pub report: v1::Report,
    /// What the next window begins from.
    pub baseline: Baseline,
    end: Environment,
    settled: Vec<Settled>,
    drops: Drops,
}

/// The windows of one agent.
#[derive(Debug)]
pub struct Windows {
    host: v1::Host,
    baseline: Option<Baseline>,
    reported_until_unix_ns: Option<u64>,
    start: Environment,
    began: Instant,
    drops: Drops,
}

impl Windows {
    /// Windows that go on from a baseline, if there is one.
    #[must_use]
    pub fn new(host: v1::Host, baseline: Option<Baseline>, start: Environment) -> Self {
        let began = start.at;
        Self {
            host,
            baseline,
            reported_until_unix_ns: None,
            start,
            began,
            drops: Drops::default(),
        }
    }

    /// What was counted since before this instant may have been reported by somebody
    /// of whom nothing is left: the first window has no deltas of it.
    #[must_use]
    pub fn reported_until(mut self, unix_ns: Option<u64>) -> Self {
        self.reported_until_unix_ns = unix_ns;
        self
    }

    /// Closes the window at this observation.
    #[must_use]
    pub fn close(
        &self,
        key: ReportKey,
        mut observation: Observation,
        samples: &[Sample],
    ) -> Closed {
        let baseline = self.baseline.as_ref();
        let listeners = std::mem::take(&mut observation.kernel.listeners);
        let accept_queues = AcceptQueues::new(listeners, &self.drops);
        let drops = accept_queues.drops(&self.drops);
        let end = observation.environment;
        let since_unix_ns = observation.kernel.since_unix_ns;
        let reported_until = self.reported_until_unix_ns;
        let unknown = reported_until.is_some_and(|until| since_unix_ns < until);
        let span = if unknown {
            Span::without_baseline(self.began, end.at)
        } else {
            Span::new(baseline, &self.host, end.at, since_unix_ns)
        };
        let mut losses = Losses::compare(
            baseline,
            &observation.kernel.losses,
            since_unix_ns,
            &losses_between(&self.start, &end),
        );
        if unknown {
            losses.forget(&observation.kernel.losses);
        }
        let round_trips = round_trips::seen(samples, &observation.kernel.sockets, span.duration_ns);
        let top_sockets = sockets::top(&observation.kernel.sockets, end.monotonic_ns);
        let live_bytes_age_ms = observation.kernel.live_bytes_age_ms;
        let difference = observation.kernel.connection_difference;
        let hidden = observation.kernel.sockets_hidden;
        let counted = std::mem::take(&mut observation.kernel.clients);
        let counted_sockets = std::mem::take(&mut observation.kernel.sockets);
        let watched = end.targets.iter().map(|t| &*t.label).collect();
        let ledger = Ledger::compare(baseline, reported_until, observation.kernel, &watched);
        let mut reasons = observation.incomplete_reasons;
        reasons.extend(losses.reasons());
        reasons.extend(self.reasons(&ledger, &span));
        reasons.extend(self.targets_replaced(&end));
        match difference {
            None | Some(0) => {}
            Some(1..) => {
                let what = "more connections are counted as open than there are: ends were not \
                    told; another sock_ops program may have taken their callbacks";
                reasons.insert(what.to_owned());
            }
            Some(_) => {
                reasons.insert("fewer connections are counted as open than there are".to_owned());
            }
        }
        if hidden {
            reasons.insert(
                "sockets of other network namespaces cannot be looked at: start the agent again, or \
                 with --network-namespaces"
                    .to_owned(),
            );
        }
        let http = observation.level == Level::Http
            || ledger.rows.iter().any(|r| wire::has_http(&r.delta));
        let clients = clients::compare(baseline, unknown, &counted, &counted_sockets, http);
        let settled = counted.into_iter().filter(|target| target.sees_live);
        let mut report = v1::Report {
            host: Some(self.host.clone()),
            agent: Some(self.agent(key, &end, observation.level)),
            sequence: key.sequence,
            window_start_unix_ns: span.start_unix_ns,
            window_end_unix_ns: span.end.unix_ns,
            window_duration_ns: span.duration_ns,
            host_metrics: Some(self.host_metrics(&end, samples)),
            top_sockets,
            losses: losses.window.clone(),
            losses_totals: losses.totals.clone(),
            losses_since_unix_ns: losses.since_unix_ns,
            targets: self.targets(&end),
            network_namespaces: namespace::since(&self.start.namespaces, &end.namespaces),
            reconciliation: Some(v1::Reconciliation {
                connection_difference: difference,
            }),
            samples: u32::try_from(samples.len()).unwrap_or(u32::MAX),
            notes: observation.notes,
            clients: clients.clients,
            ..v1::Report::default()
        };
        let describe = fit::Describe {
            round_trips,
            accept_queues,
            names: &observation.names,
            http,
            live_bytes_age_ms,
        };
        let reported = fit::endpoints(&mut report, ledger, &describe);
        if reported.deferred {
            reasons.insert("endpoints left to the next report: it would be too large".to_owned());
        }
        report.complete = reasons.is_empty();
        report.incomplete_reasons = reasons.into_iter().collect();
        let baseline = Baseline {
            window_end: span.end,
            boot_id: self.host.boot_id.clone(),
            endpoints: reported.totals(baseline),
            losses: losses.totals,
            losses_since_unix_ns: losses.since_unix_ns,
            clients: clients.told,
            spool_losses: end
                .spool_losses
                .iter()
                .map(|(&reason, &n)| (reason.to_owned(), n))
                .collect(),
        };
        Closed {
            report,
            baseline,
            end,
            settled: settled.map(|target| target.settled).collect(),
            drops,
        }
    }

    /// The next window begins where this one ended.
    pub fn commit(&mut self, closed: Closed) {
        closed.settled.iter().for_each(Settled::reported);
        self.baseline = Some(closed.baseline);
        self.reported_until_unix_ns = None;
        self.start = closed.end;
        self.drops = closed.drops;
    }

    fn reasons(&self, ledger: &Ledger, span: &Span) -> Vec<String> {
        let adopted = |r: &Row| r.delta.connections_adopted > 0;
        let start_boot_ns = span.end.boot_ns.saturating_sub(span.duration_ns);
        let unsampled_ns = self.began.boot_ns.saturating_sub(start_boot_ns);
        let unsampled = if self.baseline.is_some() {
            "gauges were not sampled while no agent ran"
        } else {
            // Another agent may have sampled them, as where this is a view.
            "gauges were not sampled here before this process began"
        };
        let reasons = [
            (ledger.rows.iter().any(adopted), "connections adopted"),
            (ledger.went_backwards, "a counter went backwards"),
            (ledger.began_anew, "counters began anew"),
            (
                ledger.unknown,
                "what was reported last is not known any more: what was counted until now is in \
                 the totals alone",
            ),
            (span.gap, "nothing was counted for a while"),
            (span.set_back, "the clock was set back"),
            (unsampled_ns > UNSAMPLED_NS_MAX, unsampled),
        ];
        let holding = reasons.into_iter().filter(|(holds, _)| *holds);
        holding.map(|(_, reason)| reason.to_owned()).collect()
    }

    /// A cgroup that is removed takes the programs' links with it, and one that is
    /// made in its place (a unit that is started again) is another one.
    fn targets_replaced(&self, end: &Environment) -> Vec<String> {
        let replaced = |now: &&TargetReading| {
            let before = self.start.targets.iter().find(|t| t.label == now.label);
            before.is_some_and(|t| t.cgroup_id != now.cgroup_id)
        };
        let replaced = end.targets.iter().filter(replaced);
        replaced
            .map(|t| format!("the cgroup {} was removed or made again", t.label))
            .collect()
    }

    fn agent(&self, key: ReportKey, end: &Environment, level: Level) -> v1::Agent {
        let cpu_ns = end.agent_cpu_ns.saturating_sub(self.start.agent_cpu_ns);
        let elapsed_ns = end.at.boot_ns.saturating_sub(self.start.at.boot_ns).max(1);
        v1::Agent {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: key.epoch,
            level: wire::level(level).into(),
            cpu_usage_ratio: cpu_ns as f64 / elapsed_ns as f64,
            memory_bytes: end.agent_memory_bytes,
        }
    }

    fn host_metrics(&self, end: &Environment, samples: &[Sample]) -> v1::HostMetrics {
        let mut folds = [Fold::default(); gauges::GAUGES];
        for sample in samples {
            for (fold, value) in folds.iter_mut().zip(sample.gauges) {
                if let Some(value) = value {
                    fold.add(value, sample.elapsed_ns);
                }
            }
        }
        let (before, now) = (&self.start.host, &end.host);
        let stats = before.stat.as_ref().zip(now.stat.as_ref());
        v1::HostMetrics {
            cpu_modes: stats.and_then(|(a, b)| cpu::modes_percent(&a.total, &b.total)),
            core_usage: stats
                .map(|(a, b)| cpu::cores_percent(a, b))
                .unwrap_or_default(),
            memory: now.memory,
            disks: disk::since(&before.disks, &now.disks),
            interfaces: network::since(&before.interfaces, &now.interfaces),
            interfaces_since_unix_ns: now
                .stat
                .as_ref()
                .map_or(0, |stat| stat.boot_unix_s.saturating_mul(1_000_000_000)),
            pressure: now.pressure.clone(),
            ..gauges::fields(folds)
        }
    }

    fn targets(&self, end: &Environment) -> Vec<v1::Target> {
        let target = |now: &TargetReading| {
            let same = |t: &&TargetReading| t.label == now.label && t.cgroup_id == now.cgroup_id;
            // A cgroup that was made again under its old name began at zero.
            let before = self.start.targets.iter().find(same);
            let before = before.map(|t| t.usage).unwrap_or_default();
            let usage = now.usage;
            let delta = |of: fn(&CgroupUsage) -> Option<u64>| {
                let now = of(&usage).unwrap_or(0);
                now.saturating_sub(of(&before).unwrap_or(0))
            };
            v1::Target {
                path: now.label.to_string(),
                cgroup_id: now.cgroup_id,
                process: now.process.clone(),
                unit: kernel_sample::cgroup::unit(&now.label).to_owned(),
                container: (kernel_sample::container::of(&now.label))
                    .map(|of| of.id)
                    .unwrap_or_default(),
                container_name: now.names.name.clone(),
                pod: now.names.pod.clone(),
                namespace: now.names.namespace.clone(),
                cpu_usage_us: delta(|u| u.cpu_usage_us),
                throttled_us: delta(|u| u.throttled_us),
                throttled_periods: delta(|u| u.throttled_periods),
                memory_bytes: usage.memory_bytes,
                memory_limit_bytes: usage.memory_limit_bytes,
                cpu_usage_us_total: usage.cpu_usage_us,
                throttled_us_total: usage.throttled_us,
                throttled_periods_total: usage.throttled_periods,
            }
        };
        end.targets.iter().map(target).collect()
    }
}

/// When a window began and ended.
#[derive(Clone, Copy, Debug)]
struct Span {
    start_unix_ns: u64,
    end: Instant,
    duration_ns: u64,
    // Whether there was a time between the last window and the counters' start.
    gap: bool,
    // Whether the wall clock's new time names this window.
    set_back: bool,
}

impl Span {
    /// What was counted before this agent began is not told of.
    fn without_baseline(began: Instant, end: Instant) -> Self {
        Self {
            start_unix_ns: began.unix_ns.min(end.unix_ns),
            end,
            duration_ns: end.boot_ns.saturating_sub(began.boot_ns),
            gap: false,
            set_back: false,
        }
    }

    fn new(baseline: Option<&Baseline>, host: &v1::Host, at: Instant, since_unix_ns: u64) -> Self {
        let last = baseline.map(|b| b.window_end).unwrap_or_default();
        // What was counted after the last window belongs to this one, unless
        // counting itself began later.  After the clock was set back only its
        // name tells that it is the same count.
        let same_count = |b: &Baseline| {
            b.boot_id == host.boot_id
                && (last.unix_ns >= since_unix_ns || b.losses_since_unix_ns == since_unix_ns)
        };
        let continued = baseline.is_some_and(same_count);
        let start_unix_ns = if continued {
            last.unix_ns
        } else {
            last.unix_ns.max(since_unix_ns)
        };
        let set_back = at.unix_ns < start_unix_ns.saturating_sub(CLOCK_BEHIND_NS_MAX);
        let duration_ns = if continued {
            at.boot_ns.saturating_sub(last.boot_ns)
        } else {
            at.unix_ns.saturating_sub(start_unix_ns)
        };
        let (start_unix_ns, unix_ns) = if set_back {
            (at.unix_ns.saturating_sub(duration_ns), at.unix_ns)
        } else {
            (start_unix_ns, at.unix_ns.max(start_unix_ns))
        };
        Self {
            start_unix_ns,
            end: Instant { unix_ns, ..at },
            duration_ns,
            gap: baseline.is_some() && !continued,
            set_back,
        }
    }
}

fn losses_between(start: &Environment, end: &Environment) -> BTreeMap<&'static str, u64> {
    let since = |start: &BTreeMap<&'static str, u64>, name, n: u64| {
        let before = start.get(name).copied().unwrap_or(0);
        (name, n.saturating_sub(before))
    };
    let own = end.losses.iter();
    let own = own.map(|(&name, &n)| since(&start.losses, name, n));
    let spool = end.spool_losses.iter();
    own.chain(spool.map(|(&name, &n)| since(&start.spool_losses, name, n)))
        .collect()
}

#[cfg(test)]
mod tests;
