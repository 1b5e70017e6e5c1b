//! The TCP sockets of a network namespace by `sock_diag`: the live ones with the
//! programs' storage in one dump, the listeners, and those that have just ended.
//!
//! `struct inet_diag_req_v2`, `struct inet_diag_msg` and `struct tcp_info` are
//! read as the UAPI lays them out.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use kernel_sample::LiveSocket;
use monitor_common::{
    proxy_header::ProxyHeader,
    socket::Socket,
    tcp::{Reading, state},
};
use rustix::net::{SocketFlags, sockopt};

use super::{
    conversation::Conversation,
    netlink::{self, attribute, encode_attribute, u32_at, u64_at},
};
use crate::{error::KernelError, syscall};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKMEMINFO: u16 = 7;
/// Where `SK_MEMINFO_DROPS` lies in it.
const MEMINFO_DROPS: usize = 8 * 4;
const INET_DIAG_CGROUP_ID: u16 = 21;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;
const NLA_F_NESTED: u16 = 1 << 15;

const LISTEN: u32 = 1 << 10;

/// All states but LISTEN and those that have no socket of their own any more.
const LIVE: u32 = 1 << state::ESTABLISHED
    | 1 << state::SYN_SENT
    | 1 << state::FIN_WAIT1
    | 1 << state::FIN_WAIT2
    | 1 << state::CLOSE_WAIT
    | 1 << state::LAST_ACK
    | 1 << state::CLOSING;

/// The size of `struct inet_diag_msg`.
const MESSAGE_BYTES: usize = 72;

/// `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY` as a mask.
const DESTROYED_GROUPS: u32 = 1 | 1 << 2;

/// Room for the ends of some thousand sockets.
const ENDS_BYTES: usize = 16 << 20;

/// What one read of the socket takes at the most.
const BUFFER_BYTES: usize = 256 << 10;

const OPENING: &str = "opening a netlink socket";

fn failed(operation: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |source| KernelError::File {
        operation,
        path: "sock_diag".into(),
        source,
    }
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listening {
    pub(crate) cookie: u64,
    /// Where it listens; v4-mapped addresses as IPv4.
    pub(crate) address: SocketAddr,
    /// The cgroup that it was made in.
    pub(crate) cgroup_id: u64,
    /// Connections that wait to be accepted, `sk_ack_backlog`.
    pub(crate) queue: u32,
    /// How many may wait, `sk_max_ack_backlog`.
    pub(crate) limit: u32,
    /// Connections and segments that were dropped, `sk_drops`.
    pub(crate) drops: u32,
}

/// A socket over which one network namespace is asked: that of the thread which
/// opened it, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Diag(Conversation);

impl Diag {
    pub(crate) fn open() -> Result<Self, KernelError> {
        let opened = Conversation::open(SocketFlags::CLOEXEC, 0);
        opened.map(Self).map_err(failed(OPENING))
    }

    /// What the programs call the namespace.
    pub(crate) fn namespace_cookie(&self) -> Result<u64, KernelError> {
        syscall::network_namespace_cookie(self.0.as_fd())
            .map_err(failed("asking for the namespace's cookie"))
    }

    /// Adds the live sockets; with the storage of the maps that are given, which takes
    /// `CAP_BPF` and `CAP_NET_ADMIN`.
    pub(crate) fn live(
        &self,
        storages: &[&OwnedFd],
        sockets: &mut Vec<LiveSocket>,
    ) -> Result<(), KernelError> {
        self.dump(LIVE, storages, sockets)
    }

    /// Adds the listeners.
    pub(crate) fn listeners(&self, sockets: &mut Vec<LiveSocket>) -> Result<(), KernelError> {
        self.dump(LISTEN, &[], sockets)
    }

    /// Adds the listeners with their accept queues.
    pub(crate) fn listening(&self, sockets: &mut Vec<Listening>) -> Result<(), KernelError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        for family in [AF_INET, AF_INET6] {
            let request = request(family, LISTEN, 1 << (INET_DIAG_SKMEMINFO - 1), &[]);
            let each = |body: &[u8]| sockets.extend(parse_listening(body));
            let dumped = self
                .0
                .dump(SOCK_DIAG_BY_FAMILY, &request, &mut buffer, each);
            dumped.map_err(failed("dumping the listeners"))?;
        }
        Ok(())
    }

    fn dump(
        &self,
        states: u32,
        storages: &[&OwnedFd],
        sockets: &mut Vec<LiveSocket>,
    ) -> Result<(), KernelError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        for family in [AF_INET, AF_INET6] {
            let request = request(family, states, 1 << (INET_DIAG_INFO - 1), storages);
            let each = |body: &[u8]| sockets.extend(parse(body));
            let dumped = self
                .0
                .dump(SOCK_DIAG_BY_FAMILY, &request, &mut buffer, each);
            dumped.map_err(failed("dumping the sockets"))?;
        }
        Ok(())
    }
}

/// The sockets that end in one network namespace, told as they do.
///
/// While one is open the kernel tells of every socket of the namespace, so it
/// should be closed as soon as none is waited for.
#[derive(Debug)]
pub(crate) struct Ends {
    netlink: Conversation,
    buffer: Vec<u8>,
}

impl Ends {
    pub(crate) fn open() -> Result<Self, KernelError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let netlink = Conversation::open(flags, DESTROYED_GROUPS).map_err(failed(OPENING))?;
        let forced = sockopt::set_socket_recv_buffer_size_force(&netlink, ENDS_BYTES);
        // Without the capability the limit of the machine holds.
        forced
            .or_else(|_denied| sockopt::set_socket_recv_buffer_size(&netlink, ENDS_BYTES))
            .map_err(|e| failed("making room for ends of sockets")(e.into()))?;
        Ok(Self {
            netlink,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Takes what was told since the last time.  False where the kernel had more
    /// to tell than there was room for.
    pub(crate) fn take(&mut self, mut ended: impl FnMut(LiveSocket)) -> Result<bool, KernelError> {
        let mut whole = true;
        loop {
            match self.netlink.receive(&mut self.buffer) {
                Ok(datagram) => netlink::messages(datagram)
                    .filter_map(|message| parse(message.body))
                    .for_each(&mut ended),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(whole),
                    Some(libc::ENOBUFS) => whole = false,
                    Some(libc::EINTR) => {}
                    _ => return Err(failed("reading the ends of sockets")(error)),
                },
            }
        }
    }
}

fn request(family: u8, states: u32, extensions: u8, storages: &[&OwnedFd]) -> Vec<u8> {
    let mut body = vec![0; 56];
    body[0] = family;
    body[1] = IPPROTO_TCP;
    body[2] = extensions;
    body[4..8].copy_from_slice(&states.to_ne_bytes());
    if !storages.is_empty() {
        let fds = storages.iter().map(|map| map.as_raw_fd().to_ne_bytes());
        let nested: Vec<u8> = fds
            .flat_map(|fd| encode_attribute(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, &fd))
            .collect();
        body.extend(encode_attribute(
            INET_DIAG_REQ_SK_BPF_STORAGES | NLA_F_NESTED,
            &nested,
        ));
    }
    body
}

fn parse_listening(body: &[u8]) -> Option<Listening> {
    let attributes = body.get(MESSAGE_BYTES..)?;
    let memory = attribute(attributes, INET_DIAG_SKMEMINFO)?;
    let cgroup = attribute(attributes, INET_DIAG_CGROUP_ID).and_then(|v| u64_at(v, 0));
    let port = u16::from_be_bytes(body.get(4..6)?.try_into().ok()?);
    Some(Listening {
        cookie: cookie(body)?,
        address: (ip(body[0], body.get(8..24)?)?, port).into(),
        cgroup_id: cgroup.unwrap_or(0),
        queue: u32_at(body, 56)?,
        limit: u32_at(body, 60)?,
        drops: u32_at(memory, MEMINFO_DROPS)?,
    })
}

fn cookie(body: &[u8]) -> Option<u64> {
    Some(u64::from(u32_at(body, 44)?) | u64::from(u32_at(body, 48)?) << 32)
}

fn parse(body: &[u8]) -> Option<LiveSocket> {
    let attributes = body.get(MESSAGE_BYTES..)?;
    let info = attribute(attributes, INET_DIAG_INFO)?;
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let family = body[0];
    let cgroup = attribute(attributes, INET_DIAG_CGROUP_ID).and_then(|v| u64_at(v, 0));
    Some(LiveSocket {
        cookie: cookie(body)?,
        local: (ip(family, body.get(8..24)?)?, port(4)?).into(),
        remote: (ip(family, body.get(24..40)?)?, port(6)?).into(),
        state: body[1],
        cgroup_id: cgroup.unwrap_or(0),
        srtt_us: u32_at(info, 68)?,
        last_ack_recv_ms: u32_at(info, 56)?,
        reading: Reading {
            bytes_acked: u64_at(info, 120)?,
            bytes_received: u64_at(info, 128)?,
            segs_out: u32_at(info, 136)?,
            segs_in: u32_at(info, 140)?,
            total_retrans: u32_at(info, 100)?,
            ..Reading::default()
        },
        payload_sent: u64_at(info, 200)?.saturating_sub(u64_at(info, 208)?),
        receive_queue: u32_at(body, 56)?,
        send_queue: u32_at(body, 60)?,
        storage: storage(attributes),
        client: storage(attributes).and_then(|header: ProxyHeader| header.client()),
    })
}

fn ip(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(IpAddr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?)),
        AF_INET6 => {
            let six = Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?);
            Some(six.to_canonical())
        }
        _ => None,
    }
}

/// The value of a map of this type, which its size tells from that of others.
fn storage<T: aya::Pod>(attributes: &[u8]) -> Option<T> {
    const {
        assert!(size_of::<Socket>() != size_of::<ProxyHeader>());
    }
    let storages = attribute(attributes, INET_DIAG_SK_BPF_STORAGES)?;
    let mut values = netlink::attributes(storages)
        .filter(|(kind, _)| *kind == SK_DIAG_BPF_STORAGE)
        .filter_map(|(_, one)| attribute(one, SK_DIAG_BPF_STORAGE_MAP_VALUE));
    let value = values.find(|value| value.len() == size_of::<T>())?;
    // SAFETY: as many bytes as the type has, which is plain old data: any bytes
    // are a value of it.
    Some(unsafe { value.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hostile_answers_give_nothing_or_a_socket(
            bytes in prop::collection::vec(any::<u8>(), 0..400)
        ) {
            let _any = parse(&bytes);
            let _any = parse_listening(&bytes);
        }
    }
}
