//! Reports as a collector serves them, and their sums.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::http::get_json;

/// Pages that are read at the most.
const PAGES_MAX: usize = 10_000;

/// The counters that are compared, by their names in the JSON.
///
/// A class of responses is written `responses.2xx`, a reason
/// `connections_failed.refused`.
pub type Counts = BTreeMap<String, u64>;

/// Counters by role and address.
pub type Endpoints = BTreeMap<(String, String), Counts>;

/// Every report that a collector has, in order.
///
/// # Errors
///
/// Where the collector does not answer as the contract says.
pub fn fetch(collector: SocketAddr) -> Result<Vec<Value>> {
    let mut reports = Vec::new();
    let mut path = "/api/v1/reports?limit=100".to_owned();
    for _ in 0..PAGES_MAX {
        let page = get_json(collector, &path)?;
        let list = page["reports"]
            .as_array()
            .context("no `reports` in the answer")?;
        reports.extend(list.iter().cloned());
        match &page["next_cursor"] {
            Value::Null => return Ok(reports),
            Value::String(cursor) => {
                path = format!("/api/v1/reports?limit=100&cursor={}", escape(cursor));
            }
            other => bail!("next_cursor is {other}"),
        }
    }
    bail!("the collector's pages do not end")
}

/// The sums of all windows, by endpoint.
///
/// # Errors
///
/// Where a report does not keep the contract's invariants: the sum of the
/// windows is the totals, and every connection is accounted for.
pub fn sum(reports: &[Value]) -> Result<Endpoints> {
    let mut sums = Endpoints::new();
    let mut active = BTreeMap::new();
    for report in reports {
        for endpoint in report["endpoints"].as_array().into_iter().flatten() {
            let key = key(endpoint);
            let sum = sums.entry(key.clone()).or_default();
            for (name, value) in counters(endpoint) {
                *sum.entry(name).or_default() += value;
            }
            let totals = counters(&endpoint["totals"]);
            ensure!(
                *sum == totals,
                "{key:?}: the windows sum up to {sum:?} and the totals say {totals:?}"
            );
            let now = endpoint["connections_active"].as_u64();
            active.insert(key, now.context("no connections_active")?);
        }
    }
    for (key, sum) in &sums {
        check_identity(key, sum, active[key])?;
    }
    Ok(sums)
}

/// The totals of one report, by endpoint.
#[must_use]
pub fn totals(report: &Value) -> Endpoints {
    report["endpoints"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|endpoint| (key(endpoint), counters(&endpoint["totals"])))
        .collect()
}

/// adopted + opened = failed + closed + active
fn check_identity(key: &(String, String), sum: &Counts, active: u64) -> Result<()> {
    let get = |name: &str| sum.get(name).copied().unwrap_or_default();
    let failed: u64 = sum
        .iter()
        .filter(|(name, _)| name.starts_with("connections_failed."))
        .map(|(_, value)| value)
        .sum();
    let begun = get("connections_adopted") + get("connections_opened");
    let accounted = failed + get("connections_closed") + active;
    ensure!(
        begun == accounted,
        "{key:?}: {begun} connections began and {accounted} are accounted for: {sum:?}, {active} active"
    );
    Ok(())
}

fn key(endpoint: &Value) -> (String, String) {
    let text = |name: &str| endpoint[name].as_str().unwrap_or_default().to_owned();
    (text("role"), text("address"))
}

/// Every counter of an endpoint, or of its totals.
fn counters(of: &Value) -> Counts {
    const NO_COUNTERS: [&str; 2] = ["connections_active", "live_bytes_age_ms"];
    let mut counts = Counts::new();
    for (name, value) in of.as_object().into_iter().flatten() {
        if let Some(value) = value
            .as_u64()
            .filter(|_| !NO_COUNTERS.contains(&name.as_str()))
        {
            counts.insert(name.clone(), value);
        }
    }
    for group in ["connections_failed", "requests_by_method", "responses"] {
        for (name, value) in of[group].as_object().into_iter().flatten() {
            if let Some(value) = value.as_u64() {
                counts.insert(format!("{group}.{name}"), value);
            }
        }
    }
    counts
}

/// Percent-encodes everything that is not surely harmless in a query.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(window: u64, total: u64, closed: u64) -> Value {
        json!({"endpoints": [{
            "role": "downstream", "address": "127.0.0.1:80", "connections_active": 0,
            "connections_opened": window, "connections_closed": window,
            "responses": {"2xx": window},
            "totals": {"connections_opened": total, "connections_closed": closed,
                       "responses": {"2xx": total}},
        }]})
    }

    #[test]
    fn windows_are_summed_up_by_endpoint() {
        let sums = sum(&[report(1, 1, 1), report(2, 3, 3)]).unwrap();
        let counts = &sums[&("downstream".to_owned(), "127.0.0.1:80".to_owned())];
        assert_eq!(counts["connections_opened"], 3);
        assert_eq!(counts["responses.2xx"], 3);
    }

    #[test]
    fn windows_that_are_not_the_totals_are_an_error() {
        let error = sum(&[report(1, 1, 1), report(2, 4, 4)]).unwrap_err();
        assert!(error.to_string().contains("the totals say"), "{error}");
    }

    #[test]
    fn a_connection_that_is_lost_is_an_error() {
        let mut lost = report(1, 1, 0);
        lost["endpoints"][0]["connections_closed"] = json!(0);
        let error = sum(&[lost]).unwrap_err();
        assert!(error.to_string().contains("accounted for"), "{error}");
    }

    #[test]
    fn cursors_are_escaped() {
        assert_eq!(escape("a+b/c="), "a%2Bb%2Fc%3D");
    }
}
