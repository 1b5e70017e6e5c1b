//! The filesystem that keeps maps and links alive.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::fs::statfs;

use crate::error::KernelError;

/// Of directories of pins: nobody else may look into them, hold a lock on them, or
/// put something there.
const PRIVATE: u32 = 0o700;

const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Where a bpffs belongs.
pub(crate) const MOUNT: &str = "/sys/fs/bpf";

/// Whether a path, or the nearest directory above it that exists, is on a
/// bpffs.
pub(crate) fn is_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find_map(|p| statfs(p).ok())
        .is_some_and(|s| s.f_type.cast_unsigned() == BPF_FS_MAGIC)
}

/// Makes a directory of pins, mounting the bpffs where it is missing, which takes
/// `CAP_SYS_ADMIN`.
///
/// # Errors
/// Where it cannot be mounted, the directory not be made, or others could change what
/// is in it.
pub fn make_dir(path: &Path) -> Result<(), KernelError> {
    if !is_bpffs(path) {
        mount(path)?;
    }
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE)
        .create(path);
    made.map_err(failed("making the directory of pins", path))?;
    check(path)
}

/// Takes from others what an agent before, or its umask, gave them of a directory of
/// ours.
pub(crate) fn make_private(path: &Path) -> Result<(), KernelError> {
    let failed = |source| failed("taking rights of others from", path)(source);
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.uid() != euid() || metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE)).map_err(failed)
}

/// Refuses a directory of pins that others could change, or could have made: up to
/// the filesystem's root, which may be sticky.
pub(crate) fn check(path: &Path) -> Result<(), KernelError> {
    let foreign = |dir: &Path, owner: u32, mode: u32| KernelError::Foreign {
        path: dir.to_owned(),
        owner,
        mode: mode & 0o7777,
    };
    for link in path.ancestors() {
        match fs::symlink_metadata(link) {
            Ok(of) if of.is_symlink() && !is_trusted(of.uid()) => {
                return Err(foreign(link, of.uid(), of.mode()));
            }
            _ => {}
        }
    }
    let real = fs::canonicalize(path).map_err(failed("looking at", path))?;
    for dir in real.ancestors().take_while(|dir| is_bpffs(dir)) {
        let of = fs::metadata(dir).map_err(failed("looking at", dir))?;
        let is_root = dir.parent().is_none_or(|parent| !is_bpffs(parent));
        let is_shared = of.mode() & WRITABLE_BY_OTHERS != 0;
        let is_sticky = of.mode() & STICKY != 0;
        if !is_trusted(of.uid()) || is_shared && !(is_root && is_sticky) {
            return Err(foreign(dir, of.uid(), of.mode()));
        }
    }
    Ok(())
}

/// Whether a directory belongs to this user.
pub(crate) fn is_own(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|metadata| metadata.uid() == euid())
}

fn euid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Root trusts the account that the agent's unit runs under, too: it looks at that
/// agent's pins and removes them.
fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == euid() || euid() == 0 && Some(owner) == account()
}

/// The account that the packages make.
const ACCOUNT: &str = "speedmimi-agent";

fn account() -> Option<u32> {
    uid_of(&fs::read_to_string("/etc/passwd").ok()?, ACCOUNT)
}

fn uid_of(passwd: &str, name: &str) -> Option<u32> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> KernelError {
    let path = path.to_owned();
    move |source| KernelError::File {
        operation,
        path: path.clone(),
        source,
    }
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
        // As systemd mounts it: by default anybody could make the directory before us.
        Some(c"mode=0700"),
    )
    .map_err(|errno| failed(errno.into()))?;
    tracing::info!(path = MOUNT, "mounted the BPF filesystem");
    Ok(())
}

/// Removes a directory of pins with all that is in it, and says how many there
/// were.  What is not there is no error.
pub(crate) fn remove_dir(path: &Path) -> Result<usize, KernelError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(failed("reading", path)(source)),
    };
    let mut removed = 0;
    let entries: Vec<fs::DirEntry> = entries
        .collect::<Result<_, _>>()
        .map_err(failed("reading", path))?;
    for entry in entries {
        let path = entry.path();
        // Of the entry itself: where a link leads is not ours.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            removed += remove_dir(&path)?;
        } else {
            fs::remove_file(&path).map_err(failed("removing the pin", &path))?;
            removed += 1;
        }
    }
    fs::remove_dir(path).map_err(failed("removing", path))?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd = "speedmimi-agent2:x:7:7::/:/bin/sh\nspeedmimi-agent:x:993:993::/:/x\n";
        assert_eq!(uid_of(passwd, "speedmimi-agent"), Some(993));
        assert_eq!(uid_of(passwd, "agent"), None);
        assert_eq!(uid_of("speedmimi-agent:x:none:", "speedmimi-agent"), None);
    }

    #[test]
    fn what_a_link_leads_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (pins, elsewhere) = (dir.path().join("pins"), dir.path().join("elsewhere"));
        for made in [pins.join("inner"), elsewhere.clone()] {
            fs::create_dir_all(made).unwrap();
        }
        fs::write(pins.join("inner/map"), "").unwrap();
        fs::write(elsewhere.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, pins.join("link")).unwrap();
        assert_eq!(remove_dir(&pins).unwrap(), 2);
        assert!(!pins.exists() && elsewhere.join("file").exists());
        assert_eq!(remove_dir(&pins).unwrap(), 0);
    }

    #[test]
    fn nothing_is_uninstalled_outside_a_bpffs() {
        let dir = tempfile::tempdir().unwrap();
        let map = dir.path().join("v1/target_ab/map");
        fs::create_dir_all(map.parent().unwrap()).unwrap();
        fs::write(&map, "").unwrap();
        let refused = crate::uninstall(dir.path()).unwrap_err();
        let said = daemon::error_chain(&refused);
        assert!(said.contains("nothing was removed"), "{said}");
        assert!(map.exists());
    }
}
