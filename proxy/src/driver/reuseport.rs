//! Leading new connections to a newer process on the same port.
//!
//! The kernel spreads connections over all listeners of a port by a hash. A
//! process that is about to stop would go on getting its share until it closes,
//! and whatever is in its queue at that moment is reset. So it attaches a
//! classic BPF program of one instruction, which chooses the first listener that
//! is not its own; then it empties its queue at leisure.
//!
//! The listeners of a port are numbered in the order in which they came, and
//! those of the older process come first. A number that does not exist has the
//! kernel fall back to the hash, so without a newer process nothing changes.
//! Linux 4.6 and newer attach, 5.3 and newer detach.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, RawFd};

/// `BPF_RET | BPF_K`: the constant is the answer.
const RETURN_CONSTANT: u16 = 0x06;

/// Has new connections of this port go to the listener with this number.
///
/// # Errors
/// The kernel's, where it does not know how.
pub fn redirect(listener: &TcpListener, number: usize) -> io::Result<()> {
    let number = u32::try_from(number).map_err(|_| io::ErrorKind::InvalidInput)?;
    set_program(listener, libc::SO_ATTACH_REUSEPORT_CBPF, number)
}

/// Attaches the program whose only answer is `k`.
fn set_program(listener: &TcpListener, option: libc::c_int, k: u32) -> io::Result<()> {
    let mut program = [libc::sock_filter {
        code: RETURN_CONSTANT,
        jt: 0,
        jf: 0,
        k,
    }];
    let descriptor = libc::sock_fprog {
        len: 1,
        filter: program.as_mut_ptr(),
    };
    set(listener.as_raw_fd(), option, &descriptor)
}

/// Has the kernel choose by its hash again, and closes this listener. A client
/// that the hash leads here in between is not heard, and its kernel knocks again
/// after a second.
///
/// # Errors
/// The kernel's, where it does not know how or nothing is attached.
pub fn restore(listener: TcpListener) -> io::Result<()> {
    const SO_DETACH_REUSEPORT_BPF: libc::c_int = 68;
    const NOTHING: u32 = 0;
    set_program(&listener, libc::SO_ATTACH_FILTER, NOTHING)?;
    let detached = set(listener.as_raw_fd(), SO_DETACH_REUSEPORT_BPF, &0_i32);
    drop(listener);
    detached
}

fn set<T>(socket: RawFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let bytes = u32::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open for the caller holds its listener, `value`
    // points to `bytes` readable bytes of the type that the option takes, and
    // the kernel copies them (and the program they point to, which the caller
    // keeps alive) before it returns.
    let done = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            bytes,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
