//! `speedmimi hosts`.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use monitor_proto::json;

use crate::{
    CliError,
    args::Format,
    client::Client,
    output::{Cell, Output, Table, Tone},
    text,
};

/// Reports come every 5 s: three missing in a row are a sign.
const STALE_AFTER: Duration = Duration::from_secs(20);

pub(crate) fn hosts(client: &Client, format: Format, out: &mut Output) -> Result<(), CliError> {
    let (text, hosts): (_, json::Hosts) = client.get("/api/v1/hosts", &[])?;
    if format == Format::Json {
        return out.line(&text);
    }
    if hosts.hosts.is_empty() {
        eprintln!(
            "No host has reported to {} yet: start `speedmimi-agent run` with this collector's \
             gRPC address and token.",
            client.url()
        );
        return Ok(());
    }
    let rows: Vec<_> = hosts.hosts.iter().map(row).collect();
    let head = ["NAME", "ID", "LEVEL", "AGENT"].map(Cell::text);
    let figures = ["LAST SEEN", "REPORTS", "MISSING", "CONFLICTS"].map(Cell::figure);
    Table::new(head.into_iter().chain(figures).collect()).print(&rows, out)
}

fn row(host: &json::HostSummary) -> Vec<Cell> {
    let age = age(&host.last_seen);
    let tone = match age {
        Some(age) if age < STALE_AFTER => Tone::Good,
        _ => Tone::Warn,
    };
    let count = |n: u64| {
        let tone = if n == 0 { Tone::Plain } else { Tone::Warn };
        Cell::figure(n.to_string()).tone(tone)
    };
    vec![
        Cell::text(&host.host.name),
        Cell::text(&host.host.id),
        Cell::text(&host.agent.level),
        Cell::text(&host.agent.version),
        Cell::known(age.map(|age| format!("{} ago", text::age(age)))).tone(tone),
        Cell::figure(host.reports.to_string()),
        count(host.missing_reports),
        count(host.conflicts),
    ]
}

/// How long ago a time of a collector is.
pub(crate) fn age(time: &str) -> Option<Duration> {
    let then: SystemTime = time.parse::<Timestamp>().ok()?.into();
    // A clock that is ahead of ours makes it now.
    Some(then.elapsed().unwrap_or_default())
}
