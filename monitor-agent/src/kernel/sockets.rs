//! The live TCP sockets of this network namespace, with the programs' storage,
//! in one dump.
//!
//! `struct inet_diag_req_v2`, `struct inet_diag_msg` and `struct tcp_info` are
//! read as the UAPI lays them out.  The dump takes each socket's `tcp_info` before
//! its storage, so what a callback folds in between makes a remainder too small,
//! never too large.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use monitor_common::{
    socket::Socket,
    tcp::{Delta, Reading, Stream, state},
};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use super::{
    KernelError,
    netlink::{self, attribute, encode_attribute, encode_message, u32_at, u64_at},
};

const NETLINK_SOCK_DIAG: NonZeroU32 = NonZeroU32::new(4).expect("4 is not zero");
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_CGROUP_ID: u16 = 21;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;
const NLA_F_NESTED: u16 = 1 << 15;

/// All states but LISTEN and those that have no socket of their own any more.
const STATES: u32 = 1 << state::ESTABLISHED
    | 1 << state::SYN_SENT
    | 1 << state::FIN_WAIT1
    | 1 << state::FIN_WAIT2
    | 1 << state::CLOSE_WAIT
    | 1 << state::LAST_ACK
    | 1 << state::CLOSING;

/// The size of `struct inet_diag_msg`.
const MESSAGE_BYTES: usize = 72;

/// What one read of the socket takes at the most.
const BUFFER_BYTES: usize = 256 << 10;

/// One live socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveSocket {
    /// As `ss -e` has it.
    pub cookie: u64,
    /// Local address and port.
    pub local: SocketAddr,
    /// Remote address and port.
    pub remote: SocketAddr,
    /// One of [`monitor_common::tcp::state`].
    pub state: u8,
    /// The cgroup that it was made in.
    pub cgroup_id: u64,
    /// `tcpi_rtt`
    pub srtt_us: u32,
    /// The kernel's counters, as far as `tcp_info` has them.
    pub reading: Reading,
    /// What the programs keep of it; `None` where they do not follow it.
    pub storage: Option<Socket>,
}

impl LiveSocket {
    /// What came on top of what the callbacks have folded.
    ///
    /// Only in the two states in which the counters hold no FIN that is not told
    /// by the storage; in the others callbacks come anyway.
    #[must_use]
    pub fn remainder(&self) -> Delta {
        let settled = matches!(self.state, state::ESTABLISHED | state::CLOSE_WAIT);
        match self.storage {
            Some(socket) if settled => {
                let mut stream: Stream = socket.stream;
                // Counters of 32 bits may be behind what was folded since.
                let behind = |now: u32, folded: u32| now.wrapping_sub(folded).cast_signed() < 0;
                let mut reading = self.reading;
                if behind(reading.segs_in, stream.folded_segs_in) {
                    reading.segs_in = stream.folded_segs_in;
                }
                if behind(reading.segs_out, stream.folded_segs_out) {
                    reading.segs_out = stream.folded_segs_out;
                }
                if behind(reading.total_retrans, stream.folded_retrans) {
                    reading.total_retrans = stream.folded_retrans;
                }
                stream.fold(&reading)
            }
            _ => Delta::default(),
        }
    }
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |source| KernelError::File {
        operation,
        path: "sock_diag".into(),
        source,
    }
}

/// Dumps the TCP sockets of this network namespace; with the storage of a map
/// where one is given, which takes `CAP_BPF` and `CAP_NET_ADMIN`.
pub(super) fn dump(storage: Option<&OwnedFd>) -> Result<Vec<LiveSocket>, KernelError> {
    let flags = SocketFlags::CLOEXEC;
    let protocol = Some(Protocol::from_raw(NETLINK_SOCK_DIAG));
    let netlink = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)
        .map_err(|e| failed("opening a netlink socket")(e.into()))?;
    let mut sockets = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    for family in [AF_INET, AF_INET6] {
        let request = request(family, storage);
        send(&netlink, &request, SendFlags::empty())
            .map_err(|e| failed("asking for the sockets")(e.into()))?;
        while read_answer(&netlink, &mut buffer, &mut sockets)? {}
    }
    Ok(sockets)
}

/// Reads one datagram; false where the dump has ended.
fn read_answer(
    netlink: &OwnedFd,
    buffer: &mut [u8],
    sockets: &mut Vec<LiveSocket>,
) -> Result<bool, KernelError> {
    let received = recv(netlink.as_fd(), &mut *buffer, RecvFlags::empty());
    let (len, _) = received.map_err(|e| failed("reading the sockets")(e.into()))?;
    for message in netlink::messages(&buffer[..len]) {
        match message.kind {
            netlink::DONE => return Ok(false),
            netlink::ERROR => {
                let errno = u32_at(message.body, 0).map_or(0, |e| -e.cast_signed());
                return Err(failed("dumping the sockets")(io::Error::from_raw_os_error(
                    errno,
                )));
            }
            _ => sockets.extend(parse(message.body)),
        }
    }
    Ok(len > 0)
}

fn request(family: u8, storage: Option<&OwnedFd>) -> Vec<u8> {
    let mut body = vec![0; 56];
    body[0] = family;
    body[1] = IPPROTO_TCP;
    body[2] = 1 << (INET_DIAG_INFO - 1);
    body[4..8].copy_from_slice(&STATES.to_ne_bytes());
    if let Some(map) = storage {
        let fd = map.as_raw_fd().to_ne_bytes();
        let nested = encode_attribute(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, &fd);
        body.extend(encode_attribute(
            INET_DIAG_REQ_SK_BPF_STORAGES | NLA_F_NESTED,
            &nested,
        ));
    }
    encode_message(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, &body)
}

fn parse(body: &[u8]) -> Option<LiveSocket> {
    let attributes = body.get(MESSAGE_BYTES..)?;
    let info = attribute(attributes, INET_DIAG_INFO)?;
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let family = body[0];
    let cookie = u64::from(u32_at(body, 44)?) | u64::from(u32_at(body, 48)?) << 32;
    let cgroup = attribute(attributes, INET_DIAG_CGROUP_ID).and_then(|v| u64_at(v, 0));
    Some(LiveSocket {
        cookie,
        local: (ip(family, body.get(8..24)?)?, port(4)?).into(),
        remote: (ip(family, body.get(24..40)?)?, port(6)?).into(),
        state: body[1],
        cgroup_id: cgroup.unwrap_or(0),
        srtt_us: u32_at(info, 68)?,
        reading: Reading {
            bytes_acked: u64_at(info, 120)?,
            bytes_received: u64_at(info, 128)?,
            segs_out: u32_at(info, 136)?,
            segs_in: u32_at(info, 140)?,
            total_retrans: u32_at(info, 100)?,
            ..Reading::default()
        },
        storage: storage(attributes),
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

fn storage(attributes: &[u8]) -> Option<Socket> {
    let storages = attribute(attributes, INET_DIAG_SK_BPF_STORAGES)?;
    let one = attribute(storages, SK_DIAG_BPF_STORAGE)?;
    let value = attribute(one, SK_DIAG_BPF_STORAGE_MAP_VALUE)?;
    if value.len() != size_of::<Socket>() {
        return None;
    }
    // SAFETY: as many bytes as the type has, which is plain old data: any bytes
    // are a value of it.
    Some(unsafe { value.as_ptr().cast::<Socket>().read_unaligned() })
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
        }
    }

    #[test]
    fn a_remainder_is_what_was_not_folded_and_never_negative() {
        let mut socket = Socket::default();
        socket.stream.flags = Stream::ACTIVE_OPEN | Stream::ESTABLISHED;
        socket.stream.folded_received = 40;
        socket.stream.folded_segs_in = 7;
        let address: SocketAddr = ([127, 0, 0, 1], 1).into();
        let live = LiveSocket {
            cookie: 1,
            local: address,
            remote: address,
            state: state::ESTABLISHED,
            cgroup_id: 1,
            srtt_us: 0,
            reading: Reading {
                bytes_received: 100,
                bytes_acked: 11,
                segs_in: 5,
                ..Reading::default()
            },
            storage: Some(socket),
        };
        let remainder = live.remainder();
        assert_eq!((remainder.bytes_received, remainder.bytes_sent), (60, 10));
        assert_eq!(remainder.packets_received, 0, "folded since the reading");
        let closing = LiveSocket {
            state: state::FIN_WAIT2,
            ..live
        };
        assert_eq!(closing.remainder(), Delta::default());
        assert_eq!(
            LiveSocket {
                storage: None,
                ..live
            }
            .remainder(),
            Delta::default()
        );
    }
}
