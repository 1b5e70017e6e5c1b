//! `/proc/pressure/*`: time in which tasks waited for a resource.

use monitor_proto::v1;

use super::load::finite;

/// The resources that the kernel knows.
pub const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// Reads one resource's lines; `None` where there is no line `some`.
#[must_use]
pub fn parse(resource: &str, text: &str) -> Option<v1::Pressure> {
    let mut pressure = v1::Pressure {
        resource: resource.to_owned(),
        ..v1::Pressure::default()
    };
    let mut found = false;
    for line in text.lines().take(2) {
        if let Some(fields) = line.strip_prefix("some ") {
            (pressure.some_avg10, pressure.some_total_us) = values(fields)?;
            found = true;
        } else if let Some(fields) = line.strip_prefix("full ") {
            (pressure.full_avg10, pressure.full_total_us) = values(fields)?;
        }
    }
    found.then_some(pressure)
}

fn values(fields: &str) -> Option<(f64, u64)> {
    let value = |name: &str| {
        let mut fields = fields.split_ascii_whitespace();
        fields.find_map(|f| f.strip_prefix(name)?.strip_prefix('='))
    };
    Some((finite(value("avg10")?)?, value("total")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_lines_are_read() {
        let text = "some avg10=1.37 avg60=10.96 avg300=5.12 total=34285310\n\
            full avg10=0.50 avg60=0.00 avg300=0.00 total=7\n";
        let pressure = parse("io", text).unwrap();
        assert_eq!((pressure.some_avg10, pressure.full_avg10), (1.37, 0.5));
        assert_eq!(
            (pressure.some_total_us, pressure.full_total_us),
            (34_285_310, 7)
        );
    }

    #[test]
    fn a_kernel_without_full_cpu_pressure_is_read() {
        let pressure = parse("cpu", "some avg10=0.00 avg60=0 avg300=0 total=5\n").unwrap();
        assert_eq!((pressure.some_total_us, pressure.full_total_us), (5, 0));
        assert_eq!(parse("cpu", ""), None);
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "((some|full) (avg10=[-0-9.naif]{0,9})? (total=[0-9]{0,22})?\n){0,4}") {
            if let Some(pressure) = parse("io", &text) {
                prop_assert!(pressure.some_avg10.is_finite());
            }
        }
    }
}
