//! What `top` shows, and in which order.
//!
//! Architecture invariant: pure; no terminal, no clock.

use std::{cmp::Ordering, collections::HashMap};

use monitor_proto::{
    histogram,
    protocol::{self, Protocol, Spoken},
    v1,
};
use problems::Problems;

use super::Look;
use crate::judge::ViewJudge;

/// How many sockets are shown at the most: those that carried most.
const SOCKETS_MAX: usize = 5_000;

/// Endpoints or sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Page {
    #[default]
    Endpoints,
    Sockets,
}

/// What the rows are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SortBy {
    #[default]
    Bytes,
    RoundTrip,
    Retransmits,
    Age,
}

impl SortBy {
    pub(super) const ALL: [(char, &'static str, Self); 4] = [
        ('b', "bytes", Self::Bytes),
        ('r', "RTT", Self::RoundTrip),
        ('t', "retransmits", Self::Retransmits),
        ('a', "age", Self::Age),
    ];
}

/// What the user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Letter(char),
    Move(isize),
    OtherPage,
    Quit,
}

/// What every row can be sorted by.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    pub(super) role: &'static str,
    pub(super) target: String,
    /// What it is called, or its addresses.
    pub(super) label: String,
    pub(super) in_per_s: f64,
    pub(super) out_per_s: f64,
    pub(super) srtt_us: Option<u64>,
    pub(super) retransmits: u64,
    pub(super) age_ms: Option<u64>,
    pub(super) more: More,
}

/// What a page's rows have on top.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum More {
    Endpoint {
        active: u64,
        opened_per_s: f64,
        requests_per_s: Option<f64>,
        exchanges_per_s: Option<f64>,
        resets: Option<u64>,
        unanswered: Option<u64>,
        tls_failed: Option<u64>,
        spoken: Spoken,
        queue: Option<String>,
        p99_ms: Option<f64>,
        protocol: Option<Protocol>,
    },
    Socket {
        state: String,
        bytes: u64,
        requests: u64,
    },
}

impl Default for More {
    fn default() -> Self {
        Self::Socket {
            state: String::new(),
            bytes: 0,
            requests: 0,
        }
    }
}

/// The state of the screen.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) page: Page,
    pub(super) sort_by: SortBy,
    pub(super) ascending: bool,
    pub(super) paused: bool,
    pub(super) selected: usize,
    pub(super) report: v1::Report,
    pub(super) problems: Problems,
    judge: ViewJudge,
    endpoints: Vec<Row>,
    sockets: Vec<Row>,
    // Bytes in and out of every socket at the last look.
    carried: HashMap<u64, (u64, u64)>,
}

impl Model {
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// The rows of the page that is shown.
    pub(super) fn rows(&self) -> &[Row] {
        match self.page {
            Page::Endpoints => &self.endpoints,
            Page::Sockets => &self.sockets,
        }
    }

    /// Takes what happened since the last look.
    pub(super) fn update(&mut self, look: Look) {
        let seconds = seconds(&look.report);
        let endpoints = look.report.endpoints.iter();
        let end_ns = look.report.window_end_unix_ns;
        self.endpoints = endpoints.map(|e| endpoint(e, seconds, end_ns)).collect();
        let mut sockets = look.sockets;
        sockets.sort_by_key(|s| (std::cmp::Reverse(s.bytes_received + s.bytes_sent), s.cookie));
        sockets.truncate(SOCKETS_MAX);
        let rows = sockets.iter().map(|s| self.socket(s, seconds)).collect();
        self.sockets = rows;
        let carried = sockets
            .iter()
            .map(|s| (s.cookie, (s.bytes_received, s.bytes_sent)));
        self.carried = carried.collect();
        self.problems = self.judge.take(&look.report);
        self.report = look.report;
        self.sort();
    }

    /// Does what a key says; false to end.
    pub(super) fn press(&mut self, key: Key) -> bool {
        match key {
            Key::Quit | Key::Letter('q') => return false,
            Key::OtherPage => {
                self.turn(match self.page {
                    Page::Endpoints => Page::Sockets,
                    Page::Sockets => Page::Endpoints,
                });
            }
            Key::Letter('e') => self.turn(Page::Endpoints),
            Key::Letter('s') => self.turn(Page::Sockets),
            Key::Letter('i') => self.ascending = !self.ascending,
            Key::Letter(' ') => self.paused = !self.paused,
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
        self.sort();
        true
    }

    fn turn(&mut self, page: Page) {
        if self.page != page {
            self.page = page;
            self.selected = 0;
        }
    }

    fn go(&mut self, by: isize) {
        let last = self.rows().len().saturating_sub(1);
        self.selected = self.selected.saturating_add_signed(by).min(last);
    }

    fn sort(&mut self) {
        let (by, ascending) = (self.sort_by, self.ascending);
        for rows in [&mut self.endpoints, &mut self.sockets] {
            rows.sort_by(|a, b| {
                let order = compare(a, b, by);
                let order = if ascending { order } else { order.reverse() };
                // Among equals the order stays the same from look to look.
                order.then_with(|| (&a.label, &a.target).cmp(&(&b.label, &b.target)))
            });
        }
        let last = self.rows().len().saturating_sub(1);
        self.selected = self.selected.min(last);
    }

    fn socket(&self, s: &v1::SocketSummary, seconds: f64) -> Row {
        // What a socket carried before it was first seen is no rate.
        let first = (s.bytes_received, s.bytes_sent);
        let (received, sent) = *self.carried.get(&s.cookie).unwrap_or(&first);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        Row {
            role: crate::view::role(s.role()),
            target: s.target.clone(),
            label: addresses(s),
            in_per_s: rate(s.bytes_received, received),
            out_per_s: rate(s.bytes_sent, sent),
            srtt_us: Some(s.srtt_us),
            retransmits: s.retransmits,
            age_ms: s.age_ms,
            more: More::Socket {
                state: s.state.clone(),
                bytes: s.bytes_received + s.bytes_sent,
                requests: s.requests,
            },
        }
    }
}

/// Whom a socket is between; where a balancer passed it on, its client comes last.
fn addresses(s: &v1::SocketSummary) -> String {
    let v1::SocketSummary {
        local,
        remote,
        client,
        ..
    } = s;
    if client.is_empty() {
        format!("{local} {remote}")
    } else {
        format!("{local} {remote} for {client}")
    }
}

fn compare(a: &Row, b: &Row, by: SortBy) -> Ordering {
    let bytes = |row: &Row| match row.more {
        More::Socket { bytes, .. } => bytes as f64,
        More::Endpoint { .. } => row.in_per_s + row.out_per_s,
    };
    match by {
        SortBy::Bytes => bytes(a).total_cmp(&bytes(b)),
        SortBy::RoundTrip => a.srtt_us.cmp(&b.srtt_us),
        SortBy::Retransmits => a.retransmits.cmp(&b.retransmits),
        SortBy::Age => a.age_ms.cmp(&b.age_ms),
    }
}

fn seconds(report: &v1::Report) -> f64 {
    (report.window_duration_ns as f64 / 1e9).max(1e-9)
}

fn endpoint(e: &v1::Endpoint, seconds: f64, end_ns: u64) -> Row {
    let window = e.window.clone().unwrap_or_default();
    let rate = |n: u64| n as f64 / seconds;
    let http = window.http.as_ref();
    let durations = http.and_then(|h| h.exchange_duration.as_ref());
    let p99 = durations.and_then(|d| histogram::quantile_seconds(d, 0.99));
    Row {
        role: crate::view::role(e.role()),
        target: e.target.clone(),
        label: crate::view::label(e),
        in_per_s: rate(window.bytes_received),
        out_per_s: rate(window.bytes_sent),
        srtt_us: e.srtt.as_ref().map(|s| s.mean_us),
        retransmits: window.retransmits,
        age_ms: Some(end_ns.saturating_sub(e.totals_since_unix_ns) / 1_000_000),
        more: More::Endpoint {
            active: e.connections_active,
            opened_per_s: rate(window.connections_opened),
            requests_per_s: protocol::seen_in_window(e).map(|h| rate(h.requests)),
            exchanges_per_s: http.map(|h| rate(h.exchanges)),
            resets: window.closed_reset_received,
            unanswered: protocol::seen_in_window(e).map(|h| h.requests_without_response),
            tls_failed: http.and_then(protocol::tls_failed),
            spoken: Spoken::of(e),
            queue: crate::view::queue(e),
            p99_ms: p99.map(|s| s * 1e3),
            protocol: Protocol::of_window(e),
        },
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn counted(address: &str, bytes: u64, srtt_us: u64, retransmits: u64) -> v1::Endpoint {
        v1::Endpoint {
            role: v1::Role::Upstream.into(),
            address: address.to_owned(),
            window: Some(v1::Counters {
                bytes_received: bytes,
                retransmits,
                ..v1::Counters::default()
            }),
            totals_since_unix_ns: 1_000_000 * srtt_us,
            srtt: Some(v1::RoundTripTime {
                mean_us: srtt_us,
                ..v1::RoundTripTime::default()
            }),
            ..v1::Endpoint::default()
        }
    }

    fn socket(cookie: u64, bytes: u64, age_ms: u64) -> v1::SocketSummary {
        v1::SocketSummary {
            cookie,
            role: v1::Role::Downstream.into(),
            local: "127.0.0.1:80".to_owned(),
            remote: format!("127.0.0.1:{cookie}"),
            state: "ESTABLISHED".to_owned(),
            bytes_received: bytes,
            age_ms: Some(age_ms),
            srtt_us: 1_000 - age_ms,
            ..v1::SocketSummary::default()
        }
    }

    pub(in crate::top) fn look(bytes: u64) -> Look {
        Look {
            report: v1::Report {
                window_duration_ns: 2_000_000_000,
                window_end_unix_ns: 1_000_000_000,
                endpoints: vec![
                    counted("10.0.0.1:80", 100, 3, 2),
                    counted("10.0.0.2:80", 300, 1, 1),
                    counted("10.0.0.3:80", 200, 2, 3),
                ],
                ..v1::Report::default()
            },
            sockets: vec![socket(1, bytes, 9), socket(2, 10, 5), socket(3, 20, 7)],
        }
    }

    fn labels(model: &Model) -> Vec<&str> {
        let last = |row: &'_ Row| row.label.len();
        let rows = model.rows().iter();
        rows.map(|row| &row.label[last(row).saturating_sub(11)..])
            .collect()
    }

    #[test]
    fn a_client_behind_a_balancer_is_named_last() {
        let mut of_balancer = socket(1, 1, 1);
        assert_eq!(addresses(&of_balancer), "127.0.0.1:80 127.0.0.1:1");
        of_balancer.client = "192.0.2.1:56324".to_owned();
        let shown = "127.0.0.1:80 127.0.0.1:1 for 192.0.2.1:56324";
        assert_eq!(addresses(&of_balancer), shown);
    }

    #[test]
    fn endpoints_are_sorted_by_what_is_asked() {
        let mut model = Model::default();
        model.update(look(0));
        for (key, expected) in [
            ('b', ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.1:80"]),
            ('r', ["10.0.0.1:80", "10.0.0.3:80", "10.0.0.2:80"]),
            ('t', ["10.0.0.3:80", "10.0.0.1:80", "10.0.0.2:80"]),
            ('a', ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.1:80"]),
            ('i', ["10.0.0.1:80", "10.0.0.3:80", "10.0.0.2:80"]),
        ] {
            assert!(model.press(Key::Letter(key)));
            assert_eq!(labels(&model), expected, "{key}");
        }
        assert!(!model.press(Key::Letter('q')) && !model.press(Key::Quit));
    }

    #[test]
    fn sockets_have_rates_from_the_second_look_on() {
        let mut model = Model::default();
        model.press(Key::OtherPage);
        model.update(look(1_000));
        let first = model.rows()[0].clone();
        assert_eq!((first.in_per_s as u64, first.age_ms), (0, Some(9)));
        model.update(look(5_000));
        assert_eq!(model.rows()[0].in_per_s as u64, 2_000);
        model.press(Key::Letter('r'));
        assert_eq!(model.rows()[0].age_ms, Some(5));
        model.press(Key::Letter('a'));
        assert_eq!(model.rows()[0].age_ms, Some(9));
    }

    #[test]
    fn what_is_chosen_stays_within_what_is_there() {
        let mut model = Model::default();
        for key in [Key::Move(isize::MAX), Key::Move(isize::MIN), Key::Move(5)] {
            model.press(key);
            assert_eq!(model.selected, 0);
        }
        model.update(look(0));
        model.press(Key::Move(20));
        assert_eq!(model.selected, 2);
        model.update(Look::default());
        assert_eq!(model.selected, 0);
    }
}
