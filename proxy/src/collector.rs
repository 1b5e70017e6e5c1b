//! What the collector has measured of a host: read over its HTTP API, for the
//! admin API's statistics and for the balancer that looks at load.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::balance;
use crate::fetch::{self, FetchError};

/// The longest wait for the collector.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there are no values.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// Not an address that can be asked.
    #[error("collector.url: \"{0}\" is not an http:// URL with a host")]
    Url(String),
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
    /// Its answer holds no statistics.
    #[error("the collector at {url} answered {status} without statistics")]
    Answer {
        /// The collector.
        url: String,
        /// The status of the answer.
        status: u16,
    },
}

/// The latest values of a host, with the names that the collector uses.
///
/// # Errors
/// [`CollectorError`] where there are none.
pub async fn stats(url: &str, host_id: &str) -> Result<Value, CollectorError> {
    let (authority, prefix) = split_url(url).ok_or_else(|| CollectorError::Url(url.to_owned()))?;
    let failed = |source| CollectorError::Fetch {
        url: url.to_owned(),
        source,
    };
    let address = resolve(authority)
        .await
        .map_err(|error| failed(error.into()))?;
    let path = format!("{prefix}/api/v1/hosts/{}/stats", encode(host_id));
    let (status, body) = fetch::get(address, authority, &path, PATIENCE, None)
        .await
        .map_err(failed)?;
    if status == 404 {
        return Err(CollectorError::UnknownHost(host_id.to_owned()));
    }
    let parsed: Option<Value> = serde_json::from_slice(&body).ok();
    match parsed.and_then(|mut value| value.get_mut("stats").map(Value::take)) {
        Some(stats) if status == 200 => Ok(stats),
        _ => Err(CollectorError::Answer {
            url: url.to_owned(),
            status,
        }),
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

/// Authority and path of an `http://` URL.
fn split_url(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    (!authority.is_empty()).then(|| (authority, path.trim_end_matches('/')))
}

async fn resolve(authority: &str) -> std::io::Result<SocketAddr> {
    let has_port = authority
        .rsplit(']')
        .next()
        .is_some_and(|rest| rest.contains(':'));
    let with_port = if has_port {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let mut found = tokio::net::lookup_host(with_port).await?;
    found
        .next()
        .ok_or_else(|| std::io::ErrorKind::NotFound.into())
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
        assert_eq!(
            split_url("http://127.0.0.1:7601"),
            Some(("127.0.0.1:7601", ""))
        );
        assert_eq!(split_url("http://h/p/"), Some(("h", "/p")));
        assert_eq!(split_url("https://h"), None);
        assert_eq!(split_url("http:///p"), None);
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
