//! The authorities that a system trusts.

use std::path::Path;

/// Where systems keep their list: Debian and its kin, Red Hat's, Alpine and BSD.
const LISTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// A list of a system is some 200 KB, and one that is configured is no larger.
pub const AUTHORITIES_BYTES_MAX: u64 = 4 << 20;

/// The PEM file with the authorities that the system trusts, where it has one.
#[must_use]
pub fn system_authorities() -> Option<&'static Path> {
    let mut lists = LISTS.into_iter().map(Path::new);
    lists.find(|path| path.exists())
}
