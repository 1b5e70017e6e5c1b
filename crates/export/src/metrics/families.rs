//! Every family by name.

use monitor_proto::{
    figures::{self, Figure, Read},
    v1,
};

use super::{
    HostSample, endpoints, hosts,
    text::{Kind, Labels, Sink, line},
};

/// One metric name.
#[derive(Clone, Copy)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) source: Source,
}

/// Where a family's series come from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Host(fn(&HostSample, &mut dyn FnMut(Labels, f64))),
    /// Left out where the host is silent.
    HostGauge(&'static Figure<Read<v1::HostMetrics>>),
    /// Left out where it may fall and the host is silent.
    Target(&'static Figure<Read<v1::Target>>),
    NetworkNamespace(&'static Figure<Read<v1::NetworkNamespace>>),
    Endpoint(endpoints::Read),
}

impl Family {
    pub(super) const fn new<R>(figure: &Figure<R>, source: Source) -> Self {
        Self {
            name: figure.prometheus,
            kind: if figure.is_total {
                Kind::Counter
            } else {
                Kind::Gauge
            },
            help: figure.help,
            source,
        }
    }

    /// The series of one host.
    pub(super) fn write(&self, out: &mut dyn Sink, host: &HostSample) {
        match self.source {
            Source::Host(read) => hosts::write(out, self.name, host, read),
            Source::HostGauge(figure) => {
                out.about(None);
                let metrics = host.report.host_metrics.as_ref().filter(|_| host.up);
                if let Some(value) = metrics.and_then(figure.read) {
                    line(out, self.name, &host.labels(), value);
                }
            }
            Source::Target(figure) => {
                let label = |target: &v1::Target| ("target", target.path.clone());
                self.write_each(out, host, &host.report.targets, figure, label);
            }
            Source::NetworkNamespace(figure) => {
                let label = |of: &v1::NetworkNamespace| ("network_namespace", of.id.to_string());
                self.write_each(out, host, &host.report.network_namespaces, figure, label);
            }
            Source::Endpoint(read) => endpoints::write(out, self.name, host, read),
        }
    }

    /// A series each; a gauge of a silent host has none.
    fn write_each<T>(
        &self,
        out: &mut dyn Sink,
        host: &HostSample,
        all: &[T],
        figure: &Figure<Read<T>>,
        label: fn(&T) -> (&'static str, String),
    ) {
        if !figure.is_total && !host.up {
            return;
        }
        for one in all {
            if let Some(value) = (figure.read)(one) {
                let (name, of) = label(one);
                line(out, self.name, &host.labels().with(name, &of), value);
            }
        }
    }
}

pub(super) fn all() -> impl Iterator<Item = Family> {
    let gauges = figures::HOST_GAUGES.iter().map(|gauge| &gauge.figure);
    let targets = figures::TARGETS.iter();
    let namespaces = figures::NETWORK_NAMESPACES.iter();
    hosts::FAMILIES
        .iter()
        .copied()
        .chain(gauges.map(|f| Family::new(f, Source::HostGauge(f))))
        .chain(targets.map(|f| Family::new(f, Source::Target(f))))
        .chain(namespaces.map(|f| Family::new(f, Source::NetworkNamespace(f))))
        .chain(endpoints::families())
}
