//! TLS on both listeners: certificates that can be replaced while the
//! collector runs, and what a client's certificate allows.
//!
//! A connection keeps the configuration that it began with; new connections
//! take the newest one that could be used.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use daemon::{FileError, read_file};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::{extensions::GeneralName, prelude::FromDer as _};

/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// A chain of certificates is small.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The name in a client's certificate that gives the right to read.
const READ_URI: &str = "urn:speedmimi:read";

/// Where certificates and keys are.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: Option<PathBuf>,
}

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no PEM.
    #[error("{path} is not a PEM file with a certificate or key")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// It holds no certificate.
    #[error("{0} contains no certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate(PathBuf),
    /// The two files do not belong together, or hold what cannot be used.
    #[error("the certificate {cert} does not match the private key {key}: set a matching pair")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The clients' authorities cannot be used.
    #[error("the certificates in {path} cannot be used as client CAs")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Which protocol a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Agents must show a certificate where authorities of clients are given.
    Grpc,
    /// Browsers need not: they may show a token.
    Http,
}

/// What the files held when they were last read.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Configs {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

/// The newest configuration.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    configs: RwLock<Configs>,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn load(files: TlsFiles) -> Result<(Arc<Self>, Reload), TlsError> {
        let contents = read_all(&files)?;
        let configs = RwLock::new(configs(&files, &contents)?);
        let tls = Arc::new(Self { files, configs });
        let reload = Reload {
            tls: Arc::clone(&tls),
            seen: Ok(contents),
        };
        Ok((tls, reload))
    }

    /// For a new connection.
    pub(crate) fn config(&self, protocol: Protocol) -> Arc<ServerConfig> {
        let configs = self.configs.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(match protocol {
            Protocol::Grpc => &configs.grpc,
            Protocol::Http => &configs.http,
        })
    }
}

/// Looks for new files.
#[derive(Debug)]
pub(crate) struct Reload {
    tls: Arc<Tls>,
    // What was read last, or why it could not be.
    seen: Result<Contents, String>,
}

impl Reload {
    /// Never returns.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            self.look();
        }
    }

    /// A certificate and its key are two files: between the two renames they
    /// do not go together, and the next look finds them well.
    fn look(&mut self) {
        let files = &self.tls.files;
        let contents = read_all(files).map_err(|error| daemon::error_chain(&error));
        if contents == self.seen {
            return;
        }
        let configs = contents
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|contents| {
                configs(files, contents).map_err(|error| daemon::error_chain(&error))
            });
        match configs {
            Ok(configs) => {
                let current = self.tls.configs.write();
                *current.unwrap_or_else(PoisonError::into_inner) = configs;
                tracing::info!(certificate = %files.cert.display(), "certificate reloaded");
            }
            Err(error) => {
                tracing::error!(
                    error,
                    "cannot reload the certificate: the old one stays in use"
                );
            }
        }
        self.seen = contents;
    }
}

fn read_all(files: &TlsFiles) -> Result<Contents, TlsError> {
    Ok(Contents {
        cert: read(&files.cert)?,
        key: read(&files.key)?,
        client_ca: files.client_ca.as_deref().map(read).transpose()?,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    Ok(read_file(path, FILE_BYTES_MAX)?)
}

fn configs(files: &TlsFiles, contents: &Contents) -> Result<Configs, TlsError> {
    let chain = certificates(&files.cert, &contents.cert)?;
    warn_of_validity(&files.cert, &chain);
    let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|source| TlsError::Pem {
        path: files.key.clone(),
        source,
    })?;
    let provider = Arc::new(ring::default_provider());
    let config = |verifier: Option<Arc<dyn ClientCertVerifier>>, alpn: &[u8]| {
        let pair = |source| TlsError::Pair {
            cert: files.cert.clone(),
            key: files.key.clone(),
            source,
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(pair)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok::<_, TlsError>(Arc::new(config))
    };
    let (required, optional) = match (&files.client_ca, &contents.client_ca) {
        (Some(path), Some(pem)) => {
            let (required, optional) = verifiers(path, pem, &provider)?;
            (Some(required), Some(optional))
        }
        _ => (None, None),
    };
    Ok(Configs {
        grpc: config(required, b"h2")?,
        http: config(optional, b"http/1.1")?,
    })
}

type Verifier = Arc<dyn ClientCertVerifier>;

/// One that wants a certificate, and one that does without.
fn verifiers(
    path: &Path,
    pem: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<(Verifier, Verifier), TlsError> {
    let unusable = |source: Box<dyn std::error::Error + Send + Sync>| TlsError::ClientCa {
        path: path.to_owned(),
        source,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(error.into()))?;
    }
    let roots = Arc::new(roots);
    let builder =
        || WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
    let required = builder().build().map_err(|error| unusable(error.into()))?;
    let optional = builder()
        .allow_unauthenticated()
        .build()
        .map_err(|error| unusable(error.into()))?;
    Ok((required, optional))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem {
            path: path.to_owned(),
            source,
        })?;
    if found.is_empty() {
        Err(TlsError::NoCertificate(path.to_owned()))
    } else {
        Ok(found)
    }
}

/// Clients will refuse such a certificate: this says why.
fn warn_of_validity(path: &Path, chain: &[CertificateDer<'_>]) {
    let Some(validity) = chain
        .first()
        .and_then(|der| parsed(der))
        .map(|c| c.validity)
    else {
        return;
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        });
    if validity.not_after.timestamp() < now {
        tracing::warn!(
            certificate = %path.display(),
            since = %validity.not_after,
            "the certificate has expired and clients reject it: renew it"
        );
    } else if validity.not_before.timestamp() > now {
        tracing::warn!(
            certificate = %path.display(),
            until = %validity.not_before,
            "the certificate is not valid yet and clients reject it: check it and the clock"
        );
    }
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> Option<x509_parser::certificate::TbsCertificate<'a>> {
    x509_parser::certificate::X509Certificate::from_der(der)
        .ok()
        .map(|(_, certificate)| certificate.tbs_certificate)
}

/// Whom a client's certificate names.  Only subject alternative names count: a
/// common name is no identity (RFC 9525).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// DNS names: the ids of the hosts whose reports it may bring.
    pub(crate) hosts: Vec<String>,
    /// Whether it may read.
    pub(crate) reads: bool,
}

/// What a verified certificate allows.
pub(crate) fn identity(der: &CertificateDer<'_>) -> Identity {
    let mut identity = Identity::default();
    let Some(certificate) = parsed(der) else {
        return identity;
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return identity;
    };
    for name in &names.value.general_names {
        match name {
            GeneralName::DNSName(name) => identity.hosts.push((*name).to_owned()),
            GeneralName::URI(uri) => identity.reads |= *uri == READ_URI,
            _ => {}
        }
    }
    identity
}
