//! `speedmimi top --once`.

use std::collections::HashMap;

use monitor_proto::json;

use super::{hosts, report_table};
use crate::{CliError, args::Format, client::Client, output::Output, targets};

/// The newest report of each host.
pub(crate) fn top_once(client: &Client, format: Format, out: &mut Output) -> Result<(), CliError> {
    let page = client.reports(&[("latest", "true")])?;
    if format == Format::Json {
        for report in &page.reports {
            out.line(report.get())?;
        }
        return Ok(());
    }
    let parsed = page.reports.iter().map(|r| serde_json::from_str(r.get()));
    let reports: Vec<json::Report> = parsed
        .collect::<Result<_, _>>()
        .map_err(|source| client.not_a_collector(source))?;
    let (_, known): (_, json::Hosts) = client.get("/api/v1/hosts", &[])?;
    let silences: HashMap<&str, String> = (known.hosts.iter())
        .filter_map(|host| Some((host.host.id.as_str(), hosts::silence(host)?)))
        .collect();
    if let Ok((_, now)) = client.get("/api/v1/problems", &[]) {
        super::print_problems(&now, out)?;
        out.line("")?;
    }
    let targets = reports.iter().any(targets::several);
    let rows = reports.iter().flat_map(|report| {
        let silence = silences.get(report.host.id.as_str()).map(String::as_str);
        report_table::rows(report, targets, silence)
    });
    report_table::table(targets).print(&rows.collect::<Vec<_>>(), out)
}
