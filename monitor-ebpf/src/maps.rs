//! The maps.  All but the log are pinned, and outlive the agent.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST, bpf_sock},
    btf_maps::SkStorage,
    helpers::{bpf_get_smp_processor_id, generated::bpf_sk_storage_get},
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, Queue},
};
use monitor_common::{
    ENDPOINTS_MAX_DEFAULT,
    adopted::{ADOPTED_MAX, Adopted},
    counters::{CPU_PLACES_MAX, EndpointCounters},
    endpoint::{EndpointKey, OTHER_SLOTS},
    handshake::{HANDSHAKES_MAX, HandshakeData, HandshakeKey},
    http::FEW_PARTS,
    losses::{Loss, Lost},
    proxy_header::ProxyHeader,
    slot_key::SlotKey,
    socket::Socket,
    tls::Tls,
};

use crate::count;

/// How many places a slot has: one or more for the CPUs, and the agent's own.  Set by
/// the agent.
#[unsafe(no_mangle)]
static PLACES: Global<u32> = Global::new(1);

/// Changes with the level.  Set by the agent.
#[unsafe(no_mangle)]
static GENERATION: Global<u8> = Global::new(0);

/// 1 where packets are looked at (level http).  Set by the agent.
#[unsafe(no_mangle)]
static PACKETS: Global<u8> = Global::new(0);

/// How many parts of a segment are read.  Set by the agent.
#[unsafe(no_mangle)]
static PARTS: Global<u32> = Global::new(FEW_PARTS);

/// How many parts of a segment are read.
#[inline(always)]
pub(crate) fn parts() -> u32 {
    PARTS.load()
}

/// Whether heads are read to their ends.
#[inline(always)]
pub(crate) fn reads_heads() -> bool {
    parts() > FEW_PARTS
}

/// A number by way of a place that the verifier knows nothing of.
#[inline(always)]
pub(crate) fn forget(scratch: *mut u32, number: u32) -> u32 {
    // SAFETY: callers pass a pointer into a map's value.
    unsafe { scratch.write_volatile(number) };
    // SAFETY: as above.
    unsafe { scratch.read_volatile() }
}

/// Whether packets are looked at.
#[inline(always)]
pub(crate) fn sees_packets() -> bool {
    PACKETS.load() != 0
}

/// Which time of looking at packets this is.
#[inline(always)]
pub(crate) fn generation() -> u8 {
    GENERATION.load()
}

/// Per socket, freed with it.
#[btf_map]
static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// Per socket as well, but of those alone whose stream begins with such a header.
#[btf_map]
static PROXY_HEADERS: SkStorage<ProxyHeader> = SkStorage::new();

/// Per socket on which a client began a TLS handshake.
#[btf_map]
static HELLOS: SkStorage<Tls> = SkStorage::new();

/// From an endpoint to its slot.
#[map]
static ENDPOINTS: HashMap<EndpointKey, u32> = HashMap::with_max_entries(ENDPOINTS_MAX_DEFAULT, 0);

/// The slots that no endpoint has.  Filled by the agent.
#[map]
static FREE_SLOTS: Queue<u32> = Queue::with_max_entries(ENDPOINTS_MAX_DEFAULT, 0);

/// Slot by slot, a place per CPU.  Mapped into the agent's memory, so that a
/// sample needs no system call.
#[map]
static COUNTERS: Array<EndpointCounters> =
    Array::with_max_entries(ENDPOINTS_MAX_DEFAULT + OTHER_SLOTS, BPF_F_MMAPABLE);

/// Whose a slot is, for the agent, which reads it without a system call.
#[map]
static KEYS: Array<SlotKey> =
    Array::with_max_entries(ENDPOINTS_MAX_DEFAULT + OTHER_SLOTS, BPF_F_MMAPABLE);

/// What could not be counted, a place per CPU.
#[map]
static LOST: Array<Lost> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The payload that came with the end of a handshake, between the packet
/// program, which sees the listener, and the callback of the new socket.
#[map]
static HANDSHAKES: LruHashMap<HandshakeKey, HandshakeData> =
    LruHashMap::with_max_entries(HANDSHAKES_MAX, 0);

/// The network namespaces in which connections were opened, by cookie: those that
/// the agent does not look at hold sockets that it cannot find.  It loses the oldest.
#[map]
static NAMESPACES: LruHashMap<u64, u32> = LruHashMap::with_max_entries(NAMESPACES_MAX, 0);

/// The connections that are older than the programs, by cookie.
#[map]
static ADOPTED: HashMap<u64, Adopted> = HashMap::with_max_entries(ADOPTED_MAX, BPF_F_NO_PREALLOC);

const STORAGE_CREATE: u64 = 1;

/// How many namespaces are remembered.
const NAMESPACES_MAX: u32 = 4_096;

/// A socket's storage, if it is followed.
///
/// Programs on several CPUs hold it at the same time, so it is never a reference:
/// each field is written by one of them alone, as `monitor_common::socket` has it.
#[inline(always)]
pub(crate) fn socket(sk: *mut bpf_sock) -> Option<*mut Socket> {
    storage(&SOCKETS, sk, 0)
}

/// A socket's storage, made where there is none.
#[inline(always)]
pub(crate) fn socket_or_new(sk: *mut bpf_sock) -> Option<*mut Socket> {
    storage(&SOCKETS, sk, STORAGE_CREATE)
}

/// Where the header of the PROXY protocol is kept of a socket, made where it is not.
#[inline(always)]
pub(crate) fn proxy_header_or_new(sk: *mut bpf_sock) -> Option<*mut ProxyHeader> {
    storage(&PROXY_HEADERS, sk, STORAGE_CREATE)
}

/// What is kept of a socket's TLS handshake, where one was begun.
#[inline(always)]
pub(crate) fn tls(sk: *mut bpf_sock) -> Option<*mut Tls> {
    storage(&HELLOS, sk, 0)
}

/// The same, made where there is none.
#[inline(always)]
pub(crate) fn tls_or_new(sk: *mut bpf_sock) -> Option<*mut Tls> {
    storage(&HELLOS, sk, STORAGE_CREATE)
}

#[inline(always)]
fn storage<T>(map: &'static SkStorage<T>, sk: *mut bpf_sock, flags: u64) -> Option<*mut T> {
    let map = core::ptr::from_ref(map).cast_mut().cast();
    // SAFETY: the map is a socket storage of `T`, and `sk` comes from the context; the
    // verifier proves both.
    let value = unsafe { bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags) };
    // Zeroed when it was made, and the socket's for the run of the program.
    (!value.is_null()).then_some(value.cast())
}

/// The place of this CPU.
#[inline(always)]
fn place() -> u32 {
    // SAFETY: the helper has no precondition.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    cpu & (CPU_PLACES_MAX - 1)
}

/// The counters of a slot on this CPU.
#[inline(always)]
pub(crate) fn counters(slot: u32) -> Option<*mut EndpointCounters> {
    COUNTERS.get_ptr_mut(slot * PLACES.load() + place())
}

/// Counts what could not be counted.
#[inline(always)]
pub(crate) fn lose(loss: Loss) {
    if let Some(lost) = LOST.get_ptr_mut(place()) {
        // SAFETY: only the address of the field is taken.
        count::add(unsafe { &raw mut (*lost).counts[loss as usize] }, 1);
    }
}

/// The entry of an adopted connection, which stays readable for the run of the
/// program.
#[inline(always)]
pub(crate) fn adopted(cookie: u64) -> Option<*mut Adopted> {
    ADOPTED.get_ptr_mut(cookie)
}

/// Notes that a namespace has connections.
#[inline(always)]
pub(crate) fn note_namespace(cookie: u64) {
    if NAMESPACES.get_ptr(cookie).is_none() {
        // Where there is no room for it the comparison with the sockets tells.
        let _noted = NAMESPACES.insert(cookie, 1, 0);
    }
}

/// Keeps the payload of a handshake for the callback that follows.
#[inline(always)]
pub(crate) fn keep_handshake(key: &HandshakeKey, data: &HandshakeData) {
    if HANDSHAKES.insert(key, data, 0).is_err() {
        lose(Loss::UntrackedSocket);
    }
}

/// Takes up what was kept, once.
#[inline(always)]
pub(crate) fn take_handshake(key: &HandshakeKey) -> Option<HandshakeData> {
    // SAFETY: written before the callback, in the same soft interrupt, and by nobody
    // else: the key is this connection's.
    let data = unsafe { HANDSHAKES.get_ptr(key)?.read() };
    // It may have been evicted meanwhile.
    let _gone = HANDSHAKES.remove(key);
    Some(data)
}

/// The slot of an endpoint, if it has one.
///
/// The agent takes idle endpoints out of the map, and the kernel gives the place of
/// such a value to another endpoint at once, so what is read may be the other's slot:
/// whose a slot is tells.  A slot itself is given away only after every program that
/// may have found it has ended.
#[inline(always)]
pub(crate) fn slot(key: &EndpointKey) -> Option<u32> {
    // SAFETY: four aligned bytes cannot be torn; volatile, as others write them.
    let slot = unsafe { ENDPOINTS.get_ptr(key)?.read_volatile() };
    let place = KEYS.get_ptr_mut(slot)?;
    // SAFETY: a place of the map.
    unsafe { SlotKey::is_of(place, key) }.then_some(slot)
}

/// Which generation a slot is in: another one once it was given away.
#[inline(always)]
pub(crate) fn slot_generation(slot: u32) -> u32 {
    // SAFETY: a place of the map.
    KEYS.get_ptr_mut(slot)
        .map_or(0, |place| unsafe { SlotKey::generation(place) })
}

/// Takes a slot out of the pool.
#[inline(always)]
pub(crate) fn take_free_slot() -> Option<u32> {
    FREE_SLOTS.pop().ok().flatten()
}

/// Gives an endpoint its slot, unless it got one at the same time elsewhere:
/// then the slot goes back to the pool.
#[inline(always)]
pub(crate) fn assign(key: &EndpointKey, slot: u32) -> bool {
    let Some(place) = KEYS.get_ptr_mut(slot) else {
        return false;
    };
    // Before it can be found, as whoever finds it looks whose it is.
    // SAFETY: a place of the map; the slot is this program's alone.
    unsafe { SlotKey::publish(place, key, count::or) };
    if ENDPOINTS.insert(key, slot, u64::from(BPF_NOEXIST)).is_ok() {
        return true;
    }
    // SAFETY: as above.
    unsafe { SlotKey::withdraw(place) };
    if FREE_SLOTS.push(slot, 0).is_err() {
        lose(Loss::EndpointMapFull);
    }
    false
}
