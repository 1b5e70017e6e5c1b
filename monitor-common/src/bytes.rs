//! Eight bytes of a word at once.
//!
//! A loop over bytes has more branches than an older verifier follows, and takes
//! longer.  The first byte of a stream is the lowest of its word.  Answers stand in
//! the highest bit of each byte.

/// One in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// All but the highest bit of each byte.
pub(crate) const LOW_BITS: u64 = 0x7f * ONES;

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

/// The highest bit of each byte of a range; the other bits say nothing.
#[inline(always)]
pub(crate) const fn within(word: u64, first: u8, last: u8) -> u64 {
    let low = word & LOW_BITS;
    // The highest bit of a sum says that a byte is not below what was added to.
    let from_first = low + repeated(0x80 - first);
    let above_last = low + repeated(0x7f - last);
    from_first & !above_last & !word
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

    proptest! {
        #[test]
        fn bytes_are_found_as_one_by_one(
            bytes in any::<[u8; 8]>(), first_of in any::<u8>(), last_of in any::<u8>(),
        ) {
            let (low, high) = (first_of.min(last_of) & 0x7f, first_of.max(last_of) & 0x7f);
            let (low, high) = (low.min(high), low.max(high));
            let word = u64::from_le_bytes(bytes);
            let found = within(word, low, high) & !LOW_BITS;
            for (i, byte) in bytes.iter().enumerate() {
                let is_found = found >> (8 * i + 7) & 1 == 1;
                prop_assert_eq!(is_found, (low..=high).contains(byte));
            }
            let index = bytes.iter().position(|byte| (low..=high).contains(byte));
            prop_assert_eq!(first(found), index.unwrap_or(8) as u32);
        }
    }
}
