//! The token that writes need.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::raw::RawAdmin;

/// Bytes of randomness in a token that is made here.
const TOKEN_BYTES: usize = 24;

/// A secret that is compared in constant time and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token([redacted])")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or made.
    #[error("cannot use the token file {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// The file or variable holds nothing.
    #[error("the token in {0} has fewer than 16 characters: write a longer one")]
    Short(String),
}

/// Where a token may come from, the first that is given wins.
#[derive(Default)]
pub struct Sources {
    /// `--token-file`.
    pub file: Option<PathBuf>,
    /// `SPEEDMIMI_TOKEN`.
    pub environment: Option<String>,
    /// `--data-dir`, where one is made on the first start.
    pub data_dir: PathBuf,
}

impl fmt::Debug for Sources {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sources")
            .field("file", &self.file)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

impl Sources {
    /// The token of an API that is at a loopback address or not. Where none can be
    /// had, one that others can reach is not opened; on loopback it can still be
    /// read.
    ///
    /// # Errors
    /// See [`Token::find`].
    pub fn find(&self, admin: &RawAdmin, is_loopback: bool) -> Result<Option<Token>, TokenError> {
        match Token::find(self, admin) {
            Ok(token) => Ok(Some(token)),
            Err(error @ TokenError::File { .. }) if is_loopback && self.file.is_none() => {
                tracing::warn!(
                    "{error}; the admin API can be read but not written: give --token-file"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The file that the token is in, where it is in one.
    #[must_use]
    pub fn file(&self, admin: &RawAdmin) -> Option<PathBuf> {
        if self.file.is_some() {
            return self.file.clone();
        }
        if self.environment.is_some() || admin.token.is_some() {
            return None;
        }
        let made = || self.data_dir.join("token");
        Some(admin.token_file.clone().unwrap_or_else(made))
    }
}

impl Token {
    /// Finds the token, or makes one in the data directory.
    ///
    /// # Errors
    /// [`TokenError`] where a file cannot be used or a token is too short.
    pub fn find(sources: &Sources, admin: &RawAdmin) -> Result<Self, TokenError> {
        if let Some(path) = sources.file(admin) {
            let is_given = sources.file.is_some() || admin.token_file.is_some();
            return if is_given || path.exists() {
                Self::read(&path)
            } else {
                Self::make(&path)
            };
        }
        match (&sources.environment, &admin.token) {
            (Some(text), _) => Self::check(text, "SPEEDMIMI_TOKEN"),
            (None, text) => Self::check(text.as_deref().unwrap_or_default(), "admin.token"),
        }
    }

    fn read(path: &Path) -> Result<Self, TokenError> {
        let text = std::fs::read_to_string(path).map_err(|source| file_error(path, source))?;
        Self::check(&text, &path.display().to_string())
    }

    fn check(text: &str, origin: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() < 16 {
            return Err(TokenError::Short(origin.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    fn make(path: &Path) -> Result<Self, TokenError> {
        let error = |source| file_error(path, source);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(error)?;
        }
        let mut random = [0_u8; TOKEN_BYTES];
        let mut source = std::fs::File::open("/dev/urandom").map_err(error)?;
        std::io::Read::read_exact(&mut source, &mut random).map_err(error)?;
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(error)?;
        writeln!(file, "{text}").map_err(error)?;
        tracing::info!(path = %path.display(), "created a token for the admin API");
        Ok(Self(text))
    }

    /// Whether `given` is the token, in a time that does not depend on how much
    /// of it is right.
    #[must_use]
    pub fn matches(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differing = own.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
        own.len() == given.len() && std::hint::black_box(differing) == 0
    }
}

fn file_error(path: &Path, source: std::io::Error) -> TokenError {
    TokenError::File {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_made_once_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let sources = Sources {
            data_dir: directory.path().join("new"),
            ..Sources::default()
        };
        let first = Token::find(&sources, &RawAdmin::default()).unwrap();
        assert_eq!(first, Token::find(&sources, &RawAdmin::default()).unwrap());
        let mode = std::fs::metadata(sources.data_dir.join("token"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(&first.0));
    }

    #[test]
    fn only_the_whole_token_matches() {
        let token = Token::check(" 0123456789abcdef\n", "test").unwrap();
        assert!(token.matches(b"0123456789abcdef"));
        assert!(!token.matches(b"0123456789abcdeg"));
        assert!(!token.matches(b"0123456789abcde"));
        assert!(!token.matches(b""));
        assert!(Token::check("short", "test").is_err());
    }
}
