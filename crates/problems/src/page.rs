//! docs/problems.md, of the definitions.

use std::fmt::Write as _;

use crate::{CLOSE_AFTER, FORGET_AFTER, Kind, Severity, Unit, WINDOWS, words};

/// The page, as it must be in the repository.
#[must_use]
pub fn page() -> String {
    let mut page = format!(
        "# Problems

<!-- Made of crates/problems/src/definition.rs; a test compares it. -->

What is wrong now, worst first. One implementation judges the reports; `GET /api/v1/problems`, the gRPC method `ListProblems`, \
`speedmimi problems`, the web page, both `top`s, `speedmimi-agent problems` and `speedmimi_problem` in `/metrics` tell the same.

- **Judged are windows**, {WINDOWS} at the most: as few of the newest ones as hold the minimum of traffic.
- **A problem begins** after as many windows in a row at its threshold as its table says, and is over after {CLOSE_AFTER} windows in a row \
below the value at which it stays. Without traffic nobody can tell; after {FORGET_AFTER} such windows it is left out.
- **A silent host** has no other problem: its figures say nothing of now.
- **A listener's 5xx** are not told where its target's backends explain them: as many 5xx, failed connections, unanswered requests and resets \
within responses.
- **Thresholds** are set by `speedmimi-collector run --problem-threshold KIND=VALUE` and `speedmimi-agent problems --threshold KIND=VALUE`, \
repeatable; `KIND=off` turns a kind off.
- **A host takes** less than 64 KiB with 45 endpoints with traffic; all hosts together 256 MiB at the most, beyond which \
windows are left out and counted (`speedmimi_collector_unjudged_windows_total`).
- **After a start** the collector judges from the first reports that come; `since` is then no earlier than these.

| kind | severity | threshold | meaning |
|---|---|---|---|
"
    );
    for kind in Kind::ALL {
        let d = kind.definition();
        let row = format!(
            "| [`{}`](#{}) | {} | {} | {} |",
            d.name,
            d.name,
            severity(kind),
            value(d.unit, d.threshold),
            d.meaning
        );
        writeln!(page, "{row}").expect("writing to a String never fails");
    }
    for kind in Kind::ALL {
        let d = kind.definition();
        let section = format!(
            "
## {}

{}

| | |
|---|---|
| subject | {} |
| formula | {} |
| threshold | {} |
| stays at | {} |
| minimum | {} |
| begins after | {} |
| severity | {} |
| source | {} |
| what to do | {} |",
            d.name,
            d.meaning,
            d.subject,
            d.formula,
            value(d.unit, d.threshold),
            value(d.unit, d.threshold * d.stays_at),
            d.minimum,
            match d.open_after {
                1 => "1 window".to_owned(),
                n => format!("{n} windows"),
            },
            severity(kind),
            d.source,
            d.next
        );
        writeln!(page, "{section}").expect("writing to a String never fails");
    }
    page
}

fn value(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Ratio => words::percent(value),
        Unit::Times => words::times(value),
        Unit::Count => monitor_proto::display::count(value),
        Unit::PerSecond => format!("{value} a second"),
        Unit::Seconds => format!("{value} s"),
    }
}

fn severity(kind: Kind) -> String {
    let d = kind.definition();
    if kind == Kind::AgentSilent {
        return "late: warning, silent: critical".to_owned();
    }
    if d.severity == Severity::Critical || d.critical_from.is_infinite() {
        return d.severity.word().to_owned();
    }
    format!(
        "{}, critical from {}",
        d.severity.word(),
        value(d.unit, d.critical_from)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it differs, `SPEEDMIMI_UPDATE=1` writes it.
    #[test]
    fn the_page_follows_from_the_definitions() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/problems.md");
        if std::env::var_os("SPEEDMIMI_UPDATE").is_some() {
            std::fs::write(path, page()).expect("docs can be written");
        }
        let kept = std::fs::read_to_string(path).expect("docs/problems.md is there");
        assert!(
            kept == page(),
            "docs/problems.md differs: run this test with SPEEDMIMI_UPDATE=1"
        );
    }
}
