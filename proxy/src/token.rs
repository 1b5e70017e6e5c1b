//! Where the token comes from that writes to the admin API need.

use std::fmt;
use std::path::PathBuf;

use daemon::token::{Side, Token, TokenError};

use crate::config::raw::RawAdmin;

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
    /// See [`Sources::token`].
    pub fn find(&self, admin: &RawAdmin, is_loopback: bool) -> Result<Option<Token>, TokenError> {
        match self.token(admin) {
            Ok(token) => Ok(Some(token)),
            Err(error @ (TokenError::Read(_) | TokenError::Make { .. }))
                if is_loopback && self.file.is_none() =>
            {
                let error = daemon::error_chain(&error);
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

    /// Finds the token, or makes one in the data directory.
    ///
    /// # Errors
    /// [`TokenError`] where a file cannot be used or a token is too short.
    pub fn token(&self, admin: &RawAdmin) -> Result<Token, TokenError> {
        if let Some(path) = self.file(admin) {
            let is_given = self.file.is_some() || admin.token_file.is_some();
            return if is_given {
                Token::read(&path, Side::Requires)
            } else {
                Token::read_or_make(&path)
            };
        }
        let (text, origin) = match (&self.environment, &admin.token) {
            (Some(text), _) => (text.as_str(), "SPEEDMIMI_TOKEN"),
            (None, text) => (text.as_deref().unwrap_or_default(), "admin.token"),
        };
        Token::try_new(text, origin, Side::Requires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_one_that_is_given_counts_more() {
        let directory = tempfile::tempdir().unwrap();
        let mut sources = Sources {
            data_dir: directory.path().join("new"),
            ..Sources::default()
        };
        let mut admin = RawAdmin::default();
        let first = sources.token(&admin).unwrap();
        assert!(sources.token(&admin).unwrap().matches(first.reveal()));
        admin.token = Some("of the file, with spaces".to_owned());
        assert!(matches!(
            sources.token(&admin),
            Err(TokenError::Invalid { .. })
        ));
        sources.environment = Some("0123456789abcdef".to_owned());
        assert!(sources.token(&admin).unwrap().matches("0123456789abcdef"));
        sources.file = Some(directory.path().join("missing"));
        assert!(matches!(
            sources.find(&admin, true),
            Err(TokenError::Read(_))
        ));
    }
}
