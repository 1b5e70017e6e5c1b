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
    let percent = |value| known(value, |v| format!("{v:.1} %"));
    let per_second = |value| known(value, |v| format!("{}/s", text::bytes(v)));
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
    ]
    .map(|(name, value)| vec![Cell::text(name), Cell::figure(value)]);
    Table::new(vec![Cell::text("FIGURE"), Cell::figure("NEWEST")]).print(&rows, out)
}

/// A dash stands for what was not measured.
fn known(value: Option<f64>, text: impl FnOnce(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

fn time(unix_s: u64) -> String {
    json::rfc3339(unix_s.saturating_mul(1_000_000_000))
}
