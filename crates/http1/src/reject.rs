//! Why a message is refused, and the error that the client gets.

/// Which side of the proxy failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Downstream,
    /// The backend.
    Upstream,
    /// The proxy itself, or its configuration.
    Internal,
}

macro_rules! rejections {
    ($($(#[$doc:meta])* $name:ident => $status:literal, $side:ident, $token:literal, $text:literal;)*) => {
        /// Every answer that the proxy gives in its own name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
        pub enum Reject {
            $($(#[$doc])* #[error($text)] $name,)*
        }

        impl Reject {
            /// Every reason, for tests and documentation.
            pub const ALL: &'static [Reject] = &[$(Reject::$name,)*];

            /// The status code sent to the client.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Reject::$name => $status,)* }
            }

            /// The side that failed.
            #[must_use]
            pub fn side(self) -> Side {
                match self { $(Reject::$name => Side::$side,)* }
            }

            /// The error token of the `Proxy-Status` field (RFC 9209, section 2.3).
            #[must_use]
            pub fn proxy_status(self) -> &'static str {
                match self { $(Reject::$name => $token,)* }
            }

            /// One sentence for the error body and the log.
            #[must_use]
            pub fn detail(self) -> &'static str {
                match self { $(Reject::$name => $text,)* }
            }
        }
    };
}

rejections! {
    /// The request line or a field is not HTTP/1.
    Syntax => 400, Downstream, "http_request_error", "the request is not well-formed HTTP/1.1";
    /// A line of the head ends in LF alone.
    BareLf => 400, Downstream, "http_request_error", "a line of the request ends in LF without CR";
    /// The target is in none of the allowed forms.
    Target => 400, Downstream, "http_request_error", "the request target is not valid";
    /// HTTP/1.1 without `Host`.
    HostMissing => 400, Downstream, "http_request_error", "the Host field is missing";
    /// More than one `Host`.
    HostRepeated => 400, Downstream, "http_request_error", "the Host field is repeated";
    /// A `Host` that names no host, or another than the target.
    HostInvalid => 400, Downstream, "http_request_error", "the Host field is not valid for this request";
    /// `Content-Length` and `Transfer-Encoding` together.
    LengthAndCoding => 400, Downstream, "http_request_error", "Content-Length and Transfer-Encoding exclude each other";
    /// A `Content-Length` that is repeated, listed or no number.
    Length => 400, Downstream, "http_request_error", "the Content-Length field is not one number";
    /// `Transfer-Encoding` in HTTP/1.0.
    CodingInHttp10 => 400, Downstream, "http_request_error", "Transfer-Encoding is not part of HTTP/1.0";
    /// A transfer coding other than chunked.
    Coding => 501, Downstream, "http_request_error", "the only supported transfer coding is chunked";
    /// A `Transfer-Encoding` that does not end in chunked, once.
    CodingUnframed => 400, Downstream, "http_request_error", "chunked is not the last transfer coding, or is repeated";
    /// More fields nominated by `Connection` than allowed.
    Nominated => 400, Downstream, "http_request_error", "the Connection field names too many fields";
    /// An expectation other than 100-continue.
    Expectation => 417, Downstream, "http_request_error", "the only supported expectation is 100-continue";
    /// A malformed chunked body.
    Chunk => 400, Downstream, "http_request_error", "the chunked body is malformed";
    /// A version other than 1.0 and 1.1.
    Version => 505, Downstream, "http_request_error", "only HTTP/1.0 and HTTP/1.1 are supported";
    /// CONNECT.
    Connect => 405, Downstream, "http_request_denied", "CONNECT is not allowed here";
    /// CONNECT with a body, which it cannot have.
    ConnectBody => 400, Downstream, "http_request_error", "a CONNECT request has no body";
    /// CONNECT to what is not configured.
    ConnectDenied => 403, Downstream, "http_request_denied", "CONNECT to this target is not configured";
    /// The head or one of its counts is over the limit.
    HeadTooLarge => 431, Downstream, "http_request_error", "the request head is larger than allowed";
    /// The body is over the limit.
    BodyTooLarge => 413, Downstream, "http_request_error", "the request body is larger than allowed";
    /// The request did not arrive in time.
    RequestTimeout => 408, Downstream, "http_request_error", "the request did not arrive in time";
    /// No route matches.
    NoRoute => 404, Internal, "destination_not_found", "no route matches this path";
    /// Every backend is unhealthy or switched off.
    NoBackend => 503, Upstream, "destination_unavailable", "no backend is available";
    /// Every available backend is at its `max_conn`.
    BackendsFull => 503, Internal, "connection_limit_reached", "every backend is at its max_conn";
    /// The listener is at its `max_conn`.
    ServerFull => 503, Internal, "connection_limit_reached", "the server is at its max_conn";
    /// Every backend stayed at its `max_conn` for as long as a request may wait.
    QueueTimeout => 503, Internal, "connection_limit_reached", "every backend stayed at its max_conn until the queue timeout";
    /// No descriptor or local port is left.
    Exhausted => 503, Internal, "proxy_internal_error", "the proxy has no descriptor or port left for a connection to the backend";
    /// Connecting to the backend was refused or failed.
    ConnectFailed => 502, Upstream, "connection_refused", "the backend cannot be reached";
    /// Connecting to the backend took too long.
    ConnectTimeout => 504, Upstream, "connection_timeout", "the backend did not accept the connection in time";
    /// The TLS handshake with the backend failed.
    UpstreamTls => 502, Upstream, "tls_protocol_error", "the TLS handshake with the backend failed";
    /// The backend closed before it answered.
    UpstreamClosed => 502, Upstream, "connection_terminated", "the backend closed the connection before it answered";
    /// The backend did not answer in time.
    ResponseTimeout => 504, Upstream, "http_response_timeout", "the backend did not answer in time";
    /// The backend answered something that is not HTTP/1.
    ResponseInvalid => 502, Upstream, "http_protocol_error", "the backend's answer is not well-formed HTTP/1.1";
    /// The backend's head is over the limit.
    ResponseHeadTooLarge => 502, Upstream, "http_response_header_section_size", "the backend's response head is larger than allowed";
    /// The backend switched protocols unasked.
    UpgradeUnasked => 502, Upstream, "http_upgrade_failed", "the backend switched protocols without a request for it";
}

/// The reason phrase of a status that the proxy itself sends.
#[must_use]
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// What the body of an error is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorFormat {
    /// JSON, unless asked otherwise.
    Json,
    /// HTML.
    Html,
}

impl ErrorFormat {
    /// The one that an `Accept` value asks for.
    #[must_use]
    pub fn wanted(accept: &[u8]) -> Self {
        let html = super::fields::list_members(accept).any(|range| {
            let kind = range.split(|byte| *byte == b';').next().unwrap_or_default();
            kind.trim_ascii().eq_ignore_ascii_case(b"text/html")
        });
        if html { Self::Html } else { Self::Json }
    }
}

/// Writes the whole answer for a rejection: head, `Proxy-Status` and a short
/// body in `format`.
///
/// `head_only` leaves the body out (HEAD); `close` announces the end of the
/// connection.
pub fn write_rejection(
    out: &mut Vec<u8>,
    reject: Reject,
    format: ErrorFormat,
    head_only: bool,
    close: bool,
    date: &[u8],
) {
    use std::io::Write as _;
    let status = reject.status();
    let reason = reason_phrase(status);
    let detail = reject.detail();
    let (kind, body) = match format {
        ErrorFormat::Html => {
            let body = format!(
                "<!doctype html><title>{status} {reason}</title><h1>{status} {reason}</h1><p>{detail}.</p>\n"
            );
            ("text/html; charset=utf-8", body)
        }
        ErrorFormat::Json => {
            let body = format!(
                "{{\"status\":{status},\"error\":\"{}\",\"detail\":\"{detail}\"}}\n",
                reject.proxy_status()
            );
            ("application/json", body)
        }
    };
    let side = match reject.side() {
        Side::Downstream => "downstream",
        Side::Upstream => "upstream",
        Side::Internal => "internal",
    };
    let allow = if status == 405 {
        "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
    } else {
        ""
    };
    let connection = if close { "Connection: close\r\n" } else { "" };
    let written = write!(
        out,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         Proxy-Status: speedmimi; error={}; details=\"{side}: {detail}\"\r\nDate: ",
        body.len(),
        reject.proxy_status(),
    );
    debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(allow.as_bytes());
    out.extend_from_slice(connection.as_bytes());
    out.extend_from_slice(b"\r\n");
    if !head_only {
        out.extend_from_slice(body.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rejection_says_which_side_failed_and_why() {
        for reject in Reject::ALL {
            let mut out = Vec::new();
            write_rejection(&mut out, *reject, ErrorFormat::Json, false, true, b"now");
            let text = String::from_utf8(out).unwrap();
            assert!(
                text.starts_with(&format!("HTTP/1.1 {} ", reject.status())),
                "{text}"
            );
            assert!(
                !text.starts_with(&format!("HTTP/1.1 {} Error", reject.status())),
                "{text}"
            );
            assert!(text.contains("Proxy-Status: speedmimi; error="), "{text}");
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("Content-Length: {}\r\n", body.len())),
                "{text}"
            );
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(json["status"], reject.status());
        }
    }

    #[test]
    fn html_is_sent_only_where_it_is_asked_for() {
        let is_html = |accept: &[u8]| ErrorFormat::wanted(accept) == ErrorFormat::Html;
        assert!(is_html(b"text/html,application/xhtml+xml;q=0.9"));
        assert!(is_html(b"application/json, Text/HTML;q=0.1"));
        assert!(!is_html(b"*/*"));
        assert!(!is_html(b""));
    }
}
