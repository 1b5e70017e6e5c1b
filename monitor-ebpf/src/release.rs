//! A process lets go of a socket.

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};
use monitor_common::tcp::Stream;

use crate::maps;

/// Runs before TCP closes the socket: a connection attempt that ends now was
/// aborted, not unreachable.
#[cgroup_sock(sock_release)]
pub fn release(ctx: SockContext) -> i32 {
    if let Some(socket) = maps::socket(ctx.sock) {
        // Written without the socket's lock, so only where no callback can be
        // writing the same word to any effect: before the handshake is done.
        if !socket.stream.has(Stream::ESTABLISHED) {
            socket.stream.flags |= Stream::RELEASED;
        }
    }
    1
}
