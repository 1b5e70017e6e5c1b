//! How figures and subjects are called in a sentence.

use monitor_proto::display;

use crate::Evidence;

/// A share as percent, with a digit where it is small.
pub(crate) fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent < 9.95 && (percent - percent.round()).abs() > 0.05 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// A factor with a digit where it is small.
pub(crate) fn times(factor: f64) -> String {
    if factor < 10.0 {
        format!("{factor:.1} times")
    } else {
        format!("{factor:.0} times")
    }
}

pub(crate) fn seconds(seconds: f64) -> String {
    display::milliseconds(seconds * 1e3)
}

/// The name, then the address where both are known.
pub(crate) fn named(name: &str, address: &str) -> String {
    if name.is_empty() {
        address.to_owned()
    } else {
        format!("{name} ({address})")
    }
}

/// A backend with its upstream.
pub(crate) fn backend(upstream: &str, backend: &str, address: &str) -> String {
    match (upstream, backend) {
        ("", "") => address.to_owned(),
        ("", name) => named(name, address),
        (upstream, "") => format!("{upstream}/{address}"),
        (upstream, name) if name == address => format!("{upstream}/{address}"),
        (upstream, name) => format!("{upstream}/{name} ({address})"),
    }
}

pub(crate) fn evidence(name: &str, value: f64, unit: &str) -> Evidence {
    Evidence {
        name: name.to_owned(),
        value,
        unit: unit.to_owned(),
    }
}

impl Evidence {
    /// The figure with its unit, as tables show it.
    #[must_use]
    pub fn text(&self) -> String {
        match self.unit.as_str() {
            "ratio" => percent(self.value),
            "seconds" => seconds(self.value),
            "times" => times(self.value),
            "bytes" => display::bytes(self.value),
            unit => format!("{} {unit}", display::count(self.value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_with_few_digits() {
        assert_eq!(percent(0.47), "47 %");
        assert_eq!(percent(0.0516), "5.2 %");
        assert_eq!(percent(0.05), "5 %");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(times(3.04), "3.0 times");
        assert_eq!(times(42.4), "42 times");
        assert_eq!(evidence("p90", 0.25, "seconds").text(), "250 ms");
        assert_eq!(
            evidence("requests", 1234.0, "requests").text(),
            "1.2k requests"
        );
    }

    #[test]
    fn a_backend_is_called_by_its_names_and_address() {
        assert_eq!(backend("", "", "a:1"), "a:1");
        assert_eq!(backend("web", "", "a:1"), "web/a:1");
        assert_eq!(backend("web", "a:1", "a:1"), "web/a:1");
        assert_eq!(backend("web", "one", "a:1"), "web/one (a:1)");
        assert_eq!(backend("", "one", "a:1"), "one (a:1)");
    }
}
