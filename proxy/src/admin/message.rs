//! Requests to and answers of the admin API.

use std::net::IpAddr;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A request, as far as the API looks at it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    query: Vec<(String, String)>,
    /// The token of `Authorization: Bearer`.
    pub(super) bearer: Option<Vec<u8>>,
    /// The media type, without parameters.
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

impl Request {
    /// A request without its body.
    ///
    /// # Errors
    /// The answer to a request that is not for this server.
    pub(super) fn new(head: &Parts) -> Result<Self, Reply> {
        check_host(head)?;
        let query = head.uri.query().unwrap_or_default();
        Ok(Self {
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            query: form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
            bearer: bearer(&head.headers),
            content_type: content_type(&head.headers),
            body: Bytes::new(),
        })
    }

    /// The value of a query parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A query parameter without which there is no answer.
    pub(super) fn required(&self, name: &str) -> Result<&str, Reply> {
        self.parameter(name)
            .ok_or_else(|| Reply::error(400, format!("the query parameter {name} is missing")))
    }

    /// The body as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Reply> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Reply::error(
                422,
                format!("the body does not have the expected fields: {error}"),
            )
        })
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Reply {
    pub(super) fn ok(body: Value) -> Self {
        Self { status: 200, body }
    }

    pub(super) fn error(status: u16, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        Self {
            status,
            body: json!({"status": status, "error": phrase(status), "detail": detail}),
        }
    }

    /// As it is sent; `close` announces the end of the connection.
    pub(super) fn into_response(self, close: bool) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(format!("{}\n", self.body)));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or_default();
        let headers = response.headers_mut();
        let mut set = |name, value| drop(headers.insert(name, HeaderValue::from_static(value)));
        set(header::CONTENT_TYPE, "application/json");
        set(header::CACHE_CONTROL, "no-store");
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        if self.status == 401 {
            set(header::WWW_AUTHENTICATE, "Bearer");
        }
        if close {
            set(header::CONNECTION, "close");
        }
        response
    }
}

/// The reason phrase (RFC 9110, section 15), also where the library has an older one.
fn phrase(status: u16) -> &'static str {
    match status {
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        status => StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("Error"),
    }
}

/// Refuses what was addressed to a name that anyone could point here, rather than
/// to an address: that keeps a web page from using the API through its visitor's
/// browser.
fn check_host(head: &Parts) -> Result<(), Reply> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Reply::error(400, "send one Host field"));
    };
    let target = head
        .uri
        .authority()
        .map_or("localhost", |name| name.as_str());
    let host = host.to_str().unwrap_or_default();
    if is_own_host(host) && is_own_host(target) {
        return Ok(());
    }
    Err(Reply::error(
        403,
        "the Host field must name this server: use its address",
    ))
}

fn is_own_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

fn bearer(headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii().to_vec())
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, fields: &[(&str, &str)]) -> Result<Request, u16> {
        let mut request = hyper::Request::put(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        Request::new(&head).map_err(|reply| reply.status)
    }

    #[test]
    fn a_head_is_read_as_far_as_it_matters() {
        let fields = [
            ("host", "localhost"),
            ("authorization", "bearer t "),
            ("content-type", "Application/JSON; charset=utf-8"),
        ];
        let request = request("/a?upstream=x%2Fy+z&b&c=%zz", &fields).unwrap();
        assert_eq!(request.path, "/a");
        let expected = [("upstream", "x/y z"), ("b", ""), ("c", "%zz")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(request.query, expected);
        assert_eq!(request.bearer.as_deref(), Some(b"t".as_slice()));
        assert_eq!(request.content_type, "application/json");
    }

    #[test]
    fn only_addresses_and_localhost_are_own_hosts() {
        for own in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:9091",
            "[::1]:9091",
            "[::1]",
            "10.0.0.1",
        ] {
            assert!(request("/", &[("host", own)]).is_ok(), "{own}");
            let target = format!("http://{own}/");
            assert!(request(&target, &[("host", own)]).is_ok(), "{own}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example:9091",
            "",
            "127.0.0.1.evil.example",
        ] {
            let refused = request("/", &[("host", other)]).err();
            assert_eq!(refused, Some(403), "{other}");
        }
        let elsewhere = request("http://evil.example/", &[("host", "localhost")]);
        assert_eq!(elsewhere.err(), Some(403));
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(request("/", &two).err(), Some(400));
        assert_eq!(request("/", &[]).err(), Some(400));
    }
}
