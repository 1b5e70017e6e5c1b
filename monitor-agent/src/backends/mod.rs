//! The figures of every backend, for balancers on this host: as lines of JSON on a
//! Unix socket, and as answers to `HAProxy`'s agent checks.
//!
//! Both subscribe to the sampler; while nobody does, nothing is read for them.

pub mod agent_check;
pub mod socket;

use backend_load::{
    Totals,
    feed::{BACKENDS_MAX, Backend, Sample},
};
use kernel_sample::{EndpointAddress, EndpointSample, Level};
use monitor_common::{counters::EndpointCounters, http::code_name};
use window::TargetNames;

use crate::sampler::BackendCounters;

/// What one sample says of the backends.
#[must_use]
pub fn sample(counters: &BackendCounters, names: &TargetNames) -> Sample {
    let all = counters.endpoints.iter();
    let mut backends = all.filter_map(|endpoint| backend(endpoint, counters.level, names));
    let shown: Vec<Backend> = backends.by_ref().take(BACKENDS_MAX).collect();
    Sample {
        unix_ms: counters.at.unix_ns / 1_000_000,
        interval_ms: counters.interval.as_millis() as u64,
        backends: shown,
        omitted: backends.count() as u64,
    }
}

fn backend(endpoint: &EndpointSample, level: Level, names: &TargetNames) -> Option<Backend> {
    let EndpointAddress::Socket(address) = endpoint.id.address else {
        return None;
    };
    let name = names.of(&endpoint.id);
    Some(Backend {
        target: endpoint.id.target.to_string(),
        address,
        upstream: name.upstream,
        backend: name.backend,
        connections_active: endpoint.counters.connections_active(),
        totals: totals(&endpoint.counters, level, endpoint.since_unix_ns),
    })
}

/// What a balancer needs of the counters.
fn totals(counters: &EndpointCounters, level: Level, since_unix_ns: u64) -> Totals {
    let not_connected: u64 = counters.connections_failed.iter().sum();
    if level == Level::Tcp {
        return Totals {
            since_unix_ns,
            attempts: counters.connections_opened,
            failures: not_connected,
            exchanges: None,
            exchange_ns: None,
        };
    }
    let exchanges: u64 = counters.exchange.buckets.iter().sum();
    let unanswered = counters.requests_without_response;
    Totals {
        since_unix_ns,
        attempts: exchanges + unanswered + not_connected,
        failures: server_errors(counters) + unanswered + not_connected,
        exchanges: Some(exchanges),
        exchange_ns: Some(counters.exchange.sum_ns),
    }
}

fn server_errors(counters: &EndpointCounters) -> u64 {
    let responses = counters.responses.iter().enumerate();
    let errors =
        responses.filter(|(code, _)| code_name(*code).is_some_and(|name| name.starts_with('5')));
    errors.map(|(_, count)| count).sum()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use kernel_sample::{EndpointId, Instant};
    use monitor_common::{counters::Failure, endpoint::Role, http::code_index};
    use proxy_config::{Name, Names};

    use super::*;

    fn endpoint(address: EndpointAddress) -> EndpointSample {
        let mut counters = Box::new(EndpointCounters::ZERO);
        counters.connections_opened = 9;
        counters.connections_closed[0] = 3;
        counters.connections_failed[Failure::Refused as usize] = 2;
        counters.exchange.buckets[40] = 10;
        counters.exchange.sum_ns = 7_000;
        counters.requests_without_response = 1;
        for (status, count) in [(200, 6), (404, 1), (500, 2), (503, 1), (599, 1)] {
            counters.responses[code_index(status).unwrap()] = count;
        }
        EndpointSample {
            id: EndpointId {
                target: Arc::from("/web"),
                role: Role::Upstream,
                address,
            },
            counters,
            since_unix_ns: 5,
        }
    }

    fn counters(level: Level, endpoints: Vec<EndpointSample>) -> BackendCounters {
        BackendCounters {
            at: Instant {
                unix_ns: 9_000_000,
                boot_ns: 1,
            },
            interval: Duration::from_millis(100),
            level,
            endpoints,
        }
    }

    #[test]
    fn failures_are_errors_and_requests_and_connections_without_an_answer() {
        let address = EndpointAddress::Socket(([10, 0, 0, 1], 80).into());
        let mut names = Names::default();
        let name = Name {
            name: "first".to_owned(),
            upstream: "shop".to_owned(),
            backend: "first".to_owned(),
        };
        names.add_peer(([10, 0, 0, 1], 80).into(), &name);
        let names = TargetNames::from(names);
        let both = vec![endpoint(address), endpoint(EndpointAddress::Other)];
        let sample = sample(&counters(Level::Http, both), &names);
        assert_eq!(
            sample.to_line().unwrap(),
            "{\"unix_ms\":9,\"interval_ms\":100,\"backends\":[{\"target\":\"/web\",\
             \"address\":\"10.0.0.1:80\",\"upstream\":\"shop\",\"backend\":\"first\",\
             \"connections_active\":4,\"since_unix_ns\":5,\"attempts\":13,\"failures\":7,\
             \"exchanges\":10,\"exchange_ns\":7000}]}\n"
        );
    }

    #[test]
    fn at_level_tcp_only_connections_are_known() {
        let address = EndpointAddress::Socket(([10, 0, 0, 1], 80).into());
        let sample = sample(
            &counters(Level::Tcp, vec![endpoint(address)]),
            &TargetNames::default(),
        );
        let totals = sample.backends[0].totals;
        assert_eq!((totals.attempts, totals.failures), (9, 2));
        assert_eq!((totals.exchanges, totals.exchange_ns), (None, None));
    }

    #[test]
    fn backends_beyond_the_bound_are_counted() {
        let one = |n: usize| {
            let port = u16::try_from(n + 1).unwrap();
            endpoint(EndpointAddress::Socket(([10, 0, 0, 1], port).into()))
        };
        let many = (0..BACKENDS_MAX + 7).map(one).collect();
        let sample = sample(&counters(Level::Http, many), &TargetNames::default());
        assert_eq!((sample.backends.len(), sample.omitted), (BACKENDS_MAX, 7));
        let line = sample.to_line().unwrap();
        assert!(
            line.len() < backend_load::feed::LINE_BYTES_MAX,
            "{}",
            line.len()
        );
    }
}
