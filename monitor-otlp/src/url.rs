//! The address of a receiver.

use std::fmt;

use tonic::transport::Uri;

/// How requests are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// OTLP/HTTP with binary Protocol Buffers.
    Http,
    /// OTLP/gRPC.
    Grpc,
}

/// Where to send, without a user or a password: it is logged and is a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpUrl {
    given: String,
    pub(crate) protocol: Protocol,
    /// With `http` or `https` as its scheme.
    pub(crate) uri: Uri,
}

/// The text is no such URL.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?}: use http://HOST:4318 or https://… for OTLP/HTTP (to /v1/metrics where it has \
     no path), or grpc://HOST:4317 or grpcs://… for OTLP/gRPC, without a password"
)]
pub struct BadOtlpUrl(String);

impl OtlpUrl {
    /// Checks what the user wrote.
    ///
    /// # Errors
    /// Where it is none of the forms that the error names.
    pub fn try_new(text: &str) -> Result<Self, BadOtlpUrl> {
        // What stands before an @ may be a secret.
        let bad = || BadOtlpUrl(text.split('@').next_back().unwrap_or("").to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let (protocol, carrier) = match scheme {
            "http" | "https" => (Protocol::Http, scheme),
            "grpc" => (Protocol::Grpc, "http"),
            "grpcs" => (Protocol::Grpc, "https"),
            _ => return Err(bad()),
        };
        let (authority, path) = rest
            .find(['/', '?', '#'])
            .map_or((rest, ""), |at| rest.split_at(at));
        let path = match (protocol, path) {
            (Protocol::Http, "" | "/") => "/v1/metrics",
            (Protocol::Grpc, "" | "/") => "",
            (Protocol::Http, path) if path.starts_with('/') => path,
            (Protocol::Http | Protocol::Grpc, _) => return Err(bad()),
        };
        let uri: Uri = format!("{carrier}://{authority}{path}")
            .parse()
            .map_err(|_| bad())?;
        let host = uri.host().unwrap_or("");
        let has_port = uri.authority().is_some_and(|a| a.as_str() != host);
        let bad_port = has_port && uri.port_u16().is_none();
        if host.is_empty() || bad_port || text.contains(['@', '#']) {
            return Err(bad());
        }
        Ok(Self {
            given: text.to_owned(),
            protocol,
            uri,
        })
    }
}

impl fmt::Display for OtlpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_tells_the_protocol_and_http_has_a_usual_path() {
        let of = |text| {
            let url = OtlpUrl::try_new(text).unwrap();
            (url.protocol, url.uri.to_string())
        };
        let http = |uri: &str| (Protocol::Http, uri.to_owned());
        let grpc = |uri: &str| (Protocol::Grpc, uri.to_owned());
        assert_eq!(of("http://a:4318"), http("http://a:4318/v1/metrics"));
        assert_eq!(of("https://a/"), http("https://a/v1/metrics"));
        let victoria = "http://[::1]:8428/opentelemetry/v1/metrics?extra_label=a";
        assert_eq!(of(victoria), http(victoria));
        assert_eq!(of("grpc://a:4317"), grpc("http://a:4317/"));
        assert_eq!(of("grpcs://a:4317/"), grpc("https://a:4317/"));
    }

    #[test]
    fn what_is_no_address_is_refused_and_no_secret_is_repeated() {
        for text in [
            "",
            "a:4318",
            "ftp://a",
            "http://",
            "http:///v1/metrics",
            "http://a b",
            "grpc://a/v1/metrics",
            "http://a?x",
            "http://a/#x",
            "http://a:99999999/",
        ] {
            assert!(OtlpUrl::try_new(text).is_err(), "{text:?}");
        }
        let error = OtlpUrl::try_new("http://me:secret@a/").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
