//! `snapshot`: what is counted now, read from the pins, as one report.

use std::{path::Path, sync::Arc, thread::sleep, time::Duration};

use monitor_proto::{json, v1};

use crate::{
    host::{HostReader, gauges},
    kernel::{KernelSample, Target},
    sampler::surroundings,
    source::Level,
    spool::ReportKey,
    target::Roots,
    window::{Reading, Sample, Windows},
};

/// The time that rates are measured over.
const MEASURED: Duration = Duration::from_millis(200);

/// Makes a report of everything since counting began.  Its key is zero: it is
/// not one of the agent's reports, and no window of theirs is touched.
#[must_use]
pub fn report(host: v1::Host, kernel: KernelSample, level: Level, labels: &[&str]) -> json::Report {
    let mut reader = HostReader::open(Path::new("/proc"), Path::new("/"));
    let targets = targets(labels);
    let start = surroundings(&mut reader, &targets);
    let earlier = reader.sample();
    sleep(MEASURED);
    let end = surroundings(&mut reader, &targets);
    let elapsed_ns = end.at.boot_ns.saturating_sub(start.at.boot_ns);
    let sample = Sample {
        elapsed_ns,
        gauges: gauges::between(&earlier, &reader.sample(), elapsed_ns),
        round_trips: Vec::new(),
    };
    let reading = Reading {
        surroundings: end,
        kernel,
        level,
        names: Arc::default(),
        incomplete_reasons: ["a snapshot, not a window".to_owned()].into(),
    };
    let closed = Windows::new(host, None, start).close(ReportKey::default(), reading, &[sample]);
    (&closed.report).into()
}

fn targets(labels: &[&str]) -> Vec<Target> {
    let mount = Roots::detect()
        .map(|roots| roots.cgroup)
        .unwrap_or_default();
    let target = |label: &&str| Target {
        path: mount.join(label.trim_start_matches('/')),
        label: Arc::from(*label),
    };
    labels.iter().map(target).collect()
}
