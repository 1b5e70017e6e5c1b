//! What is kept of each host beside its reports.

use daemon::clock::steady_ns;
use monitor_proto::{state::silent_after_ns, v1};
use rusqlite::{Connection, params};

use super::{
    checksum::Checksum,
    from_sql,
    kept::{self, Damage},
    reports,
    schema::AGES_FROM,
    text, to_sql,
};

/// Two clocks that are less apart than this run at different speeds.
const CLOCK_SET_NS: u64 = 2_000_000_000;

/// When a report was made and came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// The end of its window, but no later than it came: a host's clock that was
    /// ahead hides nothing that comes after it was set right.
    pub at_ns: u64,
    /// When it came, by the steady clock.
    pub steady_ns: u64,
    pub window_ns: u64,
}

impl Made {
    pub fn new(window_end_ns: u64, received_ns: u64, window_ns: u64) -> Self {
        Self {
            at_ns: window_end_ns.min(received_ns),
            steady_ns: received_ns,
            window_ns,
        }
    }

    /// Of a report that came before the start: none came later than now.
    pub(super) fn kept(self) -> Self {
        Self {
            steady_ns: self.steady_ns.min(steady_ns()),
            ..self
        }
    }

    /// After this time without another report its host is silent.
    pub fn silent_after_ns(&self) -> u64 {
        silent_after_ns(self.window_ns)
    }
}

/// What a report is to those of its host that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The newest, of the epoch that is shown.
    Newest,
    /// The newest, of an epoch that was not shown before it.
    NewestOfOther,
    /// Older than the newest.
    Late,
    /// Of an agent that runs beside the one that is shown.
    Beside,
}

/// One row of `hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRow {
    pub key: i64,
    pub id: String,
    pub first_seen_ns: u64,
    pub last_seen_ns: u64,
    /// The same by the steady clock; not in the table.
    pub seen_steady_ns: u64,
    /// How many reports are kept.
    pub reports: u64,
    pub conflicts: u64,
    /// The epoch of the newest report, and what is kept of it.
    pub epoch: u64,
    pub sequence_first: u64,
    pub sequence_last: u64,
    pub epoch_reports: u64,
    /// Of the newest report; not in the table, as that report says it.
    pub made: Made,
}

impl HostRow {
    /// A host of which nothing is kept yet.
    pub(super) fn new(key: i64, id: String, now_ns: u64) -> Self {
        Self {
            key,
            id,
            first_seen_ns: now_ns,
            last_seen_ns: now_ns,
            seen_steady_ns: now_ns,
            reports: 0,
            conflicts: 0,
            epoch: 0,
            sequence_first: 0,
            sequence_last: 0,
            epoch_reports: 0,
            made: Made::default(),
        }
    }

    #[cfg(any(test, feature = "test-support"))]
    pub fn of_test(key: i64, id: &str) -> Self {
        Self::new(key, id.to_owned(), 0)
    }

    /// Counts a report that was stored.
    ///
    /// Within an epoch the sequence tells what is newer, whatever the host's clock
    /// did.  Of two epochs the later one takes over with a report that is not older
    /// than the newest; the earlier one, whose agent runs still, only where the
    /// later one has become silent: totals do not jump to and fro between the two.
    pub(super) fn count(&mut self, epoch: u64, sequence: u64, made: Made) -> Place {
        self.reports += 1;
        if self.epoch_reports > 0 && epoch == self.epoch {
            self.epoch_reports += 1;
            self.sequence_first = self.sequence_first.min(sequence);
            if sequence < self.sequence_last {
                return Place::Late;
            }
            self.sequence_last = sequence;
            self.made = made;
            return Place::Newest;
        }
        if self.epoch_reports > 0 && !self.gives_way_to(epoch, made) {
            return if self.runs_beside(epoch, made) {
                Place::Beside
            } else {
                Place::Late
            };
        }
        self.epoch = epoch;
        self.sequence_first = sequence;
        self.sequence_last = sequence;
        self.epoch_reports = 1;
        self.made = made;
        Place::NewestOfOther
    }

    pub(super) fn seen(&mut self, now_ns: u64, steady_ns: u64) {
        self.last_seen_ns = now_ns;
        self.seen_steady_ns = steady_ns;
    }

    /// When the last report came, by the clock as it is now: where it was set
    /// since then, the age counts.
    pub fn last_seen_ns(&self, now_ns: u64, steady_ns: u64) -> u64 {
        let age_ns = steady_ns.saturating_sub(self.seen_steady_ns);
        let by_age_ns = now_ns.saturating_sub(age_ns);
        if by_age_ns.abs_diff(self.last_seen_ns) < CLOCK_SET_NS {
            self.last_seen_ns
        } else {
            by_age_ns
        }
    }

    fn gives_way_to(&self, epoch: u64, made: Made) -> bool {
        let wait_ns = if epoch > self.epoch {
            0
        } else {
            self.made.silent_after_ns()
        };
        made.at_ns >= self.made.at_ns.saturating_add(wait_ns)
    }

    /// Whether a report of an earlier epoch was made while the agent of the later
    /// one ran: an agent that begins an epoch goes on with no other.
    fn runs_beside(&self, epoch: u64, made: Made) -> bool {
        let began_ns = self.epoch.saturating_mul(1_000_000);
        epoch < self.epoch
            && made.at_ns > began_ns
            && made.at_ns.abs_diff(self.made.at_ns) < self.made.silent_after_ns()
    }

    /// How long ago the newest report came, by the steady clock.
    pub fn age_ns(&self, steady_ns: u64) -> u64 {
        steady_ns.saturating_sub(self.made.steady_ns)
    }

    /// Whether the newest report came too long ago to tell of now.
    pub fn silent(&self, steady_ns: u64) -> bool {
        self.age_ns(steady_ns) >= self.made.silent_after_ns()
    }

    /// Reports missing between the first and the last kept one of the shown
    /// epoch.
    pub fn missing(&self) -> u64 {
        if self.epoch_reports == 0 {
            return 0;
        }
        (self.sequence_last - self.sequence_first + 1).saturating_sub(self.epoch_reports)
    }
}

const COLUMNS: &str = "key, id, first_seen_ns, last_seen_ns, reports, conflicts, epoch, \
                       sequence_first, sequence_last, epoch_reports";

/// A row, and whether it is as it was written.
pub(super) struct KeptRow {
    pub(super) row: HostRow,
    pub(super) intact: bool,
}

fn checksum(row: &HostRow) -> u32 {
    let numbers = [
        row.first_seen_ns,
        row.last_seen_ns,
        row.reports,
        row.conflicts,
        row.epoch,
        row.sequence_first,
        row.sequence_last,
        row.epoch_reports,
    ];
    let named = Checksum::default().number(row.key).text(&row.id);
    let all = numbers
        .into_iter()
        .fold(named, |sum, number| sum.number(to_sql(number)));
    all.finish()
}

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<KeptRow> {
    let number = |i| row.get::<_, i64>(i).map(from_sql);
    let kept: i64 = row.get(10)?;
    let row = HostRow {
        key: row.get(0)?,
        id: text(row, 1)?,
        first_seen_ns: number(2)?,
        last_seen_ns: number(3)?,
        seen_steady_ns: number(3)?.min(steady_ns()),
        reports: number(4)?,
        conflicts: number(5)?,
        epoch: number(6)?,
        sequence_first: number(7)?,
        sequence_last: number(8)?,
        epoch_reports: number(9)?,
        made: Made::default(),
    };
    let intact = kept == i64::from(checksum(&row));
    Ok(KeptRow { row, intact })
}

/// All rows as they are.
pub(super) fn rows(connection: &Connection) -> rusqlite::Result<Vec<KeptRow>> {
    connection
        .prepare(&format!("SELECT {COLUMNS}, checksum FROM hosts"))?
        .query_map([], from_row)?
        .collect()
}

/// Writes a row, new or changed.
pub(super) fn save(connection: &Connection, row: &HostRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&format!(
            "INSERT INTO hosts ({COLUMNS}, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (key) DO UPDATE SET last_seen_ns = ?4, reports = ?5, conflicts = ?6,
               epoch = ?7, sequence_first = ?8, sequence_last = ?9, epoch_reports = ?10,
               checksum = ?11"
        ))?
        .execute(params![
            row.key,
            row.id,
            to_sql(row.first_seen_ns),
            to_sql(row.last_seen_ns),
            to_sql(row.reports),
            to_sql(row.conflicts),
            to_sql(row.epoch),
            to_sql(row.sequence_first),
            to_sql(row.sequence_last),
            to_sql(row.epoch_reports),
            checksum(row),
        ])
        .map(drop)
}

/// Damaged reports that are passed over to find one that can be read.
pub(super) const DAMAGED_MAX: usize = 1000;

/// A host's newest report that can be read, its body, and when it was received.
pub(super) fn newest(
    connection: &Connection,
    row: &HostRow,
    damaged: &mut Vec<Damage>,
) -> rusqlite::Result<Option<(v1::Report, Vec<u8>, u64)>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {} FROM reports WHERE host = ? AND epoch = ? ORDER BY sequence DESC",
        reports::COLUMNS
    ))?;
    let mut rows = statement.query(params![row.key, to_sql(row.epoch)])?;
    while let Some(row) = rows.next()?
        && damaged.len() < DAMAGED_MAX
    {
        let stored = reports::from_row(row)?;
        match kept::read(&stored) {
            Ok(report) => return Ok(Some((report, stored.body, stored.received_ns))),
            Err(error) => damaged.push(Damage::new(connection, stored.at, &error)),
        }
    }
    Ok(None)
}

/// Forgets a host of which no report is left.
pub(super) fn remove(connection: &Connection, key: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM hosts WHERE key = ?")?
        .execute([key])
        .map(drop)
}

/// The first kept sequence of the row's epoch.
pub(super) fn first_sequence(connection: &Connection, row: &HostRow) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT min(sequence) FROM reports WHERE host = ? AND epoch = ?")?
        .query_row(params![row.key, to_sql(row.epoch)], |row| {
            row.get::<_, Option<i64>>(0)
        })
        .map(|sequence| sequence.map_or(row.sequence_last, from_sql))
}

/// Finds the epoch of the newest report that is left and counts what is kept of
/// it.
pub(super) fn recount(connection: &Connection, row: &mut HostRow) -> rusqlite::Result<()> {
    let sql = format!(
        "SELECT epoch, window_end_ns, {AGES_FROM} FROM reports WHERE host = ?
         ORDER BY window_end_ns DESC, epoch DESC, sequence DESC LIMIT 1"
    );
    let (epoch, window_end_ns, received_ns) = connection.query_row(&sql, [row.key], |found| {
        let number = |i| found.get::<_, i64>(i).map(from_sql);
        Ok((number(0)?, number(1)?, number(2)?))
    })?;
    row.epoch = epoch;
    row.made = Made::new(window_end_ns, received_ns, row.made.window_ns).kept();
    recount_epoch(connection, row)
}

/// Counts what is kept of the row's epoch.
pub(super) fn recount_epoch(connection: &Connection, row: &mut HostRow) -> rusqlite::Result<()> {
    let counted = connection.query_row(
        "SELECT min(sequence), max(sequence), count(*) FROM reports WHERE host = ? AND epoch = ?",
        params![row.key, to_sql(row.epoch)],
        |found| {
            let number = |i| found.get::<_, i64>(i).map(from_sql);
            Ok((number(0)?, number(1)?, number(2)?))
        },
    )?;
    (row.sequence_first, row.sequence_last, row.epoch_reports) = counted;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// A report of a window of 5 s that came at once.
    fn at(s: u64) -> Made {
        Made::new(s * S, s * S, 5 * S)
    }

    #[test]
    fn gaps_are_counted_within_the_shown_epoch_only() {
        let mut row = HostRow::new(1, "h".into(), 0);
        assert_eq!(row.missing(), 0);
        assert_eq!(row.count(10, 4, at(4)), Place::NewestOfOther);
        assert_eq!(row.count(10, 7, at(7)), Place::Newest);
        assert_eq!(row.missing(), 2);
        assert_eq!(row.count(10, 5, at(5)), Place::Late);
        assert_eq!(row.count(10, 2, at(2)), Place::Late);
        assert_eq!(row.missing(), 2);
        assert_eq!(row.count(11, 1, at(8)), Place::NewestOfOther);
        assert_eq!(row.missing(), 0);
        assert_eq!(row.count(10, 6, at(0)), Place::Late);
        assert_eq!((row.missing(), row.reports, row.sequence_last), (0, 6, 1));
    }

    #[test]
    fn of_two_epochs_the_later_is_shown_until_it_is_silent() {
        let mut row = HostRow::new(1, "h".into(), 0);
        let (a, b) = (1_000, 50_000);
        assert_eq!(row.count(a, 1, at(45)), Place::NewestOfOther);
        assert_eq!(row.count(b, 1, at(55)), Place::NewestOfOther);
        // What the first had not delivered before the second began is no sign of two.
        assert_eq!(row.count(a, 2, at(49)), Place::Late);
        assert_eq!(row.count(a, 3, at(60)), Place::Beside);
        assert_eq!(row.count(b, 2, at(60)), Place::Newest);
        // The second has ended.
        assert_eq!(row.count(a, 4, at(119)), Place::Beside);
        assert_eq!(row.count(a, 5, at(120)), Place::NewestOfOther);
        // It delivers what it had kept, and then runs again.
        assert_eq!(row.count(b, 3, at(65)), Place::Late);
        assert_eq!(row.count(b, 4, at(125)), Place::NewestOfOther);
    }

    #[test]
    fn a_clock_that_is_set_hides_no_report() {
        let mut row = HostRow::new(1, "h".into(), 0);
        let came = |end_s, s| Made::new(end_s * S, s * S, 5 * S);
        // Set back within an epoch.
        assert_eq!(row.count(1, 1, came(5_000, 5_000)), Place::NewestOfOther);
        assert_eq!(row.count(1, 2, came(1_000, 5_005)), Place::Newest);
        // Ahead, and set right as another epoch begins.
        assert_eq!(row.count(1, 3, came(90_000, 5_010)), Place::Newest);
        assert_eq!(row.count(2, 1, came(5_015, 5_015)), Place::NewestOfOther);
        assert!(!row.silent(5_074 * S) && row.silent(5_075 * S));
    }

    #[test]
    fn a_silent_host_is_as_old_as_it_is_whatever_the_clock_was_set_to() {
        const DAYS_40: u64 = 40 * 86_400 * S;
        let mut row = HostRow::new(1, "h".into(), 0);
        let came = |now_s: u64, steady_s: u64| Made {
            steady_ns: steady_s * S,
            ..Made::new(now_s * S + DAYS_40, now_s * S + DAYS_40, 5 * S)
        };
        // It came while the clock was 40 days ahead, and was the last.
        row.count(1, 1, came(100, 100));
        row.seen(100 * S + DAYS_40, 100 * S);
        assert_eq!(
            row.last_seen_ns(101 * S + DAYS_40, 101 * S),
            100 * S + DAYS_40
        );
        for (steady_s, silent) in [(101, false), (159, false), (160, true), (500, true)] {
            assert_eq!(row.silent(steady_s * S), silent, "{steady_s}");
            // The clock was set right.
            assert_eq!(row.last_seen_ns(steady_s * S, steady_s * S), 100 * S);
        }
    }

    #[test]
    fn silence_is_judged_by_the_hosts_own_windows() {
        for (window_s, silent_s) in [(5, 60), (3_600, 9_000)] {
            let mut row = HostRow::new(1, "h".into(), 0);
            row.count(1, 1, Made::new(0, 0, window_s * S));
            assert!(!row.silent(silent_s * S - 1) && row.silent(silent_s * S));
        }
    }
}
