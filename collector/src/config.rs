//! What the flags mean, checked once: a `Config` cannot hold nonsense.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    args::RunArgs,
    token::{Token, TokenError},
};

/// A validated configuration.
#[derive(Debug)]
pub struct Config {
    pub(crate) listen_grpc: SocketAddr,
    pub(crate) listen_http: SocketAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) token: Token,
}

/// Why the flags cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An address that is not loopback.
    #[error(
        "--{flag} {address}: only loopback addresses (127.0.0.0/8, [::1]) are served, because \
         nothing on the way would be encrypted"
    )]
    NotLoopback {
        /// Which flag.
        flag: &'static str,
        /// Its value.
        address: SocketAddr,
    },
    /// The data directory cannot be made.
    #[error("cannot make the data directory {path}: give a writable place by --data-dir")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no usable token.
    #[error(transparent)]
    Token(#[from] TokenError),
}

impl Config {
    /// Checks the flags, makes the data directory and the token.
    ///
    /// # Errors
    /// Where a flag cannot be followed; the message says what to do.
    pub fn try_new(args: &RunArgs) -> Result<Self, ConfigError> {
        loopback("listen-grpc", args.listen_grpc)?;
        loopback("listen-http", args.listen_http)?;
        make_data_dir(&args.data_dir).map_err(|source| ConfigError::DataDir {
            path: args.data_dir.clone(),
            source,
        })?;
        Ok(Self {
            listen_grpc: args.listen_grpc,
            listen_http: args.listen_http,
            data_dir: args.data_dir.clone(),
            token: token(args)?,
        })
    }
}

fn loopback(flag: &'static str, address: SocketAddr) -> Result<(), ConfigError> {
    if address.ip().is_loopback() {
        Ok(())
    } else {
        Err(ConfigError::NotLoopback { flag, address })
    }
}

/// Reports tell who talks to whom: others on the machine need not read them.
fn make_data_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
}

/// The flag goes before the environment, and that before the made one.
fn token(args: &RunArgs) -> Result<Token, TokenError> {
    if let Some(path) = &args.token_file {
        return Token::read(path);
    }
    match std::env::var("SPEEDMIMI_TOKEN") {
        Ok(text) => Token::try_new(&text, "SPEEDMIMI_TOKEN"),
        Err(_) => Token::read_or_make(&args.data_dir.join("token")),
    }
}
