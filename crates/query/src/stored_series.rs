//! Reading the samples of series.

use std::collections::HashMap;

use budget::Held;
use rollup::{EndpointId, EndpointRoll, HostRoll};
use rusqlite::{Connection, params};
use store::{
    kept::{self, Damage, host_id},
    reports::{self, from_row},
    rolls::{self, EndpointRow, Histogram, Range},
    to_sql,
};

use crate::{
    endpoint_filter::EndpointFilter,
    read_error::ReadError,
    series::{Plan, Samples, Scope, Tier},
};

/// Reports that one answer is made from.
const REPORTS_MAX: usize = 20_000;
/// Series of one answer.
const SERIES_MAX: usize = 1000;
/// Damaged rows that an answer counts.
const DAMAGED_MAX: usize = 10_000;
/// Steps of all of them: as many as that many series have where the step is not
/// chosen by the request.
const POINTS_MAX: u64 = 250_000;

/// The samples of one series.
#[derive(Debug)]
pub struct HostSeries {
    pub host: i64,
    pub endpoint: Option<EndpointId>,
    pub samples: Samples,
}

/// What was found of some hosts.
#[derive(Debug)]
pub struct Found {
    pub series: Vec<HostSeries>,
    /// Their room.
    pub held: Held,
    /// Rows in the range that cannot be read, up to a bound: a gap in the series.
    pub(super) damaged: Vec<Damage>,
    // How many reports it was made of.
    reports: usize,
}

impl Found {
    /// Nothing yet, in this room.
    pub(super) fn new(held: Held) -> Self {
        Self {
            series: Vec::new(),
            held,
            damaged: Vec::new(),
            reports: 0,
        }
    }

    pub(super) fn join(&mut self, other: Self) {
        self.series.extend(other.series);
        self.held.join(other.held);
        self.damaged.extend(other.damaged);
        self.reports += other.reports;
    }

    /// One more row is left out.
    fn damage(&mut self, row: impl FnOnce() -> Damage) {
        if self.damaged.len() < DAMAGED_MAX {
            self.damaged.push(row());
        }
    }

    /// Why the series are not everything.
    pub fn partial(&self) -> Vec<String> {
        kept::summary(&self.damaged)
    }
}

/// The samples of every series of these hosts that the filter takes.
pub(super) fn read(
    connection: &Connection,
    hosts: &[i64],
    filter: &EndpointFilter,
    plan: &Plan,
    room: Held,
) -> Result<Found, ReadError> {
    let mut all = Found::new(room);
    for &host in hosts {
        match plan.tier {
            Tier::Raw => raw(connection, host, filter, plan, &mut all)?,
            Tier::Rolled(tier_s) => {
                let range = Range {
                    tier_s,
                    start_s: plan.start_s,
                    end_s: plan.end_s,
                };
                rolled(connection, range, host, filter, plan, &mut all)?;
            }
        }
        bounded(all.series.len(), plan)?;
    }
    Ok(all)
}

/// Whether so many series can be one answer.
pub(super) fn bounded(series: usize, plan: &Plan) -> Result<(), ReadError> {
    if series > SERIES_MAX {
        return Err(ReadError::TooMuch(
            "series: choose a host, a role or an endpoint",
        ));
    }
    if (series as u64).saturating_mul(plan.steps_count()) > POINTS_MAX {
        return Err(ReadError::TooMuch(
            "points: take a larger step, or choose a host, a role or an endpoint",
        ));
    }
    Ok(())
}

fn rolled(
    connection: &Connection,
    range: Range,
    host: i64,
    filter: &EndpointFilter,
    plan: &Plan,
    all: &mut Found,
) -> Result<(), ReadError> {
    let host_id = host_id(connection, host)?;
    if plan.metric.scope() == Scope::Host {
        let mut samples = Vec::new();
        let mut bytes = 0;
        let owner = rolls::owner_of_host(host, &host_id);
        rolls::host_rolls(connection, owner, range, |at_s, roll| match roll {
            Some(roll) => bytes += plan.gather(&mut samples, at_s, roll),
            None => all.damage(|| Damage::of_roll(&host_id, None, range.bucket(at_s))),
        })?;
        all.held.grow(bytes)?;
        all.series.push(HostSeries {
            host,
            endpoint: None,
            samples: Samples::Host(samples),
        });
        return Ok(());
    }
    for EndpointRow { key, id } in rolls::endpoints(connection, host)? {
        if !filter.takes(&id) {
            continue;
        }
        let mut samples = Vec::new();
        let mut bytes = 0;
        let owner = rolls::owner_of_endpoint(host, key, &id);
        let histogram = Histogram::of(plan.metric.name);
        rolls::endpoint_rolls(
            connection,
            histogram,
            owner,
            range,
            |at_s, roll| match roll {
                Some(roll) => bytes += plan.gather(&mut samples, at_s, roll),
                None => all.damage(|| Damage::of_roll(&host_id, Some(&id), range.bucket(at_s))),
            },
        )?;
        all.held.grow(bytes)?;
        // An endpoint of another time is none of this range.
        if !samples.is_empty() {
            all.series.push(HostSeries {
                host,
                endpoint: Some(id),
                samples: Samples::Endpoint(samples),
            });
            bounded(all.series.len(), plan)?;
        }
    }
    Ok(())
}

fn raw(
    connection: &Connection,
    host: i64,
    filter: &EndpointFilter,
    plan: &Plan,
    all: &mut Found,
) -> Result<(), ReadError> {
    // A window that ends on a step's start belongs to the step before.
    let bound = |s: u64| to_sql(s.saturating_mul(1_000_000_000).saturating_add(1));
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {} FROM reports
         WHERE host = ? AND window_end_ns >= ? AND window_end_ns < ? ORDER BY window_end_ns",
        reports::COLUMNS
    ))?;
    let mut rows = statement.query(params![host, bound(plan.start_s), bound(plan.end_s)])?;
    let mut of_host: Vec<(u64, HostRoll)> = Vec::new();
    let mut of_endpoints: HashMap<EndpointId, Vec<(u64, EndpointRoll)>> = HashMap::new();
    while let Some(row) = rows.next()? {
        all.reports += 1;
        if all.reports > REPORTS_MAX {
            return Err(ReadError::TooMuch(
                "reports: choose a host or a larger step",
            ));
        }
        let stored = from_row(row)?;
        let mut bytes = all.held.bytes();
        let report = match kept::read_in(&stored, &mut all.held)? {
            Ok(report) => report,
            Err(error) => {
                all.held.shrink(bytes);
                all.damage(|| Damage::new(connection, stored.at, &error));
                continue;
            }
        };
        let at_s = report.window_end_unix_ns.saturating_sub(1) / 1_000_000_000;
        if plan.metric.scope() == Scope::Host {
            bytes += plan.gather(&mut of_host, at_s, HostRoll::from(&report));
            all.held.resize(bytes)?;
            continue;
        }
        for endpoint in &report.endpoints {
            let id = EndpointId::from(endpoint);
            if filter.takes(&id) {
                let roll = EndpointRoll::new(endpoint, &report).only(plan.metric.name);
                bytes += plan.gather(of_endpoints.entry(id).or_default(), at_s, roll);
            }
        }
        all.held.resize(bytes)?;
        bounded(all.series.len() + of_endpoints.len(), plan)?;
    }
    if plan.metric.scope() == Scope::Host {
        all.series.push(HostSeries {
            host,
            endpoint: None,
            samples: Samples::Host(of_host),
        });
        return Ok(());
    }
    let of_endpoints = of_endpoints.into_iter();
    all.series
        .extend(of_endpoints.map(|(id, samples)| HostSeries {
            host,
            endpoint: Some(id),
            samples: Samples::Endpoint(samples),
        }));
    Ok(())
}
