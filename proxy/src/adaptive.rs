//! What the balancer `adaptive` knows: the costs of backends, from what the kernel
//! measured of them.
//!
//! The agent on this host writes cumulative counters of every backend ten times a
//! second (`backend_load::feed`). One task reads them, another makes one figure per
//! backend of them; the request path reads that figure and counts nothing:
//!
//! cost = (in flight + 1) · seconds · pressure / (weight · slow start)
//!
//! - *seconds*: the peak EWMA of the exchange time, in which a failed request counts
//!   as one second at least (Finagle's and linkerd's peak EWMA; the failures as in
//!   gRPC's weighted round robin, which adds them to the load).
//! - *pressure*: 1 up to 80 % of utilisation of the backend's host as the collector
//!   knows it, 2 at 100 %.
//! - *slow start*: the share of the weight that a backend has after it came back, from
//!   a tenth to all (as Envoy's slow start).
//!
//! What is unknown falls back in this order: a backend's own time, the median of its
//! upstream's, the same for all; no failures; no pressure. A lost agent or collector
//! therefore leaves least connections by weight, among two that are drawn.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backend_load::{Estimator, Settings, feed, median, pressure, seconds, slow_start_share};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;

use crate::backend::Backend;
use crate::config::raw::RawAgent;
use crate::table::Table;

/// Time until the agent is tried again.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of one backend.
#[derive(Debug)]
pub(crate) struct Measured {
    estimator: Estimator,
    /// When its counters were last read.
    read_at: Option<Instant>,
    /// When costs were last made of it.
    updated_at: Option<Instant>,
    was_preferred: bool,
    /// Since when it is preferred again; `None` where it always was.
    preferred_since: Option<Instant>,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            estimator: Estimator::default(),
            read_at: None,
            updated_at: None,
            was_preferred: true,
            preferred_since: None,
        }
    }
}

impl Measured {
    /// Of a backend that is added to a running proxy: it starts slowly.
    pub(crate) fn of_addition() -> Self {
        Self {
            was_preferred: false,
            ..Self::default()
        }
    }

    fn read(&mut self, totals: Option<backend_load::Totals>, now: Instant, settings: &Settings) {
        match totals {
            Some(totals) => {
                let since = self.read_at.map_or(Duration::ZERO, |at| now - at);
                self.estimator.update(&totals, since, settings);
                self.read_at = Some(now);
            }
            None => self.estimator.interrupt(),
        }
    }
}

/// Why a backend costs what it costs.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// Cost of a request while nothing is in flight, before the weight, in seconds.
    pub seconds: Option<f32>,
    /// Peak EWMA of the exchange time in seconds.
    pub exchange_seconds: Option<f64>,
    /// Share of requests and connections that failed, from 0 to 1.
    pub failure_share: Option<f64>,
    /// What the load of its host multiplies the cost with, from 1 to 2.
    pub pressure: f64,
    /// The share of its weight that it has, from 0.1 to 1.
    pub slow_start_share: f64,
    /// How old the agent's figures are, in seconds.
    pub age_seconds: Option<f64>,
}

/// Explains the cost of a backend.
#[must_use]
pub fn explain(backend: &Backend, slow_start: Duration, now: Instant) -> Explanation {
    let measured = backend.measured();
    let estimate = measured.estimator.estimate();
    Explanation {
        seconds: backend.cost(),
        exchange_seconds: estimate.exchange_seconds,
        failure_share: estimate.failure_share,
        pressure: pressure(backend.utilisation().map(f64::from)),
        slow_start_share: share(&measured, slow_start, now),
        age_seconds: measured
            .read_at
            .map(|at| now.saturating_duration_since(at).as_secs_f64()),
    }
}

fn share(measured: &Measured, slow_start: Duration, now: Instant) -> f64 {
    measured.preferred_since.map_or(1.0, |since| {
        slow_start_share(now.saturating_duration_since(since), slow_start)
    })
}

/// Makes the costs of one upstream's backends anew.
pub(crate) fn update_costs(
    backends: &[Arc<Backend>],
    slow_start: Duration,
    config: &RawAgent,
    now: Instant,
) {
    let settings = Settings {
        decay: config.decay.0,
    };
    for backend in backends {
        let mut measured = backend.measured();
        let is_old = |at: Instant| now.saturating_duration_since(at) >= config.expiry.0;
        if measured.read_at.is_some_and(is_old) {
            measured.estimator = Estimator::default();
            measured.read_at = None;
        }
        let preferred = backend.is_preferred();
        if preferred && !measured.was_preferred {
            measured.preferred_since = Some(now);
        }
        measured.was_preferred = preferred;
    }
    let times = |backend: &Arc<Backend>| backend.measured().estimator.estimate().exchange_seconds;
    let others = median(backends.iter().filter_map(times));
    for backend in backends {
        let mut measured = backend.measured();
        let since = measured
            .updated_at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        measured.updated_at = Some(now);
        measured.estimator.settle(others, since, &settings);
        let time = seconds(&measured.estimator.estimate(), others);
        let share = share(&measured, slow_start, now);
        drop(measured);
        backend.set_cost(time * pressure(backend.utilisation().map(f64::from)) / share);
    }
}

/// Reads the agent's figures of the backends of a table, for ever.
pub(crate) async fn follow_agent(socket: PathBuf, table: Arc<Table>) {
    let mut reachable = true;
    loop {
        let error = match read_samples(&socket, &table, &mut reachable).await {
            Ok(()) => "the agent has closed the connection".to_owned(),
            Err(error) => error.to_string(),
        };
        if std::mem::replace(&mut reachable, false) {
            tracing::warn!(
                socket = %socket.display(), %error,
                "cannot read the agent's figures of the backends, balancing without them: \
                 is speedmimi-agent running with --backends-socket, and may this user connect?"
            );
        }
        tokio::time::sleep(RECONNECT_INTERVAL).await;
    }
}

async fn read_samples(socket: &Path, table: &Table, reachable: &mut bool) -> std::io::Result<()> {
    let mut reader = BufReader::new(UnixStream::connect(socket).await?);
    let mut line = String::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(feed::LINE_BYTES_MAX as u64);
        if limited.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let sample = feed::Sample::from_line(&line)?;
        if !std::mem::replace(reachable, true) {
            tracing::info!(socket = %socket.display(), "the agent's figures of the backends are there");
        }
        take_in(&sample, table, Instant::now());
    }
}

/// Takes in what a sample says of the backends.
fn take_in(sample: &feed::Sample, table: &Table, now: Instant) {
    let settings = Settings {
        decay: table.config.raw.agent.decay.0,
    };
    for backend in table.upstreams.iter().flatten() {
        let totals = sample.totals_of(&backend.addresses);
        backend.measured().read(totals, now, &settings);
    }
}

#[cfg(test)]
mod tests {
    use backend_load::Totals;

    use super::*;
    use crate::config::Config;

    const TICK: Duration = Duration::from_millis(100);

    fn table(more: &str) -> Table {
        let text = format!(
            "backends: {{u: [{{id: a, host: 127.0.0.1, port: 1}}, {{id: b, host: 127.0.0.1, port: 2}}, \
             {{id: c, host: 127.0.0.1, port: 3}}]}}\n{more}"
        );
        Table::build(Config::parse(&text).unwrap(), None).unwrap()
    }

    fn sample(of: &[(u16, u64, u64, u64)]) -> feed::Sample {
        let backend = |(port, exchanges, ms, failures): &(u16, u64, u64, u64)| feed::Backend {
            target: "/web".to_owned(),
            address: ([127, 0, 0, 1], *port).into(),
            upstream: String::new(),
            backend: String::new(),
            connections_active: 0,
            totals: Totals {
                since_unix_ns: 1,
                attempts: *exchanges,
                failures: *failures,
                exchanges: Some(*exchanges),
                exchange_ns: Some(ms * 1_000_000),
            },
        };
        feed::Sample {
            backends: of.iter().map(backend).collect(),
            ..feed::Sample::default()
        }
    }

    fn costs(table: &Table, now: Instant) -> Vec<f32> {
        let slow_start = table.config.upstreams[0].slow_start;
        update_costs(
            &table.upstreams[0],
            slow_start,
            &table.config.raw.agent,
            now,
        );
        let backends = table.upstreams[0].iter();
        let cost = |backend: &Arc<Backend>| (backend.cost().unwrap() * 1e5).round() / 1e5;
        backends.map(cost).collect()
    }

    #[test]
    fn costs_follow_what_was_measured_and_fall_back_in_order() {
        let (table, start) = (table(""), Instant::now());
        assert_eq!(costs(&table, start), [0.01, 0.01, 0.01], "nothing is known");
        take_in(&sample(&[(1, 0, 0, 0), (2, 0, 0, 0)]), &table, start);
        let now = start + TICK;
        take_in(&sample(&[(1, 10, 20, 0), (2, 10, 80, 5)]), &table, now);
        // 2 ms; 8 ms of which half fail; the lower median for what is unknown.
        assert_eq!(costs(&table, now), [0.002, 0.504, 0.002]);
        table.upstreams[0][0].report(0.9);
        assert_eq!(costs(&table, now)[..1], [0.003], "its host is busy");
        let later = now + table.config.raw.agent.expiry.0;
        assert_eq!(costs(&table, later)[1..], [0.01, 0.01], "expired");
    }

    #[test]
    fn a_backend_that_comes_back_starts_slowly() {
        let (table, start) = (table("upstreams: {u: {slow_start: 10s}}"), Instant::now());
        let backend = &table.upstreams[0][0];
        assert_eq!(costs(&table, start), [0.01; 3], "not at the start");
        backend.set_disconnected(true);
        costs(&table, start);
        backend.set_disconnected(false);
        assert_eq!(costs(&table, start), [0.1, 0.01, 0.01]);
        assert_eq!(costs(&table, start + 50 * TICK), [0.02, 0.01, 0.01]);
        assert_eq!(costs(&table, start + 100 * TICK), [0.01; 3]);
        let more =
            "backends: {u: [{id: a, host: 127.0.0.1, port: 1}, {id: d, host: 127.0.0.1, port: 4}]}";
        let next = Table::build(Config::parse(more).unwrap(), Some(&table)).unwrap();
        assert_eq!(
            costs(&next, start + 100 * TICK),
            [0.01, 0.1],
            "an addition, too"
        );
    }

    #[tokio::test]
    async fn what_is_no_sample_ends_the_connection_and_is_tried_again() {
        use tokio::io::AsyncWriteExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backends.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let table = Arc::new(table(""));
        let read = async |bytes: Vec<u8>| {
            let (path, table) = (path.clone(), Arc::clone(&table));
            let reading = tokio::spawn(async move { read_samples(&path, &table, &mut true).await });
            let (mut stream, _) = listener.accept().await.unwrap();
            // It may have closed before all was written.
            drop(stream.write_all(&bytes).await);
            drop(stream);
            reading.await.unwrap()
        };
        let line = sample(&[(1, 1, 1, 0)]).to_line().unwrap().into_bytes();
        assert!(read(line.clone()).await.is_ok());
        assert!(read(vec![]).await.is_ok());
        for hostile in [
            line[..line.len() - 5].to_vec(),
            b"GET / HTTP/1.1\r\n".to_vec(),
            vec![0xff; 100],
            vec![b' '; feed::LINE_BYTES_MAX + 100],
        ] {
            assert!(read(hostile).await.is_err());
        }
    }
}
