//! TLS on both sides, by rustls with ring.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Where systems keep the authorities they trust.
const SYSTEM_AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be used.
    #[error("cannot use the PEM file {path}: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: rustls::pki_types::pem::Error,
    },
    /// A PEM file holds nothing of use.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    /// Certificate and key do not go together, or cannot be used.
    #[error("certificate {cert} and key {key}: {source}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The reason.
        source: rustls::Error,
    },
    /// There are no authorities to trust.
    #[error("the system has no list of authorities: install ca-certificates or set ca_file")]
    NoAuthorities,
    /// A backend's host cannot be in a certificate.
    #[error("\"{0}\" cannot be the name in a certificate")]
    Name(String),
}

/// TLS for clients: the certificate chain and its key.
///
/// # Errors
/// [`TlsError`] where a file cannot be used.
pub fn server(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem {
        path: key.to_owned(),
        source,
    })?;
    let pair = |source| TlsError::Pair {
        cert: cert.to_owned(),
        key: key.to_owned(),
        source,
    };
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Tickets let clients resume on any worker.
    config.ticketer = ring::Ticketer::new().map_err(pair)?;
    Ok(Arc::new(config))
}

/// TLS towards backends whose certificates are signed by an authority in
/// `authorities`, or by one that the system trusts.
///
/// # Errors
/// [`TlsError`] where a file cannot be used.
pub fn client(authorities: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let file = match authorities {
        Some(file) => file,
        None => SYSTEM_AUTHORITIES
            .iter()
            .map(Path::new)
            .find(|path| path.exists())
            .ok_or(TlsError::NoAuthorities)?,
    };
    let mut roots = RootCertStore::empty();
    let (_, _) = roots.add_parsable_certificates(certificates(file)?);
    if roots.is_empty() {
        return Err(TlsError::Empty(file.to_owned()));
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Pair {
            cert: file.to_owned(),
            key: file.to_owned(),
            source,
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The name that a backend's certificate has to bear.
///
/// # Errors
/// [`TlsError::Name`] where `host` is neither a name nor an address.
pub fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |source| TlsError::Pem {
        path: file.to_owned(),
        source,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .map_err(error)?
        .collect();
    let found = found.map_err(error)?;
    if found.is_empty() {
        Err(TlsError::Empty(file.to_owned()))
    } else {
        Ok(found)
    }
}
