//! The kernel object and the names of what is in it.

use kernel_sample::Level;
use monitor_common::http::FEW_PARTS;

use crate::{KernelLog, capabilities};

/// The programs and maps, as `monitor-ebpf` makes them.
pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/speedmimi.bpf.o"));

/// The maps that are pinned, by their names in the object.
pub(crate) mod maps {
    pub(crate) const SOCKETS: &str = "SOCKETS";
    pub(crate) const PROXY_HEADERS: &str = "PROXY_HEADERS";
    pub(crate) const HELLOS: &str = "HELLOS";
    pub(crate) const ENDPOINTS: &str = "ENDPOINTS";
    pub(crate) const FREE_SLOTS: &str = "FREE_SLOTS";
    pub(crate) const COUNTERS: &str = "COUNTERS";
    pub(crate) const KEYS: &str = "KEYS";
    pub(crate) const LOST: &str = "LOST";
    pub(crate) const HANDSHAKES: &str = "HANDSHAKES";
    pub(crate) const NAMESPACES: &str = "NAMESPACES";
    pub(crate) const ADOPTED: &str = "ADOPTED";
    pub(crate) const CLIENTS: &str = "CLIENTS";
    pub(crate) const CLIENT_CONTROL: &str = "CLIENT_CONTROL";
    /// Made by the agent: what it knows of each adopted connection.  Its pin has the
    /// name that earlier agents gave it.
    pub(crate) const JOURNAL: &str = "LEDGER";
    /// A larger journal until it is whole.
    pub(crate) const NEW_JOURNAL: &str = "LEDGER_new";
    /// Made by the agent, last: see [`monitor_common::meta::Meta`].
    pub(crate) const META: &str = "META";

    pub(crate) const ALL: [&str; 13] = [
        SOCKETS,
        PROXY_HEADERS,
        HELLOS,
        ENDPOINTS,
        FREE_SLOTS,
        COUNTERS,
        KEYS,
        LOST,
        HANDSHAKES,
        NAMESPACES,
        ADOPTED,
        CLIENTS,
        CLIENT_CONTROL,
    ];

    /// The totals of endpoints that gave their place to others.
    pub(crate) const RETIRED: &str = "RETIRED";

    /// The maps that are the agent's own.
    pub(crate) const OWN: [&str; 3] = [JOURNAL, NEW_JOURNAL, RETIRED];
}

/// How many stripes a slot has: those of the CPUs, and the last one for the agent.
pub(crate) const STRIPES: &str = "PLACES";

/// Changes with the level.
pub(crate) const GENERATION: &str = "GENERATION";

/// Whether packets are looked at.
pub(crate) const PACKETS: &str = "PACKETS";

/// The constant with the number of parts of a segment that are read.
pub(crate) const PARTS: &str = "PARTS";

/// Its value where the kernel's verifier lets it be: heads of about 1,400 bytes.
pub(crate) const PARTS_MAX: u32 = 24;

/// The values to try, the best first.  The verifier lets heads be read to their ends only
/// where the processor may speculate amid it, which `CAP_PERFMON` allows, and where it
/// does not tire of following all the ways through them, as older ones may.
pub(crate) fn parts(max: u32) -> impl Iterator<Item = u32> {
    let many = (max > FEW_PARTS && capabilities::has_perfmon()).then_some(max);
    many.into_iter().chain([FEW_PARTS])
}

/// The programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Connect4,
    Connect6,
    Release,
    SocketEvents(SocketEvents),
    Ingress(Packets),
    Egress(Packets),
}

/// Which of the programs that look at packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packets {
    /// They see the records of TLS handshakes.
    sees_records: bool,
}

impl Packets {
    /// Those that read so many parts of a segment.
    pub(crate) const fn of(parts: u32) -> Self {
        Self {
            sees_records: parts > FEW_PARTS,
        }
    }
}

/// Which of the programs that follow sockets' events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketEvents {
    /// It reads a response's head when its connection ends.
    reads_heads: bool,
    logs: bool,
}

impl Program {
    /// Those of a level, in the order in which they are attached: what a packet's
    /// program needs is set up by the socket's, and an attempt is noted only where the
    /// SYN that takes it back is seen.  Those of level http alone are among them.
    pub(crate) fn all(level: Level, log: KernelLog, parts: u32) -> [Self; 6] {
        let events = SocketEvents {
            reads_heads: level == Level::Http && parts > FEW_PARTS,
            logs: log != KernelLog::Off,
        };
        Self::with(events, Packets::of(parts))
    }

    /// Every program that a level loads, those of level http alone last.
    pub(crate) fn each(parts: u32) -> impl Iterator<Item = Self> {
        let of = move |level| Self::all(level, KernelLog::Off, parts).into_iter();
        let tcp = of(Level::Tcp).filter(|program| !program.is_of_http());
        tcp.chain(of(Level::Http).filter(|program| program.is_of_http()))
    }

    /// Whether level tcp does without it.
    pub(crate) const fn is_of_http(self) -> bool {
        match self {
            Self::SocketEvents(events) => events.reads_heads,
            _ => self.http_only(),
        }
    }

    /// All links, whichever program of its kind is behind one.
    pub(crate) fn links() -> [&'static str; 6] {
        Self::with(SocketEvents::default(), Packets::default()).map(Self::link)
    }

    const fn with(events: SocketEvents, packets: Packets) -> [Self; 6] {
        [
            Self::SocketEvents(events),
            Self::Release,
            Self::Connect4,
            Self::Connect6,
            Self::Ingress(packets),
            Self::Egress(packets),
        ]
    }

    /// Its name in the object.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Release => "release",
            Self::SocketEvents(events) => match (events.reads_heads, events.logs) {
                (false, false) => "socket_events",
                (false, true) => "socket_events_logged",
                (true, false) => "socket_events_http",
                (true, true) => "socket_events_http_logged",
            },
            Self::Ingress(packets) if packets.sees_records => "ingress_tls",
            Self::Egress(packets) if packets.sees_records => "egress_tls",
            Self::Ingress(_) => "ingress",
            Self::Egress(_) => "egress",
        }
    }

    /// Its link's name among the pins.
    pub(crate) const fn link(self) -> &'static str {
        match self {
            Self::Connect4 => "link_connect4",
            Self::Connect6 => "link_connect6",
            Self::Release => "link_release",
            Self::SocketEvents(_) => "link_socket_events",
            Self::Ingress(_) => "link_ingress",
            Self::Egress(_) => "link_egress",
        }
    }

    /// Whether only level http needs it.
    pub(crate) const fn http_only(self) -> bool {
        match self {
            Self::Ingress(_) | Self::Egress(_) => true,
            Self::SocketEvents(events) => events.reads_heads,
            Self::Connect4 | Self::Connect6 | Self::Release => false,
        }
    }
}
