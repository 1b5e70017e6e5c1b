//! What a configuration says, before hosts have addresses.
//!
//! Architecture invariant: pure; who resolves hosts is given.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use super::{Name, Names};

/// How many addresses are named; a configuration with more is a mistake.
const PLACES_MAX: usize = 50_000;

/// How many hosts are looked up.
const HOSTS_MAX: usize = 4_096;

/// How many different remarks are made on one configuration.
const REMARKS_MAX: usize = 20;

/// Which addresses of a host are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

/// A host and a port, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) family: Family,
    pub(super) port: u16,
}

/// What was found in a configuration.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) listeners: Vec<(Place, Name)>,
    pub(super) peers: Vec<(Place, Name)>,
    pub(super) remarks: BTreeSet<String>,
}

/// Names, and what to say about them.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) names: Names,
    pub(super) remarks: BTreeSet<String>,
    /// Whether a host has no address now and may have one later.
    pub(super) waits: bool,
}

impl Found {
    pub(super) fn remark(&mut self, remark: impl Into<String>) {
        if self.remarks.len() < REMARKS_MAX {
            self.remarks.insert(remark.into());
        }
    }

    /// A listener on each of these ports.
    pub(super) fn listen(
        &mut self,
        host: &str,
        family: Family,
        ports: RangeInclusive<u16>,
        name: &Name,
    ) {
        for port in ports {
            if self.is_full() {
                return;
            }
            let place = Place::new(host, family, port);
            self.listeners.push((place, name.clone()));
        }
    }

    pub(super) fn peer(&mut self, place: Place, name: Name) {
        if !self.is_full() {
            self.peers.push((place, name));
        }
    }

    fn is_full(&mut self) -> bool {
        let full = self.listeners.len() + self.peers.len() >= PLACES_MAX;
        if full {
            self.remark(format!(
                "it has more than {PLACES_MAX} addresses: the rest has no names"
            ));
        }
        full
    }

    /// Gives every host its addresses.
    pub(super) fn resolve(self, look_up: impl Fn(&str) -> Vec<IpAddr>) -> Resolved {
        let mut hosts = Hosts {
            look_up,
            known: HashMap::new(),
        };
        let mut names = Names::default();
        for (place, name) in &self.peers {
            for ip in hosts.addresses(place) {
                names.add_peer((ip, place.port).into(), name);
            }
        }
        for (place, name) in &self.listeners {
            for ip in hosts.addresses(place) {
                names.add_listener((ip, place.port).into(), name);
            }
        }
        let missing = hosts.known.iter().filter(|(_, a)| a.is_empty());
        let missing: BTreeSet<&String> = missing.map(|(host, _)| host).collect();
        let mut remarks = self.remarks;
        let said = missing.iter().take(REMARKS_MAX);
        remarks.extend(said.map(|host| format!("{host} has no address")));
        Resolved {
            waits: !missing.is_empty(),
            names,
            remarks,
        }
    }
}

struct Hosts<F> {
    look_up: F,
    known: HashMap<String, Vec<IpAddr>>,
}

impl<F: Fn(&str) -> Vec<IpAddr>> Hosts<F> {
    fn addresses(&mut self, place: &Place) -> Vec<IpAddr> {
        let all = match place.host.as_str() {
            "*" => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            host => match host.parse::<IpAddr>() {
                Ok(ip) => vec![ip.to_canonical()],
                Err(_) if self.known.len() >= HOSTS_MAX && !self.known.contains_key(host) => {
                    Vec::new()
                }
                Err(_) => {
                    let look_up = || (self.look_up)(host);
                    let known = self.known.entry(host.to_owned());
                    known.or_insert_with(look_up).clone()
                }
            },
        };
        let meant = |ip: &IpAddr| match place.family {
            Family::Any => true,
            Family::V4 => ip.is_ipv4(),
            Family::V6 => ip.is_ipv6(),
        };
        all.into_iter().filter(meant).collect()
    }
}

impl Place {
    pub(super) fn new(host: &str, family: Family, port: u16) -> Self {
        let host = host.to_owned();
        Self { host, family, port }
    }
}

/// A port, which has no sign.
pub(super) fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// `8080` or `8080-8089`.
pub(super) fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    match text.split_once('-') {
        None => port(text).map(|port| port..=port),
        Some((first, last)) => Some(port(first)?..=port(last)?),
    }
}
