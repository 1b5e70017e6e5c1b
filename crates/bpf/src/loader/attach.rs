//! Attaching programs, and replacing those that an agent before attached.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, AsRawFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, ProgramError,
        SockOps, links::FdLink,
    },
};

use crate::{
    error::{KernelError, hint},
    object::Program,
    pins::Pins,
    syscall,
};

fn failed(operation: &'static str, program: Program) -> impl Fn(ProgramError) -> KernelError {
    move |source| KernelError::Program {
        operation,
        program: program.name(),
        hint: hint(),
        source: Box::new(source),
    }
}

/// Loads a program into the kernel, where the verifier judges it.
pub(crate) fn load(ebpf: &mut Ebpf, program: Program) -> Result<(), KernelError> {
    let missing = KernelError::Missing {
        kind: "program",
        name: program.name(),
    };
    let loaded = ebpf.program_mut(program.name()).ok_or(missing)?;
    let result = match program {
        Program::SocketEvents(_) => <&mut SockOps>::try_from(loaded).and_then(SockOps::load),
        Program::Connect4 | Program::Connect6 => {
            <&mut CgroupSockAddr>::try_from(loaded).and_then(CgroupSockAddr::load)
        }
        Program::Release => <&mut CgroupSock>::try_from(loaded).and_then(CgroupSock::load),
        Program::Ingress(_) | Program::Egress(_) => {
            <&mut CgroupSkb>::try_from(loaded).and_then(CgroupSkb::load)
        }
    };
    result.map_err(failed("loading", program))
}

/// Attaches a loaded program to a cgroup and pins the link; where one is pinned
/// its program is replaced in one step.
pub(crate) fn attach(
    ebpf: &mut Ebpf,
    program: Program,
    cgroup: &File,
    pins: &Pins,
) -> Result<(), KernelError> {
    let pin = pins.path(program.link());
    if pin.exists() {
        return replace(ebpf, program, &pin);
    }
    let link = link(ebpf, program, cgroup).map_err(failed("attaching", program))?;
    link.pin(&pin)
        .map_err(|source| KernelError::Pin {
            path: pin,
            source: Box::new(source),
        })
        .map(drop)
}

fn link(ebpf: &mut Ebpf, program: Program, cgroup: &File) -> Result<FdLink, ProgramError> {
    // Links always stand beside those of others; the flag that says so is for
    // attachments without a link, and refused here.
    let mode = CgroupAttachMode::Single;
    let Some(loaded) = ebpf.program_mut(program.name()) else {
        return Err(ProgramError::NotLoaded);
    };
    let link = match program {
        Program::SocketEvents(_) => {
            let loaded: &mut SockOps = loaded.try_into()?;
            let id = loaded.attach(cgroup, mode)?;
            loaded.take_link(id)?.try_into()
        }
        Program::Connect4 | Program::Connect6 => {
            let loaded: &mut CgroupSockAddr = loaded.try_into()?;
            let id = loaded.attach(cgroup, mode)?;
            loaded.take_link(id)?.try_into()
        }
        Program::Release => {
            let loaded: &mut CgroupSock = loaded.try_into()?;
            let id = loaded.attach(cgroup, mode)?;
            loaded.take_link(id)?.try_into()
        }
        Program::Ingress(_) | Program::Egress(_) => {
            let direction = if matches!(program, Program::Ingress(_)) {
                CgroupSkbAttachType::Ingress
            } else {
                CgroupSkbAttachType::Egress
            };
            let loaded: &mut CgroupSkb = loaded.try_into()?;
            let id = loaded.attach(cgroup, direction, mode)?;
            loaded.take_link(id)?.try_into()
        }
    };
    // Only kernels before 5.7 make links without a descriptor.
    link.map_err(|_error| ProgramError::NotLoaded)
}

fn replace(ebpf: &Ebpf, program: Program, pin: &Path) -> Result<(), KernelError> {
    let file = |operation| {
        let path = pin.to_owned();
        move |source| KernelError::File {
            operation,
            path,
            source,
        }
    };
    let link = syscall::obj_get(pin).map_err(file("opening the pinned link"))?;
    let fd = ebpf
        .program(program.name())
        .ok_or(ProgramError::NotLoaded)
        .and_then(|p| p.fd())
        .map_err(failed("replacing", program))?;
    syscall::link_update(link.as_fd(), fd.as_fd()).map_err(file("replacing the program of"))
}

/// Detaches every program of a target, whatever its link is called, so that the
/// pins can be removed: without their links, programs would go on for some time.
pub(crate) fn detach_all(pins: &Pins) {
    for path in pins.paths() {
        if let Ok(pinned) = syscall::obj_get(&path) {
            // Of a map it is refused, and nothing is to be done.
            let _refused = syscall::link_detach(pinned.as_fd());
        }
    }
}

/// What the links to a cgroup that is gone are called.
const LEFT: &str = "left_";

/// Leaves the links to a cgroup that was removed to the sockets that outlive it: the
/// kernel detaches them with the last of these, and until then their ends count.
pub(crate) fn leave(pins: &Pins, cgroup_id: u64) -> Result<(), KernelError> {
    for link in Program::links() {
        let path = pins.path(link);
        let left = pins.path(&format!("{LEFT}{cgroup_id:x}_{link}"));
        match fs::rename(&path, left) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(KernelError::File {
                    operation: "renaming the pin",
                    path,
                    source,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes the pins of links that were left and that the kernel has detached since.
pub(crate) fn forget_detached(pins: &Pins) {
    let is_left = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(LEFT))
    };
    for path in pins.paths().into_iter().filter(is_left) {
        let attached = syscall::obj_get(&path).is_ok_and(|link| is_attached(&link));
        if !attached && let Err(error) = fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "a link that was left stays pinned");
        }
    }
}

/// A link without its cgroup tells the id 0.
fn is_attached(link: &impl AsRawFd) -> bool {
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()));
    let told = told.unwrap_or_default();
    let id = told
        .lines()
        .find_map(|line| line.strip_prefix("cgroup_id:"));
    id.is_some_and(|id| id.trim() != "0")
}

/// Detaches a program and removes its link's pin; says whether there was one.
pub(crate) fn detach(program: Program, pins: &Pins) -> Result<bool, KernelError> {
    let path = pins.path(program.link());
    let file = |operation| {
        let path = path.clone();
        move |source| KernelError::File {
            operation,
            path,
            source,
        }
    };
    if !path.exists() {
        return Ok(false);
    }
    let link = syscall::obj_get(&path).map_err(file("opening the pinned link"))?;
    syscall::link_detach(link.as_fd()).map_err(file("detaching"))?;
    fs::remove_file(&path).map_err(file("removing the pin"))?;
    Ok(true)
}
