//! The Unix sockets of a network namespace by `sock_diag`: which of them listens
//! where, and which is connected to which.

use std::{collections::HashMap, io};

use rustix::net::SocketFlags;

use super::{
    conversation::Conversation,
    netlink::{attribute, u32_at},
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const AF_UNIX: u8 = 1;
const SOCK_STREAM: u8 = 1;
const SOCK_SEQPACKET: u8 = 5;
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_PEER: u16 = 2;
const UDIAG_SHOW_NAME: u32 = 1;
const UDIAG_SHOW_PEER: u32 = 4;

/// The sizes of `struct unix_diag_req` and of `struct unix_diag_msg`.
const REQUEST_BYTES: usize = 24;
const MESSAGE_BYTES: usize = 16;

/// What one read of the socket takes at the most.
const BUFFER_BYTES: usize = 64 << 10;

/// A host has far fewer.
const SOCKETS_MAX: usize = 200_000;

/// One Unix socket that a connection can be made over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// Whether it listens.
    pub listens: bool,
    /// Its own path, `@` in front of an abstract one; that of its listener where it
    /// was accepted.
    pub path: Option<String>,
    /// The inode of the socket at the other end.
    pub peer: Option<u64>,
}

/// The Unix sockets of the calling thread's network namespace, by inode.
///
/// # Errors
/// Where the kernel has no `unix_diag`.
pub fn unix_sockets() -> io::Result<HashMap<u64, UnixSocket>> {
    let netlink = Conversation::open(SocketFlags::CLOEXEC, 0)?;
    let mut found = HashMap::new();
    let states = 1u32 << ESTABLISHED | 1 << LISTEN;
    let mut request = [0; REQUEST_BYTES];
    request[0] = AF_UNIX;
    request[4..8].copy_from_slice(&states.to_ne_bytes());
    request[12..16].copy_from_slice(&(UDIAG_SHOW_NAME | UDIAG_SHOW_PEER).to_ne_bytes());
    let mut buffer = vec![0; BUFFER_BYTES];
    netlink.dump(SOCK_DIAG_BY_FAMILY, &request, &mut buffer, |body| {
        if found.len() < SOCKETS_MAX {
            found.extend(parse(body));
        }
    })?;
    Ok(found)
}

fn parse(body: &[u8]) -> Option<(u64, UnixSocket)> {
    let attributes = body.get(MESSAGE_BYTES..)?;
    let &[family, kind, state, ..] = body else {
        return None;
    };
    if family != AF_UNIX || !matches!(kind, SOCK_STREAM | SOCK_SEQPACKET) {
        return None;
    }
    let socket = UnixSocket {
        listens: state == LISTEN,
        path: attribute(attributes, UNIX_DIAG_NAME).and_then(path),
        peer: attribute(attributes, UNIX_DIAG_PEER)
            .and_then(|peer| u32_at(peer, 0))
            .map(u64::from),
    };
    Some((u32_at(body, 4)?.into(), socket))
}

/// Any process chooses its own, so what is no plain text is written as such.
fn path(name: &[u8]) -> Option<String> {
    let (mark, name) = match name {
        [0, rest @ ..] => ("@", rest),
        name => ("", name),
    };
    let text = String::from_utf8_lossy(name);
    let text = text.trim_end_matches('\0');
    (!text.is_empty()).then(|| format!("{mark}{}", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_one_line_of_text() {
        assert_eq!(path(b"/run/a.sock\0").unwrap(), "/run/a.sock");
        assert_eq!(path(b"\0b").unwrap(), "@b");
        assert_eq!(path(b"/x\n\x1b[2J").unwrap(), "/x\\n\\u{1b}[2J");
        assert_eq!(path(b""), None);
    }

    proptest! {
        #[test]
        fn hostile_answers_give_nothing_or_a_socket(
            bytes in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let path = parse(&bytes).and_then(|(_, socket)| socket.path);
            prop_assert!(path.is_none_or(|path| !path.contains(char::is_control)));
        }
    }
}
