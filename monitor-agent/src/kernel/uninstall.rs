//! Leaving nothing behind.

use std::path::Path;

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
/// of other layouts too.
///
/// # Errors
/// Where an agent holds a target, or a pin cannot be removed.
pub fn uninstall(pin_dir: &Path) -> Result<Removed, KernelError> {
    let targets = Pins::of_every_layout(pin_dir);
    let mut locks = Vec::new();
    for pins in &targets {
        let label = pins.meta();
        let label = label.as_ref().and_then(|m| m.label()).unwrap_or("a target");
        locks.push(pins.lock(label)?);
    }
    targets.iter().for_each(attach::detach_all);
    Ok(Removed {
        targets: targets.len(),
        pins: bpffs::remove_dir(pin_dir)?,
    })
}
