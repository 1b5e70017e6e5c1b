//! Windows added up by what they are of.

use std::{collections::HashMap, net::SocketAddr};

use monitor_proto::{
    figures::Seen,
    json::{Sparkline, SummaryHost, SummaryKey},
    v1,
};
use rollup::{EndpointId, EndpointRoll, Rolling};

use super::SummaryPlan;
use crate::named_series::EndpointNames;

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Upstream,
    Backend,
    Listener,
    Host,
}

impl By {
    pub const ALL: [Self; 4] = [Self::Upstream, Self::Backend, Self::Listener, Self::Host];

    pub fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Backend => "backend",
            Self::Listener => "listener",
            Self::Host => "host",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.name() == name)
    }

    /// The endpoints that rows are made of; of a host those that clients see, as what
    /// it passes on would count twice.
    pub fn role(self) -> v1::Role {
        match self {
            Self::Upstream | Self::Backend => v1::Role::Upstream,
            Self::Listener | Self::Host => v1::Role::Downstream,
        }
    }

    /// The row of an endpoint.  Names and addresses mean the same on all hosts, but for
    /// loopback.
    pub(crate) fn key(
        self,
        host: &SummaryHost,
        id: &EndpointId,
        names: &EndpointNames,
    ) -> SummaryKey {
        let address: Option<SocketAddr> = id.address.parse().ok();
        let is_local = address.is_none_or(|address| address.ip().to_canonical().is_loopback());
        let of_address = || SummaryKey {
            host: is_local.then(|| host.clone()),
            endpoint: id.address.clone(),
            ..SummaryKey::default()
        };
        match self {
            Self::Upstream => SummaryKey {
                upstream: names.upstream.clone(),
                ..SummaryKey::default()
            },
            Self::Backend => SummaryKey {
                upstream: names.upstream.clone(),
                backend: names.backend.clone(),
                ..of_address()
            },
            Self::Listener => SummaryKey {
                name: names.name.clone(),
                ..of_address()
            },
            Self::Host => SummaryKey {
                host: Some(host.clone()),
                ..SummaryKey::default()
            },
        }
    }
}

/// What is summed up.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub by: By,
    pub role: v1::Role,
    pub plan: SummaryPlan,
}

/// What was counted in one step.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    requests: u64,
    exchanges: u64,
    http_is_seen: bool,
    http1_is_seen: bool,
}

/// The windows of one row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(super) sum: EndpointRoll,
    steps: Vec<Step>,
    /// Hosts are read one after another.
    last_host: Option<i64>,
    pub(super) hosts: u64,
}

impl Group {
    /// Adds a window or a bucket.
    pub(crate) fn count(&mut self, plan: SummaryPlan, at_s: u64, roll: &EndpointRoll) {
        self.sum.add(roll);
        let Some(i) = plan.step_of(at_s) else { return };
        self.steps.resize(plan.steps_count(), Step::default());
        if let Some(step) = self.steps.get_mut(i) {
            step.add(&Step {
                requests: roll.requests,
                exchanges: roll.exchanges,
                http_is_seen: roll.seen_ns(Seen::Http) > 0,
                http1_is_seen: roll.seen_ns(Seen::Http1) > 0,
            });
        }
    }

    /// Adds the windows of another row.
    pub(crate) fn add(&mut self, other: &Self) {
        self.sum.add(&other.sum);
        self.hosts += other.hosts;
        let steps = self.steps.len().max(other.steps.len());
        self.steps.resize(steps, Step::default());
        for (step, other) in self.steps.iter_mut().zip(&other.steps) {
            step.add(other);
        }
    }

    pub(super) fn sparkline(&self, plan: SummaryPlan) -> Sparkline {
        let requests_are_seen = self.sum.seen_ns(Seen::Http1) > 0;
        let value = |step: &Step| {
            if requests_are_seen {
                step.http1_is_seen.then_some(step.requests)
            } else {
                step.http_is_seen.then_some(step.exchanges)
            }
        };
        let mut values: Vec<_> = self.steps.iter().map(value).collect();
        values.resize(plan.steps_count(), None);
        Sparkline {
            metric: if requests_are_seen || self.sum.exchanges == 0 {
                "requests"
            } else {
                "exchanges"
            }
            .to_owned(),
            values,
        }
    }

    fn heap_bytes(&self) -> usize {
        self.sum.heap_bytes() + self.steps.capacity() * size_of::<Step>()
    }
}

impl Step {
    fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.exchanges = self.exchanges.saturating_add(other.exchanges);
        self.http_is_seen |= other.http_is_seen;
        self.http1_is_seen |= other.http1_is_seen;
    }
}

/// All rows of one range.
#[derive(Debug, Default)]
pub struct Groups(HashMap<SummaryKey, Group>);

impl Groups {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds something of a host to a row; how much more memory the rows take now.
    pub(crate) fn add(&mut self, host: i64, key: SummaryKey, add: impl FnOnce(&mut Group)) -> u64 {
        let key_bytes = key_bytes(&key);
        let mut bytes = 0;
        let group = self.0.entry(key).or_insert_with(|| {
            // A table that grows has up to twice the room that it needs.
            bytes += 2 * (size_of::<(SummaryKey, Group)>() + key_bytes) as u64;
            Group::default()
        });
        let before = group.heap_bytes();
        group.hosts += u64::from(group.last_host.replace(host) != Some(host));
        add(group);
        bytes + group.heap_bytes().saturating_sub(before) as u64
    }

    /// Adds the rows of other hosts.
    pub(crate) fn join(&mut self, other: Self) {
        for (key, group) in other.0 {
            self.0.entry(key).or_default().add(&group);
        }
    }

    pub(super) fn remove(&mut self, key: &SummaryKey) -> Option<Group> {
        self.0.remove(key)
    }

    pub(super) fn into_rows(self) -> impl Iterator<Item = (SummaryKey, Group)> {
        self.0.into_iter()
    }
}

fn key_bytes(key: &SummaryKey) -> usize {
    let host = key.host.as_ref();
    host.map_or(0, |host| host.name.len() + host.id.len())
        + key.upstream.len()
        + key.backend.len()
        + key.name.len()
        + key.endpoint.len()
}
