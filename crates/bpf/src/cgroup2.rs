//! The tree of cgroups: where it is mounted, and what is below a cgroup.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Where cgroup2 is mounted, as this process sees it.
#[must_use]
pub fn mount() -> Option<PathBuf> {
    mount_in(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// Finds the cgroup2 mount in the text of `/proc/self/mountinfo`: usually
/// `/sys/fs/cgroup`, on hybrid systems `/sys/fs/cgroup/unified`.
///
/// A mount whose root is not the hierarchy's (a container's view of its own
/// part) is taken only where there is no other.
fn mount_in(mountinfo: &str) -> Option<PathBuf> {
    let mounts: Vec<_> = mountinfo.lines().filter_map(root_and_point).collect();
    let whole = mounts.iter().find(|(root, _)| *root == "/");
    let (_, point) = whole.or(mounts.first())?;
    Some(unescape(point).into())
}

/// The root and the mount point of a cgroup2 line, as proc(5) has its fields.
fn root_and_point(line: &str) -> Option<(&str, &str)> {
    let (fields, filesystem) = line.split_once(" - ")?;
    let mut fields = fields.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    (filesystem.split(' ').next() == Some("cgroup2")).then_some((root, point))
}

/// Spaces and the like are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.as_bytes();
    while let Some((&first, rest)) = bytes.split_first() {
        let digits = rest.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        let octal = digits.and_then(|d| u8::from_str_radix(d, 8).ok());
        match octal {
            Some(byte) if first == b'\\' => {
                out.push(byte);
                bytes = &rest[3..];
            }
            _ => {
                out.push(first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A cgroup and all below it, each with its id: the inode of its directory.
pub(crate) fn cgroups(path: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut paths = vec![path.to_owned()];
    while let Some(path) = paths.pop() {
        // A cgroup that goes away meanwhile has no sockets of its own to adopt.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        let entries = fs::read_dir(&path).into_iter().flatten().flatten();
        let is_dir = |e: &fs::DirEntry| e.file_type().is_ok_and(|t| t.is_dir());
        paths.extend(entries.filter(is_dir).map(|entry| entry.path()));
        found.push((path, metadata.ino()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unified_and_hybrid_mounts_are_found() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            mount_in(unified).as_deref(),
            Some(Path::new("/sys/fs/cgroup"))
        );
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            41 31 0:38 /sub /mnt/part\\040of rw - cgroup2 cgroup2 rw\n\
            42 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let found = mount_in(hybrid);
        assert_eq!(found.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let part = "41 31 0:38 /sub /mnt/part\\040of rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_in(part).as_deref(), Some(Path::new("/mnt/part of")));
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "([0-9]{0,3} ){0,4}[/\\\\0-9é]{0,12}( - cgroup2)? .{0,30}") {
            if let Some(path) = mount_in(&text) {
                prop_assert!(text.contains(" - cgroup2"), "{}", path.display());
            }
        }
    }
}
