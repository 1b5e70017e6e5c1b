//! Which configuration names the endpoints of which target.
//!
//! Two proxies on one host may well call the same address by different names, so
//! a configuration can be given for one target alone.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kernel_sample::{EndpointAddress, EndpointId};
use monitor_common::endpoint::Role;
use proxy_config::{Name, Names, of_process};
use serde::{Deserialize, Serialize};
use window::TargetNames;

use super::{FollowedNames, NamesError, NamesState, file::NamesFile, lookups};
use crate::target::Proxy;

/// How many configurations a report tells of that cannot be read, and how much of
/// the reason.
const NOTES_MAX: usize = 16;
const NOTE_BYTES_MAX: usize = 1_024;

/// The target whose names they are; all where there is none.
type Of<T> = (Option<Arc<str>>, T);

/// The configurations that names are taken from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamesFiles {
    files: Vec<Of<PathBuf>>,
    roots: Vec<Of<PathBuf>>,
}

impl NamesFiles {
    /// Makes sense of `FILE` or `TARGET=FILE`, and of `DIR` or `TARGET=DIR` for the
    /// roots of their paths.  Nothing is read yet.
    ///
    /// # Errors
    /// Where one is neither.
    pub fn new(files: &[PathBuf], roots: &[PathBuf]) -> Result<Self, NamesError> {
        let all = |flag, given: &[PathBuf]| {
            let each = given.iter().map(|given| parts(flag, given));
            each.collect::<Result<_, _>>()
        };
        Ok(Self {
            files: all(FILES, files)?,
            roots: all(ROOTS, roots)?,
        })
    }

    /// Calls the targets as `label` does, and makes sure that they are watched: a
    /// slip of the pen would leave endpoints without names.
    ///
    /// # Errors
    /// Where one is not among the labels that are.
    pub fn check(
        &mut self,
        label: impl Fn(&Path) -> String,
        watched: &[&str],
    ) -> Result<(), NamesError> {
        for (flag, given) in [(FILES, &mut self.files), (ROOTS, &mut self.roots)] {
            for (target, path) in given {
                let Some(target) = target else { continue };
                let called = label(Path::new(&**target));
                if !watched.contains(&called.as_str()) {
                    return Err(NamesError::NotWatched {
                        flag,
                        target: called,
                        path: path.clone(),
                        watched: watched.join(", "),
                    });
                }
                *target = called.into();
            }
        }
        Ok(())
    }

    /// The targets that something was given for.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        let given = self.files.iter().chain(&self.roots);
        given.filter_map(|(target, _)| target.as_deref())
    }

    /// The first file of each, as this host calls it.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let files = self.files.iter();
        files.map(|(of, path)| self.file(of.as_ref(), path).on_host())
    }

    /// Whether one is among the files of a process, which takes the right to look
    /// into processes.
    #[must_use]
    pub fn are_of_processes(&self) -> bool {
        self.paths().any(|path| of_process(&path).is_some())
    }

    /// Follows each on a thread of its own, and returns at once.
    #[must_use]
    pub fn follow(&self) -> FollowedFiles {
        let files = self.files.iter().map(|(target, path)| {
            let file = self.file(target.as_ref(), path);
            Arc::new(FollowedFile::start(target.clone(), file))
        });
        FollowedFiles {
            given: files.collect(),
            found: Mutex::default(),
        }
    }

    /// A configuration of a target, below the root of the target or else of all.
    fn file(&self, target: Option<&Arc<str>>, path: &Path) -> NamesFile {
        let root = |of: Option<&Arc<str>>| self.roots.iter().find(|(t, _)| t.as_ref() == of);
        let root = root(target).or_else(|| root(None));
        NamesFile::new(path, root.map(|(_, root)| root.as_path()))
    }
}

const FILES: &str = "--names-from";
const ROOTS: &str = "--names-root";

/// `TARGET=PATH` is taken apart, unless there is a file of that name.
fn parts(flag: &'static str, given: &Path) -> Result<Of<PathBuf>, NamesError> {
    let pair = given.to_str().and_then(|text| text.split_once('='));
    match pair {
        Some(_) if given.exists() => Ok((None, given.to_owned())),
        Some(("", _) | (_, "")) => Err(NamesError::Form {
            flag,
            given: given.to_owned(),
        }),
        Some((target, path)) => Ok((Some(target.into()), path.into())),
        None => Ok((None, given.to_owned())),
    }
}

/// One configuration that is followed.
#[derive(Debug)]
pub struct FollowedFile {
    /// The target whose names they are; all where there is none.
    pub target: Option<Arc<str>>,
    /// Its first file, as this host calls it.
    pub path: PathBuf,
    /// What is known of it.
    pub names: FollowedNames,
}

impl FollowedFile {
    fn start(target: Option<Arc<str>>, file: NamesFile) -> Self {
        Self {
            target,
            path: file.on_host(),
            names: FollowedNames::start(file, lookups::by_the_system()),
        }
    }
}

/// The newest names; the files are followed until this is dropped.
#[derive(Debug, Default)]
pub struct FollowedFiles {
    /// Those that the agent was told of.
    given: Vec<Arc<FollowedFile>>,
    /// Those of proxies that were found.
    found: Mutex<Vec<Arc<FollowedFile>>>,
}

impl FollowedFiles {
    /// Follows the configurations of these proxies from now on, in the place of those
    /// that were found before.
    pub(crate) fn find(&self, proxies: &[Proxy]) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut followed = Vec::new();
        for proxy in proxies.iter().filter(|proxy| proxy.refused.is_none()) {
            for config in &proxy.configs {
                let target = Some(Arc::clone(&proxy.target.label));
                let file = NamesFile::new(&config.file, config.root.as_deref());
                let same = |f: &&Arc<FollowedFile>| f.target == target && f.path == file.on_host();
                // What was given for a target is what its user wants.
                if self.given.iter().any(|f| f.target == target) {
                    continue;
                }
                let known = found.iter().find(same).cloned();
                followed.push(known.unwrap_or_else(|| Arc::new(FollowedFile::start(target, file))));
            }
        }
        *found = followed;
    }

    fn all(&self) -> Vec<Arc<FollowedFile>> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        self.given.iter().chain(&*found).cloned().collect()
    }

    /// The names, as they are now.
    #[must_use]
    pub fn names(&self) -> TargetNames {
        let names = self.all().into_iter();
        let names = names.map(|file| (file.target.clone(), Arc::clone(&file.names.state().names)));
        TargetNames::new(names)
    }

    /// Reads all of them again soon, changed or not, and looks all hosts up.
    pub fn read_again(&self) {
        self.all().iter().for_each(|file| file.names.read_again());
    }

    /// Waits until each was tried and its hosts are looked up, or the time is over.
    pub fn settle(&self, within: Duration) {
        let end = Instant::now() + within;
        for file in self.all() {
            let left = end.saturating_duration_since(Instant::now());
            drop(file.names.wait(left, NamesState::is_settled));
        }
    }

    /// Each of them, in the order in which they were given; then those that were found.
    pub fn iter(&self) -> impl Iterator<Item = (Arc<FollowedFile>, Arc<NamesState>)> {
        self.all().into_iter().map(|file| {
            let state = file.names.state();
            (file, state)
        })
    }

    /// What a report says of those that cannot be read.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let problems = self.iter().filter_map(|(_, state)| state.problem.clone());
        let notes = problems.map(|mut problem| {
            problem.truncate(problem.floor_char_boundary(NOTE_BYTES_MAX));
            format!("names: {problem}")
        });
        notes.take(NOTES_MAX).collect()
    }
}

/// What an endpoint is called, as the control socket tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedEndpoint {
    target: String,
    downstream: bool,
    address: SocketAddr,
    name: String,
    upstream: String,
    backend: String,
}

impl NamedEndpoint {
    /// Nothing where the endpoint has no address.
    #[must_use]
    pub fn new(id: &EndpointId, name: Name) -> Option<Self> {
        let EndpointAddress::Socket(address) = id.address else {
            return None;
        };
        Some(Self {
            target: id.target.to_string(),
            downstream: id.role == Role::Downstream,
            address,
            name: name.name,
            upstream: name.upstream,
            backend: name.backend,
        })
    }
}

impl FromIterator<NamedEndpoint> for TargetNames {
    fn from_iter<T: IntoIterator<Item = NamedEndpoint>>(endpoints: T) -> Self {
        let mut targets: BTreeMap<String, Names> = BTreeMap::new();
        for endpoint in endpoints {
            let names = targets.entry(endpoint.target).or_default();
            let name = Name {
                name: endpoint.name,
                upstream: endpoint.upstream,
                backend: endpoint.backend,
            };
            if endpoint.downstream {
                names.add_listener(endpoint.address, &name);
            } else {
                names.add_peer(endpoint.address, &name);
            }
        }
        let of = |(target, names): (String, Names)| (Some(Arc::from(target)), Arc::new(names));
        Self::new(targets.into_iter().map(of))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);
    const ADDRESS: &str = "127.0.0.1:8081";

    fn written(dir: &Path, name: &str, backends: &[(&str, u16)]) -> PathBuf {
        let path = dir.join(name);
        let servers = backends
            .iter()
            .map(|(_, port)| format!("server 127.0.0.1:{port};"));
        let upstream = backends.first().unwrap().0;
        let servers: String = servers.collect();
        fs::write(
            &path,
            format!("http {{ upstream {upstream} {{ {servers} }} }}\n"),
        )
        .unwrap();
        path
    }

    fn given(target: &str, path: &Path) -> PathBuf {
        format!("{target}={}", path.display()).into()
    }

    fn upstream(names: &TargetNames, target: &str, port: u16) -> String {
        let mut address: SocketAddr = ADDRESS.parse().unwrap();
        address.set_port(port);
        let id = EndpointId {
            target: target.into(),
            role: Role::Upstream,
            address: EndpointAddress::Socket(address),
        };
        names.of(&id).upstream
    }

    /// As the kernel's side calls cgroups.
    fn label(path: &Path) -> String {
        format!("/{}", path.to_str().unwrap().trim_start_matches('/'))
    }

    #[test]
    fn a_proxy_that_was_found_has_its_names_while_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let proxy = |label: &str, file: &Path, refused| Proxy {
            target: kernel_sample::Target {
                path: dir.path().join(label),
                label: label.into(),
            },
            program: "nginx".to_owned(),
            pid: 1,
            configs: vec![crate::target::ProxyConfig {
                file: file.to_owned(),
                root: None,
            }],
            refused,
        };
        let given_file = written(dir.path(), "given", &[("given", 8081)]);
        let files = NamesFiles::new(&[given("/a", &given_file)], &[]).unwrap();
        let followed = files.follow();
        let found = written(dir.path(), "found", &[("found", 8081)]);
        let silent = Some(crate::target::Refusal::Silent);
        let (a, b) = (proxy("/a", &found, None), proxy("/b", &found, None));
        followed.find(&[a, b, proxy("/c", &found, silent)]);
        followed.settle(TIMEOUT);
        let called = |target| upstream(&followed.names(), target, 8081);
        assert_eq!(
            called("/a"),
            "given",
            "what was given is what its user wants"
        );
        assert_eq!(called("/b"), "found");
        assert_eq!(called("/c"), "", "it is not watched");
        followed.find(&[]);
        assert_eq!(
            (called("/a"), called("/b")),
            ("given".into(), String::new())
        );
    }

    #[test]
    fn one_proxy_s_names_are_not_another_s() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            written(dir.path(), "all", &[("everyone", 8081), ("", 8082)]),
            written(dir.path(), "nginx", &[("web", 8081)]),
            written(dir.path(), "other", &[("late", 8081), ("", 8083)]),
        ];
        let [all, nginx, other] = &files;
        let files = [
            all.clone(),
            given("/nginx", nginx),
            given("haproxy", other),
            given("/nginx", other),
        ];
        let mut files = NamesFiles::new(&files, &[]).unwrap();
        let labels = ["/haproxy", "/nginx", "/third"];
        files.check(label, &labels).unwrap();
        assert_eq!(files.paths().count(), 4);
        let followed = files.follow();
        followed.settle(TIMEOUT);
        let names = followed.names();
        let of = |target: &str| [8081, 8082, 8083].map(|port| upstream(&names, target, port));
        assert_eq!(of("/nginx"), ["web", "everyone", "late"]);
        assert_eq!(of("/haproxy"), ["late", "everyone", "late"]);
        assert_eq!(of("/third"), ["everyone", "everyone", ""]);
    }

    #[test]
    fn a_target_that_is_not_watched_is_told_with_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), "nginx", &[("web", 8081)]);
        let wrong = [given("ngnix", &path)];
        for (files, roots, flag) in [(&wrong[..], &[][..], FILES), (&[], &wrong, ROOTS)] {
            let mut files = NamesFiles::new(files, roots).unwrap();
            let refused = files.check(label, &["/haproxy", "/nginx"]).unwrap_err();
            let text = refused.to_string();
            let expected = [flag, "/ngnix", "/haproxy, /nginx"];
            assert!(expected.iter().all(|e| text.contains(e)), "{text}");
        }
    }

    #[test]
    fn a_file_may_have_an_equals_sign_in_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), "a=b.conf", &[("web", 8081)]);
        assert_eq!(parts(FILES, &path).unwrap(), (None, path.clone()));
        let both = parts(FILES, &given("/t", &path)).unwrap();
        assert_eq!(both, (Some("/t".into()), path));
        for bad in ["=x", "/t="] {
            let refused = parts(FILES, Path::new(bad));
            assert!(matches!(refused, Err(NamesError::Form { .. })));
        }
    }

    #[test]
    fn a_root_is_that_of_the_target_or_of_all() {
        let process = &format!("{}/etc/a", "/proc/1/root");
        let files = ["/etc/a", "/t=/etc/a", "/u=etc/a", process].map(PathBuf::from);
        let roots = ["/all", "/t=/own"].map(PathBuf::from);
        let paths = |roots: &[PathBuf]| {
            let files = NamesFiles::new(&files, roots).unwrap();
            let paths = files.paths().map(|path| path.display().to_string());
            paths.collect::<Vec<_>>()
        };
        assert_eq!(
            paths(&roots)[..3],
            ["/all/etc/a", "/own/etc/a", "/all/etc/a"]
        );
        assert_eq!(paths(&[]), ["/etc/a", "/etc/a", "etc/a", process]);
        let of_processes =
            |files: &[PathBuf]| NamesFiles::new(files, &[]).unwrap().are_of_processes();
        assert!(of_processes(&files) && !of_processes(&files[..3]));
    }

    #[test]
    fn names_that_are_told_are_the_same() {
        let id = |role, port| EndpointId {
            target: "/t".into(),
            role,
            address: EndpointAddress::Socket(([127, 0, 0, 1], port).into()),
        };
        let name = |name: &str| Name {
            name: name.to_owned(),
            upstream: format!("{name}s"),
            backend: String::new(),
        };
        let named = [
            (id(Role::Upstream, 1), name("peer")),
            (id(Role::Downstream, 1), name("listener")),
        ];
        let told = named
            .iter()
            .filter_map(|(id, n)| NamedEndpoint::new(id, n.clone()));
        let json = serde_json::to_string(&told.collect::<Vec<_>>()).unwrap();
        let told: Vec<NamedEndpoint> = serde_json::from_str(&json).unwrap();
        let names: TargetNames = told.into_iter().collect();
        for (id, name) in &named {
            assert_eq!(names.of(id), *name);
        }
        assert_eq!(names.of(&id(Role::Upstream, 2)), Name::default());
    }

    #[test]
    fn notes_are_bounded() {
        let long = PathBuf::from(format!("/nonexistent/{}", "é".repeat(2_000)));
        let files = vec![long; 2 * NOTES_MAX];
        let followed = NamesFiles::new(&files, &[]).unwrap().follow();
        followed.settle(TIMEOUT);
        let notes = followed.notes();
        assert_eq!(notes.len(), NOTES_MAX);
        assert!(
            notes
                .iter()
                .all(|note| note.starts_with("names: /nonexistent/"))
        );
        assert!(notes.iter().all(|note| note.len() < NOTE_BYTES_MAX + 20));
    }
}
