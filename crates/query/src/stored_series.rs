//! Reading the samples of series.

use std::collections::HashMap;

use budget::Held;
use rollup::{EndpointId, EndpointRoll, HostRoll};
use rusqlite::Connection;
use store::{
    kept::{Damage, host_id},
    rolls::{self, EndpointRow, Histogram, Range},
};

use crate::{
    endpoint_filter::HostFilter,
    read_error::ReadError,
    reading::Reading,
    series::{Plan, Samples, Scope, Tier},
};

/// Series of one answer.
const SERIES_MAX: usize = 1000;
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
    pub reading: Reading,
}

impl Found {
    /// Nothing yet, in this room.
    pub(super) fn new(held: Held) -> Self {
        Self {
            series: Vec::new(),
            reading: Reading::new(held),
        }
    }

    pub(super) fn join(&mut self, other: Self) {
        self.series.extend(other.series);
        self.reading.join(other.reading);
    }
}

/// The samples of every series of these hosts that the filter of each takes.
pub(super) fn read(
    connection: &Connection,
    hosts: &[(i64, HostFilter)],
    plan: &Plan,
    room: Held,
) -> Result<Found, ReadError> {
    let mut all = Found::new(room);
    for (host, filter) in hosts {
        let host = *host;
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
            "series: choose a host, a listener, an upstream, a backend or an endpoint",
        ));
    }
    if (series as u64).saturating_mul(plan.steps_count()) > POINTS_MAX {
        return Err(ReadError::TooMuch(
            "points: take a larger step, or choose a host, a listener, an upstream, a backend or an endpoint",
        ));
    }
    Ok(())
}

fn rolled(
    connection: &Connection,
    range: Range,
    host: i64,
    filter: &HostFilter,
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
            None => {
                let bucket = range.bucket(at_s);
                all.reading
                    .damage(|| Damage::of_roll(&host_id, None, bucket));
            }
        })?;
        all.reading.held.grow(bytes)?;
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
                None => {
                    let bucket = range.bucket(at_s);
                    all.reading
                        .damage(|| Damage::of_roll(&host_id, Some(&id), bucket));
                }
            },
        )?;
        all.reading.held.grow(bytes)?;
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
    filter: &HostFilter,
    plan: &Plan,
    all: &mut Found,
) -> Result<(), ReadError> {
    let mut of_host: Vec<(u64, HostRoll)> = Vec::new();
    let mut of_endpoints: HashMap<EndpointId, Vec<(u64, EndpointRoll)>> = HashMap::new();
    let found = all.series.len();
    let range_s = (plan.start_s, plan.end_s);
    all.reading
        .reports(connection, host, range_s, |at_s, report| {
            if plan.metric.scope() == Scope::Host {
                return Ok(plan.gather(&mut of_host, at_s, HostRoll::from(report)));
            }
            let mut bytes = 0;
            for endpoint in &report.endpoints {
                let id = EndpointId::from(endpoint);
                if filter.takes(&id) {
                    let roll = EndpointRoll::new(endpoint, report).only(plan.metric.name);
                    bytes += plan.gather(of_endpoints.entry(id).or_default(), at_s, roll);
                }
            }
            bounded(found + of_endpoints.len(), plan)?;
            Ok(bytes)
        })?;
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
