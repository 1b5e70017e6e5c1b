//! `HAProxy`'s agent checks: it connects, sends the address of a server, and is
//! answered with the server's weight in percent.
//!
//! The weight is the cost of the cheapest backend of the same upstream over that of
//! the asked one (`backend_load::weight_percent`); 100 % while nothing is known, so
//! that a missing figure changes nothing.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use backend_load::{Estimator, Settings, feed, median, seconds, weight_percent};
use delivery::lock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{names::FollowedFiles, sampler::Shared};

/// Checks at once; more are closed at once.
const CHECKS_MAX: usize = 256;

/// How long a check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest question: an IPv6 address with its port and the end of the line.
const QUESTION_BYTES_MAX: usize = 64;

/// Older weights are not used.
const WEIGHTS_EXPIRY: Duration = Duration::from_secs(10);

/// The weights of all backends.
#[derive(Debug, Default)]
pub struct Weights {
    backends: HashMap<SocketAddr, BackendState>,
    updated: Option<std::time::Instant>,
    sampled_ms: u64,
}

#[derive(Debug, Default)]
struct BackendState {
    group: String,
    estimator: Estimator,
    weight: u8,
}

impl Weights {
    /// Takes a sample in.
    pub fn update(&mut self, sample: &feed::Sample) {
        let settings = Settings::default();
        let elapsed = sample.unix_ms.saturating_sub(self.sampled_ms);
        let elapsed = Duration::from_millis(elapsed.min(60_000));
        self.sampled_ms = sample.unix_ms;
        self.updated = Some(std::time::Instant::now());
        let mut sums: HashMap<SocketAddr, (String, backend_load::Totals)> = HashMap::new();
        for backend in &sample.backends {
            let sum = sums.entry(backend.address);
            sum.and_modify(|(_, totals)| *totals = totals.plus(&backend.totals))
                .or_insert_with(|| (group(backend), backend.totals));
        }
        // A backend that is gone begins anew if it returns.
        self.backends
            .retain(|address, _| sums.contains_key(address));
        for (address, (group, totals)) in sums {
            let state = self.backends.entry(address).or_default();
            state.group = group;
            state.estimator.update(&totals, elapsed, &settings);
        }
        self.weigh(elapsed, &settings);
    }

    fn weigh(&mut self, elapsed: Duration, settings: &Settings) {
        let mut groups: HashMap<String, Vec<&mut BackendState>> = HashMap::new();
        for state in self.backends.values_mut() {
            groups.entry(state.group.clone()).or_default().push(state);
        }
        for states in groups.values_mut() {
            let known = states
                .iter()
                .filter_map(|state| state.estimator.estimate().exchange_seconds);
            let others = median(known);
            for state in states.iter_mut() {
                state.estimator.settle(others, elapsed, settings);
            }
            let cost = |state: &BackendState| seconds(&state.estimator.estimate(), others);
            let cheapest = states
                .iter()
                .map(|state| cost(state))
                .min_by(f64::total_cmp);
            for state in states {
                let cost = cost(state);
                state.weight = weight_percent(cost, cheapest.unwrap_or(cost));
            }
        }
    }

    /// The weight of a backend in percent.
    #[must_use]
    pub fn of(&self, address: &SocketAddr) -> u8 {
        let fresh = self.updated.is_some_and(|at| at.elapsed() < WEIGHTS_EXPIRY);
        let known = self.backends.get(address).filter(|_| fresh);
        known.map_or(100, |state| state.weight)
    }
}

/// Backends are compared within their upstream, or within the target where no
/// configuration names upstreams.
fn group(backend: &feed::Backend) -> String {
    if backend.upstream.is_empty() {
        backend.target.clone()
    } else {
        format!("{}\0{}", backend.target, backend.upstream)
    }
}

/// Follows the samples, and answers checks until it is dropped.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, names: Arc<FollowedFiles>) {
    let weights = Arc::new(Mutex::new(Weights::default()));
    tokio::join!(
        follow(&shared, &names, &weights),
        answer_checks(listener, &weights)
    );
}

async fn follow(shared: &Shared, names: &FollowedFiles, weights: &Mutex<Weights>) {
    let mut samples = shared.backends.subscribe();
    // The sampler ends with the agent alone.
    while samples.changed().await.is_ok() {
        let counters = Arc::clone(&samples.borrow_and_update());
        let sample = super::sample(&counters, &names.names());
        lock(weights).update(&sample);
    }
}

async fn answer_checks(listener: TcpListener, weights: &Arc<Mutex<Weights>>) {
    let checks = Arc::new(Semaphore::new(CHECKS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept agent checks");
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&checks).try_acquire_owned() else {
            continue;
        };
        let weights = Arc::clone(weights);
        tokio::spawn(async move {
            match timeout(CHECK_TIMEOUT, answer(stream, &weights)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "an agent check ended"),
                Err(_) => tracing::debug!("an agent check sent no address in time"),
            }
            drop(permit);
        });
    }
}

async fn answer(mut stream: TcpStream, weights: &Mutex<Weights>) -> io::Result<()> {
    let mut question = Vec::with_capacity(QUESTION_BYTES_MAX);
    let mut limited = (&mut stream).take(QUESTION_BYTES_MAX as u64);
    while !question.contains(&b'\n') && limited.read_buf(&mut question).await? > 0 {}
    let answer = match parse(&question) {
        Some(address) => format!("{}%\n", lock(weights).of(&address)),
        None => {
            if daemon::once_a_minute("an agent check without an address") {
                tracing::warn!(
                    "an agent check sent no address: write agent-send \"ADDRESS:PORT\\n\" at the \
                     server in HAProxy's configuration"
                );
            }
            // HAProxy takes an answer without a word it knows as no change.
            "\n".to_owned()
        }
    };
    stream.write_all(answer.as_bytes()).await
}

fn parse(question: &[u8]) -> Option<SocketAddr> {
    let line = question.strip_suffix(b"\n")?;
    let text = std::str::from_utf8(line).ok()?.trim();
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use backend_load::Totals;

    use super::*;

    fn backend(address: &str, upstream: &str, exchanges: u64, ms: u64) -> feed::Backend {
        feed::Backend {
            target: "/web".to_owned(),
            address: address.parse().unwrap(),
            upstream: upstream.to_owned(),
            backend: String::new(),
            connections_active: 0,
            totals: Totals {
                since_unix_ns: 1,
                attempts: exchanges,
                failures: 0,
                exchanges: Some(exchanges),
                exchange_ns: Some(ms * 1_000_000),
            },
        }
    }

    fn sample(unix_ms: u64, backends: Vec<feed::Backend>) -> feed::Sample {
        feed::Sample {
            unix_ms,
            interval_ms: 100,
            backends,
            omitted: 0,
        }
    }

    #[test]
    fn weights_compare_backends_of_one_upstream() {
        let names = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
        let mut weights = Weights::default();
        let at = |ms: [u64; 3], n: u64| {
            vec![
                backend(names[0], "a", n, ms[0]),
                backend(names[1], "a", n, ms[1]),
                backend(names[2], "b", n, ms[2]),
            ]
        };
        weights.update(&sample(1_000, at([0, 0, 0], 0)));
        weights.update(&sample(1_100, at([100, 400, 9_000], 10)));
        let of = |weights: &Weights| names.map(|name| weights.of(&name.parse().unwrap()));
        assert_eq!(of(&weights), [100, 25, 100]);
        weights.update(&sample(1_200, vec![backend(names[0], "a", 10, 100)]));
        assert_eq!(of(&weights), [100, 100, 100], "unknown changes nothing");
    }

    #[test]
    fn only_an_address_is_a_question() {
        assert_eq!(parse(b"10.0.0.1:80\n"), "10.0.0.1:80".parse().ok());
        assert_eq!(parse(b"[::1]:80\r\n"), "[::1]:80".parse().ok());
        for hostile in [
            &b""[..],
            b"\n",
            b"10.0.0.1:80",
            b"10.0.0.1\n",
            b"GET / HTTP/1.1\r\n",
            b"\xff\xff\n",
        ] {
            assert_eq!(parse(hostile), None);
        }
    }

    #[tokio::test]
    async fn a_check_is_answered_and_a_stranger_gets_an_empty_line() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut weights = Weights::default();
        let two = |n: u64, ms: u64| {
            vec![
                backend("10.0.0.1:80", "", n, n),
                backend("10.0.0.2:80", "", n, ms),
            ]
        };
        weights.update(&sample(1_000, two(0, 0)));
        weights.update(&sample(1_100, two(10, 100)));
        let weights = Arc::new(Mutex::new(weights));
        let serving = tokio::spawn(async move { answer_checks(listener, &weights).await });
        let ask = async |question: &[u8]| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(question).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert_eq!(ask(b"10.0.0.2:80\n").await, "10%\n");
        assert_eq!(ask(b"10.0.0.9:80\n").await, "100%\n");
        assert_eq!(ask(b"").await, "\n");
        assert_eq!(ask(&[b'x'; 64]).await, "\n");
        serving.abort();
    }
}
