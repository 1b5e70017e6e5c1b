//! Base-2 exponential histograms of scale 2 over durations.
//!
//! The boundaries are 2^(i/4) seconds, those of the OpenTelemetry data model
//! and of Prometheus' native histograms (schema 2): bucket `i` holds what is
//! above boundary `i` and not above boundary `i + 1`.  Of a whole number of
//! nanoseconds, "not above the boundary" and "not above its floor" are the
//! same, and stay so where both are shifted to the left, so that floors of four
//! boundaries are enough for an exact comparison.

/// Buckets per octave are 2 to this power.
pub const SCALE: i32 = 2;

/// The index of the first bucket: above 2^(-80/4) s, about 0.95 µs.
pub const OFFSET: i32 = -80;

/// How many buckets there are: up to 2^(48/4) s, about 1.1 h.  What is shorter
/// than the first or longer than the last is counted in these.
pub const BUCKETS: usize = 128;

/// The floor of the last upper boundary in nanoseconds.
const UPPER_NS_MAX: u64 = 4_096_000_000_000;

/// The floors of the upper boundaries in nanoseconds.
#[cfg(test)]
#[rustfmt::skip]
static UPPER_NS: [u64; BUCKETS] = [
    1_134, 1_348, 1_603, 1_907,
    2_268, 2_697, 3_207, 3_814,
    4_536, 5_394, 6_415, 7_629,
    9_072, 10_789, 12_831, 15_258,
    18_145, 21_579, 25_662, 30_517,
    36_291, 43_158, 51_324, 61_035,
    72_583, 86_316, 102_648, 122_070,
    145_166, 172_633, 205_296, 244_140,
    290_333, 345_266, 410_593, 488_281,
    580_667, 690_533, 821_187, 976_562,
    1_161_335, 1_381_067, 1_642_375, 1_953_125,
    2_322_670, 2_762_135, 3_284_751, 3_906_250,
    4_645_340, 5_524_271, 6_569_503, 7_812_500,
    9_290_680, 11_048_543, 13_139_006, 15_625_000,
    18_581_361, 22_097_086, 26_278_012, 31_250_000,
    37_162_722, 44_194_173, 52_556_025, 62_500_000,
    74_325_444, 88_388_347, 105_112_051, 125_000_000,
    148_650_889, 176_776_695, 210_224_103, 250_000_000,
    297_301_778, 353_553_390, 420_448_207, 500_000_000,
    594_603_557, 707_106_781, 840_896_415, 1_000_000_000,
    1_189_207_115, 1_414_213_562, 1_681_792_830, 2_000_000_000,
    2_378_414_230, 2_828_427_124, 3_363_585_661, 4_000_000_000,
    4_756_828_460, 5_656_854_249, 6_727_171_322, 8_000_000_000,
    9_513_656_920, 11_313_708_498, 13_454_342_644, 16_000_000_000,
    19_027_313_840, 22_627_416_997, 26_908_685_288, 32_000_000_000,
    38_054_627_680, 45_254_833_995, 53_817_370_576, 64_000_000_000,
    76_109_255_360, 90_509_667_991, 107_634_741_152, 128_000_000_000,
    152_218_510_720, 181_019_335_983, 215_269_482_304, 256_000_000_000,
    304_437_021_440, 362_038_671_967, 430_538_964_609, 512_000_000_000,
    608_874_042_881, 724_077_343_935, 861_077_929_219, 1_024_000_000_000,
    1_217_748_085_762, 1_448_154_687_870, 1_722_155_858_439, 2_048_000_000_000,
    2_435_496_171_525, 2_896_309_375_740, 3_444_311_716_879, 4_096_000_000_000,
];

/// Durations are shifted until their highest bit is this one, that of the boundaries
/// below; of the longest that is told apart it is one less.
const TOP_BIT: u32 = 42;

/// The floors of the boundaries of one octave, shifted likewise: 2^(q/4) s in
/// nanoseconds times the power of two that brings it into [2^42, 2^43).
const QUARTERS: [u64; 4] = [
    4_870_992_343_051,
    5_792_618_751_480,
    6_888_623_433_758,
    8_192_000_000_000,
];

/// The octave of the table's first boundary: 1,134 ns lie above 2^10.
const FIRST_OCTAVE: u64 = 10;

/// The bucket that a duration belongs to: the octave from the highest bit, the
/// quarter from four comparisons, all without a branch and without a table.
/// Durations are random: a processor that guesses wrong, or waits for a table's
/// line, loses more time than the whole search takes.
#[inline(always)]
#[must_use]
pub fn bucket(duration_ns: u64) -> usize {
    // Shorter and longer ones belong to the first and to the last bucket.
    let ns = if duration_ns < 1 << FIRST_OCTAVE {
        1 << FIRST_OCTAVE
    } else if duration_ns < UPPER_NS_MAX {
        duration_ns
    } else {
        UPPER_NS_MAX
    };
    // 1 where a word below 2^63 is above the limit.
    let above = |word: u64, limit: u64| limit.wrapping_sub(word) >> 63;
    let mut octave = 0;
    let mut rest = ns;
    let mut step = 32;
    while step > 0 {
        let bits = above(rest, (1 << step) - 1) * step;
        octave += bits;
        rest >>= bits;
        step /= 2;
    }
    let shifted = ns << (u64::from(TOP_BIT) - octave);
    let mut quarter = 0;
    let mut q = 0;
    while q < QUARTERS.len() {
        quarter += above(shifted, QUARTERS[q]);
        q += 1;
    }
    (4 * (octave - FIRST_OCTAVE) + quarter) as usize & (BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_holds_the_floors_of_the_fourth_roots_of_two() {
        for (i, &upper) in (0i32..).zip(&UPPER_NS) {
            let exact = (f64::from(OFFSET + i + 1) / 4.0).exp2() * 1e9;
            assert!(
                (upper as f64 - exact).abs() <= exact * 1e-12 + 1.0,
                "bucket {i}"
            );
        }
        assert_eq!(UPPER_NS[79], 1_000_000_000, "2^0 s is a boundary");
    }

    #[test]
    fn upper_boundaries_belong_to_their_bucket() {
        for (i, &upper) in UPPER_NS.iter().enumerate() {
            assert_eq!(bucket(upper), i);
            assert_eq!(bucket(upper + 1), (i + 1).min(BUCKETS - 1));
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn the_search_equals_a_linear_one(ns in prop_oneof![any::<u64>(), 0u64..10_000_000_000]) {
            let linear = UPPER_NS.iter().position(|&u| ns <= u).unwrap_or(BUCKETS - 1);
            prop_assert_eq!(bucket(ns), linear);
        }
    }
}
