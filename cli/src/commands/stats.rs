//! `speedmimi stats HOST`.

use monitor_proto::json;

use crate::{
    CliError,
    args::Format,
    client::{Client, percent_encoded},
    output::{Cell, Output, Table},
    text,
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
    let per_second = |value: f64| format!("{}/s", text::bytes(value));
    let rows = [
        ("CPU", format!("{:.1} %", s.cpu_usage)),
        ("Memory", format!("{:.1} %", s.memory_usage)),
        ("Disk", format!("{:.1} %", s.disk_usage)),
        (
            "Load",
            format!(
                "{:.2} {:.2} {:.2}",
                s.load_avg_1, s.load_avg_5, s.load_avg_15
            ),
        ),
        ("Network in", per_second(s.network_in)),
        ("Network out", per_second(s.network_out)),
        ("Measured", time(s.timestamp)),
    ]
    .map(|(name, value)| vec![Cell::text(name), Cell::figure(value)]);
    Table::new(vec![Cell::text("FIGURE"), Cell::figure("NEWEST")]).print(&rows, out)
}

fn time(unix_s: u64) -> String {
    json::rfc3339(unix_s.saturating_mul(1_000_000_000))
}
