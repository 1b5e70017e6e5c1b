//! What is pinned, and whether an agent watches it.

use kernel_sample::Target;
use std::{collections::BTreeMap, path::Path};

use super::Pins;

/// A target whose programs and maps are pinned, in whatever layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedTarget {
    /// What it is called in reports.
    pub label: String,
    /// Whether an agent that runs holds it.
    pub held: bool,
}

/// Every target that is pinned below a directory.
#[must_use]
pub fn pinned(pin_dir: &Path) -> Vec<PinnedTarget> {
    but(pin_dir, &[])
}

/// Targets that are pinned, but neither among these nor held by another agent: they
/// are counted, and no report tells of them.
#[must_use]
pub fn unwatched(pin_dir: &Path, watched: &[Target]) -> Vec<String> {
    let others = but(pin_dir, watched).into_iter();
    others.filter(|t| !t.held).map(|t| t.label).collect()
}

fn but(pin_dir: &Path, watched: &[Target]) -> Vec<PinnedTarget> {
    // By its directory's name: a long label is pinned cut short.
    let mut targets = BTreeMap::<_, PinnedTarget>::new();
    let watched: Vec<_> = watched
        .iter()
        .map(|t| Pins::of(pin_dir, &t.label))
        .collect();
    for pins in Pins::of_every_layout(pin_dir) {
        if watched.iter().any(|w| w.is_same_target(&pins)) {
            continue;
        }
        // What may not be read cannot be named.
        let meta = pins.meta().ok().flatten();
        let Some(label) = meta.as_ref().and_then(|m| m.label()) else {
            continue;
        };
        let name = pins.dir().file_name().map(ToOwned::to_owned);
        let target = targets.entry(name).or_insert_with(|| PinnedTarget {
            label: label.to_owned(),
            held: false,
        });
        target.held |= pins.is_held();
    }
    targets.into_values().collect()
}
