//! `speedmimi reports --follow`.
//!
//! Live events are watched first and what was asked for from the past is read
//! then, so that no report falls between; what comes both ways is printed once.
//! After a break the same is done from the last report on.

use std::{
    collections::{HashSet, VecDeque},
    thread,
    time::Duration,
};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::pages::{Printer, Range, pages};
use crate::{CliError, args::Reports, client::Client};

/// Reports by which a repetition is known.
const SEEN_MAX: usize = 16_384;
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Reports that were late may end before the last one that was printed.
const OVERLAP: Duration = Duration::from_secs(300);

/// What identifies a report, and where it lies in time.
#[derive(Debug, Deserialize)]
struct Key {
    host: HostKey,
    agent: AgentKey,
    sequence: u64,
    window_end: jiff::Timestamp,
}

#[derive(Debug, Deserialize)]
struct HostKey {
    id: String,
}

#[derive(Debug, Deserialize)]
struct AgentKey {
    epoch: u64,
}

/// The reports that were printed, as far as they are remembered.
#[derive(Debug, Default)]
struct Seen {
    keys: HashSet<(String, u64, u64)>,
    order: VecDeque<(String, u64, u64)>,
    last_end: Option<jiff::Timestamp>,
}

impl Seen {
    /// Whether the report is new.
    fn add(&mut self, key: Key) -> bool {
        self.last_end = self.last_end.max(Some(key.window_end));
        let key = (key.host.id, key.agent.epoch, key.sequence);
        if !self.keys.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        true
    }

    /// From where on reports may have been missed.
    fn resume(&self) -> Option<String> {
        let overlap = jiff::SignedDuration::try_from(OVERLAP).ok()?;
        Some(self.last_end?.saturating_sub(overlap).ok()?.to_string())
    }
}

pub(super) fn follow(
    client: &Client,
    options: &Reports,
    printer: &mut Printer<'_>,
) -> Result<(), CliError> {
    let mut seen = Seen::default();
    let mut connected = false;
    let mut retry = RETRY_FIRST;
    loop {
        match session(client, options, printer, &mut seen, &mut connected) {
            Ok(Ended::Enough) => return Ok(()),
            Ok(Ended::Broken) => retry = RETRY_FIRST,
            // Only a collector that was there before is waited for.
            Err(CliError::Unreachable { .. } | CliError::BrokenOff { .. }) if connected => {}
            Err(error) => return Err(error),
        }
        eprintln!(
            "speedmimi: lost the connection to the collector at {}: retrying in {} ms",
            client.url(),
            retry.as_millis()
        );
        thread::sleep(retry);
        retry = (retry * 2).min(RETRY_MAX);
    }
}

enum Ended {
    /// The limit is reached.
    Enough,
    Broken,
}

fn session(
    client: &Client,
    options: &Reports,
    printer: &mut Printer<'_>,
    seen: &mut Seen,
    connected: &mut bool,
) -> Result<Ended, CliError> {
    let mut events = client.live(options.host.as_deref().unwrap_or(""))?;
    let again = std::mem::replace(connected, true);
    let since = if again {
        seen.resume().or_else(|| options.since.clone())
    } else {
        options.since.clone()
    };
    if let Some(since) = since {
        catch_up(client, options, &since, printer, seen)?;
    }
    while printer.left() != Some(0) {
        let Ok(Some(event)) = events.next() else {
            return Ok(Ended::Broken);
        };
        match event.name.as_str() {
            "report" => {
                let report = RawValue::from_string(event.data)
                    .map_err(|source| client.not_a_collector(source))?;
                print_new(client, &[report], printer, seen)?;
            }
            "skipped" => {
                if let Some(since) = seen.resume() {
                    catch_up(client, options, &since, printer, seen)?;
                }
            }
            _ => {}
        }
    }
    Ok(Ended::Enough)
}

fn catch_up(
    client: &Client,
    options: &Reports,
    since: &str,
    printer: &mut Printer<'_>,
    seen: &mut Seen,
) -> Result<(), CliError> {
    let range = Range { since, until: "" };
    pages(client, options, range, |page| {
        print_new(client, &page, printer, seen)?;
        // Pages hold repetitions, so the limit is the printer's alone.
        Ok(printer.left().filter(|left| *left == 0))
    })
    .map(drop)
}

fn print_new(
    client: &Client,
    reports: &[Box<RawValue>],
    printer: &mut Printer<'_>,
    seen: &mut Seen,
) -> Result<(), CliError> {
    let mut new = Vec::new();
    for report in reports {
        let key =
            serde_json::from_str(report.get()).map_err(|source| client.not_a_collector(source))?;
        if seen.add(key) {
            new.push(report.clone());
        }
    }
    printer.print(&new)
}
