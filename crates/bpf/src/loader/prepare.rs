//! What must be there before the programs can be attached.

use std::time::{SystemTime, UNIX_EPOCH};

use aya::{Ebpf, EbpfLoader};
use kernel_sample::{Level, Target};
use monitor_common::{endpoint::OTHER_SLOTS, meta::Meta};

use super::attach;
use crate::{
    KernelLog, KernelOptions,
    error::{KernelError, hint},
    maps::{Slots, stripes},
    object::{self, Program, maps},
    pins::Pins,
};

/// What an agent before left, where it can be gone on with.
pub(crate) fn usable(pins: &Pins, cgroup_id: u64) -> Result<Option<Meta>, KernelError> {
    let Some(meta) = pins.meta()? else {
        // Nothing, or a beginning that was cut short: start clean.
        let pinned = maps::ALL.into_iter().chain(maps::OWN);
        for name in pinned.chain(Program::links()) {
            remove(pins, name)?;
        }
        return Ok(None);
    };
    let present = cpus();
    if meta.cpus != present {
        let path = pins.dir().to_owned();
        return Err(KernelError::CpuCount {
            path,
            pinned: meta.cpus,
            present,
        });
    }
    if meta.cgroup_id != cgroup_id {
        // The cgroup was removed and made again.
        attach::leave(pins, meta.cgroup_id)?;
    }
    attach::forget_detached(pins);
    Ok(Some(meta))
}

fn remove(pins: &Pins, name: &str) -> Result<(), KernelError> {
    let path = pins.path(name);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(KernelError::File {
            operation: "removing the pin",
            path,
            source,
        }),
        _ => Ok(()),
    }
}

pub(crate) fn new_meta(options: &KernelOptions, target: &Target, cgroup_id: u64) -> Meta {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Meta {
        cpus: cpus(),
        endpoints_max: options.endpoints_max,
        // Wraps in the year 2554.
        ..Meta::new(&target.label, now.as_nanos() as u64, cgroup_id)
    }
}

fn cpus() -> u32 {
    aya::util::nr_cpus()
        .ok()
        .and_then(|n| u32::try_from(n).ok())
        .unwrap_or(1)
}

/// Makes the maps, or opens the pinned ones, and sets the programs' constants.
pub(crate) fn load(
    options: &KernelOptions,
    level: Level,
    meta: &Meta,
    pins: &Pins,
    parts: u32,
) -> Result<Ebpf, KernelError> {
    let log_level: u8 = match options.log {
        KernelLog::Off => 0,
        KernelLog::Info => 3,
        KernelLog::Debug => 4,
    };
    let slots = meta.endpoints_max + OTHER_SLOTS;
    let stripes = stripes(meta);
    // The lowest byte.
    let generation = meta.level_changes as u8;
    let packets = u8::from(level == Level::Http);
    let mut loader = EbpfLoader::new();
    loader
        .override_global(object::STRIPES, &stripes, true)
        .override_global(object::GENERATION, &generation, true)
        .override_global(object::PACKETS, &packets, true)
        .override_global(object::PARTS, &parts, true)
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .map_max_entries(maps::ENDPOINTS, meta.endpoints_max)
        .map_max_entries(maps::FREE_SLOTS, meta.endpoints_max)
        .map_max_entries(maps::COUNTERS, slots * stripes)
        .map_max_entries(maps::KEYS, slots)
        .map_max_entries(maps::LOST, stripes)
        .map_max_entries(maps::CLIENTS, options.clients_max);
    for name in maps::ALL {
        loader.map_pin_path(name, pins.path(name));
    }
    loader
        .load(object::OBJECT)
        .map_err(|source| KernelError::Load {
            hint: hint(),
            source: Box::new(source),
        })
}

pub(crate) fn fill_free_slots(pins: &Pins, endpoints_max: u32) -> Result<(), KernelError> {
    Slots::open(pins)?.release(OTHER_SLOTS..OTHER_SLOTS + endpoints_max)
}
