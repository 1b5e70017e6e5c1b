//! What is wrong with the monitoring itself.

use monitor_proto::{
    display,
    state::{HostState, late_after_ns, silent_after_ns},
    v1,
};

use crate::{
    Kind, Place, Problem, Subject, Thresholds,
    history::Span,
    judge::Scene,
    track::{self, Told},
    words::{evidence, seconds},
};

/// Lines and characters of an agent's own words that are told.
const DETAILS_MAX: usize = 8;
const DETAIL_CHARS_MAX: usize = 300;

pub(crate) fn judge(scene: &mut Scene<'_>) {
    let report = scene.report;
    let lost: u64 = report
        .losses
        .values()
        .fold(0, |sum, &n| sum.saturating_add(n));
    scene.measure_host(Kind::AgentLossy, "", lost as f64, |subject| {
        let losses = report
            .losses
            .iter()
            .filter(|(_, n)| **n > 0)
            .take(DETAILS_MAX);
        let mut losses: Vec<_> = losses.collect();
        losses.sort();
        let reasons: Vec<&str> = losses.iter().map(|(reason, _)| reason.as_str()).collect();
        Told {
            summary: format!(
                "the agent on {} cannot count everything ({})",
                subject.host,
                reasons.join(", ")
            ),
            subject,
            evidence: losses
                .iter()
                .map(|(reason, n)| evidence(&format!("losses.{reason}"), **n as f64, "events"))
                .collect(),
            details: Vec::new(),
        }
    });
    let is_incomplete = !report.complete && lost == 0;
    scene.measure_host(
        Kind::AgentIncomplete,
        "",
        f64::from(u8::from(is_incomplete)),
        |subject| Told {
            summary: format!("reports of {} are incomplete", subject.host),
            subject,
            evidence: vec![evidence("complete", 0.0, "of 1 window")],
            details: details(&report.incomplete_reasons),
        },
    );
    scene.measure_host(Kind::AgentNotes, "", report.notes.len() as f64, |subject| {
        Told {
            summary: format!("the agent on {} has something to say", subject.host),
            subject,
            evidence: vec![evidence("notes", report.notes.len() as f64, "notes")],
            details: details(&report.notes),
        }
    });
}

fn details(lines: &[String]) -> Vec<String> {
    let cut = |line: &String| line.chars().take(DETAIL_CHARS_MAX).collect();
    lines.iter().take(DETAILS_MAX).map(cut).collect()
}

/// Reports that come one window after another were made just before.
pub(crate) fn judge_clock(
    scene: &mut Scene<'_>,
    before_ns: Option<u64>,
    received_ns: u64,
    span: &Span,
) {
    let Some(before_ns) = before_ns else { return };
    if received_ns.saturating_sub(before_ns) < span.duration_ns / 2 {
        return;
    }
    let difference = (i128::from(span.end_ns) - i128::from(received_ns)) as f64 / 1e9;
    scene.measure_host(Kind::ClockOff, "", difference.abs(), |subject| Told {
        summary: format!(
            "the clock of {} is {} {} the collector's",
            subject.host,
            seconds(difference.abs()),
            if difference > 0.0 {
                "ahead of"
            } else {
                "behind"
            }
        ),
        subject,
        evidence: vec![evidence("clock_difference", difference, "seconds")],
        details: Vec::new(),
    });
}

/// What is wrong where a host's newest report came so long ago; figures of a silent
/// host tell nothing of now, so that this is all that can be said of it.
#[must_use]
pub fn silence(host: &v1::HostSummary, thresholds: &Thresholds) -> Option<Problem> {
    let window_ns = host.last_window_duration_ns;
    let factor = host.age_ns as f64 / late_after_ns(window_ns) as f64;
    let threshold = thresholds.of(Kind::AgentSilent);
    if factor < threshold {
        return None;
    }
    let of = host.host.clone().unwrap_or_default();
    let state = HostState::from(host);
    let age = display::age(std::time::Duration::from_nanos(host.age_ns));
    let told = Told {
        summary: format!(
            "no report of {} for {age}: its agent is {}",
            of.name,
            state.word()
        ),
        subject: Subject {
            place: Place::Host,
            host: of.name,
            host_id: of.id,
            ..Subject::default()
        },
        evidence: vec![
            evidence("age", host.age_ns as f64 / 1e9, "seconds"),
            evidence(
                "silent_after",
                silent_after_ns(window_ns) as f64 / 1e9,
                "seconds",
            ),
        ],
        details: Vec::new(),
    };
    // Late is a sign, silent is certain.
    let value = if state == HostState::Silent {
        f64::MAX
    } else {
        0.0
    };
    let since_ns = host.last_seen_unix_ns;
    Some(track::problem(
        Kind::AgentSilent,
        threshold,
        value,
        since_ns,
        told,
    ))
}
