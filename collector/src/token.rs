//! The token that writers must show.

use std::{
    fmt, fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use subtle::ConstantTimeEq;

/// 32 random bytes make 64 hexadecimal digits.
const RANDOM_BYTES: usize = 32;
/// Shorter tokens could be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 4096;

/// A token: visible ASCII, compared in constant time, never printed.
#[derive(Clone)]
pub(crate) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Too short, too long or not visible ASCII.
    #[error(
        "the token in {origin} cannot be used: it must be {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} \
         visible ASCII characters on one line"
    )]
    Invalid {
        /// Where it came from.
        origin: String,
    },
    /// The file cannot be read.
    #[error("cannot read the token file {path}: use an existing, readable file")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("cannot create the token file {path}: make the data directory writable")]
    Make {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Token {
    /// Checks a token; `origin` names where it came from.
    ///
    /// # Errors
    /// Where it is too short, too long or not visible ASCII.
    pub(crate) fn try_new(text: &str, origin: &str) -> Result<Self, TokenError> {
        let token = text.trim();
        let sound = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len())
            && token.bytes().all(|b| b.is_ascii_graphic());
        if sound {
            Ok(Self(token.to_owned()))
        } else {
            Err(TokenError::Invalid {
                origin: origin.to_owned(),
            })
        }
    }

    /// Reads a token from a file.
    ///
    /// # Errors
    /// Where the file cannot be read or holds no usable token.
    pub(crate) fn read(path: &Path) -> Result<Self, TokenError> {
        let text = fs::read_to_string(path).map_err(|source| TokenError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::try_new(&text, &path.display().to_string())
    }

    /// Reads `path`, or makes it with a new random token, mode 0600.
    ///
    /// # Errors
    /// Where it can be neither read nor made.
    pub(crate) fn read_or_make(path: &Path) -> Result<Self, TokenError> {
        match fs::metadata(path) {
            Ok(metadata) => {
                if metadata.permissions().mode() & 0o007 != 0 {
                    tracing::warn!(
                        path = %path.display(),
                        "the token file is readable by all users: chmod o= it"
                    );
                }
                Self::read(path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::make(path).map_err(|source| TokenError::Make {
                    path: path.to_owned(),
                    source,
                })
            }
            Err(source) => Err(TokenError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Written beside and renamed, so that a crash leaves no half token.
    fn make(path: &Path) -> io::Result<Self> {
        let token = Self::random()?;
        let beside = path.with_extension("new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(token.0.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        Ok(token)
    }

    /// A new one.
    pub(crate) fn random() -> io::Result<Self> {
        let mut bytes = [0u8; RANDOM_BYTES];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += rustix::rand::getrandom(
                &mut bytes[filled..],
                rustix::rand::GetRandomFlags::empty(),
            )?;
        }
        Ok(Self(bytes.iter().map(|b| format!("{b:02x}")).collect()))
    }

    /// The token itself, to be told to its user once.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `shown` is this token, in a time that tells nothing of where
    /// they differ.
    #[must_use]
    pub(crate) fn matches(&self, shown: &str) -> bool {
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_token_is_private_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let made = Token::read_or_make(&path).unwrap();
        assert_eq!(made.0.len(), 2 * RANDOM_BYTES);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let again = Token::read_or_make(&path).unwrap();
        assert!(made.matches(&again.0));
        assert!(!made.matches("") && !made.matches(&again.0[1..]));
        assert!(!format!("{made:?}").contains(&again.0));
    }

    #[test]
    fn unusable_tokens_are_refused() {
        for text in [
            "",
            "short",
            "sixteen chars ok?no: a space",
            "\u{202e}aaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(Token::try_new(text, "a test").is_err(), "{text:?}");
        }
        assert!(Token::try_new("0123456789abcdef\n", "a test").is_ok());
    }
}
