//! A root file system that a test may change: a layer over the one that was built.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use tempfile::TempDir;

use super::Built;

/// It is gone with its value.
pub(crate) struct Root {
    layers: TempDir,
    mounted: Vec<PathBuf>,
}

impl Root {
    pub(crate) fn over(built: &Built) -> Self {
        let layers = TempDir::with_prefix("speedmimi-root-").unwrap();
        for name in ["upper", "work", "root"] {
            fs::create_dir(layers.path().join(name)).unwrap();
        }
        let mut root = Self {
            layers,
            mounted: Vec::new(),
        };
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            built.path("root").display(),
            root.layers.path().join("upper").display(),
            root.layers.path().join("work").display(),
        );
        let options = std::ffi::CString::new(options).unwrap();
        let path = root.path("");
        mount(
            "overlay",
            &path,
            "overlay",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .unwrap();
        root.mounted.push(path);
        let proc = root.path("proc");
        mount("proc", &proc, "proc", MountFlags::empty(), None).unwrap();
        root.mounted.push(proc);
        let sys = root.path("sys");
        mount("sysfs", &sys, "sysfs", MountFlags::RDONLY, None).unwrap();
        root.mounted.push(sys);
        let packages = root.path("packages");
        fs::create_dir(&packages).unwrap();
        mount_bind(&built.directory, &packages).unwrap();
        root.mounted.push(packages);
        root
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.layers.path().join("root").join(relative)
    }

    /// A shell's command in it.
    pub(crate) fn command(&self, script: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.path(""));
        command.args(["/bin/sh", "-euc", script]);
        command.env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C.UTF-8");
        command
    }

    /// What a command prints; it must succeed.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> String {
        let output = self.command(script).output().unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(
            output.status.success(),
            "{script}: {}\n{out}{err}",
            output.status
        );
        out.trim_end().to_owned()
    }

    /// Every path that is there, without what package managers keep for themselves.
    pub(crate) fn paths(&self) -> BTreeSet<String> {
        let all =
            self.run("find / -xdev -not -path '/packages*' -not -path '/proc*' -not -path '/sys*'");
        let kept = [
            "/var/lib/dpkg/",
            "/var/log/",
            "/var/cache/",
            // Gone with the next boot.
            "/run/",
            "/tmp",
            "/etc/.pwd.lock",
        ];
        all.lines()
            .filter(|path| !kept.iter().any(|kept| path.starts_with(kept)))
            // What is written of accounts has copies of the time before.
            .filter(|path| !(path.starts_with("/etc/") && path.ends_with('-')))
            .map(str::to_owned)
            .collect()
    }

    /// Installs the packages of a build.
    pub(crate) fn install(&self, build: &str) {
        self.run(&format!(
            "dpkg --install --force-confold /packages/{build}/*.deb"
        ));
    }

    /// The versions of the packages that are installed.
    pub(crate) fn versions(&self) -> BTreeSet<String> {
        let list = self.run("dpkg-query -W -f '${Status} ${Version}\\n' 'speedmimi-*'");
        let installed = list
            .lines()
            .filter_map(|line| line.strip_prefix("install ok installed "));
        installed.map(str::to_owned).collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for path in self.mounted.iter().rev() {
            unmount(path.as_path(), UnmountFlags::DETACH).ok();
        }
    }
}

/// The names of a directory's files, in order.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
