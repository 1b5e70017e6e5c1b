//! The maps.  All but the log are pinned, and outlive the agent.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST, bpf_sock},
    btf_maps::SkStorage,
    helpers::{bpf_get_smp_processor_id, generated::bpf_sk_storage_get},
    macros::{btf_map, map},
    maps::{Array, HashMap, PerCpuArray, Queue},
};
use monitor_common::{
    ENDPOINTS_MAX_DEFAULT,
    adopted::{ADOPTED_MAX, Adopted},
    counters::{CPU_PLACES_MAX, EndpointCounters},
    endpoint::{EndpointKey, OTHER_SLOTS, SlotKey},
    handshake::HandshakeData,
    losses::{Loss, Lost},
    socket::Socket,
};

use crate::count;

/// How many places a slot has: one or more for the CPUs, and the agent's own.  Set by
/// the agent.
#[unsafe(no_mangle)]
static PLACES: Global<u32> = Global::new(1);

/// Changes with the level.  Set by the agent.
#[unsafe(no_mangle)]
static GENERATION: Global<u8> = Global::new(0);

/// Which time of looking at packets this is.
#[inline(always)]
pub(crate) fn generation() -> u8 {
    GENERATION.load()
}

/// Per socket, freed with it.
#[btf_map]
static SOCKETS: SkStorage<Socket> = SkStorage::new();

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
static HANDSHAKE: PerCpuArray<HandshakeData> = PerCpuArray::with_max_entries(1, 0);

/// The connections that are older than the programs, by cookie.
#[map]
static ADOPTED: HashMap<u64, Adopted> = HashMap::with_max_entries(ADOPTED_MAX, BPF_F_NO_PREALLOC);

const STORAGE_CREATE: u64 = 1;

/// A socket's storage, if it is followed.
#[inline(always)]
pub(crate) fn socket(sk: *mut bpf_sock) -> Option<&'static mut Socket> {
    storage(sk, 0)
}

/// A socket's storage, made where there is none.
#[inline(always)]
pub(crate) fn socket_or_new(sk: *mut bpf_sock) -> Option<&'static mut Socket> {
    storage(sk, STORAGE_CREATE)
}

#[inline(always)]
fn storage(sk: *mut bpf_sock, flags: u64) -> Option<&'static mut Socket> {
    let map = core::ptr::from_ref(&SOCKETS).cast_mut().cast();
    // SAFETY: the map is a socket storage of `Socket`, and `sk` comes from the
    // context; the verifier proves both.
    let value = unsafe { bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags) };
    // SAFETY: the kernel hands out the storage of one socket for the run of the
    // program, zeroed when it was made.  Programs may hold it at the same time;
    // each field is written by one of them alone (see `monitor_common::http`).
    unsafe { value.cast::<Socket>().as_mut() }
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

/// The entry of an adopted connection.
#[inline(always)]
pub(crate) fn adopted(cookie: u64) -> Option<&'static mut Adopted> {
    // SAFETY: an entry stays readable for the run of the program; the programs
    // write one field, of one byte.
    ADOPTED
        .get_ptr_mut(cookie)
        .and_then(|p| unsafe { p.as_mut() })
}

/// What the packet program keeps for the callback that follows on this CPU.
#[inline(always)]
pub(crate) fn handshake() -> Option<&'static mut HandshakeData> {
    // SAFETY: one place per CPU, written and read within one soft interrupt.
    HANDSHAKE.get_ptr_mut(0).and_then(|p| unsafe { p.as_mut() })
}

/// The slot of an endpoint, if it has one.
#[inline(always)]
pub(crate) fn slot(key: &EndpointKey) -> Option<u32> {
    // SAFETY: values are never removed while programs run that could read them;
    // a torn read of four aligned bytes is impossible.
    unsafe { ENDPOINTS.get(key) }.copied()
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
    if ENDPOINTS.insert(key, slot, u64::from(BPF_NOEXIST)).is_ok() {
        // SAFETY: the slot is this program's alone until its key is published.
        if let Some(place) = KEYS.get_ptr_mut(slot).and_then(|p| unsafe { p.as_mut() }) {
            place.write(key);
        }
        return true;
    }
    if FREE_SLOTS.push(slot, 0).is_err() {
        lose(Loss::EndpointMapFull);
    }
    false
}
