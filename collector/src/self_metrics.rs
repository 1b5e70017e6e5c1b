//! What the collector says of itself.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use budget::{Budget, Use};
use daemon::clock::unix_ns;
use export::{
    ForwardStats, Rejection,
    metrics::{Kind, Labels, head, line},
};
use store::kept::TABLES;

use crate::self_stats::{Refusal, SelfStats};

/// The collector's own series.
pub(crate) fn own(stats: &SelfStats, budget: &Budget, hosts: usize, store_bytes: u64) -> String {
    let mut out = String::new();
    let read = |counter: &AtomicU64| counter.load(Relaxed);
    build_info(&mut out);

    let name = "speedmimi_collector_reports_total";
    head(
        &mut out,
        name,
        Kind::Counter,
        "Reports answered, by outcome.",
    );
    for (outcome, counter) in [
        ("conflict", &stats.conflicts),
        ("duplicate", &stats.duplicates),
        ("stored", &stats.stored),
    ] {
        let labels = Labels::default().with("outcome", outcome);
        line(&mut out, name, &labels, read(counter));
    }

    let name = "speedmimi_collector_refused_total";
    head(
        &mut out,
        name,
        Kind::Counter,
        "Reports, streams and connections rejected, by reason.",
    );
    for (reason, label) in Refusal::ALL {
        let labels = Labels::default().with("reason", label);
        line(&mut out, name, &labels, stats.refused(reason));
    }

    let name = "speedmimi_collector_commits_total";
    head(
        &mut out,
        name,
        Kind::Counter,
        "Store transactions, by result.",
    );
    for (result, counter) in [
        ("done", &stats.store.commits),
        ("failed", &stats.store.commits_failed),
    ] {
        let labels = Labels::default().with("result", result);
        line(&mut out, name, &labels, read(counter));
    }

    let name = "speedmimi_collector_damaged_rows_total";
    head(
        &mut out,
        name,
        Kind::Counter,
        "Damaged rows of the store, skipped in responses, by table; each row counts once.",
    );
    for ((table, _), count) in TABLES.iter().zip(stats.store.damaged.counts()) {
        line(
            &mut out,
            name,
            &Labels::default().with("table", table),
            count,
        );
    }

    memory(&mut out, budget);
    forwards(&mut out, &REMOTE_WRITE, &stats.remotes);
    forwards(&mut out, &OTLP, &stats.otlps);

    let mut plain = |name, kind, help, value: f64| {
        head(&mut out, name, kind, help);
        line(&mut out, name, &Labels::default(), value);
    };
    plain(
        "speedmimi_collector_commit_seconds_total",
        Kind::Counter,
        "Total duration of the store's transactions.",
        read(&stats.store.commit_ns) as f64 / 1e9,
    );
    plain(
        "speedmimi_collector_retired_reports_total",
        Kind::Counter,
        "Reports deleted by the age or size limit.",
        read(&stats.store.retired) as f64,
    );
    plain(
        "speedmimi_collector_rollups_left_out_total",
        Kind::Counter,
        "Roll-up buckets dropped because their host exceeded its limit of endpoints.",
        read(&stats.store.rolls_left_out) as f64,
    );
    plain(
        "speedmimi_collector_streams_broken_total",
        Kind::Counter,
        "Report streams interrupted without a regular close.",
        read(&stats.streams_broken) as f64,
    );
    plain(
        "speedmimi_collector_streams_active",
        Kind::Gauge,
        "Open report streams, one per connected agent.",
        read(&stats.streams_active) as f64,
    );
    plain(
        "speedmimi_collector_grpc_connections",
        Kind::Gauge,
        "Open connections to the gRPC port.",
        read(&stats.grpc_connections) as f64,
    );
    plain(
        "speedmimi_collector_http_connections",
        Kind::Gauge,
        "Open connections to the HTTP port.",
        read(&stats.http_connections) as f64,
    );
    plain(
        "speedmimi_collector_watchers_active",
        Kind::Gauge,
        "Connected clients of live events.",
        read(&stats.watchers_active) as f64,
    );
    plain(
        "speedmimi_collector_hosts",
        Kind::Gauge,
        "Hosts with stored reports.",
        hosts as f64,
    );
    plain(
        "speedmimi_collector_store_bytes",
        Kind::Gauge,
        "Size of the store's main file, without its write-ahead log.",
        store_bytes as f64,
    );
    out
}

fn memory(out: &mut String, budget: &Budget) {
    let name = "speedmimi_collector_memory_limit_bytes";
    let help = "Memory limit for data in flight, set by --memory-limit.";
    head(out, name, Kind::Gauge, help);
    line(out, name, &Labels::default(), budget.limit());
    let mut by_use = |name, kind, help, read: fn(&Budget, Use) -> u64| {
        head(out, name, kind, help);
        for (of, label, _) in Use::ALL {
            let labels = Labels::default().with("use", label);
            line(out, name, &labels, read(budget, of));
        }
    };
    by_use(
        "speedmimi_collector_memory_used_bytes",
        Kind::Gauge,
        "Memory held for data in flight, by use.",
        Budget::used,
    );
    by_use(
        "speedmimi_collector_memory_refused_total",
        Kind::Counter,
        "Allocations rejected by --memory-limit, by use.",
        Budget::refused,
    );
}

/// Names and helps of what is said of receivers of one kind.
struct ForwardFamilies {
    sent: (&'static str, &'static str),
    rejected: (&'static str, &'static str),
    retries: (&'static str, &'static str),
    behind: (&'static str, &'static str),
}

const REMOTE_WRITE: ForwardFamilies = ForwardFamilies {
    sent: (
        "speedmimi_collector_remote_write_sent_total",
        "Reports that the receiver accepted.",
    ),
    rejected: (
        "speedmimi_collector_remote_write_rejected_total",
        "Reports that the receiver rejected permanently, by reason.",
    ),
    retries: (
        "speedmimi_collector_remote_write_retries_total",
        "Failed attempts that were retried.",
    ),
    behind: (
        "speedmimi_collector_remote_write_behind_seconds",
        "Age of the oldest report not sent yet.",
    ),
};

const OTLP: ForwardFamilies = ForwardFamilies {
    sent: (
        "speedmimi_collector_otlp_sent_points_total",
        "Data points that the receiver accepted.",
    ),
    rejected: (
        "speedmimi_collector_otlp_rejected_points_total",
        "Data points that the receiver rejected permanently, by reason.",
    ),
    retries: (
        "speedmimi_collector_otlp_retries_total",
        "Failed attempts that were retried.",
    ),
    behind: (
        "speedmimi_collector_otlp_behind_seconds",
        "Age of the oldest report not sent yet.",
    ),
};

fn forwards(out: &mut String, families: &ForwardFamilies, receivers: &[Arc<ForwardStats>]) {
    if receivers.is_empty() {
        return;
    }
    let url = |receiver: &ForwardStats| Labels::default().with("url", &receiver.url);
    let mut counter = |(name, help), read: fn(&ForwardStats) -> &AtomicU64| {
        head(out, name, Kind::Counter, help);
        for receiver in receivers {
            line(out, name, &url(receiver), read(receiver).load(Relaxed));
        }
    };
    counter(families.sent, |f| &f.sent);
    counter(families.retries, |f| &f.retries);
    let (name, help) = families.rejected;
    head(out, name, Kind::Counter, help);
    for receiver in receivers {
        for (reason, label) in Rejection::ALL {
            let labels = url(receiver).with("reason", label);
            line(out, name, &labels, receiver.rejected(reason));
        }
    }
    let (name, help) = families.behind;
    head(out, name, Kind::Gauge, help);
    let now = unix_ns();
    for receiver in receivers {
        let behind = receiver.behind_ns(now) as f64 / 1e9;
        line(out, name, &url(receiver), behind);
    }
}

fn build_info(out: &mut String) {
    let name = "speedmimi_collector_build_info";
    head(out, name, Kind::Gauge, "Version of the collector.");
    let labels = Labels::default().with("version", env!("CARGO_PKG_VERSION"));
    line(out, name, &labels, 1u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_help_is_a_sentence_that_stands_alone() {
        let own = own(&SelfStats::default(), &Budget::new(1), 1, 1);
        for line in own.lines().filter(|line| line.starts_with("# HELP ")) {
            let help = line.splitn(4, ' ').nth(3).unwrap();
            assert!(
                help.split(' ').count() >= 4 && help.ends_with('.'),
                "{line}"
            );
            let before = [" them.", "Their ", "Its ", "These "];
            assert!(!before.iter().any(|word| help.contains(word)), "{line}");
        }
    }
}
