//! `speedmimi top --once`.

use monitor_proto::json;

use super::report_table;
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
    let targets = reports.iter().any(targets::several);
    let rows = reports.iter().flat_map(|r| report_table::rows(r, targets));
    report_table::table(targets).print(&rows.collect::<Vec<_>>(), out)
}
