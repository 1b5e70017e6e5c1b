//! What the collector costs: reports delivered by gRPC with acknowledgements
//! after the commit, what they take on disk and in memory, how long questions
//! take, and the same data in Prometheus and `VictoriaMetrics`.
//!
//! A *sample* is one stored value, as `speedmimi-reportgen` counts it.  CPU
//! time is that of the measured process alone, from its start until it has
//! nothing left to do (roll-ups included), so that the generator on the same
//! machine does not count.

mod engine;
mod load;
mod readers;
mod usage;

use std::time::Instant;

use anyhow::{Result, ensure};
use testkit::{
    fixtures::{Binaries, Collector, CollectorPlan},
    http,
};

use self::{
    engine::{Engine, Kind},
    load::Load,
    usage::Usage,
};
use super::{Quartiles, Row, charts::Panel};
use crate::{
    command::{run, step, timed},
    requirements,
    workspace::Workspace,
};

/// What the picture shows.
pub(super) const PANELS: [Panel; 6] = [
    panel(
        "samples_per_cpu_second",
        "samples per second of CPU time",
        1e6,
    ),
    panel("bytes_per_sample", "bytes per sample", 6.0),
    panel("rss_peak_mb", "peak of resident memory, MB", 150.0),
    panel("query_ms", "time of an answer, ms", 50.0),
    panel(
        "ack_p99_ratio",
        "p99 of acknowledgements with readers, as a multiple of that without",
        2.0,
    ),
    panel(
        "bytes_ratio",
        "bytes, as a multiple of the collector's",
        1.0,
    ),
];

const fn panel(metric: &'static str, title: &'static str, goal: f64) -> Panel {
    Panel {
        metric,
        cases: "",
        title,
        reference: Some(goal),
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Extent {
    rounds: usize,
    /// How often each question is asked.
    questions: usize,
    ingest: Load,
    fleet: Load,
    paced: Load,
    day: Load,
    hour: Load,
    side_by_side: Load,
}

impl Extent {
    fn new(quick: bool) -> Self {
        let sized = |full: u64, few: u64| if quick { few } else { full };
        let hosts = |full: usize, few: usize| if quick { few } else { full };
        Self {
            rounds: hosts(5, 1),
            questions: hosts(25, 5),
            ingest: Load::new(100, 100, sized(12, 2)),
            fleet: Load::new(hosts(1000, 100), 10, sized(12, 2)),
            // Half a minute of a fleet that reports every 5 s.
            paced: Load::new(hosts(1000, 200), 45, sized(6, 3)),
            day: Load::new(1, 10, sized(17_280, 720)),
            // A roll-up of a minute is the same row whether 12 windows of 5 s
            // are in it or one of 60 s, and only roll-ups are read.
            hour: Load::new(hosts(1000, 100), 2, 60).every(60).streams(50),
            side_by_side: Load::new(20, 10, sized(360, 24)).streams(2),
        }
    }
}

/// Measures and returns every figure.
pub(super) fn bench(workspace: &Workspace, quick: bool) -> Result<Vec<Row>> {
    requirements::raise_open_files();
    let binaries = build(workspace)?;
    let extent = Extent::new(quick);
    let mut rows = Rows::default();
    for _ in 0..extent.rounds {
        ingest(&binaries, extent.ingest, &mut rows)?;
    }
    for _ in 0..extent.rounds.div_ceil(2) {
        fleet(&binaries, extent.fleet, &mut rows)?;
    }
    for _ in 0..extent.rounds {
        readers::compare(&binaries, extent.paced, &mut rows)?;
    }
    let asked = extent.questions;
    let day = format!("24 h of one host, {} endpoints", extent.day.endpoints);
    let of_host = [
        "metric=requests",
        "metric=exchange_duration_p99",
        "metric=cpu_usage",
    ];
    questions(
        &binaries, extent.day, &day, "24h", &of_host, asked, &mut rows,
    )?;
    let hour = format!("1 h of {} hosts", extent.hour.hosts);
    let of_all = [
        "metric=cpu_usage",
        "metric=requests&role=downstream",
        "metric=exchange_duration_p99&role=downstream",
    ];
    questions(
        &binaries,
        extent.hour,
        &hour,
        "1h",
        &of_all,
        asked,
        &mut rows,
    )?;
    side_by_side(&binaries, &extent, &mut rows)?;
    Ok(rows.finish())
}

fn build(workspace: &Workspace) -> Result<Binaries> {
    timed(
        "building the collector and the generator, optimised",
        || {
            run(workspace
                .cargo()
                .args(["build", "--release", "-p", "collector", "--bins"]))?;
            run(workspace
                .cargo()
                .args(["build", "--release", "-p", "tests"])
                .args(["--features", "reportgen", "--bin", "speedmimi-reportgen"]))
        },
    )?;
    Ok(Binaries::at(&workspace.target().join("release")))
}

/// Many reports of large hosts.
fn ingest(binaries: &Binaries, load: Load, rows: &mut Rows) -> Result<()> {
    let collector = CollectorPlan::new(binaries)?.start()?;
    let process = Usage::of(collector.process_id());
    let delivered = load.deliver(binaries, &collector)?;
    let cpu_s = process.settled_cpu_s()?;
    let plan = collector.stop()?;
    let bytes = usage::disk_bytes(&plan.data())?;
    let samples = delivered.samples as f64;
    let case = format!("ingest, {load}");
    rows.add(&case, "samples_per_cpu_second", samples / cpu_s);
    rows.add(&case, "samples_per_second", samples / delivered.seconds);
    rows.add(&case, "bytes_per_sample", bytes as f64 / samples);
    rows.add(
        &case,
        "samples_per_report",
        samples / delivered.reports as f64,
    );
    Ok(())
}

/// Every host with a connection of its own.
fn fleet(binaries: &Binaries, load: Load, rows: &mut Rows) -> Result<()> {
    let collector = CollectorPlan::new(binaries)?.start()?;
    let process = Usage::of(collector.process_id());
    load.deliver(binaries, &collector)?;
    process.settled_cpu_s()?;
    let case = format!("memory, {load}");
    rows.add(&case, "rss_peak_mb", process.rss_peak_bytes()? as f64 / 1e6);
    let (status, _) = http::get(collector.http(), "/metrics")?;
    ensure!(status == 200, "/metrics answered {status}");
    rows.add(
        &case,
        "rss_peak_scraped_mb",
        process.rss_peak_bytes()? as f64 / 1e6,
    );
    // What the page asks for when it opens.
    let (status, _) = http::get(collector.http(), "/api/v1/reports?latest=true")?;
    ensure!(status == 200, "the newest reports answered {status}");
    let opened = process.rss_peak_bytes()? as f64 / 1e6;
    rows.add(&case, "rss_peak_scraped_and_page_opened_mb", opened);
    collector.stop()?;
    Ok(())
}

/// The time that answers take.
fn questions(
    binaries: &Binaries,
    load: Load,
    case: &str,
    since: &str,
    of: &[&str],
    times: usize,
    rows: &mut Rows,
) -> Result<()> {
    let collector = CollectorPlan::new(binaries)?.start()?;
    let process = Usage::of(collector.process_id());
    load.deliver(binaries, &collector)?;
    process.settled_cpu_s()?;
    for query in of {
        let path = format!("/api/v1/series?{query}&since={since}");
        let case = format!("{case}: {query}");
        ask(collector.http(), &path, &case, times, rows)?;
    }
    collector.stop()?;
    Ok(())
}

/// Asks so many times, the first of which does not count.
fn ask(
    address: std::net::SocketAddr,
    path: &str,
    case: &str,
    times: usize,
    rows: &mut Rows,
) -> Result<f64> {
    let mut all = Vec::new();
    for n in 0..=times {
        let started = Instant::now();
        let (status, body) = http::get(address, path)?;
        let ms = started.elapsed().as_secs_f64() * 1e3;
        ensure!(
            status == 200,
            "{path} answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        if n > 0 {
            rows.add(case, "query_ms", ms);
            all.push(ms);
        }
    }
    Ok(Quartiles::of(all).map_or(0.0, |of| of.median))
}

/// What one system took for the same reports.
struct Share {
    cpu_s: f64,
    bytes: f64,
    /// In the order of the questions.
    query_ms: Vec<f64>,
}

/// The same reports here, in Prometheus and in `VictoriaMetrics`.
fn side_by_side(binaries: &Binaries, extent: &Extent, rows: &mut Rows) -> Result<()> {
    let load = extent.side_by_side;
    let mut collector = CollectorPlan::new(binaries)?.start()?;
    let process = Usage::of(collector.process_id());
    let delivered = load.deliver(binaries, &collector)?;
    let cpu_s = process.settled_cpu_s()?;
    let mut own = Share {
        cpu_s,
        bytes: 0.0,
        query_ms: Vec::new(),
    };
    let name = format!("collector, {load}");
    for (what, path, _) in engine::QUESTIONS {
        let case = format!("{name}: {what}");
        let ms = ask(collector.http(), path, &case, extent.questions, rows)?;
        own.query_ms.push(ms);
    }
    let plan = collector.stop()?;
    own.bytes = usage::disk_bytes(&plan.data())? as f64;
    let per_sample = |rows: &mut Rows, name: &str, share: &Share, samples: f64| {
        rows.add(name, "bytes_per_sample", share.bytes / samples);
        rows.add(
            name,
            "cpu_s_per_million_samples",
            share.cpu_s * 1e6 / samples,
        );
    };
    per_sample(rows, &name, &own, delivered.samples as f64);
    for kind in [Kind::Prometheus, Kind::VictoriaMetrics] {
        let Some(engine) = Engine::start(kind)? else {
            step(&format!(
                "{kind} is not installed: apt-get install {}",
                kind.package()
            ));
            continue;
        };
        collector = CollectorPlan::new(binaries)?
            .flag(&["--remote-write", &engine.write_url()])
            .start()?;
        load.deliver(binaries, &collector)?;
        wait_passed_on(&collector, delivered.reports)?;
        let cpu_s = engine.usage().settled_cpu_s()?;
        let mut share = Share {
            cpu_s,
            bytes: engine.disk_bytes()? as f64,
            query_ms: Vec::new(),
        };
        let name = format!("{kind}, {load}");
        for (what, _, expression) in engine::QUESTIONS {
            let path = engine::range_query(expression);
            let case = format!("{name}: {what}");
            let ms = ask(engine.address(), &path, &case, extent.questions, rows)?;
            share.query_ms.push(ms);
        }
        per_sample(rows, &name, &share, engine.samples()?);
        let case = format!("{kind} to collector, the same reports");
        rows.add(&case, "bytes_ratio", share.bytes / own.bytes);
        rows.add(&case, "cpu_ratio", share.cpu_s / own.cpu_s);
        for ((what, _, _), (theirs, ours)) in engine::QUESTIONS
            .iter()
            .zip(share.query_ms.iter().zip(&own.query_ms))
        {
            rows.add(
                &format!("{case}: {what}"),
                "query_time_ratio",
                theirs / ours,
            );
        }
        collector.stop()?;
    }
    Ok(())
}

/// Until the engine has taken every report.
fn wait_passed_on(collector: &Collector, reports: u64) -> Result<()> {
    let taken = || -> Option<u64> {
        let (_, body) = http::get(collector.http(), "/metrics").ok()?;
        let text = String::from_utf8(body).ok()?;
        let line = text
            .lines()
            .find(|line| line.starts_with("speedmimi_collector_remote_write_sent_total{"))?;
        line.rsplit_once(' ')?.1.parse().ok()
    };
    let mut before = None;
    loop {
        let now = taken();
        if now == Some(reports) {
            return Ok(());
        }
        ensure!(
            now.is_some() && now != before,
            "the engine took {now:?} of {reports} reports and no more"
        );
        before = now;
        std::thread::sleep(std::time::Duration::from_secs(5));
    }
}

/// Figures by case and metric, in the order they came first.
#[derive(Debug, Default)]
struct Rows(Vec<(String, &'static str, Vec<f64>)>);

impl Rows {
    fn add(&mut self, case: &str, metric: &'static str, figure: f64) {
        eprintln!("    {case} {metric} {figure:.3}");
        let known = self
            .0
            .iter_mut()
            .find(|(c, m, _)| c == case && *m == metric);
        match known {
            Some((_, _, figures)) => figures.push(figure),
            None => self.0.push((case.to_owned(), metric, vec![figure])),
        }
    }

    fn finish(self) -> Vec<Row> {
        let rows = self.0.into_iter();
        rows.filter_map(|(case, metric, figures)| Row::of(&case, metric, figures))
            .collect()
    }
}
