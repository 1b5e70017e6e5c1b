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

/// Whose a slot is: an [`EndpointKey`] as words, so that it can be published
/// with one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SlotKey {
    address: [u32; 4],
    /// Port, role and flags; 0 while the slot is free or being taken.
    tail: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<SlotKey>() == 24);

impl SlotKey {
    /// Publishes a key: the word that holds the role comes last, so a reader
    /// that sees a role sees the address too.
    #[inline(always)]
    pub fn write(&mut self, key: &EndpointKey) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = key.address;
        let words = [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]];
        let [port_low, port_high] = key.port.to_le_bytes();
        let tail = u32::from_le_bytes([port_low, port_high, key.role, key.flags]);
        // SAFETY: a reference is valid and aligned.  Volatile, so that the
        // compiler keeps the order.
        unsafe { (&raw mut self.address).write_volatile(words.map(u32::from_ne_bytes)) };
        // SAFETY: as above.
        unsafe { (&raw mut self.tail).write_volatile(tail) };
    }

    /// From the words of a mapped map.
    #[must_use]
    pub const fn from_words([a, b, c, d, tail, reserved]: [u32; 6]) -> Self {
        Self {
            address: [a, b, c, d],
            tail,
            reserved,
        }
    }

    /// As words of 64 bits of a little-endian machine; the last one publishes it.
    #[must_use]
    pub fn words(&self) -> [u64; 3] {
        let [a, b, c, d] = self.address.map(u64::from);
        let tail = u64::from(self.tail) | u64::from(self.reserved) << 32;
        [a | b << 32, c | d << 32, tail]
    }

    /// The key, `None` while the slot is free.
    #[must_use]
    pub fn read(&self) -> Option<EndpointKey> {
        let [port_low, port_high, role, flags] = self.tail.to_le_bytes();
        Role::from_u8(role)?;
        let mut address = [0; 16];
        for (bytes, word) in address.chunks_exact_mut(4).zip(self.address) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Some(EndpointKey {
            address,
            port: u16::from_le_bytes([port_low, port_high]),
            role,
            flags,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_key_is_read_back() {
        let key = EndpointKey {
            address: EndpointKey::v4_mapped([127, 0, 0, 1]),
            port: 8080,
            role: Role::Upstream as u8,
            flags: 0,
        };
        let mut place = SlotKey::default();
        assert_eq!(place.read(), None);
        place.write(&key);
        assert_eq!(place.read(), Some(key));
        let halves = |word: u64| [word as u32, (word >> 32) as u32];
        let [a, b, c] = place.words().map(halves);
        let again = SlotKey::from_words([a[0], a[1], b[0], b[1], c[0], c[1]]);
        assert_eq!(again.read(), Some(key));
    }
}
