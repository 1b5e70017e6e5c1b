//! Figures as text.
//!
//! Architecture invariant: pure.

use std::fmt::Display;

use super::{AgentMetrics, QUEUE_CAPACITY};

/// Writes all metrics; each has its help and its type.
pub(super) fn render(figures: &AgentMetrics) -> String {
    let mut page = Page::default();
    let version = env!("CARGO_PKG_VERSION");
    page.family("build_info", "gauge", "Always 1; which agent this is.");
    page.sample("build_info", &[("version", version)], 1);
    page.one(
        ("cpu_seconds_total", "counter"),
        "CPU time that the agent has used.",
        seconds(figures.cpu_ns),
    );
    page.one(
        ("resident_memory_bytes", "gauge"),
        "Memory of the agent that is resident.",
        figures.memory_bytes,
    );
    page.family(
        "losses_total",
        "counter",
        "What went uncounted or unreported, by reason: in the kernel since counting began, in the agent since it started.",
    );
    for (reason, lost) in &figures.losses {
        page.sample("losses_total", &[("reason", reason)], lost);
    }
    page.family("queue_length", "gauge", "What waits in a queue.");
    let samples = [("queue", "samples")];
    page.sample("queue_length", &samples, figures.samples_queued);
    page.family("queue_capacity", "gauge", "What a queue takes at the most.");
    page.sample("queue_capacity", &samples, QUEUE_CAPACITY);
    page.one(
        ("spool_reports", "gauge"),
        "Reports on disk that are not acknowledged.",
        figures.spool_reports,
    );
    page.one(
        ("spool_bytes", "gauge"),
        "Bytes of the spool on disk.",
        figures.spool_bytes,
    );
    page.one(
        ("spool_limit_bytes", "gauge"),
        "Bytes that the spool may take.",
        figures.spool_bytes_max,
    );
    page.one(
        ("reports_delivered_total", "counter"),
        "Reports that were acknowledged since the agent started.",
        figures.reports_delivered,
    );
    page.one(
        ("delivery_connected", "gauge"),
        "1 while the collector accepts reports, 0 while they wait in the spool.",
        u8::from(figures.connected),
    );
    if let Some(sample) = figures.sample {
        page.one(
            ("last_sample_timestamp_seconds", "gauge"),
            "When the newest sample was taken, as Unix time.",
            seconds(sample.unix_ns),
        );
        page.one(
            ("sample_duration_seconds", "gauge"),
            "How long the newest sample took.",
            sample.duration.as_secs_f64(),
        );
        page.one(
            ("sample_interval_seconds", "gauge"),
            "The time from the newest sample to the next one.",
            sample.interval.as_secs_f64(),
        );
        page.one(
            ("endpoints", "gauge"),
            "Listeners and peers that are counted.",
            sample.endpoints,
        );
        page.one(
            ("connections_active", "gauge"),
            "Connections of the targets that are open.",
            sample.connections_active,
        );
    }
    page.text
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.text += &format!(
            "# HELP speedmimi_agent_{name} {help}\n# TYPE speedmimi_agent_{name} {kind}\n"
        );
    }

    /// The labels' values are this program's own: nothing is to be escaped.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
        let labels = match labels.as_slice() {
            [] => String::new(),
            some => format!("{{{}}}", some.join(",")),
        };
        self.text += &format!("speedmimi_agent_{name}{labels} {value}\n");
    }

    fn one(&mut self, (name, kind): (&str, &str), help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::LastSample;

    #[test]
    fn every_figure_is_told_with_its_unit() {
        let figures = AgentMetrics {
            cpu_ns: 1_500_000_000,
            losses: vec![("samples_dropped", 3), ("endpoint_map_full", 0)],
            samples_queued: 7,
            spool_reports: 2,
            spool_bytes: 100,
            connected: true,
            sample: Some(LastSample {
                interval: std::time::Duration::from_millis(100),
                endpoints: 4,
                ..LastSample::default()
            }),
            ..AgentMetrics::default()
        };
        let text = render(&figures);
        for line in [
            "# TYPE speedmimi_agent_cpu_seconds_total counter",
            "speedmimi_agent_cpu_seconds_total 1.5",
            "speedmimi_agent_losses_total{reason=\"samples_dropped\"} 3",
            "speedmimi_agent_losses_total{reason=\"endpoint_map_full\"} 0",
            "speedmimi_agent_queue_length{queue=\"samples\"} 7",
            "speedmimi_agent_spool_reports 2",
            "speedmimi_agent_spool_bytes 100",
            "speedmimi_agent_delivery_connected 1",
            "speedmimi_agent_sample_interval_seconds 0.1",
            "speedmimi_agent_endpoints 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        let none = render(&AgentMetrics::default());
        assert!(!none.contains("sample_interval"), "nothing is no zero");
    }
}
