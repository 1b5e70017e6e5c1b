//! The clients of listeners: whose ended connections added up to what.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use monitor_common::{
    client::{ClientCounters, ClientKey},
    endpoint::EndpointKey,
};

/// How many bits of a client's address count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPrefixes {
    v4: u8,
    v6: u8,
}

/// Why something is no pair of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "give the bits of an IPv4 and of an IPv6 address that count, such as 24,48: at most 32,128"
)]
pub struct InvalidPrefixes;

impl Default for ClientPrefixes {
    /// An IPv4 address, and the network that one IPv6 client has its addresses of.
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

impl ClientPrefixes {
    /// So many bits of each.
    ///
    /// # Errors
    /// Where that is more than an address has.
    pub fn try_new(v4: u8, v6: u8) -> Result<Self, InvalidPrefixes> {
        if v4 > 32 || v6 > 128 {
            return Err(InvalidPrefixes);
        }
        Ok(Self { v4, v6 })
    }

    /// Of an IPv4 address.
    #[must_use]
    pub const fn v4(self) -> u8 {
        self.v4
    }

    /// Of an IPv6 address.
    #[must_use]
    pub const fn v6(self) -> u8 {
        self.v6
    }

    /// The client that an address belongs to; v4-mapped ones as IPv4.
    #[must_use]
    pub fn client(self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & mask_v4(self.v4)).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & mask_v6(self.v6)).into(),
        }
    }

    /// The bits that count of an IPv4 and of an IPv6 address, as the programs take them.
    #[must_use]
    pub fn masks(self) -> [[u64; 2]; 2] {
        let mapped = EndpointKey::v4_mapped(mask_v4(self.v4).to_be_bytes());
        // What marks it as IPv4 counts.
        let v4 = u128::from_le_bytes(mapped) | u128::from(u64::MAX);
        let v6 = u128::from_le_bytes(mask_v6(self.v6).to_be_bytes());
        [v4, v6].map(words)
    }
}

impl FromStr for ClientPrefixes {
    type Err = InvalidPrefixes;

    fn from_str(text: &str) -> Result<Self, InvalidPrefixes> {
        let (v4, v6) = text.split_once(',').ok_or(InvalidPrefixes)?;
        let bits = |text: &str| text.trim().parse().map_err(|_| InvalidPrefixes);
        Self::try_new(bits(v4)?, bits(v6)?)
    }
}

fn mask_v4(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

fn mask_v6(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

fn words(number: u128) -> [u64; 2] {
    // Two halves.
    [number as u64, (number >> 64) as u64]
}

/// The client of an entry.
#[must_use]
pub fn client(key: &ClientKey) -> IpAddr {
    let [low, high] = key.address;
    let number = u128::from(high) << 64 | u128::from(low);
    IpAddr::V6(Ipv6Addr::from(number.to_le_bytes())).to_canonical()
}

/// What the connections of one target's clients came to that have ended and are not
/// removed yet.
#[derive(Clone, Debug)]
pub struct TargetClients {
    /// The watched cgroup's path below the cgroup2 mount.
    pub target: Arc<str>,
    /// When this target began to be counted.
    pub since_unix_ns: u64,
    /// How many bits of an address count.
    pub prefixes: ClientPrefixes,
    /// Client by client and generation by generation.
    pub ended: Vec<EndedConnections>,
    /// Whether the target's live sockets were looked at.
    pub sees_live: bool,
    /// What will not change any more.
    pub settled: Settled,
}

/// The ended connections of one client and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedConnections {
    /// Whose.
    pub client: IpAddr,
    /// When they ended.
    pub generation: u64,
    /// What they carried.
    pub counters: ClientCounters,
}

/// The generations that are over, and who is to know once they were reported: what is
/// of them can be removed then.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// All before this one.
    pub before: u64,
    reported: Arc<AtomicU64>,
}

impl Settled {
    /// Says to whom the generations before one are to be reported.
    #[must_use]
    pub fn new(before: u64, reported: &Arc<AtomicU64>) -> Self {
        let reported = Arc::clone(reported);
        Self { before, reported }
    }

    /// They were reported, for good.
    pub fn reported(&self) {
        self.reported.store(self.before, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the programs make of an address.
    fn masked(address: [u8; 16], mask: [u64; 2]) -> IpAddr {
        let [low, high] = words(u128::from_le_bytes(address));
        client(&ClientKey {
            address: [low & mask[0], high & mask[1]],
            generation: 0,
        })
    }

    #[test]
    fn the_programs_and_the_agent_mask_addresses_in_the_same_way() {
        let v4: Ipv4Addr = "203.0.113.77".parse().unwrap();
        let v6: Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        for bits in 0..=32 {
            let prefixes = ClientPrefixes::try_new(bits, 0).unwrap();
            let kernel = masked(EndpointKey::v4_mapped(v4.octets()), prefixes.masks()[0]);
            assert_eq!(kernel, prefixes.client(v4.into()), "{bits}");
            assert_eq!(prefixes.client(v4.to_ipv6_mapped().into()), kernel);
        }
        for bits in 0..=128 {
            let prefixes = ClientPrefixes::try_new(0, bits).unwrap();
            let kernel = masked(v6.octets(), prefixes.masks()[1]);
            assert_eq!(kernel, prefixes.client(v6.into()), "{bits}");
        }
        let prefixes = ClientPrefixes::try_new(24, 48).unwrap();
        assert_eq!(prefixes.client(v4.into()).to_string(), "203.0.113.0");
        assert_eq!(prefixes.client(v6.into()).to_string(), "2001:db8:1::");
    }

    #[test]
    fn prefixes_are_two_numbers_within_an_address() {
        assert_eq!("24,48".parse(), ClientPrefixes::try_new(24, 48));
        assert_eq!("32, 64".parse(), Ok(ClientPrefixes::default()));
        for wrong in [
            "", "24", "33,64", "32,129", "a,b", "24,48,1", "-1,2", "24/48",
        ] {
            assert_eq!(
                wrong.parse::<ClientPrefixes>(),
                Err(InvalidPrefixes),
                "{wrong}"
            );
        }
    }
}
