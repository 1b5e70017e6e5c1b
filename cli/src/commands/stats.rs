//! `speedmimi stats HOST`.

use monitor_proto::{
    display::{self, UNKNOWN},
    json,
    state::HostState,
};

use super::hosts;
use crate::{
    CliError,
    args::Format,
    client::{Client, percent_encoded},
    output::{Cell, Output, Table},
};

pub(crate) fn stats(
    client: &Client,
    host: &str,
    format: Format,
    out: &mut Output,
) -> Result<(), CliError> {
    let path = format!("/api/v1/hosts/{}/stats", percent_encoded(host));
    let (text, answer): (_, json::StatsResponse) = client.get(&path, &[])?;
    if format == Format::Json {
        return out.line(&text);
    }
    let s = answer.stats;
    let (_, all): (_, json::Hosts) = client.get("/api/v1/hosts", &[])?;
    let found = all
        .hosts
        .iter()
        .find(|h| h.host.id == host || h.host.name == host);
    let state = found.map_or_else(
        || UNKNOWN.to_owned(),
        |found| hosts::silence(found).unwrap_or_else(|| HostState::Live.word().to_owned()),
    );
    let percent = |value| known(value, |v| format!("{v:.1} %"));
    let per_second = |value| known(value, |v| format!("{}/s", display::bytes(v)));
    let loads = [s.load_avg_1, s.load_avg_5, s.load_avg_15];
    let rows = [
        ("CPU", percent(s.cpu_usage)),
        ("Memory", percent(s.memory_usage)),
        ("Disk", percent(s.disk_usage)),
        (
            "Load",
            loads
                .map(|load| known(load, |v| format!("{v:.2}")))
                .join(" "),
        ),
        ("Network in", per_second(s.network_in)),
        ("Network out", per_second(s.network_out)),
        ("Measured", time(s.timestamp)),
        ("Host", state),
    ]
    .map(|(name, value)| vec![Cell::text(name), Cell::figure(value)]);
    Table::new(vec![Cell::text("FIGURE"), Cell::figure("NEWEST")]).print(&rows, out)
}

fn known(value: Option<f64>, text: impl FnOnce(f64) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), text)
}

fn time(unix_s: u64) -> String {
    json::rfc3339(unix_s.saturating_mul(1_000_000_000))
}
