//! Asking in the network namespace of a process.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::Path,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Asks for the sockets there.
pub(super) fn in_network_of<T: Send + 'static>(
    process: &Path,
    ask: fn() -> io::Result<T>,
) -> io::Result<T> {
    let namespace = File::open(process.join("ns/net"))?;
    let own = fs::metadata("/proc/self/ns/net")?;
    if namespace.metadata()?.ino() == own.ino() {
        return ask();
    }
    // A thread that is in another namespace stays there: one for this alone.
    let there = move || {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind)?;
        ask()
    };
    let joined = thread::Builder::new().spawn(there)?.join();
    joined.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}
