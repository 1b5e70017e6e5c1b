//! The addresses of the hosts in a configuration, as they were looked up last.
//!
//! Architecture invariant: pure; the time is given.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

/// How often a host is looked up.
pub(super) const LOOK_UP_AGAIN: Duration = Duration::from_secs(60);

/// How long the name of an address holds that its host has left: proxies go on
/// using it, nginx until it is reloaded.
const FORMER_KEPT: Duration = Duration::from_secs(3_600);

/// How many addresses of one host are known, former ones among them.
const ADDRESSES_MAX: usize = 64;

/// The hosts, by their names.
#[derive(Debug, Default)]
pub(super) struct Hosts(BTreeMap<String, Host>);

#[derive(Debug, Default)]
struct Host {
    /// Each with the time at which it was last among the answers.
    addresses: Vec<(IpAddr, Instant)>,
    answered: Option<Instant>,
    /// Whether the last answer had none.
    failed: bool,
    asked: bool,
}

impl Hosts {
    /// Knows these from now on, and no other.
    pub(super) fn keep(&mut self, hosts: &BTreeSet<String>) {
        self.0.retain(|name, _| hosts.contains(name));
        for name in hosts {
            self.0.entry(name.clone()).or_default();
        }
    }

    /// Those to be looked up now.
    pub(super) fn due(&mut self, now: Instant, all: bool) -> Vec<String> {
        let late = |host: &Host| {
            let since = |at| now.saturating_duration_since(at);
            let late = host.answered.is_none_or(|at| since(at) >= LOOK_UP_AGAIN);
            !host.asked && (late || all)
        };
        let due = self.0.iter_mut().filter(|(_, host)| late(host));
        due.map(|(name, host)| {
            host.asked = true;
            name.clone()
        })
        .collect()
    }

    /// Takes an answer.  Where there is none, the last addresses hold.
    pub(super) fn take(&mut self, name: &str, addresses: Vec<IpAddr>, now: Instant) {
        let Some(host) = self.0.get_mut(name) else {
            return;
        };
        host.asked = false;
        host.answered = Some(now);
        host.failed = addresses.is_empty();
        if host.failed {
            return;
        }
        host.addresses.retain(|(known, seen)| {
            !addresses.contains(known) && now.saturating_duration_since(*seen) < FORMER_KEPT
        });
        let addresses = addresses.into_iter().map(|ip| (ip, now));
        host.addresses.splice(0..0, addresses);
        host.addresses.truncate(ADDRESSES_MAX);
    }

    /// The addresses of a host.  One that it has left belongs to whoever has it now.
    pub(super) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let Some(host) = self.0.get(name) else {
            return Vec::new();
        };
        let taken = |ip| self.0.values().any(|other| other.has(ip));
        let own = host.addresses.iter().map(|(ip, _)| *ip);
        own.filter(|&ip| host.has(ip) || !taken(ip)).collect()
    }

    /// Hosts without an address.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &str> {
        let unknown = self.0.iter().filter(|(_, host)| host.failed);
        unknown.map(|(name, _)| name.as_str())
    }

    /// How many were never answered for.
    pub(super) fn pending(&self) -> usize {
        let pending = self.0.values().filter(|host| host.answered.is_none());
        pending.count()
    }
}

impl Host {
    /// Whether an address was among the last ones.
    fn has(&self, ip: IpAddr) -> bool {
        let newest = self.addresses.first().map(|(_, seen)| *seen);
        let mut addresses = self.addresses.iter();
        addresses.any(|(known, seen)| *known == ip && Some(*seen) == newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn known(names: &[&str]) -> Hosts {
        let mut hosts = Hosts::default();
        hosts.keep(&names.iter().map(|&n| n.to_owned()).collect());
        hosts
    }

    #[test]
    fn a_host_is_due_again_a_minute_after_its_answer() {
        let (mut hosts, start) = (known(&["a", "b"]), Instant::now());
        assert_eq!(hosts.due(start, false), ["a", "b"]);
        assert_eq!(hosts.pending(), 2);
        let later = start + LOOK_UP_AGAIN;
        assert!(hosts.due(later, true).is_empty(), "both are asked for");
        hosts.take("a", vec![ip(1)], start);
        assert_eq!(hosts.pending(), 1);
        assert!(hosts.due(start, false).is_empty());
        assert_eq!(hosts.due(later, false), ["a"]);
        hosts.take("b", vec![], later);
        assert_eq!(hosts.due(later, true), ["b"]);
        assert_eq!(hosts.unknown().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_host_that_moved_has_both_addresses_for_an_hour() {
        let (mut hosts, start) = (known(&["a"]), Instant::now());
        hosts.take("a", vec![ip(1)], start);
        hosts.take("a", vec![ip(2)], start + LOOK_UP_AGAIN);
        assert_eq!(hosts.addresses("a"), [ip(2), ip(1)]);
        hosts.take("a", vec![], start + LOOK_UP_AGAIN);
        assert_eq!(hosts.addresses("a"), [ip(2), ip(1)], "the last ones hold");
        hosts.take("a", vec![ip(2)], start + FORMER_KEPT);
        assert_eq!(hosts.addresses("a"), [ip(2)]);
    }

    #[test]
    fn an_address_that_another_host_got_is_only_that_one_s() {
        let (mut hosts, now) = (known(&["a", "b"]), Instant::now());
        hosts.take("a", vec![ip(1)], now);
        let later = now + LOOK_UP_AGAIN;
        hosts.take("a", vec![ip(2)], later);
        hosts.take("b", vec![ip(1)], later);
        assert_eq!(hosts.addresses("a"), [ip(2)]);
        assert_eq!(hosts.addresses("b"), [ip(1)]);
    }

    #[test]
    fn addresses_are_bounded() {
        let (mut hosts, now) = (known(&["a"]), Instant::now());
        hosts.take("a", (0..200).map(ip).collect(), now);
        assert_eq!(hosts.addresses("a").len(), ADDRESSES_MAX);
        hosts.keep(&BTreeSet::new());
        hosts.take("a", vec![ip(1)], now);
        assert!(hosts.addresses("a").is_empty());
    }
}
