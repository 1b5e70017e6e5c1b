//! The token that a collector asks of who writes to it.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use daemon::{
    once_a_minute,
    token::{self, Side, TokenError},
};
use tonic::metadata::{Ascii, MetadataValue};

use crate::lock;

/// Where the token comes from.
#[derive(Clone)]
pub struct Token {
    file: Option<PathBuf>,
    // What was read last, by this one or by a clone of it.
    last: Arc<Mutex<Option<token::Token>>>,
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
    /// A token from a file, or else from the environment; both may be absent.  A file
    /// that is not there yet, or not readable yet, is looked for at each connection: a
    /// collector that starts at the same time makes it.
    ///
    /// # Errors
    /// Where what is there cannot be a token.
    pub fn new(file: Option<PathBuf>, environment: Option<String>) -> Result<Self, TokenError> {
        let last = match (&file, environment) {
            (Some(path), _) => match read(path) {
                Err(TokenError::Read(error)) if error.may_come() => {
                    tracing::warn!(
                        error = daemon::error_chain(&error),
                        "there is no token yet; the file is read again for every connection"
                    );
                    None
                }
                read => Some(read?),
            },
            (None, Some(text)) => {
                let origin = "SPEEDMIMI_TOKEN";
                Some(token::Token::try_new(&text, origin, Side::Shows)?)
            }
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
                tracing::warn!(
                    error = daemon::error_chain(&error),
                    "the token is as it was"
                );
            }
            Some(Err(_)) | None => {}
        }
        last.as_ref().and_then(bearer)
    }
}

fn read(path: &Path) -> Result<token::Token, TokenError> {
    token::Token::read(path, Side::Shows)
}

fn bearer(token: &token::Token) -> Option<MetadataValue<Ascii>> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.reveal()).parse().ok()?;
    // Kept out of debug output and of header compression.
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn a_token_that_the_collector_makes_later_is_awaited() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = Token::new(Some(path.clone()), None).unwrap();
        assert!(token.authorization().is_none());
        fs::write(&path, "made\n").unwrap();
        assert_eq!(token.authorization().unwrap(), "Bearer made");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let token = Token::new(None, Some("two words".to_owned()));
        assert!(matches!(token, Err(TokenError::Invalid { .. })));
        let directory = Token::new(Some("/".into()), None);
        assert!(matches!(directory, Err(TokenError::Read(_))));
        assert!(Token::new(None, None).unwrap().authorization().is_none());
    }
}
