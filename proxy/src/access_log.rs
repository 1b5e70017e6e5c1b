//! The access log: written by a thread of its own, fed through a bounded queue.
//!
//! A worker never waits for it. What does not fit is dropped and counted. The
//! fields are those that the proxy needs anyway; the time is taken by the writer,
//! so that no request reads a clock for it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::backend::Backend;
use crate::config::raw::{LogFormat, RawAccessLog};

/// Entries that wait for the writer at most.
const QUEUE_MAX: usize = 8192;
/// How often the writer looks whether its file was moved away, and logs drops.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// One answered request.
#[derive(Debug)]
pub struct Entry {
    /// Who asked: the real client where a trusted proxy names it.
    pub client: IpAddr,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Method, target and version; empty where the request was not understood.
    pub line: Vec<u8>,
    /// The status of the answer; 0 where there was none.
    pub status: u16,
    /// Who answered; `None`: the proxy itself.
    pub backend: Option<Arc<Backend>>,
}

/// The way to the writer.
#[derive(Debug)]
pub struct AccessLog {
    /// What was configured.
    pub config: RawAccessLog,
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the file and starts the writer, which ends with the last user.
    ///
    /// # Errors
    /// The file's, or that of the thread.
    pub fn start(config: &RawAccessLog) -> io::Result<Self> {
        let (queue, entries) = sync_channel(QUEUE_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let out = Out::open(&config.file)?;
        let mut writer = Writer {
            out,
            format: config.format,
            dropped: Arc::clone(&dropped),
            dropped_logged: 0,
            failures: Failures::default(),
        };
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&entries))?;
        Ok(Self {
            config: config.clone(),
            queue,
            dropped,
        })
    }

    /// Hands an entry over, or counts it as dropped.
    pub fn push(&self, entry: Entry) {
        if self.queue.try_send(entry).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

enum Out {
    Stderr,
    File {
        path: PathBuf,
        file: BufWriter<File>,
        inode: u64,
    },
}

impl Out {
    fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stderr);
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Self::File {
            path: path.to_owned(),
            file: BufWriter::new(file),
            inode,
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().write_all(line),
            Self::File { file, .. } => file.write_all(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stderr => Ok(()),
            Self::File { file, .. } => file.flush(),
        }
    }

    /// Opens the file anew where another, or none, is in its place: that is how
    /// logs are rotated.
    fn follow(&mut self) -> io::Result<()> {
        let Self::File { path, inode, file } = self else {
            return Ok(());
        };
        if std::fs::metadata(&*path).is_ok_and(|there| there.ino() == *inode) {
            return Ok(());
        }
        file.flush()?;
        *self = Self::open(&path.clone())?;
        Ok(())
    }
}

struct Writer {
    out: Out,
    format: LogFormat,
    dropped: Arc<AtomicU64>,
    dropped_logged: u64,
    failures: Failures,
}

/// Failed writes, logged once a minute: on a full disk each of them fails.
#[derive(Default)]
struct Failures {
    since: u64,
    logged: Option<Instant>,
}

impl Failures {
    const INTERVAL: Duration = Duration::from_secs(60);

    /// Counts one; gives how many there were since the last log line, where the next
    /// one is due.
    fn add(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        let recent = |logged| now.saturating_duration_since(logged) < Self::INTERVAL;
        if self.logged.is_some_and(recent) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

impl Writer {
    fn run(&mut self, entries: &Receiver<Entry>) {
        let mut looked = Instant::now();
        loop {
            let written = match entries.try_recv() {
                Ok(entry) => self.out.write(&line(&entry, self.format)),
                // Nothing waits: what was written should be seen.
                Err(_) => match (self.out.flush(), entries.recv_timeout(CHECK_INTERVAL)) {
                    (Ok(()), Ok(entry)) => self.out.write(&line(&entry, self.format)),
                    (Ok(()), Err(RecvTimeoutError::Timeout)) => Ok(()),
                    (_, Err(RecvTimeoutError::Disconnected)) => return,
                    (Err(error), _) => Err(error),
                },
            };
            if let Err(error) = written {
                self.failed(
                    &error,
                    "cannot write the access log: make room, or move the file away",
                );
            }
            if looked.elapsed() >= CHECK_INTERVAL {
                looked = Instant::now();
                self.look();
            }
        }
    }

    fn failed(&mut self, error: &io::Error, what: &str) {
        if let Some(failures) = self.failures.add(Instant::now()) {
            tracing::warn!(%error, failures, "{what}");
        }
    }

    fn look(&mut self) {
        if let Err(error) = self.out.follow() {
            self.failed(&error, "cannot reopen the access log");
        }
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > self.dropped_logged {
            tracing::warn!(
                dropped = dropped - self.dropped_logged,
                total = dropped,
                "access log entries dropped"
            );
            self.dropped_logged = dropped;
        }
    }
}

fn line(entry: &Entry, format: LogFormat) -> Vec<u8> {
    let request = String::from_utf8_lossy(&entry.line);
    let now = jiff::Timestamp::now();
    match format {
        LogFormat::Json => {
            let mut words = request.splitn(3, ' ');
            let mut word = || words.next().unwrap_or_default().to_owned();
            let value = json!({
                "time": format!("{now:.3}"),
                "client": entry.client,
                "peer": entry.peer,
                "method": word(),
                "target": word(),
                "version": word(),
                "status": entry.status,
                "upstream": entry.backend.as_ref().map(|backend| backend.upstream.as_str()),
                "backend": entry.backend.as_ref().map(|backend| backend.config.id.as_str()),
            });
            format!("{value}\n").into_bytes()
        }
        LogFormat::Combined => {
            let time = now.strftime("%d/%b/%Y:%H:%M:%S +0000");
            let quoted = request.replace('\\', "\\\\").replace('"', "\\\"");
            format!(
                "{} - - [{time}] \"{quoted}\" {} - \"-\" \"-\"\n",
                entry.client, entry.status
            )
            .into_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: &str) -> Entry {
        let client = [127, 0, 0, 1].into();
        Entry {
            client,
            peer: client,
            line: line.as_bytes().to_vec(),
            status: 200,
            backend: None,
        }
    }

    #[test]
    fn a_target_cannot_forge_a_line() {
        let forged = entry("GET /\"x\\ HTTP/1.1");
        let combined = String::from_utf8(line(&forged, LogFormat::Combined)).unwrap();
        assert!(
            combined.contains(r#""GET /\"x\\ HTTP/1.1" 200"#),
            "{combined}"
        );
        let json: serde_json::Value =
            serde_json::from_slice(&line(&forged, LogFormat::Json)).unwrap();
        assert_eq!(json["target"], "/\"x\\");
        assert_eq!(json["client"], "127.0.0.1");
    }

    #[test]
    fn a_full_disk_is_told_of_once_a_minute() {
        let mut failures = Failures::default();
        let start = Instant::now();
        assert_eq!(failures.add(start), Some(1));
        for second in 1..60 {
            assert_eq!(failures.add(start + Duration::from_secs(second)), None);
        }
        assert_eq!(failures.add(start + Failures::INTERVAL), Some(60));
    }

    #[test]
    fn a_moved_file_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut out = Out::open(&path).unwrap();
        out.write(b"one").unwrap();
        std::fs::rename(&path, directory.path().join("log.1")).unwrap();
        out.follow().unwrap();
        out.write(b"two").unwrap();
        out.flush().unwrap();
        assert_eq!(
            std::fs::read(directory.path().join("log.1")).unwrap(),
            b"one"
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (queue, entries) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let log = AccessLog {
            config: RawAccessLog::default(),
            queue,
            dropped,
        };
        log.push(entry("a"));
        log.push(entry("b"));
        assert_eq!(log.dropped.load(Ordering::Relaxed), 1);
        assert_eq!(entries.recv().unwrap().line, b"a");
    }
}
