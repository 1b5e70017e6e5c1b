//! The clients of a time range, from reports: roll-ups have none.
//!
//! However many clients there are, a bounded number is told apart: where there are more,
//! those with the least are given up, and are among the others.  These are what all
//! listeners had less the clients that are shown, so that the sum is the total.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use budget::Held;
use monitor_proto::{
    json::{ClientFigures, SummaryHost, Top, TopRow, rfc3339},
    v1,
};
use rusqlite::Connection;
use store::HostState;

use crate::{
    read_error::ReadError, reading::Reading, series::Tier, stored_summary::lacks_until_s,
    summary::SummaryPlan,
};

/// How many clients are told apart; half of them stay where there are more.
const CLIENTS_MAX: usize = 20_000;
/// What a client takes here, in a table that grows, and in the answer.
const CLIENT_BYTES: u64 = 2 * (size_of::<(String, Client)>() + CLIENT_TEXT_BYTES) as u64;
/// The longest text of a client, and the allocator's part.
const CLIENT_TEXT_BYTES: usize = 64;

/// By what clients are ordered, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopSort {
    Bytes,
    Connections,
    Requests,
    Resets,
    Unanswered,
}

impl TopSort {
    pub const ALL: [Self; 5] = [
        Self::Bytes,
        Self::Connections,
        Self::Requests,
        Self::Resets,
        Self::Unanswered,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Connections => "connections",
            Self::Requests => "requests",
            Self::Resets => "resets",
            Self::Unanswered => "unanswered",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sort| sort.name() == name)
    }

    fn of(self, f: &ClientFigures) -> i64 {
        match self {
            Self::Bytes => f.bytes(),
            Self::Connections => f.connections_opened,
            Self::Requests => f.requests.unwrap_or(0),
            Self::Resets => f.resets(),
            Self::Unanswered => f.requests_without_response.unwrap_or(0),
        }
    }

    /// Bytes and connections are in each order, so that it is one.
    fn rank(self, f: &ClientFigures) -> Reverse<[i64; 3]> {
        Reverse([self.of(f), f.bytes(), f.connections_opened])
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct TopQuestion {
    pub sort: TopSort,
    pub limit: usize,
    pub since_s: u64,
    pub until_s: u64,
}

#[derive(Clone, Debug, Default)]
struct Client {
    figures: ClientFigures,
    /// Hosts are read one after another.
    last_host: Option<i64>,
    hosts: u64,
}

/// The clients of a range.
#[derive(Debug)]
pub struct Clients {
    counted: Counted,
    without: Vec<SummaryHost>,
    lacks_until_s: Option<u64>,
    pub reading: Reading,
}

/// Clients added up.
#[derive(Debug, Default)]
struct Counted {
    clients: HashMap<String, Client>,
    /// The most there were at once.
    most: usize,
    /// How many there are no more, those twice that came again.
    given_up: u64,
    total: ClientFigures,
}

impl Clients {
    pub(super) fn new(room: Held) -> Self {
        Self {
            counted: Counted::default(),
            without: Vec::new(),
            lacks_until_s: None,
            reading: Reading::new(room),
        }
    }

    /// The answer.
    pub fn answer(self, question: TopQuestion) -> Top {
        let mut partial = self.reading.partial();
        partial.extend(self.lacks_until_s.map(|s| {
            format!(
                "reports from before {} are no longer kept: choose a shorter range",
                rfc3339(s.saturating_mul(1_000_000_000))
            )
        }));
        let counted = self.counted;
        let rows_total = counted.clients.len() as u64 + counted.given_up;
        let mut rows: Vec<(String, Client)> = counted.clients.into_iter().collect();
        rows.sort_by(|(a, x), (b, y)| {
            let rank = |client: &Client| question.sort.rank(&client.figures);
            rank(x).cmp(&rank(y)).then_with(|| a.cmp(b))
        });
        rows.truncate(question.limit);
        let mut other = counted.total;
        let row = |(client, of): (String, Client)| {
            other.remove(&of.figures);
            TopRow {
                client,
                hosts: of.hosts,
                figures: of.figures,
            }
        };
        let rows: Vec<TopRow> = rows.into_iter().map(row).collect();
        // At the range's beginning a client may be told of what the listeners had before.
        let other = other.at_least_none();
        let mut total = other;
        rows.iter().for_each(|row| total.add(&row.figures));
        let time = |s: u64| rfc3339(s.saturating_mul(1_000_000_000));
        Top {
            by: "client".to_owned(),
            sort: question.sort.name().to_owned(),
            since: time(question.since_s),
            until: time(question.until_s),
            rows_total,
            rows,
            other,
            total,
            hosts_without: self.without,
            partial,
        }
    }
}

impl Counted {
    /// Adds a report; how much more memory it takes.
    fn add(&mut self, host: i64, report: &v1::Report, clients: &v1::Clients, sort: TopSort) -> u64 {
        self.total.add(&ClientFigures::of_listeners(report));
        for told in &clients.top {
            let client = self.clients.entry(told.address.clone()).or_default();
            client.figures.add(&told.into());
            client.hosts += u64::from(client.last_host.replace(host) != Some(host));
        }
        let more = self.clients.len().saturating_sub(self.most);
        self.most += more;
        if self.clients.len() > CLIENTS_MAX {
            self.give_up(sort);
        }
        more as u64 * CLIENT_BYTES
    }

    /// Gives up those with the least.  Their room stays taken, for others.
    fn give_up(&mut self, sort: TopSort) {
        let mut ranks: Vec<_> = self
            .clients
            .values()
            .map(|c| sort.rank(&c.figures))
            .collect();
        let (_, least, _) = ranks.select_nth_unstable(CLIENTS_MAX / 2);
        let least = *least;
        let before = self.clients.len();
        self.clients
            .retain(|_, client| sort.rank(&client.figures) < least);
        self.given_up += (before - self.clients.len()) as u64;
    }
}

/// The clients of these hosts.
pub(super) fn read(
    connection: &Connection,
    hosts: &[Arc<HostState>],
    question: TopQuestion,
    room: Held,
) -> Result<Clients, ReadError> {
    let mut all = Clients::new(room);
    let plan = SummaryPlan {
        tier: Tier::Raw,
        step_s: 1,
        start_s: question.since_s,
        end_s: question.until_s,
    };
    for host in hosts {
        let key = host.row.key;
        all.lacks_until_s = all.lacks_until_s.max(lacks_until_s(connection, key, plan)?);
        let (mut reports, mut with) = (0u64, 0u64);
        let counted = &mut all.counted;
        let range_s = (question.since_s, question.until_s);
        let read = |_: u64, report: &v1::Report| {
            reports += 1;
            let Some(clients) = &report.clients else {
                return Ok(0);
            };
            with += 1;
            Ok(counted.add(key, report, clients, question.sort))
        };
        all.reading.reports(connection, key, range_s, read)?;
        if reports > 0 && with == 0 {
            all.without.push(SummaryHost {
                name: host.newest.host.name.clone(),
                id: host.row.id.clone(),
            });
        }
    }
    Ok(all)
}
