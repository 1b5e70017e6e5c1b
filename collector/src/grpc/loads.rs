//! How busy hosts are, for balancers.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use monitor_proto::v1;
use store::{Facts, Fleet};

/// The loads of the hosts with these ids, names or addresses; of all where
/// none is given.
pub(super) fn of(fleet: &Fleet, hosts: &[String]) -> Vec<v1::BackendLoad> {
    let all = fleet.all();
    chosen(
        all.iter().map(|host| Host {
            id: &host.row.id,
            name: &host.newest.host.name,
            facts: Cow::Borrowed(&host.newest.facts),
        }),
        hosts,
    )
}

/// The same of the newest reports of all hosts, as an engine has them.
pub(super) fn of_reports(reports: &[v1::Report], hosts: &[String]) -> Vec<v1::BackendLoad> {
    chosen(
        reports.iter().filter_map(|report| {
            let host = report.host.as_ref()?;
            Some(Host {
                id: &host.id,
                name: &host.name,
                facts: Cow::Owned(Facts::from(report)),
            })
        }),
        hosts,
    )
}

struct Host<'a> {
    id: &'a str,
    name: &'a str,
    facts: Cow<'a, Facts>,
}

/// The known loads, each host's once.
fn chosen<'a>(all: impl Iterator<Item = Host<'a>>, wanted: &[String]) -> Vec<v1::BackendLoad> {
    let all: Vec<Host<'a>> = all.collect();
    let chosen: Vec<usize> = if wanted.is_empty() {
        (0..all.len()).collect()
    } else {
        let index = Index::of(&all);
        let wanted: HashSet<&String> = wanted.iter().collect();
        let chosen = wanted.iter().flat_map(|wanted| index.find(wanted));
        chosen.copied().collect()
    };
    let loads = chosen.iter().filter_map(|&at| all[at].facts.load.clone());
    let mut loads: Vec<v1::BackendLoad> = loads.collect();
    loads.sort_by(|a, b| a.host_id.cmp(&b.host_id));
    loads.dedup_by(|a, b| a.host_id == b.host_id);
    loads
}

/// Where the hosts are by all that they can be asked for: a request may have
/// many names, and there are many hosts.
#[derive(Default)]
struct Index<'a> {
    ids: HashMap<&'a str, Vec<usize>>,
    names: HashMap<&'a str, Vec<usize>>,
    /// `IP:PORT`, or whatever the report says.
    listeners: HashMap<&'a str, Vec<usize>>,
    ips: HashMap<IpAddr, Vec<usize>>,
}

impl<'a> Index<'a> {
    fn of(all: &'a [Host<'_>]) -> Self {
        let mut index = Self::default();
        for (at, host) in all.iter().enumerate() {
            index.ids.entry(host.id).or_default().push(at);
            index.names.entry(host.name).or_default().push(at);
            for listener in &*host.facts.listeners {
                index.listeners.entry(listener).or_default().push(at);
                if let Ok(socket) = listener.parse::<SocketAddr>() {
                    index.ips.entry(socket.ip()).or_default().push(at);
                }
            }
        }
        // A host may listen on many ports of an address.
        for at in index.ips.values_mut().chain(index.listeners.values_mut()) {
            at.dedup();
        }
        index
    }

    /// The host with this id, else those with this name, else those on which
    /// something listens at this address: `IP:PORT`, or `IP`.  Many hosts
    /// listen on a loopback address, so that names a host only where there is
    /// one alone.
    fn find(&self, wanted: &str) -> &[usize] {
        let named = self.ids.get(wanted).or_else(|| self.names.get(wanted));
        if let Some(found) = named {
            return found;
        }
        let ip: Option<IpAddr> = wanted.parse().ok();
        let found = self.listeners.get(wanted);
        let found = found.or_else(|| self.ips.get(&ip?));
        let found = found.map_or(&[][..], Vec::as_slice);
        let socket = || Some(wanted.parse::<SocketAddr>().ok()?.ip());
        let loopback = ip.or_else(socket).is_some_and(|ip| ip.is_loopback());
        if found.len() > 1 && loopback {
            return &[];
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(id: &str, name: &str, listeners: &[&str]) -> v1::Report {
        let gauge = Some(v1::Gauge::default());
        v1::Report {
            host: Some(v1::Host {
                id: id.into(),
                name: name.into(),
                ..Default::default()
            }),
            host_metrics: Some(v1::HostMetrics {
                cpu_usage: gauge,
                memory_usage: gauge,
                load_avg_1: gauge,
                ..Default::default()
            }),
            endpoints: listeners
                .iter()
                .map(|&address| v1::Endpoint {
                    role: v1::Role::Downstream.into(),
                    address: address.into(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_host_is_found_by_all_that_it_can_be_asked_for() {
        let all = [
            host("1", "web", &["10.0.0.1:80", "10.0.0.1:443", "127.0.0.1:9"]),
            host("2", "web", &["10.0.0.2:80", "[fd00::2]:80", "127.0.0.1:9"]),
            host("3", "1", &["127.0.0.1:7", "10.0.0.2:443", "name:80"]),
        ];
        let found = |wanted: &[&str]| -> String {
            let wanted: Vec<String> = wanted.iter().map(|&name| name.into()).collect();
            let loads = of_reports(&all, &wanted);
            loads.iter().map(|load| load.host_id.as_str()).collect()
        };
        for (wanted, ids) in [
            (&[][..], "123"),
            (&["1"], "1"),
            (&["web"], "12"),
            (&["web", "2", "web"], "12"),
            (&["10.0.0.1"], "1"),
            (&["10.0.0.2"], "23"),
            (&["10.0.0.2:443"], "3"),
            (&["fd00::2"], "2"),
            (&["name:80"], "3"),
            (&["127.0.0.1:7"], "3"),
            (&["127.0.0.1:9"], ""),
            (&["127.0.0.1"], ""),
            (&["10.0.0.1:81", "nobody"], ""),
        ] {
            assert_eq!(found(wanted), ids, "{wanted:?}");
        }
    }
}
