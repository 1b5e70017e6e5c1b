//! What is measured: how many connections ask for what.

/// How clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// In clear, with connections that live on.
    Off,
    /// By TLS, with connections that live on.
    KeepAlive,
    /// By TLS, with a connection and a full handshake for each request.
    New,
}

/// One load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) connections: usize,
    pub(super) path: &'static str,
    size: &'static str,
    pub(super) tls: Tls,
}

const fn plain(connections: usize, path: &'static str, size: &'static str) -> Cell {
    Cell {
        connections,
        path,
        size,
        tls: Tls::Off,
    }
}

const fn secure(connections: usize, tls: Tls) -> Cell {
    Cell {
        connections,
        path: "/",
        size: "100B",
        tls,
    }
}

pub(super) const CELLS: [Cell; 8] = [
    plain(64, "/", "100B"),
    plain(1_000, "/", "100B"),
    plain(5_000, "/", "100B"),
    plain(9_000, "/", "100B"),
    plain(64, "/64k", "64KiB"),
    plain(64, "/1m", "1MiB"),
    secure(64, Tls::KeepAlive),
    secure(64, Tls::New),
];

impl Cell {
    /// Such as `c64 100B tls`.
    pub(super) fn name(self) -> String {
        let tls = match self.tls {
            Tls::Off => "",
            Tls::KeepAlive => " tls",
            Tls::New => " tls-new",
        };
        format!("c{} {}{tls}", self.connections, self.size)
    }

    /// Many connections take a while to come, which must not be most of what
    /// is measured.
    pub(super) fn seconds(self, usual: u64) -> u64 {
        if self.connections >= 5_000 {
            2 * usual
        } else {
            usual
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_cells_apart() {
        let names: std::collections::BTreeSet<String> =
            CELLS.iter().map(|cell| cell.name()).collect();
        assert_eq!(names.len(), CELLS.len());
        assert!(names.contains("c64 100B tls-new"));
        assert!(names.contains("c9000 100B"));
    }
}
