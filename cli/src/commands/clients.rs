//! `speedmimi summary --by client`: who uses the listeners.

use jiff::Zoned;
use monitor_proto::{
    display::{self, Column},
    json::{ClientFigures, Top},
};

use crate::{
    CliError,
    args::{self, SummaryFormat},
    client::Client,
    output::{Cell, Output, Table, Tone, fit},
    time::local,
};

const PATH: &str = "/api/v1/top";

pub(crate) fn clients(
    client: &Client,
    options: &args::Summary,
    out: &mut Output,
) -> Result<(), CliError> {
    for (what, is_given) in [
        (
            "--role cannot be used with --by client: clients are those of listeners",
            options.role.is_some(),
        ),
        (
            "--against cannot be used with --by client",
            options.against.is_some(),
        ),
        (
            "--by client has no CSV: use --output json",
            options.output == SummaryFormat::Csv,
        ),
    ] {
        if is_given {
            return Err(CliError::Together(what));
        }
    }
    let host = options.host.as_deref().unwrap_or("");
    let limit = options.top.to_string();
    let query = [
        ("by", "client"),
        ("host", host),
        ("since", options.since.as_deref().unwrap_or("")),
        ("until", options.until.as_deref().unwrap_or("")),
        ("sort", options.sort.as_deref().unwrap_or("")),
        ("limit", &limit),
    ];
    if !host.is_empty() {
        client.must_know(host)?;
    }
    let (text, top): (_, Top) = client.get(PATH, &query)?;
    match options.output {
        SummaryFormat::Json => out.line(text.trim_end()),
        SummaryFormat::Table | SummaryFormat::Csv => print(&top, out),
    }
}

fn print(top: &Top, out: &mut Output) -> Result<(), CliError> {
    let now = Zoned::now();
    let [since, until] = [&top.since, &top.until].map(|time| local(time, &now));
    let title = format!(
        "{} client{} by {}, {since} to {until} {}, from reports",
        top.rows_total,
        if top.rows_total == 1 { "" } else { "s" },
        top.sort,
        now.strftime("%Z")
    );
    out.line(&display::printable(&title))?;
    let (head, rows) = fit(&COLUMNS, rows(top), Output::columns());
    Table::new(head).print(&rows, out)?;
    for note in notes(top) {
        out.line(&display::printable(&note))?;
    }
    Ok(())
}

const COLUMNS: [Column; 10] = [
    Column::name("CLIENT", 0, 18),
    Column::figure("IN", 0),
    Column::figure("OUT", 0),
    Column::figure("CONNS", 1),
    Column::figure("REQUESTS", 2),
    Column::figure("NOANS", 3),
    Column::figure("RESET", 4),
    Column::figure("RESET BY US", 6),
    Column::figure("EXCH", 7),
    Column::figure("HOSTS", 5),
];

fn rows(top: &Top) -> Vec<Vec<Cell>> {
    let mut rows: Vec<_> = top
        .rows
        .iter()
        .map(|of| row(&of.client, &of.figures, Some(of.hosts)))
        .collect();
    rows.push(row("~other", &top.other, None));
    rows.push(row("~total", &top.total, None));
    rows
}

fn row(name: &str, f: &ClientFigures, hosts: Option<u64>) -> Vec<Cell> {
    let count = |n: Option<i64>| Cell::known(n.map(|n| n.to_string()));
    let toned = |n: Option<i64>, tone: Tone| {
        let is_some = n.is_some_and(|n| n > 0);
        count(n).tone(if is_some { tone } else { Tone::Plain })
    };
    let bytes = |n: i64| Cell::figure(display::bytes(n as f64));
    vec![
        Cell::text(name),
        bytes(f.bytes_received),
        bytes(f.bytes_sent),
        count(Some(f.connections_opened)),
        count(f.requests),
        toned(f.requests_without_response, Tone::Bad),
        toned(Some(f.closed_reset_received), Tone::Warn),
        toned(Some(f.closed_reset_sent), Tone::Warn),
        count(f.exchanges),
        hosts.map_or_else(|| Cell::text(""), |n| count(i64::try_from(n).ok())),
    ]
}

/// What the table does not say.
fn notes(top: &Top) -> Vec<String> {
    let name = |host: &monitor_proto::json::SummaryHost| {
        if host.name.is_empty() {
            host.id.clone()
        } else {
            host.name.clone()
        }
    };
    let mut notes = Vec::new();
    if !top.hosts_without.is_empty() {
        let names: Vec<_> = top.hosts_without.iter().take(5).map(name).collect();
        let more = top.hosts_without.len() - names.len();
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        notes.push(format!(
            "not in it, as their agents tell of no clients (older ones, --client-prefix off, or nothing watched): {}{more}",
            names.join(", ")
        ));
    }
    notes.extend(top.partial.iter().map(|why| format!("partial: {why}")));
    notes
}

#[cfg(test)]
mod tests {
    use monitor_proto::json::{SummaryHost, TopRow};

    use super::*;

    fn figures(n: i64) -> ClientFigures {
        ClientFigures {
            connections_opened: n,
            bytes_received: 1024 * n,
            requests: Some(n),
            ..ClientFigures::default()
        }
    }

    fn top(client: &str) -> Top {
        Top {
            sort: "bytes".into(),
            rows_total: 3,
            rows: vec![TopRow {
                client: client.into(),
                hosts: 2,
                figures: figures(7),
            }],
            other: figures(1),
            total: figures(8),
            ..Top::default()
        }
    }

    fn lines(top: &Top, room: usize) -> Vec<String> {
        let (head, rows) = fit(&COLUMNS, rows(top), Some(room));
        Table::new(head).lines(&rows)
    }

    #[test]
    fn the_rows_the_others_and_all_of_them_stand_below_each_other() {
        let lines = lines(&top("2001:db8:1:2::/64"), 80);
        assert!(
            lines.iter().all(|line| line.chars().count() <= 80),
            "{lines:?}"
        );
        assert!(
            lines[0].contains("CONNS") && lines[0].contains("NOANS"),
            "{lines:?}"
        );
        assert!(
            lines[1].starts_with("2001:db8:1:2::/64  7.0 KiB  0 B"),
            "{lines:?}"
        );
        assert!(lines[2].starts_with("~other"), "{lines:?}");
        assert!(lines[3].starts_with("~total"), "{lines:?}");
        // What was not looked at is not none.
        assert!(lines[1].contains('–'), "{lines:?}");
    }

    #[test]
    fn hostile_names_do_nothing_to_the_terminal() {
        let mut top = top("\u{1b}[2J\u{202e}x\n");
        top.hosts_without = vec![SummaryHost::default(); 9];
        let text = lines(&top, 60).concat();
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\n']), "{text:?}");
        assert!(notes(&top)[0].ends_with(" and 4 more"), "{:?}", notes(&top));
    }
}
