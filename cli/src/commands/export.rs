//! `speedmimi export`.

use std::io::Write;

use crate::{
    CliError,
    args::{Export, ExportFormat},
    client::Client,
    output::Output,
};

/// As many as a collector gives at once.
const PAGE_MAX: &str = "1000";

pub(crate) fn export(client: &Client, options: &Export, out: &mut Output) -> Result<(), CliError> {
    if let Some(host) = &options.host {
        client.must_know(host)?;
    }
    let mut cursor = String::new();
    let mut first = true;
    loop {
        let query = [
            ("host", options.host.as_deref().unwrap_or("")),
            ("since", options.since.as_deref().unwrap_or("")),
            ("until", options.until.as_deref().unwrap_or("")),
            ("limit", PAGE_MAX),
            ("cursor", &cursor),
        ];
        let next = match options.format {
            ExportFormat::Csv => csv_page(client, &query, first, out)?,
            ExportFormat::Jsonl => {
                let page = client.reports(&query)?;
                for report in page.reports {
                    out.line(report.get())?;
                }
                page.next_cursor
            }
        };
        match next {
            Some(next) => cursor = next,
            None => return Ok(()),
        }
        first = false;
    }
}

/// Every page has the head; it is written once.
fn csv_page(
    client: &Client,
    query: &[(&str, &str)],
    first: bool,
    out: &mut Output,
) -> Result<Option<String>, CliError> {
    let (text, next) = client.csv("/api/v1/reports", query)?;
    let lines = match text.split_once('\n') {
        Some((_, rest)) if !first => rest,
        _ => &text,
    };
    out.write_all(lines.as_bytes())?;
    Ok(next)
}
