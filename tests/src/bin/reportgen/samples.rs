//! How many samples a report has.

use monitor_proto::{
    figures::{CONNECTIONS_FAILED, COUNTERS, HOST_GAUGES, Number},
    v1,
};

/// The stored values of a report.
pub(super) fn of(report: &v1::Report) -> u64 {
    let endpoints: u64 = report.endpoints.iter().map(of_endpoint).sum();
    let host = report.host_metrics.as_ref().map_or(0, of_host);
    let losses = report.losses.values().chain(report.losses_totals.values());
    endpoints + host + stored(losses.copied())
}

fn of_endpoint(e: &v1::Endpoint) -> u64 {
    let counters = [&e.window, &e.totals].into_iter().flatten();
    let srtt = e
        .srtt
        .as_ref()
        .map_or(0, |s| stored([s.samples, s.min_us, s.mean_us, s.max_us]));
    let queue = e.accept_queue.as_ref().map_or(0, |q| {
        stored([
            q.connections,
            q.connections_max,
            q.limit,
            q.drops,
            q.drops_total,
        ])
    });
    counters.map(of_counters).sum::<u64>() + srtt + queue + stored([e.connections_active])
}

fn of_counters(c: &v1::Counters) -> u64 {
    let plain = COUNTERS.iter();
    let plain = plain.filter_map(|counter| match (counter.figure.read)(c)? {
        Number::Integer(n) => Some(n),
        Number::Float(_) => None,
    });
    let failed = c.connections_failed.as_ref().map_or(0, |failed| {
        let reasons = CONNECTIONS_FAILED.iter();
        stored(reasons.map(|reason| (reason.read)(failed)))
    });
    let http = c.http.as_ref().map_or(0, of_http);
    stored(plain) + failed + of_histogram(c.connect_duration.as_ref()) + http
}

fn of_http(h: &v1::HttpCounters) -> u64 {
    let maps = h
        .requests_by_method
        .values()
        .chain(h.responses_by_code.values());
    stored([h.requests]) + stored(maps.copied()) + of_histogram(h.exchange_duration.as_ref())
}

fn of_histogram(h: Option<&v1::Histogram>) -> u64 {
    h.map_or(0, |h| stored([h.count, h.sum_ns]) + h.buckets.len() as u64)
}

fn of_host(m: &v1::HostMetrics) -> u64 {
    let gauges = HOST_GAUGES.iter();
    let gauges = gauges.filter(|gauge| (gauge.figure.read)(m).is_some());
    4 * gauges.count() as u64 + m.core_usage.len() as u64
}

fn stored(values: impl IntoIterator<Item = u64>) -> u64 {
    values.into_iter().filter(|&value| value != 0).count() as u64
}
