//! The payload of a packet.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{helpers::bpf_skb_load_bytes, programs::SkBuffContext};
use monitor_common::{
    http::{Payload, START_BYTES, Start},
    losses::Loss,
};

use crate::maps;

/// Of a packet whose payload begins so far from its beginning.
pub(crate) struct Packet<'a> {
    pub(crate) ctx: &'a SkBuffContext,
    pub(crate) offset: u32,
}

impl Payload for Packet<'_> {
    #[inline(always)]
    fn parts(&self) -> u32 {
        maps::parts()
    }

    #[inline(always)]
    fn start(&self, at: u32, len: u32) -> Option<Start> {
        let mut start = MaybeUninit::<Start>::uninit();
        let to = start.as_mut_ptr().cast();
        let (skb, at) = (self.ctx.skb.skb.cast(), self.offset.wrapping_add(at));
        let result = if len >= START_BYTES as u32 {
            // SAFETY: as many bytes are loaded as `start` has.
            unsafe { bpf_skb_load_bytes(skb, at, to, START_BYTES as u32) }
        } else {
            Start::zero(&mut start);
            // SAFETY: not more bytes are loaded than `start` has.
            unsafe { bpf_skb_load_bytes(skb, at, to, one_to_16(len)) }
        };
        if result == 0 {
            // SAFETY: every byte was zeroed or loaded.
            Some(unsafe { start.assume_init() })
        } else {
            maps::lose(Loss::Headers);
            None
        }
    }

    #[inline(always)]
    fn words(&self, at: u32, len: u32) -> Option<[u64; 8]> {
        let mut words = MaybeUninit::<[u64; 8]>::uninit();
        let to = words.as_mut_ptr().cast();
        let (skb, at) = (self.ctx.skb.skb.cast(), self.offset.wrapping_add(at));
        let result = if len >= 64 {
            // SAFETY: as many bytes are loaded as `words` has.
            unsafe { bpf_skb_load_bytes(skb, at, to, 64) }
        } else {
            zero(&mut words);
            // SAFETY: not more bytes are loaded than `words` has.
            unsafe { bpf_skb_load_bytes(skb, at, to, one_to_64(len)) }
        };
        if result == 0 {
            // SAFETY: every byte was zeroed or loaded.
            Some(unsafe { words.assume_init() })
        } else {
            maps::lose(Loss::Headers);
            None
        }
    }
}

/// Zeroes a place by eight stores.
#[inline(always)]
fn zero(place: &mut MaybeUninit<[u64; 8]>) {
    let words = place.as_mut_ptr().cast::<u64>();
    let mut i = 0;
    while i < 8 {
        // SAFETY: one of eight words.
        let word = unsafe { words.add(i) };
        // SAFETY: as above.  Volatile, or else it would be a call.
        unsafe { word.write_volatile(0) };
        i += 1;
    }
}

/// Shows the verifier the bounds of a length from 1 to 16, which the compiler
/// knows and would not write.
#[inline(always)]
fn one_to_16(len: u32) -> u32 {
    let mut len = u64::from(len);
    // SAFETY: three instructions on a register.
    unsafe { asm!("{len} += -1", "{len} &= 15", "{len} += 1", len = inout(reg) len) };
    len as u32
}

/// The same from 1 to 64.
#[inline(always)]
fn one_to_64(len: u32) -> u32 {
    let mut len = u64::from(len);
    // SAFETY: as above.
    unsafe { asm!("{len} += -1", "{len} &= 63", "{len} += 1", len = inout(reg) len) };
    len as u32
}

/// Shows the verifier the bounds of a length from `LOW` on and below `HIGH`, in the
/// register that has it: older ones do not know that it is the one that was compared,
/// where it was on the stack meanwhile.
#[inline(always)]
pub(crate) fn part<const LOW: i32, const HIGH: i32>(len: u32) -> u32 {
    let mut len = u64::from(len);
    // SAFETY: four instructions on a register.
    unsafe {
        asm!(
            "if {len} >= {low} goto +1",
            "{len} = {low}",
            "if {len} < {high} goto +1",
            "{len} = {low}",
            len = inout(reg) len,
            low = const LOW,
            high = const HIGH,
        );
    }
    len as u32
}
