//! Who may do what.
//!
//! Writing always needs a token: the collector's own, or one that is bound to
//! a host.  A client's certificate, where one was asked for, binds as well: a
//! report must keep to both.  Reading needs a token of its own kind, or a
//! certificate that says so, unless the listener is open.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use daemon::token::Token;

use crate::{
    tls::Identity,
    tokens::{Right, Tokens},
};

/// Longer than any header with a token.
const HEADER_BYTES_MAX: usize = 8192;

/// What a connection showed of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Where it comes from.
    pub(crate) address: Option<IpAddr>,
    /// Of its certificate, where it had to show one.
    pub(crate) identity: Option<Arc<Identity>>,
}

impl Peer {
    /// Whose memory it is where it is shared among peers.
    pub(crate) fn name(&self) -> Arc<str> {
        self.to_string().into()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.to_canonical().fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

/// All rights.
#[derive(Debug)]
pub(crate) struct Access {
    general: RwLock<General>,
    tokens: Tokens,
}

/// The token that writes for every host.
#[derive(Debug)]
struct General {
    token: Token,
    /// Another number after each change.
    generation: u64,
}

/// The right to bring reports.
#[derive(Clone, Debug)]
pub(crate) struct WriteGrant {
    bound: Option<Bound>,
    peer: Peer,
    /// Of the tokens, or of the one that writes for every host.
    generation: u64,
}

#[derive(Clone, Debug)]
struct Bound {
    token_id: String,
    host_id: String,
}

impl WriteGrant {
    /// Who has it.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What is bound to some hosts, and to how many; `None` for a right that
    /// any host may have.
    pub(crate) fn holder(&self) -> Option<(String, usize)> {
        if let Some(bound) = &self.bound {
            return Some((format!("token {}", bound.token_id), 1));
        }
        let hosts = &self.peer.identity.as_ref()?.hosts;
        Some((format!("certificate {hosts:?}"), hosts.len().max(1)))
    }
}

/// Why a report is not taken from this sender.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("the token is only valid for the host {0:?}")]
    Token(String),
    #[error("the client certificate is only valid for {0}")]
    Certificate(String),
    #[error("the token was revoked")]
    Revoked,
}

impl Access {
    pub(crate) fn new(general: Token, tokens: Tokens) -> Self {
        let general = RwLock::new(General {
            token: general,
            generation: 0,
        });
        Self { general, tokens }
    }

    /// Takes the general token of another one; streams that showed the one before
    /// end with their next report.
    pub(crate) fn replace(&self, other: Self) {
        let other = other.general.into_inner();
        let token = other.unwrap_or_else(PoisonError::into_inner).token;
        let mut general = self.general.write().unwrap_or_else(PoisonError::into_inner);
        if !general.token.matches(token.reveal()) {
            general.token = token;
            general.generation += 1;
        }
        drop(general);
        self.refresh();
    }

    fn general(&self) -> RwLockReadGuard<'_, General> {
        self.general.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to write, if the header shows a token for it.
    pub(crate) fn write(&self, header: Option<&str>, peer: &Peer) -> Option<WriteGrant> {
        let shown = header.and_then(secret)?;
        // Both are looked at, so that the time does not tell which it is.
        let found = self.tokens.find(&shown);
        let general = self.general();
        let general = general.token.matches(&shown).then_some(general.generation);
        let bound = match found.map(|entry| (entry.id, entry.right)) {
            _ if general.is_some() => None,
            Some((token_id, Right::Write { host_id })) => Some(Bound { token_id, host_id }),
            Some((_, Right::Read)) | None => return None,
        };
        Some(WriteGrant {
            bound,
            peer: peer.clone(),
            generation: general.unwrap_or_else(|| self.tokens.generation()),
        })
    }

    /// Whether a report of this host may come by this right, now.
    pub(crate) fn allows(&self, grant: &mut WriteGrant, host_id: &str) -> Result<(), Denied> {
        if let Some(bound) = &grant.bound {
            let generation = self.tokens.generation();
            if grant.generation != generation {
                if !self.tokens.holds(&bound.token_id) {
                    return Err(Denied::Revoked);
                }
                grant.generation = generation;
            }
            if bound.host_id != host_id {
                return Err(Denied::Token(bound.host_id.clone()));
            }
        } else if grant.generation != self.general().generation {
            return Err(Denied::Revoked);
        }
        match &grant.peer.identity {
            Some(identity) if !identity.hosts.iter().any(|name| name == host_id) => {
                Err(Denied::Certificate(match identity.hosts.as_slice() {
                    [] => "no host: it has no DNS name".to_owned(),
                    hosts => format!("the hosts {hosts:?}"),
                }))
            }
            _ => Ok(()),
        }
    }

    /// Whether the header or the certificate gives the right to read.
    pub(crate) fn reads(&self, header: Option<&str>, peer: &Peer) -> bool {
        peer.identity
            .as_ref()
            .is_some_and(|identity| identity.reads)
            || header
                .and_then(secret)
                .and_then(|shown| self.tokens.find(&shown))
                .is_some_and(|entry| entry.right == Right::Read)
    }

    /// Looks for new tokens.
    pub(crate) fn refresh(&self) {
        self.tokens.refresh();
    }
}

/// The token in an `authorization` header: `Bearer TOKEN` (RFC 6750), or the
/// password of `Basic`, which is what browsers ask for.
pub(crate) fn secret(header: &str) -> Option<String> {
    if header.len() > HEADER_BYTES_MAX {
        return None;
    }
    let (scheme, rest) = header.split_once(' ')?;
    let rest = rest.trim_start();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    text.split_once(':')
        .map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use daemon::token::Side;

    use super::*;
    use crate::tokens;

    const GENERAL: &str = "0123456789abcdef";

    fn access(dir: &std::path::Path) -> Access {
        let general = Token::try_new(GENERAL, "a test", Side::Requires).unwrap();
        Access::new(general, Tokens::open(dir).unwrap())
    }

    fn bearer(token: &str) -> String {
        format!("Bearer {token}")
    }

    #[test]
    fn only_the_very_token_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let access = access(dir.path());
        let writes = |header: Option<&str>| access.write(header, &Peer::default()).is_some();
        assert!(writes(Some("Bearer 0123456789abcdef")));
        assert!(writes(Some("bearer 0123456789abcdef")));
        for header in [
            "",
            "Bearer",
            "Bearer ",
            "Basic 0123456789abcdef",
            "Basic OjAxMjM=",
            "Digest 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(!writes(Some(header)), "{header:?}");
        }
        assert!(!writes(None));
    }

    #[test]
    fn a_browsers_password_is_a_token() {
        assert_eq!(secret("Basic dTpwYXNz").as_deref(), Some("pass"));
        assert_eq!(secret("Basic OmE6Yg==").as_deref(), Some("a:b"));
        for header in ["Basic dXNlcg==", "Basic !", "Basic /w==", "Basic "] {
            assert_eq!(secret(header), None, "{header:?}");
        }
        assert_eq!(secret(&bearer(&"x".repeat(9000))), None);
    }

    #[test]
    fn a_hosts_token_writes_as_that_host_alone_and_reads_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let right = Right::Write {
            host_id: "h1".to_owned(),
        };
        let (entry, token) = tokens::add(dir.path(), right).unwrap();
        let access = access(dir.path());
        let header = bearer(&token);
        let mut grant = access.write(Some(&header), &Peer::default()).unwrap();
        assert_eq!(grant.holder(), Some((format!("token {}", entry.id), 1)));
        assert_eq!(access.allows(&mut grant, "h1"), Ok(()));
        assert_eq!(
            access.allows(&mut grant, "h2"),
            Err(Denied::Token("h1".to_owned()))
        );
        assert!(!access.reads(Some(&header), &Peer::default()));
        tokens::revoke(dir.path(), &entry.id).unwrap();
        access.refresh();
        assert_eq!(access.allows(&mut grant, "h1"), Err(Denied::Revoked));
    }

    #[test]
    fn a_read_token_reads_and_writes_nothing_and_the_general_one_only_writes() {
        let dir = tempfile::tempdir().unwrap();
        let (_, token) = tokens::add(dir.path(), Right::Read).unwrap();
        let access = access(dir.path());
        assert!(access.reads(Some(&bearer(&token)), &Peer::default()));
        assert!(
            access
                .write(Some(&bearer(&token)), &Peer::default())
                .is_none()
        );
        assert!(!access.reads(Some(&bearer(GENERAL)), &Peer::default()));
        assert!(!access.reads(None, &Peer::default()));
    }

    #[test]
    fn a_certificate_binds_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let access = access(dir.path());
        let peer = |hosts: &[&str], reads| Peer {
            address: None,
            identity: Some(Arc::new(Identity {
                hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
                reads,
            })),
        };
        let header = bearer(GENERAL);
        let unbound = access.write(Some(&header), &Peer::default()).unwrap();
        assert_eq!(unbound.holder(), None);
        let mut grant = access.write(Some(&header), &peer(&["h1"], false)).unwrap();
        assert_eq!(grant.holder(), Some(("certificate [\"h1\"]".to_owned(), 1)));
        assert_eq!(access.allows(&mut grant, "h1"), Ok(()));
        assert!(matches!(
            access.allows(&mut grant, "h2"),
            Err(Denied::Certificate(_))
        ));
        let mut none = access.write(Some(&header), &peer(&[], true)).unwrap();
        assert!(access.allows(&mut none, "h1").is_err());
        assert!(access.reads(None, &peer(&[], true)));
        assert!(!access.reads(None, &peer(&["h1"], false)));
    }
}
