//! The addresses of host names, as the system's resolver has them.
//!
//! The resolver blocks until the name servers answer or its timeout passes. So
//! names are looked up at the same time, on a thread on which nothing waits.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::config::Config;

/// Most names that are looked up at the same time.
const LOOKUPS_MAX: usize = 16;

/// Names that are kept for changes to come.
const KNOWN_MAX: usize = 65_536;

/// What the resolver said of each name.
#[derive(Debug, Default)]
pub struct Names(HashMap<String, io::Result<Vec<SocketAddr>>>);

impl Names {
    /// Looks up the backends' names. Blocks until the slowest is found or not.
    #[must_use]
    pub fn resolve_blocking(config: &Config) -> Self {
        Self::look_up(&hosts(config), resolve)
    }

    /// The same without blocking, on a thread of its own.
    pub async fn resolve(config: &Config) -> Self {
        Self::resolve_hosts(hosts(config)).await
    }

    /// Looks these hosts up, on a thread of its own.
    pub async fn resolve_hosts(hosts: Vec<String>) -> Self {
        if hosts.is_empty() {
            return Self::default();
        }
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let looking = std::thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(move || drop(sender.send(Self::look_up(&hosts, resolve))));
        if let Err(error) = looking {
            tracing::warn!(%error, "cannot start the resolver");
        }
        receiver.await.unwrap_or_default()
    }

    /// Those of `hosts` that are not known here.
    #[must_use]
    pub fn missing(&self, mut hosts: Vec<String>) -> Vec<String> {
        hosts.retain(|host| !self.0.contains_key(host));
        hosts
    }

    /// Adds newer results. Beyond the bound, those that were never taken are dropped.
    pub fn extend(&mut self, others: Self) {
        if self.0.len() > KNOWN_MAX {
            self.0.clear();
        }
        self.0.extend(others.0);
    }

    /// Takes these hosts' addresses out.
    #[must_use]
    pub fn take(&mut self, hosts: &[String]) -> Self {
        let found = hosts.iter().filter_map(|host| self.0.remove_entry(host));
        Self(found.collect())
    }

    /// Which could not be looked up, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &io::Error)> {
        self.0
            .iter()
            .filter_map(|(host, found)| Some((host.as_str(), found.as_ref().err()?)))
    }

    fn look_up(
        hosts: &[String],
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Sync,
    ) -> Self {
        let next = AtomicUsize::new(0);
        let found = Mutex::new(HashMap::new());
        let work = || {
            while let Some(host) = hosts.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answer = resolve(host);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.insert(host.clone(), answer);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..hosts.len().min(LOOKUPS_MAX) {
                let thread = std::thread::Builder::new().name("resolver".to_owned());
                if let Err(error) = thread.spawn_scoped(scope, work) {
                    tracing::debug!(%error, "fewer names are looked up at once");
                }
            }
            work();
        });
        Self(found.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The addresses of a host that is a name or an address, in a fixed order:
    /// resolvers rotate their answers, which is no change.
    ///
    /// # Errors
    /// The resolver's.
    pub fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let mut addresses = match self.0.get(host) {
            Some(Ok(found)) => found.clone(),
            Some(Err(error)) => return Err(io::Error::new(error.kind(), error.to_string())),
            None => return Err(io::Error::other("it was not looked up")),
        };
        for address in &mut addresses {
            address.set_port(port);
        }
        addresses.sort_by_key(|address| (address.is_ipv6(), *address));
        addresses.dedup();
        Ok(addresses)
    }
}

/// A host without the brackets that an IPv6 address may be written in.
#[must_use]
pub fn bare(host: &str) -> &str {
    let inside = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inside.unwrap_or(host)
}

impl<'a> FromIterator<(&'a str, &'a [SocketAddr])> for Names {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a [SocketAddr])>>(known: T) -> Self {
        let known = known.into_iter();
        Self(
            known
                .map(|(host, found)| (bare(host).to_owned(), Ok(found.to_vec())))
                .collect(),
        )
    }
}

/// The hosts of a configuration that have to be looked up, each once.
#[must_use]
pub fn hosts(config: &Config) -> Vec<String> {
    let backends = config.upstreams.iter().flat_map(|one| &one.backends);
    names_among(backends.map(|backend| backend.host.as_str()))
}

/// Those of some hosts that are names, each once.
pub fn names_among<'a>(hosts: impl Iterator<Item = &'a str>) -> Vec<String> {
    let hosts: BTreeSet<&str> = hosts.map(bare).collect();
    let names = hosts
        .into_iter()
        .filter(|host| host.parse::<IpAddr>().is_err());
    names.map(str::to_owned).collect()
}

fn resolve(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok((host, 0).to_socket_addrs()?.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_slow_name_holds_no_other_up() {
        // The first is only found once the second is.
        let (found, wait) = channel();
        let wait = Mutex::new(wait);
        let hosts = ["slow".to_owned(), "quick".to_owned(), "unknown".to_owned()];
        let names = Names::look_up(&hosts, |host| {
            match host {
                "slow" => wait
                    .lock()
                    .unwrap()
                    .recv_timeout(Duration::from_secs(10))
                    .map_err(io::Error::other)?,
                "quick" => found.send(()).unwrap(),
                _ => return Err(io::ErrorKind::NotFound.into()),
            }
            Ok(vec![
                "[::1]:0".parse().unwrap(),
                "127.0.0.2:0".parse().unwrap(),
                "127.0.0.1:0".parse().unwrap(),
                "127.0.0.2:0".parse().unwrap(),
            ])
        });
        let all = ["127.0.0.1:7", "127.0.0.2:7", "[::1]:7"].map(|text| text.parse().unwrap());
        assert_eq!(names.addresses("slow", 7).unwrap(), all);
        assert_eq!(names.addresses("quick", 7).unwrap(), all);
        let error = names.addresses("unknown", 7).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(
            names.addresses("::1", 7).unwrap(),
            ["[::1]:7".parse().unwrap()]
        );
    }
}
