//! Summing up what the store has of a time range.

use std::{collections::HashMap, sync::Arc};

use budget::Held;
use monitor_proto::json::{self, SummaryHost};
use rollup::{EndpointId, EndpointRoll};
use rusqlite::Connection;
use store::{
    HostState,
    kept::Damage,
    reports,
    rolls::{self, EndpointRow, Range},
};

use crate::{
    named_series::EndpointNames,
    read_error::ReadError,
    reading::Reading,
    series::Tier,
    summary::{Group, Groups, Question, SummaryPlan},
};

/// Roll-ups that one thread reads for an answer.
const ROLLS_MAX: usize = 1_000_000;

/// What was summed up.
#[derive(Debug)]
pub struct Summed {
    pub groups: Groups,
    pub reading: Reading,
    /// Up to this second something of the range is no longer kept in this tier, of which
    /// coarser roll-ups are.
    pub lacks_until_s: Option<u64>,
}

impl Summed {
    /// Nothing yet, in this room.
    pub(super) fn new(room: Held) -> Self {
        Self {
            groups: Groups::default(),
            reading: Reading::new(room),
            lacks_until_s: None,
        }
    }

    /// Adds what was summed up of other hosts, or from elsewhere.
    pub fn join(&mut self, other: Self) {
        self.groups.join(other.groups);
        self.reading.join(other.reading);
        self.lacks_until_s = self.lacks_until_s.max(other.lacks_until_s);
    }

    /// Why the answer is not everything.
    pub fn partial(&self) -> Vec<String> {
        let mut partial = self.reading.partial();
        partial.extend(self.lacks_until_s.map(|s| {
            format!(
                "what is older than {} is no longer kept as finely: choose a host or a shorter range",
                json::rfc3339(s.saturating_mul(1_000_000_000))
            )
        }));
        partial
    }
}

/// The rows of these hosts.
pub(super) fn read(
    connection: &Connection,
    hosts: &[Arc<HostState>],
    question: &Question,
    room: Held,
) -> Result<Summed, ReadError> {
    let mut all = Summed::new(room);
    let mut rolls_left = ROLLS_MAX;
    for host in hosts {
        let lacks_until_s = lacks_until_s(connection, host.row.key, question.plan)?;
        all.lacks_until_s = all.lacks_until_s.max(lacks_until_s);
        let before = all.reading.held.bytes();
        let newest = names(host, &mut all.reading)?;
        let names_bytes = all.reading.held.bytes() - before;
        let of_host = OfHost {
            connection,
            question,
            key: host.row.key,
            host: SummaryHost {
                name: host.newest.host.name.clone(),
                id: host.row.id.clone(),
            },
            newest,
        };
        match question.plan.tier {
            Tier::Raw => of_host.raw(&mut all)?,
            Tier::Rolled(tier_s) => of_host.rolled(tier_s, &mut rolls_left, &mut all)?,
        }
        let held = all.reading.held.bytes().saturating_sub(names_bytes);
        all.reading.held.shrink(held);
    }
    Ok(all)
}

/// Where a host's first report or bucket lies, if it is behind the range's beginning and
/// coarser roll-ups have something of before.
pub(super) fn lacks_until_s(
    connection: &Connection,
    host: i64,
    plan: SummaryPlan,
) -> rusqlite::Result<Option<u64>> {
    let first_s = match plan.tier {
        Tier::Raw => reports::first_end_ns(connection, host)?
            .map(|end_ns| end_ns.saturating_sub(1) / 1_000_000_000),
        Tier::Rolled(tier_s) => {
            let all = Range {
                tier_s,
                start_s: 0,
                end_s: u64::MAX,
            };
            rolls::first_of_host(connection, host, all)?
        }
    };
    let first_s = first_s.unwrap_or(u64::MAX);
    if first_s <= plan.start_s {
        return Ok(None);
    }
    for tier_s in plan.tier.coarser() {
        // Buckets that end before it have nothing of it.
        let end_s = first_s.saturating_add(1).saturating_sub(tier_s);
        let before = Range {
            tier_s,
            start_s: plan.start_s - plan.start_s % tier_s,
            end_s: end_s.min(plan.end_s),
        };
        if rolls::first_of_host(connection, host, before)?.is_some() {
            return Ok(Some(first_s.min(plan.end_s)));
        }
    }
    Ok(None)
}

/// The names of a host's endpoints in its newest report.
fn names(
    host: &HostState,
    reading: &mut Reading,
) -> Result<HashMap<EndpointId, EndpointNames>, ReadError> {
    let newest = host.report(&mut reading.held)?;
    let endpoints = newest.iter().flat_map(|report| &report.endpoints);
    let named = endpoints.map(|e| (EndpointId::from(e), EndpointNames::from(e)));
    Ok(named.collect())
}

/// What is read of one host.
struct OfHost<'a> {
    connection: &'a Connection,
    question: &'a Question,
    key: i64,
    host: SummaryHost,
    newest: HashMap<EndpointId, EndpointNames>,
}

impl OfHost<'_> {
    /// From its reports: by the names that each has, else by those of the newest.
    fn raw(&self, all: &mut Summed) -> Result<(), ReadError> {
        let plan = self.question.plan;
        let groups = &mut all.groups;
        let range_s = (plan.start_s, plan.end_s);
        let (connection, key) = (self.connection, self.key);
        all.reading
            .reports(connection, key, range_s, |at_s, report| {
                let mut bytes = 0;
                for endpoint in &report.endpoints {
                    let id = EndpointId::from(endpoint);
                    if id.role != i32::from(self.question.role) {
                        continue;
                    }
                    let mut names = EndpointNames::from(endpoint);
                    if names == EndpointNames::default() {
                        names = self.newest.get(&id).cloned().unwrap_or_default();
                    }
                    let row = self.question.by.key(&self.host, &id, &names);
                    let window = EndpointRoll::new(endpoint, report);
                    bytes += groups.add(self.key, row, |row| row.count(plan, at_s, &window));
                }
                Ok(bytes)
            })
    }

    /// From its roll-ups.
    fn rolled(&self, tier_s: u64, left: &mut usize, all: &mut Summed) -> Result<(), ReadError> {
        let plan = self.question.plan;
        let range = Range {
            tier_s,
            start_s: plan.start_s,
            end_s: plan.end_s,
        };
        for EndpointRow { key, id } in rolls::endpoints(self.connection, self.key)? {
            if id.role != i32::from(self.question.role) {
                continue;
            }
            let owner = rolls::owner_of_endpoint(self.key, key, &id);
            let mut buckets = Group::default();
            let mut is_some = false;
            rolls::whole_endpoint_rolls(self.connection, owner, range, |at_s, roll| {
                match roll {
                    Some(roll) => {
                        is_some = true;
                        buckets.count(plan, at_s, &roll);
                    }
                    None => all
                        .reading
                        .damage(|| Damage::of_roll(&self.host.id, Some(&id), range.bucket(at_s))),
                }
                *left = left.saturating_sub(1);
                *left > 0
            })?;
            if *left == 0 {
                return Err(ReadError::TooMuch(
                    "roll-ups: choose a host or a shorter range",
                ));
            }
            // An endpoint of another time is none of this range.
            if is_some {
                let names = self.newest.get(&id).cloned().unwrap_or_default();
                let row = self.question.by.key(&self.host, &id, &names);
                let bytes = all.groups.add(self.key, row, |row| row.add(&buckets));
                all.reading.held.grow(bytes)?;
            }
        }
        Ok(())
    }
}
