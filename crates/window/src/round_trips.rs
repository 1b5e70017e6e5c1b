//! The round-trip times of a window.
//!
//! The programs sum up what their callbacks see, busy sockets a few times a second;
//! the dump shows every live socket as it is. The mean is that of both, and the
//! range that of the samples' means and of the sockets.

use std::collections::HashMap;

use super::Sample;
use kernel_sample::{EndpointId, SocketSample};

/// What is known of an endpoint's round-trip times beside its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoundTrips {
    /// The smallest one.
    pub(super) min_us: u64,
    /// The largest one.
    pub(super) max_us: u64,
    /// How many live sockets are among them.
    pub(super) sockets: u64,
    /// The sum of theirs.
    pub(super) sockets_sum_us: u64,
}

impl RoundTrips {
    const NONE: Self = Self {
        min_us: u64::MAX,
        max_us: 0,
        sockets: 0,
        sockets_sum_us: 0,
    };

    fn include(&mut self, us: u64) {
        self.min_us = self.min_us.min(us);
        self.max_us = self.max_us.max(us);
    }
}

/// The endpoints of which something was seen: the samples' means, and the live
/// sockets whose peer acknowledged something within the window.
pub(super) fn seen(
    samples: &[Sample],
    sockets: &[SocketSample],
    window_ns: u64,
) -> HashMap<EndpointId, RoundTrips> {
    let mut seen: HashMap<EndpointId, RoundTrips> = HashMap::new();
    for (id, mean_us) in samples.iter().flat_map(|s| &s.round_trips) {
        let of_endpoint = entry(&mut seen, id);
        of_endpoint.include(*mean_us);
    }
    let window_ms = window_ns / 1_000_000;
    let measured =
        |s: &&SocketSample| s.live.srtt_us > 0 && u64::from(s.live.last_ack_recv_ms) <= window_ms;
    for socket in sockets.iter().filter(measured) {
        let of_endpoint = entry(&mut seen, &socket.endpoint);
        let us = socket.live.srtt_us.into();
        of_endpoint.include(us);
        of_endpoint.sockets += 1;
        of_endpoint.sockets_sum_us += us;
    }
    seen
}

/// An endpoint's, without a copy of its name where it is there already.
fn entry<'a>(seen: &'a mut HashMap<EndpointId, RoundTrips>, id: &EndpointId) -> &'a mut RoundTrips {
    if !seen.contains_key(id) {
        seen.insert(id.clone(), RoundTrips::NONE);
    }
    seen.get_mut(id).expect("it was inserted just now")
}
