//! What a process used.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// Longer than any pause between two pieces of background work.
const QUIET: Duration = Duration::from_secs(5);
/// Above what timers cost a process that has nothing to do.
const QUIET_SHARE: f64 = 0.02;
const SETTLE_MAX: Duration = Duration::from_secs(300);

/// A process that is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pid: u32,
}

impl Usage {
    pub(super) fn of(pid: u32) -> Self {
        Self { pid }
    }

    /// The CPU time since its start, once it has nothing left to do.
    pub(super) fn settled_cpu_s(self) -> Result<f64> {
        let started = Instant::now();
        let mut before = self.cpu_s()?;
        loop {
            thread::sleep(QUIET);
            let now = self.cpu_s()?;
            if now - before < QUIET_SHARE * QUIET.as_secs_f64() {
                return Ok(before);
            }
            ensure!(
                started.elapsed() < SETTLE_MAX,
                "process {} is still busy after {SETTLE_MAX:?}",
                self.pid
            );
            before = now;
        }
    }

    fn cpu_s(self) -> Result<f64> {
        let path = format!("/proc/{}/stat", self.pid);
        let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let ticks = cpu_ticks(&stat).with_context(|| format!("{path} has no CPU time"))?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// The most memory that was resident at once.
    pub(super) fn rss_peak_bytes(self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("{path} has no VmHWM"))? * 1024)
    }
}

/// user and system; the name before may hold anything, so it is skipped by its
/// closing parenthesis.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |n: usize| fields.get(n)?.parse::<u64>().ok();
    Some(field(11)? + field(12)?)
}

/// What a directory takes.
pub(super) fn disk_bytes(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    let entries =
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_hostile_name_is_read() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0 1 0";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 a"), None);
    }

    #[test]
    fn files_in_directories_count() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        fs::write(directory.path().join("a/b"), "123").unwrap();
        fs::write(directory.path().join("c"), "4").unwrap();
        assert_eq!(disk_bytes(directory.path()).unwrap(), 4);
    }
}
