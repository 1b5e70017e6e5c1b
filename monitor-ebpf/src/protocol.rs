//! What connections speak, counted once for each.

use monitor_common::{counters::EndpointCounters, http::Exchange};

use crate::count::bump_at;

/// Counts a connection of which the first bytes have just told.
#[inline(always)]
pub(crate) fn count(exchange: &mut Exchange, counters: *mut EndpointCounters) {
    if exchange.request_flags & Exchange::TOLD != 0 {
        exchange.request_flags &= !Exchange::TOLD;
        count_told(exchange, counters);
    }
}

/// A call, as it is made once for a connection and there is much of it.
#[inline(never)]
fn count_told(exchange: &Exchange, counters: *mut EndpointCounters) {
    bump_at!(
        counters,
        connections_by_protocol,
        exchange.spoken() as usize
    );
}
