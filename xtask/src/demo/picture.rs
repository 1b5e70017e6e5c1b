//! The path of the traffic, drawn with the figures that the collector stored.

use std::fmt;

use super::reconciliation::Reconciliation;

/// The columns of one edge of the picture.
const EDGE: usize = 33;

/// Clients, proxy and backend, with what was counted between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    proxy: String,
    backend: String,
    edges: [Edge; 2],
}

/// What the collector holds of one side of the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    connections: Option<u64>,
    requests: Option<u64>,
    failed: Option<u64>,
    received: Option<u64>,
    sent: Option<u64>,
}

impl Picture {
    pub(super) fn new(proxy: &str, backend: &str, reconciliation: &Reconciliation) -> Self {
        Self {
            proxy: proxy.to_owned(),
            backend: backend.to_owned(),
            edges: ["downstream", "upstream"].map(|role| {
                let stored = |what| reconciliation.stored(role, what);
                Edge {
                    connections: stored("connections"),
                    requests: stored("requests"),
                    failed: stored("responses_4xx"),
                    received: stored("bytes_received"),
                    sent: stored("bytes_sent"),
                }
            }),
        }
    }
}

impl Edge {
    /// The lines above the arrow, and those below it.
    fn lines(&self) -> [String; 4] {
        let shown = |value: Option<u64>| value.map_or("–".to_owned(), grouped);
        let bytes = |value: Option<u64>| value.map_or("–".to_owned(), mebibytes);
        [
            format!("{} connections", shown(self.connections)),
            format!("{} requests", shown(self.requests)),
            format!("{} answered with 4xx", shown(self.failed)),
            format!("{} in, {} out", bytes(self.received), bytes(self.sent)),
        ]
    }
}

impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [downstream, upstream] = self.edges.each_ref().map(Edge::lines);
        let width = self.proxy.len().max("proxy".len()) + 4;
        let backend = self.backend.len().max("backend".len()) + 4;
        let row = |left: &str, edge: &str, middle: &str, other: &str, right: &str| {
            let line = format!("{left:<11}{edge:^EDGE$}{middle}{other:^EDGE$}{right}");
            line.trim_end().to_owned()
        };
        let boxed = |text: &str, width: usize| format!("│{text:^0$}│", width - 2);
        let edge = |left: char, right: char, width: usize| {
            format!("{left}{}{right}", "─".repeat(width - 2))
        };
        let arrow = format!("{}►", "─".repeat(EDGE - 1));
        let [d, u] = [&downstream, &upstream];
        let rows = [
            row(
                "┌─────────┐",
                &d[0],
                &edge('┌', '┐', width),
                &u[0],
                &edge('┌', '┐', backend),
            ),
            row(
                "│ clients │",
                &d[1],
                &boxed("proxy", width),
                &u[1],
                &boxed("backend", backend),
            ),
            row(
                "│         ├",
                &arrow,
                &boxed(&self.proxy, width),
                &arrow,
                &boxed(&self.backend, backend),
            ),
            row(
                "│         │",
                &d[2],
                &boxed("", width),
                &u[2],
                &boxed("", backend),
            ),
            row(
                "└─────────┘",
                &d[3],
                &edge('└', '┘', width),
                &u[3],
                &edge('└', '┘', backend),
            ),
        ];
        f.write_str(&rows.join("\n"))
    }
}

/// With a comma between thousands.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (value, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(value), expected);
        }
    }

    #[test]
    fn what_was_not_stored_is_a_dash() {
        let unknown = Edge {
            connections: None,
            requests: Some(7),
            failed: None,
            received: None,
            sent: Some(1 << 20),
        };
        let picture = Picture {
            proxy: "127.0.0.1:8080".to_owned(),
            backend: "127.0.0.1:9000".to_owned(),
            edges: [unknown.clone(), unknown],
        };
        let drawn = picture.to_string();
        assert!(drawn.contains("– connections"), "{drawn}");
        assert!(drawn.contains("7 requests"), "{drawn}");
        assert!(drawn.contains("– in, 1.0 MiB out"), "{drawn}");
        // The boxes stand below each other.
        let columns = |line: &str, corners: [char; 2]| -> Vec<usize> {
            let chars = line.chars().enumerate();
            chars
                .filter(|(_, c)| corners.contains(c))
                .map(|(at, _)| at)
                .collect()
        };
        let lines: Vec<&str> = drawn.lines().collect();
        let top = columns(lines[0], ['┌', '┐']);
        assert_eq!(top.len(), 6, "{drawn}");
        assert_eq!(columns(lines[4], ['└', '┘']), top, "{drawn}");
        for line in [lines[1], lines[3]] {
            assert_eq!(columns(line, ['│', '│']), top, "{drawn}");
        }
    }
}
