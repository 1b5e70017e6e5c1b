//! One watched cgroup: its programs, its maps and its pins.

mod clients;
mod counts;
mod ids;
mod listening;
mod live;
pub(crate) mod monotonic;
mod retirement;

use std::{cell::RefCell, fs::File, os::unix::fs::MetadataExt as _, sync::Arc};

use aya::Ebpf;
use kernel_sample::{
    EndpointAddress, EndpointId, EndpointSample, EndpointSnapshot, KernelSample, Level,
    SnapshotCounts, SocketSample, Target, TargetClients,
};
use monitor_common::{
    counters::EndpointCounters, endpoint::Role, losses::LOSSES, meta::Meta, tcp::Delta,
};

use self::{
    clients::Clients,
    counts::{Connections, Counts},
    ids::Ids,
    listening::Listeners,
    live::{Adopted, Live, Storages},
    retirement::{Retired, Retirement},
};
use crate::{
    KernelOptions,
    adoption::{Adopting, Adoption, Membership, Rows},
    cgroup2,
    error::KernelError,
    loader::{attach, layouts::Elsewhere, prepare},
    maps::Access,
    namespaces::Namespaces,
    object::{self, Packets, Program, maps},
    pins::Pins,
    syscall,
};

/// In the place of a slot where an endpoint has none.
const RETIRED: u32 = u32::MAX;

/// A watched cgroup.
#[derive(Debug)]
pub(crate) struct Watched {
    label: Arc<str>,
    meta: Meta,
    pins: Pins,
    /// Held so that no second agent takes the target; `None` for a reader.
    lock: Option<File>,
    /// Kept for changes of level; `None` for a reader.
    attached: Option<Attached>,
    counts: Counts,
    /// Looked at while the counters are read.
    live: RefCell<Live>,
    listeners: RefCell<Listeners>,
    clients: RefCell<Clients>,
    /// `None` for a reader.
    retirement: RefCell<Option<Retirement>>,
    ids: RefCell<Ids>,
}

struct Attached {
    loaded: Loaded,
    cgroup: File,
    options: KernelOptions,
}

/// Programs that the kernel has verified.
struct Loaded {
    ebpf: Ebpf,
    /// Of so many parts of a segment.
    parts: u32,
}

impl Attached {
    /// Attaches the programs, and detaches what only level http needs.
    fn attach(&mut self, level: Level, pins: &Pins) -> Result<(), KernelError> {
        let Loaded { ebpf, parts } = &mut self.loaded;
        for program in Program::all(level, self.options.log, *parts) {
            if program.http_only() && level == Level::Tcp {
                attach::detach(program, pins)?;
            } else {
                attach::attach(ebpf, program, &self.cgroup, pins)?;
            }
        }
        Ok(())
    }
}

/// Makes the programs and has the kernel verify those that the level needs; where it
/// refuses them, they read less.
fn load(
    options: &KernelOptions,
    level: Level,
    meta: &Meta,
    pins: &Pins,
) -> Result<Loaded, KernelError> {
    let mut refused = None;
    for parts in object::parts(options.parts_max) {
        match load_with(options, level, meta, pins, parts) {
            Ok(ebpf) => {
                if let Some(error) = refused {
                    let error = daemon::error_chain(&error);
                    tracing::warn!(
                        error,
                        "the kernel's verifier refuses the programs that read heads of HTTP to \
                         their ends and follow TLS handshakes: pipelined requests and those behind \
                         an early response may be missed, and how handshakes end is unknown; a \
                         newer kernel accepts them"
                    );
                }
                return Ok(Loaded { ebpf, parts });
            }
            Err(error) if error.is_of_verifier() && refused.is_none() => refused = Some(error),
            // What all of them are refused for.
            Err(error) => return Err(error),
        }
    }
    Err(refused.unwrap_or(KernelError::Missing {
        kind: "program",
        name: "socket_events",
    }))
}

fn load_with(
    options: &KernelOptions,
    level: Level,
    meta: &Meta,
    pins: &Pins,
    parts: u32,
) -> Result<Ebpf, KernelError> {
    let mut ebpf = prepare::load(options, level, meta, pins, parts)?;
    for program in Program::all(level, options.log, parts) {
        if level == Level::Http || !program.http_only() {
            attach::load(&mut ebpf, program)?;
        }
    }
    Ok(ebpf)
}

fn pinned_level(pins: &Pins) -> Level {
    if pins
        .path(Program::Ingress(Packets::default()).link())
        .exists()
    {
        Level::Http
    } else {
        Level::Tcp
    }
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
    pub(crate) fn open(options: &KernelOptions, target: &Target) -> Result<Self, KernelError> {
        let pins = Pins::of(&options.pin_dir, &target.label);
        let cgroup = File::open(&target.path).map_err(|source| KernelError::File {
            operation: "opening the cgroup",
            path: target.path.clone(),
            source,
        })?;
        let cgroup_id = cgroup.metadata().map_or(0, |m| m.ino());
        pins.make()?;
        let lock = pins.lock(&target.label)?;
        let elsewhere = Elsewhere::lock(&pins, &options.pin_dir, &target.label)?;
        let before = prepare::usable(&pins, cgroup_id)?;
        let mut meta = before.unwrap_or_else(|| prepare::new_meta(options, target, cgroup_id));
        meta.cgroup_id = cgroup_id;
        if before.is_some() && pinned_level(&pins) != options.level {
            meta.level_changes = meta.level_changes.wrapping_add(1);
        }
        let loaded = load(options, options.level, &meta, &pins)?;
        if before.is_none() {
            prepare::fill_free_slots(&pins, meta.endpoints_max)?;
        }
        let counts = Counts::open(&pins, &meta, Access::Write)?;
        let retirement = Retirement::open(&pins, &counts, options.retire_after)?;
        let clients = Clients::open(&pins, options.client_prefixes)?;
        let namespaces = Namespaces::of(Some(target.path.clone()), &pins);
        let live = Live::new(
            storages(&pins)?,
            namespaces,
            Adopted::Unknown,
            options.dump_budget,
        );
        let mut watched = Self {
            label: Arc::clone(&target.label),
            meta,
            pins,
            lock: Some(lock),
            attached: Some(Attached {
                loaded,
                cgroup,
                options: options.clone(),
            }),
            counts,
            live: RefCell::new(live),
            listeners: RefCell::new(Listeners::of(Some(target.path.clone()))),
            clients: RefCell::new(clients),
            retirement: RefCell::new(Some(retirement)),
            ids: RefCell::default(),
        };
        if let Some(attached) = &mut watched.attached {
            attached.attach(options.level, &watched.pins)?;
        }
        watched.adopt(target)?;
        elsewhere.remove()?;
        watched.pins.write_meta(&watched.meta)?;
        Ok(watched)
    }

    /// Adopts the connections that are older than the programs.  Where the kernel
    /// does not tell of them, what they carry is a loss, and no reason to stop.
    fn adopt(&mut self, target: &Target) -> Result<(), KernelError> {
        let live = self.live.get_mut();
        if let Err(error) = live.namespaces.refresh() {
            not_adopted(&error);
            return Ok(());
        }
        let adopting = Adopting {
            pins: &self.pins,
            storage: live.sockets(),
            namespaces: &live.namespaces,
            keys: self.counts.keys(),
            books: &self.counts,
            members: &Membership::of(&target.path, &target.label),
        };
        match Adoption::open(&adopting) {
            Ok(adoption) => {
                live.adopted = Adopted::Followed(Box::new(adoption));
            }
            Err(error) => not_adopted(&error),
        }
        Ok(())
    }

    /// Reads what is pinned, without programs.
    pub(crate) fn open_pinned(pins: Pins) -> Option<Result<Self, KernelError>> {
        let meta = match pins.meta() {
            Ok(meta) => meta?,
            Err(error) => return Some(Err(error)),
        };
        let label = meta.label()?.into();
        Some(Self::over_maps(pins, meta, label))
    }

    fn over_maps(pins: Pins, meta: Meta, label: Arc<str>) -> Result<Self, KernelError> {
        let counts = Counts::open(&pins, &meta, Access::Read)?;
        let adopted = Rows::open(&pins, Access::Read)?;
        let adopted = adopted.map_or(Adopted::Unknown, Adopted::Peeked);
        let mount = cgroup2::mount();
        let cgroup = mount.map(|mount| mount.join(label.trim_start_matches('/')));
        let listeners = Listeners::of(cgroup.clone());
        let namespaces = Namespaces::of(cgroup, &pins);
        let clients = Clients::peek(&pins)?;
        let live = Live::new(storages(&pins)?, namespaces, adopted, f64::INFINITY);
        Ok(Self {
            label,
            meta,
            pins,
            lock: None,
            attached: None,
            counts,
            live: RefCell::new(live),
            listeners: RefCell::new(listeners),
            clients: RefCell::new(clients),
            retirement: RefCell::new(None),
            ids: RefCell::default(),
        })
    }

    /// Changes what the programs look at.  Programs of a new generation take the
    /// place of those before, so that what was open then is not taken for what is
    /// open now.
    pub(crate) fn set_level(&mut self, level: Level) -> Result<(), KernelError> {
        if level == self.level() {
            return Ok(());
        }
        let Some(attached) = &mut self.attached else {
            return Ok(());
        };
        self.meta.level_changes = self.meta.level_changes.wrapping_add(1);
        self.pins.write_meta(&self.meta)?;
        attached.loaded = load(&attached.options, level, &self.meta, &self.pins)?;
        attached.attach(level, &self.pins)
    }

    /// The level that the pinned links amount to.
    pub(crate) fn level(&self) -> Level {
        pinned_level(&self.pins)
    }

    pub(crate) fn label(&self) -> &Arc<str> {
        &self.label
    }

    pub(crate) fn since_unix_ns(&self) -> u64 {
        self.meta.since_unix_ns
    }

    /// Whether another agent holds the target.
    pub(crate) fn is_held(&self) -> bool {
        self.lock.is_some()
    }

    pub(crate) fn ebpf_mut(&mut self) -> Option<&mut Ebpf> {
        self.attached.as_mut().map(|a| &mut a.loaded.ebpf)
    }

    /// Adds what a sample takes of every endpoint that has its place.
    pub(crate) fn counter_snapshot(&self, endpoints: &mut Vec<EndpointSnapshot>) {
        let mut live = self.live.borrow_mut();
        live.take_ends(&self.counts);
        live.listeners(&self.label, &mut self.listeners.borrow_mut());
        let retirement = self.retirement.borrow();
        let retired = retirement.as_ref().map(|r| &r.retired);
        let mut ids = self.ids.borrow_mut();
        endpoints.reserve(ids.len());
        for slot in self.counts.slots() {
            let tail = self.counts.tail(slot);
            let make = || self.counts.key(slot, tail);
            let Some(id) = ids.of(slot, tail, make, &self.label) else {
                continue;
            };
            if retired.is_some_and(|retired| retired.holds(slot)) {
                continue;
            }
            let counts = self.counts.snapshot(slot);
            // The overflow endpoints exist where something overflowed.
            let unused =
                id.address == EndpointAddress::Other && counts == SnapshotCounts::default();
            // Where another agent gives slots away it may have done so by now.
            if unused || self.counts.tail(slot) != tail {
                continue;
            }
            let id = id.clone();
            endpoints.push(EndpointSnapshot { id, counts });
        }
    }

    /// Adds every counter of the endpoints of upstream role that have a slot.
    pub(crate) fn backend_counters(&self, endpoints: &mut Vec<EndpointSample>) {
        self.live.borrow_mut().take_ends(&self.counts);
        let retirement = self.retirement.borrow();
        let none = Retired::default();
        let retired = retirement.as_ref().map_or(&none, |r| &r.retired);
        let is_upstream = |slot: &u32| {
            let tail = self.counts.tail(*slot);
            let key = self.counts.key(*slot, tail);
            key.is_some_and(|(role, _)| role == Role::Upstream)
        };
        let slots = self.counts.slots().filter(is_upstream);
        endpoints.extend(slots.filter_map(|slot| self.sample_slot(slot, retired)));
    }

    /// Adds every endpoint's counters, and what the live sockets have on top.
    pub(crate) fn sample(&self, sample: &mut KernelSample) {
        let mut live = self.live.borrow_mut();
        live.take_ends(&self.counts);
        let mut retirement = self.retirement.borrow_mut();
        let read;
        let retired = match &*retirement {
            Some(retirement) => &retirement.retired,
            None => {
                read = Retired::read(&self.pins).unwrap_or_default();
                &read
            }
        };
        let mut rows: Vec<(u32, EndpointSample)> = self
            .counts
            .slots()
            .filter_map(|slot| Some((slot, self.sample_slot(slot, retired)?)))
            .collect();
        let clients = self.clients.borrow_mut().read(&self.label, &self.meta);
        let sees_live = self.add_live(&mut live, &mut rows, sample);
        let clients = clients.map(|clients| TargetClients {
            sees_live,
            ..clients
        });
        sample.clients.extend(clients);
        let mut listeners = self.listeners.borrow_mut();
        live.listeners(&self.label, &mut listeners);
        listeners.read(&self.label, sample);
        self.add_retired(retired, &mut rows);
        if let Some(retirement) = retirement.as_mut() {
            let slots = rows.iter().take_while(|(slot, _)| *slot != RETIRED);
            let slots = slots.map(|(slot, row)| (*slot, &*row.counters));
            retirement.look(&self.counts, slots);
        }
        merge(rows, &mut sample.endpoints);
    }

    fn sample_slot(&self, slot: u32, retired: &Retired) -> Option<EndpointSample> {
        let tail = self.counts.tail(slot);
        let (role, address) = self.counts.key(slot, tail)?;
        if retired.holds(slot) {
            return None;
        }
        let counters = self.counts.sum(slot);
        // Where another agent gives slots away it may have done so by now.
        if self.counts.tail(slot) != tail {
            return None;
        }
        // The overflow endpoints exist where something overflowed.
        let unused = Connections::of(&counters) == Connections::default();
        if address == EndpointAddress::Other && unused {
            return None;
        }
        Some(self.row(role, address, counters))
    }

    fn row(
        &self,
        role: Role,
        address: EndpointAddress,
        counters: Box<EndpointCounters>,
    ) -> EndpointSample {
        EndpointSample {
            id: EndpointId {
                target: Arc::clone(&self.label),
                role,
                address,
            },
            counters,
            since_unix_ns: self.meta.since_unix_ns,
        }
    }

    /// Adds the totals that endpoints had before they were retired.
    fn add_retired(&self, retired: &Retired, rows: &mut Vec<(u32, EndpointSample)>) {
        for (key, counters) in retired.iter() {
            if let Some(role) = Role::from_u8(key.role) {
                let row = self.row(role, counts::address(key), Box::new(*counters));
                rows.push((RETIRED, row));
            }
        }
    }

    /// After the counters: what is folded in between is then missing from both
    /// for a moment, and never counted twice.  Says whether the sockets were looked at.
    fn add_live(
        &self,
        live: &mut Live,
        rows: &mut [(u32, EndpointSample)],
        sample: &mut KernelSample,
    ) -> bool {
        let mut before = Connections::default();
        for (_, row) in rows.iter() {
            before.add(Connections::of(&row.counters));
        }
        let place = |rows: &[(u32, EndpointSample)], slot| {
            rows.binary_search_by_key(&slot, |(slot, _)| *slot).ok()
        };
        let found = live.look(&self.counts, before);
        let age_ms = live.age().as_millis().try_into().unwrap_or(u64::MAX);
        sample.live_bytes_age_ms = sample.live_bytes_age_ms.max(age_ms);
        sample.sockets_hidden |= live.hidden();
        for (slot, counters) in live.pending() {
            let Some(index) = place(rows, slot) else {
                continue;
            };
            let [received, sent, packets_received, packets_sent, retransmits] = counters;
            let delta = Delta {
                bytes_received: received,
                bytes_sent: sent,
                packets_received,
                packets_sent,
                retransmits,
            };
            add(&mut rows[index].1.counters, &delta);
        }
        let Some(found) = found else {
            return false;
        };
        for (slot, delta) in &found.remainders {
            if let Some(index) = place(rows, *slot) {
                add(&mut rows[index].1.counters, delta);
            }
        }
        for (slot, live) in found.sockets {
            if let Some(index) = place(rows, slot) {
                let endpoint = rows[index].1.id.clone();
                sample.sockets.push(SocketSample { endpoint, live });
            }
        }
        if let Some(difference) = found.difference {
            *sample.connection_difference.get_or_insert(0) += difference;
        }
        true
    }

    /// Adds what was lost, by reason.
    pub(crate) fn losses(&self, totals: &mut [u64; LOSSES]) {
        self.counts.losses(totals);
    }
}

/// Makes one endpoint of all that is counted for it.
fn merge(mut rows: Vec<(u32, EndpointSample)>, endpoints: &mut Vec<EndpointSample>) {
    let first = endpoints.len();
    rows.sort_by(|(_, a), (_, b)| a.id.cmp(&b.id));
    for (_, row) in rows {
        match endpoints[first..].last_mut() {
            Some(last) if last.id == row.id => last.counters.add(&row.counters),
            _ => endpoints.push(row),
        }
    }
}

fn add(counters: &mut EndpointCounters, delta: &Delta) {
    counters.bytes_received += delta.bytes_received;
    counters.bytes_sent += delta.bytes_sent;
    counters.packets_received += delta.packets_received;
    counters.packets_sent += delta.packets_sent;
    counters.retransmits += delta.retransmits;
}

fn not_adopted(error: &KernelError) {
    let error = daemon::error_chain(error);
    tracing::warn!(
        error,
        "connections that are older than the programs are not counted; see \
         `speedmimi-agent doctor`"
    );
}

/// The maps of the sockets' storage, for dumps.
fn storages(pins: &Pins) -> Result<Storages, KernelError> {
    let open = |name| {
        let path = pins.path(name);
        syscall::obj_get(&path).map_err(|source| KernelError::File {
            operation: "opening the pinned map",
            path,
            source,
        })
    };
    Ok(Storages {
        sockets: open(maps::SOCKETS)?,
        proxy_headers: open(maps::PROXY_HEADERS)?,
    })
}
