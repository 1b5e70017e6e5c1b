//! The directory in which a configuration's paths begin.
//!
//! What a container's proxy calls `/etc/nginx` is another directory than this
//! host's, and so are the targets of its symbolic links.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};

/// Where paths begin: this host's root unless told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root(Option<PathBuf>);

impl Root {
    /// The root of a configuration, and its path there.  It is that of the process
    /// through whose `/proc/PID/root` the path leads, or else the one given.
    #[must_use]
    pub fn of(path: &Path, given: Option<&Path>) -> (Self, PathBuf) {
        let around = given.filter(|root| path.starts_with(root));
        let Some(root) = around.or_else(|| of_process(path)).or(given) else {
            return (Self(None), path.to_owned());
        };
        let within = path.strip_prefix(root).unwrap_or(path);
        (Self(Some(root.to_owned())), Path::new("/").join(within))
    }

    /// What a path of the configuration is called on this host.
    #[must_use]
    pub fn on_host(&self, path: &Path) -> PathBuf {
        match &self.0 {
            None => path.to_owned(),
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        }
    }

    /// A file to be read.  A pipe without a writer would be waited for: it is not.
    pub(crate) fn file(&self, path: &Path) -> io::Result<File> {
        Ok(File::from(
            self.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?,
        ))
    }

    /// What kind of file there is, and since when.
    pub(crate) fn stat(&self, path: &Path) -> io::Result<Stat> {
        Ok(fstat(self.open(path, OFlags::PATH)?)?)
    }

    /// Whether a regular file is there.
    pub(crate) fn is_file(&self, path: &Path) -> bool {
        let kind = self.stat(path).map(|s| FileType::from_raw_mode(s.st_mode));
        kind.is_ok_and(|kind| kind == FileType::RegularFile)
    }

    /// The names in a directory.
    pub(crate) fn entries(&self, dir: &Path) -> io::Result<impl Iterator<Item = OsString>> {
        let dir = Dir::new(self.open(dir, OFlags::RDONLY | OFlags::DIRECTORY)?)?;
        let entries = dir.filter_map(Result::ok);
        Ok(entries.map(|entry| OsString::from_vec(entry.file_name().to_bytes().to_vec())))
    }

    fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = flags | OFlags::CLOEXEC;
        let Some(root) = &self.0 else {
            return openat(CWD, path, flags, Mode::empty());
        };
        // Anew each time: a container that was started again has another one.
        let at = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, root, at, Mode::empty())?;
        openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
    }
}

/// `/proc/PID/root` where a path leads through it.
#[must_use]
pub fn of_process(path: &Path) -> Option<&Path> {
    let mut parts = path.components();
    let mut part = || match parts.next()? {
        Component::Normal(name) => name.to_str(),
        _ => Some("/"),
    };
    let ["/", "proc", process, "root"] = [part()?, part()?, part()?, part()?] else {
        return None;
    };
    let is_process = process == "self" || process.bytes().all(|b| b.is_ascii_digit());
    let depth = path.components().count().checked_sub(4)?;
    is_process.then(|| path.ancestors().nth(depth))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_given_or_that_of_the_process() {
        let root = |path, given: Option<&str>| {
            let (root, within) = Root::of(Path::new(path), given.map(Path::new));
            let root = root.0.unwrap_or_default();
            (root.display().to_string(), within.display().to_string())
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(root("/etc/x", None), pair("", "/etc/x"));
        assert_eq!(root("x", None), pair("", "x"));
        let process = &format!("{}/etc/x", "/proc/12/root");
        assert_eq!(root(process, None), pair("/proc/12/root", "/etc/x"));
        assert_eq!(root("/proc/12/roots/x", None), pair("", "/proc/12/roots/x"));
        let other = &format!("{}/etc/x", "/proc/x/root");
        assert_eq!(root(other, None), pair("", other));
        for path in ["/c/etc/x", "/etc/x", "etc/x"] {
            assert_eq!(root(path, Some("/c")), pair("/c", "/etc/x"), "{path}");
        }
        assert_eq!(root(process, Some("/c")), pair("/proc/12/root", "/etc/x"));
    }

    #[test]
    fn links_stay_within_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        std::fs::create_dir_all(at("etc")).unwrap();
        std::fs::write(at("etc/real"), "in the root").unwrap();
        for (link, to) in [("a", "/etc/real"), ("b", "../../../../etc/real")] {
            std::os::unix::fs::symlink(to, at("etc").join(link)).unwrap();
        }
        let (root, _) = Root::of(Path::new("/x"), Some(dir.path()));
        for path in ["/etc/a", "/etc/b", "/../etc/real"] {
            let text = io::read_to_string(root.file(Path::new(path)).unwrap()).unwrap();
            assert_eq!(text, "in the root", "{path}");
        }
        assert!(!root.is_file(Path::new("/etc/passwd")));
        let mut names: Vec<_> = root.entries(Path::new("/etc")).unwrap().collect();
        names.retain(|name| !name.to_string_lossy().starts_with('.'));
        names.sort();
        assert_eq!(names, ["a", "b", "real"]);
        assert_eq!(root.on_host(Path::new("/etc/a")), at("etc/a"));
    }
}
