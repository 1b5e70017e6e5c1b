//! What is shown.  Pure: the time comes from outside.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use monitor_proto::json::Report;

/// Points of a sparkline.
const HISTORY_MAX: usize = 120;
/// Reports come every 5 s: three missing in a row are a sign, and where windows
/// are long, one.
const LATE_AFTER: Duration = Duration::from_secs(20);
const LATE_AFTER_WINDOWS: f64 = 1.5;
/// An agent without a report in this time gives its place to another of its host.
const SILENT_AFTER: Duration = Duration::from_secs(60);
const SILENT_AFTER_WINDOWS: f64 = 2.5;

/// A host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) report: Report,
    pub(super) seen: Instant,
    /// Requests a second of the last reports, in tenths.
    pub(super) history: VecDeque<u64>,
}

/// How a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    Incomplete,
    Late,
}

impl Host {
    pub(super) fn health(&self, now: Instant) -> Health {
        if now.saturating_duration_since(self.seen)
            > at_least(LATE_AFTER, LATE_AFTER_WINDOWS, &self.report)
        {
            Health::Late
        } else if !self.report.complete || self.report.losses.values().any(|&n| n > 0) {
            Health::Incomplete
        } else {
            Health::Good
        }
    }
}

/// The fleet and what is chosen.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) url: String,
    pub(super) connected: bool,
    /// By name, then id.
    pub(super) hosts: BTreeMap<(String, String), Host>,
    chosen: Option<(String, String)>,
}

impl Model {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            connected: true,
            hosts: BTreeMap::new(),
            chosen: None,
        }
    }

    /// Takes a report, and when it came, unless a newer one is known.
    pub(super) fn add(&mut self, report: Report, seen: Instant) {
        let key = (report.host.name.clone(), report.host.id.clone());
        // A host that was renamed is not shown twice.
        self.hosts
            .retain(|(_, id), _| *id != key.1 || report.host.name == key.0);
        let rate = request_rate(&report).unwrap_or(0.0);
        match self.hosts.get_mut(&key) {
            Some(host) if !is_newer(&report, &host.report) => {}
            Some(host) => {
                host.push(rate);
                host.report = report;
                host.seen = seen;
            }
            None => {
                let mut host = Host {
                    report,
                    seen,
                    history: VecDeque::new(),
                };
                host.push(rate);
                self.hosts.insert(key, host);
            }
        }
    }

    /// The place of the chosen host.
    pub(super) fn chosen(&self) -> usize {
        self.chosen
            .as_ref()
            .and_then(|chosen| self.hosts.keys().position(|key| key == chosen))
            .unwrap_or(0)
    }

    pub(super) fn choose_next(&mut self) {
        self.choose((self.chosen() + 1).min(self.hosts.len().saturating_sub(1)));
    }

    pub(super) fn choose_previous(&mut self) {
        self.choose(self.chosen().saturating_sub(1));
    }

    /// By its name: hosts that come later do not move the choice.
    fn choose(&mut self, place: usize) {
        self.chosen = self.hosts.keys().nth(place).cloned();
    }
}

impl Host {
    fn push(&mut self, rate: f64) {
        self.history.push_back((rate * 10.0) as u64);
        if self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
    }
}

/// Whether one report of a host is newer than another, as the collector has it:
/// of two agents, that whose spool was made later, until it is silent.
fn is_newer(a: &Report, b: &Report) -> bool {
    if a.agent.epoch == b.agent.epoch {
        return a.sequence > b.sequence;
    }
    let end = |r: &Report| r.window_end.parse::<Timestamp>().unwrap_or_default();
    let patience = if a.agent.epoch > b.agent.epoch {
        Duration::ZERO
    } else {
        at_least(SILENT_AFTER, SILENT_AFTER_WINDOWS, b)
    };
    end(a).duration_since(end(b)).as_secs_f64() >= patience.as_secs_f64()
}

/// A time, or so many windows of the report where they are longer.
fn at_least(time: Duration, windows: f64, report: &Report) -> Duration {
    time.max(Duration::from_nanos(report.window_duration_ns).mul_f64(windows))
}

/// Requests a second that clients made; `None` where they are not counted.
pub(super) fn request_rate(report: &Report) -> Option<f64> {
    let mut sum = None;
    for endpoint in report.endpoints.iter().filter(|e| e.role == "downstream") {
        if let Some(n) = endpoint.window.requests {
            sum = Some(sum.unwrap_or(0) + n);
        }
    }
    sum.map(|n| per_second(n, report))
}

/// How many a second of the report's window.
pub(super) fn per_second(n: u64, report: &Report) -> f64 {
    match report.window_duration_ns {
        0 => 0.0,
        ns => n as f64 * 1e9 / ns as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, sequence: u64) -> Report {
        let mut report = Report {
            sequence,
            complete: true,
            ..Report::default()
        };
        report.host.name = name.to_owned();
        report.host.id = format!("id-{name}");
        report
    }

    #[test]
    fn the_newest_report_stays_and_the_choice_with_its_host() {
        let now = Instant::now();
        let mut model = Model::new(String::new());
        for name in ["b", "d"] {
            model.add(report(name, 5), now);
        }
        model.choose_next();
        assert_eq!(model.chosen(), 1);
        model.add(report("a", 1), now);
        model.add(report("b", 4), now);
        assert_eq!(model.chosen(), 2, "still d");
        let b = &model.hosts[&("b".to_owned(), "id-b".to_owned())];
        assert_eq!((b.report.sequence, b.history.len()), (5, 1));
        model.choose_next();
        assert_eq!(model.chosen(), 2, "d is the last");
    }

    #[test]
    fn of_two_agents_the_later_is_shown_until_it_is_silent() {
        let of = |epoch, sequence, end: &str| {
            let mut report = report("a", sequence);
            report.agent.epoch = epoch;
            report.window_end = format!("2025-11-23T{end}Z");
            report
        };
        let mut model = Model::new(String::new());
        for (shown, next) in [
            ((2, 1), of(2, 1, "01:00:00")),
            ((2, 1), of(1, 8, "01:00:59.5")),
            ((1, 9), of(1, 9, "01:01:00")),
            ((1, 9), of(2, 2, "01:00:05")),
            ((2, 3), of(2, 3, "01:01:00")),
        ] {
            model.add(next, Instant::now());
            let host = model.hosts.values().next().unwrap();
            assert_eq!((host.report.agent.epoch, host.report.sequence), shown);
        }
    }

    #[test]
    fn health_is_told() {
        let now = Instant::now();
        let mut model = Model::new(String::new());
        model.add(report("a", 1), now);
        let mut lossy = report("b", 1);
        lossy.losses.insert("samples_dropped".to_owned(), 1);
        model.add(lossy, now);
        let health: Vec<_> = model.hosts.values().map(|h| h.health(now)).collect();
        assert_eq!(health, [Health::Good, Health::Incomplete]);
        let later = now + Duration::from_secs(60);
        assert!(
            model
                .hosts
                .values()
                .all(|h| h.health(later) == Health::Late)
        );
        let mut slow = report("a", 2);
        slow.window_duration_ns = 60_000_000_000;
        model.add(slow, now);
        let health: Vec<_> = model.hosts.values().map(|h| h.health(later)).collect();
        assert_eq!(
            health,
            [Health::Good, Health::Late],
            "its window is a minute"
        );
    }
}
