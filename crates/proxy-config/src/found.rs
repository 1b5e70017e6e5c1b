//! What a configuration says, before hosts have addresses.
//!
//! Architecture invariant: pure; who resolves hosts is given.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use crate::{Name, Names, names::merge};

/// How many different addresses are named; a configuration with more is a mistake.
const PLACES_MAX: usize = 50_000;

/// How many hosts are looked up.
pub(crate) const HOSTS_MAX: usize = 4_096;

/// How many different remarks are made on one configuration.
const REMARKS_MAX: usize = 20;

/// Which addresses of a host are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    Any,
    V4,
    V6,
}

/// A host and a port, as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) family: Family,
    pub(crate) port: u16,
}

/// Places in the order in which they were found first, each with all its names.
#[derive(Clone, Debug, Default)]
pub struct Places {
    named: Vec<(Place, Name)>,
    index: HashMap<Place, usize>,
}

/// What was found in a configuration.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Where it listens.
    pub listeners: Places,
    /// Where it connects to.
    pub peers: Places,
    /// What is not known of it, and why.
    pub remarks: BTreeSet<String>,
    /// Where the proxy would refuse the configuration as it is: it may be half
    /// written.
    pub broken: Option<String>,
}

impl Places {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.named.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// False where there is no room for it.
    fn add(&mut self, place: Place, name: &Name, room: usize) -> bool {
        if let Some(&at) = self.index.get(&place) {
            if let Some((_, names)) = self.named.get_mut(at) {
                merge(names, name);
            }
            return true;
        }
        if self.named.len() >= room {
            return false;
        }
        let mut own = Name::default();
        merge(&mut own, name);
        self.index.insert(place.clone(), self.named.len());
        self.named.push((place, own));
        true
    }
}

impl Found {
    pub(crate) fn remark(&mut self, remark: impl Into<String>) {
        if self.remarks.len() < REMARKS_MAX {
            self.remarks.insert(remark.into());
        }
    }

    /// A listener on each of these ports.
    pub(crate) fn listen(
        &mut self,
        host: &str,
        family: Family,
        ports: RangeInclusive<u16>,
        name: &Name,
    ) {
        for port in ports {
            let place = Place::new(host, family, port);
            let room = PLACES_MAX.saturating_sub(self.peers.len());
            if !self.listeners.add(place, name, room) {
                return self.is_full();
            }
        }
    }

    pub(crate) fn peer(&mut self, place: Place, name: &Name) {
        let room = PLACES_MAX.saturating_sub(self.listeners.len());
        if !self.peers.add(place, name, room) {
            self.is_full();
        }
    }

    fn is_full(&mut self) {
        self.remark(format!(
            "it has more than {PLACES_MAX} addresses: the rest has no names"
        ));
    }

    /// The hosts that have to be looked up.
    pub fn hosts(&mut self) -> BTreeSet<String> {
        let places = self.peers.named.iter().chain(&self.listeners.named);
        let hosts = places.map(|(place, _)| &place.host);
        let mut hosts: BTreeSet<String> = hosts
            .filter(|host| literal(host).is_none())
            .cloned()
            .collect();
        if hosts.len() > HOSTS_MAX {
            self.remark(format!(
                "it has more than {HOSTS_MAX} host names: the rest is not looked up"
            ));
            hosts = hosts.into_iter().take(HOSTS_MAX).collect();
        }
        hosts
    }

    /// Names by addresses, given those of hosts.
    pub fn resolve(&self, addresses: impl Fn(&str) -> Vec<IpAddr>) -> Names {
        let addresses = |place: &Place| {
            let all = literal(&place.host).unwrap_or_else(|| addresses(&place.host));
            let family = place.family;
            all.into_iter().filter(move |ip| match family {
                Family::Any => true,
                Family::V4 => ip.is_ipv4(),
                Family::V6 => ip.is_ipv6(),
            })
        };
        let mut names = Names::default();
        for (place, name) in &self.peers.named {
            for ip in addresses(place) {
                names.add_peer((ip, place.port).into(), name);
            }
        }
        for (place, name) in &self.listeners.named {
            for ip in addresses(place) {
                names.add_listener((ip, place.port).into(), name);
            }
        }
        names
    }
}

/// The addresses that a text is without anyone being asked.
fn literal(host: &str) -> Option<Vec<IpAddr>> {
    if host == "*" {
        return Some(vec![
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv6Addr::UNSPECIFIED.into(),
        ]);
    }
    let ip = host.parse::<IpAddr>().ok()?;
    Some(vec![ip.to_canonical()])
}

impl Place {
    pub(crate) fn new(host: &str, family: Family, port: u16) -> Self {
        let host = host.to_owned();
        Self { host, family, port }
    }
}

/// A port, which has no sign.
pub(crate) fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// `8080` or `8080-8089`.
pub(crate) fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    match text.split_once('-') {
        None => port(text).map(|port| port..=port),
        Some((first, last)) => Some(port(first)?..=port(last)?),
    }
}
