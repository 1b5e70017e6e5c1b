//! TLS on both sides, by rustls with ring.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemon::{AUTHORITIES_BYTES_MAX, FileError, read_file, system_authorities};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}", daemon::error_chain(.0))]
    File(#[from] FileError),
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
    /// The authorities cannot be used.
    #[error("CA certificates in {path}: {source}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: VerifierBuilderError,
    },
    /// There are no authorities to trust.
    #[error("no CA bundle of the system was found: install ca-certificates or set ca_file")]
    NoAuthorities,
    /// A backend's host cannot be in a certificate.
    #[error("\"{0}\" cannot be the name in a certificate")]
    Name(String),
}

/// TLS for clients: the certificate chain and its key. The tickets that `earlier`
/// gave stay good: their key changes by time, not with a reload.
///
/// # Errors
/// [`TlsError`] where a file cannot be used.
pub fn server(
    cert: &Path,
    key: &Path,
    earlier: Option<&ServerConfig>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_slice(&read_file(key, AUTHORITIES_BYTES_MAX)?);
    let private = private.map_err(|source| TlsError::Pem {
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
    config.ticketer = match earlier {
        Some(earlier) => Arc::clone(&earlier.ticketer),
        None => ring::Ticketer::new().map_err(pair)?,
    };
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
        None => system_authorities().ok_or(TlsError::NoAuthorities)?,
    };
    let certificates = certificates(file)?;
    let mut roots = RootCertStore::empty();
    let (_, unusable) = roots.add_parsable_certificates(certificates.iter().cloned());
    if roots.is_empty() {
        return Err(TlsError::Empty(file.to_owned()));
    }
    if unusable > 0 {
        tracing::warn!(file = %file.display(), unusable, "some certificates cannot be used as CA certificates");
    }
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(roots);
    let usual = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|source| TlsError::Authorities {
            path: file.to_owned(),
            source,
        })?;
    let named = match authorities {
        Some(_) => certificates,
        None => Vec::new(),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Pair {
            cert: file.to_owned(),
            key: file.to_owned(),
            source,
        })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { usual, named }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Checks certificates as usual, and takes one that is an authority's own where
/// `ca_file` holds exactly this certificate: what `openssl req -x509` makes is
/// one, and serves as both. Its key is proven by the handshake, and its names and
/// times are checked like those of any other.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let usual = self.usual.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match usual {
            // Its times have been found right before this is looked at.
            Err(error) if is_authoritys_own(&error) && self.named.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            usual => usual,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Whether a certificate was refused because it is an authority's.
fn is_authoritys_own(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) = error
    else {
        return false;
    };
    matches!(
        reason.downcast_ref(),
        Some(webpki::Error::CaUsedAsEndEntity)
    )
}

/// What to do about a handshake with a backend that failed.
#[must_use]
pub fn remedy(error: &std::io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let Some(error): Option<&rustls::Error> = inner else {
        return "the backend ended the connection: check that it speaks TLS on this port";
    };
    let rustls::Error::InvalidCertificate(reason) = error else {
        return "check that the backend speaks TLS 1.2 or 1.3 on this port";
    };
    match reason {
        CertificateError::UnknownIssuer => {
            "no trusted authority has signed the backend's certificate: name the authority's certificate, \
             or a self-signed certificate itself, as ca_file"
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "the backend's certificate has no subjectAltName: make one that has the host's name there \
             (openssl req -x509 -addext subjectAltName=DNS:NAME)"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the backend's certificate is for other names: write one of them as host"
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "the backend's certificate is not valid now: renew it, or set the clock"
        }
        _ if is_authoritys_own(error) => {
            "the backend's certificate is an authority's own: name exactly this certificate as ca_file, or \
             give the backend one that the authority has signed"
        }
        _ => "the backend's certificate cannot be used: give it another",
    }
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
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&read_file(file, AUTHORITIES_BYTES_MAX)?).collect();
    let found = found.map_err(error)?;
    if found.is_empty() {
        Err(TlsError::Empty(file.to_owned()))
    } else {
        Ok(found)
    }
}
