//! Every family by name.

use super::{
    HostSample, endpoints, hosts,
    text::{Kind, Labels, Sink},
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
    Endpoint(endpoints::Read),
}

impl Family {
    /// The series of one host.
    pub(super) fn write(&self, out: &mut dyn Sink, host: &HostSample) {
        match self.source {
            Source::Host(read) => hosts::write(out, self.name, host, read),
            Source::Endpoint(read) => endpoints::write(out, self.name, host, read),
        }
    }
}

pub(super) fn all() -> impl Iterator<Item = &'static Family> {
    hosts::FAMILIES.iter().chain(endpoints::FAMILIES)
}
