//! Times as RFC 3339.

use jiff::Timestamp;

/// Unix nanoseconds as RFC 3339 in UTC, as fine as they are.
///
/// What lies outside jiff's range (the year 9999) is given as its end, so that
/// a hostile report cannot make a reader fail.
#[must_use]
pub fn rfc3339(unix_ns: u64) -> String {
    Timestamp::from_nanosecond(i128::from(unix_ns))
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn nanoseconds_are_kept_and_hostile_times_are_bounded() {
        assert_eq!(
            rfc3339(1_763_860_000_123_000_000),
            "2025-11-23T01:06:40.123Z"
        );
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert!(rfc3339(u64::MAX).ends_with('Z'));
    }
}
