//! What to do where no collector answers: the ways to write a wrong address or to
//! make a certificate that cannot serve are few, and their errors say little.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, Error as Tls, InvalidMessage};

/// What most likely is wrong, and what to write instead.
pub(super) fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match tls(error)? {
        Tls::InvalidMessage(InvalidMessage::InvalidContentType) => Some(
            "it does not speak TLS on this port: write http://, or give the collector --tls-cert",
        ),
        Tls::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA,
        ) => Some("it wants a certificate of this agent: give --client-cert and --client-key"),
        Tls::InvalidCertificate(certificate) => of_certificate(certificate),
        _ => None,
    }
}

fn of_certificate(error: &CertificateError) -> Option<&'static str> {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Some(
            "give the authority that signed its certificate with --ca-cert; one that signed \
             itself is its own",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some(
                "its certificate is of other names: write one of them in --collector, or make one \
                 with this name as its subjectAltName",
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some("its certificate has expired: renew it, or set the clock of this host")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Some("its certificate is not valid yet: set the clock of this host")
        }
        // rustls has no name of its own for it.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => Some(
            "its certificate is an authority's (CA:TRUE, as openssl req -x509 makes them), and no \
             server's: make one with -addext basicConstraints=critical,CA:FALSE -addext \
             subjectAltName=DNS:NAME, or sign one by it",
        ),
        _ => None,
    }
}

/// The error of TLS among the causes.
fn tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Tls> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error does not count what it wraps among its causes.
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(tls) = wrapped.and_then(|wrapped| wrapped.downcast_ref()) {
            return Some(tls);
        }
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        next = error.source();
    }
    None
}
