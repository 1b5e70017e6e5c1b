//! Eight bytes of a word at once.
//!
//! A loop over bytes has more branches than an older verifier follows, and takes
//! longer.  The first byte of a stream is the lowest of its word.  Answers stand in
//! the highest bit of each byte.

/// One in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// All but the highest bit of each byte.
pub(crate) const LOW_BITS: u64 = 0x7f * ONES;

/// The highest bit of each byte.
const HIGH_BITS: u64 = 0x80 * ONES;

/// The same byte eight times.
pub(crate) const fn repeated(byte: u8) -> u64 {
    byte as u64 * ONES
}

/// The highest bit of each byte that is not this one; the other bits say nothing.
#[inline(always)]
pub(crate) const fn differs(word: u64, byte: u8) -> u64 {
    let rest = word ^ repeated(byte);
    ((rest & LOW_BITS) + LOW_BITS) | rest
}

/// The highest bit of each of the first eight bytes at which an empty line begins,
/// with the end of the line before it, and no other bit; of the second word the
/// first three bytes matter.
#[inline(always)]
#[must_use]
pub const fn empty_lines(low: u64, high: u64) -> u64 {
    let second = low >> 8 | high << 56;
    let third = low >> 16 | high << 48;
    let fourth = low >> 24 | high << 40;
    let differ = differs(low, b'\r')
        | differs(second, b'\n')
        | differs(third, b'\r')
        | differs(fourth, b'\n');
    !differ & HIGH_BITS
}

/// The index of the first byte whose highest bit is set, in a word in which no
/// other bits are; 8 where there is none.
#[inline(always)]
#[must_use]
pub const fn first(word: u64) -> u32 {
    // All bits below the lowest one, and so a one in each byte up to its.
    let up_to_it = word.wrapping_sub(1) & !word & ONES;
    (up_to_it.wrapping_mul(ONES) >> 56) as u32 - (word != 0) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            Just(b'\r'),
            Just(b'\n'),
            Just(0x8d),
            Just(0x8a),
            any::<u8>()
        ]
    }

    proptest! {
        #[test]
        fn empty_lines_are_found_as_byte_by_byte(bytes in prop::collection::vec(byte(), 11)) {
            let mut high = [0; 8];
            high[..3].copy_from_slice(&bytes[8..]);
            let low = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let found = empty_lines(low, u64::from_le_bytes(high));
            let at = |i: usize| bytes[i..].starts_with(b"\r\n\r\n");
            let expected = (0..8).filter(|&i| at(i)).fold(0, |all, i| all | 0x80 << (8 * i));
            prop_assert_eq!(found, expected);
            let index = (0..8).find(|&i| at(i)).unwrap_or(8);
            prop_assert_eq!(first(found), index as u32);
        }
    }
}
