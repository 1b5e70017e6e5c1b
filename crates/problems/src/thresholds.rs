//! From which value on something is a problem, as an operator set it.

use crate::{Kind, Unit};

/// A threshold a kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds([f64; Kind::ALL.len()]);

/// Why a threshold cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadThreshold {
    /// Not of the form.
    #[error("{0:?}: use KIND=VALUE such as server_errors=10%, or KIND=off")]
    Form(String),
    /// No such kind.
    #[error("{0:?} is no kind of problem: use one of {known}", known = names())]
    Kind(String),
    /// No number that could be reached.
    #[error("{kind}={value}: use {form}, or off")]
    Value {
        /// Of which kind.
        kind: &'static str,
        /// What was given.
        value: String,
        /// What can be given.
        form: &'static str,
    },
}

fn names() -> String {
    Kind::ALL.map(Kind::name).join(", ")
}

impl Default for Thresholds {
    fn default() -> Self {
        Self(Kind::ALL.map(|kind| kind.definition().threshold))
    }
}

impl Thresholds {
    /// The defaults, changed by `KIND=VALUE` each; the last one of a kind counts.
    ///
    /// # Errors
    /// Where one cannot be used.
    pub fn try_new<T: AsRef<str>>(given: &[T]) -> Result<Self, BadThreshold> {
        let mut thresholds = Self::default();
        for given in given {
            let given = given.as_ref();
            let form = || BadThreshold::Form(given.to_owned());
            let (kind, value) = given.split_once('=').ok_or_else(form)?;
            let kind = Kind::named(kind).ok_or_else(|| BadThreshold::Kind(kind.to_owned()))?;
            thresholds.0[kind as usize] = parse(kind, value)?;
        }
        Ok(thresholds)
    }

    pub(crate) fn of(&self, kind: Kind) -> f64 {
        self.0[kind as usize]
    }
}

fn parse(kind: Kind, value: &str) -> Result<f64, BadThreshold> {
    if value == "off" {
        return Ok(f64::INFINITY);
    }
    let unit = kind.definition().unit;
    let number = match (unit, value.strip_suffix('%')) {
        (Unit::Ratio, Some(percent)) => percent.trim().parse().map(|n: f64| n / 100.0),
        _ => value
            .strip_suffix('s')
            .filter(|_| unit == Unit::Seconds)
            .unwrap_or(value)
            .parse(),
    };
    match number {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err(BadThreshold::Value {
            kind: kind.name(),
            value: value.to_owned(),
            form: form(unit),
        }),
    }
}

fn form(unit: Unit) -> &'static str {
    match unit {
        Unit::Ratio => "a share above 0 such as 5% or 0.05",
        Unit::Times => "a factor above 0 such as 3",
        Unit::Count => "a count above 0 such as 10",
        Unit::PerSecond => "a count a second above 0 such as 50",
        Unit::Seconds => "seconds above 0 such as 10s",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_given_in_their_unit() {
        for (given, kind, value) in [
            ("server_errors=10%", Kind::ServerErrors, 0.1),
            ("server_errors=0.2", Kind::ServerErrors, 0.2),
            ("clock_off=30s", Kind::ClockOff, 30.0),
            ("slow_backend=2.5", Kind::SlowBackend, 2.5),
            ("imbalance=off", Kind::Imbalance, f64::INFINITY),
        ] {
            let thresholds = Thresholds::try_new(&[given]).unwrap();
            let mut expected = Thresholds::default();
            expected.0[kind as usize] = value;
            assert_eq!(thresholds, expected, "{given}");
        }
        let twice = Thresholds::try_new(&["imbalance=5", "imbalance=6"]).unwrap();
        assert!((twice.of(Kind::Imbalance) - 6.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_cannot_be_used_is_told_with_what_can() {
        for (given, words) in [
            ("server_errors", "use KIND=VALUE"),
            (
                "5xx=3",
                "is no kind of problem: use one of connect_failures,",
            ),
            (
                "server_errors=",
                "use a share above 0 such as 5% or 0.05, or off",
            ),
            ("server_errors=-1", "use a share above 0"),
            ("server_errors=0", "use a share above 0"),
            ("server_errors=NaN", "use a share above 0"),
            ("server_errors=inf", "use a share above 0"),
            ("slow_backend=3%", "use a factor above 0"),
            ("disk_full=90s", "use a share above 0"),
        ] {
            let error = Thresholds::try_new(&[given]).unwrap_err().to_string();
            assert!(error.contains(words), "{given}: {error}");
        }
    }
}
