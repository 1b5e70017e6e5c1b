//! The token that a collector asks of who writes to it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use daemon::once_a_minute;
use tonic::metadata::{Ascii, MetadataValue};

use crate::lock;

/// A token is short.
const TOKEN_BYTES_MAX: usize = 4_096;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("token file {path} cannot be read; the collector makes one as DATA_DIR/token")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was given cannot be sent.
    #[error("{0} has no valid token: write one line of visible ASCII characters")]
    Invalid(String),
}

/// Where the token comes from.
#[derive(Clone)]
pub struct Token {
    file: Option<PathBuf>,
    // What was read last, by this one or by a clone of it.
    last: Arc<Mutex<Option<MetadataValue<Ascii>>>>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token itself is a secret.
        f.debug_struct("Token")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Token {
    /// A token from a file, or else from the environment; both may be absent.
    ///
    /// # Errors
    /// Where the file cannot be read now, or what is there cannot be a token.
    pub fn new(file: Option<PathBuf>, environment: Option<String>) -> Result<Self, TokenError> {
        let last = match (&file, environment) {
            (Some(path), _) => Some(read(path)?),
            (None, Some(text)) => Some(value(&text, "SPEEDMIMI_TOKEN")?),
            (None, None) => None,
        };
        let last = Arc::new(Mutex::new(last));
        Ok(Self { file, last })
    }

    /// What is sent as `authorization`.  The file is read again, so that a new
    /// token needs no restart; while it cannot be read the last one is used.
    #[must_use]
    pub fn authorization(&self) -> Option<MetadataValue<Ascii>> {
        let mut last = lock(&self.last);
        match self.file.as_deref().map(read) {
            Some(Ok(token)) => *last = Some(token),
            Some(Err(error)) if once_a_minute("the token") => {
                tracing::warn!(%error, "the last token is used");
            }
            Some(Err(_)) | None => {}
        }
        last.clone()
    }
}

fn read(path: &Path) -> Result<MetadataValue<Ascii>, TokenError> {
    let text = fs::read_to_string(path).map_err(|source| TokenError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    value(&text, &path.display().to_string())
}

fn value(text: &str, origin: &str) -> Result<MetadataValue<Ascii>, TokenError> {
    let token = text.trim();
    let visible = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    let invalid = || TokenError::Invalid(origin.to_owned());
    if !visible || token.len() > TOKEN_BYTES_MAX {
        return Err(invalid());
    }
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {token}").parse().map_err(|_| invalid())?;
    // Kept out of debug output and of header compression.
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_needs_no_restart_and_a_missing_one_does_not_end_delivery() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "one\n").unwrap();
        let token = Token::new(Some(path.clone()), None).unwrap();
        assert_eq!(token.authorization().unwrap(), "Bearer one");
        fs::write(&path, "two\n").unwrap();
        assert_eq!(token.authorization().unwrap(), "Bearer two");
        fs::remove_file(&path).unwrap();
        assert_eq!(token.authorization().unwrap(), "Bearer two");
        assert!(!format!("{token:?}").contains("two"));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "\n", "two words", "a\u{e9}", &"x".repeat(5_000)] {
            let token = Token::new(None, Some((*text).to_owned()));
            assert!(matches!(token, Err(TokenError::Invalid(_))), "{text}");
        }
        let missing = Token::new(Some("/nonexistent/token".into()), None);
        assert!(matches!(missing, Err(TokenError::Unreadable { .. })));
        assert!(Token::new(None, None).unwrap().authorization().is_none());
    }
}
