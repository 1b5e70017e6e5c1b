//! `speedmimi summary`: a time range in one look.

use std::io::Write as _;

use jiff::Zoned;
use monitor_proto::{
    display::{self, Column, UNKNOWN},
    json::{Sparkline, Summary, SummaryFigures, SummaryKey, SummaryPart},
};

use crate::{
    CliError,
    args::{self, SummaryFormat},
    client::Client,
    output::{Cell, Output, Table, Tone, fit},
    time::local,
};

const PATH: &str = "/api/v1/summary";

pub(crate) fn summary(
    client: &Client,
    options: &args::Summary,
    out: &mut Output,
) -> Result<(), CliError> {
    let host = options.host.as_deref().unwrap_or("");
    let limit = options.top.to_string();
    let query = [
        ("by", options.by.as_str()),
        ("role", options.role.as_deref().unwrap_or("")),
        ("host", host),
        ("since", options.since.as_deref().unwrap_or("")),
        ("until", options.until.as_deref().unwrap_or("")),
        ("against", options.against.as_deref().unwrap_or("")),
        ("sort", options.sort.as_deref().unwrap_or("")),
        ("limit", &limit),
    ];
    if !host.is_empty() {
        client.must_know(host)?;
    }
    match options.output {
        SummaryFormat::Csv => {
            let (text, _) = client.csv(PATH, &query)?;
            Ok(out.write_all(text.as_bytes())?)
        }
        SummaryFormat::Json => {
            let (text, _): (_, Summary) = client.get(PATH, &query)?;
            out.line(text.trim_end())
        }
        SummaryFormat::Table => {
            let (_, summary): (_, Summary) = client.get(PATH, &query)?;
            print(&summary, out)
        }
    }
}

fn print(summary: &Summary, out: &mut Output) -> Result<(), CliError> {
    let now = Zoned::now();
    out.line(&title(summary, &now))?;
    if summary.rows.is_empty() {
        out.line("nothing was reported of this range: see `speedmimi hosts`")?;
    } else {
        let (columns, rows) = shown(summary, &now);
        let (head, rows) = fit(&columns, rows, Output::columns());
        Table::new(head).print(&rows, out)?;
    }
    for note in notes(summary) {
        out.line(&display::printable(&note))?;
    }
    Ok(())
}

/// What was asked for, and of which range.
fn title(summary: &Summary, now: &Zoned) -> String {
    let rows = summary.rows_total;
    let plural = if rows == 1 { "" } else { "s" };
    let made_of = match summary.range.tier.as_str() {
        "raw" => "reports",
        "1m" => "roll-ups of a minute",
        "1h" => "roll-ups of an hour",
        _ => UNKNOWN,
    };
    let times = [&summary.range.since, &summary.range.until];
    let [since, until] = times.map(|time| local(time, now));
    let text = format!(
        "{rows} {}{plural} by {}, {since} to {until} {}, from {made_of}",
        summary.by,
        summary.sort,
        now.strftime("%Z")
    );
    display::printable(&text).into_owned()
}

const COLUMNS: [Column; 21] = [
    Column::name("NAME", 0, 21),
    Column::name("ADDRESS", 13, 12),
    Column::name("HOST", 9, 8),
    Column::figure("REQUESTS", 1),
    Column::name("TREND", 8, TREND_WIDTH + 1),
    Column::figure("4XX", 10),
    Column::figure("5XX", 11),
    Column::figure("5XX%", 2),
    Column::figure("P50", 11),
    Column::figure("P90", 17),
    Column::figure("P99", 3),
    Column::figure("P99.9", 18),
    Column::figure("FAILED", 5),
    Column::figure("RESET", 6),
    Column::figure("NOANS", 7),
    Column::figure("TLSFAIL", 7),
    Column::figure("IN", 12),
    Column::figure("OUT", 12),
    Column::figure("RETR", 14),
    Column::figure("EXCH", 16),
    Column::name("NOTE", 9, "in part not HTTP/1".len()),
];

/// The columns with their rows; without those that say nothing here.
fn shown(summary: &Summary, now: &Zoned) -> (Vec<Column>, Vec<Vec<Cell>>) {
    let has_tls = figures(summary).any(|figures| figures.spoken().has_tls());
    let has_notes = figures(summary).any(|figures| reason(figures).is_some());
    let is_there = |column: &Column| match column.head {
        "TLSFAIL" => has_tls,
        "NOTE" => has_notes,
        _ => true,
    };
    let all = columns(&summary.sort);
    let keep = all.each_ref().map(is_there);
    let of_row = |row: Vec<Cell>| {
        let cells = row.into_iter().zip(keep);
        cells.filter_map(|(cell, keep)| keep.then_some(cell))
    };
    let rows = rows(summary, now).into_iter();
    (
        all.into_iter().filter(is_there).collect(),
        rows.map(|row| of_row(row).collect()).collect(),
    )
}

/// Those of all rows, and of what they are compared with.
fn figures(summary: &Summary) -> impl Iterator<Item = &SummaryFigures> {
    let rows = summary.rows.iter().map(|row| &row.part);
    let parts = rows.chain(&summary.other).chain([&summary.total]);
    parts
        .flat_map(|part| [&part.figures, &part.against])
        .flatten()
}

/// Why not all requests are seen.
fn reason(figures: &SummaryFigures) -> Option<String> {
    figures.protocol?.reason(figures.spoken())
}

/// The columns, of which those that the rows are ordered by stay in any case.
fn columns(sort: &str) -> [Column; COLUMNS.len()] {
    let stay: &[&str] = match sort {
        "p99" => &["P99"],
        "5xx" => &["5XX", "5XX%"],
        "bytes" => &["IN", "OUT"],
        "failed" => &["FAILED"],
        "resets" => &["RESET"],
        "unanswered" => &["NOANS"],
        "retransmits" => &["RETR"],
        _ => &["REQUESTS"],
    };
    COLUMNS.map(|column| Column {
        rank: if stay.contains(&column.head) {
            0
        } else {
            column.rank
        },
        ..column
    })
}

fn rows(summary: &Summary, now: &Zoned) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    let against = summary.against.as_ref();
    let against = against.map(|range| format!("  {}", local(&range.since, now)));
    let mut add = |names: [Cell; 3], part: &SummaryPart| {
        let trend = trend(&part.sparkline);
        rows.push(row(names, &trend, part.figures.as_ref()));
        if let Some(against) = &against {
            let names = [Cell::text(against), Cell::text(""), Cell::text("")];
            rows.push(row(names, "", part.against.as_ref()));
        }
    };
    for row in &summary.rows {
        add(names(&row.key, row.hosts), &row.part);
    }
    let rest = |name: &str| [Cell::text(name), Cell::text(""), Cell::text("")];
    if let Some(other) = &summary.other {
        let n = summary.rows_total - (summary.rows.len() as u64).min(summary.rows_total);
        add(rest(&format!("~other ({n})")), other);
    }
    add(rest("~total"), &summary.total);
    rows
}

/// What a row is called, its address, and on which host it is or on how many.
fn names(key: &SummaryKey, hosts: u64) -> [Cell; 3] {
    let host = key.host.as_ref();
    let host = host.map(|host| {
        if host.name.is_empty() {
            &host.id
        } else {
            &host.name
        }
    });
    let known: Vec<&str> = [&key.upstream, &key.backend, &key.name]
        .into_iter()
        .map(String::as_str)
        .filter(|name| !name.is_empty())
        .collect();
    let name = match (&known[..], host) {
        ([], Some(host)) if key.endpoint.is_empty() => host.clone(),
        ([], _) if key.endpoint.is_empty() => UNKNOWN.to_owned(),
        ([], _) => key.endpoint.clone(),
        (names, _) => names.join("/"),
    };
    let hosts = match (host, hosts) {
        (Some(host), _) => host.clone(),
        (None, 0) => UNKNOWN.to_owned(),
        (None, 1) => "1 host".to_owned(),
        (None, n) => format!("{n} hosts"),
    };
    let address: &str = if key.endpoint.is_empty() {
        UNKNOWN
    } else {
        &key.endpoint
    };
    [name.as_str(), address, &hosts].map(Cell::text)
}

fn row(names: [Cell; 3], trend: &str, figures: Option<&SummaryFigures>) -> Vec<Cell> {
    let counter = |name: &str| figures.and_then(|figures| figures.counter(name));
    let responses = figures.and_then(|figures| figures.responses);
    let ratio = figures.and_then(|figures| figures.server_error_ratio);
    let durations = figures.and_then(|figures| figures.exchange_duration);
    let protocol = figures.and_then(|figures| figures.protocol);
    let count = |n: Option<u64>| Cell::known(n.map(|n| n.to_string()));
    let toned = |n: Option<u64>, tone: Tone| {
        let is_some = n.is_some_and(|n| n > 0);
        count(n).tone(if is_some { tone } else { Tone::Plain })
    };
    let bytes = |name: &str| Cell::known(counter(name).map(|n| display::bytes(n as f64)));
    let quantile = |ms: Option<f64>| Cell::figure(display::exchange_duration(ms, protocol));
    let errors = responses.map(|r| r.server_error);
    let has_errors = errors.is_some_and(|n| n > 0);
    let percent = Cell::known(ratio.map(|ratio| percent(ratio, has_errors)));
    let [name, address, host] = names;
    vec![
        name,
        address,
        host,
        count(counter("requests")),
        Cell::text(trend),
        count(responses.map(|r| r.client_error)),
        toned(errors, Tone::Bad),
        percent.tone(if has_errors { Tone::Bad } else { Tone::Plain }),
        quantile(durations.map(|d| d.p50_ms)),
        quantile(durations.map(|d| d.p90_ms)),
        quantile(durations.map(|d| d.p99_ms)),
        quantile(durations.map(|d| d.p999_ms)),
        toned(counter("connections_failed"), Tone::Bad),
        toned(figures.and_then(SummaryFigures::resets), Tone::Warn),
        toned(counter("requests_without_response"), Tone::Bad),
        toned(figures.and_then(SummaryFigures::tls_failed), Tone::Bad),
        bytes("bytes_received"),
        bytes("bytes_sent"),
        toned(counter("retransmits"), Tone::Warn),
        count(counter("exchanges")),
        Cell::text(&figures.and_then(reason).unwrap_or_default()),
    ]
}

/// A share with the figures that matter; the smallest one is not shown as none.
fn percent(ratio: f64, is_some: bool) -> String {
    let percent = ratio * 100.0;
    match percent {
        _ if is_some && percent < 0.01 => "<0.01".to_owned(),
        0.0 => "0".to_owned(),
        ..1.0 => format!("{percent:.2}"),
        ..10.0 => format!("{percent:.1}"),
        _ => format!("{percent:.0}"),
    }
}

/// Characters of a sparkline.
const TREND_WIDTH: usize = 12;
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Each character is the mean of some steps: the lowest one is 0, and a gap where
/// nothing was measured.
fn trend(sparkline: &Sparkline) -> String {
    let steps = sparkline.values.len().div_ceil(TREND_WIDTH).max(1);
    let means: Vec<Option<f64>> = sparkline
        .values
        .chunks(steps)
        .map(|steps| {
            let known: Vec<u64> = steps.iter().flatten().copied().collect();
            let sum: f64 = known.iter().map(|n| *n as f64).sum();
            (!known.is_empty()).then(|| sum / known.len() as f64)
        })
        .collect();
    let most = means.iter().flatten().copied().fold(0.0, f64::max);
    let level = |mean: f64| {
        if mean > 0.0 {
            LEVELS[1 + (mean / most * 6.0).round() as usize]
        } else {
            LEVELS[0]
        }
    };
    means
        .into_iter()
        .map(|mean| mean.map_or(' ', level))
        .collect()
}

/// What the table does not say.
fn notes(summary: &Summary) -> Vec<String> {
    let mut notes: Vec<String> = Vec::new();
    if figures(summary).any(|figures| reason(figures).is_some()) {
        let mut reasons: Vec<_> = figures(summary).filter_map(reason).collect();
        reasons.sort_unstable();
        reasons.dedup();
        notes.push(format!(
            "*: {}: times are of exchanges, and requests that are not HTTP/1 cannot be seen",
            reasons.join(", ")
        ));
    }
    let unnamed = |key: &SummaryKey| key.upstream.is_empty();
    if summary.by == "upstream" && summary.rows.iter().any(|row| unnamed(&row.key)) {
        // Roll-ups have no names: those of the newest report are taken.
        let or_gone = if summary.range.tier == "raw" {
            ""
        } else {
            ", or not in their host's newest report"
        };
        notes.push(format!(
            "{UNKNOWN}: backends without a name{or_gone}: give the agent the proxy's configuration (--names-from)"
        ));
    }
    if figures(summary).any(|figures| !figures.complete) {
        notes.push("some reports are incomplete: see `speedmimi reports`".to_owned());
    }
    notes.extend(summary.partial.iter().map(|why| format!("partial: {why}")));
    notes
}

#[cfg(test)]
mod tests {
    use monitor_proto::{
        json::{Responses, SummaryDurations, SummaryHost, SummaryRow},
        protocol::Protocol,
    };

    use super::*;

    fn figures(n: u64) -> SummaryFigures {
        let names = [
            "requests",
            "connections_failed",
            "closed_reset_received",
            "requests_without_response",
            "bytes_received",
            "bytes_sent",
        ];
        SummaryFigures {
            protocol: Some(Protocol::Http1),
            counters: names.map(|name| (name.to_owned(), Some(n))).into(),
            responses: Some(Responses {
                successful: n,
                server_error: n,
                ..Responses::default()
            }),
            server_error_ratio: Some(0.5),
            exchange_duration: Some(SummaryDurations {
                p99_ms: 123.0,
                ..SummaryDurations::default()
            }),
            connect_duration: None,
            complete: true,
        }
    }

    fn part(figures: Option<SummaryFigures>) -> SummaryPart {
        let values = vec![Some(0), None, Some(5), Some(10)];
        SummaryPart {
            figures,
            sparkline: Sparkline {
                metric: "requests".into(),
                values,
            },
            ..SummaryPart::default()
        }
    }

    fn summary(name: &str, figures: SummaryFigures) -> Summary {
        let key = SummaryKey {
            host: Some(SummaryHost {
                name: "a-host-with-a-long-name.example".into(),
                id: "i".into(),
            }),
            upstream: name.to_owned(),
            backend: "b".into(),
            endpoint: "[2001:db8::1234:5678:9abc:def0]:65535".into(),
            ..SummaryKey::default()
        };
        Summary {
            by: "backend".into(),
            sort: "requests".into(),
            rows_total: 9,
            rows: vec![SummaryRow {
                key,
                hosts: 1,
                part: part(Some(figures.clone())),
            }],
            other: Some(part(None)),
            total: part(Some(figures)),
            ..Summary::default()
        }
    }

    /// The lines of a table that has so much room.
    fn lines(summary: &Summary, room: usize) -> Vec<String> {
        let (columns, rows) = shown(summary, &Zoned::now());
        let (head, rows) = fit(&columns, rows, Some(room));
        Table::new(head).lines(&rows)
    }

    #[test]
    fn eighty_columns_have_the_figures_that_matter() {
        let lines = lines(
            &summary("an-upstream-with-a-long-name", figures(1 << 60)),
            80,
        );
        for line in &lines {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for head in ["NAME", "REQUESTS", "5XX%", "P99"] {
            assert!(lines[0].contains(head), "{lines:?}");
        }
        let lines = self::lines(&summary("api", figures(100)), 80);
        for head in ["5XX", "FAILED", "RESET", "NOANS", "TREND"] {
            assert!(lines[0].contains(head), "{lines:?}");
        }
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with("api/b "), "{lines:?}");
        assert!(lines[2].starts_with("~other (8)"), "{lines:?}");
        assert!(lines[3].starts_with("~total"), "{lines:?}");
        // Requests, failed, reset by the peer and unanswered.
        assert_eq!(lines[1].matches(" 100").count(), 4, "{lines:?}");
        // What was not there is unknown in every column.
        let cells: Vec<&str> = lines[2].split_whitespace().skip(2).collect();
        assert!(cells.contains(&UNKNOWN), "{cells:?}");
        assert!(!cells.contains(&"0"), "{cells:?}");
    }

    #[test]
    fn tls_has_its_failed_handshakes_and_is_the_reason_for_dashes() {
        let plain = lines(&summary("api", figures(100)), 300).concat();
        assert!(!plain.contains("TLSFAIL") && !plain.contains("NOTE"));
        let mut of_tls = figures(100);
        of_tls.protocol = Some(Protocol::Other);
        of_tls.counters.insert("requests".to_owned(), None);
        let mut told = |name: &str, n| of_tls.counters.insert(format!("tls_handshakes{name}"), n);
        told("", Some(50));
        told("_failed_alert", Some(30));
        told("_failed_end", Some(7));
        let mut summary = summary("api", of_tls);
        let lines = lines(&summary, 300);
        assert!(lines[0].contains("NOANS  TLSFAIL"), "{lines:?}");
        assert!(lines[1].contains(" 37 "), "{lines:?}");
        assert!(lines[1].ends_with(" TLS"), "{lines:?}");
        assert!(notes(&summary)[0].starts_with("*: TLS: times"));
        // What was not looked at has none that failed, and none that did not.
        let row = summary.rows[0].part.figures.as_mut().unwrap();
        for name in ["", "_failed_alert", "_failed_end"] {
            row.counters.insert(format!("tls_handshakes{name}"), None);
        }
        assert_eq!(row.tls_failed(), None);
        let lines = self::lines(&summary, 300);
        assert!(lines[1].ends_with(" not HTTP/1"), "{lines:?}");
    }

    #[test]
    fn what_the_rows_are_ordered_by_is_always_shown() {
        let mut by_bytes = summary("api", figures(1 << 30));
        by_bytes.sort = "bytes".into();
        let lines = lines(&by_bytes, 50);
        assert!(
            lines[0].contains("IN") && lines[0].contains("OUT"),
            "{lines:?}"
        );
        assert!(
            lines.iter().all(|line| line.chars().count() <= 50),
            "{lines:?}"
        );
    }

    #[test]
    fn hostile_names_do_nothing_to_the_terminal() {
        for room in [1, 40, 80, 200] {
            let lines = lines(&summary("\u{1b}[2J\u{202e}x\n", figures(1)), room);
            let text = lines.concat();
            assert!(!text.contains(['\u{1b}', '\u{202e}', '\n']), "{text:?}");
        }
    }

    #[test]
    fn a_trend_has_gaps_and_zeros() {
        let of = |values: &[Option<u64>]| {
            trend(&Sparkline {
                metric: "requests".into(),
                values: values.to_vec(),
            })
        };
        assert_eq!(of(&[Some(0), None, Some(5), Some(10)]), "▁ ▅█");
        assert_eq!(of(&[]), "");
        assert_eq!(of(&[Some(1); 60]), "█".repeat(12));
        assert_eq!(of(&[Some(u64::MAX), Some(1)]), "█▂");
        assert_eq!(of(&[Some(0); 3]), "▁▁▁");
    }

    #[test]
    fn a_name_may_be_gone_where_roll_ups_take_those_of_the_newest_report() {
        let mut unnamed = summary("", figures(1));
        unnamed.by = "upstream".into();
        for (tier, is_told) in [("raw", false), ("1m", true), ("1h", true)] {
            unnamed.range.tier = tier.into();
            let notes = notes(&unnamed).concat();
            assert!(notes.contains("backends without a name"), "{notes}");
            assert_eq!(notes.contains("newest report"), is_told, "{notes}");
        }
    }

    #[test]
    fn small_shares_are_not_none() {
        assert_eq!(percent(0.0, false), "0");
        assert_eq!(percent(1e-9, true), "<0.01");
        assert_eq!(percent(0.0012, true), "0.12");
        assert_eq!(percent(0.047, true), "4.7");
        assert_eq!(percent(0.47, true), "47");
        assert_eq!(percent(1.0, true), "100");
    }
}
