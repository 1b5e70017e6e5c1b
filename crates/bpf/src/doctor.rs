//! What the kernel offers, one check a requirement.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya::{Ebpf, EbpfLoader, maps::Map, util::KernelVersion};
use monitor_common::http::FEW_PARTS;

use crate::{
    capabilities,
    error::{KernelError, hint},
    loader::attach,
    object::{self, PARTS_MAX, Program, maps},
    pins::bpffs,
    sockdiag::Diag,
};

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is required.
    pub name: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// Whether the agent cannot do without.
    pub required: bool,
    /// What was found.
    pub detail: String,
    /// What to do; empty where nothing is to be done.
    pub advice: String,
}

/// The oldest kernel that is supported.
const FLOOR: (u8, u8) = (5, 15);

/// RHEL 9's kernel has what 5.15 has.
const FLOOR_RHEL: (u8, u8) = (5, 14);

/// Checks everything that the agent needs from this kernel.
#[must_use]
pub fn checks(pin_dir: &Path) -> Vec<Check> {
    let (programs, sockets) = programs();
    vec![
        kernel(),
        capabilities_check(),
        speculation(),
        bpffs_check(pin_dir),
        programs,
        sockets_check(sockets.as_ref()),
    ]
}

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rhel = release.contains(".el9");
    let (major, minor) = if rhel { FLOOR_RHEL } else { FLOOR };
    let ok = KernelVersion::current().is_ok_and(|v| v >= KernelVersion::new(major, minor, 0));
    Check {
        name: "kernel",
        ok,
        required: true,
        detail: format!("Linux {}", release.trim()),
        advice: if ok {
            String::new()
        } else {
            format!("Linux {major}.{minor} or newer is needed")
        },
    }
}

fn capabilities_check() -> Check {
    let missing = capabilities::missing();
    Check {
        name: "capabilities",
        ok: missing.is_none(),
        required: true,
        detail: missing
            .as_ref()
            .map_or("CAP_BPF and CAP_NET_ADMIN".into(), |m| format!("lacks {m}")),
        advice: missing.map_or(String::new(), |m| {
            format!(
                "run it as root, or in the unit: AmbientCapabilities={}",
                m.replace(" and ", " ")
            )
        }),
    }
}

/// Whether the kernel lets the programs run without fences.
fn speculation() -> Check {
    let ok = capabilities::has_perfmon();
    let (detail, advice) = if ok {
        ("CAP_PERFMON", "")
    } else {
        (
            "lacks CAP_PERFMON: the kernel fences the programs off from speculation",
            "a packet costs up to six times as much, requests that are pipelined or follow an \
             early answer may be missed, and before Linux 6.18 the kernel may take the \
             programs of level tcp alone; in the unit: AmbientCapabilities=CAP_PERFMON",
        )
    };
    Check {
        name: "speculation",
        ok,
        required: false,
        detail: detail.to_owned(),
        advice: advice.to_owned(),
    }
}

fn bpffs_check(pin_dir: &Path) -> Check {
    let ok = bpffs::is_bpffs(pin_dir);
    if let Err(error @ KernelError::Foreign { .. }) = bpffs::check(pin_dir) {
        return Check {
            name: "bpffs",
            ok: false,
            required: true,
            detail: error.to_string(),
            advice: String::new(),
        };
    }
    Check {
        name: "bpffs",
        ok,
        // The agent mounts it where it may.
        required: false,
        detail: format!(
            "{} is {}on a BPF filesystem",
            pin_dir.display(),
            if ok { "" } else { "not " }
        ),
        advice: if ok {
            String::new()
        } else {
            format!(
                "mount -t bpf -o mode=0700 bpf {} (`run` does it where it may)",
                bpffs::MOUNT
            )
        },
    }
}

/// Loads every program, attaches none, and leaves nothing but the map of the
/// sockets' storage, for the check after it.
fn programs() -> (Check, Option<OwnedFd>) {
    let check = |ok, required, detail: String, advice: String| Check {
        name: "programs",
        ok,
        required,
        detail,
        advice,
    };
    let mut refused_heads = None;
    for parts in object::parts(PARTS_MAX) {
        let (mut ebpf, refused) = match loaded(parts) {
            Ok(loaded) => loaded,
            Err(error) => return (check(false, true, chain(&error), advice()), None),
        };
        let check = match (refused, &refused_heads) {
            (Some(error), None) if parts > FEW_PARTS && error.is_of_verifier() => {
                refused_heads = Some(error);
                continue;
            }
            (Some(error), _) => check(
                false,
                false,
                format!("those of level http are refused: {}", chain(&error)),
                "run it with --level tcp, or give it CAP_PERFMON".into(),
            ),
            (None, Some(error)) => check(
                false,
                false,
                format!(
                    "those that read heads of HTTP to their ends are refused: {}",
                    chain(error)
                ),
                "pipelined requests and those behind an early response may be missed, and how TLS \
                 handshakes end is unknown; a newer kernel accepts them"
                    .into(),
            ),
            (None, None) => check(
                true,
                true,
                "all of them pass the verifier".into(),
                String::new(),
            ),
        };
        let storage = match ebpf.take_map(maps::SOCKETS) {
            Some(Map::SkStorage(map)) => map.fd().as_fd().try_clone_to_owned().ok(),
            _ => None,
        };
        return (check, storage);
    }
    let none = "there is no program to try".to_owned();
    (check(false, true, none, String::new()), None)
}

/// Has the kernel verify every program that reads so many parts of a segment; says why
/// those of level http are refused, where they are.
fn loaded(parts: u32) -> Result<(Ebpf, Option<KernelError>), KernelError> {
    let mut ebpf = EbpfLoader::new()
        .override_global(object::PARTS, &parts, true)
        .load(object::OBJECT)
        .map_err(|source| KernelError::Load {
            hint: hint(),
            source: Box::new(source),
        })?;
    let mut refused = None;
    for program in Program::each(parts) {
        match attach::load(&mut ebpf, program) {
            Err(error) if program.is_of_http() => refused = Some(error),
            other => other?,
        }
    }
    Ok((ebpf, refused))
}

/// The live sockets, with what the programs keep of them.
fn sockets_check(storage: Option<&OwnedFd>) -> Check {
    let mut sockets = Vec::new();
    let dumped = Diag::open().and_then(|diag| diag.live(storage.as_slice(), &mut sockets));
    let check = |ok, detail, advice: &str| Check {
        name: "sockets",
        ok,
        // Without it what connections carry is counted when they end.
        required: false,
        detail,
        advice: advice.to_owned(),
    };
    match dumped {
        Ok(()) if storage.is_some() => check(
            true,
            format!("sock_diag tells of {} live connections", sockets.len()),
            "",
        ),
        Ok(()) => check(
            false,
            "sock_diag answers; without the programs the rest cannot be tried".to_owned(),
            "first see to the programs",
        ),
        Err(error) => check(
            false,
            chain(&error),
            "the kernel needs CONFIG_INET_DIAG and CONFIG_INET_TCP_DIAG (modules inet_diag and \
             tcp_diag); without them older connections and live bytes are not counted",
        ),
    }
}

/// What the programs are made of, as the kernel's configuration names it.
const CONFIG: [&str; 4] = [
    "CONFIG_BPF_SYSCALL",
    "CONFIG_BPF_JIT",
    "CONFIG_CGROUP_BPF",
    "CONFIG_INET",
];

const STILL_WORKS: &str = "what is pinned already can still be read by `snapshot` and `top`";

/// What to change: what the kernel's configuration lacks, where it can be read.
fn advice() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let config = fs::read_to_string(format!("/boot/config-{}", release.trim()));
    let lacking = config.map(|text| lacking(&text)).unwrap_or_default();
    if lacking.is_empty() {
        format!("the kernel needs {}; {STILL_WORKS}", CONFIG.join(", "))
    } else {
        format!("the kernel lacks {}; {STILL_WORKS}", lacking.join(", "))
    }
}

fn lacking(config: &str) -> Vec<&'static str> {
    let set = |name: &str| {
        let on = format!("{name}=y");
        config.lines().any(|line| line == on)
    };
    CONFIG.into_iter().filter(|name| !set(name)).collect()
}

/// An error with its sources, on one line of bounded length.
fn chain(error: &dyn std::error::Error) -> String {
    let line: String = daemon::error_chain(error)
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(400)
        .collect();
    line
}

#[cfg(test)]
mod tests {
    use super::lacking;

    #[test]
    fn what_a_kernel_was_built_without_is_named() {
        let config = "CONFIG_BPF_SYSCALL=y\n# CONFIG_BPF_JIT is not set\nCONFIG_INET=y\n\
            CONFIG_CGROUP_BPF_X=y\n";
        assert_eq!(lacking(config), ["CONFIG_BPF_JIT", "CONFIG_CGROUP_BPF"]);
    }
}
