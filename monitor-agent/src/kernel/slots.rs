//! Giving endpoints their slots, as the programs do it.

use aya::maps::{HashMap, Map, MapData, MapError, Queue};
use monitor_common::endpoint::{EndpointKey, SlotKey};

use super::{KernelError, mapped::Mapped, object::maps, pins::Pins};

/// `BPF_NOEXIST`
const NOEXIST: u64 = 1;

/// The maps that say whose a slot is.
pub(super) struct Slots {
    endpoints: HashMap<MapData, EndpointKey, u32>,
    free: Queue<MapData, u32>,
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").finish_non_exhaustive()
    }
}

pub(super) fn failed(
    operation: &'static str,
    map: &'static str,
) -> impl Fn(MapError) -> KernelError {
    move |source| KernelError::Map {
        operation,
        map,
        source: Box::new(source),
    }
}

impl Slots {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        let map = |name| Map::from_map_data(pins.map(name)?).map_err(failed("opening", name));
        Ok(Self {
            endpoints: HashMap::try_from(map(maps::ENDPOINTS)?)
                .map_err(failed("opening", maps::ENDPOINTS))?,
            free: Queue::try_from(map(maps::FREE_SLOTS)?)
                .map_err(failed("opening", maps::FREE_SLOTS))?,
        })
    }

    /// Puts slots into the pool.
    pub(super) fn release(
        &mut self,
        slots: impl IntoIterator<Item = u32>,
    ) -> Result<(), KernelError> {
        for slot in slots {
            let pushed = self.free.push(slot, 0);
            pushed.map_err(failed("filling", maps::FREE_SLOTS))?;
        }
        Ok(())
    }

    /// Takes an endpoint's slot out of the programs' sight, unless the endpoint has
    /// another one by now.
    pub(super) fn unlink(&mut self, key: &EndpointKey, slot: u32) -> Result<(), KernelError> {
        match self.endpoints.get(key, 0) {
            Ok(found) if found == slot => self
                .endpoints
                .remove(key)
                .map_err(failed("removing from", maps::ENDPOINTS)),
            Ok(_) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(failed("reading", maps::ENDPOINTS)(error)),
        }
    }

    /// The slot of an endpoint, a new one where it has none; `None` where all are
    /// taken.  The programs may do the same at the same time.
    pub(super) fn slot(
        &mut self,
        key: &EndpointKey,
        keys: &Mapped<SlotKey>,
    ) -> Result<Option<u32>, KernelError> {
        if let Ok(slot) = self.endpoints.get(key, 0) {
            return Ok(Some(slot));
        }
        let Ok(free) = self.free.pop(0) else {
            return Ok(None);
        };
        if self.endpoints.insert(key, free, NOEXIST).is_ok() {
            publish(keys, free, key);
            return Ok(Some(free));
        }
        self.release([free])?;
        Ok(self.endpoints.get(key, 0).ok())
    }
}

/// Says whose a slot is: the word that holds the role comes last.
fn publish(keys: &Mapped<SlotKey>, slot: u32, key: &EndpointKey) {
    let mut place = SlotKey::default();
    place.write(key);
    let words = place.words();
    for (i, word) in words.into_iter().enumerate() {
        keys.set_word(slot as usize, i, word);
    }
}
