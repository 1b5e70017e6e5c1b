//! A configuration that names are read from, and that may change.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    NamesError,
    form::Form,
    found::Found,
    haproxy, nginx,
    root::Root,
    sources::{self, Sources, Stamp},
    yaml,
};

/// How often one that cannot be read is tried again, changed or not.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// How often files are looked at for changes, and how many of them at such a pace:
/// more are looked at less often, so that it costs the same.
pub(super) const LOOK: Duration = Duration::from_secs(1);
const LOOKED_AT: usize = 1_000;

/// A configuration, with the files that it is made of.
#[derive(Debug)]
pub(super) struct NamesFile {
    root: Root,
    path: PathBuf,
    stamps: BTreeMap<PathBuf, Stamp>,
    /// When it was last tried, and whether it could be read.
    tried: Option<(Instant, bool)>,
    looked: Instant,
}

impl NamesFile {
    /// The configuration in this file; `root` is where its paths begin, if that is
    /// not this host's root.
    pub(super) fn new(path: &Path, root: Option<&Path>) -> Self {
        let (root, path) = Root::of(path, root);
        Self {
            root,
            path,
            stamps: BTreeMap::new(),
            tried: None,
            looked: Instant::now(),
        }
    }

    /// What its first file is called on this host.
    pub(super) fn on_host(&self) -> PathBuf {
        self.root.on_host(&self.path)
    }

    /// Whether it was never read, is worth another try, or it or a file that it
    /// includes has changed.
    pub(super) fn is_due(&mut self) -> bool {
        let pace = LOOK * (1 + u32::try_from(self.stamps.len() / LOOKED_AT).unwrap_or(0));
        match self.tried {
            None => true,
            Some((at, false)) if at.elapsed() >= TRY_AGAIN => true,
            Some(_) if self.looked.elapsed() < pace => false,
            Some(_) => {
                self.looked = Instant::now();
                let mut stamps = self.stamps.iter();
                stamps.any(|(path, was)| sources::stamp(&self.root, path) != *was)
            }
        }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// Where it cannot be read or understood.
    pub(super) fn read(&mut self) -> Result<Found, NamesError> {
        let mut sources = Sources::new(self.root.clone());
        let read = self.read_from(&mut sources);
        self.stamps = sources.seen;
        self.tried = Some((Instant::now(), read.is_ok()));
        read
    }

    fn read_from(&self, sources: &mut Sources) -> Result<Found, NamesError> {
        let path = self.on_host();
        let text = match sources.read(&self.path) {
            Ok(text) => text,
            Err(source) => return Err(NamesError::Unreadable { path, source }),
        };
        match Form::of(&text) {
            Form::Nginx => Ok(nginx::parse(&text, &self.path, sources)),
            Form::HaProxy => Ok(haproxy::parse(&text)),
            Form::Yaml => {
                yaml::parse(&text).map_err(|message| NamesError::Syntax { path, message })
            }
        }
    }
}
