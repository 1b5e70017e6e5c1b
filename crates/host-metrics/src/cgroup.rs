//! A cgroup's `cpu.stat` and its memory, where the controllers are there.

/// What a cgroup has used so far; `None` where the controller is not enabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupUsage {
    /// CPU time since it was made.
    pub cpu_usage_us: Option<u64>,
    /// Time that it was kept from running by its quota.
    pub throttled_us: Option<u64>,
    /// In how many periods.
    pub throttled_periods: Option<u64>,
    /// Its memory now; `None` without the controller.
    pub memory_bytes: Option<u64>,
    /// The most it may have; `None` where there is no limit, too.
    pub memory_limit_bytes: Option<u64>,
}

impl CgroupUsage {
    /// Takes what `cpu.stat` says.
    pub fn read_cpu_stat(&mut self, text: &str) {
        for line in text.lines().take(32) {
            let Some((name, value)) = line.split_once(' ') else {
                continue;
            };
            let value = number(value);
            match name {
                "usage_usec" => self.cpu_usage_us = value,
                "throttled_usec" => self.throttled_us = value,
                "nr_throttled" => self.throttled_periods = value,
                _ => {}
            }
        }
    }
}

/// A number, alone in its file or after its name; `None` for `max`.
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    text.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn usage_and_throttling_are_read() {
        let mut usage = CgroupUsage::default();
        usage.read_cpu_stat("usage_usec 12\nuser_usec 5\nnr_throttled 3\nthrottled_usec 44\n");
        assert_eq!(
            (
                usage.cpu_usage_us,
                usage.throttled_periods,
                usage.throttled_us
            ),
            (Some(12), Some(3), Some(44))
        );
        assert_eq!((number("4096\n"), number("max\n")), (Some(4096), None));
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "((usage_usec|nr_throttled) ?[-0-9]{0,22}\n){0,40}") {
            let mut usage = CgroupUsage::default();
            usage.read_cpu_stat(&text);
            prop_assert_eq!(usage.memory_bytes, None);
        }
    }
}
