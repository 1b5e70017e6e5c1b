//! What is kept of the last windows: of each busy endpoint a few numbers a window.

use std::collections::VecDeque;

use monitor_proto::{protocol, v1};

use crate::WINDOWS;

/// What identifies an endpoint of a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EndpointId {
    pub(crate) target: Box<str>,
    pub(crate) role: i32,
    pub(crate) address: Box<str>,
}

impl From<&v1::Endpoint> for EndpointId {
    fn from(endpoint: &v1::Endpoint) -> Self {
        Self {
            target: endpoint.target.as_str().into(),
            role: endpoint.role,
            address: endpoint.address.as_str().into(),
        }
    }
}

impl EndpointId {
    pub(crate) fn is_upstream(&self) -> bool {
        self.role == i32::from(v1::Role::Upstream)
    }
}

/// The reasons of failed connections, in the order of `Digest::failed`.
pub(crate) const REASONS: [&str; 6] = [
    "refused",
    "timeout",
    "reset",
    "unreachable",
    "aborted",
    "other",
];

/// One endpoint in one window, or the sum of several.  Counts saturate.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Digest {
    pub(crate) opened: u32,
    pub(crate) established: u32,
    pub(crate) failed: [u32; REASONS.len()],
    pub(crate) requests: u32,
    pub(crate) responses: u32,
    pub(crate) errors: u32,
    pub(crate) unanswered: u32,
    /// Connections that the peer reset while a request awaited its response.
    pub(crate) reset_before: u32,
    /// Connections that the peer reset within a response.
    pub(crate) reset_within: u32,
    /// TLS handshakes that were completed, failed by an alert, and by an end.
    pub(crate) tls: [u32; 3],
    pub(crate) segments: u32,
    pub(crate) retransmits: u32,
    pub(crate) round_trips: u32,
    /// The sum of the samples' means, weighted by their number.
    pub(crate) round_trip_us: f64,
    /// Of named upstreams alone: who has no siblings is compared with none.
    pub(crate) durations: Durations,
}

/// A histogram as reports have it, in half the room.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Durations {
    scale: i32,
    offset: i32,
    buckets: Box<[u32]>,
}

/// Beyond it a histogram is not from an agent.
const BUCKETS_MAX: usize = 512;

fn narrow(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Digest {
    /// Of an endpoint's window; `None` where nothing happened in it.
    pub(crate) fn of(endpoint: &v1::Endpoint) -> Option<Self> {
        let window = endpoint.window.as_ref()?;
        let failed = window.connections_failed.unwrap_or_default();
        let http = protocol::seen_in_window(endpoint);
        let is_compared = endpoint.role() == v1::Role::Upstream && !endpoint.upstream.is_empty();
        // Turns of other protocols have durations too.
        let durations = window
            .http
            .as_ref()
            .and_then(|http| http.exchange_duration.as_ref());
        let srtt = endpoint.srtt.unwrap_or_default();
        let mut digest = Self {
            opened: narrow(window.connections_opened),
            established: narrow(window.connections_established),
            failed: [
                failed.refused,
                failed.timeout,
                failed.reset,
                failed.unreachable,
                failed.aborted,
                failed.other,
            ]
            .map(narrow),
            segments: narrow(window.packets_sent),
            retransmits: narrow(window.retransmits),
            round_trips: narrow(srtt.samples),
            round_trip_us: srtt.samples as f64 * srtt.mean_us as f64,
            durations: durations
                .filter(|_| is_compared)
                .map(Durations::from)
                .unwrap_or_default(),
            ..Self::default()
        };
        if let Some(http) = &window.http {
            let tls = [
                http.tls_handshakes_completed,
                http.tls_handshakes_failed_alert,
                http.tls_handshakes_failed_end,
            ];
            digest.tls = tls.map(|n| narrow(n.unwrap_or(0)));
        }
        if let Some(http) = http {
            digest.requests = narrow(http.requests);
            digest.unanswered = narrow(http.requests_without_response);
            let resets = [
                http.closed_before_response_reset_received,
                http.closed_within_response_reset_received,
            ];
            [digest.reset_before, digest.reset_within] = resets.map(|n| narrow(n.unwrap_or(0)));
            for (code, &n) in &http.responses_by_code {
                let n = narrow(n);
                // Interim responses answer nothing.
                if !code.starts_with('1') {
                    digest.responses = digest.responses.saturating_add(n);
                }
                if code.starts_with('5') {
                    digest.errors = digest.errors.saturating_add(n);
                }
            }
        }
        (digest != Self::default()).then_some(digest)
    }

    fn add(&mut self, other: &Self) {
        let sums = [
            (&mut self.opened, other.opened),
            (&mut self.established, other.established),
            (&mut self.requests, other.requests),
            (&mut self.responses, other.responses),
            (&mut self.errors, other.errors),
            (&mut self.unanswered, other.unanswered),
            (&mut self.reset_before, other.reset_before),
            (&mut self.reset_within, other.reset_within),
            (&mut self.segments, other.segments),
            (&mut self.retransmits, other.retransmits),
            (&mut self.round_trips, other.round_trips),
        ];
        for (sum, n) in sums {
            *sum = sum.saturating_add(n);
        }
        let of_tls = self.tls.iter_mut().zip(other.tls);
        for (sum, n) in self.failed.iter_mut().zip(other.failed).chain(of_tls) {
            *sum = sum.saturating_add(n);
        }
        self.round_trip_us += other.round_trip_us;
        self.durations.add(&other.durations);
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failed.iter().fold(0, |sum, &n| sum.saturating_add(n))
    }

    /// Connections that the peer reset before or within a response.
    pub(crate) fn resets(&self) -> u32 {
        self.reset_before.saturating_add(self.reset_within)
    }

    /// TLS handshakes that are over, and those of them that failed.
    pub(crate) fn tls_handshakes(&self) -> (u32, u32) {
        let [completed, alert, end] = self.tls;
        let failed = alert.saturating_add(end);
        (completed.saturating_add(failed), failed)
    }

    /// Attempts to connect that have ended one way or the other.
    pub(crate) fn attempts(&self) -> u32 {
        self.established.saturating_add(self.failures())
    }

    /// The mean of the smoothed round trips, in seconds.
    pub(crate) fn round_trip_seconds(&self) -> f64 {
        self.round_trip_us / f64::from(self.round_trips.max(1)) / 1e6
    }
}

impl From<&v1::Histogram> for Durations {
    fn from(h: &v1::Histogram) -> Self {
        Self {
            scale: h.scale,
            offset: h.offset,
            buckets: h
                .buckets
                .iter()
                .take(BUCKETS_MAX)
                .map(|&n| narrow(n))
                .collect(),
        }
    }
}

impl Durations {
    pub(crate) fn count(&self) -> u32 {
        self.buckets.iter().fold(0, |sum, &n| sum.saturating_add(n))
    }

    pub(crate) fn quantile_seconds(&self, q: f64) -> Option<f64> {
        let histogram = v1::Histogram {
            scale: self.scale,
            offset: self.offset,
            buckets: self.buckets.iter().map(|&n| u64::from(n)).collect(),
            ..v1::Histogram::default()
        };
        monitor_proto::histogram::quantile_seconds(&histogram, q)
    }

    /// Leaves out what is of another scale, or too far away: no agent sends such.
    fn add(&mut self, other: &Self) {
        if other.buckets.is_empty() {
            return;
        }
        if self.buckets.is_empty() {
            *self = other.clone();
            return;
        }
        let end = |d: &Self| i64::from(d.offset) + d.buckets.len() as i64;
        let start = i64::from(self.offset.min(other.offset));
        let length = end(self).max(end(other)) - start;
        let Ok(length) = usize::try_from(length) else {
            return;
        };
        if self.scale != other.scale || length > BUCKETS_MAX {
            return;
        }
        let mut sum = vec![0u32; length];
        for one in [&*self, other] {
            let skipped = usize::try_from(i64::from(one.offset) - start).unwrap_or(0);
            for (sum, n) in sum.iter_mut().skip(skipped).zip(&one.buckets) {
                *sum = sum.saturating_add(*n);
            }
        }
        self.offset = self.offset.min(other.offset);
        self.buckets = sum.into();
    }
}

/// A window's place in time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub(crate) number: u64,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) duration_ns: u64,
}

/// The last windows of one endpoint, in which something happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct EndpointHistory {
    pub(crate) listener: Box<str>,
    pub(crate) upstream: Box<str>,
    pub(crate) backend: Box<str>,
    /// By window, the oldest first.
    digests: VecDeque<(u64, Digest)>,
}

/// The sum of the newest windows that hold enough, or of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    pub(crate) sum: Digest,
    pub(crate) start_ns: u64,
    pub(crate) seconds: f64,
}

impl EndpointHistory {
    pub(crate) fn name(&mut self, endpoint: &v1::Endpoint) {
        let listener = monitor_proto::labels::listener(endpoint);
        let names = [
            (&mut self.listener, listener),
            (&mut self.upstream, endpoint.upstream.as_str()),
            (&mut self.backend, endpoint.backend.as_str()),
        ];
        for (known, name) in names {
            if **known != *name {
                *known = name.into();
            }
        }
    }

    pub(crate) fn push(&mut self, number: u64, digest: Digest) {
        self.digests.push_back((number, digest));
    }

    /// Forgets what is older than this window; whether something is left.
    pub(crate) fn keep_from(&mut self, number: u64) -> bool {
        self.digests.retain(|(of, _)| *of >= number);
        !self.digests.is_empty()
    }

    /// The newest windows, as few as are enough.
    pub(crate) fn recent(
        &self,
        spans: &VecDeque<Span>,
        is_enough: impl Fn(&Digest) -> bool,
    ) -> Recent {
        let mut recent = Recent::default();
        for span in spans.iter().rev() {
            if let Some((_, digest)) = self.digests.iter().find(|(of, _)| *of == span.number) {
                recent.sum.add(digest);
            }
            recent.start_ns = span.start_ns;
            recent.seconds += span.duration_ns as f64 / 1e9;
            if is_enough(&recent.sum) {
                break;
            }
        }
        recent
    }

    /// All that is kept.
    pub(crate) fn all(&self, spans: &VecDeque<Span>) -> Digest {
        self.recent(spans, |_| false).sum
    }

    /// How much was counted in these windows.
    pub(crate) fn count_from(&self, number: u64, counted: fn(&Digest) -> u32) -> u32 {
        let windows = self.digests.iter().filter(|(of, _)| *of >= number);
        windows.fold(0, |sum: u32, (_, d)| sum.saturating_add(counted(d)))
    }

    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        let names = self.listener.len() + self.upstream.len() + self.backend.len();
        let buckets = |(_, d): &(u64, Digest)| d.durations.buckets.len() * size_of::<u32>();
        let digests: usize = self.digests.iter().map(buckets).sum();
        size_of::<Self>() + names + digests + self.digests.capacity() * size_of::<(u64, Digest)>()
    }
}

/// The windows that are judged, after one more.
pub(crate) fn push_span(spans: &mut VecDeque<Span>, span: Span) {
    spans.push_back(span);
    if spans.len() > WINDOWS {
        spans.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn durations(scale: i32, offset: i32, buckets: &[u32]) -> Durations {
        Durations {
            scale,
            offset,
            buckets: buckets.into(),
        }
    }

    proptest! {
        #[test]
        fn sums_of_histograms_hold_every_count(
            a in (-80i32..80, prop::collection::vec(0u32..9, 1..60)),
            b in (-80i32..80, prop::collection::vec(0u32..9, 1..60)),
        ) {
            let (a, b) = (durations(2, a.0, &a.1), durations(2, b.0, &b.1));
            let mut sum = a.clone();
            sum.add(&b);
            prop_assert_eq!(sum.count(), a.count() + b.count());
            for index in -90..150 {
                let at = |d: &Durations| {
                    usize::try_from(index - d.offset).ok().and_then(|i| d.buckets.get(i)).copied()
                };
                let of = |d| at(d).unwrap_or(0);
                prop_assert_eq!(of(&sum), of(&a) + of(&b));
            }
        }
    }

    #[test]
    fn hostile_histograms_take_no_room() {
        let mut sum = durations(2, i32::MIN, &[1]);
        sum.add(&durations(2, i32::MAX, &[1]));
        sum.add(&durations(3, 0, &[u32::MAX]));
        assert_eq!(sum, durations(2, i32::MIN, &[1]));
        let long = v1::Histogram {
            buckets: vec![u64::MAX; 1 << 16],
            ..v1::Histogram::default()
        };
        assert_eq!(Durations::from(&long).buckets.len(), BUCKETS_MAX);
        assert_eq!(Durations::from(&long).count(), u32::MAX);
    }
}
