//! What to watch, and how.

use std::{path::PathBuf, time::Duration};

use kernel_sample::{ClientPrefixes, Level};
use monitor_common::{ENDPOINTS_MAX_DEFAULT, client::CLIENTS_MAX};

use crate::object::PARTS_MAX;

/// What looking at the live sockets may take of a core unless told otherwise.
const DUMP_BUDGET: f64 = 0.01;

/// How much the programs themselves log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelLog {
    /// Nothing, at no cost.
    #[default]
    Off,
    /// What is unusual.
    Info,
    /// Every connection.
    Debug,
}

/// How the programs are loaded.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// A directory on a bpffs that holds the pins.
    pub pin_dir: PathBuf,
    /// What the programs look at.
    pub level: Level,
    /// How many endpoints a target can have.
    pub endpoints_max: u32,
    /// How many bits of a client's address count; `None` counts no clients.
    pub client_prefixes: Option<ClientPrefixes>,
    /// Of how many clients ended connections are kept until they are reported; what
    /// comes beyond is in the endpoints' counters alone.
    pub clients_max: u32,
    /// An endpoint without a connection, and without a change for so long, gives its
    /// place to others; its totals are kept.
    pub retire_after: Duration,
    /// The share of a core that looking at the live sockets may take; they are
    /// looked at less often where it is not enough.
    pub dump_budget: f64,
    /// How many parts of a segment level http reads, where the kernel's verifier lets
    /// it: a head has one for each 64 bytes.
    pub parts_max: u32,
    /// How much the programs log.
    pub log: KernelLog,
}

impl KernelOptions {
    /// The defaults below a directory of pins.
    #[must_use]
    pub fn new(pin_dir: PathBuf) -> Self {
        Self {
            pin_dir,
            level: Level::Http,
            endpoints_max: ENDPOINTS_MAX_DEFAULT,
            client_prefixes: Some(ClientPrefixes::default()),
            clients_max: CLIENTS_MAX,
            retire_after: Duration::from_secs(3_600),
            dump_budget: DUMP_BUDGET,
            parts_max: PARTS_MAX,
            log: KernelLog::Off,
        }
    }
}
