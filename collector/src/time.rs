//! Points in time as a request gives them.

use jiff::Timestamp;

/// The text is neither a time nor an age.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither RFC 3339 (2026-01-31T12:00:00Z) nor an age such as 90s, 10m, 24h or 7d")]
pub(crate) struct BadTime(String);

/// An RFC 3339 time, `now`, or an age before `now_ns`; as unix nanoseconds.
/// What lies before 1970 is 1970.
pub(crate) fn parse(text: &str, now_ns: u64) -> Result<u64, BadTime> {
    if text == "now" {
        return Ok(now_ns);
    }
    if let Some(age) = age_ns(text) {
        return Ok(now_ns.saturating_sub(age));
    }
    // A plus sign that was not percent-encoded arrives as a space.
    let time: Timestamp = text
        .replace(' ', "+")
        .parse()
        .map_err(|_| BadTime(text.chars().take(64).collect()))?;
    Ok(u64::try_from(time.as_nanosecond().max(0)).unwrap_or(u64::MAX))
}

/// A duration such as `1h30m`, in nanoseconds; a number without a unit is none.
pub(crate) fn age_ns(text: &str) -> Option<u64> {
    let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
    let age = daemon::units::parse_duration(text).ok()?;
    u64::try_from(age.as_nanos()).ok().filter(|_| has_unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_763_860_000_000_000_000;

    #[test]
    fn ages_count_back_from_now() {
        assert_eq!(parse("10m", NOW), Ok(NOW - 600_000_000_000));
        assert_eq!(parse("1h30m", NOW), Ok(NOW - 5_400_000_000_000));
        assert_eq!(parse("250ms", NOW), Ok(NOW - 250_000_000));
        assert_eq!(parse("9999w", NOW), Ok(0));
        assert_eq!(parse("now", NOW), Ok(NOW));
    }

    #[test]
    fn times_are_read_with_any_offset() {
        let utc = parse("2025-11-23T01:06:40Z", NOW);
        assert_eq!(utc, Ok(NOW));
        assert_eq!(parse("2025-11-23T02:06:40+01:00", NOW), utc);
        assert_eq!(parse("2025-11-23T02:06:40 01:00", NOW), utc);
        assert_eq!(parse("1969-01-01T00:00:00Z", NOW), Ok(0));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "10",
            "m",
            "10x",
            "-5m",
            "10m5",
            "tomorrow",
            "99999999999999999999s",
            "1e3s",
        ] {
            assert!(parse(text, NOW).is_err(), "{text:?}");
        }
    }
}
