//! What a connection is counted under.

/// Who opened a connection, as seen from the watched process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// Passively opened: client to proxy.
    Downstream = 1,
    /// Actively opened: proxy to backend.
    Upstream = 2,
}

impl Role {
    /// The role of a stored byte.
    #[must_use]
    pub const fn from_u8(role: u8) -> Option<Self> {
        match role {
            1 => Some(Self::Downstream),
            2 => Some(Self::Upstream),
            _ => None,
        }
    }
}

/// The key of the endpoints' map: the local address and port of a listener
/// (downstream), the remote ones of a peer (upstream).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct EndpointKey {
    /// The address, IPv4 as `::ffff:a.b.c.d`, in network byte order.
    pub address: [u8; 16],
    /// The port, host byte order.
    pub port: u16,
    /// A [`Role`].
    pub role: u8,
    /// [`Self::IS_OTHER`] or 0.
    pub flags: u8,
}

const _: () = assert!(size_of::<EndpointKey>() == 20);

impl EndpointKey {
    /// The overflow endpoint of a role.
    pub const IS_OTHER: u8 = 1;

    /// The endpoint that takes what finds no place in the map.
    #[must_use]
    pub const fn other(role: Role) -> Self {
        Self {
            address: [0; 16],
            port: 0,
            role: role as u8,
            flags: Self::IS_OTHER,
        }
    }

    /// An IPv4 address as it is stored.
    #[must_use]
    pub const fn v4_mapped(octets: [u8; 4]) -> [u8; 16] {
        // As one number: byte by byte it would be a loop on the kernel's target.
        let prefix = 0xffff << 80;
        (prefix | (u32::from_le_bytes(octets) as u128) << 96).to_le_bytes()
    }
}

/// The slot of the overflow endpoint of a role: the first two slots of the
/// counters are theirs and never in the pool of free ones.
#[must_use]
pub const fn other_slot(role: Role) -> u32 {
    role as u32 - 1
}

/// How many slots are reserved for the overflow endpoints.
pub const OTHER_SLOTS: u32 = 2;
