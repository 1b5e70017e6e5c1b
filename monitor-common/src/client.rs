//! What ended connections of a listener add up to, by their client's address.
//!
//! The programs add to an entry once, at a connection's end.  What finds no place is in
//! no entry: whoever reads them has the totals of the listeners, and what these have
//! besides.

/// The key of the clients' map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ClientKey {
    /// The client's address within its prefix, IPv4 as `::ffff:a.b.c.d`: the bytes in
    /// network order, as two words.
    pub address: [u64; 2],
    /// The [`ClientControl::generation`] when the connection ended: entries of one that
    /// is over change no more, and can be removed when they were reported.
    pub generation: u64,
}

const _: () = assert!(size_of::<ClientKey>() == 24);

/// What the ended connections of a client carried, from their beginning on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ClientCounters {
    /// Connections.
    pub connections: u64,
    /// Payload received in order.
    pub bytes_received: u64,
    /// Payload acknowledged by the client.
    pub bytes_sent: u64,
    /// HTTP/1 requests.
    pub requests: u64,
    /// Turns that were answered of streams that do not speak HTTP/1.
    pub exchanges: u64,
    /// HTTP/1 requests that were open when their connection ended.
    pub requests_without_response: u64,
    /// Connections that the client reset.
    pub closed_reset_received: u64,
    /// Connections that this host reset.
    pub closed_reset_sent: u64,
}

/// How many figures there are.
pub const CLIENT_FIGURES: usize = 8;

const _: () = assert!(size_of::<ClientCounters>() == CLIENT_FIGURES * size_of::<u64>());

impl ClientCounters {
    /// The figures in the order of the fields.
    #[must_use]
    pub const fn figures(&self) -> [u64; CLIENT_FIGURES] {
        [
            self.connections,
            self.bytes_received,
            self.bytes_sent,
            self.requests,
            self.exchanges,
            self.requests_without_response,
            self.closed_reset_received,
            self.closed_reset_sent,
        ]
    }

    /// The same back.
    #[must_use]
    pub const fn of(figures: [u64; CLIENT_FIGURES]) -> Self {
        let [
            connections,
            bytes_received,
            bytes_sent,
            requests,
            exchanges,
            requests_without_response,
            closed_reset_received,
            closed_reset_sent,
        ] = figures;
        Self {
            connections,
            bytes_received,
            bytes_sent,
            requests,
            exchanges,
            requests_without_response,
            closed_reset_received,
            closed_reset_sent,
        }
    }
}

/// What the agent tells the programs, in a map of one value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ClientControl {
    /// Which bits of an IPv4 client's address count, as [`ClientKey::address`].
    pub mask_v4: [u64; 2],
    /// The same of IPv6.
    pub mask_v6: [u64; 2],
    /// Moved on by the agent at each reading.
    pub generation: u64,
    /// 1 where clients are counted.
    pub is_on: u64,
    /// What an entry begins from: zeros that the programs need not write on their stack,
    /// which would be a call that goes byte by byte, and that takes `CAP_PERFMON`.
    pub none: ClientCounters,
}

const _: () = assert!(size_of::<ClientControl>() == 48 + size_of::<ClientCounters>());

/// How many entries the clients' map has: those that ended within two or three windows.
pub const CLIENTS_MAX: u32 = 8_192;
