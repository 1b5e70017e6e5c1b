//! Whether the watched cgroups are still the same ones.
//!
//! When a unit is started again, its cgroup is another one under the same path.

use kernel_sample::{Instant, Target};
use std::{fs, os::unix::fs::MetadataExt};

/// The time between two looks.
const LOOKED_AFTER_NS: u64 = 1_000_000_000;

/// The watched cgroups and the ids that they had when the programs were
/// attached to them.
#[derive(Debug)]
pub(super) struct Cgroups {
    targets: Vec<Target>,
    ids: Vec<Option<u64>>,
    looked_at_ns: u64,
    /// Some were taken away, and are still held.
    fewer: bool,
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
            fewer: false,
        }
    }

    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// These are watched as well, when it is time for the next look.
    pub(super) fn add(&mut self, targets: Vec<Target>) {
        for target in targets {
            if !self.targets.contains(&target) {
                self.targets.push(target);
                self.ids.push(None);
            }
        }
    }

    /// These are watched in the place of those before, when it is time for the next
    /// look.
    pub(super) fn replace(&mut self, targets: Vec<Target>) {
        let before = std::mem::take(&mut self.targets);
        let ids = std::mem::take(&mut self.ids);
        let count = before.len();
        let both = before.into_iter().zip(ids);
        let kept = both.filter(|(target, _)| targets.contains(target));
        (self.targets, self.ids) = kept.unzip();
        self.fewer |= self.targets.len() < count;
        self.add(targets);
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
        self.fewer
            || both.any(|(target, before)| id(target).is_some_and(|now| Some(now) != *before))
    }

    /// The ones that are there now are watched from now on.
    pub(super) fn remember(&mut self) -> Vec<Target> {
        self.fewer = false;
        self.ids = self.targets.iter().map(id).collect();
        let present = self.targets.iter().zip(&self.ids);
        let present = present.filter(|(_, id)| id.is_some());
        present.map(|(target, _)| target.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;

    fn target(dir: &Path, name: &str) -> Target {
        let path = dir.join(name);
        fs::create_dir(&path).unwrap();
        Target {
            path,
            label: Arc::from(format!("/{name}")),
        }
    }

    #[test]
    fn one_that_is_gone_keeps_no_other_from_being_watched_again() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (target(dir.path(), "a"), target(dir.path(), "b"));
        let mut cgroups = Cgroups::of(vec![a.clone(), b.clone()]);
        fs::remove_dir(&a.path).unwrap();
        assert!(!cgroups.replaced(), "what is gone is waited for");
        fs::rename(&b.path, dir.path().join("gone")).unwrap();
        fs::create_dir(&b.path).unwrap();
        assert!(cgroups.replaced());
        assert_eq!(cgroups.remember(), [b]);
        assert!(!cgroups.replaced());
        fs::create_dir(&a.path).unwrap();
        assert!(cgroups.replaced(), "and back again");
        assert_eq!(cgroups.remember().len(), 2);
    }

    #[test]
    fn one_that_comes_later_is_watched_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (target(dir.path(), "a"), target(dir.path(), "b"));
        let mut cgroups = Cgroups::of(vec![a.clone()]);
        cgroups.add(vec![a.clone()]);
        assert!(!cgroups.replaced());
        cgroups.add(vec![a.clone(), b.clone()]);
        assert!(cgroups.replaced());
        assert_eq!(cgroups.remember(), [a, b]);
        assert!(!cgroups.replaced());
    }

    #[test]
    fn one_that_is_taken_away_is_given_up_once() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| target(dir.path(), name));
        let mut cgroups = Cgroups::of(vec![a.clone(), b.clone()]);
        cgroups.replace(vec![b.clone(), a.clone()]);
        assert!(!cgroups.replaced(), "they are the same");
        cgroups.replace(vec![b.clone()]);
        assert!(cgroups.replaced());
        assert_eq!(cgroups.remember(), std::slice::from_ref(&b));
        assert!(!cgroups.replaced());
        cgroups.replace(vec![b.clone(), c.clone()]);
        assert!(cgroups.replaced());
        assert_eq!(cgroups.remember(), [b, c]);
    }

    #[test]
    fn looks_are_a_second_apart() {
        let mut cgroups = Cgroups::of(vec![]);
        let at = |boot_ns| Instant {
            unix_ns: 0,
            boot_ns,
        };
        let due = [5, 5_500_000_000, 6_000_000_000, 6_500_000_000].map(|ns| cgroups.due(at(ns)));
        assert_eq!(due, [false, true, false, true]);
    }
}
