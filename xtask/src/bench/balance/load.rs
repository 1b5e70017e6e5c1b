//! Requests that come when they come, whether or not those before are answered.
//!
//! Times are from when a request was due, so that who waits for a free connection
//! waits visibly.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Connections of one load, as those of a client with a bounded pool.
const CONNECTIONS: usize = 64;

/// A request that is not answered by then has failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The largest head of an answer that is read.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

const STACK_BYTES: usize = 128 * 1024;

/// What became of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// When it was due, after the beginning.
    pub(super) due: Duration,
    /// From then to the end of its answer.
    pub(super) took: Duration,
    /// `None` where there was no answer.
    pub(super) status: Option<u16>,
}

/// When requests come: a Poisson process, the same each time.
pub(super) fn arrivals(per_second: u32, duration: Duration) -> Arc<[Duration]> {
    let mut arrivals = Vec::new();
    let (mut at, mut state) = (0.0, 0x9E37_79B9_7F4A_7C15_u64);
    loop {
        // xorshift64; the upper bits are a share of 1 without 0.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let share = ((state >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        at -= share.ln() / f64::from(per_second);
        if at >= duration.as_secs_f64() {
            return arrivals.into();
        }
        arrivals.push(Duration::from_secs_f64(at));
    }
}

/// A load that is under way.
#[derive(Debug)]
pub(super) struct Running {
    threads: Vec<JoinHandle<Vec<Answer>>>,
}

impl Running {
    /// Sends requests to a proxy, the first one after `start`.
    pub(super) fn start(
        target: SocketAddr,
        arrivals: &Arc<[Duration]>,
        start: Instant,
    ) -> io::Result<Self> {
        let next = Arc::new(AtomicUsize::new(0));
        let threads = (0..CONNECTIONS).map(|_| {
            let (arrivals, next) = (Arc::clone(arrivals), Arc::clone(&next));
            thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn(move || send(target, &arrivals, &next, start))
        });
        Ok(Self {
            threads: threads.collect::<io::Result<_>>()?,
        })
    }

    /// Every request, when all are answered.
    pub(super) fn finish(self) -> Vec<Answer> {
        let threads = self.threads.into_iter();
        threads
            .flat_map(|thread| thread.join().unwrap_or_default())
            .collect()
    }
}

/// Takes the next request, waits until it is due, and sends it, until none is left.
fn send(
    target: SocketAddr,
    arrivals: &[Duration],
    next: &AtomicUsize,
    start: Instant,
) -> Vec<Answer> {
    let request = format!("GET / HTTP/1.1\r\nHost: {target}\r\n\r\n");
    let last = arrivals.last().copied().unwrap_or_default();
    let mut connection = None;
    let mut answers = Vec::new();
    while let Some(&due) = arrivals.get(next.fetch_add(1, Ordering::Relaxed)) {
        thread::sleep((start + due).saturating_duration_since(Instant::now()));
        // Who found no free connection until all were due has given up.
        let status = if start.elapsed() <= last + TIMEOUT {
            exchange(&mut connection, target, request.as_bytes()).ok()
        } else {
            None
        };
        answers.push(Answer {
            due,
            took: (start + due).elapsed(),
            status,
        });
    }
    answers
}

/// One request by a connection that stays; after a failure the next one makes another.
fn exchange(
    connection: &mut Option<BufReader<TcpStream>>,
    target: SocketAddr,
    request: &[u8],
) -> io::Result<u16> {
    let mut reader = match connection.take() {
        Some(reader) => reader,
        None => {
            let stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            BufReader::new(stream)
        }
    };
    reader.get_mut().write_all(request)?;
    let (status, stays) = answer(&mut reader)?;
    *connection = stays.then_some(reader);
    Ok(status)
}

/// Reads an answer with its body; returns its status, and whether its connection stays.
fn answer(reader: &mut impl io::BufRead) -> io::Result<(u16, bool)> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let mut head = reader.by_ref().take(HEAD_BYTES_MAX);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(malformed)?;
    let (mut length, mut stays) = (None, true);
    loop {
        line.clear();
        head.read_line(&mut line)?;
        if line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(malformed)?;
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", value) => length = value.parse::<u64>().ok(),
            ("connection", "close") => stays = false,
            _ => {}
        }
    }
    let mut body = reader.by_ref().take(length.unwrap_or(0));
    io::copy(&mut body, &mut io::sink())?;
    Ok((status, stays && length.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_as_many_as_asked_for_and_the_same_each_time() {
        let arrivals = arrivals(200, Duration::from_secs(30));
        assert!(
            (5_700..6_300).contains(&arrivals.len()),
            "{}",
            arrivals.len()
        );
        assert!(arrivals.is_sorted());
        assert_eq!(arrivals, super::arrivals(200, Duration::from_secs(30)));
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        let mut two =
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 502 Bad\r\n\r\n"[..];
        assert_eq!(answer(&mut two).unwrap(), (200, true));
        assert_eq!(answer(&mut two).unwrap(), (502, false), "up to its end");
        assert!(answer(&mut two).is_err());
        let mut closes = &b"HTTP/1.1 503 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"[..];
        assert_eq!(answer(&mut closes).unwrap(), (503, false));
        assert!(answer(&mut &b"GET / HTTP/1.1\r\n\r\n"[..]).is_err());
    }
}
