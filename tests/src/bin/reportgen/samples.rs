//! How many samples a report has.

use monitor_proto::v1;

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
    counters.map(of_counters).sum::<u64>() + srtt + stored([e.connections_active])
}

fn of_counters(c: &v1::Counters) -> u64 {
    let plain = stored([
        c.connections_adopted,
        c.connections_opened,
        c.connections_established,
        c.failed_before_syn,
        c.connections_closed,
        c.bytes_received,
        c.bytes_sent,
        c.bytes_unacked,
        c.packets_received,
        c.packets_sent,
        c.retransmits,
    ]);
    let failed = c.connections_failed.as_ref().map_or(0, |f| {
        stored([
            f.refused,
            f.timeout,
            f.reset,
            f.unreachable,
            f.aborted,
            f.other,
        ])
    });
    plain + failed + of_histogram(c.connect_duration.as_ref()) + c.http.as_ref().map_or(0, of_http)
}

fn of_http(h: &v1::HttpCounters) -> u64 {
    let maps = h
        .requests_by_method
        .values()
        .chain(h.responses_by_code.values());
    let plain = [
        h.requests,
        h.requests_without_response,
        h.exchanges,
        h.unparsed,
        h.pipelined,
        h.suspected,
    ];
    stored(plain) + stored(maps.copied()) + of_histogram(h.exchange_duration.as_ref())
}

fn of_histogram(h: Option<&v1::Histogram>) -> u64 {
    h.map_or(0, |h| stored([h.count, h.sum_ns]) + h.buckets.len() as u64)
}

fn of_host(m: &v1::HostMetrics) -> u64 {
    let gauges = [
        m.cpu_usage,
        m.memory_usage,
        m.disk_usage,
        m.load_avg_1,
        m.load_avg_5,
        m.load_avg_15,
        m.network_in,
        m.network_out,
    ];
    4 * gauges.iter().flatten().count() as u64 + m.core_usage.len() as u64
}

fn stored(values: impl IntoIterator<Item = u64>) -> u64 {
    values.into_iter().filter(|&value| value != 0).count() as u64
}
