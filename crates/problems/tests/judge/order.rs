//! In which order problems are told.

use problems::Kind;

use super::{CASES, Watched, kinds};

#[test]
fn the_worst_comes_first() {
    let mut watched = Watched::new(1);
    let mut problems = Vec::new();
    for _ in 0..4 {
        problems = watched.next(|host, report| {
            for wanted in [Kind::AgentNotes, Kind::DiskFull, Kind::ConnectFailures] {
                let mut cases = CASES.iter();
                let case = cases.find(|case| case.0 == wanted).unwrap();
                case.4(host, report);
            }
        });
    }
    assert_eq!(
        kinds(&problems),
        ["connect_failures", "disk_full", "agent_notes"]
    );
}
