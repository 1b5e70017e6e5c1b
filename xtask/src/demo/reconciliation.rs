//! Sent, counted and stored, side by side.

use std::fmt;

use serde_json::{Value, json};
use testkit::{
    reports::{Counts, Endpoints},
    traffic::Outcome,
};

use super::stack::Stack;

/// One figure from its three witnesses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    what: &'static str,
    role: &'static str,
    sent: u64,
    kernel: Option<u64>,
    stored: Option<u64>,
}

/// All figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reconciliation {
    rows: Vec<Row>,
}

impl Reconciliation {
    pub(super) fn new(
        stack: &Stack,
        outcome: &Outcome,
        kernel: &Endpoints,
        stored: &Endpoints,
    ) -> Self {
        let origin = stack.origin_counts();
        // Received and sent are as the proxy sees it, whose sockets these are.
        let downstream = [
            ("connections", outcome.connections),
            ("requests", outcome.requests),
            ("responses_2xx", outcome.responses.successful),
            ("responses_4xx", outcome.responses.client_error),
            ("bytes_received", outcome.bytes_sent),
            ("bytes_sent", outcome.bytes_received),
        ];
        let upstream = [
            ("connections", origin.connections),
            ("requests", origin.requests),
            ("responses_2xx", origin.responses.successful),
            ("responses_4xx", origin.responses.client_error),
            ("bytes_received", origin.bytes_sent),
            ("bytes_sent", origin.bytes_received),
        ];
        let mut rows = Vec::new();
        for (role, figures) in [("downstream", downstream), ("upstream", upstream)] {
            let kernel = stack.endpoint(role, kernel);
            let stored = stack.endpoint(role, stored);
            rows.extend(figures.map(|(what, sent)| Row {
                what,
                role,
                sent,
                kernel: figure(kernel, what),
                stored: figure(stored, what),
            }));
        }
        Self { rows }
    }

    pub(super) fn is_equal(&self) -> bool {
        self.rows.iter().all(Row::is_equal)
    }

    /// What the collector holds; `None` where it was given nothing.
    pub(super) fn stored(&self, role: &str, what: &str) -> Option<u64> {
        let mut rows = self.rows.iter();
        rows.find(|row| row.role == role && row.what == what)?
            .stored
    }

    pub(super) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({"what": row.what, "role": row.role, "sent": row.sent,
                       "kernel": row.kernel, "stored": row.stored})
            })
            .collect();
        json!({"equal": self.is_equal(), "rows": rows})
    }
}

impl Row {
    fn is_equal(&self) -> bool {
        self.kernel == Some(self.sent) && self.stored == Some(self.sent)
    }
}

fn figure(counts: Option<&Counts>, what: &str) -> Option<u64> {
    let name = match what {
        "connections" => "connections_opened",
        "responses_2xx" => "responses.2xx",
        "responses_4xx" => "responses.4xx",
        other => other,
    };
    counts?.get(name).copied()
}

impl fmt::Display for Reconciliation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        writeln!(
            f,
            "{:<11} {:<15} {:>13} {:>13} {:>13}",
            "ROLE", "WHAT", "SENT", "KERNEL", "STORED"
        )?;
        for row in &self.rows {
            let (kernel, stored) = (shown(row.kernel), shown(row.stored));
            let mark = if row.is_equal() { "=" } else { "DIFFERS" };
            writeln!(
                f,
                "{:<11} {:<15} {:>13} {kernel:>13} {stored:>13}  {mark}",
                row.role, row.what, row.sent
            )?;
        }
        let verdict = if self.is_equal() {
            "all equal"
        } else {
            "NOT EQUAL"
        };
        f.write_str(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reconciliation(kernel: Option<u64>, stored: Option<u64>) -> Reconciliation {
        Reconciliation {
            rows: vec![Row {
                what: "requests",
                role: "downstream",
                sent: 7,
                kernel,
                stored,
            }],
        }
    }

    #[test]
    fn only_three_equal_figures_are_equal() {
        assert!(reconciliation(Some(7), Some(7)).is_equal());
        for (kernel, stored) in [
            (Some(6), Some(7)),
            (Some(7), Some(8)),
            (None, Some(7)),
            (Some(7), None),
        ] {
            let reconciliation = reconciliation(kernel, stored);
            assert!(!reconciliation.is_equal());
            assert!(reconciliation.to_string().contains("DIFFERS"));
        }
    }

    #[test]
    fn the_json_is_the_one_that_is_promised() {
        let json = reconciliation(Some(7), None).json();
        assert_eq!(
            json,
            json!({"equal": false, "rows": [{"what": "requests", "role": "downstream",
                   "sent": 7, "kernel": 7, "stored": null}]})
        );
    }
}
