//! What is wrong at one endpoint, by its own figures.

use std::collections::HashMap;

use crate::{
    Evidence, Kind, Place, Subject,
    history::{Digest, EndpointHistory, EndpointId, REASONS, Recent},
    judge::Scene,
    track::{Extent, Measured, Told},
    words::{self, evidence, percent},
};

const ATTEMPTS_MIN: u32 = 3;
const FAILURES_MIN: u32 = 2;
const RESPONSES_MIN: u32 = 10;
const ERRORS_MIN: u32 = 3;
const SEGMENTS_MIN: u32 = 200;
const RETRANSMITS_MIN: u32 = 20;
const CHURN_CONNECTIONS_MIN: u32 = 100;
const CHURN_REQUESTS_PER_CONNECTION: f64 = 1.1;
/// A listener's errors are its backends' where these made nearly as many.
const EXPLAINED: f64 = 0.9;

/// An endpoint that is judged.
#[derive(Clone, Copy)]
pub(crate) struct One<'a> {
    pub(crate) id: &'a EndpointId,
    pub(crate) history: &'a EndpointHistory,
}

impl<'a> One<'a> {
    pub(crate) fn key(&self) -> [&'a str; 3] {
        let role = if self.id.is_upstream() { "u" } else { "d" };
        [&self.id.target, role, &self.id.address]
    }

    pub(crate) fn subject(&self, host: Subject) -> Subject {
        Subject {
            place: if self.id.is_upstream() {
                Place::Backend
            } else {
                Place::Listener
            },
            target: self.id.target.to_string(),
            endpoint: self.id.address.to_string(),
            listener: self.history.listener.to_string(),
            upstream: self.history.upstream.to_string(),
            backend: self.history.backend.to_string(),
            ..host
        }
    }

    /// As sentences call it.
    pub(crate) fn called(&self) -> String {
        let (id, history) = (self.id, self.history);
        if id.is_upstream() {
            let name = words::backend(&history.upstream, &history.backend, &id.address);
            format!("backend {name}")
        } else {
            format!("listener {}", words::named(&history.listener, &id.address))
        }
    }
}

/// What backends of a target did that clients may see as an error.
type Causes<'a> = HashMap<&'a str, u32>;

pub(crate) fn judge(scene: &mut Scene<'_>) {
    let (endpoints, spans) = (scene.endpoints, scene.spans);
    let causes = causes(scene);
    for (id, history) in endpoints {
        let one = One { id, history };
        // A few of many are chance: more windows tell.
        let recent = |of_min: u32, part_min: u32, share: fn(&Digest) -> (u32, u32)| {
            history.recent(spans, |sum| {
                let (of, part) = share(sum);
                of >= of_min && (part == 0 || part >= part_min)
            })
        };
        let mut resets_are_told = false;
        if id.is_upstream() {
            let of_connects = history.recent(spans, |sum| {
                let (of, part) = (sum.attempts(), sum.failures());
                is_reached(sum) || of >= ATTEMPTS_MIN && (part == 0 || part >= FAILURES_MIN)
            });
            connect_failures(scene, one, &of_connects);
            let of_churn = recent(CHURN_CONNECTIONS_MIN, 0, |d| (d.opened, 0));
            connection_churn(scene, one, &of_churn);
            let of_resets = recent(RESPONSES_MIN, ERRORS_MIN, |d| (d.requests, d.resets()));
            resets(scene, one, &of_resets);
            let share = self::of_resets(&of_resets.sum);
            let extent = share.extent();
            resets_are_told =
                extent == Extent::Enough && share.ratio() >= scene.threshold(Kind::Resets);
        }
        let of_errors = recent(RESPONSES_MIN, ERRORS_MIN, |d| (d.responses, d.errors));
        server_errors(scene, one, &of_errors, &causes);
        let of_requests = recent(RESPONSES_MIN, ERRORS_MIN, |d| (d.requests, d.unanswered));
        unanswered(scene, one, &of_requests, resets_are_told);
        let of_handshakes = recent(RESPONSES_MIN, ERRORS_MIN, Digest::tls_handshakes);
        tls_handshakes(scene, one, &of_handshakes);
        let of_segments = recent(SEGMENTS_MIN, RETRANSMITS_MIN, |d| {
            (d.segments, d.retransmits)
        });
        retransmits(scene, one, &of_segments);
    }
}

fn causes<'a>(scene: &Scene<'a>) -> Causes<'a> {
    let mut causes = Causes::new();
    for (id, history) in scene.endpoints {
        if id.is_upstream() {
            let all = history.all(scene.spans);
            let failures = all.failures();
            let caused = all
                .errors
                .saturating_add(failures)
                .saturating_add(all.unanswered)
                .saturating_add(all.reset_within);
            let sum = causes.entry(&*id.target).or_default();
            *sum = sum.saturating_add(caused);
        }
    }
    causes
}

/// A share, where there is enough of what it is a share of.
struct Share {
    kind: Kind,
    part: u32,
    of: u32,
    part_min: u32,
    of_min: u32,
}

impl Share {
    fn ratio(&self) -> f64 {
        f64::from(self.part) / f64::from(self.of.max(1))
    }

    fn extent(&self) -> Extent {
        match Extent::of(self.of, self.of_min) {
            // Few of many are chance; where it went on, a single one counts.
            Extent::Enough if self.part > 0 && self.part < self.part_min => Extent::Little,
            extent => extent,
        }
    }

    fn measure(
        &self,
        scene: &mut Scene<'_>,
        one: One<'_>,
        recent: &Recent,
        tell: impl FnOnce(f64) -> (String, Vec<Evidence>),
    ) {
        let ratio = self.ratio();
        let measured = Measured {
            kind: self.kind,
            key: one.key(),
            value: ratio,
            extent: self.extent(),
            start_ns: recent.start_ns,
        };
        let host = scene.subject(Place::Host);
        scene.measure(measured, || {
            let (summary, evidence) = tell(ratio);
            Told {
                subject: one.subject(host),
                summary,
                evidence,
                details: Vec::new(),
            }
        });
    }
}

/// Whether connections carry segments and none fails: with keep-alive there may be no
/// attempt for long.
fn is_reached(sum: &Digest) -> bool {
    sum.failures() == 0 && sum.segments > 0
}

fn connect_failures(scene: &mut Scene<'_>, one: One<'_>, recent: &Recent) {
    let sum = &recent.sum;
    let share = Share {
        kind: Kind::ConnectFailures,
        part: sum.failures(),
        of: sum.attempts().max(u32::from(is_reached(sum))),
        part_min: FAILURES_MIN,
        of_min: ATTEMPTS_MIN,
    };
    share.measure(scene, one, recent, |ratio| {
        let reasons = REASONS.iter().zip(sum.failed).filter(|(_, n)| *n > 0);
        let mut figures = vec![
            evidence("failed_ratio", ratio, "ratio"),
            evidence("attempts", f64::from(sum.attempts()), "connections"),
        ];
        let by_reason = reasons.clone().map(|(reason, n)| {
            evidence(
                &format!("connections_failed.{reason}"),
                f64::from(n),
                "connections",
            )
        });
        figures.extend(by_reason);
        let main = reasons
            .max_by_key(|(_, n)| *n)
            .map_or("other", |(reason, _)| *reason);
        let called = one.called();
        let summary = match main {
            "refused" if sum.established == 0 => format!("{called} refuses connections"),
            main if sum.established == 0 => {
                format!("no connection to {called} is established ({main})")
            }
            main => format!(
                "{} of the connections to {called} fail ({main})",
                percent(ratio)
            ),
        };
        (summary, figures)
    });
}

fn server_errors(scene: &mut Scene<'_>, one: One<'_>, recent: &Recent, causes: &Causes<'_>) {
    let sum = &recent.sum;
    let mut share = Share {
        kind: Kind::ServerErrors,
        part: sum.errors,
        of: sum.responses,
        part_min: ERRORS_MIN,
        of_min: RESPONSES_MIN,
    };
    if !one.id.is_upstream() && sum.errors > 0 {
        let errors = one.history.all(scene.spans).errors;
        let caused = causes.get(&*one.id.target).copied().unwrap_or(0);
        if f64::from(caused) >= f64::from(errors) * EXPLAINED {
            share.part = 0;
        }
    }
    share.measure(scene, one, recent, |ratio| {
        let figures = vec![
            evidence("5xx_ratio", ratio, "ratio"),
            evidence("responses.5xx", f64::from(sum.errors), "responses"),
            evidence("responses", f64::from(sum.responses), "responses"),
        ];
        (
            format!("{} answers {} with 5xx", one.called(), percent(ratio)),
            figures,
        )
    });
}

fn unanswered(scene: &mut Scene<'_>, one: One<'_>, recent: &Recent, resets_are_told: bool) {
    let sum = &recent.sum;
    let mut share = Share {
        kind: Kind::UnansweredRequests,
        part: sum.unanswered,
        of: sum.requests,
        part_min: ERRORS_MIN,
        of_min: RESPONSES_MIN,
    };
    // One cause is one problem, but where too few resets are none, they are unanswered.
    if resets_are_told {
        share.part = share.part.saturating_sub(sum.reset_before);
    }
    share.measure(scene, one, recent, |ratio| {
        let figures = vec![
            evidence("unanswered_ratio", ratio, "ratio"),
            evidence(
                "requests_without_response",
                f64::from(sum.unanswered),
                "requests",
            ),
            evidence("requests", f64::from(sum.requests), "requests"),
        ];
        let called = one.called();
        (
            format!(
                "{called} leaves {} of the requests unanswered",
                percent(ratio)
            ),
            figures,
        )
    });
}

fn of_resets(sum: &Digest) -> Share {
    Share {
        kind: Kind::Resets,
        part: sum.resets(),
        of: sum.requests,
        part_min: ERRORS_MIN,
        of_min: RESPONSES_MIN,
    }
}

fn resets(scene: &mut Scene<'_>, one: One<'_>, recent: &Recent) {
    let sum = &recent.sum;
    of_resets(sum).measure(scene, one, recent, |ratio| {
        let of = |name: &str, n: u32| evidence(name, f64::from(n), "connections");
        let figures = vec![
            evidence("reset_ratio", ratio, "ratio"),
            of("closed_before_response_reset_received", sum.reset_before),
            of("closed_within_response_reset_received", sum.reset_within),
            evidence("requests", f64::from(sum.requests), "requests"),
        ];
        (
            format!(
                "{} resets the connection of {} of the requests",
                one.called(),
                percent(ratio)
            ),
            figures,
        )
    });
}

fn tls_handshakes(scene: &mut Scene<'_>, one: One<'_>, recent: &Recent) {
    let (of, part) = recent.sum.tls_handshakes();
    let share = Share {
        kind: Kind::TlsHandshakes,
        part,
        of,
        part_min: ERRORS_MIN,
        of_min: RESPONSES_MIN,
    };
    share.measure(scene, one, recent, |ratio| {
        let [completed, alert, end] = recent.sum.tls;
        let of = |name: &str, n: u32| evidence(name, f64::from(n), "handshakes");
        let figures = vec![
            evidence("failed_ratio", ratio, "ratio"),
            of("tls_handshakes_failed_alert", alert),
            of("tls_handshakes_failed_end", end),
            of("tls_handshakes_completed", completed),
        ];
        let mostly = if alert >= end {
            "mostly by an alert"
        } else {
            "mostly as the connection ends"
        };
        (
            format!(
                "{} of the TLS handshakes with {} fail, {mostly}",
                percent(ratio),
                one.called()
            ),
            figures,
        )
    });
}

fn retransmits(scene: &mut Scene<'_>, one: One<'_>, recent: &Recent) {
    let sum = &recent.sum;
    let share = Share {
        kind: Kind::Retransmits,
        part: sum.retransmits,
        of: sum.segments,
        part_min: RETRANSMITS_MIN,
        of_min: SEGMENTS_MIN,
    };
    share.measure(scene, one, recent, |ratio| {
        let figures = vec![
            evidence("retransmit_ratio", ratio, "ratio"),
            evidence("retransmits", f64::from(sum.retransmits), "segments"),
            evidence("packets_sent", f64::from(sum.segments), "segments"),
        ];
        let called = one.called();
        (
            format!(
                "{} of the segments sent at {called} are retransmitted",
                percent(ratio)
            ),
            figures,
        )
    });
}

fn connection_churn(scene: &mut Scene<'_>, one: One<'_>, recent: &Recent) {
    let sum = &recent.sum;
    let per_connection = f64::from(sum.requests) / f64::from(sum.opened.max(1));
    let rate = f64::from(sum.opened) / recent.seconds.max(1e-9);
    // Without a request nobody knows what the connections were for.
    let is_churn = sum.requests > 0 && per_connection <= CHURN_REQUESTS_PER_CONNECTION;
    let measured = Measured {
        kind: Kind::ConnectionChurn,
        key: one.key(),
        value: if is_churn { rate } else { 0.0 },
        extent: Extent::of(sum.opened, CHURN_CONNECTIONS_MIN),
        start_ns: recent.start_ns,
    };
    let host = scene.subject(Place::Host);
    scene.measure(measured, || Told {
        summary: format!(
            "{} gets {} new connections a second for {per_connection:.1} requests each",
            one.called(),
            monitor_proto::display::count(rate)
        ),
        subject: one.subject(host),
        evidence: vec![
            evidence("connections_opened_rate", rate, "connections a second"),
            evidence("requests_per_connection", per_connection, "requests"),
        ],
        details: Vec::new(),
    });
}
