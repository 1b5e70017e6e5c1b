//! A netlink socket: what the kernel says, and of a dump the answers to it alone.
//!
//! A dump that was cut short leaves answers in the socket, an end among them, which
//! would be taken for those of the next one; and any process may send a message to
//! any netlink socket.

use std::{
    cell::Cell,
    io,
    num::NonZeroU32,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname,
    netlink::SocketAddrNetlink, recvfrom, send, socket_with,
};

use super::netlink::{self, Message, encode_message, u32_at};

const NETLINK_SOCK_DIAG: NonZeroU32 = NonZeroU32::new(4).expect("4 is not zero");
const NLM_F_REQUEST_DUMP: u16 = 0x301;

/// Where the kernel's messages come from.
const KERNEL: u32 = 0;

/// A socket of `NETLINK_SOCK_DIAG`, in the network namespace of the thread that
/// opened it.
#[derive(Debug)]
pub(crate) struct Conversation {
    socket: OwnedFd,
    port: u32,
    sequence: Cell<u32>,
}

impl AsFd for Conversation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The port that a netlink address names.
fn port(address: impl TryInto<SocketAddrNetlink>) -> Option<u32> {
    address.try_into().ok().map(|address| address.pid())
}

impl Conversation {
    /// Opens one that is told what goes to these groups, if any.
    pub(crate) fn open(flags: SocketFlags, groups: u32) -> io::Result<Self> {
        let protocol = Some(Protocol::from_raw(NETLINK_SOCK_DIAG));
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        let port = port(getsockname(&socket)?);
        Ok(Self {
            socket,
            port: port.ok_or_else(|| io::Error::other("a netlink socket without a port"))?,
            sequence: Cell::new(0),
        })
    }

    /// One datagram of the kernel.
    pub(crate) fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        loop {
            let (len, _, sender) = recvfrom(&self.socket, &mut *buffer, RecvFlags::empty())?;
            if sender.and_then(port) == Some(KERNEL) {
                return Ok(&buffer[..len]);
            }
        }
    }

    /// Asks for a dump and hands out the body of each answer.
    pub(crate) fn dump(
        &self,
        kind: u16,
        body: &[u8],
        buffer: &mut [u8],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let sequence = self.ask(kind, body)?;
        loop {
            let datagram = self.receive(buffer)?;
            if !self.take(sequence, datagram, &mut each)? {
                return Ok(());
            }
        }
    }

    /// Asks for a dump, and says by which number its answers are known.
    fn ask(&self, kind: u16, body: &[u8]) -> io::Result<u32> {
        self.sequence.set(self.sequence.get().wrapping_add(1));
        let sequence = self.sequence.get();
        let request = encode_message(kind, NLM_F_REQUEST_DUMP, sequence, body);
        send(&self.socket, &request, SendFlags::empty())?;
        Ok(sequence)
    }

    /// Takes one datagram; false where the dump has ended.
    fn take(
        &self,
        sequence: u32,
        datagram: &[u8],
        each: &mut impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        let ours = |m: &Message<'_>| m.sequence == sequence && m.port == self.port;
        for message in netlink::messages(datagram).filter(ours) {
            match message.kind {
                netlink::DONE => return Ok(false),
                netlink::ERROR => {
                    let errno = u32_at(message.body, 0).map_or(0, u32::cast_signed);
                    return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
                }
                _ => each(message.body),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::net::sendto;

    use super::*;

    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const IPPROTO_TCP: u8 = 6;
    const AF_INET: u8 = 2;

    /// A question for the TCP sockets in these states.
    fn question(states: u32) -> [u8; 56] {
        let mut body = [0; 56];
        (body[0], body[1]) = (AF_INET, IPPROTO_TCP);
        body[4..8].copy_from_slice(&states.to_ne_bytes());
        body
    }

    #[test]
    fn answers_to_another_question_and_of_another_sender_are_passed_over() {
        let _listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let asked = Conversation::open(SocketFlags::CLOEXEC, 0).unwrap();
        // Nobody is in no state: the answer is an end, which is left unread.
        asked.ask(SOCK_DIAG_BY_FAMILY, &question(0)).unwrap();
        // Nor is what somebody else says an end, though it names the next question.
        let other = Conversation::open(SocketFlags::CLOEXEC, 0).unwrap();
        let mut end = encode_message(netlink::DONE, 0, asked.sequence.get() + 1, &[]);
        end[12..16].copy_from_slice(&asked.port.to_ne_bytes());
        let to = SocketAddrNetlink::new(asked.port, 0);
        sendto(&other, &end, SendFlags::empty(), &to).unwrap();
        let mut found = 0;
        let (listening, mut buffer) = (1 << 10, vec![0; 1 << 16]);
        let dumped = asked.dump(
            SOCK_DIAG_BY_FAMILY,
            &question(listening),
            &mut buffer,
            |_| found += 1,
        );
        dumped.unwrap();
        assert!(found > 0, "the listener is told of");
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error() {
        let asked = Conversation::open(SocketFlags::CLOEXEC, 0).unwrap();
        let mut buffer = [0; 4096];
        let unknown = question(0).map(|_| 255);
        let refused = asked.dump(SOCK_DIAG_BY_FAMILY, &unknown, &mut buffer, |_| ());
        assert!(refused.is_err());
    }
}
