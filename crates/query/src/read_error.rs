//! Why the store gives no answer.

use budget::Exhausted;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("too many queries are waiting: try again shortly")]
    Busy,
    #[error("the collector is stopping")]
    Stopping,
    #[error("too many {0}")]
    TooMuch(&'static str),
    #[error("cannot read the store")]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}
