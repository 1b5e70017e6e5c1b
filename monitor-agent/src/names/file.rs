//! A configuration that names are read from, and that may change.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proxy_config::{Found, ReadError, Root, Sources, Stamps};

use super::NamesError;

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
    stamps: Stamps,
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
            stamps: Stamps::default(),
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
                self.stamps.have_changed()
            }
        }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// Where it cannot be read or understood.
    pub(super) fn read(&mut self) -> Result<Found, NamesError> {
        let mut sources = Sources::new(self.root.clone());
        let read = proxy_config::read(&self.path, &mut sources);
        self.stamps = sources.into_stamps();
        self.tried = Some((Instant::now(), read.is_ok()));
        let path = self.on_host();
        read.map_err(|error| match error {
            ReadError::Unreadable(source) => NamesError::Unreadable { path, source },
            ReadError::Syntax(message) => NamesError::Syntax { path, message },
        })
    }
}
