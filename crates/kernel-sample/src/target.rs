//! What is watched.

use std::{path::PathBuf, sync::Arc};

/// A cgroup to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its directory.
    pub path: PathBuf,
    /// Its path below the cgroup2 mount; `/` is the whole host.
    pub label: Arc<str>,
}
