//! What the flags mean, checked once: a `Config` cannot hold nonsense.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use daemon::token::{self, Side, Token, TokenError};
use export::RemoteUrl;
use monitor_otlp::{Headers, HeadersError, OtlpUrl};
use problems::Thresholds;
use settings::{Setting, SettingsError};
use store::Retention;

use crate::{
    args::RunArgs,
    auth::Access,
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

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line, the environment or the file.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A setting does not go with another, or is not understood.
    #[error("{name}: {what}")]
    Setting {
        /// Its flag, its variable, or its place in the file.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The data directory cannot be made.
    #[error("cannot create the data directory {path}: set --data-dir to a writable place")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Headers that are none.
    #[error(transparent)]
    OtlpHeaders(#[from] HeadersError),
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
    /// Checks settings, and makes the data directory and the token.
    ///
    /// # Errors
    /// Where one cannot be followed; the message says what to do.
    pub fn try_new(args: &RunArgs, settings: &[Setting]) -> Result<Self, ConfigError> {
        Self::check(args, settings)?()
    }

    /// Checks settings; `settings` says where each is from.  What comes back makes the
    /// data directory and the token.
    ///
    /// # Errors
    /// Where one cannot be followed; the message says what to do.
    pub fn check(
        args: &RunArgs,
        settings: &[Setting],
    ) -> Result<impl FnOnce() -> Result<Self, ConfigError> + use<>, ConfigError> {
        let refuse = |key: &str, what: String| ConfigError::Setting {
            name: Setting::label(settings, key),
            what,
        };
        let tls = tls(args, &refuse)?;
        if !args.insecure && tls.is_none() {
            let addresses = [
                ("listen-grpc", args.listen_grpc),
                ("listen-http", args.listen_http),
            ];
            if let Some((key, address)) = addresses.iter().find(|(_, a)| !a.ip().is_loopback()) {
                return Err(refuse(
                    key,
                    format!(
                        "{address} is not a loopback address (127.0.0.0/8, [::1]), and nothing on \
                         the way would be encrypted: set --tls-cert and --tls-key, or --insecure \
                         where plaintext is acceptable"
                    ),
                ));
            }
        }
        let retention = Retention {
            age: args.retention_age,
            bytes: args.retention_bytes,
            accept_clock: args.accept_clock,
        };
        let remote_write = args.remote_write.iter().map(|url| {
            RemoteUrl::try_new(url).map_err(|error| refuse("remote-write", error.to_string()))
        });
        let remote_write = remote_write.collect::<Result<_, _>>()?;
        let otlp = args
            .otlp
            .iter()
            .map(|url| OtlpUrl::try_new(url).map_err(|error| refuse("otlp", error.to_string())));
        let otlp = otlp.collect::<Result<_, _>>()?;
        let otlp_headers = Headers::try_new(&std::env::var(Headers::VARIABLE).unwrap_or_default())?;
        let query_url = args.query_url.iter().map(|url| {
            RemoteUrl::try_new(url).map_err(|_| {
                let shown = url.split('@').next_back().unwrap_or_default();
                let what = format!(
                    "{shown:?}: use an http or https URL without a password and without \
                     /api/v1, such as http://prometheus:9090"
                );
                refuse("query-url", what)
            })
        });
        let query_url = query_url.collect::<Result<_, _>>()?;
        let thresholds = Thresholds::try_new(&args.problem_threshold)
            .map_err(|error| refuse("problem-threshold", error.to_string()))?;
        let token = given_token(args)?;
        let args = args.clone();
        Ok(move || {
            make_data_dir(&args.data_dir).map_err(|source| ConfigError::DataDir {
                path: args.data_dir.clone(),
                source,
            })?;
            let token = token.map_or_else(|| made_token(&args.data_dir), Ok)?;
            Ok(Self {
                listen_grpc: args.listen_grpc,
                listen_http: args.listen_http,
                access: Access::new(token, Tokens::open(&args.data_dir)?),
                data_dir: args.data_dir,
                tls,
                open_grpc: args.insecure || args.listen_grpc.ip().is_loopback(),
                open_http: args.insecure || args.listen_http.ip().is_loopback(),
                allow_host: args.allow_host,
                retention,
                memory_limit: args.memory_limit,
                remote_write,
                query_url,
                otlp,
                otlp_headers,
                thresholds,
            })
        })
    }
}

fn tls(
    args: &RunArgs,
    refuse: &dyn Fn(&str, String) -> ConfigError,
) -> Result<Option<(Arc<Tls>, Reload)>, ConfigError> {
    let (cert, key) = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => return Err(refuse("tls-cert", "needs --tls-key, too".to_owned())),
        (None, Some(_)) => return Err(refuse("tls-key", "needs --tls-cert, too".to_owned())),
        (None, None) if args.tls_client_ca.is_some() => {
            let what = "needs --tls-cert and --tls-key, too".to_owned();
            return Err(refuse("tls-client-ca", what));
        }
        (None, None) => return Ok(None),
    };
    let files = TlsFiles {
        cert: cert.clone(),
        key: key.clone(),
        client_ca: args.tls_client_ca.clone(),
    };
    Ok(Some(Tls::load(files)?))
}

/// Reports tell who talks to whom: others on the machine need not read them.
fn make_data_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
}

/// The flag goes before the environment.
fn given_token(args: &RunArgs) -> Result<Option<Token>, TokenError> {
    if let Some(path) = &args.token_file {
        return Token::read(path, Side::Requires).map(Some);
    }
    let text = std::env::var("SPEEDMIMI_TOKEN").ok();
    let token = text.map(|text| Token::try_new(&text, "SPEEDMIMI_TOKEN", Side::Requires));
    token.transpose()
}

fn made_token(data_dir: &Path) -> Result<Token, TokenError> {
    let path = data_dir.join("token");
    if token::is_exposed(&path) {
        tracing::warn!(
            path = %path.display(),
            "the token file is readable by all users: chmod o= it"
        );
    }
    Token::read_or_make(&path)
}
