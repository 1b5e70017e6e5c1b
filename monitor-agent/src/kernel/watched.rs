//! One watched cgroup: its programs, its maps and its pins.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, Queue},
};
use monitor_common::{
    counters::{EndpointCounters, WORDS},
    endpoint::{EndpointKey, OTHER_SLOTS, Role, SlotKey, other_slot},
    histogram::BUCKETS,
    losses::{LOSSES, Loss, Lost},
    meta::Meta,
};

use super::{
    EndpointAddress, EndpointId, EndpointSample, KernelError, KernelLog, KernelOptions,
    KernelSample, SocketSample, Target, attach,
    error::hint,
    mapped::Mapped,
    object::{self, Program, maps},
    pins::Pins,
    sockets, syscall,
};
use crate::source::{Detail, Level};

/// The counters in front of the two histograms.
const HOT_WORDS: usize = WORDS - 2 * (1 + BUCKETS);

/// A watched cgroup.
#[derive(Debug)]
pub(super) struct Watched {
    label: Arc<str>,
    meta: Meta,
    pins: Pins,
    /// Held so that no second agent takes the target; `None` for a reader.
    lock: Option<File>,
    /// Kept for changes of level; `None` for a reader.
    attached: Option<Attached>,
    counters: Mapped<EndpointCounters>,
    keys: Mapped<SlotKey>,
    lost: Mapped<Lost>,
    /// The map of the sockets' storage, for the dump.
    sockets: OwnedFd,
}

struct Attached {
    ebpf: Ebpf,
    cgroup: File,
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached")
            .field("cgroup", &self.cgroup)
            .finish_non_exhaustive()
    }
}

impl Watched {
    /// Attaches the programs, going on with the maps of an agent before.
    pub(super) fn open(options: &KernelOptions, target: &Target) -> Result<Self, KernelError> {
        let pins = Pins::of(&options.pin_dir, &target.label);
        let cgroup = File::open(&target.path).map_err(|source| KernelError::File {
            operation: "opening the cgroup",
            path: target.path.clone(),
            source,
        })?;
        let cgroup_id = cgroup.metadata().map_or(0, |m| m.ino());
        let lock = pins.lock(&target.label)?;
        let before = usable(&pins, cgroup_id)?;
        let meta = before.unwrap_or_else(|| new_meta(options, target, cgroup_id));
        let mut ebpf = load(options, &meta, &pins)?;
        if before.is_none() {
            fill_free_slots(&pins, meta.endpoints_max)?;
        }
        for program in Program::ALL {
            attach::load(&mut ebpf, program)?;
        }
        let mut watched = Self::over_maps(pins, meta, Arc::clone(&target.label))?;
        watched.lock = Some(lock);
        watched.attached = Some(Attached { ebpf, cgroup });
        watched.set_level(options.level)?;
        watched.pins.write_meta(&Meta { cgroup_id, ..meta })?;
        Ok(watched)
    }

    /// Reads what is pinned, without programs.
    pub(super) fn open_pinned(pins: Pins) -> Option<Result<Self, KernelError>> {
        let meta = pins.meta()?;
        let label = meta.label()?.into();
        Some(Self::over_maps(pins, meta, label))
    }

    fn over_maps(pins: Pins, meta: Meta, label: Arc<str>) -> Result<Self, KernelError> {
        let slots = (meta.endpoints_max + OTHER_SLOTS) as usize;
        let cpus = meta.cpus as usize;
        let counters = Mapped::new(&pins.map(maps::COUNTERS)?, maps::COUNTERS, slots * cpus)?;
        let keys = Mapped::new(&pins.map(maps::KEYS)?, maps::KEYS, slots)?;
        let lost = Mapped::new(&pins.map(maps::LOST)?, maps::LOST, cpus)?;
        let path = pins.path(maps::SOCKETS);
        let sockets = syscall::obj_get(&path).map_err(|source| KernelError::File {
            operation: "opening the pinned map",
            path,
            source,
        })?;
        Ok(Self {
            label,
            meta,
            pins,
            lock: None,
            attached: None,
            counters,
            keys,
            lost,
            sockets,
        })
    }

    /// Attaches or detaches what only level http needs.
    pub(super) fn set_level(&mut self, level: Level) -> Result<(), KernelError> {
        let Some(Attached { ebpf, cgroup }) = &mut self.attached else {
            return Ok(());
        };
        for program in Program::ALL {
            if program.http_only() && level == Level::Tcp {
                attach::detach(program, &self.pins)?;
            } else {
                attach::attach(ebpf, program, cgroup, &self.pins)?;
            }
        }
        Ok(())
    }

    /// The level that the pinned links amount to.
    pub(super) fn level(&self) -> Level {
        if self.pins.path(Program::Ingress.link()).exists() {
            Level::Http
        } else {
            Level::Tcp
        }
    }

    pub(super) fn label(&self) -> &Arc<str> {
        &self.label
    }

    pub(super) fn since_unix_ns(&self) -> u64 {
        self.meta.since_unix_ns
    }

    /// Whether another agent holds the target.
    pub(super) fn is_held(&self) -> bool {
        self.lock.is_some()
    }

    pub(super) fn ebpf_mut(&mut self) -> Option<&mut Ebpf> {
        self.attached.as_mut().map(|a| &mut a.ebpf)
    }

    /// Adds every endpoint's counters, summed over the CPUs, and at full detail
    /// what the live sockets have on top.
    pub(super) fn sample(&self, detail: Detail, sample: &mut KernelSample) {
        let first = sample.endpoints.len();
        let slots: Vec<u32> = (0..self.meta.endpoints_max + OTHER_SLOTS)
            .filter(|&slot| self.sample_slot(slot, detail, &mut sample.endpoints))
            .collect();
        // After the counters: what is folded in between is then missing from
        // both for a moment, and never counted twice.
        if detail == Detail::Full {
            self.add_live(&slots, &mut sample.endpoints[first..], &mut sample.sockets);
        }
    }

    fn sample_slot(&self, slot: u32, detail: Detail, endpoints: &mut Vec<EndpointSample>) -> bool {
        let Some((role, address)) = self.key(slot) else {
            return false;
        };
        let counters = self.sum(slot, detail);
        // The overflow endpoints exist where something overflowed.
        if address == EndpointAddress::Other && counters.connections_opened == 0 {
            return false;
        }
        endpoints.push(EndpointSample {
            id: EndpointId {
                target: Arc::clone(&self.label),
                role,
                address,
            },
            counters,
            since_unix_ns: self.meta.since_unix_ns,
        });
        true
    }

    fn add_live(
        &self,
        slots: &[u32],
        endpoints: &mut [EndpointSample],
        sockets: &mut Vec<SocketSample>,
    ) {
        let live = match sockets::dump(Some(&self.sockets)) {
            Ok(live) => live,
            Err(error) => {
                tracing::debug!(%error, "the live sockets cannot be read");
                return;
            }
        };
        for live in live {
            let Some(storage) = live.storage else {
                continue;
            };
            let Ok(index) = slots.binary_search(&storage.exchange.slot) else {
                continue;
            };
            let Some(endpoint) = endpoints.get_mut(index) else {
                continue;
            };
            let remainder = live.remainder();
            let counters = &mut endpoint.counters;
            counters.bytes_received += remainder.bytes_received;
            counters.bytes_sent += remainder.bytes_sent;
            counters.packets_received += remainder.packets_received;
            counters.packets_sent += remainder.packets_sent;
            counters.retransmits += remainder.retransmits;
            sockets.push(SocketSample {
                endpoint: endpoint.id.clone(),
                live,
            });
        }
    }

    fn key(&self, slot: u32) -> Option<(Role, EndpointAddress)> {
        for role in [Role::Downstream, Role::Upstream] {
            if slot == other_slot(role) {
                return Some((role, EndpointAddress::Other));
            }
        }
        let mut words = [0u32; size_of::<SlotKey>() / 4];
        self.keys.words(slot as usize, &mut words);
        let key = SlotKey::from_words(words).read()?;
        Some((Role::from_u8(key.role)?, address(&key)))
    }

    fn sum(&self, slot: u32, detail: Detail) -> Box<EndpointCounters> {
        let mut sum = Box::new(EndpointCounters::ZERO);
        let mut words = [0u64; WORDS];
        let words = match detail {
            Detail::Hot => &mut words[..HOT_WORDS],
            Detail::Full => &mut words[..],
        };
        for cpu in 0..self.meta.cpus {
            let place = slot * self.meta.cpus + cpu;
            self.counters.words(place as usize, words);
            for (total, n) in sum.words_mut().iter_mut().zip(words.iter()) {
                *total = total.wrapping_add(*n);
            }
        }
        sum
    }

    /// Adds what was lost, by reason.
    pub(super) fn losses(&self, totals: &mut [u64; LOSSES]) {
        for cpu in 0..self.meta.cpus as usize {
            let mut counts = [0u64; LOSSES];
            self.lost.words(cpu, &mut counts);
            for loss in Loss::ALL {
                totals[loss as usize] += counts[loss as usize];
            }
        }
    }
}

fn address(key: &EndpointKey) -> EndpointAddress {
    let ip = std::net::Ipv6Addr::from(key.address).to_canonical();
    EndpointAddress::Socket((ip, key.port).into())
}

/// What an agent before left, where it can be gone on with.
fn usable(pins: &Pins, cgroup_id: u64) -> Result<Option<Meta>, KernelError> {
    let Some(meta) = pins.meta() else {
        // Nothing, or a beginning that was cut short: start clean.
        for name in maps::ALL.into_iter().chain(Program::ALL.map(Program::link)) {
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
        // The cgroup was removed and made again: the links hold the old one.
        for program in Program::ALL {
            attach::detach(program, pins)?;
        }
    }
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

fn new_meta(options: &KernelOptions, target: &Target, cgroup_id: u64) -> Meta {
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
fn load(options: &KernelOptions, meta: &Meta, pins: &Pins) -> Result<Ebpf, KernelError> {
    let log_level: u8 = match options.log {
        KernelLog::Off => 0,
        KernelLog::Info => 3,
        KernelLog::Debug => 4,
    };
    let slots = meta.endpoints_max + OTHER_SLOTS;
    let mut loader = EbpfLoader::new();
    loader
        .override_global(object::CPUS, &meta.cpus, true)
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .map_max_entries(maps::ENDPOINTS, meta.endpoints_max)
        .map_max_entries(maps::FREE_SLOTS, meta.endpoints_max)
        .map_max_entries(maps::COUNTERS, slots * meta.cpus)
        .map_max_entries(maps::KEYS, slots)
        .map_max_entries(maps::LOST, meta.cpus);
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

fn fill_free_slots(pins: &Pins, endpoints_max: u32) -> Result<(), KernelError> {
    let failed = |source| KernelError::Map {
        operation: "filling",
        map: maps::FREE_SLOTS,
        source: Box::new(source),
    };
    let map = Map::from_map_data(pins.map(maps::FREE_SLOTS)?).map_err(failed)?;
    let mut queue = Queue::<MapData, u32>::try_from(map).map_err(failed)?;
    for slot in OTHER_SLOTS..OTHER_SLOTS + endpoints_max {
        queue.push(slot, 0).map_err(failed)?;
    }
    Ok(())
}
