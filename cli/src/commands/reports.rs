//! `speedmimi reports`.

use super::{
    follow::follow,
    pages::{Printer, Range, pages},
};
use crate::{CliError, args::Reports, client::Client, output::Output};

pub(crate) fn reports(
    client: &Client,
    options: &Reports,
    out: &mut Output,
) -> Result<(), CliError> {
    let mut printer = Printer::new(client, options, out);
    if options.follow {
        // A host that has not reported yet is waited for.
        follow(client, options, &mut printer)
    } else {
        if let Some(host) = &options.host {
            client.must_know(host)?;
        }
        let range = Range {
            since: options.since.as_deref().unwrap_or(""),
            until: options.until.as_deref().unwrap_or(""),
        };
        let more = pages(client, options, range, |page| {
            printer.print(&page)?;
            Ok(printer.unread())
        })?;
        printer.end(more)
    }
}
