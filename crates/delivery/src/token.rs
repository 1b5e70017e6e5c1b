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

/// What is told where there is no token yet.
pub const MISSING: &str =
    "there is no token yet: none is sent; the file is read again for every connection";

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
                // Whoever logs asks `missing` why.
                Err(TokenError::Read(error)) if error.may_come() => None,
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

    /// Why there is no token yet, where a file for it is given.
    #[must_use]
    pub fn missing(&self) -> Option<TokenError> {
        let path = self.file.as_deref()?;
        if lock(&self.last).is_some() {
            return None;
        }
        read(path).err()
    }

    /// Takes over what the one before read last of the same file, where this one could
    /// not read it.
    pub fn keep_of(&self, before: &Self) {
        if self.file.is_none() || self.file != before.file {
            return;
        }
        // Both may share the lock.
        let kept = lock(&before.last).clone();
        let mut last = lock(&self.last);
        if last.is_none() {
            *last = kept;
        }
    }

    /// What is sent as `authorization`.  The file is read again, so that a new
    /// token needs no restart; while it cannot be read the last one is used.
    #[must_use]
    pub fn authorization(&self) -> Option<MetadataValue<Ascii>> {
        let mut last = lock(&self.last);
        match self.file.as_deref().map(read) {
            Some(Ok(token)) => *last = Some(token),
            Some(Err(error)) if once_a_minute("the token") => {
                let error = daemon::error_chain(&error);
                if last.is_some() {
                    tracing::warn!(
                        error,
                        "the token file cannot be read: the last token is sent"
                    );
                } else {
                    tracing::warn!(error, "{MISSING}");
                }
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
    fn why_there_is_no_token_is_told_until_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = Token::new(Some(path.clone()), None).unwrap();
        assert!(matches!(token.missing(), Some(TokenError::Read(_))));
        fs::write(&path, "made\n").unwrap();
        assert!(token.missing().is_none());
        assert!(Token::new(None, None).unwrap().missing().is_none());
    }

    #[test]
    fn the_last_token_of_the_same_file_is_kept_while_it_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let of = |path: &Path| Token::new(Some(path.to_owned()), None).unwrap();
        fs::write(&path, "one\n").unwrap();
        let before = of(&path);
        fs::remove_file(&path).unwrap();
        let again = of(&path);
        assert!(again.authorization().is_none());
        again.keep_of(&before);
        assert_eq!(again.authorization().unwrap(), "Bearer one");
        again.keep_of(&again.clone());
        // One that can be read is newer.
        fs::write(&path, "two\n").unwrap();
        let newer = of(&path);
        newer.keep_of(&again);
        assert_eq!(newer.authorization().unwrap(), "Bearer two");
        // What another file held, or the environment, says nothing.
        let other = of(&dir.path().join("other"));
        other.keep_of(&newer);
        assert!(other.authorization().is_none());
        let none = Token::new(None, None).unwrap();
        none.keep_of(&Token::new(None, Some("three".to_owned())).unwrap());
        assert!(none.authorization().is_none());
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
