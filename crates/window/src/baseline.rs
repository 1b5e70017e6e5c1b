//! The totals that were reported last: what the next window begins from.
//!
//! It is kept with the report in the spool, so that time without an agent
//! belongs to the next agent's first window.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr, sync::Arc};

use kernel_sample::{EndpointAddress, EndpointId, Instant};
use monitor_common::{
    LAYOUT_VERSION,
    counters::{EndpointCounters, WORDS},
    endpoint::Role,
};
use prost::Message;

use super::clients::{STORED_MAX, Told, ToldClients};

/// How many endpoints are remembered that the kernel no longer has.
pub(super) const GONE_ENDPOINTS_MAX: usize = 8_192;

/// One endpoint's totals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// When they began.
    pub since_unix_ns: u64,
    /// What was counted since.
    pub counters: Box<EndpointCounters>,
}

/// The totals at the end of a window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// When the window ended.
    pub window_end: Instant,
    /// In which boot.
    pub boot_id: String,
    /// The totals that were reported, by endpoint.
    pub endpoints: BTreeMap<EndpointId, Totals>,
    /// What had gone uncounted, by reason.
    pub losses: BTreeMap<String, u64>,
    /// Since when.
    pub losses_since_unix_ns: u64,
    /// What was told of the targets' clients.
    pub clients: BTreeMap<Arc<str>, ToldClients>,
    /// What the spool had lost since it was made, as far as it was reported.
    pub spool_losses: BTreeMap<String, u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(uint32, tag = "1")]
    layout_version: u32,
    #[prost(uint32, tag = "2")]
    words: u32,
    #[prost(uint64, tag = "3")]
    window_end_unix_ns: u64,
    #[prost(uint64, tag = "4")]
    window_end_boot_ns: u64,
    #[prost(string, tag = "5")]
    boot_id: String,
    #[prost(message, repeated, tag = "6")]
    endpoints: Vec<StoredEndpoint>,
    #[prost(btree_map = "string, uint64", tag = "7")]
    losses: BTreeMap<String, u64>,
    #[prost(uint64, tag = "8")]
    losses_since_unix_ns: u64,
    #[prost(btree_map = "string, uint64", tag = "9")]
    spool_losses: BTreeMap<String, u64>,
    #[prost(message, repeated, tag = "10")]
    clients: Vec<StoredClients>,
}

/// Most counters of most endpoints are zero: only the others are stored.
#[derive(Clone, PartialEq, Message)]
struct StoredEndpoint {
    #[prost(string, tag = "1")]
    target: String,
    #[prost(uint32, tag = "2")]
    role: u32,
    #[prost(string, tag = "3")]
    address: String,
    #[prost(uint64, tag = "4")]
    since_unix_ns: u64,
    #[prost(uint32, repeated, tag = "5")]
    indices: Vec<u32>,
    #[prost(uint64, repeated, tag = "6")]
    values: Vec<u64>,
}

/// One target's clients.
#[derive(Clone, PartialEq, Message)]
struct StoredClients {
    #[prost(string, tag = "1")]
    target: String,
    #[prost(uint64, tag = "2")]
    since_unix_ns: u64,
    #[prost(uint32, tag = "3")]
    prefix_v4: u32,
    #[prost(uint32, tag = "4")]
    prefix_v6: u32,
    #[prost(uint64, tag = "5")]
    settled_before: u64,
    #[prost(bool, tag = "6")]
    is_partial: bool,
    #[prost(message, repeated, tag = "7")]
    clients: Vec<StoredClient>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredClient {
    /// Of four bytes or sixteen.
    #[prost(bytes = "vec", tag = "1")]
    address: Vec<u8>,
    #[prost(uint64, repeated, tag = "2")]
    figures: Vec<u64>,
    #[prost(uint32, tag = "3")]
    above: u32,
}

impl Baseline {
    /// The bytes that the spool keeps.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let stored = Stored {
            layout_version: LAYOUT_VERSION,
            words: WORDS as u32,
            window_end_unix_ns: self.window_end.unix_ns,
            window_end_boot_ns: self.window_end.boot_ns,
            boot_id: self.boot_id.clone(),
            endpoints: self.endpoints.iter().map(store).collect(),
            losses: self.losses.clone(),
            losses_since_unix_ns: self.losses_since_unix_ns,
            spool_losses: self.spool_losses.clone(),
            clients: self.clients.iter().map(store_clients).collect(),
        };
        stored.encode_to_vec()
    }

    /// What the spool kept; `None` where there is nothing, or it was made for
    /// other layouts (whose counters began anew anyway, under another path).
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let stored = Stored::decode(bytes).ok()?;
        let same = stored.layout_version == LAYOUT_VERSION && stored.words == WORDS as u32;
        let endpoints = stored.endpoints.iter().map(restore).collect::<Option<_>>();
        Some(Self {
            window_end: Instant {
                unix_ns: stored.window_end_unix_ns,
                boot_ns: stored.window_end_boot_ns,
            },
            boot_id: stored.boot_id,
            endpoints: endpoints.filter(|_| same)?,
            losses: stored.losses,
            losses_since_unix_ns: stored.losses_since_unix_ns,
            spool_losses: stored.spool_losses,
            clients: stored.clients.iter().filter_map(restore_clients).collect(),
        })
    }

    /// Its `spool_losses` alone, whatever layouts it was made for.
    #[must_use]
    pub fn decode_spool_losses(bytes: &[u8]) -> BTreeMap<String, u64> {
        Stored::decode(bytes).unwrap_or_default().spool_losses
    }
}

fn store((id, totals): (&EndpointId, &Totals)) -> StoredEndpoint {
    let words = (0u32..).zip(totals.counters.words());
    let (indices, values) = words.filter(|(_, n)| **n > 0).unzip();
    StoredEndpoint {
        target: id.target.to_string(),
        role: id.role as u32,
        address: id.address.to_string(),
        since_unix_ns: totals.since_unix_ns,
        indices,
        values,
    }
}

fn restore(stored: &StoredEndpoint) -> Option<(EndpointId, Totals)> {
    let address = match stored.address.as_str() {
        "other" => EndpointAddress::Other,
        address => EndpointAddress::Socket(address.parse().ok()?),
    };
    let mut counters = Box::new(EndpointCounters::ZERO);
    for (index, value) in stored.indices.iter().zip(&stored.values) {
        *counters.words_mut().get_mut(*index as usize)? = *value;
    }
    let id = EndpointId {
        target: Arc::from(stored.target.as_str()),
        role: Role::from_u8(u8::try_from(stored.role).ok()?)?,
        address,
    };
    let since_unix_ns = stored.since_unix_ns;
    Some((
        id,
        Totals {
            since_unix_ns,
            counters,
        },
    ))
}

/// The largest ones, where there are too many: a record of the spool has room for
/// so many.
fn store_clients((target, told): (&Arc<str>, &ToldClients)) -> StoredClients {
    let mut clients: Vec<(&IpAddr, &Told)> = told.clients.iter().collect();
    if clients.len() > STORED_MAX {
        let sum = |told: &Told| told.figures.iter().fold(0u64, |a, b| a.saturating_add(*b));
        clients.sort_by_key(|(client, told)| (Reverse(sum(told)), **client));
        clients.truncate(STORED_MAX);
    }
    let [prefix_v4, prefix_v6] = told.prefixes.map(u32::from);
    let client = |(ip, told): &(&IpAddr, &Told)| StoredClient {
        address: match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        },
        figures: told.figures.to_vec(),
        above: told.above.into(),
    };
    StoredClients {
        target: target.to_string(),
        since_unix_ns: told.since_unix_ns,
        prefix_v4,
        prefix_v6,
        settled_before: told.settled_before,
        is_partial: told.is_partial || clients.len() < told.clients.len(),
        clients: clients.iter().map(client).collect(),
    }
}

fn restore_clients(stored: &StoredClients) -> Option<(Arc<str>, ToldClients)> {
    let client = |client: &StoredClient| {
        let told = Told {
            figures: client.figures.as_slice().try_into().ok()?,
            above: u8::try_from(client.above).ok()?,
        };
        let ip = match client.address.len() {
            4 => <[u8; 4]>::try_from(client.address.as_slice()).ok()?.into(),
            _ => <[u8; 16]>::try_from(client.address.as_slice()).ok()?.into(),
        };
        Some((ip, told))
    };
    let told = ToldClients {
        since_unix_ns: stored.since_unix_ns,
        prefixes: [
            stored.prefix_v4.try_into().ok()?,
            stored.prefix_v6.try_into().ok()?,
        ],
        settled_before: stored.settled_before,
        is_partial: stored.is_partial,
        clients: stored.clients.iter().map(client).collect::<Option<_>>()?,
    };
    Some((Arc::from(stored.target.as_str()), told))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(n: u16) -> (EndpointId, Totals) {
        let mut counters = Box::new(EndpointCounters::ZERO);
        counters.words_mut()[usize::from(n) % WORDS] = u64::from(n) + 1;
        let address = match n % 3 {
            0 => EndpointAddress::Other,
            1 => EndpointAddress::Socket(([127, 0, 0, 1], n).into()),
            _ => EndpointAddress::Socket(([0, 0, 0, 0, 0, 0, 0, n], 80).into()),
        };
        let id = EndpointId {
            target: Arc::from("/web"),
            role: if n.is_multiple_of(2) {
                Role::Upstream
            } else {
                Role::Downstream
            },
            address,
        };
        let since_unix_ns = 5;
        (
            id,
            Totals {
                since_unix_ns,
                counters,
            },
        )
    }

    fn clients(n: u64) -> ToldClients {
        let told = |above| Told {
            figures: std::array::from_fn(|i| n.rotate_left(i as u32)),
            above,
        };
        ToldClients {
            since_unix_ns: 5,
            prefixes: [24, 48],
            settled_before: n,
            is_partial: false,
            clients: [
                ("192.0.2.0".parse().unwrap(), told(7)),
                ("2001:db8::".parse().unwrap(), told(0)),
            ]
            .into(),
        }
    }

    proptest! {
        #[test]
        fn what_is_stored_is_restored(ports in prop::collection::vec(any::<u16>(), 0..30), end: u64) {
            let baseline = Baseline {
                window_end: Instant { unix_ns: end, boot_ns: end / 2 },
                boot_id: "b".to_owned(),
                endpoints: ports.into_iter().map(endpoint).collect(),
                losses: [("no_socket".to_owned(), 3)].into(),
                losses_since_unix_ns: 9,
                clients: [(Arc::from("/web"), clients(end))].into(),
                spool_losses: [("reports_dropped".to_owned(), 2)].into(),
            };
            prop_assert_eq!(Baseline::decode_spool_losses(&baseline.encode()), baseline.spool_losses.clone());
            prop_assert_eq!(Baseline::decode(&baseline.encode()), Some(baseline));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            prop_assert!(Baseline::decode(&bytes).is_none_or(|b| b.endpoints.is_empty()));
        }
    }

    #[test]
    fn nothing_is_no_baseline() {
        assert_eq!(Baseline::decode(&[]), None);
    }
}
