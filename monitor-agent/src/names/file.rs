//! A configuration that may change while it is used.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, ToSocketAddrs},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{
    Names, NamesError,
    found::{Found, Resolved},
    haproxy, nginx,
    sources::Sources,
    yaml,
};

/// How often it is looked for changes.
const LOOK: Duration = Duration::from_secs(1);

/// How often hosts that had no address are looked up again.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(60);

/// Modification time in nanoseconds, size and inode; `None` where there is no
/// file.
type Stamp = Option<(i64, i64, u64, u64)>;

/// A configuration that names are read from.
#[derive(Clone, Debug)]
pub struct NamesFile {
    path: PathBuf,
    stamps: BTreeMap<PathBuf, Stamp>,
    read_at: Option<Instant>,
    waits: bool,
    names: Arc<Names>,
}

impl NamesFile {
    /// Reads it for the first time, and looks up the hosts in it.
    ///
    /// # Errors
    /// Where it cannot be read or understood.
    pub fn open(path: PathBuf) -> Result<Self, NamesError> {
        let mut file = Self {
            path,
            stamps: BTreeMap::new(),
            read_at: None,
            waits: false,
            names: Arc::default(),
        };
        file.reload()?;
        Ok(file)
    }

    /// The first file of it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names that were read last.
    #[must_use]
    pub fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names)
    }

    /// Reads it again where it, or a file that it includes, has changed.  While it
    /// cannot be read, the last names hold.
    pub fn refresh(&mut self) -> bool {
        let changed = self.stamps.iter().any(|(path, was)| stamp(path) != *was);
        let late = self.read_at.is_none_or(|at| at.elapsed() >= LOOK_UP_AGAIN);
        let due = changed || self.waits && late;
        match due.then(|| self.reload()) {
            None => false,
            Some(Ok(())) => true,
            Some(Err(error)) => {
                let error = crate::error_chain(&error);
                tracing::warn!(error, "the last names of backends hold");
                false
            }
        }
    }

    /// Follows it on a thread of its own: to look up a host may take long.
    #[must_use]
    pub fn follow(mut self) -> FollowedNames {
        let names = Arc::new(ArcSwap::new(self.names()));
        let followed = Arc::downgrade(&names);
        let follow = move || {
            loop {
                thread::sleep(LOOK);
                let refreshed = self.refresh();
                let Some(names) = followed.upgrade() else {
                    return;
                };
                if refreshed {
                    let path = self.path.display();
                    tracing::info!(%path, names = self.names.len(), "read the names again");
                    names.store(self.names());
                }
            }
        };
        let thread = thread::Builder::new().name("names".to_owned());
        if let Err(error) = thread.spawn(follow) {
            tracing::warn!(%error, "changes of the names' file are not followed");
        }
        FollowedNames { names }
    }

    fn reload(&mut self) -> Result<(), NamesError> {
        let mut sources = Sources::default();
        // What changes while it is read is read again.
        let before = stamp(&self.path);
        let read = self.read(&mut sources);
        self.stamps = sources
            .seen
            .into_iter()
            .map(|path| {
                let now = stamp(&path);
                (path, now)
            })
            .collect();
        self.stamps.insert(self.path.clone(), before);
        self.read_at = Some(Instant::now());
        let Resolved {
            names,
            remarks,
            waits,
        } = read?.resolve(look_up);
        for remark in remarks {
            tracing::warn!(path = %self.path.display(), "{remark}");
        }
        self.waits = waits;
        self.names = Arc::new(names);
        Ok(())
    }

    fn read(&self, sources: &mut Sources) -> Result<Found, NamesError> {
        let text = sources.read(&self.path);
        let text = text.map_err(|source| NamesError::Unreadable {
            path: self.path.clone(),
            source,
        })?;
        match Form::of(&text) {
            Form::Nginx => nginx::parse(&text, &self.path, sources),
            Form::HaProxy => Ok(haproxy::parse(&text)),
            Form::Yaml => yaml::parse(&text).map_err(|message| NamesError::Syntax {
                path: self.path.clone(),
                message,
            }),
        }
    }
}

/// The newest names; the file is followed until this is dropped.
#[derive(Debug)]
pub struct FollowedNames {
    names: Arc<ArcSwap<Names>>,
}

impl FollowedNames {
    /// The names, as they are now.
    #[must_use]
    pub fn names(&self) -> Arc<Names> {
        self.names.load_full()
    }
}

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.mtime(), file.mtime_nsec(), file.size(), file.ino()))
}

fn look_up(host: &str) -> Vec<IpAddr> {
    let addresses = (host, 0).to_socket_addrs();
    let addresses = addresses.map(|all| all.map(|a| a.ip().to_canonical()));
    addresses.map(Iterator::collect).unwrap_or_default()
}

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Yaml,
    Nginx,
    HaProxy,
}

impl Form {
    /// Judges by the first statement: `HAProxy`'s begin with a section's keyword
    /// and end with the line, nginx's end with `;` or open a block, and YAML's
    /// first word ends with a colon.
    pub(super) fn of(text: &str) -> Self {
        let lines = text.lines().map(str::trim);
        let Some(first) = lines
            .into_iter()
            .find(|l| !l.is_empty() && !l.starts_with('#'))
        else {
            return Self::Yaml;
        };
        let word = first.split_ascii_whitespace().next().unwrap_or_default();
        if haproxy::SECTIONS.contains(&word) && !first.ends_with([';', '{', ':'])
            || [".if", ".notice", ".warning", ".diag"].contains(&word)
        {
            Self::HaProxy
        } else if word.ends_with(':') || word.starts_with(['-', '%', '{', '"', '\'']) {
            Self::Yaml
        } else if first.contains(';') || first.contains('{') || text.contains(';') {
            Self::Nginx
        } else {
            Self::Yaml
        }
    }
}
