//! What the options say of the collector: where it is, whom to trust, and what
//! to show.

use std::{fs, io, path::Path, sync::Arc};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::{CliError, args::Connection};

/// Where systems keep the authorities that they trust.
const SYSTEM_AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
/// The list of a system is some 200 KB.
const FILE_BYTES_MAX: u64 = 4 << 20;
const TOKEN_BYTES_MAX: usize = 4096;

/// The header that shows the token, where there is one.
pub(crate) fn authorization(
    options: &Connection,
    environment: Option<&str>,
) -> Result<Option<String>, CliError> {
    let (text, origin) = match (&options.token_file, environment) {
        (Some(path), _) => (read(path)?, path.display().to_string()),
        (None, Some(text)) => (text.to_owned().into_bytes(), "SPEEDMIMI_TOKEN".to_owned()),
        (None, None) => return Ok(None),
    };
    let token = text.trim_ascii();
    let sound = (1..=TOKEN_BYTES_MAX).contains(&token.len());
    if !sound || !token.iter().all(u8::is_ascii_graphic) {
        return Err(CliError::NoToken { origin });
    }
    let token = String::from_utf8_lossy(token);
    Ok(Some(format!("Bearer {token}")))
}

/// Whom to trust and which certificate to show.
pub(crate) fn tls(options: &Connection) -> Result<TlsConfig, CliError> {
    let mut config = TlsConfig::builder();
    let system = SYSTEM_AUTHORITIES.iter().map(Path::new);
    // Without a list of the system, the one that is built in counts.
    let authorities = options
        .ca_cert
        .as_deref()
        .or_else(|| system.into_iter().find(|path| path.exists()));
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
    let error = |source| CliError::Unreadable {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(error)?.len() > FILE_BYTES_MAX {
        return Err(error(io::ErrorKind::FileTooLarge.into()));
    }
    fs::read(path).map_err(error)
}

#[cfg(test)]
mod tests {
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
            assert!(
                matches!(of_file(text), Err(CliError::NoToken { .. })),
                "{text:?}"
            );
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
        assert!(matches!(tls(&options), Err(CliError::Unreadable { .. })));
        fs::write(&path, "no certificate").unwrap();
        assert!(matches!(tls(&options), Err(CliError::NotPem { .. })));
    }
}
