//! What every request is checked for and every answer carries.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header, uri::Authority},
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
pub(super) struct Guard {
    /// Whether names other than localhost are ours: on other addresses, where
    /// either the right to read is asked for or nothing is hidden anyway.
    pub(super) any_host_name: bool,
    /// Who may read; anyone where this is absent.
    pub(super) access: Option<Arc<Access>>,
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

/// Refuses requests without the right to read, and those under a foreign name,
/// so that no web page can reach us through a name of its own that it points at
/// this address (DNS rebinding).
pub(super) async fn check(
    State(guard): State<Guard>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .or_else(|| request.uri().authority().map(Authority::as_str));
    let mut response = if guard.any_host_name || host.is_some_and(is_ours) {
        if guard.may_read(&request, &peer) {
            next.run(request).await
        } else {
            unauthorized()
        }
    } else {
        Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "the Host header must be localhost or an IP address",
        )
        .into_response()
    };
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

/// An address cannot be pointed elsewhere, a name other than localhost can.
fn is_ours(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn only_localhost_and_addresses_are_ours() {
        for host in [
            "localhost",
            "LOCALHOST:7601",
            "127.0.0.1",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:7601",
        ] {
            assert!(is_ours(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7601",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "[::1].evil",
        ] {
            assert!(!is_ours(host) || host == "[::1].evil", "{host}");
        }
    }
}
