//! What is wrong with the host and its targets.

use monitor_proto::v1;

use crate::{
    Kind, Subject,
    judge::Scene,
    queues,
    track::Told,
    words::{evidence, percent},
};

/// Judges the host; `overflows_told` are those of accept queues that are told of their
/// listeners.
pub(crate) fn judge(scene: &mut Scene<'_>, overflows_told: u64) {
    let report = scene.report;
    let mut told = overflows_told;
    for namespace in &report.network_namespaces {
        let left = queues::unexplained(namespace.listen_overflows, told);
        listen_overflow(scene, namespace, left);
        told = told.saturating_sub(namespace.listen_overflows);
    }
    for target in &report.targets {
        cpu_throttled(scene, target);
    }
    let Some(metrics) = &report.host_metrics else {
        return;
    };
    let mean = |gauge: &v1::Gauge| gauge.mean / 100.0;
    let last = |gauge: &v1::Gauge| gauge.last / 100.0;
    let shares = [
        (
            Kind::CpuSaturated,
            metrics.cpu_usage.as_ref().map(mean),
            "cpu_usage",
            "CPUs are",
        ),
        (
            Kind::MemoryFull,
            metrics.memory_usage.as_ref().map(last),
            "memory_usage",
            "memory is",
        ),
        (
            Kind::DiskFull,
            metrics.disk_usage.as_ref().map(last),
            "disk_usage",
            "root filesystem is",
        ),
    ];
    for (kind, ratio, name, what) in shares {
        if let Some(ratio) = ratio {
            share(scene, kind, ratio, name, |host, percent| {
                let how = if kind == Kind::CpuSaturated {
                    "busy"
                } else {
                    "used"
                };
                format!("the {what} {percent} {how} on {host}")
            });
        }
    }
    for pressure in &metrics.pressure {
        let (kind, percent_of_time, name, who) = match pressure.resource.as_str() {
            "cpu" => (
                Kind::CpuPressure,
                pressure.some_avg10,
                "cpu.some_avg10",
                "some",
            ),
            "memory" => (
                Kind::MemoryPressure,
                pressure.full_avg10,
                "memory.full_avg10",
                "all",
            ),
            "io" => (
                Kind::IoPressure,
                pressure.full_avg10,
                "io.full_avg10",
                "all",
            ),
            _ => continue,
        };
        let resource = match kind {
            Kind::CpuPressure => "a CPU",
            Kind::MemoryPressure => "memory",
            _ => "a disk",
        };
        share(
            scene,
            kind,
            percent_of_time / 100.0,
            name,
            |host, percent| {
                format!("{who} tasks wait for {resource} {percent} of the time on {host}")
            },
        );
    }
}

fn share(
    scene: &mut Scene<'_>,
    kind: Kind,
    ratio: f64,
    name: &str,
    sentence: impl FnOnce(&str, &str) -> String,
) {
    scene.measure_host(kind, "", ratio, |subject| Told {
        summary: sentence(&subject.host, &percent(ratio)),
        subject,
        evidence: vec![evidence(name, ratio, "ratio")],
        details: Vec::new(),
    });
}

/// Of listeners whose queues nobody sees, or that are of no target; `left` is what the
/// others do not explain.
fn listen_overflow(scene: &mut Scene<'_>, namespace: &v1::NetworkNamespace, left: u64) {
    let id = namespace.id.to_string();
    let overflows = left as f64;
    scene.measure_host(Kind::ListenOverflow, &id, overflows, |subject| Told {
        summary: format!(
            "the accept queue of a listener on {} overflows: {} connections dropped in a window",
            subject.host,
            monitor_proto::display::count(overflows)
        ),
        subject: Subject {
            network_namespace: id.clone(),
            ..subject
        },
        evidence: vec![
            evidence(
                "listen_overflows",
                namespace.listen_overflows as f64,
                "connections",
            ),
            evidence("listen_drops", namespace.listen_drops as f64, "connections"),
        ],
        details: Vec::new(),
    });
}

fn cpu_throttled(scene: &mut Scene<'_>, target: &v1::Target) {
    let window_us = scene.report.window_duration_ns as f64 / 1e3;
    let ratio = target.throttled_us as f64 / window_us.max(1.0);
    scene.measure_host(Kind::CpuThrottled, &target.path, ratio, |subject| Told {
        summary: format!(
            "{} on {} is kept from running {} of the time by its CPU limit",
            target.path,
            subject.host,
            percent(ratio)
        ),
        subject: Subject {
            target: target.path.clone(),
            ..subject
        },
        evidence: vec![
            evidence("throttled_ratio", ratio, "ratio"),
            evidence(
                "throttled_periods",
                target.throttled_periods as f64,
                "periods",
            ),
        ],
        details: Vec::new(),
    });
}
