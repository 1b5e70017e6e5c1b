//! `speedmimi hosts`.

use std::time::Duration;

use monitor_proto::{
    display::{self, UNKNOWN},
    json,
    state::HostState,
};

use crate::{
    CliError,
    args::Format,
    client::Client,
    output::{Cell, Output, Table, Tone},
};

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
    let with_labels = hosts.hosts.iter().any(|host| !host.host.labels.is_empty());
    let rows: Vec<_> = (hosts.hosts.iter())
        .map(|host| row(host, with_labels))
        .collect();
    let head = ["NAME", "ID", "STATE", "LEVEL", "AGENT"].map(Cell::text);
    let figures = ["LAST SEEN", "REPORTS", "MISSING", "CONFLICTS"].map(Cell::figure);
    let labels = with_labels.then(|| Cell::text("LABELS"));
    Table::new(head.into_iter().chain(figures).chain(labels).collect()).print(&rows, out)
}

fn row(host: &json::HostSummary, with_labels: bool) -> Vec<Cell> {
    let tone = tone(host.state);
    let age = host.age_ms.map(Duration::from_millis);
    let count = |n: u64| {
        let tone = if n == 0 { Tone::Plain } else { Tone::Warn };
        Cell::figure(n.to_string()).tone(tone)
    };
    let labels: Vec<_> = (host.host.labels.iter())
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let mut row = vec![
        Cell::text(&host.host.name),
        Cell::text(&host.host.id),
        Cell::text(host.state.map_or(UNKNOWN, HostState::word)).tone(tone),
        Cell::text(&host.agent.level),
        Cell::text(&host.agent.version),
        Cell::known(age.map(|age| format!("{} ago", display::age(age)))).tone(tone),
        Cell::figure(host.reports.to_string()),
        count(host.missing_reports),
        count(host.conflicts),
    ];
    row.extend(with_labels.then(|| Cell::text(&labels.join(","))));
    row
}

fn tone(state: Option<HostState>) -> Tone {
    match state {
        Some(HostState::Live) => Tone::Good,
        Some(HostState::Late) => Tone::Warn,
        Some(HostState::Silent) => Tone::Bad,
        None => Tone::Plain,
    }
}

/// What there is to say of a host that does not report: `silent for 5 min`.
pub(super) fn silence(host: &json::HostSummary) -> Option<String> {
    let state = host.state.filter(|state| *state != HostState::Live)?;
    let age = display::age(Duration::from_millis(host.age_ms?));
    Some(format!("{} for {age}", state.word()))
}
