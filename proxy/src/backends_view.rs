//! The output of `explain`: what a running proxy bases its choices on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::config::Config;
use crate::driver::listener::{self, ListenError};
use crate::fetch::{self, FetchError};

/// The longest wait for the proxy.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// There is no admin API to ask.
    #[error("admin.enabled: the configuration has no admin API, which is asked: enable it")]
    NoAdmin,
    /// Its address is none.
    #[error(transparent)]
    Address(#[from] ListenError),
    /// It does not answer.
    #[error(
        "the proxy's admin API at {address} does not answer: is the proxy running with this configuration? ({source})"
    )]
    Fetch {
        /// Where it was asked.
        address: SocketAddr,
        /// The reason.
        source: FetchError,
    },
    /// Something else answers.
    #[error("{address} answered {status} and no list of backends: is it the proxy's admin API?")]
    Answer {
        /// Where it was asked.
        address: SocketAddr,
        /// The status of the answer.
        status: u16,
    },
    /// The operating system refused something.
    #[error("cannot start a runtime: {0}")]
    System(std::io::Error),
}

/// Asks the proxy that runs with this configuration for its backends.
///
/// # Errors
/// [`ExplainError`] where it does not answer.
pub fn ask(config: &Config) -> Result<Value, ExplainError> {
    let (host, port) = config.admin.as_ref().ok_or(ExplainError::NoAdmin)?;
    let mut address = listener::resolve(host, *port)?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ExplainError::System)?;
    let target = fetch::Target {
        host: &address.to_string(),
        path: "/api/v1/backends",
        token: None,
    };
    let fetched = runtime.block_on(fetch::get(&[address], target, REQUEST_TIMEOUT, None));
    let (status, body) = fetched.map_err(|source| ExplainError::Fetch { address, source })?;
    let value: Option<Value> = serde_json::from_slice(&body).ok();
    value
        .filter(|value| status == 200 && value["upstreams"].is_object())
        .ok_or(ExplainError::Answer { address, status })
}

const HEAD: [&str; 11] = [
    "UPSTREAM", "BACKEND", "STATE", "ACTIVE", "WEIGHT", "COST ms", "EXCH ms", "FAILED %",
    "PRESSURE", "START %", "AGE s",
];

/// The first three columns are words, the others figures.
const WORDS: usize = 3;

/// What [`ask`] gave, as a table.
#[must_use]
pub fn table(answer: &Value) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for (upstream, backends) in answer["upstreams"].as_object().into_iter().flatten() {
        let backends = backends.as_array().into_iter().flatten();
        rows.extend(backends.map(|backend| row(upstream, backend)));
    }
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &[String; HEAD.len()]| {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                if column < WORDS {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
        let cells: Vec<String> = cells.collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn row(upstream: &str, backend: &Value) -> [String; HEAD.len()] {
    let cost = &backend["cost"];
    let figure = |value: &Value, times: f64, digits: usize| {
        value.as_f64().map_or_else(
            || "–".to_owned(),
            |value| format!("{:.digits$}", value * times),
        )
    };
    let is = |name: &str| backend[name].as_bool() == Some(true);
    let state = if !is("active") {
        "switched off"
    } else if is("disconnected") {
        "disconnected"
    } else if !is("healthy") {
        "unhealthy"
    } else if is("ejected") {
        "ejected"
    } else {
        "up"
    };
    [
        upstream.to_owned(),
        backend["id"].as_str().unwrap_or("–").to_owned(),
        state.to_owned(),
        figure(&backend["connections"], 1.0, 0),
        figure(&backend["weight"], 1.0, 0),
        figure(&cost["seconds"], 1e3, 2),
        figure(&cost["exchange_seconds"], 1e3, 2),
        figure(&cost["failure_share"], 100.0, 1),
        figure(&cost["pressure"], 1.0, 2),
        figure(&cost["slow_start_share"], 100.0, 0),
        figure(&cost["age_seconds"], 1.0, 1),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_what_a_choice_is_based_on_and_what_is_unknown() {
        let backend = |id: &str, seconds: Value| {
            json!({
                "id": id, "active": true, "disconnected": false, "healthy": true,
                "ejected": id == "b", "connections": 3, "weight": 100,
                "cost": {"seconds": seconds, "exchange_seconds": seconds, "failure_share": null,
                         "pressure": 1.0, "slow_start_share": 0.5, "age_seconds": null},
            })
        };
        let answer = json!({"upstreams": {"shop": [
            backend("a", json!(0.0125)), backend("b", Value::Null)
        ]}});
        let table = table(&answer);
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1],
            [
                "shop", "a", "up", "3", "100", "12.50", "12.50", "–", "1.00", "50", "–"
            ]
        );
        assert_eq!(lines[2][2..7], ["ejected", "3", "100", "–", "–"]);
    }
}
