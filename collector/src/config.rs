//! What the flags mean, checked once: a `Config` cannot hold nonsense.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use daemon::{
    token::{self, Side, Token, TokenError},
    units::parse_bytes,
};
use export::{BadUrl, RemoteUrl};
use monitor_otlp::{BadOtlpUrl, Headers, HeadersError, OtlpUrl};
use problems::{BadThreshold, Thresholds};
use store::Retention;

use crate::{
    args::RunArgs,
    auth::Access,
    time,
    tls::{Reload, Tls, TlsError, TlsFiles},
    tokens::{Tokens, TokensError},
};

/// A validated configuration.
#[derive(Debug)]
pub struct Config {
    pub(crate) listen_grpc: SocketAddr,
    pub(crate) listen_http: SocketAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) access: Access,
    pub(crate) tls: Option<(Arc<Tls>, Reload)>,
    /// Whether reading needs no right: on loopback addresses, and where the
    /// user said that it is all right.
    pub(crate) open_grpc: bool,
    pub(crate) open_http: bool,
    /// Names of the HTTP port, in lower case.
    pub(crate) allow_host: Vec<String>,
    pub(crate) retention: Retention,
    pub(crate) memory_limit: u64,
    pub(crate) remote_write: Vec<RemoteUrl>,
    /// Where answers come from, if not from the store.
    pub(crate) query_url: Vec<RemoteUrl>,
    pub(crate) otlp: Vec<OtlpUrl>,
    pub(crate) otlp_headers: Headers,
    /// From which values on something is a problem.
    pub(crate) thresholds: Thresholds,
}

/// Why the flags cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An address that is not loopback.
    #[error(
        "--{flag} {address} is not a loopback address (127.0.0.0/8, [::1]), and nothing on the way \
         would be encrypted: set --tls-cert and --tls-key, or --insecure where plaintext is acceptable"
    )]
    NotLoopback {
        /// Which flag.
        flag: &'static str,
        /// Its value.
        address: SocketAddr,
    },
    /// The data directory cannot be made.
    #[error("cannot create the data directory {path}: set --data-dir to a writable place")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a duration.
    #[error("--retention-age {0:?}: use a duration of a second or more such as 12h, 30d or 52w")]
    RetentionAge(String),
    /// Not a size.
    #[error("--retention-bytes {0:?}: use a size of 1MiB or more such as 500MiB or 10GiB")]
    RetentionBytes(String),
    /// Not a host's name.
    #[error("--allow-host {0:?}: use a name alone such as monitor.example, without scheme or port")]
    AllowHost(String),
    /// Not a size, or too little.
    #[error("--memory-limit {0:?}: use a size of 64MiB or more such as 256MiB or 2GiB")]
    MemoryLimit(String),
    /// Not an engine's URL.
    #[error(
        "--query-url {0:?}: use an http or https URL without a password and without /api/v1, \
         such as http://prometheus:9090"
    )]
    QueryUrl(String),
    /// Not a receiver's URL.
    #[error(transparent)]
    RemoteWrite(#[from] BadUrl),
    /// Not a receiver's URL.
    #[error(transparent)]
    Otlp(#[from] BadOtlpUrl),
    /// Headers that are none.
    #[error(transparent)]
    OtlpHeaders(#[from] HeadersError),
    /// Not a threshold.
    #[error("--problem-threshold {0}")]
    Threshold(#[from] BadThreshold),
    /// There is no usable token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The tokens that were given out cannot be read.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Config {
    /// Checks the flags, makes the data directory and the token.
    ///
    /// # Errors
    /// Where a flag cannot be followed; the message says what to do.
    pub fn try_new(args: &RunArgs) -> Result<Self, ConfigError> {
        let tls = tls(args)?;
        if !args.insecure && tls.is_none() {
            loopback("listen-grpc", args.listen_grpc)?;
            loopback("listen-http", args.listen_http)?;
        }
        let retention = retention(args)?;
        let memory_limit = memory_limit(args)?;
        let remote_write = args
            .remote_write
            .iter()
            .map(|url| RemoteUrl::try_new(url))
            .collect::<Result<_, _>>()?;
        let otlp = args
            .otlp
            .iter()
            .map(|url| OtlpUrl::try_new(url))
            .collect::<Result<_, _>>()?;
        let otlp_headers = Headers::try_new(&std::env::var(Headers::VARIABLE).unwrap_or_default())?;
        let query_url = args
            .query_url
            .iter()
            .map(|url| {
                RemoteUrl::try_new(url).map_err(|_| {
                    let shown = url.split('@').next_back().unwrap_or("");
                    ConfigError::QueryUrl(shown.to_owned())
                })
            })
            .collect::<Result<_, _>>()?;
        make_data_dir(&args.data_dir).map_err(|source| ConfigError::DataDir {
            path: args.data_dir.clone(),
            source,
        })?;
        Ok(Self {
            listen_grpc: args.listen_grpc,
            listen_http: args.listen_http,
            data_dir: args.data_dir.clone(),
            access: Access::new(token(args)?, Tokens::open(&args.data_dir)?),
            tls,
            open_grpc: args.insecure || args.listen_grpc.ip().is_loopback(),
            open_http: args.insecure || args.listen_http.ip().is_loopback(),
            allow_host: allow_host(args)?,
            retention,
            memory_limit,
            remote_write,
            query_url,
            otlp,
            otlp_headers,
            thresholds: Thresholds::try_new(&args.problem_threshold)?,
        })
    }
}

fn allow_host(args: &RunArgs) -> Result<Vec<String>, ConfigError> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let names = args.allow_host.iter().map(|given| {
        let name = given.strip_suffix('.').unwrap_or(given);
        if name.is_empty() || !name.chars().all(of_name) {
            return Err(ConfigError::AllowHost(given.clone()));
        }
        Ok(name.to_ascii_lowercase())
    });
    names.collect()
}

fn retention(args: &RunArgs) -> Result<Retention, ConfigError> {
    const AGE_MIN: Duration = Duration::from_secs(1);
    const BYTES_MIN: u64 = 1 << 20;
    let age = time::age_ns(&args.retention_age)
        .map(Duration::from_nanos)
        .filter(|age| *age >= AGE_MIN)
        .ok_or_else(|| ConfigError::RetentionAge(args.retention_age.clone()))?;
    let bytes = parse_bytes(&args.retention_bytes)
        .ok()
        .filter(|bytes| *bytes >= BYTES_MIN)
        .ok_or_else(|| ConfigError::RetentionBytes(args.retention_bytes.clone()))?;
    Ok(Retention {
        age,
        bytes,
        accept_clock: args.accept_clock,
    })
}

fn memory_limit(args: &RunArgs) -> Result<u64, ConfigError> {
    /// A page of reports, a large report and a scrape find room in their shares.
    const BYTES_MIN: u64 = 64 << 20;
    parse_bytes(&args.memory_limit)
        .ok()
        .filter(|bytes| *bytes >= BYTES_MIN)
        .ok_or_else(|| ConfigError::MemoryLimit(args.memory_limit.clone()))
}

fn loopback(flag: &'static str, address: SocketAddr) -> Result<(), ConfigError> {
    if address.ip().is_loopback() {
        Ok(())
    } else {
        Err(ConfigError::NotLoopback { flag, address })
    }
}

fn tls(args: &RunArgs) -> Result<Option<(Arc<Tls>, Reload)>, TlsError> {
    let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) else {
        return Ok(None);
    };
    let files = TlsFiles {
        cert: cert.clone(),
        key: key.clone(),
        client_ca: args.tls_client_ca.clone(),
    };
    Tls::load(files).map(Some)
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
        return Token::read(path, Side::Requires);
    }
    match std::env::var("SPEEDMIMI_TOKEN") {
        Ok(text) => Token::try_new(&text, "SPEEDMIMI_TOKEN", Side::Requires),
        Err(_) => {
            let path = args.data_dir.join("token");
            if token::is_exposed(&path) {
                tracing::warn!(
                    path = %path.display(),
                    "the token file is readable by other users: chmod 600 it"
                );
            }
            Token::read_or_make(&path)
        }
    }
}
