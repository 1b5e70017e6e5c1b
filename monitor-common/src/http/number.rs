//! Numbers within heads, eight bytes of a word at once.
//!
//! Without a branch for a byte, as `bytes` has it.

use crate::bytes::{self, LOW_BITS, repeated};

/// No body is longer.
const MAX: u64 = 1 << 60;

/// How many of the first bytes are decimal digits.
#[inline(always)]
pub(super) const fn decimal_digits(word: u64) -> u32 {
    bytes::first(!bytes::within(word, b'0', b'9') & !LOW_BITS)
}

/// How many of the first bytes are hexadecimal digits.
#[inline(always)]
pub(super) const fn hexadecimal_digits(word: u64) -> u32 {
    let decimal = bytes::within(word, b'0', b'9');
    let letter = bytes::within(word | repeated(0x20), b'a', b'f');
    bytes::first(!(decimal | letter) & !LOW_BITS)
}

/// How many of the first bytes are blanks.
#[inline(always)]
pub(super) const fn blanks(word: u64) -> u32 {
    let other = bytes::differs(word, b' ') & bytes::differs(word, b'\t');
    bytes::first(other & !LOW_BITS)
}

/// Where the first line feed is; eight where there is none.
#[inline(always)]
pub(super) const fn line_end(word: u64) -> u32 {
    bytes::first(!bytes::differs(word, b'\n') & !LOW_BITS)
}

/// The digits' values, one a byte, the last digit in the highest, behind zeros.
#[inline(always)]
const fn right_aligned(values: u64, digits: u32) -> u64 {
    // In two steps, as nothing is shifted by all its bits.
    let bits = 8 * (8 - digits);
    values << (bits / 2) << (bits / 2)
}

/// A number with so many more digits, those that a word begins with.
#[inline(always)]
pub(super) const fn with_decimal(number: u64, word: u64, digits: u32) -> u64 {
    let ones = right_aligned(word & repeated(0x0f), digits);
    // Two, four and eight digits in one lane: the earlier ones are worth more.
    let twos = (ones & 0x00ff_00ff_00ff_00ff) * 10 + (ones >> 8 & 0x00ff_00ff_00ff_00ff);
    let fours = (twos & 0x0000_ffff_0000_ffff) * 100 + (twos >> 16 & 0x0000_ffff_0000_ffff);
    let eight = (fours & 0xffff_ffff) * 10_000 + (fours >> 32);
    let longer = number
        .wrapping_mul(power_of_ten(digits))
        .wrapping_add(eight);
    if number < MAX / 100_000_000 {
        longer
    } else {
        MAX
    }
}

/// Ten to the power of up to fifteen, without a table: the verifier refuses an index
/// that it knows better on one path than on another.
#[inline(always)]
const fn power_of_ten(exponent: u32) -> u64 {
    let bits = exponent as u64;
    let (one, two) = (1 + 9 * (bits & 1), 1 + 99 * (bits >> 1 & 1));
    let (four, eight) = (
        1 + 9_999 * (bits >> 2 & 1),
        1 + 99_999_999 * (bits >> 3 & 1),
    );
    one * two * four * eight
}

/// The same of hexadecimal digits.
#[inline(always)]
pub(super) const fn with_hexadecimal(number: u64, word: u64, digits: u32) -> u64 {
    // Letters have the bit that digits lack, and nine less than they are worth.
    let letters = word >> 6 & repeated(1);
    let ones = right_aligned((word & repeated(0x0f)) + letters * 9, digits);
    let twos = (ones & 0x00ff_00ff_00ff_00ff) << 4 | (ones >> 8 & 0x00ff_00ff_00ff_00ff);
    let fours = (twos & 0x0000_ffff_0000_ffff) << 8 | (twos >> 16 & 0x0000_ffff_0000_ffff);
    let eight = (fours & 0xffff_ffff) << 16 | fours >> 32;
    let longer = number << (4 * digits) | eight;
    if number < MAX >> 32 { longer } else { MAX }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(text: &str) -> u64 {
        let mut bytes = [0; 8];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        u64::from_le_bytes(bytes)
    }

    proptest! {
        #[test]
        fn numbers_are_read_as_by_the_standard_library(
            before in 0u64..1_000_000, text in "[0-9]{0,8}", hex in "[0-9a-fA-F]{0,8}",
            blanks in "[ \t]{0,4}", behind in "[\r\n;,g-z]?",
        ) {
            let behind = |text: &str| word(&format!("{text}{behind}")[..(text.len() + behind.len()).min(8)]);
            prop_assert_eq!(decimal_digits(behind(&text)), text.len() as u32);
            prop_assert_eq!(hexadecimal_digits(behind(&hex)), hex.len() as u32);
            prop_assert_eq!(super::blanks(behind(&blanks)), blanks.len() as u32);
            let expected: u64 = format!("{before}{text}").parse().unwrap();
            prop_assert_eq!(with_decimal(before, behind(&text), text.len() as u32), expected);
            let expected = u64::from_str_radix(&format!("{before:x}{hex}"), 16).unwrap();
            prop_assert_eq!(with_hexadecimal(before, behind(&hex), hex.len() as u32), expected);
        }
    }

    #[test]
    fn what_is_too_large_stays_so() {
        let mut number = 1;
        for _ in 0..5 {
            number = with_decimal(number, word("00000000"), 8);
        }
        assert_eq!(number, MAX);
        assert_eq!(with_hexadecimal(MAX, word("0"), 1), MAX);
        assert_eq!(line_end(word("ab\r\ncd")), 3);
        assert_eq!(line_end(word("abcdefgh")), 8);
    }
}
