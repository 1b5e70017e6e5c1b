//! What the sum of many windows comes to.

use monitor_proto::{
    figures::Seen,
    json::{Responses, SummaryDurations, SummaryFigures},
    protocol::Protocol,
};
use rollup::{EndpointRoll, ROLLED_COUNTERS};

/// `None` where the sum covers no time.
pub(super) fn figures(sum: &EndpointRoll) -> Option<SummaryFigures> {
    if sum.covered_ns == 0 {
        return None;
    }
    let counters = ROLLED_COUNTERS.iter().map(|counter| {
        let seen = sum.seen_ns(counter.seen) > 0;
        let n = (counter.read)(sum).filter(|_| seen);
        (counter.name.to_owned(), n)
    });
    let failed = (
        "connections_failed".to_owned(),
        Some(sum.connections_failed),
    );
    let responses = (sum.seen_ns(Seen::Http1) > 0).then_some(Responses {
        informational: sum.responses_1xx,
        successful: sum.responses_2xx,
        redirection: sum.responses_3xx,
        client_error: sum.responses_4xx,
        server_error: sum.responses_5xx,
    });
    Some(SummaryFigures {
        protocol: protocol(sum),
        counters: counters.chain([failed]).collect(),
        server_error_ratio: responses.and_then(server_error_ratio),
        responses,
        exchange_duration: SummaryDurations::of(&sum.exchange_duration),
        connect_duration: SummaryDurations::of(&sum.connect_duration),
        complete: sum.incomplete == 0,
    })
}

/// As problems have it: interim responses answer nothing.
fn server_error_ratio(r: Responses) -> Option<f64> {
    let of_final = [r.successful, r.redirection, r.client_error, r.server_error];
    let all = of_final.into_iter().fold(0, u64::saturating_add);
    (all > 0).then(|| r.server_error as f64 / all as f64)
}

/// As `Protocol::of` tells it of one window.
fn protocol(sum: &EndpointRoll) -> Option<Protocol> {
    if sum.seen_ns(Seen::Http) == 0 {
        return None;
    }
    let responses = [
        sum.responses_1xx,
        sum.responses_2xx,
        sum.responses_3xx,
        sum.responses_4xx,
        sum.responses_5xx,
    ];
    let unanswered = sum.later.requests_without_response.unwrap_or(0);
    let is_http1 = sum.requests > 0 || unanswered > 0 || responses != [0; 5];
    match (is_http1, sum.exchanges) {
        (true, 0) => Some(Protocol::Http1),
        (true, _) => Some(Protocol::Mixed),
        (false, 0) => None,
        (false, _) => Some(Protocol::Other),
    }
}
