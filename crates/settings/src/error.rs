//! What is wrong with a setting, where, and what may be written there.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use daemon::FileError;

use crate::document::Place;

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Bad usage; or help or the version, which are asked for in the same way.
    #[error("{}", usage(.0))]
    Usage(#[from] clap::Error),
    /// The file cannot be read.
    #[error("configuration file")]
    File(#[from] FileError),
    /// Its name does not tell its format.
    #[error("configuration file {0}: its name must end in .toml, .yaml, .yml or .json")]
    Suffix(PathBuf),
    /// A setting is wrong.
    #[error("{0}")]
    Fault(Fault),
}

/// The message alone: what clap adds to it is for a terminal.
fn usage(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.split("\n\nUsage:").next().unwrap_or_default();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file or the variable.
    origin: Option<String>,
    at: Option<Place>,
    key: String,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.at) {
            (Some(origin), Some(at)) => write!(f, "{origin}:{at}: ")?,
            (Some(origin), None) => write!(f, "{origin}: ")?,
            (None, Some(at)) => write!(f, "line {}, column {}: ", at.line, at.column)?,
            (None, None) => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

impl Fault {
    pub(crate) fn at(at: Place, what: impl Into<String>) -> Self {
        Self {
            at: Some(at),
            ..Self::of("", what)
        }
    }

    /// A fault of a key, wherever it is written.
    #[must_use]
    pub fn of(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            origin: None,
            at: None,
            key: key.into(),
            what: what.into(),
        }
    }

    pub(crate) fn with_key(mut self, key: &str) -> Self {
        key.clone_into(&mut self.key);
        self
    }

    pub(crate) fn with_origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// The same, in a place of a file.
    #[must_use]
    pub fn in_place(mut self, at: Option<Place>) -> Self {
        self.at = self.at.or(at);
        self
    }

    /// The same, of a file, unless it is known to be from elsewhere.
    #[must_use]
    pub fn in_file(mut self, path: &Path) -> SettingsError {
        self.origin
            .get_or_insert_with(|| path.display().to_string());
        SettingsError::Fault(self)
    }
}
