//! The eight gauges that the original system reported, of one sample and over
//! a window.

use monitor_proto::{figures::HOST_GAUGES, v1};

use super::{HostSample, cpu, memory, network};

/// How many gauges there are.
pub const GAUGES: usize = HOST_GAUGES.len();

/// One value per gauge, in the order of [`HOST_GAUGES`]: CPU, memory and
/// disk in percent, load over 1, 5 and 15 minutes, network in and out in bytes
/// per second.  `None` where nothing was measured.
pub type Gauges = [Option<f64>; GAUGES];

/// The gauges of a sample, given the one before it and the time between.
#[must_use]
pub fn between(earlier: &HostSample, later: &HostSample, elapsed_ns: u64) -> Gauges {
    let cpu = earlier.cpu.as_ref().zip(later.cpu.as_ref());
    let seconds = elapsed_ns as f64 / 1e9;
    let measured = !earlier.interfaces.is_empty() && seconds > 0.0;
    let (received, sent) = network::bytes_between(&earlier.interfaces, &later.interfaces);
    let rate = |bytes: u64| measured.then(|| bytes as f64 / seconds);
    [
        cpu.and_then(|(a, b)| cpu::usage_percent(a, b)),
        later.memory.as_ref().and_then(memory::usage_percent),
        later.disk_usage,
        later.load.map(|l| l.avg_1),
        later.load.map(|l| l.avg_5),
        later.load.map(|l| l.avg_15),
        rate(received),
        rate(sent),
    ]
}

/// Minimum, mean, maximum and last of a gauge.  The mean weighs every value by
/// the time it stands for, because samples are not equally far apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fold {
    seen: bool,
    gauge: v1::Gauge,
    weighted_sum: f64,
    weight: f64,
}

impl Fold {
    /// Takes one value that stands for so much time.
    pub fn add(&mut self, value: f64, elapsed_ns: u64) {
        if !value.is_finite() {
            return;
        }
        let weight = (elapsed_ns.max(1)) as f64;
        self.weighted_sum += value * weight;
        self.weight += weight;
        let g = &mut self.gauge;
        g.min = if self.seen { g.min.min(value) } else { value };
        g.max = if self.seen { g.max.max(value) } else { value };
        g.last = value;
        self.seen = true;
    }

    /// The gauge; `None` where there was no value.
    #[must_use]
    pub fn finish(mut self) -> Option<v1::Gauge> {
        // Rounding must not carry the mean out of the range of the values.
        self.gauge.mean = (self.weighted_sum / self.weight).clamp(self.gauge.min, self.gauge.max);
        self.seen.then_some(self.gauge)
    }
}

/// The report's fields of the folded gauges.
#[must_use]
pub fn fields(folds: [Fold; GAUGES]) -> v1::HostMetrics {
    let mut fields = v1::HostMetrics::default();
    for (gauge, fold) in HOST_GAUGES.iter().zip(folds) {
        *(gauge.place)(&mut fields) = fold.finish();
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What [`between`] gives is told apart by its order alone.
    #[test]
    fn gauges_have_the_order_of_their_definitions() {
        let names: Vec<_> = HOST_GAUGES.iter().map(|gauge| gauge.figure.name).collect();
        let order = [
            "cpu_usage",
            "memory_usage",
            "disk_usage",
            "load_avg_1",
            "load_avg_5",
            "load_avg_15",
            "network_in",
            "network_out",
        ];
        assert_eq!(names, order);
    }

    #[test]
    fn a_mean_weighs_values_by_their_time() {
        let mut fold = Fold::default();
        fold.add(10.0, 1_000);
        fold.add(40.0, 2_000);
        let gauge = fold.finish().unwrap();
        assert_eq!((gauge.min, gauge.max, gauge.last), (10.0, 40.0, 40.0));
        assert!((gauge.mean - 30.0).abs() < 1e-9);
    }

    #[test]
    fn without_a_value_there_is_no_gauge() {
        let mut fold = Fold::default();
        fold.add(f64::NAN, 1);
        assert_eq!(fold.finish(), None);
        let none = between(&HostSample::default(), &HostSample::default(), 1);
        assert_eq!(none, [None; GAUGES]);
    }

    proptest! {
        #[test]
        fn the_mean_lies_within(values in prop::collection::vec((0.0f64..1e12, 0u64..10_000_000_000), 1..50)) {
            let mut fold = Fold::default();
            for &(value, elapsed_ns) in &values {
                fold.add(value, elapsed_ns);
            }
            let gauge = fold.finish().unwrap();
            prop_assert!(gauge.min <= gauge.mean && gauge.mean <= gauge.max);
            prop_assert!((gauge.last - values.last().unwrap().0).abs() < f64::EPSILON);
        }
    }
}
