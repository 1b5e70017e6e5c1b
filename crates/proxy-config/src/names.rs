//! What addresses are called.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

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
    /// What a peer is called.
    #[must_use]
    pub fn peer(&self, address: SocketAddr) -> Option<&Name> {
        self.peers.get(&address)
    }

    /// The listener on exactly this address, or else on all of its family.
    #[must_use]
    pub fn listener(&self, address: SocketAddr) -> Option<&Name> {
        let any: IpAddr = match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let exact = self.listeners.get(&address);
        exact.or_else(|| self.listeners.get(&(any, address.port()).into()))
    }

    /// The peers that have names.
    pub fn peers(&self) -> impl Iterator<Item = &SocketAddr> {
        self.peers.keys()
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

    /// Adds to what a peer is called.  One address may serve several upstreams, and
    /// a listener several hosts: its figures are those of all of them, and so is its
    /// name.
    pub fn add_peer(&mut self, address: SocketAddr, name: &Name) {
        merge(self.peers.entry(address).or_default(), name);
    }

    /// Adds to what a listener is called.
    pub fn add_listener(&mut self, address: SocketAddr, name: &Name) {
        merge(self.listeners.entry(address).or_default(), name);
    }
}

pub(crate) fn merge(one: &mut Name, other: &Name) {
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

pub(crate) fn join(names: &mut String, name: &str) {
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
