//! What readers cost those who write: how long acknowledgements take while the fleet
//! is scraped and the store is pruned, and how long without.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use testkit::fixtures::{Binaries, CollectorPlan};

use super::{Load, Rows};

/// How often each reader asks: a scraper with a short interval.
const INTERVAL: Duration = Duration::from_secs(3);
/// Reports of every host that are there before anything is measured.
const BEFORE: u64 = 4;
/// What Prometheus asks for, and what a program that follows the fleet does.
const PATHS: [&str; 2] = ["/metrics", "/api/v1/reports?limit=1000"];

/// One after the other on the same machine, so that both meet what else goes on there.
pub(super) fn compare(binaries: &Binaries, load: Load, rows: &mut Rows) -> Result<()> {
    let quiet = acks(binaries, load, false)?;
    let read = acks(binaries, load, true)?;
    let case = format!("acknowledgements, {load} every 5 s");
    let with = format!("{case}, scraped, read and pruned");
    rows.add(&case, "ack_ms_p99", quiet);
    rows.add(&with, "ack_ms_p99", read);
    rows.add(&with, "ack_p99_ratio", read / quiet);
    Ok(())
}

/// The 99th percentile of the acknowledgements in milliseconds.
fn acks(binaries: &Binaries, load: Load, with_readers: bool) -> Result<f64> {
    let plan = CollectorPlan::new(binaries)?;
    let collector = if with_readers {
        // Less than what comes: pruning never ends.
        plan.flag(&["--retention-bytes", "16MiB"]).start()?
    } else {
        plan.start()?
    };
    load.reports(BEFORE).deliver(binaries, &collector)?;
    let stop = Arc::new(AtomicBool::new(false));
    let readers = PATHS.map(|path| {
        let (stop, address) = (Arc::clone(&stop), collector.http());
        with_readers.then(|| thread::spawn(move || read(address, path, &stop)))
    });
    let delivered = load.prefix("paced").paced().deliver(binaries, &collector);
    stop.store(true, Relaxed);
    for reader in readers.into_iter().flatten() {
        let answers = reader
            .join()
            .map_err(|_| anyhow::anyhow!("a reader broke"))??;
        ensure!(answers > 0, "a reader had no answer");
    }
    collector.stop()?;
    Ok(delivered?.ack_ms_p99)
}

/// Asks again and again; how many answers there were.
fn read(address: SocketAddr, path: &str, stop: &AtomicBool) -> Result<u64> {
    let mut answers = 0;
    while !stop.load(Relaxed) {
        let mut stream = TcpStream::connect(address)?;
        let question =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(question.as_bytes())?;
        // Nothing is kept: a scrape of a large fleet has hundreds of megabytes.
        let bytes = io::copy(&mut stream, &mut io::sink())?;
        ensure!(bytes > 0, "{path} had no answer");
        answers += 1;
        thread::sleep(INTERVAL);
    }
    Ok(answers)
}
