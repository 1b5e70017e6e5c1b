//! What the collector has measured of a host: read over its HTTP API, for the
//! admin API's statistics and for the balancer that looks at load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daemon::token::{Side, Token, TokenError};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;

use crate::balance;
use crate::config::raw::RawCollector;
use crate::fetch::{self, FetchError};
use crate::tls::{self, TlsError};

/// The longest wait for the collector.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the collector cannot be asked as configured.
#[derive(Debug, thiserror::Error)]
pub enum CollectorConfigError {
    /// Not an address that can be asked.
    #[error("collector.url: \"{0}\" is not an http:// or https:// URL with a host")]
    Url(String),
    /// There is no token in the file.
    #[error("collector.token_file: {}", daemon::error_chain(.0))]
    Token(#[from] TokenError),
    /// TLS cannot be set up.
    #[error("collector.ca_file: {0}")]
    Tls(#[from] TlsError),
}

/// Why there are no values.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// It does not answer.
    #[error("the collector at {url}: {source}")]
    Fetch {
        /// The collector.
        url: String,
        /// The reason.
        source: FetchError,
    },
    /// It does not know the host.
    #[error("the collector knows no host {0}")]
    UnknownHost(String),
    /// It wants a token, or another one.
    #[error(
        "the collector at {url} answered {status}: write a token that may read into collector.token_file"
    )]
    Denied {
        /// The collector.
        url: String,
        /// The status of the answer.
        status: u16,
    },
    /// Its answer holds no statistics.
    #[error("the collector at {url} answered {status} without statistics")]
    Answer {
        /// The collector.
        url: String,
        /// The status of the answer.
        status: u16,
    },
}

/// A collector, and what it takes to ask it.
pub struct Collector {
    url: String,
    /// Host and port.
    authority: String,
    /// Where its API begins.
    prefix: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    token: Option<Token>,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Collector")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Collector {
    /// The collector that is configured, if one is. Reads its files.
    ///
    /// # Errors
    /// [`CollectorConfigError`] where it cannot be asked.
    pub fn new(raw: &RawCollector) -> Result<Option<Self>, CollectorConfigError> {
        if raw.url.is_empty() {
            return Ok(None);
        }
        let parts =
            split_url(&raw.url).ok_or_else(|| CollectorConfigError::Url(raw.url.clone()))?;
        let tls = if parts.secure {
            let name = tls::server_name(parts.host)?;
            Some((tls::client(raw.ca_file.as_deref())?, name))
        } else {
            None
        };
        let port = parts
            .port
            .unwrap_or(if parts.secure { "443" } else { "80" });
        let token = raw.token_file.as_deref();
        let token = token
            .map(|path| Token::read(path, Side::Shows))
            .transpose()?;
        Ok(Some(Self {
            authority: fetch::authority(parts.host, port),
            prefix: parts.path.to_owned(),
            url: raw.url.clone(),
            tls,
            token,
        }))
    }

    /// The latest values of a host, with the names that the collector uses.
    ///
    /// # Errors
    /// [`CollectorError`] where there are none.
    pub async fn stats(&self, host_id: &str) -> Result<Value, CollectorError> {
        let url = || self.url.clone();
        let failed = |source| CollectorError::Fetch { url: url(), source };
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host(&self.authority)
            .await
            .map_err(|error| failed(error.into()))?
            .collect();
        let target = fetch::Target {
            host: &self.authority,
            path: &format!("{}/api/v1/hosts/{}/stats", self.prefix, encode(host_id)),
            token: self.token.as_ref().map(Token::reveal),
        };
        let (status, body) = fetch::get(&addresses, target, REQUEST_TIMEOUT, self.tls.as_ref())
            .await
            .map_err(failed)?;
        if status == 404 {
            return Err(CollectorError::UnknownHost(host_id.to_owned()));
        }
        if matches!(status, 401 | 403) {
            return Err(CollectorError::Denied { url: url(), status });
        }
        let parsed: Option<Value> = serde_json::from_slice(&body).ok();
        match parsed.and_then(|mut value| value.get_mut("stats").map(Value::take)) {
            Some(stats) if status == 200 => Ok(stats),
            _ => Err(CollectorError::Answer { url: url(), status }),
        }
    }
}

/// Seconds since the values were measured.
#[must_use]
pub fn age_seconds(stats: &Value) -> Option<u64> {
    let measured = stats.get("timestamp")?.as_u64()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(now.saturating_sub(measured))
}

/// The load from 0 to 1 that the values amount to. Usages are percent; the load
/// average is a share of the cores, where they are given.
#[must_use]
pub fn utilisation(stats: &Value) -> Option<f32> {
    let number = |name: &str| stats.get(name)?.as_f64().filter(|value| *value >= 0.0);
    let cores = number("cores").unwrap_or(1.0).max(1.0);
    Some(balance::utilisation(
        number("cpu_usage")? / 100.0,
        number("memory_usage")? / 100.0,
        number("load_avg_1")? / cores,
    ))
}

/// What a URL says.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    secure: bool,
    /// Without brackets.
    host: &'a str,
    port: Option<&'a str>,
    /// Without a slash at its end.
    path: &'a str,
}

fn split_url(url: &str) -> Option<Parts<'_>> {
    let (secure, rest) = match url.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, url.strip_prefix("http://")?),
    };
    if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let valid = !host.is_empty() && port.is_none_or(|port| port.parse::<u16>().is_ok());
    valid.then(|| Parts {
        secure,
        host,
        port,
        path: path.trim_end_matches('/'),
    })
}

/// Percent-encodes all but what is certain to be safe in a path.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn urls_are_split() {
        let parts = |secure, host, port, path| {
            Some(Parts {
                secure,
                host,
                port,
                path,
            })
        };
        assert_eq!(
            split_url("http://127.0.0.1:7601"),
            parts(false, "127.0.0.1", Some("7601"), "")
        );
        assert_eq!(
            split_url("https://[::1]:7601/p/"),
            parts(true, "::1", Some("7601"), "/p")
        );
        assert_eq!(split_url("https://h"), parts(true, "h", None, ""));
        for bad in [
            "h",
            "ftp://h",
            "http:///p",
            "http://h:x",
            "http://h\r\nA: b",
        ] {
            assert_eq!(split_url(bad), None, "{bad:?}");
        }
        assert_eq!(encode("a/b c"), "a%2Fb%20c");
    }

    #[test]
    fn values_amount_to_a_load() {
        let stats = json!({"cpu_usage": 50, "memory_usage": 50.0, "load_avg_1": 2, "cores": 4});
        assert!((utilisation(&stats).unwrap() - 0.5).abs() < 1e-6);
        assert_eq!(utilisation(&json!({"cpu_usage": 50})), None);
        assert_eq!(
            utilisation(&json!({"cpu_usage": -1, "memory_usage": 0, "load_avg_1": 0})),
            None
        );
    }
}
