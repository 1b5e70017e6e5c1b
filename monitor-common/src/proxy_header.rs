//! The header that a balancer sends before a client's stream, the PROXY protocol, as it
//! came: <https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt>.

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// As much of a header as is kept: the longest of version 1, and of version 2 all that
/// tells of TCP.
pub const HEADER_BYTES: usize = 108;

/// The first bytes of a connection that begins with a header, in a storage of the
/// socket's own, which other sockets have not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ProxyHeader {
    /// How many bytes there are; written last.
    pub len: u32,
    /// The header, and what came behind it.
    pub bytes: [u8; HEADER_BYTES],
}

const _: () = assert!(size_of::<ProxyHeader>() == 112);

impl Default for ProxyHeader {
    fn default() -> Self {
        Self {
            len: 0,
            bytes: [0; HEADER_BYTES],
        }
    }
}

/// The first bytes of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 of a connection that is passed on for somebody.
const PROXY_V2: u8 = 0x21;
const TCP4_V2: u8 = 0x11;
const TCP6_V2: u8 = 0x21;

impl ProxyHeader {
    /// Who the client is.  `None` where the header does not tell: of a connection of the
    /// balancer's own, of other protocols, or where it came in pieces.
    #[must_use]
    pub fn client(&self) -> Option<SocketAddr> {
        let len = usize::try_from(self.len).ok()?;
        let bytes = self.bytes.get(..len)?;
        match bytes.strip_prefix(SIGNATURE) {
            Some(rest) => binary(rest),
            None => text(bytes),
        }
    }
}

/// What follows the signature of version 2.
fn binary(rest: &[u8]) -> Option<SocketAddr> {
    let (&[version, family, high, low], addresses) = rest.split_first_chunk()?;
    let told = addresses.get(..usize::from(u16::from_be_bytes([high, low])));
    // More may follow than is kept.
    let addresses = told.unwrap_or(addresses);
    if version != PROXY_V2 {
        return None;
    }
    let (ip, ports): (IpAddr, _) = match family {
        TCP4_V2 => {
            let (&source, rest) = addresses.split_first_chunk::<4>()?;
            (Ipv4Addr::from(source).into(), rest.get(4..)?)
        }
        TCP6_V2 => {
            let (&source, rest) = addresses.split_first_chunk::<16>()?;
            (Ipv6Addr::from(source).to_canonical(), rest.get(16..)?)
        }
        _ => return None,
    };
    let (&port, _) = ports.split_first_chunk::<2>()?;
    Some((ip, u16::from_be_bytes(port)).into())
}

/// A line of version 1.
fn text(bytes: &[u8]) -> Option<SocketAddr> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let line = core::str::from_utf8(&bytes[..end]).ok()?;
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return None;
    }
    let (family, source) = (words.next()?, words.next()?);
    let (_destination, port, _port) = (words.next()?, words.next()?, words.next()?);
    let ip: IpAddr = match family {
        "TCP4" => Ipv4Addr::from_str(source).ok()?.into(),
        "TCP6" => Ipv6Addr::from_str(source).ok()?.to_canonical(),
        _ => return None,
    };
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = u16::from_str(port).ok().filter(|_| is_number)?;
    words.next().is_none().then_some((ip, port).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(bytes: &[u8]) -> ProxyHeader {
        let mut header = ProxyHeader::default();
        let len = bytes.len().min(HEADER_BYTES);
        header.bytes[..len].copy_from_slice(&bytes[..len]);
        header.len = len as u32;
        header
    }

    fn client(bytes: &[u8]) -> Option<String> {
        kept(bytes).client().map(|client| client.to_string())
    }

    fn v2(version: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let len = (addresses.len() as u16).to_be_bytes();
        [SIGNATURE, &[version, family], &len, addresses].concat()
    }

    #[test]
    fn the_client_is_the_source_of_either_version() {
        let four = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 4, 1, 0xbb];
        let mapped = [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, 1]].concat();
        let six = [&mapped[..], &[0; 16], &[0xdc, 4, 1, 0xbb], &[9; 300]].concat();
        let local = Some("192.0.2.1:56324".to_owned());
        for (header, expected) in [
            (
                b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET".to_vec(),
                &local,
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 65535 1\r\n".to_vec(),
                &Some("[2001:db8::1]:65535".to_owned()),
            ),
            (v2(PROXY_V2, TCP4_V2, &four), &local),
            (v2(PROXY_V2, TCP6_V2, &six), &local),
            // A check of the balancer's own, and what is not TCP.
            (v2(0x20, TCP4_V2, &four), &None),
            (v2(PROXY_V2, 0x12, &four), &None),
            (v2(PROXY_V2, 0x31, &four), &None),
            (v2(0x11, TCP4_V2, &four), &None),
            (v2(PROXY_V2, TCP4_V2, &four[..9]), &None),
            (b"PROXY UNKNOWN\r\n".to_vec(), &None),
            (b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), &None),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n".to_vec(), &None),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n".to_vec(), &None),
            (b"PROXY TCP4 ::1 192.0.2.2 1 2\r\n".to_vec(), &None),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), &None),
            (b"".to_vec(), &None),
        ] {
            assert_eq!(&client(&header), expected, "{header:?}");
        }
    }

    #[test]
    fn a_header_of_which_a_part_is_missing_tells_nothing() {
        let whole = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n";
        for len in 0..whole.len() {
            assert_eq!(client(&whole[..len]), None, "{len}");
            assert_eq!(client(&whole[whole.len() - len..]), None, "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(
            header in "(\r\n\r\n\0\r\nQUIT\n[!\\x20]\u{11}|PROXY TCP[46] )?[0-9a-f.: \r\n\0]{0,60}",
            len: u32,
        ) {
            let mut kept = kept(header.as_bytes());
            let _any = kept.client();
            kept.len = len;
            let _any = kept.client();
        }
    }
}
