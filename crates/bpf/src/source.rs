//! The kernel's counters as one source.

use std::path::Path;

use aya_log::EbpfLogger;
use kernel_sample::{
    CounterSnapshot, CounterSource, EndpointSample, KernelSample, Level, SourceError, Target,
};
use monitor_common::losses::{LOSSES, Loss};

use crate::{
    KernelLog, KernelOptions,
    error::KernelError,
    pins::Pins,
    watched::{Watched, monotonic::MonotonicClamp},
};

type Logger = EbpfLogger<&'static dyn log::Log>;

/// All watched targets.  Dropping it detaches nothing: the kernel goes on
/// counting until the next agent, or `uninstall`.
pub struct Kernel {
    watched: Vec<Watched>,
    loggers: Vec<Logger>,
    log: KernelLog,
    clamp: MonotonicClamp,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("watched", &self.watched)
            .finish_non_exhaustive()
    }
}

impl Kernel {
    /// Loads and attaches the programs to every target, or goes on with what an
    /// agent before pinned.
    ///
    /// Needs Linux 5.15, `CAP_BPF` and `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// Where the kernel refuses something or another agent holds a target; the
    /// message says what to do.
    pub fn open(options: &KernelOptions, targets: &[Target]) -> Result<Self, KernelError> {
        let mut watched = targets
            .iter()
            .map(|target| Watched::open(options, target))
            .collect::<Result<Vec<_>, _>>()?;
        let loggers = loggers(&mut watched, options.log);
        Ok(Self {
            watched,
            loggers,
            log: options.log,
            clamp: MonotonicClamp::default(),
        })
    }

    /// Reads what is pinned, whether an agent runs or not.
    ///
    /// # Errors
    /// Where nothing is pinned there, or it cannot be read; the message tells which.
    pub fn open_pinned(pin_dir: &Path) -> Result<Self, KernelError> {
        let watched = Pins::all(pin_dir)?
            .into_iter()
            .filter_map(Watched::open_pinned)
            .collect::<Result<Vec<_>, _>>()?;
        if watched.is_empty() {
            return Err(KernelError::NoPins {
                path: pin_dir.to_owned(),
            });
        }
        Ok(Self {
            watched,
            loggers: Vec::new(),
            log: KernelLog::Off,
            clamp: MonotonicClamp::default(),
        })
    }

    /// Reads what a sample takes, as it is at this moment.
    #[must_use]
    pub fn counter_snapshot(&self) -> CounterSnapshot {
        let mut endpoints = Vec::new();
        for watched in &self.watched {
            watched.counter_snapshot(&mut endpoints);
        }
        CounterSnapshot {
            endpoints,
            losses: self.losses(),
        }
    }

    /// What was lost until now, by reason.
    #[must_use]
    pub fn losses(&self) -> Vec<(&'static str, u64)> {
        let mut lost = [0; LOSSES];
        for watched in &self.watched {
            watched.losses(&mut lost);
        }
        let losses = Loss::ALL.into_iter();
        losses.map(|l| (l.name(), lost[l as usize])).collect()
    }

    /// Reads every counter, as it is at this moment.
    #[must_use]
    pub fn read(&self) -> KernelSample {
        let mut sample = KernelSample {
            since_unix_ns: self
                .watched
                .iter()
                .map(Watched::since_unix_ns)
                .min()
                .unwrap_or(0),
            ..KernelSample::default()
        };
        for watched in &self.watched {
            watched.sample(&mut sample);
        }
        sample.endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        sample.losses = self.losses();
        sample
    }

    /// What the attached programs look at: http where any target is.
    #[must_use]
    pub fn level(&self) -> Level {
        if self.watched.iter().any(|w| w.level() == Level::Http) {
            Level::Http
        } else {
            Level::Tcp
        }
    }

    /// The targets' labels.
    #[must_use]
    pub fn targets(&self) -> Vec<&str> {
        self.watched.iter().map(|w| w.label().as_ref()).collect()
    }

    /// Whether this one attached the programs, and so keeps other agents out.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.watched.iter().all(Watched::is_held)
    }
}

/// Reads what the programs log, where they do.
fn loggers(watched: &mut [Watched], log: KernelLog) -> Vec<Logger> {
    if log == KernelLog::Off {
        return Vec::new();
    }
    let ebpfs = watched.iter_mut().filter_map(Watched::ebpf_mut);
    let mut loggers = Vec::new();
    for ebpf in ebpfs {
        match EbpfLogger::init(ebpf) {
            Ok(logger) => loggers.push(logger),
            Err(error) => tracing::warn!(%error, "the kernel programs' log is not read"),
        }
    }
    loggers
}

impl CounterSource for Kernel {
    fn counter_snapshot(&mut self) -> Result<CounterSnapshot, SourceError> {
        for logger in &mut self.loggers {
            logger.flush();
        }
        Ok(Self::counter_snapshot(self))
    }

    fn read(&mut self) -> Result<KernelSample, SourceError> {
        let mut sample = Self::read(self);
        self.clamp.apply(&mut sample.endpoints);
        Ok(sample)
    }

    fn backend_counters(&mut self) -> Result<Vec<EndpointSample>, SourceError> {
        let mut endpoints = Vec::new();
        for watched in &self.watched {
            watched.backend_counters(&mut endpoints);
        }
        Ok(endpoints)
    }

    fn set_level(&mut self, level: Level) -> Result<(), SourceError> {
        for watched in &mut self.watched {
            watched.set_level(level)?;
        }
        // The programs are others now, and so is their log.
        self.loggers = loggers(&mut self.watched, self.log);
        Ok(())
    }
}
