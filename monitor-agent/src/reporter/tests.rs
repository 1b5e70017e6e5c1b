use std::{
    fs,
    sync::{Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::*;
use kernel_sample::{
    CounterSnapshot, CounterSource, KernelSample, Level, Opened, Opener, SourceError,
};
use spool::Spool;

use crate::sampler::{Sampler, SamplerOptions};

/// Has no endpoints and loses one more of something at every reading.
struct Losing(u64);

impl CounterSource for Losing {
    fn counter_snapshot(&mut self) -> Result<CounterSnapshot, SourceError> {
        Ok(CounterSnapshot::default())
    }

    fn read(&mut self) -> Result<KernelSample, SourceError> {
        self.0 += 1;
        Ok(KernelSample {
            losses: vec![("no_socket", self.0)],
            since_unix_ns: 1,
            ..KernelSample::default()
        })
    }

    fn set_level(&mut self, _: Level) -> Result<(), SourceError> {
        Ok(())
    }
}

struct Running {
    dir: TempDir,
    spool: SharedSpool,
    reporter: Reporter,
    _sampler: Sampler,
}

fn start() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(&dir.path().join("spool"), 1 << 20, 1_000).unwrap();
    let spool = Arc::new(Mutex::new(spool));
    let open: Opener = Box::new(|_, level| {
        let source = Box::new(Losing(0));
        Ok(Opened { source, level })
    });
    let options = SamplerOptions {
        interval: Duration::from_millis(10),
        level: Level::Http,
        targets: vec![],
    };
    let sampler = Sampler::start(open, options).unwrap();
    let reporter = Reporter::new(ReporterParts {
        host: v1::Host::default(),
        resume: Resume::default(),
        checkpoint: Checkpoint::of(dir.path().join("x.checkpoint"), "", dir.path()),
        start: Environment::default(),
        sampler: sampler.handle(),
        shared: sampler.shared(),
        spool: Arc::clone(&spool),
        wake: Arc::default(),
        progress: Arc::default(),
        names: Arc::default(),
        awaited: Awaited::default(),
        client_prefixes: Some(ClientPrefixes::default()),
    });
    Running {
        dir,
        spool,
        reporter,
        _sampler: sampler,
    }
}

impl Running {
    fn next(&self) -> v1::Report {
        let pending = lock(&self.spool).read_next().unwrap().unwrap();
        v1::Report::decode(&*pending.report).unwrap()
    }
}

#[tokio::test]
async fn a_report_that_cannot_be_kept_is_held_back_and_its_window_covered_by_the_next() {
    let mut running = start();
    // Nothing can be made where a file is in the place of the spool.
    let spool_dir = running.dir.path().join("spool");
    let elsewhere = running.dir.path().join("elsewhere");
    fs::rename(&spool_dir, &elsewhere).unwrap();
    fs::write(&spool_dir, "no directory").unwrap();
    let shared = Arc::clone(&running.reporter.shared);
    let deadline = Instant::now() + Duration::from_secs(10);
    while shared.newest.load().is_none() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..2 {
        let refused = running.reporter.report().await;
        assert!(matches!(refused, Err(ReportError::Spool(_))));
    }
    let told = running.reporter.progress.last_error().unwrap();
    assert!(told.contains("spool"), "{told}");
    fs::remove_file(&spool_dir).unwrap();
    fs::rename(&elsewhere, &spool_dir).unwrap();
    assert_eq!(running.reporter.report().await.unwrap().sequence, 1);
    let report = running.next();
    assert_eq!(report.losses["reports_held_back"], 2);
    assert_eq!(report.losses["no_socket"], 3, "of all three windows");
    assert!(report.samples >= 3, "those of all three windows");
    assert!(!report.complete);
    running.reporter.report().await.unwrap();
    let report = running.next();
    assert_eq!(
        (report.sequence, report.losses["reports_held_back"]),
        (2, 0)
    );
    assert_eq!(report.losses["no_socket"], 1);
    assert_eq!(report.losses_totals["no_socket"], 4);
}

/// The collector's answer may begin an epoch at any moment, as a conflict does.
#[tokio::test]
async fn a_report_says_the_key_that_it_is_kept_by_whenever_an_epoch_begins() {
    let mut running = start();
    let (spool, stop) = (Arc::clone(&running.spool), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let conflicts = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            let mut spool = lock(&spool);
            let known = spool.next_key();
            spool.begin_epoch(0, known).unwrap();
            drop(spool);
            std::thread::yield_now();
        }
    });
    for _ in 0..100 {
        running.reporter.report().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    conflicts.join().unwrap();
    let mut spool = lock(&running.spool);
    for _ in 0..100 {
        let pending = spool.read_next().unwrap().unwrap();
        let report = v1::Report::decode(&*pending.report).unwrap();
        let (epoch, sequence) = (report.agent.unwrap().epoch, report.sequence);
        assert_eq!(ReportKey { epoch, sequence }, pending.key);
    }
}

#[test]
fn every_reason_of_a_loss_is_documented() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let document = fs::read_to_string(document).unwrap();
    let running = start();
    let own = running.reporter.losses().by_reason();
    let spool = lock(&running.spool).losses().by_reason();
    let kernel = monitor_common::losses::Loss::ALL.map(monitor_common::losses::Loss::name);
    for reason in kernel
        .into_iter()
        .chain(own.into_iter().chain(spool).map(|(reason, _)| reason))
    {
        let row = format!("\n| `{reason}` | ");
        assert!(
            document.contains(&row),
            "docs/metrics.md has no row for {reason}"
        );
    }
}

#[test]
fn what_may_not_be_told_of_a_client_is_in_no_socket_either() {
    let socket = |role: v1::Role, remote: &str, client: &str| v1::SocketSummary {
        role: role.into(),
        remote: remote.into(),
        client: client.into(),
        ..Default::default()
    };
    let of = |prefixes: Option<&str>| {
        let mut report = v1::Report {
            top_sockets: vec![
                socket(v1::Role::Downstream, "203.0.113.7:5", "[2001:db8:1:2::3]:6"),
                socket(v1::Role::Upstream, "198.51.100.7:80", ""),
            ],
            ..Default::default()
        };
        shorten_clients(&mut report, prefixes.map(|text| text.parse().unwrap()));
        let sockets = report.top_sockets.into_iter();
        sockets.map(|s| (s.remote, s.client)).collect::<Vec<_>>()
    };
    let backend = ("198.51.100.7:80".to_owned(), String::new());
    for (prefixes, remote, client) in [
        (Some("32,64"), "203.0.113.7:5", "[2001:db8:1:2::3]:6"),
        (Some("24,48"), "203.0.113.0:5", "[2001:db8:1::]:6"),
        (None, "", ""),
    ] {
        let expected = [(remote.to_owned(), client.to_owned()), backend.clone()];
        assert_eq!(of(prefixes), expected, "{prefixes:?}");
    }
}
