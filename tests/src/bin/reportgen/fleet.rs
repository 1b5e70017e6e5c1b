//! Made-up hosts whose figures look like those of proxies: each endpoint has a
//! rate and a speed of its own, both vary from window to window, and totals
//! are the sums of the windows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use monitor_proto::{
    figures::{self, Number},
    v1,
};

/// Four buckets an octave, as agents have them.
const SCALE: i32 = 2;

/// Where and how long the windows are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) first_start_ns: u64,
    pub(super) length_ns: u64,
}

impl Windows {
    /// So many windows, the last of which ends now.
    pub(super) fn until_now(count: u64, length: Duration) -> Self {
        let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let length_ns = ns(length);
        Self {
            first_start_ns: ns(now.unwrap_or_default()).saturating_sub(count * length_ns),
            length_ns,
        }
    }
}

/// One host, and what it has counted so far.
#[derive(Debug)]
pub(super) struct Host {
    rng: Rng,
    host: v1::Host,
    epoch: u64,
    sequence: u64,
    cpu: f64,
    memory: f64,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    role: v1::Role,
    address: String,
    requests_per_second: f64,
    /// The logarithm to base 2 of the usual duration of an exchange in s.
    speed_log2: f64,
    answer_bytes: u64,
    active: u64,
    totals: v1::Counters,
}

impl Host {
    pub(super) fn new(prefix: &str, number: usize, endpoints: usize, windows: Windows) -> Self {
        let mut rng = Rng::with_seed(number as u64 + 1);
        let name = format!("{prefix}-{number}");
        Self {
            host: v1::Host {
                id: format!("{:016x}{:016x}", rng.u64(..), rng.u64(..)),
                name,
                boot_id: format!("{:032x}", rng.u128(..)),
                kernel: "6.1.0-28-amd64".into(),
                cores: 8,
                ..Default::default()
            },
            epoch: windows.first_start_ns / 1_000_000,
            sequence: 0,
            cpu: 10.0 + 50.0 * rng.f64(),
            memory: 20.0 + 60.0 * rng.f64(),
            endpoints: (0..endpoints).map(|n| Endpoint::new(&mut rng, n)).collect(),
            rng,
        }
    }

    /// The report of the next window.
    pub(super) fn next(&mut self, windows: Windows) -> v1::Report {
        let start = windows.first_start_ns + self.sequence * windows.length_ns;
        self.sequence += 1;
        let seconds = windows.length_ns as f64 / 1e9;
        let rng = &mut self.rng;
        self.cpu = (self.cpu + 8.0 * (rng.f64() - 0.5)).clamp(1.0, 99.0);
        self.memory = (self.memory + rng.f64() - 0.5).clamp(5.0, 95.0);
        v1::Report {
            host: Some(self.host.clone()),
            agent: Some(v1::Agent {
                version: "0.1.0".into(),
                epoch: self.epoch,
                level: v1::Level::Http.into(),
                cpu_usage_ratio: 0.003 + 0.002 * rng.f64(),
                memory_bytes: 20_000_000 + rng.u64(..1_000_000),
            }),
            sequence: self.sequence,
            window_start_unix_ns: start,
            window_end_unix_ns: start + windows.length_ns,
            window_duration_ns: windows.length_ns,
            complete: true,
            host_metrics: Some(host_metrics(rng, self.cpu, self.memory)),
            endpoints: self
                .endpoints
                .iter_mut()
                .map(|endpoint| endpoint.next(rng, seconds, self.epoch))
                .collect(),
            samples: 50,
            ..v1::Report::default()
        }
    }
}

fn host_metrics(rng: &mut Rng, cpu: f64, memory: f64) -> v1::HostMetrics {
    let mut around = |mean: f64, spread: f64| {
        let low = rng.f64() * spread;
        let high = rng.f64() * spread;
        Some(v1::Gauge {
            last: mean + (rng.f64() - 0.5) * spread,
            min: mean - low,
            mean,
            max: mean + high,
        })
    };
    v1::HostMetrics {
        cpu_usage: around(cpu, 10.0),
        memory_usage: around(memory, 0.5),
        disk_usage: around(memory / 2.0, 0.0),
        load_avg_1: around((cpu / 12.5 * 100.0).round() / 100.0, 0.0),
        load_avg_5: around((cpu / 13.0 * 100.0).round() / 100.0, 0.0),
        load_avg_15: around((cpu / 14.0 * 100.0).round() / 100.0, 0.0),
        network_in: around(cpu * 1e5, 1e6),
        network_out: around(cpu * 1e6, 1e7),
        core_usage: (0..8).map(|_| around_core(rng, cpu)).collect(),
        ..v1::HostMetrics::default()
    }
}

fn around_core(rng: &mut Rng, cpu: f64) -> f64 {
    (cpu + 10.0 * (rng.f64() - 0.5)).clamp(0.0, 100.0)
}

impl Endpoint {
    fn new(rng: &mut Rng, number: usize) -> Self {
        // The first is the listener.
        let (role, address) = match number {
            0 => (v1::Role::Downstream, "0.0.0.0:443".to_owned()),
            n => (
                v1::Role::Upstream,
                format!("10.{}.{}.{}:8080", n >> 16 & 255, n >> 8 & 255, n & 255),
            ),
        };
        Self {
            role,
            address,
            requests_per_second: (1.0 + 8.0 * rng.f64()).exp2(),
            speed_log2: -9.0 + 5.0 * rng.f64(),
            answer_bytes: 500 + rng.u64(..20_000),
            active: rng.u64(1..200),
            totals: v1::Counters {
                connect_duration: Some(empty()),
                http: Some(v1::HttpCounters {
                    exchange_duration: Some(empty()),
                    ..v1::HttpCounters::default()
                }),
                ..v1::Counters::default()
            },
        }
    }

    fn next(&mut self, rng: &mut Rng, seconds: f64, since_ms: u64) -> v1::Endpoint {
        let window = self.window(rng, seconds);
        add(&mut self.totals, &window);
        self.active = (self.active + rng.u64(..5)).saturating_sub(2);
        v1::Endpoint {
            role: self.role.into(),
            address: self.address.clone(),
            upstream: match self.role {
                v1::Role::Upstream => "backend".into(),
                _ => String::new(),
            },
            target: "/system.slice/nginx.service".into(),
            connections_active: self.active,
            window: Some(window),
            totals: Some(self.totals.clone()),
            totals_since_unix_ns: since_ms * 1_000_000,
            srtt: Some(v1::RoundTripTime {
                samples: rng.u64(1..500),
                min_us: rng.u64(50..100),
                mean_us: rng.u64(100..300),
                max_us: rng.u64(300..9000),
            }),
            ..v1::Endpoint::default()
        }
    }

    fn window(&self, rng: &mut Rng, seconds: f64) -> v1::Counters {
        let requests = (self.requests_per_second * seconds * (0.7 + 0.6 * rng.f64())) as u64;
        let connections = requests / 20 + rng.u64(..2);
        let errors = if rng.u8(..8) == 0 {
            rng.u64(..3).min(requests)
        } else {
            0
        };
        let not_found = requests / 50;
        let posts = requests / 7;
        let bytes_received = requests * (400 + rng.u64(..50));
        let bytes_sent = requests * self.answer_bytes + rng.u64(..1000);
        let of_codes = [
            ("200", requests - errors - not_found),
            ("404", not_found),
            ("502", errors),
        ];
        let of_methods = [("GET", requests - posts), ("POST", posts)];
        let some = |of: &[(&str, u64)]| {
            let some = of.iter().filter(|(_, n)| *n > 0);
            some.map(|(key, n)| ((*key).to_owned(), *n)).collect()
        };
        v1::Counters {
            connections_opened: connections,
            connections_established: connections,
            connections_closed: connections.saturating_sub(rng.u64(..2)),
            connections_failed: Some(v1::ConnectionsFailed {
                refused: u64::from(rng.u8(..50) == 0),
                ..v1::ConnectionsFailed::default()
            }),
            bytes_received,
            bytes_sent,
            packets_received: requests + bytes_sent / 2900,
            packets_sent: requests + bytes_sent / 1450,
            retransmits: bytes_sent / 1450 / 3000,
            connect_duration: Some(histogram(rng, connections, -12.0)),
            http: Some(v1::HttpCounters {
                requests,
                requests_by_method: some(&of_methods),
                responses_by_code: some(&of_codes),
                exchange_duration: Some(histogram(rng, requests, self.speed_log2)),
                ..v1::HttpCounters::default()
            }),
            ..v1::Counters::default()
        }
    }
}

fn empty() -> v1::Histogram {
    v1::Histogram {
        scale: SCALE,
        ..v1::Histogram::default()
    }
}

/// Durations whose logarithm is spread as a sum of three dice: most lie within
/// three octaves, some far above.
fn histogram(rng: &mut Rng, count: u64, middle_log2: f64) -> v1::Histogram {
    const WIDTH: usize = 28;
    let per_octave = f64::from(1 << SCALE);
    let offset = ((middle_log2 - 2.5) * per_octave) as i32;
    let mut buckets = vec![0; WIDTH];
    // Beyond some hundreds, more draws do not change the shape.
    let draws = count.min(256);
    let mut left = count;
    for n in 0..draws {
        let share = left / (draws - n);
        left -= share;
        let tail = if rng.u8(..50) == 0 {
            8.0 * rng.f64()
        } else {
            0.0
        };
        let dice = (rng.f64() + rng.f64() + rng.f64()) * 20.0 / 3.0;
        buckets[((dice + tail) as usize).min(WIDTH - 1)] += share;
    }
    let mut histogram = v1::Histogram {
        count,
        sum_ns: (count as f64 * middle_log2.exp2() * 1e9 * (0.9 + 0.2 * rng.f64())) as u64,
        scale: SCALE,
        offset,
        buckets,
    };
    monitor_proto::histogram::trim(&mut histogram);
    histogram
}

fn add(totals: &mut v1::Counters, window: &v1::Counters) {
    for counter in figures::COUNTERS {
        if let Some(Number::Integer(n @ 1..)) = (counter.figure.read)(window) {
            *(counter.place)(totals) += n;
        }
    }
    let refused = window.connections_failed.map_or(0, |failed| failed.refused);
    totals.connections_failed.get_or_insert_default().refused += refused;
    add_histogram(
        totals.connect_duration.get_or_insert_default(),
        window.connect_duration.as_ref(),
    );
    let (Some(totals), Some(window)) = (&mut totals.http, &window.http) else {
        return;
    };
    totals.requests += window.requests;
    let maps = [
        (&mut totals.requests_by_method, &window.requests_by_method),
        (&mut totals.responses_by_code, &window.responses_by_code),
    ];
    for (totals, window) in maps {
        for (key, n) in window {
            *totals.entry(key.clone()).or_default() += n;
        }
    }
    add_histogram(
        totals.exchange_duration.get_or_insert_default(),
        window.exchange_duration.as_ref(),
    );
}

/// Both have the same scale.
fn add_histogram(totals: &mut v1::Histogram, window: Option<&v1::Histogram>) {
    let Some(window) = window.filter(|window| !window.buckets.is_empty()) else {
        return;
    };
    if totals.buckets.is_empty() {
        totals.offset = window.offset;
    }
    let end = |h: &v1::Histogram| h.offset + h.buckets.len() as i32;
    let first = totals.offset.min(window.offset);
    let length = (end(totals).max(end(window)) - first) as usize;
    let mut buckets = vec![0; length];
    for h in [&*totals, window] {
        let from = (h.offset - first) as usize;
        for (to, n) in buckets[from..].iter_mut().zip(&h.buckets) {
            *to += n;
        }
    }
    totals.offset = first;
    totals.buckets = buckets;
    totals.count += window.count;
    totals.sum_ns += window.sum_ns;
}
