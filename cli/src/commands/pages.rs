//! Pages of reports, and how they are printed.

use std::collections::BTreeSet;

use jiff::Zoned;
use monitor_proto::{display, json};
use serde_json::value::RawValue;

use super::report_table;
use crate::{
    CliError,
    args::{Format, Reports},
    client::Client,
    output::{Output, Table},
    targets,
    time::local,
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
/// there is none; whether there are more.
pub(super) fn pages(
    client: &Client,
    options: &Reports,
    range: Range<'_>,
    mut each: impl FnMut(Vec<Box<RawValue>>) -> Result<Option<u64>, CliError>,
) -> Result<bool, CliError> {
    let mut cursor = String::new();
    let mut left = options.limit();
    loop {
        let limit = page_limit(options.endpoint.as_deref(), left).to_string();
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
            more => return Ok(more.is_some()),
        }
    }
}

/// How many reports of a page are asked for: where only those with an endpoint are
/// wanted, nobody knows how many pages have so many.
fn page_limit(endpoint: Option<&str>, left: Option<u64>) -> u64 {
    let wanted = left.filter(|_| endpoint.is_none());
    wanted.unwrap_or(PAGE_MAX).min(PAGE_MAX)
}

/// Prints reports as they come, up to the limit.
#[derive(Debug)]
pub(super) struct Printer<'a> {
    client: &'a Client,
    format: Format,
    /// Whether the table has a column for targets.
    targets: bool,
    table: Table,
    /// Only this one.
    endpoint: Option<&'a str>,
    left: Option<u64>,
    /// There was one beyond the limit.
    is_cut: bool,
    printed: Printed,
    out: &'a mut Output,
}

/// What a table has had so far.
#[derive(Debug, Default)]
struct Printed {
    reports: usize,
    rows: usize,
    hosts: BTreeSet<String>,
    /// The beginning of the first window, and the end of the last one.
    range: Option<(String, String)>,
}

impl<'a> Printer<'a> {
    pub(super) fn new(client: &'a Client, options: &'a Reports, out: &'a mut Output) -> Self {
        Self {
            client,
            format: options.common.output,
            targets: false,
            table: report_table::table(false),
            endpoint: options.endpoint.as_deref(),
            left: options.limit(),
            is_cut: false,
            printed: Printed::default(),
            out,
        }
    }

    /// How many more are wanted; `None` means all.
    pub(super) fn left(&self) -> Option<u64> {
        self.left
    }

    /// How many more are to be read: of an endpoint, only its next report tells whether
    /// there are more than a table shows.
    pub(super) fn unread(&self) -> Option<u64> {
        let looks_on = self.endpoint.is_some() && self.format == Format::Table && !self.is_cut;
        self.left.map(|left| left.max(u64::from(looks_on)))
    }

    /// Prints as many as are wanted, and sends them on at once.
    pub(super) fn print(&mut self, reports: &[Box<RawValue>]) -> Result<(), CliError> {
        let chosen;
        let reports: &[Box<RawValue>] = match self.endpoint {
            None => reports,
            Some(endpoint) => {
                let of_endpoint = reports.iter().map(|report| only(report, endpoint));
                let of_endpoint: Result<Vec<_>, _> = of_endpoint.collect();
                let of_endpoint = of_endpoint.map_err(|e| self.client.not_a_collector(e))?;
                chosen = of_endpoint.into_iter().flatten().collect::<Vec<_>>();
                &chosen
            }
        };
        let wanted = self.left.map_or(reports.len(), |left| {
            usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(reports.len())
        });
        self.is_cut |= wanted < reports.len();
        let reports = &reports[..wanted];
        self.left = self.left.map(|left| left - wanted as u64);
        if reports.is_empty() {
            return Ok(());
        }
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
                for report in &reports {
                    self.printed.add(report);
                }
                let rows = reports.iter();
                let rows = rows.flat_map(|r| report_table::rows(r, self.targets, None));
                let rows: Vec<_> = rows.collect();
                self.printed.rows += rows.len();
                self.table.print(&rows, self.out)
            }
        }
    }

    /// What the table had, and whether there is more of it.
    pub(super) fn end(self, more: bool) -> Result<(), CliError> {
        if self.format != Format::Table {
            return Ok(());
        }
        let now = Zoned::now();
        let Some((since, until)) = &self.printed.range else {
            return self.out.line("no report: see `speedmimi hosts`");
        };
        let counted = |n: usize, what: &str| match n {
            1 => format!("1 {what}"),
            n => format!("{n} {what}s"),
        };
        let rest = if more || self.is_cut {
            "; there are more: --limit N shows them, `speedmimi summary` sums them up"
        } else {
            ""
        };
        let line = format!(
            "{} of {} in {}, {} to {}{rest}",
            counted(self.printed.reports, "report"),
            counted(self.printed.hosts.len(), "host"),
            counted(self.printed.rows, "row"),
            local(since, &now),
            local(until, &now),
        );
        self.out.line(&display::printable(&line))
    }
}

impl Printed {
    fn add(&mut self, report: &json::Report) {
        self.reports += 1;
        self.hosts.insert(report.host.id.clone());
        let (first, last) = (report.window_start.clone(), report.window_end.clone());
        let since = self.range.take().map_or(first, |(since, _)| since);
        self.range = Some((since, last));
    }
}

/// A report with no endpoint but those of this address or name; `None` where it has
/// none of them.
fn only(report: &RawValue, endpoint: &str) -> Result<Option<Box<RawValue>>, serde_json::Error> {
    let mut report: serde_json::Value = serde_json::from_str(report.get())?;
    let endpoints = report.get_mut("endpoints");
    let Some(endpoints) = endpoints.and_then(serde_json::Value::as_array_mut) else {
        return Ok(None);
    };
    endpoints.retain(|one| {
        let names = ["address", "name", "upstream", "backend"];
        names.iter().any(|name| one[*name] == endpoint)
    });
    if endpoints.is_empty() {
        return Ok(None);
    }
    serde_json::value::to_raw_value(&report).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_full_where_only_some_reports_of_them_are_wanted() {
        assert_eq!(page_limit(None, Some(3)), 3);
        assert_eq!(page_limit(None, Some(PAGE_MAX + 1)), PAGE_MAX);
        for left in [None, Some(1), Some(100)] {
            assert_eq!(page_limit(Some("api"), left), PAGE_MAX);
        }
    }
}
