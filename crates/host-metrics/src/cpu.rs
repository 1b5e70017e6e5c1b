//! `/proc/stat`: CPU time by mode and core.

use monitor_proto::v1;

/// How many cores are read at the most; the kernel's own limit is 8,192.
const CORES_MAX: usize = 8_192;

/// CPU time since boot, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// In user mode, guests included.
    pub user: u64,
    /// In user mode, niced.
    pub nice: u64,
    /// In the kernel.
    pub system: u64,
    /// Idle.
    pub idle: u64,
    /// Idle with I/O outstanding.
    pub iowait: u64,
    /// In interrupts.
    pub irq: u64,
    /// In soft interrupts.
    pub softirq: u64,
    /// Taken by the hypervisor.
    pub steal: u64,
}

/// What is read of `/proc/stat`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// All cores together.
    pub total: CpuTimes,
    /// Each core that is online, by its number.
    pub cores: Vec<(u32, CpuTimes)>,
    /// When the host was booted; 0 where the file does not say.
    pub boot_unix_s: u64,
}

/// Reads the CPU lines and the time of boot; `None` where there is no line for all cores.
#[must_use]
pub fn parse(text: &str) -> Option<Stat> {
    let mut lines = text.lines();
    let total = times(lines.next()?.strip_prefix("cpu ")?)?;
    let cores = lines.map_while(core).take(CORES_MAX).collect();
    let boot = text.lines().find_map(|line| line.strip_prefix("btime "));
    Some(Stat {
        total,
        cores,
        boot_unix_s: boot.and_then(|s| s.trim().parse().ok()).unwrap_or(0),
    })
}

fn core(line: &str) -> Option<(u32, CpuTimes)> {
    let (number, rest) = line.strip_prefix("cpu")?.split_once(' ')?;
    Some((number.parse().ok()?, times(rest)?))
}

fn times(fields: &str) -> Option<CpuTimes> {
    let mut fields = fields.split_ascii_whitespace().map(str::parse::<u64>);
    let mut next = || fields.next()?.ok();
    Some(CpuTimes {
        user: next()?,
        nice: next()?,
        system: next()?,
        idle: next()?,
        iowait: next()?,
        irq: next()?,
        softirq: next()?,
        // Absent before 2.6.11.
        steal: next().unwrap_or(0),
    })
}

impl CpuTimes {
    /// What was used between two readings.  `idle` and `iowait` may run
    /// backwards a little (the kernel says so), which counts as nothing.
    fn since(&self, earlier: &Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            nice: self.nice.saturating_sub(earlier.nice),
            system: self.system.saturating_sub(earlier.system),
            idle: self.idle.saturating_sub(earlier.idle),
            iowait: self.iowait.saturating_sub(earlier.iowait),
            irq: self.irq.saturating_sub(earlier.irq),
            softirq: self.softirq.saturating_sub(earlier.softirq),
            steal: self.steal.saturating_sub(earlier.steal),
        }
    }

    fn sum(&self) -> f64 {
        let parts = [
            self.user,
            self.nice,
            self.system,
            self.idle,
            self.iowait,
            self.irq,
            self.softirq,
            self.steal,
        ];
        parts.iter().map(|&n| n as f64).sum()
    }
}

/// Percent of the time that was neither idle nor waiting for I/O; `None` where
/// no time has passed.
#[must_use]
pub fn usage_percent(earlier: &CpuTimes, later: &CpuTimes) -> Option<f64> {
    let delta = later.since(earlier);
    let total = delta.sum();
    (total > 0.0).then(|| 100.0 * (1.0 - (delta.idle as f64 + delta.iowait as f64) / total))
}

/// Percent of the time by mode; `None` where no time has passed.
#[must_use]
pub fn modes_percent(earlier: &CpuTimes, later: &CpuTimes) -> Option<v1::CpuModes> {
    let delta = later.since(earlier);
    let total = delta.sum();
    let percent = |n: u64| 100.0 * n as f64 / total;
    (total > 0.0).then(|| v1::CpuModes {
        user: percent(delta.user),
        nice: percent(delta.nice),
        system: percent(delta.system),
        idle: percent(delta.idle),
        iowait: percent(delta.iowait),
        irq: percent(delta.irq),
        softirq: percent(delta.softirq),
        steal: percent(delta.steal),
    })
}

/// Percent busy of each core that was online at both readings, by its number.
#[must_use]
pub fn cores_percent(earlier: &Stat, later: &Stat) -> Vec<f64> {
    let busy = |(number, times): &(u32, CpuTimes)| {
        let found = earlier.cores.binary_search_by_key(number, |(n, _)| *n);
        let before = &earlier.cores[found.ok()?].1;
        Some(usage_percent(before, times).unwrap_or(0.0))
    };
    later.cores.iter().filter_map(busy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "cpu  24488 0 6276 294939 2012 0 70 30 0 0\n\
        cpu0 10974 0 2693 150063 106 0 17 12 0 0\n\
        cpu1 13513 0 3583 144875 1905 0 52 17 0 0\n\
        intr 322662 0 0\nctxt 561485\nbtime 1763860000\n";

    #[test]
    fn all_cores_and_each_core_are_read() {
        let stat = parse(TEXT).unwrap();
        assert_eq!((stat.total.user, stat.total.steal), (24_488, 30));
        let numbers: Vec<_> = stat.cores.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, [0, 1]);
        assert_eq!(stat.cores[1].1.iowait, 1_905);
        assert_eq!(stat.boot_unix_s, 1_763_860_000);
    }

    #[test]
    fn usage_is_what_is_neither_idle_nor_waiting() {
        let earlier = parse(TEXT).unwrap().total;
        let mut later = earlier;
        assert_eq!(usage_percent(&earlier, &later), None);
        later.user += 20;
        later.softirq += 5;
        later.idle += 65;
        later.iowait += 10;
        assert_eq!(usage_percent(&earlier, &later), Some(25.0));
        let modes = modes_percent(&earlier, &later).unwrap();
        assert!((modes.user - 20.0).abs() < 1e-9 && (modes.idle - 65.0).abs() < 1e-9);
    }

    #[test]
    fn a_core_that_comes_online_is_left_out_of_its_first_window() {
        let later = parse(TEXT).unwrap();
        let mut earlier = later.clone();
        earlier.cores.remove(0);
        assert_eq!(cores_percent(&earlier, &later), [0.0]);
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "(cpu[0-9]{0,12}( [0-9]{0,22}){0,12}\n){0,20}.{0,80}") {
            if let Some(stat) = parse(&text) {
                if let Some(usage) = usage_percent(&CpuTimes::default(), &stat.total) {
                    prop_assert!((0.0..=100.0).contains(&usage));
                }
                prop_assert!(cores_percent(&stat, &stat).len() <= stat.cores.len());
            }
        }
    }
}
