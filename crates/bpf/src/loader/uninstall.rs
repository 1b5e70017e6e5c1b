//! Leaving nothing behind.

use std::{collections::BTreeSet, fs, io, path::Path};

use super::attach;
use crate::{
    error::KernelError,
    pins::{Pins, bpffs, pinned::pinned},
};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Targets whose programs were detached.
    pub targets: usize,
    /// Pins of maps and links.
    pub pins: usize,
}

/// Detaches every program and frees every map below a directory of pins, those
/// of other layouts too.  What else is there is somebody else's, and stays.
///
/// # Errors
/// Where the directory is not on a bpffs, an agent holds a target, or a pin cannot
/// be removed.
pub fn uninstall(pin_dir: &Path) -> Result<Removed, KernelError> {
    look_into(pin_dir)?;
    remove(pin_dir, &Pins::of_every_layout(pin_dir))
}

/// The same for the targets with these labels alone; the others are counted on.
/// Where one cannot be removed, none is.
///
/// # Errors
/// As for all, and where one of them is not pinned.
pub fn uninstall_targets(pin_dir: &Path, labels: &[String]) -> Result<Removed, KernelError> {
    look_into(pin_dir)?;
    let mut targets = Vec::new();
    for label in labels {
        let found = pins_of(pin_dir, label);
        if found.is_empty() {
            let pinned = pinned(pin_dir).into_iter().map(|t| t.label);
            return Err(KernelError::NotPinned {
                label: label.clone(),
                path: pin_dir.to_owned(),
                pinned: pinned.collect(),
            });
        }
        targets.extend(found);
    }
    // The same one may have been named twice.
    targets.sort_by(|a, b| a.dir().cmp(b.dir()));
    targets.dedup_by(|a, b| a.dir() == b.dir());
    remove(pin_dir, &targets)
}

/// A target's pins in every layout.
fn pins_of(pin_dir: &Path, label: &str) -> Vec<Pins> {
    let own = Pins::of(pin_dir, label);
    let all = Pins::of_every_layout(pin_dir);
    let (found, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| p.is_same_target(&own));
    if !found.is_empty() {
        return found;
    }
    // A long label is told as it was pinned: cut short.
    let is_told = |p: &Pins| matches!(p.meta(), Ok(Some(meta)) if meta.label() == Some(label));
    others.into_iter().filter(is_told).collect()
}

/// Refuses what is no directory of pins, or may not be read.
fn look_into(pin_dir: &Path) -> Result<(), KernelError> {
    if pin_dir.exists() && !bpffs::is_bpffs(pin_dir) {
        return Err(KernelError::File {
            operation: "looking for pins in",
            path: pin_dir.to_owned(),
            source: io::Error::other("it is not on a BPF filesystem; nothing was removed"),
        });
    }
    Pins::all(pin_dir).map(drop)
}

fn remove(pin_dir: &Path, targets: &[Pins]) -> Result<Removed, KernelError> {
    let mut locks = Vec::new();
    for pins in targets {
        let label = pins.meta()?;
        let label = label.as_ref().and_then(|m| m.label()).unwrap_or("a target");
        locks.push(pins.lock(label).map_err(KernelError::into_held)?);
    }
    targets.iter().for_each(attach::detach_all);
    let mut removed = Removed {
        targets: targets.len(),
        pins: 0,
    };
    for pins in targets {
        removed.pins += bpffs::remove_dir(pins.dir())?;
    }
    let layouts: BTreeSet<_> = targets.iter().filter_map(|p| p.dir().parent()).collect();
    // The account's own directory was made for its unit, which needs it to start again.
    let own = bpffs::is_own(pin_dir).then_some(pin_dir);
    for emptied in layouts.into_iter().chain(own) {
        // Others' pins may be there still.
        let _not_empty = fs::remove_dir(emptied);
    }
    Ok(removed)
}
