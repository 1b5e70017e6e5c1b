//! What is wrong with a configuration, in words that say where and what to do.

use std::path::PathBuf;

use settings::{Fault, SettingsError};

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line, the environment or the file.
    #[error("{}", daemon::error_chain(.0))]
    Settings(#[from] SettingsError),
    /// There is no file.
    #[error("no configuration is given: name one by --config FILE or SPEEDMIMI_PROXY_CONFIG")]
    NoFile,
    /// A host name or a certificate in it cannot be used.
    #[error("{path}: {what}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What, and why.
        what: String,
    },
    /// Well-formed, but not usable.
    #[error("{key}: {message}")]
    Invalid {
        /// The path of the key.
        key: String,
        /// The reason, and what to write instead.
        message: String,
    },
}

impl ConfigError {
    pub(super) fn invalid(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            key: key.into(),
            message: message.into(),
        }
    }

    pub(super) fn fault(fault: Fault) -> Self {
        Self::Settings(SettingsError::Fault(fault))
    }
}
