//! A kernel that counts by itself and, as the real one, goes on while no agent
//! runs.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kernel_sample::{
    CounterSnapshot, CounterSource, EndpointAddress, EndpointId, EndpointSample, EndpointSnapshot,
    KernelSample, Level, SourceError, Target,
};
use monitor_common::{
    counters::EndpointCounters,
    endpoint::Role,
    http::{Method, code_index},
};

#[derive(Clone)]
pub(crate) struct FakeKernel {
    sample: Arc<Mutex<KernelSample>>,
    counting: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
}

impl FakeKernel {
    /// Counts requests on two endpoints, once programs are attached.
    pub(crate) fn start() -> Self {
        let since_unix_ns = 0;
        let endpoint = |role| EndpointSample {
            id: EndpointId {
                target: Arc::from("/web"),
                role,
                address: EndpointAddress::Socket(([127, 0, 0, 1], 80).into()),
            },
            counters: Box::new(EndpointCounters::ZERO),
            since_unix_ns,
        };
        let sample = KernelSample {
            endpoints: vec![endpoint(Role::Downstream), endpoint(Role::Upstream)],
            losses: vec![("endpoint_map_full", 0)],
            since_unix_ns,
            ..KernelSample::default()
        };
        let kernel = Self {
            sample: Arc::new(Mutex::new(sample)),
            counting: Arc::new(AtomicBool::new(true)),
            broken: Arc::default(),
        };
        let counting = kernel.clone();
        std::thread::spawn(move || counting.count());
        kernel
    }

    /// The first time, counting begins.
    pub(crate) fn attach(&self) {
        let mut sample = self.sample.lock().unwrap();
        if sample.since_unix_ns == 0 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            sample.since_unix_ns = now.as_nanos() as u64;
            for endpoint in &mut sample.endpoints {
                endpoint.since_unix_ns = now.as_nanos() as u64;
            }
        }
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            path: "/nonexistent/web".into(),
            label: Arc::from("/web"),
        }
    }

    fn count(&self) {
        while self.counting.load(Ordering::Relaxed) {
            let mut sample = self.sample.lock().unwrap();
            if self.counting.load(Ordering::Relaxed) && sample.since_unix_ns > 0 {
                for endpoint in &mut sample.endpoints {
                    let c = &mut endpoint.counters;
                    c.requests[Method::Get as usize] += 1;
                    c.responses[code_index(200).unwrap()] += 1;
                    c.bytes_received += 123;
                    c.exchange.buckets[usize::from(c.bytes_received as u8) % 100] += 1;
                }
            }
            drop(sample);
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Whoever reads it from now on panics.
    pub(crate) fn break_down(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// From when this returns on nothing is counted.
    pub(crate) fn stop_counting(&self) {
        let _sample = self.sample.lock().unwrap();
        self.counting.store(false, Ordering::Relaxed);
    }

    /// Requests and bytes, over both endpoints.
    pub(crate) fn counted(&self) -> (u64, u64) {
        let sample = self.sample.lock().unwrap();
        let counters = sample.endpoints.iter().map(|e| &e.counters);
        counters.fold((0, 0), |(requests, bytes), c| {
            (
                requests + c.requests.iter().sum::<u64>(),
                bytes + c.bytes_received,
            )
        })
    }
}

impl Drop for FakeKernel {
    fn drop(&mut self) {
        // The counting thread holds one of two references to the sample.
        if Arc::strong_count(&self.sample) <= 2 {
            self.counting.store(false, Ordering::Relaxed);
        }
    }
}

impl CounterSource for FakeKernel {
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
        assert!(!self.broken.load(Ordering::Relaxed), "broken down");
        Ok(self.sample.lock().unwrap().clone())
    }

    fn set_level(&mut self, _: Level) -> Result<(), SourceError> {
        Ok(())
    }
}
