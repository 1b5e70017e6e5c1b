//! Proxies that run on this host, found by their executables (`--auto`).
//!
//! A proxy is watched where it listens and its cgroup is its own: a service's or a
//! container's, or one without unrelated processes.  Its configuration, for names,
//! is the one that its command line gives, as it sees it.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt, fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bpf::listeners;
use kernel_sample::{Target, container};

use super::{Roots, processes};

/// How many are watched: each has counters of its own, of 13 MB with two processors.
const PROXIES_MAX: usize = 64;

/// How many directories of cgroups are looked into.
const SEARCHED_DIRS_MAX: usize = 20_000;

/// The time between two looks at all processes, where no listener came or went.
pub(super) const LOOK: Duration = Duration::from_secs(10);

/// How much of a command line is read.
const COMMAND_LINE_BYTES_MAX: u64 = 32 << 10;

/// Executables of proxies.
const PROGRAMS: [(&str, Program); 11] = [
    ("angie", Program::Nginx),
    ("apache2", Program::Other("Apache")),
    ("caddy", Program::Other("Caddy")),
    ("envoy", Program::Other("Envoy")),
    ("haproxy", Program::Haproxy),
    ("httpd", Program::Other("Apache")),
    ("nginx", Program::Nginx),
    ("openresty", Program::Nginx),
    ("speedmimi-proxy", Program::Ours),
    ("traefik", Program::Other("Traefik")),
    ("varnishd", Program::Other("Varnish")),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Nginx,
    Haproxy,
    Ours,
    /// One whose configuration no names are read of.
    Other(&'static str),
}

/// A configuration of a proxy, and where the paths in it begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// As the proxy calls it.
    pub file: PathBuf,
    /// Another root than ours.
    pub root: Option<PathBuf>,
}

/// A proxy that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The cgroup that its processes are in.
    pub target: Target,
    /// The executable's name.
    pub program: String,
    /// Its first process.
    pub pid: u32,
    /// What it takes its names from.
    pub configs: Vec<ProxyConfig>,
    /// Why it is not watched.
    pub refused: Option<Refusal>,
}

/// Why a proxy is not watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No process of its cgroup listens.
    Silent,
    /// Unrelated processes would be counted too.
    Shared(String),
    /// Too many are watched already.
    Many,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => write!(f, "it does not listen"),
            Self::Shared(others) => write!(
                f,
                "it shares its cgroup with {others}: run it as a service, or name the cgroup with \
                 --cgroup to watch them all"
            ),
            Self::Many => write!(
                f,
                "{PROXIES_MAX} proxies are watched already: name those that matter with --cgroup"
            ),
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            target,
            program,
            pid,
            ..
        } = self;
        write!(f, "{program} (process {pid}) in {}", target.label)?;
        match &self.refused {
            Some(refused) => write!(f, ": {refused}"),
            None => Ok(()),
        }
    }
}

/// What listens, by cgroup, in the network namespace of this thread.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listening(HashSet<u64>);

impl Listening {
    /// As it is now; nothing where the kernel does not tell.
    pub(super) fn now() -> Self {
        let all = listeners().unwrap_or_default();
        Self(
            all.into_values()
                .map(|listener| listener.cgroup_id)
                .collect(),
        )
    }
}

/// The proxies that run, by their cgroups; those within another's cgroup belong to it.
pub(super) fn proxies(roots: &Roots, listening: &Listening) -> Vec<Proxy> {
    let mut found: BTreeMap<PathBuf, Proxy> = BTreeMap::new();
    for (dir, pids) in cgroups(&roots.cgroup) {
        // Of those above, the tree is walked before.
        if found
            .values()
            .any(|p| p.refused.is_none() && dir.starts_with(&p.target.path))
        {
            continue;
        }
        let program = pids
            .iter()
            .find_map(|&pid| program(&roots.proc, pid).map(|p| (pid, p)));
        let (Some((pid, (name, program))), Ok(target)) = (program, roots.target(&dir)) else {
            continue;
        };
        let refused = refusal(roots, &target, pid, &pids, listening).or_else(|| {
            let watched = found.values().filter(|p| p.refused.is_none()).count();
            (watched >= PROXIES_MAX).then_some(Refusal::Many)
        });
        let proxy = Proxy {
            configs: configs(roots, &target, pid, program),
            target,
            program: name,
            pid,
            refused,
        };
        found.insert(dir, proxy);
    }
    found.into_values().collect()
}

/// The cgroups with processes, the upper ones first; a bounded search.
fn cgroups(root: &Path) -> Vec<(PathBuf, Vec<u32>)> {
    let mut found = Vec::new();
    let mut open = VecDeque::from([root.to_owned()]);
    let mut searched = 0;
    while let Some(dir) = open.pop_front() {
        searched += 1;
        if searched > SEARCHED_DIRS_MAX {
            break;
        }
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        // Processes of other pid namespaces are shown as 0.
        let pids = procs.lines().filter_map(|line| line.parse().ok());
        let pids: Vec<u32> = pids.filter(|pid| *pid != 0).collect();
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let below = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        open.extend(below.map(|e| e.path()));
        if !pids.is_empty() {
            found.push((dir, pids));
        }
    }
    found
}

/// Which proxy a process is, by its executable; where that may not be seen, by what
/// its command line begins with.
fn program(proc: &Path, pid: u32) -> Option<(String, Program)> {
    let dir = proc.join(pid.to_string());
    let name = match fs::read_link(dir.join("exe")) {
        // An upgraded program's file is gone.
        Ok(exe) => base_name(exe.to_string_lossy().trim_end_matches(" (deleted)")),
        Err(_) => base_name(command_line(&dir).first()?),
    };
    let known = PROGRAMS.iter().find(|(known, _)| *known == name)?;
    Some((name, known.1))
}

fn base_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// The words of a command line.  nginx writes a title over it, in one word:
/// `nginx: master process /usr/sbin/nginx -g daemon on;`.
fn command_line(process: &Path) -> Vec<String> {
    let mut bytes = Vec::new();
    let Ok(file) = fs::File::open(process.join("cmdline")) else {
        return Vec::new();
    };
    if file
        .take(COMMAND_LINE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .is_err()
    {
        return Vec::new();
    }
    words(&String::from_utf8_lossy(&bytes))
}

fn words(line: &str) -> Vec<String> {
    let title = line.trim_end_matches('\0');
    let title = title.strip_prefix("nginx: ").map(|title| {
        let words = title.strip_prefix("master process ");
        words.map_or_else(|| vec!["nginx"], |words| words.split(' ').collect())
    });
    let words = title.unwrap_or_else(|| line.split('\0').collect());
    let words = words.into_iter().filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

fn refusal(
    roots: &Roots,
    target: &Target,
    pid: u32,
    pids: &[u32],
    listening: &Listening,
) -> Option<Refusal> {
    let id = fs::metadata(&target.path).map(|m| m.ino()).ok();
    let listens = id.is_some_and(|id| listening.0.contains(&id));
    // Who listens in another network namespace is not told to this thread.
    if !listens && !has_own_network(&roots.proc, pids) && !container::is(&target.label) {
        return Some(Refusal::Silent);
    }
    if target.label.ends_with(".service") || container::is(&target.label) {
        return None;
    }
    if &*target.label == "/" {
        return Some(Refusal::Shared("the whole host".to_owned()));
    }
    let others = processes::unrelated(&roots.proc, &target.path, pid);
    (!others.is_empty()).then(|| Refusal::Shared(others.join(", ")))
}

/// Whether a process is in another network namespace, as far as may be seen.
fn has_own_network(proc: &Path, pids: &[u32]) -> bool {
    let namespace = |of: &str| fs::read_link(proc.join(of).join("ns/net")).ok();
    let own = namespace("self");
    pids.iter()
        .filter_map(|pid| namespace(&pid.to_string()))
        .any(|other| Some(other) != own)
}

/// The configurations that a proxy's command line gives, or the one that its program
/// takes without.
fn configs(roots: &Roots, target: &Target, pid: u32, program: Program) -> Vec<ProxyConfig> {
    let process = roots.proc.join(pid.to_string());
    let words = command_line(&process);
    let files = match program {
        Program::Nginx => vec![nginx_config(&words)],
        Program::Haproxy => given(&words, "-f", "/etc/haproxy/haproxy.cfg"),
        Program::Ours => given(&words, "--config", "/etc/speedmimi/proxy.yaml"),
        Program::Other(_) => Vec::new(),
    };
    let root = process.join("root");
    let cwd = fs::read_link(process.join("cwd")).unwrap_or_else(|_| "/".into());
    let root = match fs::read_link(&root) {
        Ok(seen) if seen == Path::new("/") && !container::is(&target.label) => None,
        // A container's root is `/` to itself, and another one below /proc.
        Ok(_) => Some(root),
        Err(_) if container::is(&target.label) => return Vec::new(),
        Err(_) => None,
    };
    let configs = files.into_iter().map(|file| ProxyConfig {
        file: cwd.join(file),
        root: root.clone(),
    });
    configs.collect()
}

/// The values of an option, `-f FILE`, `--config FILE` or `--config=FILE`.
fn values<'a>(words: &'a [String], option: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut rest = words.iter().skip(1);
    while let Some(word) = rest.next() {
        if word == option {
            found.extend(rest.next().map(String::as_str));
        } else if let Some(value) = word.strip_prefix(option)
            && let Some(value) = value.strip_prefix('=')
        {
            found.push(value);
        }
    }
    found
}

fn given(words: &[String], option: &str, default: &str) -> Vec<PathBuf> {
    let all = values(words, option);
    let all = if all.is_empty() { vec![default] } else { all };
    all.into_iter().map(PathBuf::from).collect()
}

/// Relative to the prefix, where one is given.
fn nginx_config(words: &[String]) -> PathBuf {
    let prefix = values(words, "-p").last().map(PathBuf::from);
    let config = values(words, "-c").last().map(PathBuf::from);
    match (prefix, config) {
        (Some(prefix), Some(config)) => prefix.join(config),
        (Some(prefix), None) => prefix.join("conf/nginx.conf"),
        (None, Some(config)) => Path::new("/etc/nginx").join(config),
        (None, None) => "/etc/nginx/nginx.conf".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    /// A host as its `/proc` and its cgroups show it.
    struct Host(TempDir);

    impl Host {
        fn new() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            for dir in ["proc/self/ns", "cgroup"] {
                fs::create_dir_all(host.path(dir)).unwrap();
            }
            symlink("net:[1]", host.path("proc/self/ns/net")).unwrap();
            fs::write(host.path("cgroup/cgroup.procs"), "").unwrap();
            host
        }

        fn path(&self, below: &str) -> PathBuf {
            self.0.path().join(below)
        }

        fn roots(&self) -> Roots {
            Roots {
                host: self.path("host"),
                proc: self.path("proc"),
                cgroup: self.path("cgroup"),
            }
        }

        fn process(&self, cgroup: &str, pid: u32, exe: &str, command_line: &str) {
            let dir = self.path("cgroup").join(cgroup.trim_start_matches('/'));
            fs::create_dir_all(&dir).unwrap();
            let procs = dir.join("cgroup.procs");
            let before = fs::read_to_string(&procs).unwrap_or_default();
            fs::write(procs, format!("{before}{pid}\n")).unwrap();
            let process = self.path(&format!("proc/{pid}"));
            fs::create_dir_all(process.join("ns")).unwrap();
            symlink(exe, process.join("exe")).unwrap();
            symlink("/", process.join("root")).unwrap();
            symlink("/srv", process.join("cwd")).unwrap();
            symlink("net:[1]", process.join("ns/net")).unwrap();
            fs::write(process.join("cmdline"), command_line).unwrap();
            fs::write(process.join("stat"), format!("{pid} (x) S 1 0")).unwrap();
        }

        /// Those that are found where these cgroups listen.
        fn proxies(&self, listening: &[&str]) -> Vec<Proxy> {
            let id = |cgroup: &&str| {
                let dir = self.path("cgroup").join(cgroup.trim_start_matches('/'));
                fs::metadata(dir).unwrap().ino()
            };
            proxies(
                &self.roots(),
                &Listening(listening.iter().map(id).collect()),
            )
        }
    }

    fn files(proxy: &Proxy) -> Vec<&str> {
        let files = proxy.configs.iter();
        files.map(|config| config.file.to_str().unwrap()).collect()
    }

    #[test]
    fn services_are_found_with_their_configurations() {
        let host = Host::new();
        let nginx = "nginx: master process /usr/sbin/nginx -c conf.d/a.conf -g daemon on;";
        host.process("/system.slice/nginx.service", 10, "/usr/sbin/nginx", nginx);
        host.process(
            "/system.slice/nginx.service",
            11,
            "/usr/sbin/nginx",
            "nginx: worker process",
        );
        let haproxy = "/usr/sbin/haproxy\0-Ws\0-f\0/etc/haproxy/a.cfg\0-f\0b.cfg\0-p\0/run/x\0";
        host.process(
            "/system.slice/haproxy.service",
            20,
            "/usr/sbin/haproxy",
            haproxy,
        );
        let ours = "/usr/bin/speedmimi-proxy\0run\0--config=/etc/p.yaml\0";
        host.process(
            "/system.slice/p.service",
            30,
            "/usr/bin/speedmimi-proxy (deleted)",
            ours,
        );
        host.process(
            "/system.slice/envoy.service",
            40,
            "/opt/envoy",
            "envoy\0-c\0/etc/envoy.yaml\0",
        );
        host.process(
            "/system.slice/postgresql.service",
            50,
            "/usr/bin/postgres",
            "postgres\0",
        );
        let all = ["nginx", "haproxy", "p", "envoy", "postgresql"];
        let listening: Vec<_> = all
            .iter()
            .map(|n| format!("/system.slice/{n}.service"))
            .collect();
        let listening: Vec<_> = listening.iter().map(String::as_str).collect();

        let found = host.proxies(&listening);
        let seen: Vec<_> = found
            .iter()
            .map(|proxy| (&*proxy.target.label, proxy.program.as_str(), files(proxy)))
            .collect();
        assert_eq!(
            seen,
            [
                ("/system.slice/envoy.service", "envoy", vec![]),
                (
                    "/system.slice/haproxy.service",
                    "haproxy",
                    vec!["/etc/haproxy/a.cfg", "/srv/b.cfg"]
                ),
                (
                    "/system.slice/nginx.service",
                    "nginx",
                    vec!["/etc/nginx/conf.d/a.conf"]
                ),
                (
                    "/system.slice/p.service",
                    "speedmimi-proxy",
                    vec!["/etc/p.yaml"]
                ),
            ]
        );
        assert!(
            found.iter().all(|proxy| proxy.refused.is_none()),
            "{found:?}"
        );
        assert!(
            found
                .iter()
                .all(|proxy| proxy.configs.iter().all(|c| c.root.is_none()))
        );
    }

    #[test]
    fn what_is_not_watched_is_told_with_its_reason() {
        let host = Host::new();
        host.process(
            "/system.slice/silent.service",
            10,
            "/usr/sbin/nginx",
            "nginx\0",
        );
        let session = "/user.slice/session-1.scope";
        host.process(session, 20, "/usr/sbin/haproxy", "haproxy\0");
        host.process(session, 21, "/bin/bash", "bash\0");
        let own = "/user.slice/own.scope";
        host.process(own, 30, "/usr/bin/caddy", "caddy\0run\0");
        let found = host.proxies(&[session, own]);
        let refused: Vec<_> = found
            .iter()
            .map(|p| (&*p.target.label, p.refused.clone()))
            .collect();
        assert_eq!(
            refused,
            [
                ("/system.slice/silent.service", Some(Refusal::Silent)),
                (own, None),
                (session, Some(Refusal::Shared(" (21)".to_owned()))),
            ]
        );
        assert!(found[2].to_string().contains("--cgroup"), "{}", found[2]);
    }

    #[test]
    fn a_container_s_configuration_begins_at_its_root_and_inner_cgroups_are_part_of_it() {
        let host = Host::new();
        let id = "a".repeat(64);
        let scope = format!("/system.slice/docker-{id}.scope");
        host.process(
            &scope,
            10,
            "/usr/sbin/nginx",
            "nginx: master process nginx -g daemon off;",
        );
        host.process(
            &format!("{scope}/inner"),
            11,
            "/usr/sbin/nginx",
            "nginx: worker process",
        );
        let found = host.proxies(&[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            found[0].refused, None,
            "it listens in a network namespace of its own"
        );
        let config = ProxyConfig {
            file: "/etc/nginx/nginx.conf".into(),
            root: Some(host.path("proc/10/root")),
        };
        assert_eq!(found[0].configs, [config]);
    }

    #[test]
    fn no_more_are_watched_than_there_is_memory_for() {
        let host = Host::new();
        let mut listening = Vec::new();
        for n in 0..=u32::try_from(PROXIES_MAX).unwrap() {
            let cgroup = format!("/system.slice/p{n:03}.service");
            host.process(&cgroup, 100 + n, "/usr/bin/envoy", "envoy\0");
            listening.push(cgroup);
        }
        let listening: Vec<_> = listening.iter().map(String::as_str).collect();
        let found = host.proxies(&listening);
        let refused: Vec<_> = found.iter().filter_map(|p| p.refused.clone()).collect();
        assert_eq!(refused, [Refusal::Many]);
    }

    #[test]
    fn nginx_takes_its_file_relative_to_its_prefix() {
        let config = |line: &str| nginx_config(&words(line)).display().to_string();
        assert_eq!(config("/usr/sbin/nginx\0"), "/etc/nginx/nginx.conf");
        assert_eq!(config("nginx\0-p\0/opt/n\0"), "/opt/n/conf/nginx.conf");
        assert_eq!(config("nginx\0-p\0/opt/n\0-c\0a.conf\0"), "/opt/n/a.conf");
        assert_eq!(config("nginx\0-c\0/a.conf\0"), "/a.conf");
    }

    proptest! {
        #[test]
        fn hostile_command_lines_never_panic(line in "((nginx: |master process |-[cfp]|--config|=|é|\0| )[ -~\0]{0,6}){0,8}") {
            let words = words(&line);
            nginx_config(&words);
            prop_assert!(!given(&words, "-f", "x").is_empty());
        }
    }
}
