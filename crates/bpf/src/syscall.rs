//! The commands of `bpf(2)` that aya has no call for with cgroup links, and what no
//! crate has of network namespaces and of `membarrier(2)`.

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::Path,
};

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// `union bpf_attr` for `BPF_LINK_UPDATE`, as the UAPI has it.
#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// `union bpf_attr` for `BPF_LINK_DETACH`, as the UAPI has it.
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// `union bpf_attr` for `BPF_OBJ_GET`, as the UAPI has it.
#[repr(C)]
#[derive(Default)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<libc::c_long> {
    let size = size_of::<T>();
    // SAFETY: `attr` is a prefix of `union bpf_attr` of the given size, valid
    // for the call; the kernel reads it only.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Opens what is pinned at a path.
pub(crate) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjGet {
        pathname: path.as_ptr() as u64,
        ..ObjGet::default()
    };
    let fd = bpf(BPF_OBJ_GET, &attr)?;
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link in one step: nothing goes uncounted.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = LinkUpdate {
        link_fd: link.as_raw_fd().cast_unsigned(),
        new_prog_fd: program.as_raw_fd().cast_unsigned(),
        ..LinkUpdate::default()
    };
    bpf(BPF_LINK_UPDATE, &attr).map(drop)
}

/// Detaches a link at once; removing its pin alone would do so some time later.
/// Since Linux 5.9.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let attr = LinkDetach {
        link_fd: link.as_raw_fd().cast_unsigned(),
    };
    bpf(BPF_LINK_DETACH, &attr).map(drop)
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter_network_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a system call on a descriptor that is open for its time; it changes
    // the calling thread alone.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// What the programs call the network namespace of a socket.  Since Linux 5.14.
pub(crate) fn network_namespace_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut len: libc::socklen_t = 8;
    // SAFETY: the kernel writes no more bytes than `len` says `cookie` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(cookie)
    }
}

/// Waits until every program that runs now has ended: they run within read-side
/// critical sections of RCU, and the kernel waits for one grace period.
///
/// A kernel with `nohz_full` CPUs refuses.
pub(crate) fn wait_for_programs() -> io::Result<()> {
    // `MEMBARRIER_CMD_GLOBAL`, named so since Linux 4.16.
    const GLOBAL: libc::c_int = 1;
    // SAFETY: a system call without pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
