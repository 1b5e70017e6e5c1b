//! What every request is checked for and every answer carries.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::problem::Problem;
use crate::auth::{Access, Peer};

/// Nothing but our own files runs, is shown or is asked; nobody may frame us.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// What is asked of who reads.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    /// Which names are ours.
    pub(crate) names: Names,
    /// Who may read; anyone where this is absent.
    pub(crate) access: Option<Arc<Access>>,
}

/// A load balancer that looks whether we live need not show anything.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];
/// A browser asks its user for the second.
const CHALLENGES: [&str; 2] = [
    "Bearer realm=\"speedmimi\"",
    "Basic realm=\"speedmimi: any name, and a read token as the password\", charset=\"UTF-8\"",
];

impl Guard {
    fn may_read(&self, request: &Request, peer: &Peer) -> bool {
        let Some(access) = &self.access else {
            return true;
        };
        let shown = request.headers().get(header::AUTHORIZATION);
        OPEN_PATHS.contains(&request.uri().path())
            || access.reads(shown.and_then(|value| value.to_str().ok()), peer)
    }
}

fn unauthorized() -> Response {
    let problem = Problem::new(
        StatusCode::UNAUTHORIZED,
        "reading here needs a token of `speedmimi-collector token add --read`, as a bearer token \
         or as a password, or a client certificate with the URI urn:speedmimi:read",
    );
    let mut response = problem.into_response();
    for challenge in CHALLENGES {
        response.headers_mut().append(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(challenge),
        );
    }
    response
}

/// The names under which the collector is reached, besides localhost and
/// addresses; all copies change together.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// On other addresses than loopback, where either the right to read is asked
    /// for or nothing is hidden anyway.
    any: bool,
    /// In lower case.
    these: Arc<RwLock<Vec<String>>>,
}

impl Names {
    pub(crate) fn new(listening: IpAddr, these: Vec<String>) -> Self {
        Self {
            any: !listening.is_loopback(),
            these: Arc::new(RwLock::new(these)),
        }
    }

    pub(crate) fn replace(&self, these: Vec<String>) {
        *self.these.write().unwrap_or_else(PoisonError::into_inner) = these;
    }

    /// An address cannot be pointed elsewhere, a name other than localhost can.
    fn hold(&self, host: &str) -> bool {
        if self.any {
            return true;
        }
        let name = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
            Some((v6, _)) => v6,
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let these = self.these.read().unwrap_or_else(PoisonError::into_inner);
        name == "localhost" || these.contains(&name) || name.parse::<IpAddr>().is_ok()
    }
}

/// Refuses what this server never answers; then requests under a foreign name,
/// so that no web page can reach us through a name of its own that it points at
/// this address (DNS rebinding), and requests without the right to read.
fn refusal(guard: &Guard, peer: &Peer, request: &Request) -> Option<Response> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let problem = Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are served here",
        );
        return Some(([(header::ALLOW, "GET, HEAD")], problem).into_response());
    }
    let mut fields = request.headers().get_all(header::HOST).iter();
    let (field, second) = (fields.next(), fields.next());
    let old = request.version() < Version::HTTP_11;
    if second.is_some() || (field.is_none() && !old) {
        let problem = Problem::bad_request("a request has one Host field (RFC 9112, 3.2)");
        return Some(problem.into_response());
    }
    // Of a request for a whole URL the field does not count (RFC 9112, 3.2.2).
    let authority = request.uri().authority().map(Authority::as_str);
    let host = authority.or_else(|| field.and_then(|value| value.to_str().ok()));
    // HTTP/1.0 needs no Host, and health checks of load balancers send none.
    let ours = match host {
        Some(host) => guard.names.hold(host),
        None => guard.names.any,
    };
    if !ours {
        let problem = Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "the Host field must be localhost, an IP address, or a name that the collector was \
             given by --allow-host",
        );
        return Some(problem.into_response());
    }
    (!guard.may_read(request, peer)).then(unauthorized)
}

/// Checks a request, and adds to its answer what every answer carries.
pub(super) async fn check(
    State(guard): State<Guard>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match refusal(&guard, &peer, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn names(names: &[&str]) -> Names {
        let names = names.iter().map(|&name| name.to_owned());
        Names::new(Ipv4Addr::LOCALHOST.into(), names.collect())
    }

    #[test]
    fn only_localhost_addresses_and_given_names_are_ours() {
        for host in [
            "localhost",
            "LOCALHOST:7601",
            "127.0.0.1",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:7601",
            "monitor.example",
            "Monitor.Example.:443",
        ] {
            assert!(names(&["monitor.example"]).hold(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7601",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "a.monitor.example",
            "monitor.example.evil",
        ] {
            assert!(!names(&["monitor.example"]).hold(host), "{host}");
            let anywhere = Names::new(Ipv4Addr::UNSPECIFIED.into(), Vec::new());
            assert!(anywhere.hold(host), "{host}");
        }
        assert!(!names(&[]).hold("monitor.example"));
    }
}
