use std::sync::atomic::AtomicBool;

use monitor_common::{counters::EndpointCounters, endpoint::Role};
use testkit::wait_until as eventually;

use super::*;
use kernel_sample::{EndpointAddress, EndpointId, EndpointSample, EndpointSnapshot, KernelSample};

/// Counts one byte per reading while `busy`.
#[derive(Clone)]
struct Fake {
    busy: Arc<AtomicBool>,
    failing: Arc<AtomicBool>,
    bytes: u64,
}

impl CounterSource for Fake {
    fn counter_snapshot(&mut self) -> Result<CounterSnapshot, SourceError> {
        let sample = self.read()?;
        Ok(CounterSnapshot {
            endpoints: sample
                .endpoints
                .iter()
                .map(EndpointSnapshot::from)
                .collect(),
            losses: sample.losses,
        })
    }

    fn read(&mut self) -> Result<KernelSample, SourceError> {
        if self.failing.load(Ordering::Relaxed) {
            return Err("the maps are gone".into());
        }
        self.bytes += u64::from(self.busy.load(Ordering::Relaxed));
        let counters = EndpointCounters {
            bytes_received: self.bytes,
            ..EndpointCounters::ZERO
        };
        let id = EndpointId {
            target: Arc::from("/web"),
            role: Role::Downstream,
            address: EndpointAddress::Other,
        };
        let endpoint = EndpointSample {
            id,
            counters: Box::new(counters),
            since_unix_ns: 1,
        };
        Ok(KernelSample {
            endpoints: vec![endpoint],
            losses: vec![],
            since_unix_ns: 1,
            ..KernelSample::default()
        })
    }

    fn set_level(&mut self, _: Level) -> Result<(), SourceError> {
        Ok(())
    }
}

struct Running {
    sampler: Sampler,
    busy: Arc<AtomicBool>,
    failing: Arc<AtomicBool>,
    opened: Arc<AtomicU64>,
}

fn start() -> Running {
    watching(vec![])
}

fn watching(targets: Vec<Target>) -> Running {
    let (busy, failing) = (Arc::default(), Arc::default());
    let source = Fake {
        busy: Arc::clone(&busy),
        failing: Arc::clone(&failing),
        bytes: 0,
    };
    let options = SamplerOptions {
        interval: Duration::from_millis(10),
        level: Level::Http,
        targets,
    };
    let opened = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&opened);
    let open: Opener = Box::new(move |_, level| {
        // The second attempt fails.
        if count.fetch_add(1, Ordering::Relaxed) == 1 {
            return Err("not now".into());
        }
        let source = Box::new(source.clone());
        Ok(Opened { source, level })
    });
    let sampler = Sampler::start(open, options).unwrap();
    Running {
        opened,
        sampler,
        busy,
        failing,
    }
}

#[test]
fn samples_slow_down_without_traffic_and_the_newest_is_there_for_all() {
    let running = start();
    let shared = running.sampler.shared();
    eventually("idle samples are further apart", || {
        let newest = shared.newest.load_full();
        newest.is_some_and(|n| n.interval > Duration::from_millis(100))
    });
    running.busy.store(true, Ordering::Relaxed);
    eventually("traffic brings the pace back", || {
        let newest = shared.newest.load_full().unwrap();
        let counts = newest.kernel.as_ref().unwrap().endpoints[0].counts;
        counts.activity > 0 && newest.interval < Duration::from_millis(100)
    });
    assert!(!shared.samples.drain().is_empty());
}

#[test]
fn a_source_that_fails_is_counted_and_sampling_goes_on() {
    let running = start();
    let shared = running.sampler.shared();
    running.failing.store(true, Ordering::Relaxed);
    eventually("failures are counted", || shared.failures() > 1);
    let newest = shared.newest.load_full().unwrap();
    assert!(newest.kernel.is_none() && newest.gauges[3].is_some());
    running.failing.store(false, Ordering::Relaxed);
    eventually("it recovers", || {
        shared.newest.load_full().unwrap().kernel.is_some()
    });
}

#[tokio::test]
async fn a_level_change_is_told_once() {
    let running = start();
    let handle = running.sampler.handle();
    handle.set_level(Level::Tcp).await.unwrap();
    handle.set_level(Level::Tcp).await.unwrap();
    let reading = handle.read().await.unwrap();
    assert_eq!(reading.level, Level::Tcp);
    assert_eq!(reading.incomplete_reasons.len(), 1);
    let reading = handle.read().await.unwrap();
    assert!(reading.incomplete_reasons.is_empty());
    assert!(reading.environment.agent_memory_bytes > 0);
}

/// As a unit's is when it is started again; and what fails once is tried again.
#[test]
fn a_cgroup_that_is_made_again_is_watched_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web");
    fs::create_dir(&path).unwrap();
    let label = Arc::from("/web");
    let target = Target {
        path: path.clone(),
        label,
    };
    let running = watching(vec![target]);
    let opened = || running.opened.load(Ordering::Relaxed);
    fs::rename(&path, dir.path().join("gone")).unwrap();
    let samples = running.sampler.shared();
    running.busy.store(true, Ordering::Relaxed);
    let mut taken = 0;
    eventually("sampling goes on without it", || {
        taken += samples.samples.drain().len();
        taken > 5
    });
    assert_eq!(opened(), 1, "what is gone is waited for");
    fs::create_dir(&path).unwrap();
    eventually("it is opened, and again after a failure", || opened() == 3);
    eventually("it is read", || {
        let newest = samples.newest.load_full();
        newest.is_some_and(|n| n.kernel.is_some())
    });
    assert!(samples.failures() > 0);
}

#[tokio::test]
async fn who_asks_an_ended_sampler_is_told() {
    let running = start();
    let handle = running.sampler.handle();
    drop(running.sampler);
    assert!(matches!(handle.read().await, Err(SamplerError::Ended)));
}

#[test]
fn a_sample_that_comes_late_makes_its_window_incomplete() {
    let shared = Arc::new(Shared {
        backends: watch::channel(Arc::default()).0,
        samples: DropOldest::new(SAMPLES_MAX),
        newest: ArcSwapOption::empty(),
        failures: AtomicU64::new(0),
        watched: Mutex::default(),
    });
    let source = Box::new(Fake {
        busy: Arc::default(),
        failing: Arc::default(),
        bytes: 0,
    });
    let opened = Opened {
        source,
        level: Level::Http,
    };
    let interval = Duration::from_millis(100);
    let open: Opener = Box::new(|_, _| Err("it is open".into()));
    let mut state = State::new(open, opened, Cgroups::of(vec![]), interval, shared);
    let mut told_after = |late: Duration| {
        let late_ns = u64::try_from(late.as_nanos()).unwrap();
        state.earlier_at.boot_ns -= late_ns;
        let reasons = state.read().unwrap().incomplete_reasons;
        reasons.iter().any(|reason| reason.contains("was sampled"))
    };
    assert!(!told_after(Duration::ZERO));
    assert!(told_after(Duration::from_secs(12)), "as SIGSTOP leaves it");
    assert!(
        !told_after(Duration::ZERO),
        "the next window is whole again"
    );
}
