//! The control socket: one line asked, one line of JSON answered.
//!
//! Questions are `status`, `names`, `level`, `level tcp` and `level http`.  The socket is
//! its owner's alone (mode 0600), which is all the authentication there is.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use delivery::{Progress, SharedSpool, lock};
use kernel_sample::Level;
use monitor_proto::{figures::HOST_GAUGES, json::rfc3339};
use proxy_config::Name;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader as AsyncBufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};
use window::TargetNames;

use crate::{
    names::{FollowedFile, FollowedFiles, NamedEndpoint, NamesState},
    sampler::{Newest, SamplerHandle, Shared},
    target::Awaited,
    uncounted::Uncounted,
};

/// The longest question.
const QUESTION_BYTES_MAX: u64 = 256;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// How long one who asks may take to ask, and to take the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers about, and changes, the running agent.
#[derive(Debug)]
pub struct Control {
    /// Asks the sampler.
    pub sampler: SamplerHandle,
    /// The sampler's newest.
    pub shared: Arc<Shared>,
    /// The reports that wait.
    pub spool: SharedSpool,
    /// What became of the others.
    pub progress: Arc<Progress>,
    /// Where they go.
    pub collector: String,
    /// Where the agent's own metrics are served.
    pub metrics: Option<SocketAddr>,
    /// What is not there yet.
    pub awaited: Awaited,
    /// What of it is not counted.
    pub uncounted: Uncounted,
    /// What its endpoints are called.
    pub names: Arc<FollowedFiles>,
}

/// Why a running agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// None listens there.
    #[error("no agent answers on {path}: is one running?")]
    NoAgent {
        /// The control socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended before it answered, or was asked too slowly.
    #[error("the agent closed without an answer")]
    Closed,
    /// Asking or reading the answer.
    #[error("the agent gives no answer that can be read")]
    Answer(#[source] io::Error),
}

/// How long an answer may take: the level is changed before it comes.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a view waits for names: it shows what is counted without them too.
const NAMES: Duration = Duration::from_millis(500);

/// Asks a running agent.
///
/// # Errors
/// Where none answers.
pub fn ask(path: &Path, question: &str) -> Result<Value, AskError> {
    ask_within(path, question, ANSWER)
}

/// What the agent that runs calls the endpoints that it counts.
///
/// # Errors
/// Where none answers in time.
pub fn ask_names(path: &Path) -> Result<TargetNames, AskError> {
    let mut answer = ask_within(path, "names", NAMES)?;
    let named: Result<Vec<NamedEndpoint>, _> = serde_json::from_value(answer["names"].take());
    let named = named.map_err(|e| AskError::Answer(e.into()))?;
    Ok(named.into_iter().collect())
}

fn ask_within(path: &Path, question: &str, within: Duration) -> Result<Value, AskError> {
    let stream = std::os::unix::net::UnixStream::connect(path);
    let stream = stream.map_err(|source| AskError::NoAgent {
        path: path.to_owned(),
        source,
    })?;
    let line = ask_on(stream, question, within).map_err(AskError::Answer)?;
    if line.is_empty() {
        return Err(AskError::Closed);
    }
    serde_json::from_str(&line).map_err(|e| AskError::Answer(e.into()))
}

fn ask_on(
    mut stream: std::os::unix::net::UnixStream,
    question: &str,
    within: Duration,
) -> io::Result<String> {
    stream.set_read_timeout(Some(within))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(io::Read::take(stream, ANSWER_BYTES_MAX)).read_line(&mut line)?;
    Ok(line)
}

impl Control {
    /// Answers one after the other, until it is dropped.
    pub async fn serve(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if let Err(error) = self.answer(stream).await {
                        tracing::debug!(%error, "someone asked and did not wait for the answer");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket fails");
                    tokio::time::sleep(CLIENT_TIMEOUT).await;
                }
            }
        }
    }

    async fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.split();
        let mut line = String::new();
        let mut reader = AsyncBufReader::new(reader.take(QUESTION_BYTES_MAX));
        timeout(CLIENT_TIMEOUT, reader.read_line(&mut line)).await??;
        // Changing the level takes as long as it takes.
        let mut answer = self.answer_to(line.trim()).await.to_string();
        answer.push('\n');
        timeout(CLIENT_TIMEOUT, writer.write_all(answer.as_bytes())).await?
    }

    async fn answer_to(&self, question: &str) -> Value {
        match question {
            "status" => self.status(),
            "names" => self.names(),
            "level" => json!({"level": self.level_name()}),
            "level tcp" => self.set_level(Level::Tcp).await,
            "level http" => self.set_level(Level::Http).await,
            _ => json!({"error": "ask for: status, names, level, level tcp, level http"}),
        }
    }

    async fn set_level(&self, level: Level) -> Value {
        match self.sampler.set_level(level).await {
            Ok(()) => json!({"level": name(level)}),
            Err(error) => json!({"error": daemon::error_chain(&error)}),
        }
    }

    fn level_name(&self) -> Option<&'static str> {
        Some(name(self.shared.newest.load().as_ref()?.level))
    }

    /// What the endpoints of the newest sample are called.
    fn names(&self) -> Value {
        let newest = self.shared.newest.load();
        let kernel = newest.as_ref().and_then(|newest| newest.kernel.as_ref());
        let names = self.names.names();
        let endpoints = kernel.iter().flat_map(|kernel| &kernel.endpoints);
        let named = endpoints.filter_map(|endpoint| {
            let name = names.of(&endpoint.id);
            let known = name != Name::default();
            known.then(|| NamedEndpoint::new(&endpoint.id, name))?
        });
        json!({"names": named.collect::<Vec<_>>()})
    }

    fn status(&self) -> Value {
        let (next, pending, bytes, losses) = {
            let spool = lock(&self.spool);
            (
                spool.next_key(),
                spool.pending(),
                spool.bytes(),
                spool.losses(),
            )
        };
        let progress = &self.progress;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "targets": self.shared.targets(),
            "waiting_for": self.awaited.names(),
            "uncounted_listeners": self.uncounted.listeners(),
            "unix_sockets": self.uncounted.unix(),
            "collector": self.collector,
            "metrics": self.metrics,
            "connected": progress.connected.load(Ordering::Relaxed),
            "last_error": progress.last_error(),
            "epoch": next.epoch,
            "next_sequence": next.sequence,
            "reports_pending": pending,
            // Since this agent began; what was lost, since its spool was made.
            "reports_delivered": progress.delivered.load(Ordering::Relaxed),
            "reports_rejected": losses.rejected,
            "reports_conflicting": losses.conflicting,
            "reports_dropped": losses.dropped,
            "reports_damaged": losses.damaged,
            "spool_bytes": bytes,
            "samples_dropped": self.shared.samples.dropped(),
            "samples_failed": self.shared.failures(),
            "names": self.names.iter().map(names_file).collect::<Vec<_>>(),
            "newest": self.shared.newest.load().as_deref().map(newest),
        })
    }
}

/// What is known of one configuration of names.
pub(crate) fn names_file((file, state): (Arc<FollowedFile>, Arc<NamesState>)) -> Value {
    json!({
        "target": file.target.as_deref(),
        "file": file.path,
        "names": state.names.len(),
        "hosts_to_look_up": state.pending,
        "hosts_unknown": state.unknown,
        "problem": state.problem,
        "remarks": state.remarks,
    })
}

fn newest(newest: &Newest) -> Value {
    let endpoints = newest.kernel.as_ref().map(|k| k.endpoints.len());
    let active = newest.kernel.as_ref().map(|k| k.connections_active());
    let mut shown = json!({
        "at": rfc3339(newest.at.unix_ns),
        "level": name(newest.level),
        "interval_ms": newest.interval.as_millis() as u64,
        "endpoints": endpoints,
        "connections_active": active,
    });
    for (gauge, value) in HOST_GAUGES.iter().zip(newest.gauges) {
        shown[gauge.figure.name] = json!(value);
    }
    shown
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Tcp => "tcp",
        Level::Http => "http",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sampler::{Sampler, SamplerOptions};
    use crate::unix_socket;
    use kernel_sample::{CounterSnapshot, CounterSource, KernelSample, Opened, SourceError};
    use spool::Spool;

    /// Counts nothing, and takes its time to change the level.
    struct Slow;

    impl CounterSource for Slow {
        fn counter_snapshot(&mut self) -> Result<CounterSnapshot, SourceError> {
            Ok(CounterSnapshot::default())
        }

        fn read(&mut self) -> Result<KernelSample, SourceError> {
            Ok(KernelSample::default())
        }

        fn set_level(&mut self, _: Level) -> Result<(), SourceError> {
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        }
    }

    pub(crate) fn sampler(interval: Duration) -> Sampler {
        let options = SamplerOptions {
            interval,
            level: Level::Http,
            targets: vec![],
        };
        let open = |_: &[_], level| {
            let source = Box::new(Slow);
            Ok(Opened { source, level })
        };
        Sampler::start(Box::new(open), options).unwrap()
    }

    fn control(sampler: &Sampler, spool_dir: &Path) -> Control {
        let (spool, _) = Spool::open(spool_dir, 1 << 20, 1).unwrap();
        Control {
            sampler: sampler.handle(),
            shared: sampler.shared(),
            spool: Arc::new(std::sync::Mutex::new(spool)),
            progress: Arc::default(),
            collector: String::new(),
            metrics: None,
            awaited: Awaited::default(),
            uncounted: Uncounted::default(),
            names: Arc::default(),
        }
    }

    /// Time is paused: it jumps to the end of every timeout that is waited for.
    #[tokio::test(start_paused = true)]
    async fn who_asks_is_bounded_and_changing_the_level_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let sampler = sampler(Duration::from_millis(100));
        let control = control(&sampler, &dir.path().join("spool"));
        let listener = unix_socket::listen(&path, None).unwrap();
        let listener = UnixListener::from_std(listener).unwrap();
        // One who never asks, and then one who has asked before it is his turn.
        let silent = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"level tcp\n").await.unwrap();
        let serving = tokio::spawn(control.serve(listener));
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "{\"level\":\"tcp\"}\n");
        serving.abort();
        drop(silent);
    }

    #[tokio::test]
    async fn a_level_that_was_changed_is_told_before_the_next_sample() {
        let dir = tempfile::tempdir().unwrap();
        let sampler = sampler(Duration::from_secs(3_600));
        let control = control(&sampler, dir.path());
        for question in ["level tcp", "level http"] {
            let changed = control.answer_to(question).await;
            assert_eq!(control.answer_to("level").await, changed);
        }
    }

    #[tokio::test]
    async fn the_status_has_every_loss_of_the_spool() {
        let dir = tempfile::tempdir().unwrap();
        let sampler = sampler(Duration::from_secs(3_600));
        let control = control(&sampler, dir.path());
        {
            let mut spool = lock(&control.spool);
            let key = spool.append(b"no report", b"").unwrap();
            spool.discard(key);
        }
        let status = control.answer_to("status").await;
        let losses = lock(&control.spool).losses();
        assert_eq!(losses.damaged, 1);
        for (reason, lost) in losses.by_reason() {
            assert_eq!(status[reason].as_u64(), Some(lost), "{reason}");
        }
    }

    #[test]
    fn an_agent_that_closes_is_not_one_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let refused = ask(&path, "status").unwrap_err().to_string();
        assert!(refused.starts_with("no agent answers on"), "{refused}");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let closing = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut question = String::new();
            BufReader::new(stream).read_line(&mut question).unwrap();
        });
        let closed = ask(&path, "level tcp").unwrap_err().to_string();
        assert_eq!(closed, "the agent closed without an answer");
        closing.join().unwrap();
    }
}
