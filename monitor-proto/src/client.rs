//! A client of listeners: an address, or the network that it is in.

use std::{fmt, net::IpAddr, str::FromStr};

/// An address, or a network with its bits behind the prefix all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientAddress {
    ip: IpAddr,
    bits: u8,
}

/// Why a text is no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidClient;

impl ClientAddress {
    /// A client of which so many bits count, by the kind of its address.
    #[must_use]
    pub const fn new(ip: IpAddr, bits_v4: u8, bits_v6: u8) -> Self {
        let bits = match ip {
            IpAddr::V4(_) => bits_v4,
            IpAddr::V6(_) => bits_v6,
        };
        Self { ip, bits }
    }

    const fn bits_max(ip: IpAddr) -> u8 {
        match ip {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        }
    }

    /// Whether all bits behind the prefix are zero.
    fn is_network(self) -> bool {
        match self.ip {
            IpAddr::V4(ip) => ip.to_bits().trailing_zeros() + u32::from(self.bits) >= 32,
            IpAddr::V6(ip) => ip.to_bits().trailing_zeros() + u32::from(self.bits) >= 128,
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits == Self::bits_max(self.ip) {
            self.ip.fmt(f)
        } else {
            write!(f, "{}/{}", self.ip, self.bits)
        }
    }
}

impl FromStr for ClientAddress {
    type Err = InvalidClient;

    /// Reads what is written above and nothing else, so that no two texts are one client.
    fn from_str(text: &str) -> Result<Self, InvalidClient> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| InvalidClient)?;
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| InvalidClient)?,
            None => Self::bits_max(ip),
        };
        let client = Self { ip, bits };
        let is_sound = bits <= Self::bits_max(ip) && client.is_network();
        if is_sound && ip == ip.to_canonical() && client.to_string() == text {
            Ok(client)
        } else {
            Err(InvalidClient)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_one_text() {
        for text in [
            "192.0.2.7",
            "192.0.2.0/24",
            "0.0.0.0/0",
            "::1",
            "2001:db8::/64",
            "::/0",
            "::/64",
        ] {
            let client: ClientAddress = text.parse().unwrap();
            assert_eq!(client.to_string(), text);
        }
        for text in [
            "",
            "/",
            "192.0.2.7/32",
            "192.0.2.7/24",
            "192.0.2.0/+24",
            "192.0.2.0/024",
            "1.2.3",
            "2001:DB8::/64",
            "2001:db8:0::/64",
            "::ffff:192.0.2.7",
            "::1/64",
            "::/129",
            "0.0.0.0/33",
            "192.0.2.7\n",
            " 192.0.2.7",
            "~other",
            "fe80::1%eth0",
        ] {
            assert_eq!(
                text.parse::<ClientAddress>(),
                Err(InvalidClient),
                "{text:?}"
            );
        }
    }
}
