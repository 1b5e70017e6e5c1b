//! The listening sockets of a network namespace, with the cgroup that each was
//! made in: what counts for a target, wherever the process that accepts is.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use rustix::net::SocketFlags;

use super::{
    conversation::Conversation,
    netlink::{attribute, u32_at, u64_at},
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const INET_DIAG_CGROUP_ID: u16 = 21;

/// `1 << TCP_LISTEN`
const LISTEN: u32 = 1 << 10;

/// The sizes of `struct inet_diag_req_v2` and of `struct inet_diag_msg`.
const REQUEST_BYTES: usize = 56;
const MESSAGE_BYTES: usize = 72;

/// What one read of the socket takes at the most.
const BUFFER_BYTES: usize = 64 << 10;

/// A host has far fewer.
const LISTENERS_MAX: usize = 100_000;

/// One listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens; v4-mapped addresses as IPv4.
    pub address: SocketAddr,
    /// The cgroup that it was made in.
    pub cgroup_id: u64,
}

/// The listeners of the calling thread's network namespace, by inode.  Those
/// that the kernel names no cgroup of (before Linux 5.8) are left out.
///
/// # Errors
/// Where the kernel has no `sock_diag`.
pub fn listeners() -> io::Result<HashMap<u64, Listener>> {
    let netlink = Conversation::open(SocketFlags::CLOEXEC, 0)?;
    let mut found = HashMap::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    for family in [AF_INET, AF_INET6] {
        let mut body = [0; REQUEST_BYTES];
        body[0] = family;
        body[1] = IPPROTO_TCP;
        body[4..8].copy_from_slice(&LISTEN.to_ne_bytes());
        netlink.dump(SOCK_DIAG_BY_FAMILY, &body, &mut buffer, |body| {
            if found.len() < LISTENERS_MAX {
                found.extend(parse(body));
            }
        })?;
    }
    Ok(found)
}

fn parse(body: &[u8]) -> Option<(u64, Listener)> {
    let attributes = body.get(MESSAGE_BYTES..)?;
    let cgroup_id = attribute(attributes, INET_DIAG_CGROUP_ID).and_then(|v| u64_at(v, 0))?;
    let port = u16::from_be_bytes(body.get(4..6)?.try_into().ok()?);
    let address = body.get(8..24)?;
    let ip: IpAddr = match body[0] {
        AF_INET => <[u8; 4]>::try_from(address.get(..4)?).ok()?.into(),
        AF_INET6 => {
            let octets = <[u8; 16]>::try_from(address).ok()?;
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    let listener = Listener {
        address: (ip, port).into(),
        cgroup_id,
    };
    Some((u32_at(body, 68)?.into(), listener))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsRawFd as _};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_listener_is_found_by_its_inode() {
        let socket = TcpListener::bind("[::1]:0").unwrap();
        let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let link = std::fs::read_link(link).unwrap();
        let inode = link.to_str().unwrap().trim_start_matches("socket:[");
        let inode: u64 = inode.trim_end_matches(']').parse().unwrap();
        let found = listeners().unwrap()[&inode];
        assert_eq!(found.address, socket.local_addr().unwrap());
        assert_ne!(found.cgroup_id, 0);
    }

    proptest! {
        #[test]
        fn hostile_answers_give_nothing_or_a_listener(
            bytes in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let _any = parse(&bytes);
        }
    }
}
