//! The top sockets by payload bytes.

use monitor_common::tcp::state;
use monitor_proto::v1;

use super::wire;
use kernel_sample::SocketSample;

/// How many sockets a report shows.
const TOP_MAX: usize = 10;

/// The live sockets with the most payload, most first.
pub(super) fn top(sockets: &[SocketSample], monotonic_ns: u64) -> Vec<v1::SocketSummary> {
    let mut top: Vec<_> = sockets.iter().collect();
    let bytes = |s: &&SocketSample| {
        let (received, sent) = s.live.payload(s.endpoint.role);
        let carried = received + sent;
        // Among equals the order is that of the cookies, not that of the dump.
        (std::cmp::Reverse(carried), s.live.cookie)
    };
    if top.len() > TOP_MAX {
        top.select_nth_unstable_by_key(TOP_MAX, bytes);
        top.truncate(TOP_MAX);
    }
    top.sort_by_key(bytes);
    top.into_iter().map(|s| summary(s, monotonic_ns)).collect()
}

/// One live socket, as reports show it.
#[must_use]
pub fn summary(socket: &SocketSample, monotonic_ns: u64) -> v1::SocketSummary {
    let live = &socket.live;
    let followed = live.storage;
    let (bytes_received, bytes_sent) = live.payload(socket.endpoint.role);
    // Nobody saw an adopted connection being opened.
    let opened_at_ns = followed.map(|s| s.stream.opened_at_ns).filter(|&at| at > 0);
    v1::SocketSummary {
        cookie: live.cookie,
        role: wire::role(socket.endpoint.role).into(),
        local: live.local.to_string(),
        remote: live.remote.to_string(),
        client: live.client.map_or_else(String::new, |c| c.to_string()),
        state: state_name(live.state).to_owned(),
        target: socket.endpoint.target.to_string(),
        age_ms: opened_at_ns.map(|at| monotonic_ns.saturating_sub(at) / 1_000_000),
        bytes_received,
        bytes_sent,
        retransmits: live.reading.total_retrans.into(),
        srtt_us: live.srtt_us.into(),
        requests: followed.map_or(0, |s| s.exchange.requests.into()),
        pipelined: followed.is_some_and(|s| s.exchange.is_pipelined()),
    }
}

/// As `tcp_states.h` has it.
fn state_name(number: u8) -> &'static str {
    match number {
        state::ESTABLISHED => "ESTABLISHED",
        state::SYN_SENT => "SYN_SENT",
        state::SYN_RECV => "SYN_RECV",
        state::FIN_WAIT1 => "FIN_WAIT1",
        state::FIN_WAIT2 => "FIN_WAIT2",
        state::TIME_WAIT => "TIME_WAIT",
        state::CLOSE => "CLOSE",
        state::CLOSE_WAIT => "CLOSE_WAIT",
        state::LAST_ACK => "LAST_ACK",
        state::CLOSING => "CLOSING",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use monitor_common::{endpoint::Role, tcp::Reading};

    use super::*;
    use kernel_sample::{EndpointAddress, EndpointId, LiveSocket};

    /// In `CLOSE_WAIT`, so that it has received a FIN besides.
    pub(crate) fn socket(cookie: u64, bytes_received: u64) -> SocketSample {
        let peer = ([127, 0, 0, 1], 80).into();
        SocketSample {
            endpoint: EndpointId {
                target: Arc::from("/web"),
                role: Role::Upstream,
                address: EndpointAddress::Socket(peer),
            },
            live: LiveSocket {
                cookie,
                local: ([127, 0, 0, 1], 40_000).into(),
                remote: peer,
                state: state::CLOSE_WAIT,
                cgroup_id: 1,
                srtt_us: 5,
                last_ack_recv_ms: 0,
                reading: Reading {
                    bytes_received: bytes_received + 1,
                    ..Reading::default()
                },
                payload_sent: 0,
                receive_queue: 0,
                send_queue: 0,
                storage: None,
                client: None,
            },
        }
    }

    #[test]
    fn the_sockets_that_carried_most_are_shown_most_first() {
        let sockets: Vec<_> = (0..50).map(|n| socket(n, n * 7 % 50)).collect();
        let top = top(&sockets, 0);
        let carried: Vec<_> = top.iter().map(|s| s.bytes_received).collect();
        assert_eq!(carried, (40..50).rev().collect::<Vec<_>>());
        assert_eq!((top[0].state.as_str(), top[0].srtt_us), ("CLOSE_WAIT", 5));
    }

    #[test]
    fn the_client_behind_a_balancer_is_beside_the_balancer() {
        let mut of_balancer = socket(1, 1);
        assert_eq!(summary(&of_balancer, 0).client, "");
        of_balancer.live.client = Some(([192, 0, 2, 1], 56_324).into());
        let shown = summary(&of_balancer, 0);
        assert_eq!(shown.client, "192.0.2.1:56324");
        assert_eq!(shown.remote, "127.0.0.1:80");
    }

    #[test]
    fn a_socket_that_is_not_followed_has_no_age() {
        let top = top(&[socket(1, 1)], 9_000_000);
        assert_eq!((top.len(), top[0].age_ms, top[0].requests), (1, None, 0));
        let mut followed = socket(1, 1);
        let mut storage = monitor_common::socket::Socket::default();
        storage.stream.opened_at_ns = 2_000_000;
        followed.live.storage = Some(storage);
        assert_eq!(summary(&followed, 9_000_000).age_ms, Some(7));
    }
}
