//! Follows the proxies' configurations that endpoints have their names from, and
//! looks their hosts up.
//!
//! Everything happens on threads of its own, and a configuration that cannot be
//! read is said so and tried again: counting never waits for it.

mod file;
mod follow;
mod hosts;
mod lookups;
mod targets;

use std::{io, path::PathBuf};

pub use follow::{FollowedNames, NamesState};
pub use targets::{FollowedFile, FollowedFiles, NamedEndpoint, NamesFiles};

/// Why there are no names.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// The file cannot be read.
    #[error("{path} cannot be read for names: check --names-from, and that the agent may read it")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a proxy's configuration.
    #[error("{path} is no configuration that names can be read of: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// What was given is neither a file nor a target's.
    #[error("{flag} {given}: give a path, or TARGET=PATH for one target alone")]
    Form {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: PathBuf,
    },
    /// The names are a target's that is not watched.
    #[error("{flag} {target}={path}: {target} is not watched; watched are: {watched}")]
    NotWatched {
        /// The flag.
        flag: &'static str,
        /// The target.
        target: String,
        /// Its file.
        path: PathBuf,
        /// Those that are watched.
        watched: String,
    },
}

#[cfg(test)]
mod tests;
