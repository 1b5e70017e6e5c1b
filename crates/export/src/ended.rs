//! Hosts that fell silent since they were last looked at.

use std::{collections::HashSet, sync::Arc};

use store::HostState;

/// The hosts that reported when they were last looked at, by their keys.  One
/// that was silent already at the start is none of them: whoever was told of it
/// has forgotten it since.
#[derive(Debug, Default)]
pub(crate) struct Reporting(HashSet<i64>);

impl Reporting {
    /// The hosts that are silent now and were not the last time.
    pub(crate) fn ended(&mut self, hosts: &[Arc<HostState>], steady_ns: u64) -> Vec<i64> {
        let (silent, reporting): (Vec<_>, Vec<_>) = hosts
            .iter()
            .map(|host| &host.row)
            .partition(|row| row.silent(steady_ns));
        let before = std::mem::replace(
            &mut self.0,
            reporting.into_iter().map(|row| row.key).collect(),
        );
        let silent = silent.into_iter().map(|row| row.key);
        silent.filter(|key| before.contains(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use store::{Facts, Fleet, HostRow, Newest};

    use super::*;

    const S: u64 = 1_000_000_000;

    /// A host whose last report came at this second.
    fn came(fleet: &Fleet, key: i64, at_s: u64) {
        let mut row = HostRow::of_test(key, &key.to_string());
        row.made.steady_ns = at_s * S;
        let newest = Newest {
            host: monitor_proto::v1::Host::default(),
            agent: monitor_proto::v1::Agent::default(),
            window_end_ns: 0,
            body: Arc::from([]),
            facts: Facts::default(),
        };
        fleet.publish(row, Some(newest));
    }

    #[test]
    fn a_host_ends_once_each_time_it_falls_silent_and_not_where_it_was_at_the_start() {
        let fleet = Fleet::default();
        let mut reporting = Reporting::default();
        came(&fleet, 1, 100);
        came(&fleet, 2, 0);
        let mut ended = |fleet: &Fleet, at_s| reporting.ended(&fleet.all(), at_s * S);
        assert!(ended(&fleet, 100).is_empty());
        assert!(ended(&fleet, 159).is_empty());
        assert_eq!(ended(&fleet, 160), [1]);
        assert!(ended(&fleet, 161).is_empty());
        came(&fleet, 1, 170);
        assert!(ended(&fleet, 171).is_empty());
        assert_eq!(ended(&fleet, 300), [1]);
    }
}
