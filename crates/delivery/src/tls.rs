//! TLS to the collector, by rustls.
//!
//! The files are read again for every connection: a renewed certificate needs
//! no restart.

use std::path::PathBuf;

use daemon::{AUTHORITIES_BYTES_MAX, FileError, read_file, system_authorities};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Uri};

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There are no authorities to trust.
    #[error(
        "the system has no list of authorities: install ca-certificates, or name the one of the \
         collector by --ca-cert"
    )]
    NoAuthorities,
    /// What the files hold cannot be used.
    #[error(
        "{files} cannot be used: --ca-cert wants certificates in PEM, --client-cert and \
         --client-key a certificate and its own key"
    )]
    Unusable {
        /// Which files.
        files: String,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// Whom to trust, and what to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities of the collector; those of the system where absent.
    pub ca_cert: Option<PathBuf>,
    /// The agent's own certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// An endpoint that is spoken to by TLS.
    ///
    /// # Errors
    /// Where a file cannot be read or used.
    pub fn endpoint(&self, collector: &Uri) -> Result<Endpoint, TlsError> {
        let authorities = match &self.ca_cert {
            Some(path) => path.as_path(),
            None => system_authorities().ok_or(TlsError::NoAuthorities)?,
        };
        let read = |path| read_file(path, AUTHORITIES_BYTES_MAX);
        let mut config =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(authorities)?));
        let mut files = authorities.display().to_string();
        if let Some((cert, key)) = &self.client {
            config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
            files = format!("{files}, {} or {}", cert.display(), key.display());
        }
        Endpoint::from(collector.clone())
            .tls_config(config)
            .map_err(|source| TlsError::Unusable { files, source })
    }
}
