//! One host's reports, one after another.

use std::collections::{HashMap, VecDeque};

use monitor_proto::v1;

use crate::{
    Place, Problem, Subject, Thresholds, agent, endpoints,
    history::{Digest, EndpointHistory, EndpointId, Span, push_span},
    host, queues, siblings,
    track::{Extent, Measured, Told, Tracks},
};

/// Busy endpoints of a host that are judged; of more the first in the report.
pub const ENDPOINTS_MAX: usize = 4096;

/// What is known of one host: its last three windows and its problems.
#[derive(Debug, Default)]
pub struct HostJudge {
    pub(crate) host: v1::Host,
    pub(crate) spans: VecDeque<Span>,
    pub(crate) endpoints: HashMap<EndpointId, EndpointHistory>,
    pub(crate) received_ns: Option<u64>,
    tracks: Tracks,
    next_number: u64,
}

/// What the kinds are judged by, in one window.
pub(crate) struct Scene<'a> {
    pub(crate) report: &'a v1::Report,
    pub(crate) host: &'a v1::Host,
    pub(crate) spans: &'a VecDeque<Span>,
    pub(crate) endpoints: &'a HashMap<EndpointId, EndpointHistory>,
    thresholds: &'a Thresholds,
    tracks: &'a mut Tracks,
}

impl HostJudge {
    /// Takes the next report of the host, and when it came, where that is known.
    pub fn observe(
        &mut self,
        report: &v1::Report,
        received_unix_ns: Option<u64>,
        thresholds: &Thresholds,
    ) {
        self.host = report.host.clone().unwrap_or_default();
        let span = self.take(report);
        let mut scene = Scene {
            report,
            host: &self.host,
            spans: &self.spans,
            endpoints: &self.endpoints,
            thresholds,
            tracks: &mut self.tracks,
        };
        endpoints::judge(&mut scene);
        siblings::judge(&mut scene);
        let overflows_told = queues::judge(&mut scene);
        host::judge(&mut scene, overflows_told);
        agent::judge(&mut scene);
        if let Some(received_ns) = received_unix_ns {
            agent::judge_clock(&mut scene, self.received_ns, received_ns, &span);
        }
        self.received_ns = received_unix_ns;
        self.tracks.end_window();
    }

    /// What is wrong with the host, worst first.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.tracks.open().cloned().collect();
        crate::sort(&mut problems);
        problems
    }

    /// What it takes in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let endpoints = self.endpoints.iter();
        let endpoints = endpoints.map(|(id, history)| {
            size_of::<EndpointId>() + id.target.len() + id.address.len() + history.bytes()
        });
        size_of::<Self>() + endpoints.sum::<usize>() + self.tracks.bytes()
    }

    /// Adds the report's window to what is kept, and forgets the oldest.
    fn take(&mut self, report: &v1::Report) -> Span {
        let span = Span {
            number: self.next_number,
            start_ns: report.window_start_unix_ns,
            end_ns: report.window_end_unix_ns,
            duration_ns: report.window_duration_ns,
        };
        self.next_number += 1;
        // What was before a long gap tells nothing of now.
        let gap_ns = |last: &Span| span.start_ns.abs_diff(last.end_ns);
        let longest_ns = span.duration_ns.saturating_mul(crate::WINDOWS as u64);
        if self
            .spans
            .back()
            .is_some_and(|last| gap_ns(last) > longest_ns)
        {
            self.spans.clear();
            self.endpoints.clear();
        }
        push_span(&mut self.spans, span);
        let oldest = self.spans.front().map_or(0, |span| span.number);
        self.endpoints
            .retain(|_, history| history.keep_from(oldest));
        for endpoint in &report.endpoints {
            let Some(digest) = Digest::of(endpoint) else {
                continue;
            };
            let id = EndpointId::from(endpoint);
            if self.endpoints.len() >= ENDPOINTS_MAX && !self.endpoints.contains_key(&id) {
                continue;
            }
            let history = self.endpoints.entry(id).or_default();
            history.name(endpoint);
            history.push(span.number, digest);
        }
        span
    }
}

impl Scene<'_> {
    pub(crate) fn measure(&mut self, measured: Measured<'_>, tell: impl FnOnce() -> Told) {
        self.tracks.measure(self.thresholds, measured, tell);
    }

    /// Whether this is a problem by now.
    pub(crate) fn is_open(&self, kind: crate::Kind, key: [&str; 3]) -> bool {
        self.tracks.is_open(kind, key)
    }

    /// What these kinds are told of is not there any more, where `is_gone` says so of
    /// its key.
    pub(crate) fn gone(&mut self, kinds: &[crate::Kind], is_gone: impl Fn(&str) -> bool) {
        self.tracks.gone(kinds, is_gone);
    }

    pub(crate) fn threshold(&self, kind: crate::Kind) -> f64 {
        self.thresholds.of(kind)
    }

    /// Measures the host itself in the newest window.
    pub(crate) fn measure_host(
        &mut self,
        kind: crate::Kind,
        part: &str,
        value: f64,
        tell: impl FnOnce(Subject) -> Told,
    ) {
        let measured = Measured {
            kind,
            key: [part, "", ""],
            value,
            extent: Extent::Enough,
            start_ns: self.report.window_start_unix_ns,
        };
        let subject = self.subject(Place::Host);
        self.measure(measured, || tell(subject));
    }

    pub(crate) fn subject(&self, place: Place) -> Subject {
        Subject {
            place,
            host: self.host.name.clone(),
            host_id: self.host.id.clone(),
            ..Subject::default()
        }
    }
}
