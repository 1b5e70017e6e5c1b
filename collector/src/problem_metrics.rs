//! What is wrong now, as series.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use export::metrics::{Kind, Labels, head, line};
use problems::{Problem, Problems};

use crate::problems::JudgementStats;

/// Problems with a series of their own: the worst of them.
pub(crate) const PROBLEMS_MAX: usize = 10_000;

/// A series for each problem, and how many there are.
pub(crate) fn problems(now: &Problems, stats: &JudgementStats) -> String {
    let mut out = String::new();
    let name = "speedmimi_problem";
    let help = "1 for each problem there is now; docs/problems.md explains each kind.";
    head(&mut out, name, Kind::Gauge, help);
    for problem in &now.problems {
        line(&mut out, name, &labels(problem), 1u64);
    }
    let name = "speedmimi_problems";
    head(
        &mut out,
        name,
        Kind::Gauge,
        "How many problems there are now.",
    );
    line(&mut out, name, &Labels::default(), now.total);
    let read = |of: &AtomicU64| of.load(Relaxed);
    for (name, kind, help, value) in [
        (
            "speedmimi_collector_judged_windows_total",
            Kind::Counter,
            "Windows that were judged for problems.",
            read(&stats.windows),
        ),
        (
            "speedmimi_collector_unjudged_windows_total",
            Kind::Counter,
            "Windows that were not judged for problems, as there was no memory for it.",
            read(&stats.left_out),
        ),
        (
            "speedmimi_collector_judgement_bytes",
            Kind::Gauge,
            "Memory that holds the last windows of all hosts for the judgement, about.",
            read(&stats.bytes),
        ),
    ] {
        head(&mut out, name, kind, help);
        line(&mut out, name, &Labels::default(), value);
    }
    out
}

fn labels(problem: &Problem) -> Labels {
    let subject = &problem.subject;
    let labels = Labels::default()
        .with("host", &subject.host)
        .with("host_id", &subject.host_id)
        .with("kind", &problem.kind)
        .with("severity", problem.severity.word())
        .with("subject", subject.place.word());
    let names = [
        ("target", &subject.target),
        ("endpoint", &subject.endpoint),
        ("listener", &subject.listener),
        ("upstream", &subject.upstream),
        ("backend", &subject.backend),
        ("network_namespace", &subject.network_namespace),
    ];
    let known = names.into_iter().filter(|(_, value)| !value.is_empty());
    known.fold(labels, |labels, (name, value)| labels.with(name, value))
}
