//! What was counted in a window: the difference of two totals, endpoint by
//! endpoint and loss by loss.
//!
//! Architecture invariant: for one `since`, totals never decrease, and the sum
//! of all deltas that were ever reported equals the totals that were reported
//! last.  Both hold by construction: a delta is the difference to the totals
//! that were reported, and totals are the larger of what is and what was.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use monitor_common::counters::EndpointCounters;

use super::baseline::{Baseline, GONE_ENDPOINTS_MAX, Totals};
use kernel_sample::{EndpointId, KernelSample};

/// One endpoint in a window.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: EndpointId,
    pub(super) totals: Totals,
    pub(super) delta: Box<EndpointCounters>,
}

/// All endpoints in a window.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// By target, role and address.
    pub(super) rows: Vec<Row>,
    /// Totals of endpoints whose target is not watched now: kept, not reported.
    pub(super) unwatched: Vec<(EndpointId, Totals)>,
    /// Whether a counter was found below what was reported of it.
    pub(super) went_backwards: bool,
    /// Whether an endpoint's counters began anew.
    pub(super) began_anew: bool,
    /// Whether something was counted of which nobody knows what was reported.
    pub(super) unknown: bool,
}

impl Row {
    pub(super) fn changed(&self) -> bool {
        self.delta.words().iter().any(|&n| n > 0)
    }
}

impl Ledger {
    /// Compares what the kernel has with what was reported.
    pub(super) fn compare(
        baseline: Option<&Baseline>,
        reported_until_unix_ns: Option<u64>,
        sample: KernelSample,
        watched: &BTreeSet<&str>,
    ) -> Self {
        let mut ledger = Self::default();
        let empty = BTreeMap::new();
        let before = baseline.map_or(&empty, |b| &b.endpoints);
        let mut now = BTreeMap::new();
        for endpoint in sample.endpoints {
            let since_unix_ns = endpoint.since_unix_ns;
            let counters = endpoint.counters;
            now.insert(
                endpoint.id,
                Totals {
                    since_unix_ns,
                    counters,
                },
            );
        }
        // An endpoint that the kernel retired, or whose target cannot be read
        // now, keeps its totals; one of an earlier count of its target does not.
        let newest = newest_since(&now);
        let gone = |(id, totals): &(&EndpointId, &Totals)| {
            let newest = newest.get(&id.target).copied().unwrap_or(0);
            !now.contains_key(*id) && totals.since_unix_ns >= newest
        };
        let gone: Vec<_> = before
            .iter()
            .filter(gone)
            .take(GONE_ENDPOINTS_MAX)
            .collect();
        let gone: Vec<_> = gone
            .into_iter()
            .map(|(i, t)| (i.clone(), t.clone()))
            .collect();
        now.extend(gone);
        for (id, totals) in now {
            if watched.contains(&*id.target) {
                let mut row = ledger.row(before.get(&id), id, totals);
                if reported_until_unix_ns.is_some_and(|until| row.totals.since_unix_ns < until) {
                    ledger.unknown |= row.changed();
                    row.delta = Box::new(EndpointCounters::ZERO);
                }
                ledger.rows.push(row);
            } else {
                ledger.unwatched.push((id, totals));
            }
        }
        ledger
    }

    fn row(&mut self, before: Option<&Totals>, id: EndpointId, mut totals: Totals) -> Row {
        self.began_anew |= before.is_some_and(|b| b.since_unix_ns != totals.since_unix_ns);
        let same = before.filter(|b| b.since_unix_ns == totals.since_unix_ns);
        let delta = match same {
            None => totals.counters.clone(),
            Some(before) => {
                self.went_backwards |= raise(&mut totals.counters, &before.counters);
                Box::new(totals.counters.since(&before.counters))
            }
        };
        Row { id, totals, delta }
    }
}

/// When the present count of every target began.
fn newest_since(endpoints: &BTreeMap<EndpointId, Totals>) -> BTreeMap<Arc<str>, u64> {
    let mut newest = BTreeMap::new();
    for (id, totals) in endpoints {
        let since = newest.entry(Arc::clone(&id.target)).or_insert(0);
        *since = totals.since_unix_ns.max(*since);
    }
    newest
}

/// Raises every counter to what it was; whether any was below.
fn raise(counters: &mut EndpointCounters, before: &EndpointCounters) -> bool {
    let mut below = false;
    for (n, before) in counters.words_mut().iter_mut().zip(before.words()) {
        below |= *n < *before;
        *n = (*n).max(*before);
    }
    below
}

/// What went uncounted in a window, and in all.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    pub(super) window: BTreeMap<String, u64>,
    pub(super) totals: BTreeMap<String, u64>,
    pub(super) since_unix_ns: u64,
}

impl Losses {
    /// The kernel's losses are totals, the agent's own are those of this window.
    pub(super) fn compare(
        baseline: Option<&Baseline>,
        kernel: &[(&'static str, u64)],
        since_unix_ns: u64,
        own: &BTreeMap<&'static str, u64>,
    ) -> Self {
        let same = baseline.filter(|b| b.losses_since_unix_ns == since_unix_ns);
        let before = |name: &str| same.and_then(|b| b.losses.get(name)).copied();
        let mut losses = Self {
            since_unix_ns,
            totals: same.map(|b| b.losses.clone()).unwrap_or_default(),
            ..Self::default()
        };
        for &(name, n) in kernel {
            let before = before(name).unwrap_or(0);
            losses.set(name, n.saturating_sub(before), n.max(before));
        }
        for (&name, &n) in own {
            losses.set(name, n, before(name).unwrap_or(0) + n);
        }
        losses
    }

    /// What the kernel lost is in the totals alone: nobody knows what was reported.
    pub(super) fn forget(&mut self, kernel: &[(&'static str, u64)]) {
        for (name, _) in kernel {
            self.window.insert((*name).to_owned(), 0);
        }
    }

    fn set(&mut self, name: &str, window: u64, total: u64) {
        self.window.insert(name.to_owned(), window);
        self.totals.insert(name.to_owned(), total);
    }

    /// The reasons that something was lost for in this window.
    pub(super) fn reasons(&self) -> impl Iterator<Item = String> {
        let lost = self.window.iter().filter(|(_, n)| **n > 0);
        lost.map(|(name, _)| format!("lost: {name}"))
    }
}
