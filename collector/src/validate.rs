//! What a report must keep to.  What is stored was checked here, so that no
//! reader needs to fear an overflow, a duplicate series or an endless label.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
};

use monitor_proto::{
    REPORT_CLIENTS_MAX, REPORT_ENDPOINTS_MAX,
    client::ClientAddress,
    figures::CONNECTIONS_FAILED,
    host_labels::{self, InvalidLabels},
    v1,
};

const HOST_ID_BYTES_MAX: usize = 256;
pub(crate) const LABEL_BYTES_MAX: usize = 4096;
/// Entries of any other list in a report.
const LIST_MAX: usize = 1024;
const NOTES_MAX: usize = 64;
const MAP_ENTRIES_MAX: usize = 256;
const BUCKETS_MAX: usize = 1024;
/// The octaves of seconds that 1 µs to 1 h need: 2^-20 s is 0.95 µs, 2^12 s is 1.1 h.
const OCTAVES: Range<i64> = -20..12;
/// With wider buckets all of that is in two of them, and a quantile says nothing.
const SCALE_MIN: i32 = -4;

/// Which rule a report breaks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{what} has {is} bytes, more than {max}")]
    TooLong {
        what: &'static str,
        is: usize,
        max: usize,
    },
    #[error("{what} has {is} entries, more than {max}")]
    TooMany {
        what: &'static str,
        is: usize,
        max: usize,
    },
    #[error("{0} has a NUL")]
    Nul(&'static str),
    #[error("{0} exceeds 63 bits")]
    TooLarge(&'static str),
    #[error("{0} is not a finite number")]
    NotFinite(&'static str),
    #[error("the window ends before it starts")]
    WindowReversed,
    #[error("duplicate endpoint {address:?} with the same role and target")]
    EndpointTwice { address: String },
    #[error("host.labels: {0}")]
    HostLabels(#[from] InvalidLabels),
    #[error("{0:?} is no client, or comes twice")]
    Client(String),
    #[error("{0} has a scale below -4 or above 20, or buckets outside 1 µs to 1 h")]
    HistogramRange(&'static str),
}

/// Checks all rules.
pub(crate) fn report(r: &v1::Report) -> Result<(), Invalid> {
    let host = r.host.as_ref().ok_or(Invalid::Missing("host"))?;
    let agent = r.agent.as_ref().ok_or(Invalid::Missing("agent"))?;
    identity(host, agent)?;
    if r.sequence == 0 {
        return Err(Invalid::Missing("sequence"));
    }
    storable(r.sequence, "sequence")?;
    storable(r.window_start_unix_ns, "window_start_unix_ns")?;
    storable(r.window_end_unix_ns, "window_end_unix_ns")?;
    if r.window_end_unix_ns < r.window_start_unix_ns {
        return Err(Invalid::WindowReversed);
    }
    list(&r.incomplete_reasons, LIST_MAX, "incomplete_reasons")?;
    list(&r.notes, NOTES_MAX, "notes")?;
    for note in &r.notes {
        label(note, "notes")?;
    }
    for reason in &r.incomplete_reasons {
        label(reason, "incomplete_reasons")?;
    }
    if let Some(metrics) = &r.host_metrics {
        host_metrics(metrics)?;
    }
    endpoints(&r.endpoints)?;
    top_sockets(&r.top_sockets)?;
    map(&r.losses, "losses")?;
    map(&r.losses_totals, "losses_totals")?;
    targets(&r.targets)?;
    if let Some(clients) = &r.clients {
        self::clients(clients)?;
    }
    list(&r.network_namespaces, LIST_MAX, "network_namespaces")
}

fn identity(host: &v1::Host, agent: &v1::Agent) -> Result<(), Invalid> {
    if host.id.is_empty() {
        return Err(Invalid::Missing("host.id"));
    }
    bytes(&host.id, HOST_ID_BYTES_MAX, "host.id")?;
    label(&host.name, "host.name")?;
    label(&host.boot_id, "host.boot_id")?;
    label(&host.kernel, "host.kernel")?;
    host_labels::check(&host.labels)?;
    label(&agent.version, "agent.version")?;
    storable(agent.epoch, "agent.epoch")?;
    finite(agent.cpu_usage_ratio, "agent.cpu_usage_ratio")
}

fn host_metrics(m: &v1::HostMetrics) -> Result<(), Invalid> {
    let gauges = [
        &m.cpu_usage,
        &m.memory_usage,
        &m.disk_usage,
        &m.load_avg_1,
        &m.load_avg_5,
        &m.load_avg_15,
        &m.network_in,
        &m.network_out,
    ];
    for gauge in gauges.into_iter().flatten() {
        for value in [gauge.last, gauge.min, gauge.mean, gauge.max] {
            finite(value, "host_metrics")?;
        }
    }
    if let Some(c) = &m.cpu_modes {
        let modes = [
            c.user, c.nice, c.system, c.idle, c.iowait, c.irq, c.softirq, c.steal,
        ];
        for value in modes {
            finite(value, "cpu_modes")?;
        }
    }
    list(&m.core_usage, LABEL_BYTES_MAX, "core_usage")?;
    for &value in &m.core_usage {
        finite(value, "core_usage")?;
    }
    list(&m.disks, LIST_MAX, "disks")?;
    for disk in &m.disks {
        label(&disk.device, "disks.device")?;
    }
    list(&m.interfaces, LIST_MAX, "interfaces")?;
    for interface in &m.interfaces {
        label(&interface.device, "interfaces.device")?;
    }
    list(&m.pressure, LIST_MAX, "pressure")?;
    for pressure in &m.pressure {
        label(&pressure.resource, "pressure.resource")?;
        finite(pressure.some_avg10, "pressure.some_avg10")?;
        finite(pressure.full_avg10, "pressure.full_avg10")?;
    }
    Ok(())
}

fn endpoints(endpoints: &[v1::Endpoint]) -> Result<(), Invalid> {
    list(endpoints, REPORT_ENDPOINTS_MAX, "endpoints")?;
    let mut seen = HashSet::with_capacity(endpoints.len());
    for e in endpoints {
        label(&e.address, "endpoints.address")?;
        label(&e.name, "endpoints.name")?;
        label(&e.upstream, "endpoints.upstream")?;
        label(&e.backend, "endpoints.backend")?;
        label(&e.target, "endpoints.target")?;
        let queue = e.accept_queue.as_ref();
        label(
            queue.map_or("", |queue| &queue.listener),
            "endpoints.accept_queue.listener",
        )?;
        storable(e.totals_since_unix_ns, "totals_since_unix_ns")?;
        if !seen.insert((e.role, &e.address, &e.target)) {
            return Err(Invalid::EndpointTwice {
                address: e.address.clone(),
            });
        }
        for counters in [&e.window, &e.totals].into_iter().flatten() {
            self::counters(counters)?;
        }
    }
    Ok(())
}

fn counters(c: &v1::Counters) -> Result<(), Invalid> {
    if let Some(f) = &c.connections_failed {
        let reasons = CONNECTIONS_FAILED.iter().map(|reason| (reason.read)(f));
        sum(reasons, "connections_failed")?;
    }
    histogram(c.connect_duration.as_ref(), "connect_duration")?;
    let Some(http) = &c.http else { return Ok(()) };
    map(&http.requests_by_method, "requests_by_method")?;
    map(&http.responses_by_code, "responses_by_code")?;
    histogram(http.exchange_duration.as_ref(), "exchange_duration")
}

fn histogram(h: Option<&v1::Histogram>, what: &'static str) -> Result<(), Invalid> {
    let Some(h) = h else { return Ok(()) };
    list(&h.buckets, BUCKETS_MAX, what)?;
    let indexes = bucket_indexes(h.scale).ok_or(Invalid::HistogramRange(what))?;
    let first = i64::from(h.offset);
    if first < indexes.start || first + h.buckets.len() as i64 > indexes.end {
        return Err(Invalid::HistogramRange(what));
    }
    storable(h.count, what)?;
    sum(h.buckets.iter().copied(), what)
}

/// The indexes of the buckets that 1 µs to 1 h need at this scale.
fn bucket_indexes(scale: i32) -> Option<Range<i64>> {
    let Range { start, end } = OCTAVES;
    match scale {
        0..=20 => Some(start << scale..end << scale),
        // A bucket is several octaves wide: those that only overlap count too.
        SCALE_MIN..0 => Some(start >> -scale..-(-end >> -scale)),
        _ => None,
    }
}

fn top_sockets(sockets: &[v1::SocketSummary]) -> Result<(), Invalid> {
    list(sockets, LIST_MAX, "top_sockets")?;
    for s in sockets {
        label(&s.local, "top_sockets.local")?;
        label(&s.remote, "top_sockets.remote")?;
        label(&s.client, "top_sockets.client")?;
        label(&s.state, "top_sockets.state")?;
        label(&s.target, "top_sockets.target")?;
    }
    Ok(())
}

fn clients(clients: &v1::Clients) -> Result<(), Invalid> {
    if clients.prefix_v4 > 32 || clients.prefix_v6 > 128 {
        return Err(Invalid::TooLarge("clients.prefix"));
    }
    list(&clients.top, REPORT_CLIENTS_MAX, "clients")?;
    let mut seen = HashSet::with_capacity(clients.top.len());
    for c in &clients.top {
        label(&c.address, "clients.address")?;
        // One text is one client, so that readers can add up by it.
        if c.address.parse::<ClientAddress>().is_err() || !seen.insert(&c.address) {
            return Err(Invalid::Client(c.address.clone()));
        }
    }
    let figures: [fn(&v1::Client) -> u64; 8] = [
        |c| c.connections_opened,
        |c| c.bytes_received,
        |c| c.bytes_sent,
        |c| c.closed_reset_sent,
        |c| c.closed_reset_received,
        |c| c.requests.unwrap_or(0),
        |c| c.exchanges.unwrap_or(0),
        |c| c.requests_without_response.unwrap_or(0),
    ];
    for figure in figures {
        sum(clients.top.iter().map(figure), "clients")?;
    }
    Ok(())
}

fn targets(targets: &[v1::Target]) -> Result<(), Invalid> {
    list(targets, LIST_MAX, "targets")?;
    for t in targets {
        label(&t.path, "targets.path")?;
        label(&t.process, "targets.process")?;
        label(&t.unit, "targets.unit")?;
        label(&t.container, "targets.container")?;
        label(&t.container_name, "targets.container_name")?;
        label(&t.pod, "targets.pod")?;
        label(&t.namespace, "targets.namespace")?;
    }
    Ok(())
}

fn map(map: &BTreeMap<String, u64>, what: &'static str) -> Result<(), Invalid> {
    if map.len() > MAP_ENTRIES_MAX {
        return Err(Invalid::TooMany {
            what,
            is: map.len(),
            max: MAP_ENTRIES_MAX,
        });
    }
    for key in map.keys() {
        label(key, what)?;
    }
    sum(map.values().copied(), what)
}

fn list<T>(list: &[T], max: usize, what: &'static str) -> Result<(), Invalid> {
    let is = list.len();
    if is > max {
        return Err(Invalid::TooMany { what, is, max });
    }
    Ok(())
}

fn label(text: &str, what: &'static str) -> Result<(), Invalid> {
    bytes(text, LABEL_BYTES_MAX, what)
}

fn bytes(text: &str, max: usize, what: &'static str) -> Result<(), Invalid> {
    let is = text.len();
    if is > max {
        return Err(Invalid::TooLong { what, is, max });
    }
    // No path and no name has one, and Prometheus refuses a whole scrape for it.
    if text.contains('\0') {
        return Err(Invalid::Nul(what));
    }
    Ok(())
}

/// `SQLite`'s integers are signed.
fn storable(value: u64, what: &'static str) -> Result<(), Invalid> {
    i64::try_from(value)
        .map(drop)
        .map_err(|_| Invalid::TooLarge(what))
}

fn finite(value: f64, what: &'static str) -> Result<(), Invalid> {
    if value.is_finite() {
        Ok(())
    } else {
        Err(Invalid::NotFinite(what))
    }
}

/// Readers add these up.
fn sum(values: impl IntoIterator<Item = u64>, what: &'static str) -> Result<(), Invalid> {
    values
        .into_iter()
        .try_fold(0u64, u64::checked_add)
        .ok_or(Invalid::TooLarge(what))
        .and_then(|sum| storable(sum, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> v1::Report {
        v1::Report {
            host: Some(v1::Host {
                id: "h".into(),
                ..Default::default()
            }),
            agent: Some(v1::Agent::default()),
            sequence: 1,
            endpoints: vec![v1::Endpoint {
                totals: Some(v1::Counters::default()),
                ..Default::default()
            }],
            host_metrics: Some(v1::HostMetrics::default()),
            ..Default::default()
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut v1::Report)) -> String {
        let mut r = sound();
        change(&mut r);
        report(&r).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_sound_report_passes() {
        assert_eq!(report(&sound()), Ok(()));
    }

    #[test]
    fn a_report_without_identity_is_refused() {
        assert_eq!(refused(|r| r.host = None), "host is missing");
        assert_eq!(refused(|r| r.agent = None), "agent is missing");
        assert_eq!(refused(|r| r.sequence = 0), "sequence is missing");
        let no_id = refused(|r| r.host.as_mut().unwrap().id.clear());
        assert_eq!(no_id, "host.id is missing");
    }

    #[test]
    fn labels_of_a_host_are_bounded() {
        let labels = |r: &mut v1::Report, key: &str| {
            let host = r.host.as_mut().unwrap();
            host.labels.insert(key.into(), "v".into());
        };
        let hostile = refused(|r| labels(r, "x\"} 1\ny"));
        assert_eq!(
            hostile,
            "host.labels: label \"x\\\"} 1\\ny\": a key has 1 to 63 letters a-z, digits, `_` and `.`, and \
             begins with a letter"
        );
        let many = refused(|r| (0..17).for_each(|n| labels(r, &format!("k{n}"))));
        assert_eq!(many, "host.labels: 17 labels: at most 16 are taken");
    }

    #[test]
    fn clients_are_bounded_and_each_has_one_name() {
        let client = |address: &str| v1::Client {
            address: address.into(),
            ..Default::default()
        };
        let told = |top: Vec<v1::Client>| {
            Some(v1::Clients {
                prefix_v4: 32,
                prefix_v6: 64,
                top,
            })
        };
        let mut sound = sound();
        sound.clients = told(vec![client("192.0.2.7"), client("2001:db8::/64")]);
        assert_eq!(report(&sound), Ok(()));
        for hostile in [
            "",
            "~other",
            "web",
            "192.0.2.7/24",
            "2001:DB8::/64",
            "1.2.3.4\0",
        ] {
            refused(|r| r.clients = told(vec![client(hostile)]));
        }
        refused(|r| r.clients = told(vec![client(&"1".repeat(LABEL_BYTES_MAX + 1))]));
        let twice = refused(|r| r.clients = told(vec![client("::1"), client("::1")]));
        assert_eq!(twice, "\"::1\" is no client, or comes twice");
        let many =
            (0..=REPORT_CLIENTS_MAX).map(|n| client(&format!("10.0.{}.{}", n >> 8, n & 255)));
        let many = refused(|r| r.clients = told(many.collect()));
        assert_eq!(many, "clients has 257 entries, more than 256");
        let mut large = [client("::1"), client("::2")];
        for one in &mut large {
            one.bytes_received = 1 << 62;
        }
        assert_eq!(
            refused(|r| r.clients = told(large.to_vec())),
            "clients exceeds 63 bits"
        );
        refused(|r| {
            let bits = v1::Clients {
                prefix_v4: 33,
                ..Default::default()
            };
            r.clients = Some(bits);
        });
    }

    #[test]
    fn notes_are_bounded() {
        let many = refused(|r| r.notes = vec![String::new(); NOTES_MAX + 1]);
        assert_eq!(many, "notes has 65 entries, more than 64");
        refused(|r| r.notes = vec!["x".repeat(LABEL_BYTES_MAX + 1)]);
    }

    #[test]
    fn what_does_not_fit_the_store_is_refused() {
        refused(|r| r.sequence = u64::MAX);
        refused(|r| r.agent.as_mut().unwrap().epoch = 1 << 63);
        refused(|r| r.window_start_unix_ns = 5);
        refused(|r| r.window_end_unix_ns = u64::MAX);
    }

    #[test]
    fn what_prometheus_cannot_read_is_refused() {
        let host = |r: &mut v1::Report| r.host.as_mut().unwrap().name = "a\0".into();
        assert_eq!(refused(host), "host.name has a NUL");
        refused(|r| r.host.as_mut().unwrap().id = "\0".into());
        refused(|r| r.endpoints[0].target = "/a\0b".into());
        refused(|r| {
            r.endpoints[0].accept_queue = Some(v1::AcceptQueue {
                listener: "\0".into(),
                ..Default::default()
            });
        });
        refused(|r| {
            r.losses.insert("\0".into(), 1);
        });
    }

    #[test]
    fn what_would_overflow_a_reader_is_refused() {
        let histogram = |offset, scale, buckets: &[u64]| {
            Some(v1::Histogram {
                offset,
                scale,
                buckets: buckets.to_vec(),
                ..Default::default()
            })
        };
        for bad in [
            histogram(0, 2, &[u64::MAX, 1]),
            histogram(i32::MIN, 2, &[1]),
            histogram(i32::MAX, 2, &[1]),
            histogram(0, i32::MAX, &[1]),
            histogram(0, 2, &[0; BUCKETS_MAX + 1]),
        ] {
            refused(|r| r.endpoints[0].totals.as_mut().unwrap().connect_duration = bad);
        }
        refused(|r| {
            r.endpoints[0].window = Some(v1::Counters {
                connections_failed: Some(v1::ConnectionsFailed {
                    refused: u64::MAX,
                    reset: 1,
                    ..Default::default()
                }),
                ..Default::default()
            });
        });
        refused(|r| {
            r.host_metrics.as_mut().unwrap().cpu_usage = Some(v1::Gauge {
                mean: f64::NAN,
                ..Default::default()
            });
        });
    }

    #[test]
    fn durations_are_within_a_microsecond_and_an_hour_at_every_scale() {
        let with = |scale, offset, buckets: usize| {
            let mut r = sound();
            r.endpoints[0].totals.as_mut().unwrap().connect_duration = Some(v1::Histogram {
                scale,
                offset,
                buckets: vec![1; buckets],
                ..Default::default()
            });
            report(&r).is_ok()
        };
        // An agent's own: all 128 buckets from 0.95 µs to 1.1 h.
        assert!(with(2, -80, 128));
        assert!(!with(2, -81, 1) && !with(2, -80, 129) && !with(2, 48, 1));
        assert!(!with(2, -100_000, 1) && !with(2, 100_000, 1));
        assert!(with(20, -(20 << 20), 1) && !with(20, -(20 << 20) - 1, 1));
        assert!(with(-4, -2, 3) && !with(-4, -3, 1) && !with(-4, 1, 1));
        assert!(with(-2, -5, 8) && !with(-2, -6, 1) && !with(-2, 3, 1));
        assert!(!with(21, 0, 1) && !with(-5, 0, 1) && !with(-10, 0, 1));
    }

    #[test]
    fn what_is_too_much_is_refused() {
        refused(|r| r.host.as_mut().unwrap().name = "x".repeat(LABEL_BYTES_MAX + 1));
        refused(|r| r.endpoints.push(r.endpoints[0].clone()));
        refused(|r| {
            r.losses = (0..=MAP_ENTRIES_MAX).map(|i| (i.to_string(), 0)).collect();
        });
    }
}
