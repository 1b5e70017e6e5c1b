//! The output of `check`: where requests go, and likely mistakes.

use std::fmt::Write as _;

use crate::config::{Config, Route, units};

/// Explains a configuration in words.
#[must_use]
pub fn explain(config: &Config) -> String {
    let mut text = String::new();
    let written = write_all(&mut text, config);
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
    text
}

fn write_all(out: &mut String, config: &Config) -> std::fmt::Result {
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    writeln!(
        out,
        "listens on {scheme}://{}:{}",
        config.listen.0, config.listen.1
    )?;
    match &config.admin {
        Some((host, port)) => writeln!(out, "admin API on http://{host}:{port}")?,
        None => writeln!(out, "no admin API")?,
    }
    for route in &config.routes {
        write_route(out, config, route)?;
    }
    for target in &config.connects {
        writeln!(
            out,
            "CONNECT {} goes to {} by {}",
            target.authority,
            config.upstreams[target.upstream].name,
            name(&target.algorithm)
        )?;
    }
    for warning in warnings(config) {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(out, "the configuration is valid")
}

fn write_route(out: &mut String, config: &Config, route: &Route) -> std::fmt::Result {
    let upstream = &config.upstreams[route.upstream];
    let algorithm = name(&route.algorithm);
    writeln!(
        out,
        "route {}: paths beginning with {} go to {} by {algorithm}",
        route.name, route.prefix, upstream.name
    )?;
    if upstream.queue > 0 {
        let timeout = units::Span(upstream.queue_timeout);
        writeln!(
            out,
            "  up to {} requests wait for {timeout} while every backend is at its max_conn",
            upstream.queue
        )?;
    }
    if upstream.idle_timeout.is_none() {
        writeln!(out, "  connections to backends are not reused")?;
    }
    for backend in &upstream.backends {
        let state = if backend.active { "" } else { ", switched off" };
        let limit = match backend.max_conn {
            ..=0 => String::new(),
            limit => format!(", at most {limit} at once"),
        };
        let check = backend
            .health_check
            .as_ref()
            .map_or_else(String::new, |check| {
                format!(", checked at {} every {}", check.path, check.interval)
            });
        writeln!(
            out,
            "  backend {}: {}://{}:{}, weight {}{limit}{check}{state}",
            backend.id,
            name(&backend.scheme),
            backend.host,
            backend.port,
            backend.weight
        )?;
    }
    Ok(())
}

/// A unit variant as it is written in the file.
fn name<T: serde::Serialize>(value: &T) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

/// What loads, but is hardly meant.
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.routes.is_empty() {
        warnings.push("there are no routes: every request is answered with 404".to_owned());
    } else if !config.routes.iter().any(|route| route.prefix == "/") {
        warnings
            .push("no route takes /: paths outside the routes are answered with 404".to_owned());
    }
    for (index, upstream) in config.upstreams.iter().enumerate() {
        let routed = config.routes.iter().any(|route| route.upstream == index)
            || config
                .connects
                .iter()
                .any(|target| target.upstream == index);
        if !routed {
            warnings.push(format!("no route uses upstream {}", upstream.name));
        }
        if !upstream.backends.iter().any(|backend| backend.active) {
            warnings.push(format!("upstream {} has no active backend", upstream.name));
        }
    }
    if config
        .trusted_proxies
        .iter()
        .any(|network| network.to_string().ends_with("/0"))
    {
        warnings
            .push("trusted_proxies holds a /0 network: anyone can claim any address".to_owned());
    }
    let collector = &config.raw.collector;
    let in_clear = collector.token_file.is_some() && collector.url.starts_with("http://");
    if in_clear && !is_here(&collector.url["http://".len()..]) {
        warnings.push(
            "collector.token_file is sent in clear: write an https:// URL at collector.url"
                .to_owned(),
        );
    }
    warnings
}

/// Whether an authority is this machine's own, on which no other host listens.
fn is_here(rest: &str) -> bool {
    ["127.0.0.1", "[::1]", "localhost"].iter().any(|own| {
        rest.strip_prefix(own)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_targets_are_told_and_lead_to_an_upstream() {
        let text =
            "backends: {u: [{id: a, host: h, port: 1}]}\nconnect: {\"DB:5432\": {upstream: u}}";
        let text = explain(&Config::parse(text).unwrap());
        let expected = "CONNECT db:5432 goes to u by least_connections_weight";
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("leads to"), "{text}");
    }

    #[test]
    fn routes_backends_and_oversights_are_told() {
        let text = "backends: {u: [{id: a, host: h, port: 1, active: false}], v: []}\n\
                    upstreams: {u: {queue: 9, idle_timeout: 0s}}\n\
                    routing: {r: {path: /x, upstream: u}}\nserver: {trusted_proxies: [0.0.0.0/0]}\n\
                    collector: {url: \"http://127.0.0.1.example:7601\", token_file: t}";
        let text = explain(&Config::parse(text).unwrap());
        for expected in [
            "route r: paths beginning with /x go to u by least_connections_weight",
            "up to 9 requests wait for 5s while every backend is at its max_conn",
            "connections to backends are not reused",
            "backend a: http://h:1, weight 100, switched off",
            "warning: no route takes /",
            "warning: no route uses upstream v",
            "warning: upstream u has no active backend",
            "/0 network",
            "warning: collector.token_file is sent in clear",
        ] {
            assert!(text.contains(expected), "{expected:?} in {text}");
        }
    }
}
