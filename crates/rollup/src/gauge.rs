//! A gauge over time.

/// Smallest, largest and mean, weighted by the time they were measured for.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct GaugeRoll {
    #[prost(double, tag = "1")]
    pub min: f64,
    #[prost(double, tag = "2")]
    pub mean: f64,
    #[prost(double, tag = "3")]
    pub max: f64,
    /// 0 where nothing was measured; the others say nothing then.
    #[prost(uint64, tag = "4")]
    pub measured_ns: u64,
}

impl GaugeRoll {
    pub fn merge(&mut self, other: &Self) {
        if other.measured_ns == 0 {
            return;
        }
        if self.measured_ns == 0 {
            *self = *other;
            return;
        }
        let (a, b) = (self.measured_ns as f64, other.measured_ns as f64);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.mean += (other.mean - self.mean) * (b / (a + b));
        self.measured_ns = self.measured_ns.saturating_add(other.measured_ns);
    }
}
