//! How busy hosts are, for balancers.

use std::{net::SocketAddr, sync::Arc};

use monitor_proto::v1;

use crate::fleet::{Fleet, HostState};

/// The loads of the hosts with these ids, names or addresses; of all where
/// none is given.
pub(super) fn of(fleet: &Fleet, hosts: &[String]) -> Vec<v1::BackendLoad> {
    let all = fleet.all();
    let chosen: Vec<Arc<HostState>> = if hosts.is_empty() {
        all
    } else {
        hosts
            .iter()
            .flat_map(|host| match fleet.find(host) {
                found if found.is_empty() => listening(&all, host),
                found => found,
            })
            .collect()
    };
    let mut loads: Vec<v1::BackendLoad> = chosen
        .iter()
        .filter_map(|host| host.newest.facts.load.clone())
        .collect();
    loads.sort_by(|a, b| a.host_id.cmp(&b.host_id));
    loads.dedup_by(|a, b| a.host_id == b.host_id);
    loads
}

/// The hosts on which something listens at this address: `IP:PORT`, or `IP`.
/// Many hosts listen on a loopback address, so that names a host only where
/// there is one alone.
fn listening(all: &[Arc<HostState>], address: &str) -> Vec<Arc<HostState>> {
    let matches = |listener: &String| {
        listener == address
            || listener
                .parse::<SocketAddr>()
                .is_ok_and(|socket| socket.ip().to_string() == address)
    };
    let found: Vec<_> = all
        .iter()
        .filter(|host| host.newest.facts.listeners.iter().any(matches))
        .map(Arc::clone)
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
