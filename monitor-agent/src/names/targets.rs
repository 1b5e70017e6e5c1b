//! Which configuration names the endpoints of which target.
//!
//! Two proxies on one host may well call the same address by different names, so
//! a configuration can be given for one target alone.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{FollowedNames, Name, Names, NamesError, NamesFile};
use crate::kernel::EndpointId;

/// The target whose names they are; all where there is none.
type Of<T> = (Option<Arc<str>>, T);

/// The configurations that names are taken from.
#[derive(Clone, Debug, Default)]
pub struct NamesFiles(Vec<Of<NamesFile>>);

impl NamesFiles {
    /// Reads each of them for the first time: `FILE`, or `TARGET=FILE`.
    ///
    /// # Errors
    /// Where one cannot be read or understood.
    pub fn open(given: &[PathBuf]) -> Result<Self, NamesError> {
        let files = given.iter().map(|given| {
            let (target, path) = parts(given)?;
            Ok((target.map(Arc::from), NamesFile::open(path)?))
        });
        files.collect::<Result<_, _>>().map(Self)
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
        for (target, file) in &mut self.0 {
            let Some(target) = target else { continue };
            let called = label(Path::new(&**target));
            if !watched.contains(&called.as_str()) {
                return Err(NamesError::NotWatched {
                    target: called,
                    path: file.path().to_owned(),
                    watched: watched.join(", "),
                });
            }
            *target = called.into();
        }
        Ok(())
    }

    /// The first file of each.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(_, file)| file.path())
    }

    /// Follows each on a thread of its own.
    #[must_use]
    pub fn follow(self) -> FollowedFiles {
        let files = self.0.into_iter();
        FollowedFiles(files.map(|(of, file)| (of, file.follow())).collect())
    }
}

/// `TARGET=FILE` is taken apart, unless there is a file of that name.
fn parts(given: &Path) -> Result<(Option<&str>, PathBuf), NamesError> {
    let pair = given.to_str().and_then(|text| text.split_once('='));
    match pair {
        Some(_) if given.exists() => Ok((None, given.to_owned())),
        Some(("", _) | (_, "")) => Err(NamesError::Form {
            given: given.to_owned(),
        }),
        Some((target, path)) => Ok((Some(target), path.into())),
        None => Ok((None, given.to_owned())),
    }
}

/// The newest names; the files are followed until this is dropped.
#[derive(Debug, Default)]
pub struct FollowedFiles(Vec<Of<FollowedNames>>);

impl FollowedFiles {
    /// The names, as they are now.
    #[must_use]
    pub fn names(&self) -> TargetNames {
        let files = self.0.iter();
        TargetNames(files.map(|(of, file)| (of.clone(), file.names())).collect())
    }
}

/// The names of every target's endpoints.
#[derive(Clone, Debug, Default)]
pub struct TargetNames(Vec<Of<Arc<Names>>>);

impl TargetNames {
    /// What an endpoint is called; empty where no configuration says anything.  A
    /// configuration of its target comes before one of all, and of two such the
    /// one that was given first.
    #[must_use]
    pub fn of(&self, id: &EndpointId) -> Name {
        let own = |of: &Option<Arc<str>>| of.as_ref() == Some(&id.target);
        let named = |is_meant: &dyn Fn(&Option<Arc<str>>) -> bool| {
            let meant = self.0.iter().filter(|(of, _)| is_meant(of));
            let mut names = meant.map(|(_, names)| names.of(id));
            names.find(|name| *name != Name::default())
        };
        let name = named(&own).or_else(|| named(&Option::is_none));
        name.unwrap_or_default()
    }
}

impl From<Names> for TargetNames {
    /// Names of all targets.
    fn from(names: Names) -> Self {
        Self(vec![(None, names.into())])
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::SocketAddr};

    use monitor_common::endpoint::Role;

    use super::*;
    use crate::kernel::EndpointAddress;

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
    fn one_proxy_s_names_are_not_another_s() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            written(dir.path(), "all", &[("everyone", 8081), ("", 8082)]),
            written(dir.path(), "nginx", &[("web", 8081)]),
            written(dir.path(), "other", &[("late", 8081), ("", 8083)]),
        ];
        let [all, nginx, other] = &files;
        let mut opened = NamesFiles::open(&[
            all.clone(),
            given("/nginx", nginx),
            given("haproxy", other),
            given("/nginx", other),
        ])
        .unwrap();
        opened
            .check(label, &["/haproxy", "/nginx", "/third"])
            .unwrap();
        assert_eq!(opened.paths().count(), 4);
        let names = opened.follow().names();
        let of = |target: &str| [8081, 8082, 8083].map(|port| upstream(&names, target, port));
        assert_eq!(of("/nginx"), ["web", "everyone", "late"]);
        assert_eq!(of("/haproxy"), ["late", "everyone", "late"]);
        assert_eq!(of("/third"), ["everyone", "everyone", ""]);
    }

    #[test]
    fn a_target_that_is_not_watched_is_told_with_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), "nginx", &[("web", 8081)]);
        let mut opened = NamesFiles::open(&[given("ngnix", &path)]).unwrap();
        let refused = opened.check(label, &["/haproxy", "/nginx"]).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("/ngnix") && text.contains("/haproxy, /nginx"),
            "{text}"
        );
    }

    #[test]
    fn a_file_may_have_an_equals_sign_in_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), "a=b.conf", &[("web", 8081)]);
        assert_eq!(parts(&path).unwrap(), (None, path.clone()));
        assert_eq!(parts(&given("/t", &path)).unwrap(), (Some("/t"), path));
        for bad in ["=x", "/t="] {
            assert!(matches!(
                parts(Path::new(bad)),
                Err(NamesError::Form { .. })
            ));
        }
    }
}
