//! Figures and foreign text, made readable.

use std::{borrow::Cow, time::Duration};

/// The text without anything that a terminal would act on or that would change
/// the direction of what follows: labels come from other machines.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(
            text.chars()
                .map(|c| if is_printable(c) { c } else { '\u{fffd}' })
                .collect(),
        )
    }
}

fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// A count or a rate with three digits or so: 950, 1.2k, 34M.
pub(crate) fn count(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// Bytes in powers of 1024: 950 B, 1.2 KiB.
pub(crate) fn bytes(value: f64) -> String {
    let units = [" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"];
    scaled(value, 1024.0, &units)
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let whole = (value - value.round()).abs() < 0.05;
    let digits = usize::from(value < 100.0 && !(whole && unit == 0));
    format!("{value:.digits$}{}", units[unit])
}

/// A duration in milliseconds: 0.42 ms, 31 ms, 1.5 s.
pub(crate) fn milliseconds(ms: f64) -> String {
    if ms >= 1000.0 {
        format!("{:.1} s", ms / 1000.0)
    } else if ms >= 10.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{ms:.2} ms")
    }
}

/// How long ago: 3 s, 5 min, 2 h, 9 d.
pub(crate) fn age(age: Duration) -> String {
    let s = age.as_secs();
    match s {
        0..120 => format!("{s} s"),
        120..7200 => format!("{} min", s / 60),
        7200..172_800 => format!("{} h", s / 3600),
        _ => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(count(0.0), "0");
        assert_eq!(count(0.25), "0.2");
        assert_eq!(count(950.0), "950");
        assert_eq!(count(1234.0), "1.2k");
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(1536.0), "1.5 KiB");
        assert_eq!(bytes(150.0 * 1024.0 * 1024.0), "150 MiB");
        assert_eq!(milliseconds(0.417), "0.42 ms");
        assert_eq!(milliseconds(31.4), "31 ms");
        assert_eq!(milliseconds(1500.0), "1.5 s");
        assert_eq!(age(Duration::from_secs(300)), "5 min");
    }

    #[test]
    fn a_label_cannot_steer_the_terminal() {
        let hostile = printable("a\u{1b}[2Jb\u{202e}c\nd");
        assert_eq!(hostile, "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(printable("größe 北京"), "größe 北京");
    }
}
