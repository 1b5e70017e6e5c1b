//! How busy hosts are, for balancers.

use std::net::SocketAddr;

use monitor_proto::v1;

use crate::fleet::{Facts, Fleet};

/// The loads of the hosts with these ids, names or addresses; of all where
/// none is given.
pub(super) fn of(fleet: &Fleet, hosts: &[String]) -> Vec<v1::BackendLoad> {
    let all = fleet.all();
    let of_host = |host: &String| match fleet.find(host) {
        found if found.is_empty() => listening(&all, |host| &host.newest.facts, host),
        found => found,
    };
    let chosen = if hosts.is_empty() {
        all.clone()
    } else {
        hosts.iter().flat_map(of_host).collect()
    };
    once(chosen.iter().map(|host| &host.newest.facts))
}

/// The same of the newest reports of all hosts, as an engine has them.
pub(super) fn of_reports(reports: &[v1::Report], hosts: &[String]) -> Vec<v1::BackendLoad> {
    let all: Vec<(&str, &str, Facts)> = reports
        .iter()
        .filter_map(|report| {
            let host = report.host.as_ref()?;
            Some((host.id.as_str(), host.name.as_str(), Facts::from(report)))
        })
        .collect();
    let of_host = |host: &String| {
        let id = all.iter().filter(|(id, ..)| id == host);
        let name = all.iter().filter(|(_, name, _)| name == host);
        let found: Vec<_> = if id.clone().count() > 0 {
            id.cloned().collect()
        } else {
            name.cloned().collect()
        };
        match found {
            found if found.is_empty() => listening(&all, |(.., facts)| facts, host),
            found => found,
        }
    };
    if hosts.is_empty() {
        return once(all.iter().map(|(.., facts)| facts));
    }
    let chosen: Vec<_> = hosts.iter().flat_map(of_host).collect();
    once(chosen.iter().map(|(.., facts)| facts))
}

/// The known loads, each host's once.
fn once<'a>(chosen: impl Iterator<Item = &'a Facts>) -> Vec<v1::BackendLoad> {
    let mut loads: Vec<v1::BackendLoad> = chosen.filter_map(|facts| facts.load.clone()).collect();
    loads.sort_by(|a, b| a.host_id.cmp(&b.host_id));
    loads.dedup_by(|a, b| a.host_id == b.host_id);
    loads
}

/// The hosts on which something listens at this address: `IP:PORT`, or `IP`.
/// Many hosts listen on a loopback address, so that names a host only where
/// there is one alone.
fn listening<T: Clone>(all: &[T], facts: impl Fn(&T) -> &Facts, address: &str) -> Vec<T> {
    let matches = |listener: &String| {
        listener == address
            || listener
                .parse::<SocketAddr>()
                .is_ok_and(|socket| socket.ip().to_string() == address)
    };
    let found: Vec<_> = all
        .iter()
        .filter(|host| facts(host).listeners.iter().any(matches))
        .cloned()
        .collect();
    let ip = address
        .parse::<SocketAddr>()
        .map(|socket| socket.ip())
        .or_else(|_| address.parse());
    if found.len() > 1 && ip.is_ok_and(|ip| ip.is_loopback()) {
        return Vec::new();
    }
    found
}
