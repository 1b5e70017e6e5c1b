//! `speedmimi top --once`.

use monitor_proto::json;

use super::report_table;
use crate::{CliError, args::Format, client::Client, output::Output};

/// The newest report of each host.
pub(crate) fn top_once(client: &Client, format: Format, out: &mut Output) -> Result<(), CliError> {
    let page = client.reports(&[("latest", "true")])?;
    if format == Format::Json {
        for report in &page.reports {
            out.line(report.get())?;
        }
        return Ok(());
    }
    let mut rows = Vec::new();
    for report in &page.reports {
        let report: json::Report =
            serde_json::from_str(report.get()).map_err(|source| client.not_a_collector(source))?;
        rows.extend(report_table::rows(&report));
    }
    report_table::table().print(&rows, out)
}
