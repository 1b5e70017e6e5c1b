//! Rows in their order, the first of them, and the sums of the rest and of all.

use std::cmp::Reverse;

use monitor_proto::json::{Summary, SummaryFigures, SummaryKey, SummaryPart, SummaryRow};

use super::{Groups, Question, SummaryPlan, figures::figures, groups::Group};
use crate::series::QUANTILE_ERROR_RATIO;

/// What the text of a row takes at the most, its names aside, with its figures.
const ROW_BYTES: u64 = 16 << 10;

/// By what rows are ordered, the largest first; what is unknown comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Requests,
    P99,
    /// By how many responses were 5xx.
    ServerErrors,
    Bytes,
    Failed,
    Resets,
    Unanswered,
    Retransmits,
}

impl Sort {
    pub const ALL: [Self; 8] = [
        Self::Requests,
        Self::P99,
        Self::ServerErrors,
        Self::Bytes,
        Self::Failed,
        Self::Resets,
        Self::Unanswered,
        Self::Retransmits,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::P99 => "p99",
            Self::ServerErrors => "5xx",
            Self::Bytes => "bytes",
            Self::Failed => "failed",
            Self::Resets => "resets",
            Self::Unanswered => "unanswered",
            Self::Retransmits => "retransmits",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sort| sort.name() == name)
    }

    /// A quantile in whole nanoseconds: there is an order of integers alone.
    fn of(self, figures: &SummaryFigures) -> Option<u64> {
        match self {
            Self::Requests => figures.counter("requests"),
            Self::P99 => figures.exchange_duration.map(|d| (d.p99_ms * 1e6) as u64),
            Self::ServerErrors => figures.responses.map(|r| r.server_error),
            Self::Bytes => figures.bytes(),
            Self::Failed => figures.counter("connections_failed"),
            Self::Resets => figures.resets(),
            Self::Unanswered => figures.counter("requests_without_response"),
            Self::Retransmits => figures.counter("retransmits"),
        }
    }
}

/// Which rows are shown.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub sort: Sort,
    pub limit: usize,
}

/// What an answer takes, with its text.
pub fn answer_bytes(groups: usize, limit: usize) -> u64 {
    let rows = groups.min(limit) as u64;
    let order = (groups as u64).saturating_mul(size_of::<Row>() as u64);
    (rows + 2).saturating_mul(ROW_BYTES).saturating_add(order)
}

/// The answer of one range, and of another one beside it.
pub fn answer(
    question: Question,
    order: Order,
    groups: Groups,
    against: Option<(SummaryPlan, Groups)>,
) -> Summary {
    let plan = question.plan;
    let (against_range, mut others) = against.map(|(plan, groups)| (plan.range(), groups)).unzip();
    let mut rows: Vec<Row> = groups
        .into_rows()
        .map(|(key, now)| {
            let before = others.as_mut().and_then(|others| others.remove(&key));
            Row::new(order.sort, key, Some(now), before)
        })
        .collect();
    // What was there in the other range alone is told too.
    let gone = others.into_iter().flat_map(Groups::into_rows);
    rows.extend(gone.map(|(key, before)| Row::new(order.sort, key, None, Some(before))));
    rows.sort_by(|a, b| (Reverse(a.rank), &a.key).cmp(&(Reverse(b.rank), &b.key)));
    let rows_total = rows.len() as u64;
    let rest = rows.split_off(order.limit.min(rows.len()));
    let other = Sum::of(&rest);
    let total = Sum::of(rows.iter().chain(&rest));
    Summary {
        by: question.by.name().to_owned(),
        role: monitor_proto::labels::role(question.role.into()).to_owned(),
        sort: order.sort.name().to_owned(),
        range: plan.range(),
        step_s: plan.step_s,
        against: against_range,
        error_ratio: QUANTILE_ERROR_RATIO,
        rows_total,
        rows: rows.into_iter().map(|row| row.shown(plan)).collect(),
        other: (!rest.is_empty()).then(|| other.part(plan)),
        total: total.part(plan),
        partial: Vec::new(),
    }
}

/// A row, in both ranges.
struct Row {
    key: SummaryKey,
    /// What it is ordered by, then requests and bytes.
    rank: [Option<u64>; 3],
    now: Option<Group>,
    before: Option<Group>,
}

impl Row {
    fn new(sort: Sort, key: SummaryKey, now: Option<Group>, before: Option<Group>) -> Self {
        let figures = now.as_ref().and_then(|now| figures(&now.sum));
        let of = |sort: Sort| figures.as_ref().and_then(|figures| sort.of(figures));
        Self {
            key,
            rank: [sort, Sort::Requests, Sort::Bytes].map(of),
            now,
            before,
        }
    }

    fn shown(self, plan: SummaryPlan) -> SummaryRow {
        SummaryRow {
            hosts: self.now.as_ref().map_or(0, |now| now.hosts),
            part: part(plan, self.now.as_ref(), self.before.as_ref()),
            key: self.key,
        }
    }
}

/// Rows added up, in both ranges.
#[derive(Default)]
struct Sum {
    now: Option<Group>,
    before: Option<Group>,
}

impl Sum {
    fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut sum = Self::default();
        for row in rows {
            for (sum, group) in [(&mut sum.now, &row.now), (&mut sum.before, &row.before)] {
                if let Some(group) = group {
                    sum.get_or_insert_default().add(group);
                }
            }
        }
        sum
    }

    fn part(&self, plan: SummaryPlan) -> SummaryPart {
        part(plan, self.now.as_ref(), self.before.as_ref())
    }
}

fn part(plan: SummaryPlan, now: Option<&Group>, before: Option<&Group>) -> SummaryPart {
    let of = |group: Option<&Group>| group.and_then(|group| figures(&group.sum));
    SummaryPart {
        figures: of(now),
        against: of(before),
        sparkline: now.map_or_else(
            || Group::default().sparkline(plan),
            |now| now.sparkline(plan),
        ),
    }
}
