//! What a proxy's configuration calls its listeners and its backends.
//!
//! Only names and addresses are read from it: the proxy alone judges its own
//! file, and what is unknown here is none of the agent's business.  Our proxy's
//! YAML, nginx's and `HAProxy`'s configuration are told apart by their first
//! statement.  Everything happens on threads of its own, and a configuration that
//! cannot be read is said so and tried again: counting never waits for it.

mod file;
mod follow;
mod form;
mod found;
mod glob;
mod haproxy;
mod hosts;
mod lookups;
mod nginx;
mod root;
mod sources;
mod targets;
mod yaml;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

pub use follow::{FollowedNames, NamesState};
use monitor_common::endpoint::Role;
pub use targets::{FollowedFile, FollowedFiles, NamedEndpoint, NamesFiles, TargetNames};

use crate::kernel::{EndpointAddress, EndpointId};

/// Why there are no names.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// The file cannot be read.
    #[error("{path} cannot be read for names: check --names-from, and that the agent may read it")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a proxy's configuration.
    #[error("{path} is no configuration that names can be read of: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// What was given is neither a file nor a target's.
    #[error("{flag} {given}: give a path, or TARGET=PATH for one target alone")]
    Form {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: PathBuf,
    },
    /// The names are a target's that is not watched.
    #[error("{flag} {target}={path}: {target} is not watched; watched are: {watched}")]
    NotWatched {
        /// The flag.
        flag: &'static str,
        /// The target.
        target: String,
        /// Its file.
        path: PathBuf,
        /// Those that are watched.
        watched: String,
    },
}

/// What one address is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// For people.
    pub name: String,
    /// The upstream that it belongs to.
    pub upstream: String,
    /// Its id there.
    pub backend: String,
}

/// The names of peers and of listeners by their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    peers: HashMap<SocketAddr, Name>,
    // Listeners on all addresses stand under the unspecified one.
    listeners: HashMap<SocketAddr, Name>,
}

/// The longest list of names that one address has; what is more is `…`.
const JOINED_BYTES_MAX: usize = 200;

impl Names {
    /// What an endpoint is called; empty where the configuration says nothing.
    #[must_use]
    pub fn of(&self, id: &EndpointId) -> Name {
        let EndpointAddress::Socket(address) = id.address else {
            return Name::default();
        };
        let name = match id.role {
            Role::Upstream => self.peers.get(&address),
            Role::Downstream => self.listener(address),
        };
        name.cloned().unwrap_or_default()
    }

    /// The listener on exactly this address, or else on all of its family.
    fn listener(&self, address: SocketAddr) -> Option<&Name> {
        let any: IpAddr = match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let exact = self.listeners.get(&address);
        exact.or_else(|| self.listeners.get(&(any, address.port()).into()))
    }

    /// How many addresses have names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len() + self.listeners.len()
    }

    /// Whether nothing has a name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    // One address may serve several upstreams, and a listener several hosts: its
    // figures are those of all of them, and so is its name.
    pub(crate) fn add_peer(&mut self, address: SocketAddr, name: &Name) {
        merge(self.peers.entry(address).or_default(), name);
    }

    pub(crate) fn add_listener(&mut self, address: SocketAddr, name: &Name) {
        merge(self.listeners.entry(address).or_default(), name);
    }
}

fn merge(one: &mut Name, other: &Name) {
    join(&mut one.name, &other.name);
    join(&mut one.upstream, &other.upstream);
    join(&mut one.backend, &other.backend);
}

impl<const N: usize> From<[(SocketAddr, Name); N]> for Names {
    /// Names of peers.
    fn from(peers: [(SocketAddr, Name); N]) -> Self {
        Self {
            peers: peers.into(),
            listeners: HashMap::new(),
        }
    }
}

fn join(names: &mut String, name: &str) {
    const MORE: &str = ",…";
    if name.is_empty() || names.ends_with(MORE) || names.split(',').any(|n| n == name) {
        return;
    }
    if names.is_empty() {
        *names = cut(name).to_owned();
    } else if names.len() + name.len() > JOINED_BYTES_MAX {
        names.push_str(MORE);
    } else {
        names.push(',');
        names.push_str(name);
    }
}

/// At most [`JOINED_BYTES_MAX`] bytes of a name, whole characters.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(JOINED_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

#[cfg(test)]
mod tests;
