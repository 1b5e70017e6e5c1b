//! Whether the watched cgroups are still the same ones.
//!
//! When a unit is started again, its cgroup is another one under the same path.

use std::{fs, os::unix::fs::MetadataExt};

use crate::{clock::Instant, kernel::Target};

/// The time between two looks.
const LOOKED_AFTER_NS: u64 = 1_000_000_000;

/// The watched cgroups and the ids that they had when the programs were
/// attached to them.
#[derive(Debug)]
pub(super) struct Cgroups {
    targets: Vec<Target>,
    ids: Vec<Option<u64>>,
    looked_at_ns: u64,
}

/// The id of a cgroup, which is the inode number of its directory.
pub(super) fn id(target: &Target) -> Option<u64> {
    Some(fs::metadata(&target.path).ok()?.ino())
}

impl Cgroups {
    pub(super) fn of(targets: Vec<Target>) -> Self {
        Self {
            ids: targets.iter().map(id).collect(),
            targets,
            looked_at_ns: 0,
        }
    }

    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Whether it is time for the next look.
    pub(super) fn due(&mut self, at: Instant) -> bool {
        let due = at.boot_ns >= self.looked_at_ns + LOOKED_AFTER_NS;
        if due {
            self.looked_at_ns = at.boot_ns;
        }
        due
    }

    /// Whether another cgroup is in the place of one of them.  One that is gone
    /// is waited for: until it is back there is nothing to count.
    pub(super) fn replaced(&self) -> bool {
        let mut both = self.targets.iter().zip(&self.ids);
        both.any(|(target, before)| id(target).is_some_and(|now| Some(now) != *before))
    }

    /// The ones that are there now are watched from now on.
    pub(super) fn remember(&mut self) {
        for (target, known) in self.targets.iter().zip(&mut self.ids) {
            *known = id(target).or(*known);
        }
    }
}
