//! A process with a root of its own, as in a container.

use std::{fs, os::unix::fs::symlink, path::Path, sync::mpsc::channel, thread};

use monitor_common::endpoint::Role;
use rustix::{
    process::{chroot, getpid},
    thread::{CapabilitySet, UnshareFlags, capabilities, gettid, unshare_unsafe},
};
use tempfile::TempDir;

use super::{Case, called, kept, names};

pub(crate) const CASES: &[Case] = &[(
    "a_path_through_a_process_leads_to_its_files_and_their_links",
    through_a_process,
)];

pub(crate) fn missing() -> Option<String> {
    let own = capabilities(None).unwrap().effective;
    let needed = CapabilitySet::SYS_CHROOT | CapabilitySet::SYS_PTRACE;
    (!own.contains(needed)).then(|| "CAP_SYS_CHROOT and CAP_SYS_PTRACE are not granted".to_owned())
}

fn through_a_process() {
    let dir = TempDir::new().unwrap();
    let etc = dir.path().join("etc/nginx");
    for part in ["conf.d", "sites-available", "sites-enabled"] {
        fs::create_dir_all(etc.join(part)).unwrap();
    }
    for name in ["nginx.conf", "conf.d/app.conf"] {
        let text = kept(&format!("rootfs/etc/nginx/{name}"));
        fs::write(etc.join(name), text).unwrap();
    }
    let linked = "server { listen 25406; server_name linked.test; }";
    fs::write(etc.join("sites-available/b"), linked).unwrap();
    symlink("/etc/nginx/sites-available/b", etc.join("sites-enabled/b")).unwrap();

    let (root, (tell, told), (end, ended)) = (dir.path().to_owned(), channel(), channel::<()>());
    let thread = thread::spawn(move || {
        // SAFETY: a thread that shares its root with no other changes no other's.
        unsafe { unshare_unsafe(UnshareFlags::FS) }.unwrap();
        chroot(&root).unwrap();
        tell.send(gettid()).unwrap();
        ended.recv().ok();
    });
    let id = told.recv().unwrap();
    assert_ne!(id, getpid());
    let path = Path::new("/proc").join(id.to_string()).join("root");
    let names = names(&path.join("etc/nginx/nginx.conf"));
    for (port, name) in [(25_405, "in-container.test"), (25_406, "linked.test")] {
        let listener = called(&names, Role::Downstream, ([10, 0, 0, 1], port).into());
        assert_eq!(listener.name, name);
    }
    let peer = called(&names, Role::Upstream, ([127, 0, 0, 1], 25_404).into());
    assert_eq!(peer.upstream, "127.0.0.1:25404");
    drop(end);
    thread.join().unwrap();
}
