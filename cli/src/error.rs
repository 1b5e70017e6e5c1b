//! What can go wrong, and what to do then.

use std::{io, path::PathBuf};

use daemon::{FileError, token::TokenError};
use monitor_proto::display::printable;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The URL cannot be used.
    #[error(
        "--collector {url}: use a URL such as http://127.0.0.1:7601 or https://HOST:PORT, \
         without a path"
    )]
    BadUrl {
        /// As the user wrote it.
        url: String,
    },
    /// A file that was given cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds something else.
    #[error("{path} contains no PEM block with {wanted}: check the file")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// What was given is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No connection.
    #[error(
        "cannot reach the collector at {url}: start one with `speedmimi-collector run`, or \
         select another with --collector URL or SPEEDMIMI_COLLECTOR"
    )]
    Unreachable {
        /// The collector.
        url: String,
        /// Why.
        source: ureq::Error,
    },
    /// The collector says no.
    #[error("the collector at {url} answered {status}: {detail}")]
    Refused {
        /// The collector.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Its words.
        detail: String,
    },
    /// The collector knows no such host.
    #[error(
        "the collector at {url} has no host with the id or name {host:?}: see `speedmimi hosts`"
    )]
    UnknownHost {
        /// The collector.
        url: String,
        /// What was given.
        host: String,
    },
    /// The answer is not what a collector gives.
    #[error("the server at {url} is not a SpeedMimi collector: check --collector")]
    NotACollector {
        /// The address.
        url: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The answer broke off.
    #[error("the response of the collector at {url} ended early: try again")]
    BrokenOff {
        /// The collector.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// Options that do not go together.
    #[error("{0}")]
    Together(&'static str),
    /// There is no terminal to draw on.
    #[error("top needs a terminal: use `speedmimi top --once` in scripts")]
    NoTerminal,
    /// Nothing can be printed.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl CliError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::BadUrl { .. }
            | Self::File(_)
            | Self::NotPem { .. }
            | Self::Token(_)
            | Self::NoTerminal
            | Self::Together(_)
            // What was given means nothing to the collector.
            | Self::Refused { status: 400, .. } => crate::EX_USAGE,
            Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::UnknownHost { .. }
            | Self::NotACollector { .. }
            | Self::BrokenOff { .. }
            | Self::Output(_) => 1,
        }
    }

    /// The message and its causes on one line, safe for a terminal.
    pub(crate) fn with_causes(&self) -> String {
        let text = daemon::error_chain(self);
        printable(&text).into_owned()
    }
}
