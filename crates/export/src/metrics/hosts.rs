//! The series of a host.

use monitor_proto::{figures, host_labels, labels, split, v1};
use rollup::duration_ns;

use super::{
    HostSample,
    families::{Family, Source},
    text::{Kind, Labels, Sink, line},
};

type Emit<'a> = &'a mut dyn FnMut(Labels, f64);

pub(super) fn write(
    out: &mut dyn Sink,
    name: &str,
    host: &HostSample,
    read: fn(&HostSample, Emit<'_>),
) {
    let base = host.labels();
    out.about(None);
    read(host, &mut |own, value| {
        line(out, name, &base.clone().and(&own), value);
    });
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "speedmimi_host_up",
        kind: Kind::Gauge,
        help: "Whether the newest report of this host came within a minute, or 2.5 windows where they are longer.",
        source: Source::Host(|host, emit| emit(Labels::default(), f64::from(u8::from(host.up)))),
    },
    Family {
        name: "speedmimi_host_last_report_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When the newest report of this host came.",
        source: Source::Host(|host, emit| {
            emit(
                Labels::default(),
                host.summary.last_seen_unix_ns as f64 / 1e9,
            );
        }),
    },
    Family {
        name: "speedmimi_host_info",
        kind: Kind::Gauge,
        help: "1, with the labels of the agent's configuration as label_KEY, the kernel's release and the agent's version.",
        source: Source::Host(|host, emit| {
            if let (Some(of), Some(agent)) = (&host.report.host, &host.report.agent) {
                let mut labels = Labels::default()
                    .with("kernel", &of.kernel)
                    .with("version", &agent.version);
                for (key, value) in &of.labels {
                    labels = labels.with(host_labels::prometheus(key), value);
                }
                emit(labels, 1.0);
            }
        }),
    },
    Family {
        name: "speedmimi_target_info",
        kind: Kind::Gauge,
        help: "1, with the systemd unit, the container and the pod of a watched cgroup, as far as they are known.",
        source: Source::Host(|host, emit| {
            for target in &host.report.targets {
                let mut labels = Labels::default().with("target", &target.path);
                for (name, value) in labels::of_target(target) {
                    labels = labels.with(name, value);
                }
                emit(labels, 1.0);
            }
        }),
    },
    Family::new(
        &figures::CORES,
        Source::Host(|host, emit| {
            if let Some(of) = &host.report.host {
                emit(Labels::default(), f64::from(of.cores));
            }
        }),
    ),
    Family {
        name: "speedmimi_host_epoch_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When the agent's spool was made: the sequence of reports began then.",
        source: Source::Host(|host, emit| {
            if let Some(agent) = &host.report.agent {
                emit(Labels::default(), agent.epoch as f64 / 1e3);
            }
        }),
    },
    Family {
        name: "speedmimi_host_report_sequence",
        kind: Kind::Gauge,
        help: "The number of the newest report within its epoch.",
        source: Source::Host(|host, emit| {
            emit(Labels::default(), host.report.sequence as f64);
        }),
    },
    Family {
        name: "speedmimi_host_report_complete",
        kind: Kind::Gauge,
        help: "Whether the newest report is without gap, loss or level change.",
        source: Source::Host(|host, emit| {
            emit(Labels::default(), f64::from(u8::from(host.report.complete)));
        }),
    },
    Family {
        name: "speedmimi_host_report_notes",
        kind: Kind::Gauge,
        help: "How many notes the newest report has, such as of a names file that cannot be read.",
        source: Source::Host(|host, emit| {
            emit(Labels::default(), host.report.notes.len() as f64);
        }),
    },
    Family {
        name: "speedmimi_host_window_seconds",
        kind: Kind::Gauge,
        help: "How long the window of the newest report lasted.",
        source: Source::Host(|host, emit| {
            emit(Labels::default(), duration_ns(&host.report) as f64 / 1e9);
        }),
    },
    Family::new(
        &figures::PRESSURE,
        Source::Host(|host, emit| {
            let none = v1::HostMetrics::default();
            let metrics = host.report.host_metrics.as_ref().unwrap_or(&none);
            for (resource, stall, us) in split::pressure(metrics) {
                let labels = Labels::default().with("resource", resource);
                emit(labels.with("stall", stall), us as f64 / 1e6);
            }
        }),
    ),
    Family::new(
        &figures::LOSSES,
        Source::Host(|host, emit| {
            for (reason, &n) in &host.report.losses_totals {
                emit(Labels::default().with("reason", reason), n as f64);
            }
        }),
    ),
];
