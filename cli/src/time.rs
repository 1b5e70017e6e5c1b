//! Times as people give them: by the clock of this machine.
//!
//! Architecture invariant: pure; now comes from outside.

use jiff::{Timestamp, Zoned, civil};

/// A time of the collector on this machine's clock; with its date where that is another
/// day's.
pub(crate) fn local(rfc3339: &str, now: &Zoned) -> String {
    let Ok(time) = rfc3339.parse::<Timestamp>() else {
        return rfc3339.to_owned();
    };
    let zoned = time.to_zoned(now.time_zone().clone());
    let form = if zoned.date() == now.date() {
        "%H:%M:%S"
    } else {
        "%Y-%m-%d %H:%M:%S"
    };
    zoned.strftime(form).to_string()
}

/// A time of day, or a date with or without one, as RFC 3339.  Everything else
/// stays as it is: the collector knows RFC 3339 and ages, and judges the rest.
pub(crate) fn absolute(text: &str, now: &Zoned) -> String {
    if text.parse::<Timestamp>().is_ok() {
        return text.to_owned();
    }
    let local = if let Some(time) = text.strip_prefix("yesterday") {
        yesterday(time.trim_start(), now)
    } else if text.contains('-') {
        date_time(text, now)
    } else {
        time_of_day(text, now)
    };
    local.map_or_else(|| text.to_owned(), |time| time.to_string())
}

/// `2026-01-31`, `2026-01-31 12:00`, with a space or a T.
fn date_time(text: &str, now: &Zoned) -> Option<Timestamp> {
    let time: civil::DateTime = text.replacen(' ', "T", 1).parse().ok()?;
    Some(time.to_zoned(now.time_zone().clone()).ok()?.timestamp())
}

/// `00:05` or `00:05:30`: when the clock showed it last.
fn time_of_day(text: &str, now: &Zoned) -> Option<Timestamp> {
    let time = clock(text)?;
    let today = on(now.date(), time, now)?;
    let last = if today > *now {
        on(now.date().yesterday().ok()?, time, now)?
    } else {
        today
    };
    Some(last.timestamp())
}

/// A time of day on the day before; its beginning where there is none.
fn yesterday(text: &str, now: &Zoned) -> Option<Timestamp> {
    let time = match text {
        "" => civil::Time::midnight(),
        text => clock(text)?,
    };
    Some(on(now.date().yesterday().ok()?, time, now)?.timestamp())
}

fn clock(text: &str) -> Option<civil::Time> {
    let is_clock = text.contains(':') && text.chars().all(|c| c.is_ascii_digit() || c == ':');
    text.parse().ok().filter(|_| is_clock)
}

fn on(day: civil::Date, time: civil::Time, now: &Zoned) -> Option<Zoned> {
    let midnight = day.to_zoned(now.time_zone().clone()).ok()?;
    midnight.with().time(time).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_times_are_those_of_this_machine() {
        let now: Zoned = "2026-03-10T09:30:00+01:00[Europe/Berlin]".parse().unwrap();
        for (text, meant) in [
            ("00:05", "2026-03-09T23:05:00Z"),
            ("09:30", "2026-03-10T08:30:00Z"),
            // The clock showed it last on the day before.
            ("23:59:30", "2026-03-09T22:59:30Z"),
            ("2026-03-01", "2026-02-28T23:00:00Z"),
            ("2026-03-01 12:00", "2026-03-01T11:00:00Z"),
            ("2025-07-01T12:00:30", "2025-07-01T10:00:30Z"),
            ("yesterday", "2026-03-08T23:00:00Z"),
            ("yesterday 10:05", "2026-03-09T09:05:00Z"),
        ] {
            assert_eq!(absolute(text, &now), meant, "{text}");
        }
    }

    #[test]
    fn times_are_shown_by_this_machines_clock() {
        let now: Zoned = "2026-03-10T09:30:00+01:00[Europe/Berlin]".parse().unwrap();
        assert_eq!(local("2026-03-10T08:05:01.5Z", &now), "09:05:01");
        assert_eq!(local("2026-03-09T22:59:00Z", &now), "2026-03-09 23:59:00");
        assert_eq!(local("soon", &now), "soon");
    }

    #[test]
    fn what_the_collector_knows_or_nobody_stays_as_it_is() {
        let now: Zoned = "2026-03-10T09:30:00+01:00[Europe/Berlin]".parse().unwrap();
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31T12:00:00+05:00",
            "10m",
            "1h30m",
            "now",
            "soon",
            "25:00",
            "12",
            "00:05+01:00",
            "yesterday 25:00",
            "yesterdays",
            "",
        ] {
            assert_eq!(absolute(text, &now), text);
        }
    }
}
