//! Leaving nothing behind.

use std::{collections::BTreeSet, fs, io, path::Path};

use super::{KernelError, attach, bpffs, pins::Pins};

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
    if pin_dir.exists() && !bpffs::is_bpffs(pin_dir) {
        return Err(KernelError::File {
            operation: "looking for pins in",
            path: pin_dir.to_owned(),
            source: io::Error::other("it is not on a BPF filesystem; nothing was removed"),
        });
    }
    let targets = Pins::of_every_layout(pin_dir);
    let mut locks = Vec::new();
    for pins in &targets {
        let label = pins.meta();
        let label = label.as_ref().and_then(|m| m.label()).unwrap_or("a target");
        locks.push(pins.lock(label)?);
    }
    targets.iter().for_each(attach::detach_all);
    let mut removed = Removed {
        targets: targets.len(),
        pins: 0,
    };
    for pins in &targets {
        removed.pins += bpffs::remove_dir(pins.dir())?;
    }
    let layouts: BTreeSet<_> = targets.iter().filter_map(|p| p.dir().parent()).collect();
    for emptied in layouts.into_iter().chain([pin_dir]) {
        // Others' pins may be there still.
        let _not_empty = fs::remove_dir(emptied);
    }
    Ok(removed)
}
