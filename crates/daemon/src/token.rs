//! Tokens: one line of visible ASCII, compared in constant time, never printed.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use subtle::ConstantTimeEq as _;

use crate::{FileError, read_text};

/// 32 random bytes make 64 hexadecimal digits.
const RANDOM_BYTES: usize = 32;
/// Shorter ones could be guessed.
const REQUIRED_BYTES_MIN: usize = 16;
const BYTES_MAX: usize = 4096;
/// Spaces and the end of the line around it.
const FILE_BYTES_MAX: u64 = 2 * BYTES_MAX as u64;

/// A token.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Which side of a connection a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that requires it: it must not be guessable.
    Requires,
    /// The one that shows it.
    Shows,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Too short, too long or not visible ASCII.
    #[error(
        "the token in {origin} cannot be used: it must be {bytes_min} to {BYTES_MAX} visible ASCII \
         characters on one line"
    )]
    Invalid {
        /// Where it came from.
        origin: String,
        /// The minimum.
        bytes_min: usize,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// The file cannot be made.
    #[error("cannot create the token file {path}: make its directory writable")]
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
    pub fn try_new(text: &str, origin: &str, side: Side) -> Result<Self, TokenError> {
        let bytes_min = match side {
            Side::Requires => REQUIRED_BYTES_MIN,
            Side::Shows => 1,
        };
        let token = text.trim();
        let bounded = (bytes_min..=BYTES_MAX).contains(&token.len());
        if bounded && token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(token.to_owned()));
        }
        Err(TokenError::Invalid {
            origin: origin.to_owned(),
            bytes_min,
        })
    }

    /// Reads a token from a file.
    ///
    /// # Errors
    /// Where the file cannot be read or holds no usable token.
    pub fn read(path: &Path, side: Side) -> Result<Self, TokenError> {
        let text = read_text(path, FILE_BYTES_MAX)?;
        Self::try_new(&text, &path.display().to_string(), side)
    }

    /// Reads `path`, or makes it with a new random token, mode 0600.
    ///
    /// # Errors
    /// Where the file can be neither read nor made.
    pub fn read_or_make(path: &Path) -> Result<Self, TokenError> {
        match Self::read(path, Side::Requires) {
            Err(TokenError::Read(error)) if error.is_missing() => {
                Self::make(path).map_err(|source| TokenError::Make {
                    path: path.to_owned(),
                    source,
                })
            }
            read => read,
        }
    }

    /// Written beside and renamed, so that a crash leaves no half token.
    fn make(path: &Path) -> io::Result<Self> {
        let token = Self::random()?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let beside = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        writeln!(file, "{}", token.0)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        Ok(token)
    }

    /// A new one.
    ///
    /// # Errors
    /// Where the system has no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0_u8; RANDOM_BYTES];
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = &mut bytes[filled..];
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(Self(bytes.iter().map(|b| format!("{b:02x}")).collect()))
    }

    /// The token itself, to be shown to whom it is for.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `shown` is this token, in a time that tells nothing of where they differ.
    #[must_use]
    pub fn matches(&self, shown: impl AsRef<[u8]>) -> bool {
        self.0.as_bytes().ct_eq(shown.as_ref()).into()
    }
}

/// Whether all users may read a file that is there; a group may be meant to.
#[must_use]
pub fn is_exposed(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o007 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_token_is_private_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/token");
        let made = Token::read_or_make(&path).unwrap();
        assert_eq!(made.0.len(), 2 * RANDOM_BYTES);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, is_exposed(&path)), (0o600, false));
        let again = Token::read_or_make(&path).unwrap();
        assert!(made.matches(&again.0));
        assert!(!made.matches("") && !made.matches(&again.0[1..]));
        assert!(!format!("{made:?}").contains(&again.0));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let long = "x".repeat(BYTES_MAX + 1);
        for text in [
            "",
            "\n",
            "two words of some length",
            "a\u{e9}aaaaaaaaaaaaaaa",
            &long,
        ] {
            for side in [Side::Requires, Side::Shows] {
                assert!(Token::try_new(text, "a test", side).is_err(), "{text:?}");
            }
        }
        assert!(Token::try_new("short", "a test", Side::Requires).is_err());
        let shown = Token::try_new("short\n", "a test", Side::Shows).unwrap();
        assert_eq!(shown.reveal(), "short");
        assert!(Token::try_new("0123456789abcdef\n", "a test", Side::Requires).is_ok());
        let missing = Token::read(Path::new("/nonexistent/token"), Side::Shows);
        assert!(matches!(missing, Err(TokenError::Read(error)) if error.is_missing()));
    }
}
