//! Network namespaces of a test's own, and what it sets and reads in them.

use std::{
    fs, io,
    net::UdpSocket,
    os::fd::{AsRawFd, OwnedFd},
};

use libtest_mimic::Failed;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Runs on a thread in a network of its own, whose loopback interface is up.
pub(crate) fn in_own_network<T: Send>(
    work: impl FnOnce() -> Result<T, Failed> + Send,
) -> Result<T, Failed> {
    let apart = || {
        leave_the_network()?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(apart).join().unwrap())
}

/// Moves the calling thread into a network namespace of its own.
pub(crate) fn leave_the_network() -> io::Result<()> {
    // SAFETY: changes the calling thread alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The loopback interface of a new namespace is down.
    let any = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: plain old data, of which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request outlives the call, which only reads it.
    let set = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A TCP socket over IPv4, neither bound nor connected.
pub(crate) fn tcp_socket() -> io::Result<OwnedFd> {
    let (family, flags) = (AddressFamily::INET, SocketFlags::CLOEXEC);
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

/// Sets a number below `net.ipv4` in the calling thread's network.
pub(crate) fn set_ipv4(name: &str, value: i32) -> io::Result<()> {
    fs::write(format!("/proc/sys/net/ipv4/{name}"), value.to_string())
}

/// A count of the calling thread's network, by the name that `nstat` has.
pub(crate) fn nstat(name: &str) -> io::Result<u64> {
    let tables = ["snmp", "netstat"].map(|file| format!("/proc/thread-self/net/{file}"));
    for table in tables {
        let text = fs::read_to_string(table)?;
        let mut lines = text.lines();
        while let (Some(names), Some(counts)) = (lines.next(), lines.next()) {
            let (group, names) = names.split_once(": ").unwrap();
            let mut names = names.split(' ').map(|of| format!("{group}{of}"));
            if let Some(at) = names.position(|of| of == name) {
                return Ok(counts.split(' ').nth(at + 1).unwrap().parse().unwrap());
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, name))
}

/// Sets an option of a socket that is a number.
pub(crate) fn set_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the kernel reads an int from a place that outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
