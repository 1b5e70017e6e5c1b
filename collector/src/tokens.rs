//! Tokens that were given out: each brings reports of one host, or reads.
//!
//! `DATA_DIR/tokens.json` holds their hashes, never the tokens: a token has
//! 256 random bits, so one round of SHA-256 is as good as it gets.  Every
//! change replaces the file, and a running collector sees it at the next use.

use std::{
    fmt, fs,
    fs::File,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use daemon::{FileError, read_file, token::Token};

const FILE_NAME: &str = "tokens.json";
const LOCK_NAME: &str = "tokens.lock";
/// Tens of thousands of tokens.
const FILE_BYTES_MAX: u64 = 16 << 20;
const ID_DIGITS: usize = 12;
const HOST_ID_BYTES_MAX: usize = 256;

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "right")]
pub enum Right {
    /// Bringing reports of this host and of no other.
    Write {
        /// The host's id.
        host_id: String,
    },
    /// Reading everything.
    Read,
}

/// A token, without itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is called when it is revoked.
    pub id: String,
    sha256: String,
    /// What it is for.
    #[serde(flatten)]
    pub right: Right,
    /// When it was made.
    pub created: Timestamp,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    tokens: Vec<Entry>,
}

/// Why the tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// It is damaged.
    #[error(
        "{path} is not a token file of `speedmimi-collector token`: restore it, or remove it and \
         create new tokens"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It cannot be replaced.
    #[error("cannot write {path}: run this as the collector's user or as root")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No host has such an id.
    #[error("invalid --host-id: it must have 1 to 256 bytes and no control characters")]
    HostId,
    /// There is no such token.
    #[error("no such token {0:?}: see `speedmimi-collector token list`")]
    Unknown(String),
}

/// Whether an agent can have this id: 32 hexadecimal digits.  The contract lets
/// others that report name themselves as they like.
#[must_use]
pub fn is_id_of_agent(host_id: &str) -> bool {
    host_id.len() == 32 && host_id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Makes a token; it is told this once and kept nowhere.
///
/// # Errors
/// Where the file cannot be replaced.
pub fn add(data_dir: &Path, right: Right) -> Result<(Entry, String), TokensError> {
    if let Right::Write { host_id } = &right {
        let sound = (1..=HOST_ID_BYTES_MAX).contains(&host_id.len());
        if !sound || host_id.chars().any(char::is_control) {
            return Err(TokensError::HostId);
        }
    }
    change(data_dir, |kept| {
        let random = || {
            Token::random().map_err(|source| TokensError::Write {
                path: data_dir.join(FILE_NAME),
                source,
            })
        };
        let secret = random()?.reveal().to_owned();
        let mut id = random()?.reveal().to_owned();
        id.truncate(ID_DIGITS);
        let entry = Entry {
            id,
            sha256: hex(&Sha256::digest(secret.as_bytes())),
            right,
            created: Timestamp::now(),
        };
        kept.tokens.push(entry.clone());
        Ok((entry, secret))
    })
}

/// All tokens, oldest first.
///
/// # Errors
/// Where the file cannot be read.
pub fn list(data_dir: &Path) -> Result<Vec<Entry>, TokensError> {
    Ok(read(&data_dir.join(FILE_NAME))?.tokens)
}

/// Takes a token back; streams that showed it end with their next report.
///
/// # Errors
/// Where there is none, or the file cannot be replaced.
pub fn revoke(data_dir: &Path, id: &str) -> Result<Entry, TokensError> {
    change(data_dir, |kept| {
        let at = kept.tokens.iter().position(|entry| entry.id == id);
        at.map(|at| kept.tokens.remove(at))
            .ok_or_else(|| TokensError::Unknown(id.to_owned()))
    })
}

/// One process at a time reads, changes and replaces the file.
fn change<T>(
    data_dir: &Path,
    change: impl FnOnce(&mut Kept) -> Result<T, TokensError>,
) -> Result<T, TokensError> {
    let path = data_dir.join(FILE_NAME);
    let failed = |source| TokensError::Write {
        path: path.clone(),
        source,
    };
    let lock = private(&data_dir.join(LOCK_NAME), false).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let mut kept = read(&path)?;
    let result = change(&mut kept)?;
    replace(data_dir, &path, &kept).map_err(failed)?;
    Ok(result)
}

/// The file belongs to who owns the directory: the collector must read what
/// root made.
fn replace(data_dir: &Path, path: &Path, kept: &Kept) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = private(&beside, true)?;
    serde_json::to_writer_pretty(&mut file, kept)?;
    file.write_all(b"\n")?;
    let (directory, own) = (fs::metadata(data_dir)?, file.metadata()?);
    if (directory.uid(), directory.gid()) != (own.uid(), own.gid()) {
        std::os::unix::fs::fchown(&file, Some(directory.uid()), Some(directory.gid()))?;
    }
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(data_dir)?.sync_all()
}

fn private(path: &Path, empty: bool) -> io::Result<File> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(empty)
        .mode(0o600)
        .open(path)
}

fn read(path: &Path) -> Result<Kept, TokensError> {
    let text = match read_file(path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(error) if error.is_missing() => return Ok(Kept::default()),
        Err(error) => return Err(error.into()),
    };
    serde_json::from_slice(&text).map_err(|source| TokensError::Damaged {
        path: path.to_owned(),
        source,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tells one version of the file from the next: a rename gives a new inode.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let m = fs::metadata(path).ok()?;
    Some((m.ino(), m.len(), m.mtime(), m.mtime_nsec()))
}

struct Current {
    stamp: Stamp,
    tokens: Arc<[Entry]>,
}

/// The tokens as a running collector knows them.
pub(crate) struct Tokens {
    path: PathBuf,
    current: Mutex<Current>,
    generation: AtomicU64,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads the file; there need not be one.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, TokensError> {
        let path = data_dir.join(FILE_NAME);
        let stamp = stamp(&path);
        let tokens = read(&path)?.tokens.into();
        Ok(Self {
            path,
            current: Mutex::new(Current { stamp, tokens }),
            generation: AtomicU64::new(0),
        })
    }

    /// Reads the file again where it is another one.  Where it cannot be used
    /// the tokens before count, and the log says so once.
    pub(crate) fn refresh(&self) -> Arc<[Entry]> {
        let now = stamp(&self.path);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.stamp != now {
            current.stamp = now;
            match read(&self.path) {
                Ok(kept) => {
                    current.tokens = kept.tokens.into();
                    self.generation.fetch_add(1, Relaxed);
                    tracing::info!(tokens = current.tokens.len(), "tokens reloaded");
                }
                Err(error) => {
                    tracing::error!(%error, "cannot reload tokens: the old ones stay valid");
                }
            }
        }
        Arc::clone(&current.tokens)
    }

    /// Another number after each change.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// The token that was shown.  All are looked at, in a time that tells
    /// nothing of where they differ.
    pub(crate) fn find(&self, shown: &str) -> Option<Entry> {
        let shown = hex(&Sha256::digest(shown.as_bytes()));
        let mut found = None;
        for entry in self.refresh().iter() {
            if bool::from(entry.sha256.as_bytes().ct_eq(shown.as_bytes())) {
                found = Some(entry.clone());
            }
        }
        found
    }

    /// Whether it was not taken back.
    pub(crate) fn holds(&self, id: &str) -> bool {
        self.refresh().iter().any(|entry| entry.id == id)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write(host_id: &str) -> Right {
        Right::Write {
            host_id: host_id.to_owned(),
        }
    }

    #[test]
    fn tokens_are_found_until_they_are_taken_back_and_only_hashes_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        let (one, secret) = add(dir.path(), write("h1")).unwrap();
        let (two, reading) = add(dir.path(), Right::Read).unwrap();
        assert_eq!(tokens.find(&secret), Some(one.clone()));
        assert_eq!(tokens.find(&reading), Some(two.clone()));
        assert_eq!(tokens.find(&secret[1..]), None);
        assert_eq!(tokens.find(&one.sha256), None, "the hash is no token");
        assert_eq!(list(dir.path()).unwrap(), [one.clone(), two.clone()]);

        let path = dir.path().join(FILE_NAME);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&secret) && !text.contains(&reading));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let before = tokens.generation();
        assert_eq!(revoke(dir.path(), &one.id).unwrap(), one);
        assert!(!tokens.holds(&one.id) && tokens.holds(&two.id));
        assert_ne!(tokens.generation(), before);
        assert!(matches!(
            revoke(dir.path(), &one.id),
            Err(TokensError::Unknown(_))
        ));
    }

    #[test]
    fn a_damaged_file_is_told_and_takes_no_right_from_anyone() {
        let dir = tempfile::tempdir().unwrap();
        let (_, secret) = add(dir.path(), write("h1")).unwrap();
        let tokens = Tokens::open(dir.path()).unwrap();
        fs::write(dir.path().join(FILE_NAME), "{\"tokens\": [{}]}").unwrap();
        assert!(tokens.find(&secret).is_some());
        assert!(matches!(
            Tokens::open(dir.path()),
            Err(TokensError::Damaged { .. })
        ));
    }

    #[test]
    fn no_host_has_an_empty_id_or_one_of_control_characters() {
        let dir = tempfile::tempdir().unwrap();
        for id in ["", "a\nb", &"x".repeat(257)] {
            assert!(matches!(
                add(dir.path(), write(id)),
                Err(TokensError::HostId)
            ));
        }
    }
}
