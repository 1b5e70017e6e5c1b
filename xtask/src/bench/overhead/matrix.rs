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

/// Which connections carry more than one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum KeepAlive {
    /// Those of clients and those to backends.
    Both,
    /// Those of clients; a backend closes its own behind each response.
    Clients,
    /// None.
    None,
}

/// One target under one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) target: Target,
    pub(super) connections: usize,
    pub(super) answer_bytes: u64,
    pub(super) keep_alive: KeepAlive,
}

/// Every cell that the filters leave: without keep-alive one connection count and one
/// size will do.
pub(super) fn cells(
    target: Option<Target>,
    connections: Option<usize>,
    answer_bytes: Option<u64>,
    keep_alive: Option<KeepAlive>,
) -> Vec<Cell> {
    let targets = target.map_or(vec![Target::Nginx, Target::Proxy], |one| vec![one]);
    let modes = match keep_alive {
        Some(one) => vec![one],
        None => vec![KeepAlive::Both, KeepAlive::Clients, KeepAlive::None],
    };
    let mut cells = Vec::new();
    for target in targets {
        for &keep_alive in &modes {
            let (counts, sizes): (&[usize], &[u64]) = match keep_alive {
                KeepAlive::Both => (&[64, 1_000], &[100, 64 << 10]),
                KeepAlive::Clients | KeepAlive::None => (&[64], &[100]),
            };
            for &connections in connections
                .as_slice()
                .first()
                .map_or(counts, std::slice::from_ref)
            {
                for &answer_bytes in answer_bytes
                    .as_slice()
                    .first()
                    .map_or(sizes, std::slice::from_ref)
                {
                    cells.push(Cell {
                        target,
                        connections,
                        answer_bytes,
                        keep_alive,
                    });
                }
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
        let keep_alive = match self.keep_alive {
            KeepAlive::Both => "",
            KeepAlive::Clients => "keep-alive=clients ",
            KeepAlive::None => "keep-alive=none ",
        };
        format!(
            "{target} c{} {size} {keep_alive}{watching}",
            self.connections
        )
    }

    /// What the load generator is asked to send.
    pub(super) fn load(self) -> Vec<String> {
        let path = match self.keep_alive {
            KeepAlive::Both => "bytes",
            KeepAlive::Clients | KeepAlive::None => "close",
        };
        let mut arguments = vec![
            "--connections".to_owned(),
            self.connections.to_string(),
            "--exchange".to_owned(),
            format!("GET /{path}/{}", self.answer_bytes),
        ];
        if self.keep_alive == KeepAlive::None {
            arguments.push("--close".to_owned());
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cases_of_all_cells_have_names_of_their_own() {
        let cells = cells(None, None, None, None);
        assert_eq!(cells.len(), 12);
        let names: std::collections::BTreeSet<String> = cells
            .iter()
            .flat_map(|cell| CASES.map(|case| cell.name(case)))
            .collect();
        assert_eq!(names.len(), 48);
        assert!(names.contains("nginx c1000 64KiB level=http"));
        assert!(names.contains("nginx c64 100B keep-alive=none level=http"));
    }

    #[test]
    fn a_filter_leaves_one() {
        let keep_alive = Some(KeepAlive::Clients);
        let cells = cells(Some(Target::Proxy), Some(9), Some(1500), keep_alive);
        let names: Vec<_> = cells.iter().map(|c| c.name(Watching::None)).collect();
        assert_eq!(names, ["proxy c9 1500B keep-alive=clients none"]);
    }
}
