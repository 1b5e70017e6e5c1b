//! Durations and sizes as people write them: `100ms`, `5s`, `256MiB`.

use std::time::Duration;

/// Why a duration or a size was not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnitError {
    /// There is no number, or one that is too large.
    #[error("`{0}` does not begin with a whole number that fits 64 bits")]
    Number(String),
    /// The unit is not known.
    #[error("`{text}` has no unit among {known}")]
    Unit {
        /// What was written.
        text: String,
        /// What could have been.
        known: &'static str,
    },
}

const DURATIONS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
const SIZES: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Reads `100ms`, `5s`, `2m` or `1h`.
///
/// # Errors
/// Where the number or its unit is not understood.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    parse(text, &DURATIONS, "ms, s, m, h").map(Duration::from_millis)
}

/// Reads `256MiB`, `10GiB`, `1000kB` or plain bytes.
///
/// # Errors
/// Where the number or its unit is not understood.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    parse(text, &SIZES, "B, KiB, MiB, GiB, kB, MB, GB")
}

fn parse(text: &str, units: &[(&str, u64)], known: &'static str) -> Result<u64, UnitError> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let bad_number = || UnitError::Number(text.to_owned());
    let number: u64 = number.parse().map_err(|_| bad_number())?;
    let unit = unit.trim_start();
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::Unit {
            text: text.to_owned(),
            known,
        });
    };
    number.checked_mul(*factor).ok_or_else(bad_number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_and_sizes_have_their_units() {
        assert_eq!(parse_duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_duration(" 2 m "), Ok(Duration::from_secs(120)));
        assert_eq!(parse_bytes("256MiB"), Ok(256 << 20));
        assert_eq!(parse_bytes("4096"), Ok(4096));
    }

    #[test]
    fn what_is_unclear_is_refused() {
        assert!(matches!(parse_duration("5"), Err(UnitError::Unit { .. })));
        assert!(matches!(parse_duration("s"), Err(UnitError::Number(_))));
        assert!(matches!(parse_bytes("-1MiB"), Err(UnitError::Number(_))));
        assert!(matches!(
            parse_bytes("99999999999GiB"),
            Err(UnitError::Number(_))
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            if let Ok(bytes) = parse_bytes(&text) {
                prop_assert!(text.trim().starts_with(|c: char| c.is_ascii_digit()), "{bytes}");
            }
        }

        #[test]
        fn every_number_of_seconds_is_read(n in 0u64..1_000_000_000) {
            prop_assert_eq!(parse_duration(&format!("{n}s")), Ok(Duration::from_secs(n)));
        }
    }
}
