//! An agent with another layout of the maps takes the place of the one before.
//!
//! The programs of two layouts cannot share maps. The new ones are attached first,
//! then the others are detached and their maps freed: connections that were open
//! are adopted, and what both saw meanwhile is counted once, as only the new maps
//! are read.

use std::{fs::File, path::Path};

use super::attach;
use crate::{
    error::KernelError,
    pins::{Pins, bpffs},
};

/// A target's pins in other layouts, and the locks on them.
#[derive(Debug)]
pub(crate) struct Elsewhere(Vec<(Pins, File)>);

impl Elsewhere {
    /// Keeps agents of other layouts out.
    ///
    /// # Errors
    /// Where one runs, or the pins are somebody else's.
    pub(crate) fn lock(pins: &Pins, pin_dir: &Path, label: &str) -> Result<Self, KernelError> {
        let others = pins.elsewhere(pin_dir).into_iter();
        let locked = others.map(|other| {
            bpffs::check(other.dir())?;
            let lock = other.lock(label)?;
            Ok((other, lock))
        });
        locked.collect::<Result<_, _>>().map(Self)
    }

    /// Detaches their programs and frees their maps.
    ///
    /// # Errors
    /// Where a pin cannot be removed.
    pub(crate) fn remove(self) -> Result<(), KernelError> {
        for (pins, _lock) in self.0 {
            attach::detach_all(&pins);
            bpffs::remove_dir(pins.dir())?;
            if let Some(layout) = pins.dir().parent() {
                // Other targets' pins may be there still.
                let _not_empty = std::fs::remove_dir(layout);
            }
            let path = pins.dir().display();
            tracing::info!(%path, "took the place of an agent with another layout");
        }
        Ok(())
    }
}
