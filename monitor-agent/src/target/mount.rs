//! Where cgroup2 is mounted.

use std::path::PathBuf;

/// Finds the cgroup2 mount in the text of `/proc/self/mountinfo`: usually
/// `/sys/fs/cgroup`, on hybrid systems `/sys/fs/cgroup/unified`.
///
/// A mount whose root is not the hierarchy's (a container's view of its own
/// part) is taken only where there is no other.
#[must_use]
pub fn cgroup2_mount(mountinfo: &str) -> Option<PathBuf> {
    let mounts: Vec<_> = mountinfo.lines().filter_map(mount).collect();
    let whole = mounts.iter().find(|(root, _)| *root == "/");
    let (_, point) = whole.or(mounts.first())?;
    Some(unescape(point).into())
}

/// The root and the mount point of a cgroup2 line, as proc(5) has its fields.
fn mount(line: &str) -> Option<(&str, &str)> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    #[test]
    fn unified_and_hybrid_mounts_are_found() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(
            cgroup2_mount(unified).as_deref(),
            Some(Path::new("/sys/fs/cgroup"))
        );
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            41 31 0:38 /sub /mnt/part\\040of rw - cgroup2 cgroup2 rw\n\
            42 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let found = cgroup2_mount(hybrid);
        assert_eq!(found.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        let part = "41 31 0:38 /sub /mnt/part\\040of rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            cgroup2_mount(part).as_deref(),
            Some(Path::new("/mnt/part of"))
        );
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "([0-9]{0,3} ){0,4}[/\\\\0-9é]{0,12}( - cgroup2)? .{0,30}") {
            if let Some(path) = cgroup2_mount(&text) {
                prop_assert!(text.contains(" - cgroup2"), "{}", path.display());
            }
        }
    }
}
