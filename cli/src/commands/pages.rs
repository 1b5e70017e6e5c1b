//! Pages of reports, and how they are printed.

use monitor_proto::json;
use serde_json::value::RawValue;

use super::report_table;
use crate::{
    CliError,
    args::{Format, Reports},
    client::Client,
    output::{Output, Table},
    targets,
};

/// As many as a collector gives at once.
const PAGE_MAX: u64 = 1000;

/// Which reports, as the collector's parameters say it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range<'a> {
    pub(super) since: &'a str,
    pub(super) until: &'a str,
}

/// Hands page after page to `each`, until it wants no more (`Some(0)`) or
/// there is none.
pub(super) fn pages(
    client: &Client,
    options: &Reports,
    range: Range<'_>,
    mut each: impl FnMut(Vec<Box<RawValue>>) -> Result<Option<u64>, CliError>,
) -> Result<(), CliError> {
    let mut cursor = String::new();
    let mut left = options.limit;
    loop {
        let limit = left.unwrap_or(PAGE_MAX).min(PAGE_MAX).to_string();
        let page = client.reports(&[
            ("host", options.host.as_deref().unwrap_or("")),
            ("since", range.since),
            ("until", range.until),
            ("limit", &limit),
            ("cursor", &cursor),
        ])?;
        left = each(page.reports)?;
        match page.next_cursor {
            Some(next) if left != Some(0) => cursor = next,
            _ => return Ok(()),
        }
    }
}

/// Prints reports as they come, up to the limit.
#[derive(Debug)]
pub(super) struct Printer<'a> {
    client: &'a Client,
    format: Format,
    /// Whether the table has a column for targets.
    targets: bool,
    table: Table,
    left: Option<u64>,
    out: &'a mut Output,
}

impl<'a> Printer<'a> {
    pub(super) fn new(client: &'a Client, options: &Reports, out: &'a mut Output) -> Self {
        Self {
            client,
            format: options.common.output,
            targets: false,
            table: report_table::table(false),
            left: options.limit,
            out,
        }
    }

    /// How many more are wanted; `None` means all.
    pub(super) fn left(&self) -> Option<u64> {
        self.left
    }

    /// Prints as many as are wanted, and sends them on at once.
    pub(super) fn print(&mut self, reports: &[Box<RawValue>]) -> Result<(), CliError> {
        let wanted = self.left.map_or(reports.len(), |left| {
            usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(reports.len())
        });
        let reports = &reports[..wanted];
        self.left = self.left.map(|left| left - wanted as u64);
        match self.format {
            Format::Json => {
                for report in reports {
                    self.out.line(report.get())?;
                }
                self.out.flush()
            }
            Format::Table => {
                let parsed = reports.iter().map(|r| serde_json::from_str(r.get()));
                let reports: Vec<json::Report> = parsed
                    .collect::<Result<_, _>>()
                    .map_err(|source| self.client.not_a_collector(source))?;
                // From the first report on that needs it, under a head of its own.
                if !self.targets && reports.iter().any(targets::several) {
                    self.targets = true;
                    self.table = report_table::table(true);
                }
                let rows = reports.iter();
                let rows = rows.flat_map(|r| report_table::rows(r, self.targets, None));
                self.table.print(&rows.collect::<Vec<_>>(), self.out)
            }
        }
    }
}
