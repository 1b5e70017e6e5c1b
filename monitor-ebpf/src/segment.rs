//! The segment in a packet.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock_ops},
    helpers::bpf_skb_load_bytes,
};
use monitor_common::losses::Loss;

use crate::maps;

const IPPROTO_TCP: u8 = 6;
const TCP_HEADER_MIN: usize = 20;
const IPPROTO_HOPOPTS: u8 = 0;
const IPV4_HEADER: usize = 20;
/// Version 4, and a header of five words.
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
const IPV6_HEADER: usize = 40;
const JUMBO_HEADER: usize = 8;

/// A segment with payload.
pub(crate) struct Segment {
    /// Of its payload.
    pub(crate) seq: u32,
    /// Where the payload begins in the packet.
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) ports: u32,
    pub(crate) is_reset: bool,
}

/// The segment in a packet; `None` for what is not TCP.
///
/// Headers are read in place where they lie at a constant distance from the
/// packet's beginning: any other needs `CAP_PERFMON`.
#[inline(always)]
pub(crate) fn segment(skb: &__sk_buff) -> Option<Segment> {
    let data = skb.data as usize;
    let end = skb.data_end as usize;
    // The shortest packet there is: IPv4 and TCP headers without options.
    if data + IPV4_HEADER + TCP_HEADER_MIN > end {
        return None;
    }
    let first = byte(data);
    if first >> 4 == 4 {
        if byte(data + 9) != IPPROTO_TCP {
            return None;
        }
        if first == IPV4_WITHOUT_OPTIONS {
            return in_place::<IPV4_HEADER>(skb, data, end);
        }
        return loaded(skb, u32::from(first & 0x0f) * 4);
    }
    match byte(data + 6) {
        IPPROTO_TCP => in_place::<IPV6_HEADER>(skb, data, end),
        // A segment of more than 64 KiB carries its length in a hop-by-hop
        // header (RFC 2675).  Other extension headers do not occur on TCP
        // sockets' own packets, but for a routing header that a socket
        // option asks for, which is not followed.
        IPPROTO_HOPOPTS if is_jumbo(data, end) => {
            in_place::<{ IPV6_HEADER + JUMBO_HEADER }>(skb, data, end)
        }
        _ => None,
    }
}

/// The segment whose TCP header lies so far from the packet's beginning.
#[inline(always)]
fn in_place<const AT: usize>(skb: &__sk_buff, data: usize, end: usize) -> Option<Segment> {
    if data + AT + TCP_HEADER_MIN > end {
        maps::lose(Loss::Headers);
        return Some(Segment::NOTHING);
    }
    let ports = word(data + AT);
    let seq = word(data + AT + 4);
    let length_and_flags = word(data + AT + 12);
    Some(Segment::of(skb, AT as u32, [ports, seq, length_and_flags]))
}

/// The same behind IPv4 options, which hardly anybody sends.
#[inline(always)]
fn loaded(skb: &__sk_buff, at: u32) -> Option<Segment> {
    let mut header = MaybeUninit::<[u32; 4]>::uninit();
    let to = header.as_mut_ptr().cast();
    let skb_address = core::ptr::from_ref(skb).cast();
    // SAFETY: as many bytes are loaded as `header` has.
    if unsafe { bpf_skb_load_bytes(skb_address, at, to, 16) } != 0 {
        maps::lose(Loss::Headers);
        return Some(Segment::NOTHING);
    }
    // SAFETY: every byte was loaded.
    let [ports, seq, _, length_and_flags] = unsafe { header.assume_init() };
    Some(Segment::of(skb, at, [ports, seq, length_and_flags]))
}

impl Segment {
    /// One whose headers were counted as lost.
    const NOTHING: Self = Self {
        seq: 0,
        offset: 0,
        len: 0,
        ports: 0,
        is_reset: false,
    };

    /// From words of the TCP header, in network byte order.
    #[inline(always)]
    fn of(skb: &__sk_buff, ip_header: u32, header: [u32; 3]) -> Self {
        let [ports, seq, length_and_flags] = header;
        // Four bits of the header's length, and the flags from the ninth bit on.
        let length_and_flags = u32::from_be(length_and_flags);
        let syn = length_and_flags >> 17 & 1;
        let headers = ip_header + (length_and_flags >> 28) * 4;
        Self {
            // Payload follows the SYN that it comes with (RFC 7413).
            seq: u32::from_be(seq).wrapping_add(syn),
            offset: headers,
            len: skb.len.saturating_sub(headers),
            ports,
            is_reset: length_and_flags >> 18 & 1 != 0,
        }
    }
}

/// Whether the hop-by-hop header is of the shortest length and TCP follows.
#[inline(always)]
fn is_jumbo(data: usize, end: usize) -> bool {
    let header = data + IPV6_HEADER;
    header + JUMBO_HEADER <= end && byte(header) == IPPROTO_TCP && byte(header + 1) == 0
}

#[inline(always)]
fn byte(address: usize) -> u8 {
    // SAFETY: callers have compared the address with the packet's end; the
    // verifier proves it.
    unsafe { *(address as *const u8) }
}

#[inline(always)]
fn word(address: usize) -> u32 {
    let word: u64;
    // SAFETY: as above.  One instruction, which the kernel allows at any address of a
    // packet; the compiler does not know, and would put the word together from bytes.
    unsafe {
        asm!("{word} = *(u32 *)({address} + 0)", word = out(reg) word, address = in(reg) address)
    };
    word as u32
}

/// The sequence number after a packet's payload, from the header that a callback
/// shows.
#[inline(always)]
pub(crate) fn payload_end_seq(ops: &bpf_sock_ops) -> Option<u32> {
    // SAFETY: the unions' only members of pointer size, as the UAPI has it.
    let tcp = unsafe { ops.__bindgen_anon_3.skb_data } as usize;
    // SAFETY: as above.
    let end = unsafe { ops.__bindgen_anon_4.skb_data_end } as usize;
    if tcp + TCP_HEADER_MIN > end {
        return None;
    }
    let header = u32::from(byte(tcp + 12) >> 4) * 4;
    let payload = ops.skb_len.wrapping_sub(header);
    Some(u32::from_be(word(tcp + 4)).wrapping_add(payload))
}
