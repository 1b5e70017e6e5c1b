//! What happens to packages: installed, used, upgraded, downgraded, removed, purged.

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Command},
    time::Duration,
};

use testkit::{eventually, http};

use super::{Built, Case, PACKAGES, root::Root};

pub(crate) const CASES: &[Case] = &[
    (
        "installed_used_removed_and_purged",
        installed_used_removed_and_purged,
    ),
    ("upgraded_and_downgraded", upgraded_and_downgraded),
    ("rpms_are_installed_and_removed", rpms),
];

/// A daemon that is started in a root and ends with the test.
struct Daemon(Child);

impl Daemon {
    fn start(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
    }
}

/// The collector as its unit starts it.
fn collector(root: &Root) -> Daemon {
    let user =
        "exec setpriv --reuid=speedmimi-collector --regid=speedmimi-collector --clear-groups";
    let run = "speedmimi-collector run --config /etc/speedmimi/collector.toml";
    let daemon = Daemon::start(root.command(&format!("{user} {run}")));
    eventually("the collector answers", Duration::from_secs(30), || {
        http::get_json("127.0.0.1:7601".parse().unwrap(), "/api/v1/hosts").ok()
    });
    daemon
}

fn installed_used_removed_and_purged(built: &Built) {
    let root = Root::over(built);
    let before = root.paths();
    root.install("new");
    assert_eq!(root.versions().len(), 1);

    for user in PACKAGES {
        let account = root.run(&format!("getent passwd {user}"));
        assert!(account.ends_with("/usr/sbin/nologin"), "{account}");
    }
    for program in [
        "speedmimi",
        "speedmimi-agent",
        "speedmimi-collector",
        "speedmimi-proxy",
    ] {
        let version = root.run(&format!("{program} --version"));
        assert!(version.starts_with(&format!("{program} ")), "{version}");
        assert!(!root.run(&format!("man --pager=cat {program}")).is_empty());
    }
    root.run("systemd-analyze verify --man=yes /lib/systemd/system/speedmimi-*.service");
    root.run("speedmimi-proxy check --config /etc/speedmimi/proxy.yaml");
    let state = "install -d -o speedmimi-collector -g speedmimi-collector -m 700 /var/lib/speedmimi-collector";
    root.run(state);
    let running = collector(&root);
    let hosts: serde_json::Value =
        serde_json::from_str(&root.run("speedmimi hosts --output json")).unwrap();
    assert_eq!(hosts["hosts"], serde_json::json!([]), "{hosts}");
    running.stop();

    root.run("dpkg --remove speedmimi-agent speedmimi-collector speedmimi-proxy");
    let left: BTreeSet<_> = root.paths().difference(&before).cloned().collect();
    for kept in [
        "/etc/speedmimi/agent.toml",
        "/etc/speedmimi/collector.toml",
        "/etc/speedmimi/proxy.yaml",
        "/var/lib/speedmimi-collector/collector.db",
    ] {
        assert!(left.contains(kept), "{kept} is not among {left:?}");
    }
    assert!(
        !left.iter().any(|path| path.starts_with("/usr/bin/")),
        "{left:?}"
    );

    root.run("dpkg --purge speedmimi-agent speedmimi-collector speedmimi-proxy");
    let left: BTreeSet<_> = root.paths().difference(&before).cloned().collect();
    assert_eq!(left, BTreeSet::new());
}

/// What an operator changed and what was collected stays, in both directions.
fn upgraded_and_downgraded(built: &Built) {
    let root = Root::over(built);
    root.install("old");
    let old = root.versions();
    let config = root.path("etc/speedmimi/collector.toml");
    let changed = "retention-age = \"7d\"\n";
    fs::write(&config, changed).unwrap();
    root.run("install -d -o speedmimi-collector -g speedmimi-collector -m 700 /var/lib/speedmimi-collector");
    collector(&root).stop();
    let token = fs::read_to_string(root.path("var/lib/speedmimi-collector/token")).unwrap();
    let account = root.run("getent passwd speedmimi-collector");

    root.install("new");
    let new = root.versions();
    assert_ne!(new, old);
    let unchanged = || {
        assert_eq!(fs::read_to_string(&config).unwrap(), changed);
        collector(&root).stop();
        let now = fs::read_to_string(root.path("var/lib/speedmimi-collector/token")).unwrap();
        assert_eq!(now, token);
        assert_eq!(root.run("getent passwd speedmimi-collector"), account);
    };
    unchanged();
    root.install("old");
    assert_eq!(root.versions(), old);
    unchanged();
}

/// By rpm's own tools; a system of RPMs cannot be had from Debian's archive.
fn rpms(built: &Built) {
    let root = Root::over(built);
    let before = root.paths();
    let rpm = |arguments: &[&str]| {
        let mut rpm = Command::new("rpm");
        rpm.arg("--root")
            .arg(root.path(""))
            .args(["--dbpath", "/var/cache/rpm"]);
        let output = rpm.args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "rpm {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut files = Vec::new();
    for name in super::root::names(&built.path("new")) {
        if name.ends_with(".rpm") {
            files.push(
                built
                    .path("new")
                    .join(name)
                    .into_os_string()
                    .into_string()
                    .unwrap(),
            );
        }
    }
    assert_eq!(files.len(), PACKAGES.len());
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    // What they need is there, but this system's rpm does not know it.
    rpm(&[&["--install", "--nodeps"], files.as_slice()].concat());
    for user in PACKAGES {
        root.run(&format!("getent passwd {user}"));
        root.run(&format!("{user} --version"));
    }
    root.run("systemd-analyze verify --man=yes /usr/lib/systemd/system/speedmimi-*.service");
    let needs = rpm(&["--query", "--requires", "speedmimi-agent"]);
    assert!(needs.contains("libc.so.6(GLIBC_"), "{needs}");
    let configs = rpm(&[
        "--query",
        "--configfiles",
        PACKAGES[0],
        PACKAGES[1],
        PACKAGES[2],
    ]);
    let expected =
        "/etc/speedmimi/agent.toml\n/etc/speedmimi/collector.toml\n/etc/speedmimi/proxy.yaml\n";
    assert_eq!(configs, expected);
    // The scripts of a system with systemd are the ones that run.
    rpm(&["--erase", PACKAGES[0], PACKAGES[1], PACKAGES[2]]);
    let left: BTreeSet<_> = root.paths().difference(&before).cloned().collect();
    assert_eq!(left, BTreeSet::new());
}
