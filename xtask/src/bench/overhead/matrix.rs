//! What is compared under which load.

use clap::ValueEnum;

/// Whose sockets are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Target {
    /// Ours.
    Proxy,
    /// nginx, as Debian has it.
    Nginx,
}

/// What watches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watching {
    /// Nothing: what the others are compared with.
    None,
    /// Programs of level tcp; the agent was killed.
    Tcp,
    /// Programs of level http; the agent was killed.
    Http,
    /// Programs of level http, and an agent that samples and reports.
    Agent,
}

pub(super) const CASES: [Watching; 4] = [
    Watching::None,
    Watching::Tcp,
    Watching::Http,
    Watching::Agent,
];

/// One target under one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) target: Target,
    pub(super) connections: usize,
    pub(super) answer_bytes: u64,
}

/// Every cell that the filters leave.
pub(super) fn cells(
    target: Option<Target>,
    connections: Option<usize>,
    answer_bytes: Option<u64>,
) -> Vec<Cell> {
    let chosen =
        |one: Option<usize>, usual: [usize; 2]| one.map_or(usual.to_vec(), |one| vec![one]);
    let sizes = answer_bytes.map_or(vec![100, 64 << 10], |one| vec![one]);
    let targets = target.map_or(vec![Target::Nginx, Target::Proxy], |one| vec![one]);
    let mut cells = Vec::new();
    for target in targets {
        for connections in chosen(connections, [64, 1_000]) {
            for &answer_bytes in &sizes {
                cells.push(Cell {
                    target,
                    connections,
                    answer_bytes,
                });
            }
        }
    }
    cells
}

impl Cell {
    /// Such as `nginx c64 100B level=http`.
    pub(super) fn name(self, watching: Watching) -> String {
        let target = match self.target {
            Target::Proxy => "proxy",
            Target::Nginx => "nginx",
        };
        let size = match self.answer_bytes {
            bytes if bytes >= 1024 && bytes.is_multiple_of(1024) => format!("{}KiB", bytes / 1024),
            bytes => format!("{bytes}B"),
        };
        let watching = match watching {
            Watching::None => "none",
            Watching::Tcp => "level=tcp",
            Watching::Http => "level=http",
            Watching::Agent => "level=http agent",
        };
        format!("{target} c{} {size} {watching}", self.connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cases_of_all_cells_have_names_of_their_own() {
        let cells = cells(None, None, None);
        assert_eq!(cells.len(), 8);
        let names: std::collections::BTreeSet<String> = cells
            .iter()
            .flat_map(|cell| CASES.map(|case| cell.name(case)))
            .collect();
        assert_eq!(names.len(), 32);
        assert!(names.contains("nginx c1000 64KiB level=http"));
    }

    #[test]
    fn a_filter_leaves_one() {
        let cells = cells(Some(Target::Proxy), Some(9), Some(1500));
        let names: Vec<_> = cells.iter().map(|c| c.name(Watching::None)).collect();
        assert_eq!(names, ["proxy c9 1500B none"]);
    }
}
