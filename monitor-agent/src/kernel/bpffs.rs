//! The filesystem that keeps maps and links alive.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::statfs;

use super::KernelError;

const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Where a bpffs belongs.
pub(super) const MOUNT: &str = "/sys/fs/bpf";

/// Whether a path, or the nearest directory above it that exists, is on a
/// bpffs.
pub(super) fn is_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find_map(|p| statfs(p).ok())
        .is_some_and(|s| s.f_type.cast_unsigned() == BPF_FS_MAGIC)
}

/// Makes a directory of pins, mounting the bpffs where it is missing, which takes
/// `CAP_SYS_ADMIN`.
///
/// # Errors
/// Where it cannot be mounted, or the directory not be made.
pub fn make_dir(path: &Path) -> Result<(), KernelError> {
    if !is_bpffs(path) {
        mount(path)?;
    }
    fs::create_dir_all(path).map_err(|source| KernelError::File {
        operation: "making the directory of pins",
        path: path.to_owned(),
        source,
    })
}

fn mount(path: &Path) -> Result<(), KernelError> {
    let failed = |source| KernelError::NoBpffs {
        path: path.to_owned(),
        source,
    };
    if !path.starts_with(MOUNT) {
        return Err(failed(io::Error::other(format!("it is not below {MOUNT}"))));
    }
    rustix::mount::mount(
        "bpf",
        MOUNT,
        "bpf",
        rustix::mount::MountFlags::empty(),
        None,
    )
    .map_err(|errno| failed(errno.into()))?;
    tracing::info!(path = MOUNT, "mounted the BPF filesystem");
    Ok(())
}

/// Removes a directory of pins with all that is in it, and says how many there
/// were.  What is not there is no error.
pub(super) fn remove_dir(path: &Path) -> Result<usize, KernelError> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| KernelError::File {
            operation,
            path,
            source,
        }
    };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(failed("reading", path)(source)),
    };
    let mut removed = 0;
    let paths: Vec<PathBuf> = entries
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed("reading", path))?
        .into_iter()
        .map(|entry| entry.path())
        .collect();
    for entry in paths {
        if entry.is_dir() {
            removed += remove_dir(&entry)?;
        } else {
            fs::remove_file(&entry).map_err(failed("removing the pin", &entry))?;
            removed += 1;
        }
    }
    fs::remove_dir(path).map_err(failed("removing", path))?;
    Ok(removed)
}
