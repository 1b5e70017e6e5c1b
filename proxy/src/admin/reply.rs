//! Requests to and answers of the admin API.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A request, as far as the API looks at it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) bearer: Option<Vec<u8>>,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

impl Request {
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
        serde_json::from_slice(&self.body)
            .map_err(|error| Reply::error(422, format!("the body is not as expected: {error}")))
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

    /// The bytes to send.
    pub(super) fn bytes(&self, keep_alive: bool) -> Vec<u8> {
        let body = format!("{}\n", self.body);
        let challenge = if self.status == 401 {
            "WWW-Authenticate: Bearer\r\n"
        } else {
            ""
        };
        let connection = if keep_alive {
            ""
        } else {
            "Connection: close\r\n"
        };
        format!(
            "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{challenge}{connection}\r\n{body}",
            self.status,
            phrase(self.status),
            body.len()
        )
        .into_bytes()
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

/// Splits a target into path and decoded query.
pub(super) fn split_target(target: &str) -> (String, Vec<(String, String)>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    };
    let query = query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(pair)
        .collect();
    (path.to_owned(), query)
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match (
            bytes[at],
            hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()),
        ) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_split_and_decoded() {
        let (path, query) = split_target("/a?upstream=x%2Fy+z&b&c=%zz");
        assert_eq!(path, "/a");
        let expected = [("upstream", "x/y z"), ("b", ""), ("c", "%zz")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(query, expected);
    }
}
