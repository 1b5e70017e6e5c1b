//! Statistics: measured by the monitoring system, never counted here.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::reply::{Reply, Request};
use crate::control::Control;
use crate::fetch;

/// The longest wait for the collector.
const PATIENCE: Duration = Duration::from_secs(5);

/// The values of the host that the proxy runs on.
pub(super) async fn server(control: &Control) -> Result<Reply, Reply> {
    let raw = control.raw();
    if raw.collector.host_id.is_empty() {
        return Err(unconfigured(
            "collector.host_id (this host, as the collector names it)",
        ));
    }
    ask(&raw.collector.url, &raw.collector.host_id).await
}

/// The values of the host that a backend runs on.
pub(super) async fn backend(control: &Control, request: &Request) -> Result<Reply, Reply> {
    let (upstream, id) = (
        request.required("upstream")?,
        request.required("backend_id")?,
    );
    let backend = control.find(upstream, id).ok_or_else(|| {
        Reply::error(
            404,
            format!("there is no backend {id} in upstream {upstream}"),
        )
    })?;
    let Some(host_id) = &backend.config.host_id else {
        return Err(unconfigured(
            "host_id of the backend (its host, as the collector names it)",
        ));
    };
    ask(&control.raw().collector.url, host_id).await
}

fn unconfigured(key: &str) -> Reply {
    Reply::error(
        503,
        format!(
            "there are no measured values: configure {key} and collector.url, and run speedmimi-agent on that host"
        ),
    )
}

async fn ask(url: &str, host_id: &str) -> Result<Reply, Reply> {
    if url.is_empty() {
        return Err(unconfigured("the host's id"));
    }
    let failed = |detail: String| Reply::error(502, format!("the collector at {url}: {detail}"));
    let (authority, prefix) =
        split_url(url).ok_or_else(|| failed("not an http:// URL".to_owned()))?;
    let address = resolve(authority)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let path = format!("{prefix}/api/v1/hosts/{}/stats", encode(host_id));
    let (status, body) = fetch::get(address, authority, &path, PATIENCE, None)
        .await
        .map_err(|error| failed(error.to_string()))?;
    if status == 404 {
        return Err(Reply::error(
            404,
            format!("the collector knows no host {host_id}"),
        ));
    }
    let parsed: Option<Value> = serde_json::from_slice(&body).ok();
    let stats = parsed.as_ref().and_then(|value| value.get("stats"));
    match (status, stats) {
        (200, Some(stats)) => Ok(Reply::ok(
            json!({"stats": stats, "age_seconds": age_seconds(stats), "host_id": host_id}),
        )),
        _ => Err(failed(format!("it answered {status} without statistics"))),
    }
}

fn age_seconds(stats: &Value) -> Option<u64> {
    let measured = stats.get("timestamp")?.as_u64()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(now.saturating_sub(measured))
}

/// Authority and path of an `http://` URL.
fn split_url(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    (!authority.is_empty()).then(|| (authority, path.trim_end_matches('/')))
}

async fn resolve(authority: &str) -> std::io::Result<SocketAddr> {
    let with_port = if authority
        .rsplit(']')
        .next()
        .is_some_and(|rest| rest.contains(':'))
    {
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
}
