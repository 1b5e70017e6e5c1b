//! What the options say of the collector: where it is, whom to trust, and what
//! to show.

use std::{path::Path, sync::Arc};

use daemon::{
    AUTHORITIES_BYTES_MAX, read_file, system_authorities,
    token::{Side, Token},
};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::{CliError, args::Connection};

/// The header that shows the token, where there is one.
pub(crate) fn authorization(
    options: &Connection,
    environment: Option<&str>,
) -> Result<Option<String>, CliError> {
    let token = match (&options.token_file, environment) {
        (Some(path), _) => Token::read(path, Side::Shows)?,
        (None, Some(text)) => Token::try_new(text, "SPEEDMIMI_TOKEN", Side::Shows)?,
        (None, None) => return Ok(None),
    };
    Ok(Some(format!("Bearer {}", token.reveal())))
}

/// Whom to trust and which certificate to show.
pub(crate) fn tls(options: &Connection) -> Result<TlsConfig, CliError> {
    let mut config = TlsConfig::builder();
    // Without a list of the system, the one that is built in counts.
    let authorities = match &options.ca_cert {
        Some(path) => Some(path.as_path()),
        None => system_authorities(),
    };
    if let Some(path) = authorities {
        config = config.root_certs(RootCerts::Specific(Arc::new(certificates(path)?)));
    }
    if let (Some(cert), Some(key)) = (&options.client_cert, &options.client_key) {
        let private = PrivateKey::from_pem(&read(key)?).map_err(|_| CliError::NotPem {
            path: key.clone(),
            wanted: "a private key",
        })?;
        let chain = certificates(cert)?;
        config = config.client_cert(Some(ClientCert::new_with_certs(&chain, private)));
    }
    Ok(config.build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, CliError> {
    let pem = read(path)?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(CliError::NotPem {
            path: path.to_owned(),
            wanted: "a certificate",
        });
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    Ok(read_file(path, AUTHORITIES_BYTES_MAX)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn of_file(text: &str) -> Result<Option<String>, CliError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, text).unwrap();
        let options = Connection {
            token_file: Some(path),
            ..Connection::default()
        };
        authorization(&options, Some("of-the-environment"))
    }

    #[test]
    fn a_token_is_one_line_and_the_files_counts_more() {
        assert_eq!(of_file("abc\n").unwrap().as_deref(), Some("Bearer abc"));
        for text in ["", "\n", "two words", "a\nb", "\u{fc}", &"x".repeat(5000)] {
            assert!(matches!(of_file(text), Err(CliError::Token(_))), "{text:?}");
        }
        let none = Connection::default();
        assert_eq!(authorization(&none, None).unwrap(), None);
        let environment = authorization(&none, Some("abc")).unwrap();
        assert_eq!(environment.as_deref(), Some("Bearer abc"));
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let options = Connection {
            ca_cert: Some(path.clone()),
            ..Connection::default()
        };
        assert!(matches!(tls(&options), Err(CliError::File(_))));
        fs::write(&path, "no certificate").unwrap();
        assert!(matches!(tls(&options), Err(CliError::NotPem { .. })));
    }
}
