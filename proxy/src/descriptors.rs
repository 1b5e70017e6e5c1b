//! File descriptors: how many the process may have, and what the last ones are
//! reserved for.
//!
//! Every new descriptor gets the lowest number that is free (open(2)), so a
//! number says how many are open at least, and nothing has to be counted. Clients
//! may take numbers up to three quarters, connections to backends all but a
//! reserve, and the reserve is left to the admin API, health checks, name look-ups
//! and files, which must work when the proxy is busiest.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Descriptors of the reserve, where the limit is not small.
const RESERVE_MAX: u64 = 128;

/// The descriptor numbers up to which clients and connections to backends may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorLimits {
    clients: u64,
    backends: u64,
}

impl DescriptorLimits {
    /// Those of a process which may have `limit` descriptors; `None`: any number.
    #[must_use]
    pub fn of(limit: Option<u64>) -> Self {
        let limit = limit.unwrap_or(u64::MAX);
        let backends = limit - RESERVE_MAX.min(limit / 8);
        Self {
            clients: backends / 4 * 3,
            backends,
        }
    }

    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::of(getrlimit(Resource::Nofile).current)
    }

    /// Whether a client may keep this descriptor.
    #[must_use]
    pub fn allows_client(self, descriptor: impl AsFd) -> bool {
        number(descriptor) < self.clients
    }

    /// Whether a connection to a backend may keep this descriptor.
    #[must_use]
    pub fn allows_backend(self, descriptor: impl AsFd) -> bool {
        number(descriptor) < self.backends
    }

    /// Whether a client that came now could keep its descriptor, of which this
    /// is a copy's source.
    #[must_use]
    pub fn is_available_for_client(self, any: impl AsFd) -> bool {
        rustix::io::fcntl_dupfd_cloexec(any, 0).is_ok_and(|lowest| self.allows_client(lowest))
    }
}

fn number(descriptor: impl AsFd) -> u64 {
    u64::try_from(descriptor.as_fd().as_raw_fd()).unwrap_or(u64::MAX)
}

/// Whether a connection could not be made for want of something of our own: a
/// descriptor, a local port, or memory. That says nothing about the other side.
#[must_use]
pub fn is_local_shortage(error: &io::Error) -> bool {
    let own = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::ADDRNOTAVAIL,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    Errno::from_io_error(error).is_some_and(|errno| own.contains(&errno))
}

/// Raises the limit as far as it goes; the soft one is often 1024.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// What to do where `server.max_conn` is more than the process has descriptors
/// for: each client may need a connection to a backend beside its own.
#[must_use]
pub fn shortage(config: &Config) -> Option<String> {
    shortage_of(config, getrlimit(Resource::Nofile).current)
}

fn shortage_of(config: &Config, limit: Option<u64>) -> Option<String> {
    let limit = limit?;
    let most = DescriptorLimits::of(Some(limit)).backends / 2;
    let wanted = config.connections_max.map(|max| max as u64);
    if wanted.is_some_and(|wanted| wanted <= most) {
        return None;
    }
    let wanted = wanted.map_or_else(|| "no limit".to_owned(), |wanted| wanted.to_string());
    Some(format!(
        "server.max_conn is {wanted}, but {limit} open files are enough for {most} clients that are all \
         served at once: raise the limit (LimitNOFILE= of the unit, ulimit -Hn), or lower server.max_conn"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_descriptors_are_for_backends_and_the_very_last_for_neither() {
        let room = |limit| {
            let DescriptorLimits { clients, backends } = DescriptorLimits::of(limit);
            (clients, backends)
        };
        assert_eq!(room(Some(1 << 20)), (786_336, 1_048_448));
        assert_eq!(room(Some(1024)), (672, 896));
        assert_eq!(room(Some(60)), (39, 53));
        assert!(room(None).0 > 1 << 40);
    }

    #[test]
    fn more_clients_than_descriptors_are_warned_of() {
        let config = |max: i64| Config::parse(&format!("server: {{max_conn: {max}}}")).unwrap();
        assert_eq!(shortage_of(&config(448), Some(1024)), None);
        let told = shortage_of(&config(449), Some(1024)).unwrap();
        assert!(
            told.contains("enough for 448 clients") && told.contains("LimitNOFILE"),
            "{told}"
        );
        assert!(
            shortage_of(&config(0), Some(1024))
                .unwrap()
                .contains("no limit")
        );
        assert_eq!(shortage_of(&config(0), None), None);
    }

    #[test]
    fn only_what_is_missing_here_is_an_own_shortage() {
        let own = |errno: Errno| is_local_shortage(&errno.into());
        assert!(own(Errno::MFILE) && own(Errno::ADDRNOTAVAIL));
        assert!(!own(Errno::CONNREFUSED) && !own(Errno::HOSTUNREACH));
        assert!(!is_local_shortage(&io::ErrorKind::TimedOut.into()));
    }
}
