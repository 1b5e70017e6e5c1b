//! The hosts that an engine knows.

use std::collections::BTreeMap;

use daemon::clock;
use monitor_proto::v1;

use super::{Engine, EngineError, Question, Series, promql};
use crate::partial::Partial;

/// Hosts without a report in this time are not listed.
const KNOWN_FOR: &str = "1d";
pub(super) const SEEN: &str = "speedmimi_host_last_report_timestamp_seconds";
const FACTS: &str = "speedmimi_host_(cores|report_sequence|epoch_timestamp_seconds|window_seconds)";

impl Engine {
    /// The host with this id, else those with this name; all where it is empty.
    pub async fn hosts(
        &self,
        id_or_name: &str,
    ) -> Result<Partial<Vec<v1::HostSummary>>, EngineError> {
        if id_or_name.is_empty() {
            return self.hosts_like(&[]).await;
        }
        let by_id = self.hosts_like(&[("host_id", id_or_name)]).await?;
        if by_id.value.is_empty() {
            self.hosts_like(&[("host", id_or_name)]).await
        } else {
            Ok(by_id)
        }
    }

    async fn hosts_like(
        &self,
        matchers: &promql::Matchers<'_>,
    ) -> Result<Partial<Vec<v1::HostSummary>>, EngineError> {
        let now_s = clock::unix_ns() as f64 / 1e9;
        let seen = promql::selector(SEEN, matchers);
        let question = |function: &str, of: &str| {
            Question::at(format!("{function}({of}[{KNOWN_FOR}])"), now_s)
        };
        let asked = self
            .ask([
                question("max_over_time", &seen),
                question("min_over_time", &seen),
                question("count_over_time", &seen),
                question("last_over_time", &promql::named_like(FACTS, matchers)),
            ])
            .await?;
        let [last, first, reports, facts] = &asked.value;
        Ok(Partial {
            value: summaries(last, first, reports, facts, unix_ns(now_s)),
            partial: asked.partial,
        })
    }
}

/// One a host id, by name and then id; of several names the newest counts.
fn summaries(
    last: &[Series],
    first: &[Series],
    reports: &[Series],
    facts: &[Series],
    now_ns: u64,
) -> Vec<v1::HostSummary> {
    let mut hosts: BTreeMap<&str, v1::HostSummary> = BTreeMap::new();
    for series in last {
        let (id, Some(at_s)) = (series.label("host_id"), series.last()) else {
            continue;
        };
        let at_ns = unix_ns(at_s);
        let host = hosts.entry(id).or_default();
        if host.host.is_some() && host.last_seen_unix_ns >= at_ns {
            continue;
        }
        host.host = Some(v1::Host {
            id: id.to_owned(),
            name: series.label("host").to_owned(),
            ..v1::Host::default()
        });
        host.agent = Some(v1::Agent::default());
        host.last_seen_unix_ns = at_ns;
        host.last_window_end_unix_ns = at_ns;
        host.age_ns = now_ns.saturating_sub(at_ns);
    }
    for (of, set) in [
        (first, set_first as fn(&mut v1::HostSummary, f64)),
        (reports, set_reports),
    ] {
        for series in of {
            if let (Some(host), Some(value)) =
                (hosts.get_mut(series.label("host_id")), series.last())
            {
                set(host, value);
            }
        }
    }
    for series in facts {
        let (Some(host), Some(value)) = (hosts.get_mut(series.label("host_id")), series.last())
        else {
            continue;
        };
        match (series.label("__name__"), &mut host.host, &mut host.agent) {
            ("speedmimi_host_cores", Some(host), _) => host.cores = value as u32,
            ("speedmimi_host_report_sequence", _, _) => host.last_sequence = value as u64,
            ("speedmimi_host_window_seconds", _, _) => {
                host.last_window_duration_ns = (value * 1e9).round() as u64;
            }
            ("speedmimi_host_epoch_timestamp_seconds", _, Some(agent)) => {
                agent.epoch = (value * 1e3).round() as u64;
            }
            _ => {}
        }
    }
    let mut hosts: Vec<_> = hosts.into_values().collect();
    hosts.sort_by_key(|summary| {
        let host = summary.host.clone().unwrap_or_default();
        (host.name, host.id)
    });
    hosts
}

fn set_first(host: &mut v1::HostSummary, at_s: f64) {
    let at_ns = unix_ns(at_s);
    if host.first_seen_unix_ns == 0 || at_ns < host.first_seen_unix_ns {
        host.first_seen_unix_ns = at_ns;
    }
}

fn set_reports(host: &mut v1::HostSummary, n: f64) {
    host.reports = host.reports.saturating_add(n as u64);
}

/// Milliseconds are what an engine keeps.
pub(super) fn unix_ns(s: f64) -> u64 {
    ((s * 1e3).round() as u64).saturating_mul(1_000_000)
}
