//! Durations and sizes as people write them: `100ms`, `1h30m`, `256MiB`.  The units
//! are the same in every flag and file.

use std::{net::SocketAddr, time::Duration};

/// Why a duration or a size was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error(
        "`{0}` is not a duration: write whole numbers, each with its unit (ms, s, m, h, d or w), \
         such as 500ms, 30s or 1h30m"
    )]
    Duration(String),
    /// Not a size.
    #[error(
        "`{0}` is not a size: write a whole number of bytes, or one with a unit \
         (B, KiB, MiB, GiB, TiB, kB, MB, GB or TB), such as 256MiB"
    )]
    Size(String),
    /// Not an address.
    #[error(
        "`{0}` is not an address: write an IP address and a port, such as 127.0.0.1:7600 or \
         [::1]:7600"
    )]
    Address(String),
}

const DURATIONS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];
const SIZES: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads `100ms`, `5s`, `1h30m` or `0`.
///
/// # Errors
/// Where a number or its unit is not understood, or does not fit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let rest = text.trim();
    let milliseconds = if rest == "0" { Some(0) } else { sum(rest) };
    let milliseconds = milliseconds.ok_or_else(|| UnitError::Duration(text.to_owned()))?;
    Ok(Duration::from_millis(milliseconds))
}

/// The milliseconds of at least one number and unit.
fn sum(mut rest: &str) -> Option<u64> {
    let mut total = 0_u64;
    loop {
        let part;
        (part, rest) = first(rest, &DURATIONS)?;
        total = total.checked_add(part)?;
        if rest.is_empty() {
            return Some(total);
        }
    }
}

/// Reads `256MiB`, `10GiB`, `1000kB` or plain bytes.
///
/// # Errors
/// Where the number or its unit is not understood, or does not fit.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    match first(text.trim(), &SIZES) {
        Some((bytes, "")) => Ok(bytes),
        _ => Err(UnitError::Size(text.to_owned())),
    }
}

/// Reads an address with its port.
///
/// # Errors
/// Where it is none: names are not looked up.
pub fn parse_address(text: &str) -> Result<SocketAddr, UnitError> {
    let parsed = text.trim().parse();
    parsed.map_err(|_| UnitError::Address(text.to_owned()))
}

/// A duration as people write it: in the largest unit that leaves a whole number.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    show(
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        &DURATIONS[..4],
        "s",
    )
}

/// A number of bytes as people write it.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    show(bytes, &SIZES[2..5], "")
}

fn show(value: u64, units: &[(&str, u64)], of_zero: &str) -> String {
    let whole = |(_, factor): &&(&str, u64)| value.is_multiple_of(*factor);
    match units.iter().rev().find(whole) {
        _ if value == 0 => format!("0{of_zero}"),
        Some((unit, factor)) => format!("{}{unit}", value / factor),
        None => value.to_string(),
    }
}

/// A number times its unit, and what stands behind it.
fn first<'t>(text: &'t str, units: &[(&str, u64)]) -> Option<(u64, &'t str)> {
    let (number, rest) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let rest = rest.trim_start();
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, rest) = rest.split_at(letters);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let value = number.parse::<u64>().ok()?.checked_mul(*factor)?;
    Some((value, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_and_sizes_have_their_units() {
        for (text, milliseconds) in [
            ("100ms", 100),
            (" 2 m ", 120_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("30d", 30 * 86_400_000),
            ("52w", 52 * 604_800_000),
            ("0", 0),
            ("0s", 0),
        ] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
        }
        for (text, bytes) in [
            ("256MiB", 256 << 20),
            ("3 MiB", 3 << 20),
            ("2TiB", 2 << 40),
            ("10GB", 10_000_000_000),
            ("512B", 512),
            ("4096", 4096),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_unclear_or_does_not_fit_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "1h30",
            "1 fortnight",
            "1s,",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            let refused = parse_duration(text).unwrap_err();
            assert!(refused.to_string().contains("1h30m"), "{refused}");
        }
        for text in [
            "",
            "GiB",
            "1KB",
            "1.5GiB",
            "-1MiB",
            "1MiB2",
            "1MiB 2MiB",
            "99999999999GiB",
        ] {
            let refused = parse_bytes(text).unwrap_err();
            assert!(refused.to_string().contains("256MiB"), "{refused}");
        }
    }

    #[test]
    fn addresses_have_a_port_and_no_name() {
        assert!(parse_address(" [::1]:7600").is_ok() && parse_address("127.0.0.1:0").is_ok());
        for text in ["", "localhost:1", "127.0.0.1", ":7600", "127.0.0.1:65536"] {
            let refused = parse_address(text).unwrap_err();
            assert!(refused.to_string().contains("127.0.0.1:7600"), "{refused}");
        }
    }

    #[test]
    fn what_is_shown_is_read_as_the_same() {
        for (milliseconds, text) in [
            (0, "0s"),
            (500, "500ms"),
            (90_000, "90s"),
            (5_400_000, "90m"),
        ] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(show_duration(duration), text);
            assert_eq!(parse_duration(text), Ok(duration));
        }
        for (bytes, text) in [
            (0, "0"),
            (100, "100"),
            (3 << 20, "3MiB"),
            (1 << 40, "1024GiB"),
        ] {
            assert_eq!(show_bytes(bytes), text);
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
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
