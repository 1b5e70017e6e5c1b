//! What could not be counted, by reason.

/// An index into [`Lost::counts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Loss {
    /// A connection was counted under `other`: the map of endpoints is full.
    EndpointMapFull = 0,
    /// A connection could not be followed: no memory for its storage.
    SocketStorage = 1,
    /// A packet came without a full socket.
    NoSocket = 2,
    /// Payload of a connection that is neither followed nor adopted.
    UntrackedSocket = 3,
    /// A callback came without a socket or without its storage.
    UntrackedCallback = 4,
    /// A packet's headers could not be read.
    Headers = 5,
    /// An adopted connection ended while nobody looked, or was reset by its own
    /// process: what it carried since it was looked at last is missing.
    AdoptedUnseen = 6,
    /// The kernel had more ends of adopted connections to tell than there was
    /// room for.
    EndsOverrun = 7,
    /// Another `sock_ops` program took our callbacks away from a connection: what
    /// happened until the next one came was not told.
    CallbacksTaken = 8,
    /// A packet of a TCP socket held no TCP segment where one is looked for: it was
    /// encapsulated on its way out (`IPsec`, `SRv6`), or had IPv6 extension headers.
    Encapsulated = 9,
    /// Segments were lost on their way and came in an order in which a request or a
    /// response among them passed unseen.
    PassedOver = 10,
    /// A TLS handshake could not be followed: no memory for its storage.
    TlsStorage = 11,
}

/// How many reasons there are.
pub const LOSSES: usize = 12;

/// How many there is room for.
pub const LOSSES_MAX: usize = 16;

/// What one CPU lost, by [`Loss`]; cache lines of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Lost {
    /// The counts.
    pub counts: [u64; LOSSES_MAX],
}

const _: () = assert!(size_of::<Lost>() == 128);

impl Loss {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; LOSSES] = [
        Self::EndpointMapFull,
        Self::SocketStorage,
        Self::NoSocket,
        Self::UntrackedSocket,
        Self::UntrackedCallback,
        Self::Headers,
        Self::AdoptedUnseen,
        Self::EndsOverrun,
        Self::CallbacksTaken,
        Self::Encapsulated,
        Self::PassedOver,
        Self::TlsStorage,
    ];

    /// Its name in reports and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndpointMapFull => "endpoint_map_full",
            Self::SocketStorage => "socket_storage",
            Self::NoSocket => "no_socket",
            Self::UntrackedSocket => "untracked_socket",
            Self::UntrackedCallback => "untracked_callback",
            Self::Headers => "headers",
            Self::AdoptedUnseen => "adopted_unseen",
            Self::EndsOverrun => "ends_overrun",
            Self::CallbacksTaken => "callbacks_taken",
            Self::Encapsulated => "encapsulated",
            Self::PassedOver => "passed_over",
            Self::TlsStorage => "tls_storage",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_stands_at_its_index() {
        for (i, loss) in Loss::ALL.into_iter().enumerate() {
            assert_eq!(loss as usize, i);
        }
    }
}
