//! The containers and pods that run, with their names as far as files of their runtimes
//! tell them: `--container` and `--pod`.
//!
//! No runtime is asked: its socket is a way to everything on the host.  Names are in
//! files that Docker, containers/storage (Podman, CRI-O) and the kubelet keep; without
//! the right to read them a container is known by its id.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use globset::{GlobBuilder, GlobMatcher};
use kernel_sample::{
    Target,
    container::{self, Container},
};
use serde_json::Value;
use window::ContainerNames;

use super::Roots;

/// How many directories of cgroups are looked into.
const SEARCHED_DIRS_MAX: usize = 20_000;
/// How many containers are looked at.
const CONTAINERS_MAX: usize = 4_096;
/// How many entries of a directory of log files are looked at.
const LOGS_MAX: usize = 20_000;
/// How much of a runtime's file is read.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The beginning of an id that is enough to name a container.
const SHORT_ID_DIGITS: usize = 12;

/// Names change rarely.
const READ_AGAIN: Duration = Duration::from_secs(60);

const DOCKER: &str = "var/lib/docker/containers";
const STORAGE: &str = "var/lib/containers/storage/overlay-containers/containers.json";
const KUBELET_CONTAINERS: &str = "var/log/containers";
const KUBELET_PODS: &str = "var/log/pods";

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its cgroup.
    pub target: Target,
    /// The id that its runtime gave, or a name.
    pub id: String,
    /// The runtime, as far as the path tells.
    pub runtime: &'static str,
    /// What it is called, where that may be read.
    pub names: Vec<String>,
    /// The pod that it is part of.
    pub pod: Option<Pod>,
}

/// A pod of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its cgroup, with all of its containers.
    pub target: Target,
    /// Its namespace and its name, where they may be read.
    pub name: Option<(String, String)>,
}

/// A pattern for containers' names, with `*`, `?`, `[…]` and `{a,b}`.
#[derive(Clone, Debug)]
pub struct ContainerPattern {
    text: String,
    glob: GlobMatcher,
}

/// The same for pods, as `NAMESPACE/NAME`.
#[derive(Clone, Debug)]
pub struct PodPattern {
    text: String,
    namespace: GlobMatcher,
    name: GlobMatcher,
}

macro_rules! by_text {
    ($($pattern:ty),*) => {$(
        impl PartialEq for $pattern {
            fn eq(&self, other: &Self) -> bool {
                self.text == other.text
            }
        }
        impl Eq for $pattern {}
        impl AsRef<str> for $pattern {
            fn as_ref(&self) -> &str {
                &self.text
            }
        }
    )*};
}
by_text!(ContainerPattern, PodPattern);

impl std::str::FromStr for ContainerPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self {
            text: text.to_owned(),
            glob: glob(text, text)?,
        })
    }
}

impl std::str::FromStr for PodPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = text
            .split_once('/')
            .filter(|(_, name)| !name.contains('/'))
            .ok_or_else(|| format!("`{text}`: write NAMESPACE/NAME, such as web/nginx-*"))?;
        Ok(Self {
            text: text.to_owned(),
            namespace: glob(namespace, text)?,
            name: glob(name, text)?,
        })
    }
}

fn glob(part: &str, whole: &str) -> Result<GlobMatcher, String> {
    if part.is_empty() || whole.len() > 256 {
        return Err(format!(
            "`{whole}`: write a name, or a pattern such as web-*"
        ));
    }
    GlobBuilder::new(part)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| format!("`{whole}`: {}", error.kind()))
}

impl ContainerPattern {
    fn fits(&self, container: &Running) -> bool {
        let by_id = self.text.len() >= SHORT_ID_DIGITS && container.id.starts_with(&self.text);
        let mut names = container.names.iter().chain([&container.id]);
        by_id || names.any(|name| self.glob.is_match(name))
    }
}

impl PodPattern {
    fn fits(&self, pod: &Pod) -> bool {
        (pod.name.as_ref()).is_some_and(|(namespace, name)| {
            self.namespace.is_match(namespace) && self.name.is_match(name)
        })
    }
}

/// Those that a pattern fits; one within another belongs to it.
pub(super) fn chosen(
    containers: &[ContainerPattern],
    pods: &[PodPattern],
    roots: &Roots,
) -> Chosen {
    let running = running(roots);
    let mut targets: Vec<Target> = Vec::new();
    let mut missing = Vec::new();
    for pattern in pods {
        let found = running.iter().filter_map(|c| c.pod.as_ref());
        let found: Vec<_> = found.filter(|pod| pattern.fits(pod)).collect();
        if found.is_empty() {
            missing.push(format!("pod {}", pattern.text));
        }
        targets.extend(found.into_iter().map(|pod| pod.target.clone()));
    }
    for pattern in containers {
        let found: Vec<_> = running.iter().filter(|c| pattern.fits(c)).collect();
        if found.is_empty() {
            missing.push(format!("container {}", pattern.text));
        }
        targets.extend(found.into_iter().map(|c| c.target.clone()));
    }
    targets.sort_by(|a, b| a.label.cmp(&b.label));
    targets.dedup();
    let outermost = |target: &Target| {
        !targets
            .iter()
            .any(|other| other.path != target.path && target.path.starts_with(&other.path))
    };
    let targets = targets.iter().filter(|t| outermost(t)).cloned().collect();
    Chosen {
        targets,
        missing,
        unreadable: unreadable(&roots.host),
    }
}

/// What patterns fit.
pub(super) struct Chosen {
    pub(super) targets: Vec<Target>,
    /// The patterns that nothing fits.
    pub(super) missing: Vec<String>,
    /// Files with names that may not be read.
    pub(super) unreadable: Vec<PathBuf>,
}

/// The containers that run, by their cgroups; a bounded search.
#[must_use]
pub fn running(roots: &Roots) -> Vec<Running> {
    let mut found: Vec<(Running, Container)> = Vec::new();
    let mut open = VecDeque::from([(roots.cgroup.clone(), None)]);
    let mut searched = 0;
    while let Some((dir, above)) = open.pop_front() {
        searched += 1;
        if searched > SEARCHED_DIRS_MAX || found.len() >= CONTAINERS_MAX {
            break;
        }
        let label = below(&dir, &roots.cgroup);
        let own = container::of(&label);
        // What is further below has the same id.
        if let Some(of) = own.clone().filter(|of| above.as_ref() != Some(of))
            && let Ok(target) = roots.target(&dir)
        {
            let pod = container::pod_path(&label).and_then(|path| {
                let target = roots
                    .target(&roots.cgroup.join(path.trim_start_matches('/')))
                    .ok()?;
                Some(Pod { target, name: None })
            });
            let running = Running {
                target,
                id: of.id.clone(),
                runtime: of.runtime,
                names: Vec::new(),
                pod,
            };
            found.push((running, of));
        }
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let inner = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        open.extend(inner.map(|e| (e.path(), own.clone())));
    }
    if found.is_empty() {
        return Vec::new();
    }
    let files = Names::read(&roots.host);
    for (one, container) in &mut found {
        one.names = files.of(container);
        if let Some(pod) = &mut one.pod {
            pod.name = files.pod(&one.target.label);
        }
    }
    found.into_iter().map(|(one, _)| one).collect()
}

fn below(dir: &Path, mount: &Path) -> String {
    let below = dir.strip_prefix(mount).unwrap_or(dir);
    format!("/{}", below.display())
}

/// What runtimes call containers, as their files have it now.
struct Names<'a> {
    host: &'a Path,
    storage: BTreeMap<String, Vec<String>>,
    kubelet: BTreeMap<String, String>,
    pods: BTreeMap<String, (String, String)>,
}

impl<'a> Names<'a> {
    fn read(host: &'a Path) -> Self {
        Self {
            host,
            storage: storage_names(&host.join(STORAGE)),
            kubelet: kubelet_containers(&host.join(KUBELET_CONTAINERS)),
            pods: kubelet_pods(&host.join(KUBELET_PODS)),
        }
    }

    /// Those of a container, the one that its user gave first.
    fn of(&self, container: &Container) -> Vec<String> {
        let mut names: Vec<_> = self
            .kubelet
            .get(&container.id)
            .cloned()
            .into_iter()
            .collect();
        if container.runtime == "docker" {
            names.extend(docker_name(self.host, &container.id));
        }
        names.extend(self.storage.get(&container.id).cloned().unwrap_or_default());
        names
    }

    /// Namespace and name of the pod that a cgroup belongs to, or is.
    fn pod(&self, label: &str) -> Option<(String, String)> {
        let uid = container::pod_uid(label)?;
        // The id of a static pod has no dashes.
        let plain = uid.replace('-', "");
        let found = self.pods.get(&uid).or_else(|| self.pods.get(&plain));
        found.cloned()
    }
}

/// What targets are called that are containers or pods; read again when others are
/// asked for, and after a minute.
#[derive(Debug, Default)]
pub struct RunningNames {
    known: BTreeMap<Arc<str>, ContainerNames>,
    read_at: Option<Instant>,
}

impl RunningNames {
    /// The names of a target; empty where it is no container, or they may not be read.
    #[must_use]
    pub fn of(&self, target: &Target) -> ContainerNames {
        self.known.get(&target.label).cloned().unwrap_or_default()
    }

    /// Reads them where it is time to.
    pub fn follow(&mut self, targets: &[Target], host: &Path) {
        let is_named =
            |t: &&Target| container::is(&t.label) || container::pod_uid(&t.label).is_some();
        let targets: Vec<_> = targets.iter().filter(is_named).collect();
        let is_old = self.read_at.is_none_or(|at| at.elapsed() >= READ_AGAIN);
        let is_known = |t: &&Target| self.known.contains_key(&t.label);
        if targets.is_empty() || (!is_old && targets.iter().all(is_known)) {
            return;
        }
        self.read_at = Some(Instant::now());
        let files = Names::read(host);
        let names = |target: &&Target| {
            let name = container::of(&target.label)
                .and_then(|container| files.of(&container).into_iter().next());
            let (namespace, pod) = files.pod(&target.label).unwrap_or_default();
            let names = ContainerNames {
                name: name.unwrap_or_default(),
                pod,
                namespace,
            };
            (Arc::clone(&target.label), names)
        };
        self.known = targets.iter().map(names).collect();
    }
}

fn read(path: &Path) -> io::Result<Value> {
    let mut text = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// `/web`, as Docker writes it.
fn docker_name(host: &Path, id: &str) -> Option<String> {
    let config = read(&host.join(DOCKER).join(id).join("config.v2.json")).ok()?;
    let name = config["Name"].as_str()?.trim_start_matches('/');
    (!name.is_empty()).then(|| name.to_owned())
}

/// Of Podman and CRI-O.
fn storage_names(path: &Path) -> BTreeMap<String, Vec<String>> {
    let all = read(path).unwrap_or_default();
    let all = all.as_array().map(Vec::as_slice).unwrap_or_default();
    let named = all.iter().filter_map(|container| {
        let names = container["names"].as_array()?.iter();
        let names = names.filter_map(Value::as_str).map(str::to_owned);
        Some((container["id"].as_str()?.to_owned(), names.collect()))
    });
    named.collect()
}

/// By `POD_NAMESPACE_CONTAINER-ID.log`.
fn kubelet_containers(dir: &Path) -> BTreeMap<String, String> {
    let parsed = |file: &str| {
        let (names, id) = file.strip_suffix(".log")?.rsplit_once('-')?;
        let (_, container) = names.rsplit_once('_')?;
        Some((id.to_owned(), container.to_owned()))
    };
    file_names(dir).iter().filter_map(|f| parsed(f)).collect()
}

/// By `NAMESPACE_POD_UID`.
fn kubelet_pods(dir: &Path) -> BTreeMap<String, (String, String)> {
    let parsed = |file: &str| {
        let (names, uid) = file.rsplit_once('_')?;
        let (namespace, pod) = names.split_once('_')?;
        Some((uid.to_owned(), (namespace.to_owned(), pod.to_owned())))
    };
    file_names(dir).iter().filter_map(|f| parsed(f)).collect()
}

fn file_names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.take(LOGS_MAX).map(|e| e.file_name());
    names.filter_map(|name| name.into_string().ok()).collect()
}

/// Where runtimes keep names.
#[must_use]
pub fn files_with_names(host: &Path) -> [PathBuf; 4] {
    [DOCKER, STORAGE, KUBELET_CONTAINERS, KUBELET_PODS].map(|file| host.join(file))
}

/// What holds names, is there, and may not be read.
#[must_use]
pub fn unreadable(host: &Path) -> Vec<PathBuf> {
    let denied = |result: io::Result<()>| {
        result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    let mut files = files_with_names(host).to_vec();
    files.retain(|path| denied(File::open(path).map(drop)));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed<T: std::str::FromStr<Err = String>>(text: &str) -> Result<T, String> {
        text.parse()
    }

    #[test]
    fn what_is_no_pattern_is_refused_in_words() {
        for text in ["", "a[", &"a".repeat(257)] {
            let error = parsed::<ContainerPattern>(text).unwrap_err();
            assert!(error.starts_with(&format!("`{text}`: ")), "{error}");
        }
        for text in ["web", "web/", "/web", "a/b/c", ""] {
            assert!(parsed::<PodPattern>(text).is_err(), "{text}");
        }
        assert!(parsed::<PodPattern>("*/nginx-?").is_ok());
    }

    #[test]
    fn hostile_files_of_runtimes_name_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("containers.json");
        for text in [
            "",
            "[",
            "{}",
            "[1,{\"id\":1}]",
            "[{\"id\":\"a\",\"names\":[1]}]",
            "\u{0}",
        ] {
            fs::write(&path, text).unwrap();
            let named = storage_names(&path);
            assert!(named.values().all(Vec::is_empty), "{text}");
        }
        for file in ["_.log", "a-b.log", "é_é_é-é.log", "x"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(kubelet_containers(dir.path()).len(), 1);
        assert!(kubelet_pods(dir.path()).len() <= 1);
    }
}
