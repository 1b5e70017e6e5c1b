use tempfile::TempDir;
use window::ContainerNames;

use super::*;

/// A made-up machine: cgroups, and processes in them.
struct Machine {
    _dir: TempDir,
    roots: Roots,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let roots = Roots {
            host: base.join("host"),
            proc: base.join("proc"),
            cgroup: base.join("cgroup"),
        };
        let machine = Self { _dir: dir, roots };
        machine.cgroup("", &[]);
        machine
    }

    fn cgroup(&self, path: &str, pids: &[u32]) {
        let dir = self.roots.cgroup.join(path);
        fs::create_dir_all(&dir).unwrap();
        let lines: String = pids.iter().map(|p| format!("{p}\n")).collect();
        fs::write(dir.join("cgroup.procs"), lines).unwrap();
    }

    fn process(&self, pid: u32, parent: u32, program: &str, cgroup: &str) {
        let dir = self.roots.proc.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("stat"), format!("{pid} (a) b) S {parent} 1 1")).unwrap();
        fs::write(dir.join("comm"), format!("{program}\n")).unwrap();
        fs::write(dir.join("cgroup"), format!("4:memory:/x\n0::{cgroup}\n")).unwrap();
        std::os::unix::fs::symlink(format!("/bin/{program}"), dir.join("exe")).unwrap();
    }

    fn host_file(&self, path: &str, text: &str) {
        let path = self.roots.host.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn resolve(&self, request: &TargetRequest) -> Result<Vec<Target>, TargetError> {
        let resolved = resolve(request, &self.roots)?;
        match resolved.awaited.into_iter().next() {
            Some(missing) => Err(missing),
            None => Ok(resolved.targets),
        }
    }

    fn labels(&self, request: &TargetRequest) -> Vec<String> {
        let targets = self.resolve(request).unwrap();
        targets.iter().map(|t| t.label.to_string()).collect()
    }
}

fn cgroups(paths: &[&str]) -> TargetRequest {
    TargetRequest {
        cgroups: paths.iter().map(PathBuf::from).collect(),
        ..TargetRequest::default()
    }
}

fn pid(pid: u32, force: bool) -> TargetRequest {
    TargetRequest {
        pids: vec![pid],
        force,
        ..TargetRequest::default()
    }
}

#[test]
fn a_cgroup_is_named_from_the_mount_or_in_full() {
    let machine = Machine::new();
    machine.cgroup("web/a", &[]);
    let full = machine.roots.cgroup.join("web/a");
    for path in ["web/a", "/web/a", full.to_str().unwrap(), "web/../web/a"] {
        assert_eq!(machine.labels(&cgroups(&[path])), ["/web/a"]);
    }
    let twice = machine.labels(&cgroups(&["web/a", "/web/a"]));
    assert_eq!(twice, ["/web/a"], "the same one twice is one");
}

#[test]
fn what_is_no_cgroup_of_this_mount_is_refused() {
    let machine = Machine::new();
    fs::create_dir(machine.roots.cgroup.join("plain")).unwrap();
    for path in ["missing", "plain", "../proc"] {
        let error = machine.resolve(&cgroups(&[path])).unwrap_err();
        assert!(
            matches!(error, TargetError::NoCgroup { .. }),
            "{path}: {error}"
        );
    }
}

#[test]
fn the_whole_host_must_be_asked_for_by_name() {
    let machine = Machine::new();
    let root = machine.resolve(&cgroups(&["/"]));
    assert!(matches!(root, Err(TargetError::Root(_))));
    let nothing = machine.resolve(&TargetRequest::default());
    assert!(matches!(nothing, Err(TargetError::Nothing)));
    let whole = TargetRequest {
        whole_host: true,
        ..TargetRequest::default()
    };
    assert_eq!(machine.labels(&whole), ["/"]);
}

#[test]
fn a_target_within_another_is_refused() {
    let machine = Machine::new();
    for path in ["web", "web/a", "web-b"] {
        machine.cgroup(path, &[]);
    }
    let nested = machine.resolve(&cgroups(&["web", "web/a"]));
    assert!(matches!(nested, Err(TargetError::Nested { .. })));
    assert_eq!(
        machine.labels(&cgroups(&["web-b", "web"])),
        ["/web", "/web-b"]
    );
}

#[test]
fn a_server_s_master_and_workers_share_their_cgroup_rightly() {
    let machine = Machine::new();
    machine.cgroup("web", &[10, 11, 12]);
    machine.process(1, 0, "init", "/");
    machine.process(10, 1, "nginx", "/web");
    machine.process(11, 10, "nginx", "/web");
    machine.process(12, 10, "nginx", "/web");
    for one in [10, 11] {
        assert_eq!(machine.labels(&pid(one, false)), ["/web"], "{one}");
    }
}

#[test]
fn a_process_among_strangers_is_refused_unless_forced() {
    let machine = Machine::new();
    machine.cgroup("session", &[10, 20]);
    machine.cgroup("session/below", &[30]);
    machine.process(10, 1, "nginx", "/session");
    machine.process(20, 1, "bash", "/session");
    machine.process(30, 1, "cron", "/session/below");
    let error = machine.resolve(&pid(10, false)).unwrap_err().to_string();
    assert!(
        error.contains("bash (20)") && error.contains("cron (30)"),
        "{error}"
    );
    assert_eq!(machine.labels(&pid(10, true)), ["/session"]);
}

#[test]
fn a_process_in_the_root_cgroup_is_refused_unless_forced() {
    let machine = Machine::new();
    machine.process(10, 1, "nginx", "/");
    let refused = machine.resolve(&pid(10, false));
    assert!(matches!(refused, Err(TargetError::Shared { .. })));
    assert_eq!(machine.labels(&pid(10, true)), ["/"]);
    let gone = machine.resolve(&pid(99, false));
    assert!(matches!(gone, Err(TargetError::Process { pid: 99, .. })));
}

#[test]
fn a_unit_is_found_wherever_it_is_and_must_be_one() {
    let machine = Machine::new();
    machine.cgroup("system.slice/nginx.service", &[]);
    let unit = |name: &str| TargetRequest {
        units: vec![name.to_owned()],
        ..TargetRequest::default()
    };
    for name in ["nginx", "nginx.service"] {
        assert_eq!(machine.labels(&unit(name)), ["/system.slice/nginx.service"]);
    }
    let missing = machine.resolve(&unit("haproxy"));
    assert!(matches!(missing, Err(TargetError::NoUnit { .. })));
    machine.cgroup("user.slice/nginx.service", &[]);
    let many = machine.resolve(&unit("nginx"));
    assert!(matches!(many, Err(TargetError::ManyUnits { .. })));
}

#[test]
fn a_target_is_called_the_same_when_its_cgroup_is_gone() {
    let machine = Machine::new();
    machine.cgroup("web.slice/a.service", &[]);
    let mount = machine.roots.cgroup.clone();
    for gone in [false, true] {
        if gone {
            fs::remove_dir_all(mount.join("web.slice")).unwrap();
        }
        for path in [
            "web.slice/a.service".into(),
            "/web.slice/a.service/".into(),
            mount.join("web.slice/a.service"),
        ] {
            let label = machine.roots.label_of(&path);
            assert_eq!(label, "/web.slice/a.service", "{path:?}");
        }
    }
    assert_eq!(machine.roots.label_of(Path::new("/")), "/");
}

#[test]
fn what_is_missing_keeps_nothing_else_from_being_found() {
    let machine = Machine::new();
    machine.cgroup("web", &[]);
    let request = TargetRequest {
        units: vec!["nonexistent".to_owned()],
        pids: vec![99],
        ..cgroups(&["web"])
    };
    let resolved = resolve(&request, &machine.roots).unwrap();
    assert_eq!(resolved.targets.len(), 1);
    assert!(resolved.awaited.iter().all(TargetError::may_come));
    assert_eq!(resolved.awaited.len(), 2);
    let bad = TargetRequest {
        units: vec!["nonexistent".to_owned()],
        ..cgroups(&["/"])
    };
    assert!(matches!(
        resolve(&bad, &machine.roots),
        Err(TargetError::Root(_))
    ));
}

const IDS: [&str; 3] = [
    "4f1b0c9d5e6a7b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e",
    "5f1b0c9d5e6a7b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e",
    "6f1b0c9d5e6a7b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e",
];

fn containers(patterns: &[&str]) -> TargetRequest {
    TargetRequest {
        containers: patterns.iter().map(|p| p.parse().unwrap()).collect(),
        ..TargetRequest::default()
    }
}

fn pods(patterns: &[&str]) -> TargetRequest {
    TargetRequest {
        pods: patterns.iter().map(|p| p.parse().unwrap()).collect(),
        ..TargetRequest::default()
    }
}

#[test]
fn containers_are_found_by_their_names_and_ids() {
    let machine = Machine::new();
    let docker = format!("system.slice/docker-{}.scope", IDS[0]);
    let podman = format!("machine.slice/libpod-{}.scope", IDS[1]);
    machine.cgroup(&docker, &[]);
    machine.cgroup(&format!("{docker}/init"), &[]);
    machine.cgroup(&podman, &[]);
    machine.cgroup(&format!("{podman}/container"), &[]);
    machine.cgroup("lxc.payload.mail", &[]);
    machine.host_file(
        &format!("var/lib/docker/containers/{}/config.v2.json", IDS[0]),
        r#"{"ID":"x","Name":"/web-1","Config":{"Image":"nginx"}}"#,
    );
    let storage = format!(r#"[{{"id":"{}","names":["web-2"],"layer":"x"}}]"#, IDS[1]);
    machine.host_file(
        "var/lib/containers/storage/overlay-containers/containers.json",
        &storage,
    );
    let names_of = |label: &str| {
        let target = machine
            .roots
            .target(&machine.roots.cgroup.join(label))
            .unwrap();
        let mut names = RunningNames::default();
        assert_eq!(names.of(&target), ContainerNames::default());
        names.follow(std::slice::from_ref(&target), &machine.roots.host);
        names.of(&target)
    };
    let named = |name: &str| ContainerNames {
        name: name.to_owned(),
        ..ContainerNames::default()
    };
    assert_eq!(names_of(&docker), named("web-1"));
    assert_eq!(names_of(&podman), named("web-2"));
    assert_eq!(names_of("lxc.payload.mail"), named(""));
    let (docker, podman) = (format!("/{docker}"), format!("/{podman}"));
    let lxc = "/lxc.payload.mail".to_owned();
    for (pattern, expected) in [
        ("web-1", vec![&docker]),
        ("web-2", vec![&podman]),
        ("web-?", vec![&podman, &docker]),
        ("{web-1,mail}", vec![&lxc, &docker]),
        ("*", vec![&lxc, &podman, &docker]),
        (&IDS[0][..12], vec![&docker]),
        (IDS[1], vec![&podman]),
    ] {
        let labels = machine.labels(&containers(&[pattern]));
        assert_eq!(labels.iter().collect::<Vec<_>>(), expected, "{pattern}");
    }
    for pattern in ["web", "web-3", &IDS[0][..11], "x"] {
        let error = machine.resolve(&containers(&[pattern])).unwrap_err();
        assert!(error.may_come());
        assert_eq!(
            error.to_string(),
            format!("no container {pattern} runs here")
        );
    }
    machine.cgroup("system.slice", &[]);
    // What is named as a cgroup is watched as it is named, and once.
    let both = TargetRequest {
        cgroups: vec!["system.slice".into()],
        ..containers(&["*"])
    };
    assert_eq!(machine.labels(&both), [&*lxc, &*podman, "/system.slice"]);
}

#[test]
fn pods_are_found_by_namespace_and_name_with_both_drivers() {
    let machine = Machine::new();
    let uids = [
        "8d5c1c3a-0b1f-4f0e-9d3a-2f6f3a1b4c5d",
        "9d5c1c3a-0b1f-4f0e-9d3a-2f6f3a1b4c5d",
    ];
    let systemd = format!(
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
        uids[0].replace('-', "_")
    );
    let cgroupfs = format!("kubepods/besteffort/pod{}", uids[1]);
    for id in &IDS[..2] {
        machine.cgroup(&format!("{systemd}/cri-containerd-{id}.scope"), &[]);
    }
    machine.cgroup(&systemd, &[]);
    machine.cgroup(&cgroupfs, &[]);
    machine.cgroup(&format!("{cgroupfs}/{}", IDS[2]), &[]);
    for (pod, uid) in [("ingress_nginx-7c", uids[0]), ("web_shop-1", uids[1])] {
        machine.host_file(&format!("var/log/pods/{pod}_{uid}/0.log"), "");
    }
    for (file, id) in [
        ("nginx-7c_ingress_controller", IDS[0]),
        ("nginx-7c_ingress_pause", IDS[1]),
        ("shop-1_web_app", IDS[2]),
    ] {
        machine.host_file(&format!("var/log/containers/{file}-{id}.log"), "");
    }
    let (systemd, cgroupfs) = (format!("/{systemd}"), format!("/{cgroupfs}"));
    let paths = [
        systemd.clone(),
        format!("{systemd}/cri-containerd-{}.scope", IDS[0]),
        "/system.slice".to_owned(),
    ];
    machine.cgroup("system.slice", &[]);
    let targets = paths.map(|path| {
        let below = path.trim_start_matches('/');
        machine
            .roots
            .target(&machine.roots.cgroup.join(below))
            .unwrap()
    });
    let mut names = RunningNames::default();
    names.follow(&targets, &machine.roots.host);
    let found = targets.map(|target| {
        let names = names.of(&target);
        [names.namespace, names.pod, names.name]
    });
    assert_eq!(
        found,
        [
            ["ingress", "nginx-7c", ""],
            ["ingress", "nginx-7c", "controller"],
            ["", "", ""],
        ]
    );
    for (pattern, expected) in [
        ("ingress/nginx-*", vec![&systemd]),
        ("web/shop-1", vec![&cgroupfs]),
        ("*/*", vec![&systemd, &cgroupfs]),
    ] {
        let labels = machine.labels(&pods(&[pattern]));
        assert_eq!(labels.iter().collect::<Vec<_>>(), expected, "{pattern}");
    }
    let controller = format!("{systemd}/cri-containerd-{}.scope", IDS[0]);
    assert_eq!(machine.labels(&containers(&["controller"])), [&*controller]);
    // A container within a pod that is watched belongs to it.
    let both = TargetRequest {
        containers: containers(&["controller", "app"]).containers,
        ..pods(&["ingress/*"])
    };
    let app = format!("{cgroupfs}/{}", IDS[2]);
    assert_eq!(machine.labels(&both), [&*systemd, &*app]);
    let error = machine.resolve(&pods(&["web/nginx-*"])).unwrap_err();
    assert_eq!(error.to_string(), "no pod web/nginx-* runs here");
}
