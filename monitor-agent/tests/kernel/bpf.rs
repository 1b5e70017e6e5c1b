//! What a test says to `bpf(2)` itself.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const OBJ_GET: libc::c_int = 7;
const LINK_CREATE: libc::c_int = 28;
const PROG_TYPE_SOCK_OPS: u32 = 13;
const CGROUP_SOCK_OPS: u32 = 3;

#[repr(C)]
pub(crate) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

pub(crate) const fn instruction(
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
) -> Instruction {
    Instruction {
        code,
        registers,
        offset,
        immediate,
    }
}

/// `union bpf_attr` for `BPF_PROG_LOAD`, as far as it is needed.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u64; 2],
    rest: [u32; 2],
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

/// The same for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    fds: [i32; 2],
    attach_type: u32,
    flags: u32,
}

/// The same for `BPF_OBJ_GET`.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    rest: [u32; 2],
}

/// The same for an element of a map.
#[repr(C)]
struct Element {
    map: i32,
    key: u64,
    value: u64,
    flags: u64,
}

fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<i32> {
    let size = size_of::<T>();
    // SAFETY: a prefix of `union bpf_attr` of the given size, which the kernel reads.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(result).unwrap())
}

fn made<T>(command: libc::c_int, attr: &T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to a cgroup, behind those that are there; it goes with the
/// descriptor.
pub(crate) fn attach_sock_ops(program: &[Instruction], cgroup: &File) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let load = ProgLoad {
        prog_type: PROG_TYPE_SOCK_OPS,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log: [0; 2],
        rest: [0; 2],
        name: [0; 16],
        ifindex: 0,
        expected_attach_type: CGROUP_SOCK_OPS,
    };
    let loaded = made(PROG_LOAD, &load)?;
    let link = LinkCreate {
        fds: [loaded.as_raw_fd(), cgroup.as_raw_fd()],
        attach_type: CGROUP_SOCK_OPS,
        flags: 0,
    };
    made(LINK_CREATE, &link)
}

/// A pinned map of keys `K` and words of 32 bits.
pub(crate) struct PinnedMap<K> {
    map: OwnedFd,
    _keys: std::marker::PhantomData<K>,
}

impl<K> PinnedMap<K> {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        let get = ObjGet {
            pathname: path.as_ptr() as u64,
            rest: [0; 2],
        };
        Ok(Self {
            map: made(OBJ_GET, &get)?,
            _keys: std::marker::PhantomData,
        })
    }

    fn element(&self, key: &K, value: *mut u32) -> Element {
        Element {
            map: self.map.as_raw_fd(),
            key: std::ptr::from_ref(key) as u64,
            value: value as u64,
            flags: 0,
        }
    }

    pub(crate) fn get(&self, key: &K) -> io::Result<u32> {
        let mut value = 0;
        bpf(MAP_LOOKUP_ELEM, &self.element(key, &raw mut value))?;
        Ok(value)
    }

    pub(crate) fn set(&self, key: &K, mut value: u32) -> io::Result<()> {
        bpf(MAP_UPDATE_ELEM, &self.element(key, &raw mut value)).map(drop)
    }
}
