//! The hosts and the newest report of each, in memory.
//!
//! The bodies stay compressed: a thousand hosts cost megabytes, and a reader
//! decodes what it needs.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, Mutex, PoisonError, RwLock},
    time::Duration,
};

use budget::{Exhausted, Held};
use daemon::{
    clock::{steady_ns, unix_ns},
    log_limit,
};
use monitor_proto::v1;
use rollup::duration_ns;

use crate::{
    HostRow,
    codec::{self, CodecError},
};

/// What is asked of every report so often that it is kept decoded.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `None` where it was not measured: an unknown load is not an idle one.
    pub load: Option<v1::BackendLoad>,
    /// The addresses of the downstream endpoints.
    pub listeners: Arc<[String]>,
    pub window_ns: u64,
}

impl From<&v1::Report> for Facts {
    fn from(report: &v1::Report) -> Self {
        let downstream = i32::from(v1::Role::Downstream);
        Self {
            load: load(report),
            listeners: report
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.role == downstream)
                .map(|endpoint| endpoint.address.clone())
                .collect(),
            window_ns: duration_ns(report),
        }
    }
}

fn load(report: &v1::Report) -> Option<v1::BackendLoad> {
    let host = report.host.as_ref()?;
    let metrics = report.host_metrics.as_ref()?;
    Some(v1::BackendLoad {
        host_id: host.id.clone(),
        host_name: host.name.clone(),
        cpu_ratio: metrics.cpu_usage?.last / 100.0,
        memory_ratio: metrics.memory_usage?.last / 100.0,
        load1_ratio: metrics.load_avg_1?.last / f64::from(host.cores.max(1)),
        measured_unix_ns: report.window_end_unix_ns,
    })
}

/// A host's newest report.
#[derive(Clone, Debug)]
pub struct Newest {
    pub host: v1::Host,
    pub agent: v1::Agent,
    pub window_end_ns: u64,
    pub body: Arc<[u8]>,
    pub facts: Facts,
}

/// What is known of one host.
#[derive(Debug)]
pub struct HostState {
    pub row: HostRow,
    pub newest: Newest,
    /// What a reader made of this report, to be made once: forgotten with it.
    pub derived: Mutex<Option<Box<dyn Any + Send>>>,
}

impl HostState {
    /// The newest report; `None`, said in the log, where it is unreadable.
    pub fn report(&self, room: &mut Held) -> Result<Option<v1::Report>, Exhausted> {
        match codec::decode_in(&self.newest.body, room) {
            Ok(report) => Ok(Some(report)),
            Err(CodecError::Exhausted(exhausted)) => Err(exhausted),
            Err(error) => {
                if let Some(left_out) = log_limit::line("newest report", &self.row.id) {
                    let host = &self.row.id;
                    tracing::error!(host, %error, left_out, "cannot decode a newest report");
                }
                Ok(None)
            }
        }
    }

    /// The host as the API lists it.
    pub fn summary(&self) -> v1::HostSummary {
        self.summary_at(unix_ns(), steady_ns())
    }

    /// The same, as of these clocks.
    pub fn summary_at(&self, now_ns: u64, steady_ns: u64) -> v1::HostSummary {
        v1::HostSummary {
            host: Some(self.newest.host.clone()),
            agent: Some(self.newest.agent.clone()),
            first_seen_unix_ns: self.row.first_seen_ns,
            last_seen_unix_ns: self.row.last_seen_ns(now_ns, steady_ns),
            last_window_end_unix_ns: self.newest.window_end_ns,
            last_sequence: self.row.sequence_last,
            reports: self.row.reports,
            missing_reports: self.row.missing(),
            conflicts: self.row.conflicts,
            age_ns: self.row.age_ns(steady_ns),
            last_window_duration_ns: self.row.made.window_ns,
        }
    }
}

/// All hosts by id.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    hosts: Arc<RwLock<BTreeMap<String, Arc<HostState>>>>,
    changed: Arc<Changed>,
}

/// The ids of hosts with a newer report than before, and of those that are gone.
#[derive(Debug, Default)]
struct Changed {
    ids: Mutex<BTreeSet<String>>,
    are_some: Condvar,
}

impl Changed {
    fn add(&self, id: &str) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if !ids.contains(id) {
            ids.insert(id.to_owned());
        }
        self.are_some.notify_one();
    }
}

impl Fleet {
    /// Replaces what is known of a host; without `newest` its report stays.
    pub fn publish(&self, row: HostRow, newest: Option<Newest>) {
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        if newest.is_some() {
            self.changed.add(&row.id);
        }
        let newest = newest.or_else(|| hosts.get(&row.id).map(|state| state.newest.clone()));
        if let Some(newest) = newest {
            let state = HostState {
                row,
                newest,
                derived: Mutex::default(),
            };
            hosts.insert(state.row.id.clone(), Arc::new(state));
        }
    }

    /// Forgets a host.
    pub fn remove(&self, id: &str) {
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        hosts.remove(id);
        self.changed.add(id);
    }

    /// The hosts that changed since they were asked for the last time, once there are
    /// some; none where that takes longer.
    pub fn wait_changed(&self, longest: Duration) -> BTreeSet<String> {
        let ids = self
            .changed
            .ids
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let are_some = &self.changed.are_some;
        let waited = are_some.wait_timeout_while(ids, longest, |ids| ids.is_empty());
        let (mut ids, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut ids)
    }

    /// How many hosts there are.
    pub fn count(&self) -> usize {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        hosts.len()
    }

    /// All hosts, by name and then id.
    pub fn all(&self) -> Vec<Arc<HostState>> {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = hosts.values().map(Arc::clone).collect();
        all.sort_by(|a, b| {
            let key = |s: &HostState| (s.newest.host.name.clone(), s.row.id.clone());
            key(a).cmp(&key(b))
        });
        all
    }

    /// What `find` finds; all where nothing is looked for.
    pub fn chosen(&self, id_or_name: &str) -> Vec<Arc<HostState>> {
        if id_or_name.is_empty() {
            self.all()
        } else {
            self.find(id_or_name)
        }
    }

    /// The host with this id, else those with this name.
    pub fn find(&self, id_or_name: &str) -> Vec<Arc<HostState>> {
        let hosts = self.hosts.read().unwrap_or_else(PoisonError::into_inner);
        match hosts.get(id_or_name) {
            Some(state) => vec![Arc::clone(state)],
            None => hosts
                .values()
                .filter(|state| state.newest.host.name == id_or_name)
                .map(Arc::clone)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(fleet: &Fleet, id: &str, name: &str) {
        let newest = Newest {
            host: v1::Host {
                id: id.into(),
                name: name.into(),
                ..Default::default()
            },
            agent: v1::Agent::default(),
            window_end_ns: 0,
            body: codec::encode(&v1::Report::default()).unwrap().into(),
            facts: Facts::default(),
        };
        let row = HostRow {
            key: 1,
            id: id.into(),
            first_seen_ns: 0,
            last_seen_ns: 0,
            seen_steady_ns: 0,
            reports: 1,
            conflicts: 0,
            epoch: 1,
            sequence_first: 1,
            sequence_last: 1,
            epoch_reports: 1,
            made: Default::default(),
        };
        fleet.publish(row, Some(newest));
    }

    #[test]
    fn hosts_with_one_name_stay_apart_and_an_id_goes_before_a_name() {
        let fleet = Fleet::default();
        publish(&fleet, "id-2", "web");
        publish(&fleet, "id-1", "web");
        publish(&fleet, "web-3", "id-1");
        let ids = |states: Vec<Arc<HostState>>| -> Vec<String> {
            states.iter().map(|s| s.row.id.clone()).collect()
        };
        assert_eq!(ids(fleet.find("web")), ["id-1", "id-2"]);
        assert_eq!(ids(fleet.find("id-1")), ["id-1"]);
        assert_eq!(ids(fleet.all()), ["web-3", "id-1", "id-2"]);
        assert!(fleet.find("nobody").is_empty());
    }
}
