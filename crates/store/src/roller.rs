//! The rolling thread: reads reports in the order they were stored, sums them
//! up, and hands the sums to the writer.
//!
//! Decoding thousands of reports takes longer than writing their sums, so only
//! the latter is done by the writer, in one transaction with the progress: a
//! report is rolled up exactly once, whenever the process ends.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rollup::Rolls;
use rusqlite::Connection;

use super::{
    from_sql,
    kept::{self, Damage, Damaged},
    open::open_reader,
    progress::{progress, stored_after},
    writer::Writer,
};

/// Reports that are summed up at once; each bucket is written once for them.
const BATCH_MAX: u32 = 2000;
/// Sums of endpoints, beyond which no report is added: a bound for the memory, and for
/// how long the writer keeps agents waiting while it writes them.
const ROLLS_MAX: usize = 2000;
/// How far the roll-ups may be behind.
const INTERVAL: Duration = Duration::from_secs(2);

/// The name of its progress.
pub(super) const NAME: &str = "rolls";

/// What is handed to the writer.
#[derive(Debug)]
pub(super) struct Rolled {
    pub(super) rolls: Rolls,
    /// The last report that is in it.
    pub(super) stored_ns: u64,
}

/// The rolling thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Roller {
    _alive: mpsc::Sender<()>,
}

impl Roller {
    pub fn start(
        path: &Path,
        writer: Writer,
        damaged: Arc<Damaged>,
    ) -> Result<Self, rusqlite::Error> {
        let connection = open_reader(path)?;
        let from = match progress(&connection, NAME, &damaged)? {
            Some(from) => from,
            None => newest(&connection)?,
        };
        let (alive, ended) = mpsc::channel();
        thread::Builder::new()
            .name("store-roll".to_owned())
            .spawn(move || run(&connection, from, &writer, &damaged, &ended))
            .map_err(|_| rusqlite::Error::InvalidQuery)?;
        Ok(Self { _alive: alive })
    }
}

fn run(
    connection: &Connection,
    from: u64,
    writer: &Writer,
    damaged: &Damaged,
    ended: &mpsc::Receiver<()>,
) {
    let mut progress = from;
    loop {
        let more = match sum_up(connection, progress, damaged) {
            Ok(None) => false,
            Ok(Some(rolled)) => {
                let next = rolled.stored_ns;
                let done = writer.roll(rolled);
                if done {
                    progress = next;
                }
                done
            }
            Err(error) => {
                tracing::warn!(%error, "cannot roll up reports");
                false
            }
        };
        let wait = if more { Duration::ZERO } else { INTERVAL };
        match ended.recv_timeout(wait) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Where the progress was damaged, what was not summed up before is missing: a gap of
/// mostly a few seconds.  Nothing is summed up twice.
fn newest(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT max(stored_ns) FROM reports";
    let stored_ns: Option<i64> = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(stored_ns.map_or(0, from_sql))
}

/// The sums of what was stored after `progress`; `None` where there is nothing.
fn sum_up(
    connection: &Connection,
    progress: u64,
    damaged: &Damaged,
) -> rusqlite::Result<Option<Rolled>> {
    let mut rolled = None;
    stored_after(connection, progress, BATCH_MAX, |stored| {
        let rolled = rolled.get_or_insert_with(|| Rolled {
            rolls: Rolls::default(),
            stored_ns: 0,
        });
        rolled.stored_ns = stored.stored_ns;
        match kept::read(&stored) {
            Ok(report) => rolled.rolls.add(stored.at.host, &report),
            Err(error) => damaged.record(&Damage::new(connection, stored.at, &error)),
        }
        rolled.rolls.endpoints.len() < ROLLS_MAX
    })?;
    Ok(rolled)
}
