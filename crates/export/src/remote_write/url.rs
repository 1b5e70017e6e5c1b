//! The address of a receiver.

use std::fmt;

/// An `http` or `https` URL without a user or a password: it is logged and is
/// a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteUrl(String);

/// The text is no such URL.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?}: use an http or https URL without a password, such as \
     http://prometheus:9090/api/v1/write"
)]
pub struct BadUrl(String);

impl RemoteUrl {
    pub fn try_new(text: &str) -> Result<Self, BadUrl> {
        let bad = || BadUrl(text.split('@').next_back().unwrap_or("").to_owned());
        let uri: ureq::http::Uri = text.parse().map_err(|_| bad())?;
        let scheme = uri.scheme_str().unwrap_or("");
        let host = uri.host().unwrap_or("");
        if !["http", "https"].contains(&scheme) || host.is_empty() || text.contains('@') {
            return Err(bad());
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_urls_are_taken_and_no_secret_is_repeated() {
        assert!(RemoteUrl::try_new("http://127.0.0.1:9090/api/v1/write").is_ok());
        assert!(RemoteUrl::try_new("https://mimir.example/api/v1/push").is_ok());
        for text in [
            "",
            "prometheus:9090",
            "ftp://x/",
            "http://",
            "http://a b/",
            "/write",
        ] {
            assert!(RemoteUrl::try_new(text).is_err(), "{text:?}");
        }
        let error = RemoteUrl::try_new("http://me:secret@x/write").unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }
}
