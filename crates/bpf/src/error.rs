//! What can go wrong with the kernel, and what to do about it.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, pin::PinError, programs::ProgramError};

/// An operation on programs, maps or pins failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The directory of pins is on no bpffs, and none could be mounted.
    #[error(
        "{path} is not on a BPF filesystem, which keeps the counters while the agent is down; \
         mount one with: mount -t bpf -o mode=0700 bpf /sys/fs/bpf"
    )]
    NoBpffs {
        /// The directory.
        path: PathBuf,
        /// Why it could not be mounted.
        source: io::Error,
    },
    /// Others could change what is pinned there.
    #[error(
        "{path} belongs to user {owner} with mode {mode:04o}, so that others could change what is \
         pinned there; it must be root's or this user's, and writable by nobody else: remove it, \
         or give another --pin-dir"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// A file operation failed.
    #[error("{operation} {path}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another agent holds the target.
    #[error("another agent watches {label} (it holds {path})")]
    Busy {
        /// The target.
        label: String,
        /// Its pins.
        path: PathBuf,
    },
    /// An agent that runs holds what is to be removed.
    #[error("an agent that runs watches {label} (it holds {path}); stop it first")]
    Held {
        /// The target.
        label: String,
        /// Its pins.
        path: PathBuf,
    },
    /// What is to be removed is not there.
    #[error(
        "nothing is pinned for {label} below {path}; nothing was removed; pinned are: {}",
        if pinned.is_empty() { "none".to_owned() } else { pinned.join(", ") }
    )]
    NotPinned {
        /// The target.
        label: String,
        /// The directory of pins.
        path: PathBuf,
        /// The targets that are there.
        pinned: Vec<String>,
    },
    /// The object could not be loaded.
    #[error("loading the kernel programs: {hint}")]
    Load {
        /// What to do.
        hint: String,
        /// Why not.
        source: Box<EbpfError>,
    },
    /// A program was refused or could not be attached.
    #[error("{operation} the program {program}: {hint}")]
    Program {
        /// What was tried.
        operation: &'static str,
        /// Which one.
        program: &'static str,
        /// What to do.
        hint: String,
        /// Why not.
        source: Box<ProgramError>,
    },
    /// A map could not be made, read or written.
    #[error("{operation} the map {map}")]
    Map {
        /// What was tried.
        operation: &'static str,
        /// Which one.
        map: &'static str,
        /// Why not.
        source: Box<MapError>,
    },
    /// Something could not be pinned.
    #[error("pinning {path}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: Box<PinError>,
    },
    /// The object lacks what the agent expects.
    #[error("the kernel object has no {kind} {name}; `cargo xtask build-ebpf` makes a new one")]
    Missing {
        /// A program or a map.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// Pins of another machine configuration.
    #[error(
        "the pins below {path} were made for {pinned} CPUs, this machine has {present}; remove \
         them with: speedmimi-agent uninstall"
    )]
    CpuCount {
        /// The pins.
        path: PathBuf,
        /// CPUs then.
        pinned: u32,
        /// CPUs now.
        present: u32,
    },
    /// Whether anything is pinned there cannot be seen.
    #[error(
        "{path}: permission denied; pins are open to the user alone that the agent runs as: run \
         this as root, or as that user with CAP_BPF"
    )]
    Denied {
        /// What cannot be read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nothing is pinned there.
    #[error(
        "nothing is counted: there are no pins below {path}; start one with: speedmimi-agent run"
    )]
    NoPins {
        /// The directory.
        path: PathBuf,
    },
}

impl KernelError {
    /// Whether the kernel's verifier has refused a program, or tired of it.
    pub(crate) fn is_of_verifier(&self) -> bool {
        let Self::Program { source, .. } = self else {
            return false;
        };
        let ProgramError::LoadError { io_error, .. } = &**source else {
            return false;
        };
        // It says so by several numbers; this one is for who may not load any.
        io_error.raw_os_error() != Some(libc::EPERM)
    }
}

impl KernelError {
    /// Of a target that is to be removed, not watched.
    pub(crate) fn into_held(self) -> Self {
        match self {
            Self::Busy { label, path } => Self::Held { label, path },
            other => other,
        }
    }
}

/// Why a map did not take what was asked of it.
pub(crate) fn failed(
    operation: &'static str,
    map: &'static str,
) -> impl Fn(MapError) -> KernelError {
    move |source| KernelError::Map {
        operation,
        map,
        source: Box::new(source),
    }
}

/// What a refusal by the kernel most likely means.
pub(crate) fn hint() -> String {
    match crate::capabilities::missing() {
        Some(missing) => {
            format!("this process lacks {missing}; run it as root or grant these capabilities")
        }
        None => "run `speedmimi-agent doctor` to see what the kernel lacks".to_owned(),
    }
}
