//! What is shown.  Pure: the time comes from outside.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use monitor_proto::{
    json::{Endpoint, Report},
    state::{HostState, silent_after_ns},
};

use super::order::{self, SortBy};

/// Points of a sparkline.
const HISTORY_MAX: usize = 120;

/// A host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) report: Report,
    pub(super) seen: Instant,
    /// Requests a second of the last reports, in tenths; `None` where none could
    /// be seen.
    pub(super) history: VecDeque<Option<u64>>,
}

/// How a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    Incomplete,
    Late,
    Silent,
}

impl Host {
    pub(super) fn health(&self, now: Instant) -> Health {
        let age = now.saturating_duration_since(self.seen).as_nanos();
        let age_ns = u64::try_from(age).unwrap_or(u64::MAX);
        let is_lossy = self.report.losses.values().any(|&n| n > 0);
        match HostState::new(age_ns, self.report.window_duration_ns) {
            HostState::Silent => Health::Silent,
            HostState::Late => Health::Late,
            HostState::Live if is_lossy || !self.report.complete => Health::Incomplete,
            HostState::Live => Health::Good,
        }
    }
}

/// The table whose rows are chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Focus {
    Hosts,
    Endpoints,
}

/// What the user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Letter(char),
    Move(isize),
    OtherTable,
    Quit,
}

/// The fleet and what is chosen.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) url: String,
    pub(super) connected: bool,
    /// What is wrong now; `None` where nobody has said it.
    pub(super) problems: Option<problems::Problems>,
    /// By name, then id.
    pub(super) hosts: BTreeMap<(String, String), Host>,
    chosen: Option<(String, String)>,
    /// The place of the chosen endpoint.
    pub(super) endpoint: usize,
    /// `None` until the user says it.
    focus: Option<Focus>,
    pub(super) sort_by: SortBy,
    pub(super) inverted: bool,
}

impl Model {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            connected: true,
            problems: None,
            hosts: BTreeMap::new(),
            chosen: None,
            endpoint: 0,
            focus: None,
            sort_by: SortBy::default(),
            inverted: false,
        }
    }

    /// Takes a report, and when it came, unless a newer one is known.
    pub(super) fn add(&mut self, report: Report, seen: Instant) {
        let key = (report.host.name.clone(), report.host.id.clone());
        // A host that was renamed is not shown twice.
        self.hosts
            .retain(|(_, id), _| *id != key.1 || report.host.name == key.0);
        let rate = request_rate(&report);
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

    /// Of several hosts one is chosen first, of one its endpoints.
    pub(super) fn focus(&self) -> Focus {
        self.focus.unwrap_or(if self.hosts.len() > 1 {
            Focus::Hosts
        } else {
            Focus::Endpoints
        })
    }

    /// The endpoints of the chosen host, sorted.
    pub(super) fn endpoints(&self) -> Vec<&Endpoint> {
        let host = self.hosts.values().nth(self.chosen());
        host.map_or_else(Vec::new, |host| {
            order::sorted(&host.report, self.sort_by, self.inverted)
        })
    }

    /// Does what a key says; false to end.
    pub(super) fn press(&mut self, key: Key) -> bool {
        match key {
            Key::Quit | Key::Letter('q') => return false,
            Key::OtherTable => {
                self.focus = Some(match self.focus() {
                    Focus::Hosts => Focus::Endpoints,
                    Focus::Endpoints => Focus::Hosts,
                });
            }
            Key::Letter('i') => self.inverted = !self.inverted,
            Key::Letter('j') => self.go(1),
            Key::Letter('k') => self.go(-1),
            Key::Move(by) => self.go(by),
            Key::Letter(letter) => {
                let by = SortBy::ALL.iter().find(|(l, _, _)| *l == letter);
                if let Some((_, _, by)) = by {
                    self.sort_by = *by;
                }
            }
        }
        true
    }

    fn go(&mut self, by: isize) {
        let moved =
            |from: usize, rows: usize| from.saturating_add_signed(by).min(rows.saturating_sub(1));
        match self.focus() {
            // By its name: hosts that come later do not move the choice.
            Focus::Hosts => {
                let place = moved(self.chosen(), self.hosts.len());
                self.chosen = self.hosts.keys().nth(place).cloned();
                self.endpoint = 0;
            }
            Focus::Endpoints => self.endpoint = moved(self.endpoint, self.endpoints().len()),
        }
    }
}

impl Host {
    fn push(&mut self, rate: Option<f64>) {
        self.history
            .push_back(rate.map(|rate| (rate * 10.0) as u64));
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
        Duration::from_nanos(silent_after_ns(b.window_duration_ns))
    };
    end(a).duration_since(end(b)).as_secs_f64() >= patience.as_secs_f64()
}

/// Requests a second that clients made; `None` where none can be seen.
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
    use monitor_proto::v1;

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
        model.press(Key::Move(1));
        assert_eq!(model.chosen(), 1);
        model.add(report("a", 1), now);
        model.add(report("b", 4), now);
        assert_eq!(model.chosen(), 2, "still d");
        let b = &model.hosts[&("b".to_owned(), "id-b".to_owned())];
        assert_eq!((b.report.sequence, b.history.len()), (5, 1));
        model.press(Key::Letter('j'));
        assert_eq!(model.chosen(), 2, "d is the last");
        assert!(!model.press(Key::Letter('q')) && !model.press(Key::Quit));
    }

    #[test]
    fn every_endpoint_can_be_reached() {
        let mut wide = report("a", 1);
        let endpoint = |n| {
            Endpoint::from(&v1::Endpoint {
                address: format!("10.0.0.{n}:80"),
                ..v1::Endpoint::default()
            })
        };
        wide.endpoints = (0..60).map(endpoint).collect();
        let mut model = Model::new(String::new());
        model.add(wide, Instant::now());
        assert_eq!(model.focus(), Focus::Endpoints, "there is one host");
        for (key, place) in [
            (Key::Move(20), 20),
            (Key::Move(isize::MAX), 59),
            (Key::Letter('k'), 58),
            (Key::Move(isize::MIN), 0),
        ] {
            model.press(key);
            assert_eq!(model.endpoint, place, "{key:?}");
        }
        model.add(report("b", 1), Instant::now());
        assert_eq!(model.focus(), Focus::Hosts, "there are two");
        model.press(Key::OtherTable);
        assert_eq!(model.focus(), Focus::Endpoints);
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
        for (after_s, health) in [(15, Health::Late), (60, Health::Silent)] {
            let later = now + Duration::from_secs(after_s);
            assert!(model.hosts.values().all(|h| h.health(later) == health));
        }
        let later = now + Duration::from_secs(60);
        let mut slow = report("a", 2);
        slow.window_duration_ns = 60_000_000_000;
        model.add(slow, now);
        let health: Vec<_> = model.hosts.values().map(|h| h.health(later)).collect();
        assert_eq!(
            health,
            [Health::Good, Health::Silent],
            "its window is a minute"
        );
    }
}
