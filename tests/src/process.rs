//! Programs that run until they are told to end.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Cgroup, try_eventually};

/// Lines of a log that are kept.
const LOG_LINES_MAX: usize = 2_000;

/// What a program said when it was ready: `ready KEY=VALUE …`.
pub type Ready = BTreeMap<String, String>;

/// A program that was started; it is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    ready: Option<Ready>,
    is_over: bool,
}

impl Process {
    /// Starts a program, in a cgroup if one is given.
    ///
    /// # Errors
    ///
    /// Where it cannot be started; the error names it.
    pub fn start(name: &str, mut command: Command, cgroup: Option<&Cgroup>) -> Result<Self> {
        if let Some(cgroup) = cgroup {
            enter(&mut command, cgroup)?;
        }
        // A group of its own, so that ^C at a terminal reaches the one who
        // started it alone, who then ends everything in order.
        command.process_group(0);
        command.stderr(Stdio::piped()).stdout(Stdio::null());
        command.env("NO_COLOR", "1");
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name} ({program})"))?;
        let log = Arc::new(Log::default());
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&log);
            thread::spawn(move || log.collect(stderr));
        }
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Waits for the line that says it is ready.
    ///
    /// # Errors
    ///
    /// When it ends before, or says nothing by the deadline; the error holds
    /// the end of its log.
    pub fn wait_ready(&mut self, deadline: Duration) -> Result<Ready> {
        let end = Instant::now() + deadline;
        let mut lines = self
            .log
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(ready) = &lines.ready {
                return Ok(ready.clone());
            }
            let left = end.saturating_duration_since(Instant::now());
            if lines.is_over || left.is_zero() {
                break;
            }
            let waited = self.log.changed.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let how = if lines.is_over {
            "ended before it was ready"
        } else {
            "did not get ready"
        };
        drop(lines);
        bail!("{} {how}; it said:\n{}", self.name, self.log())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The end of what it wrote on stderr.
    #[must_use]
    pub fn log(&self) -> String {
        let lines = self
            .log
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        lines
            .kept
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    ///
    /// When it does not end by the deadline: then it is killed.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let child = &mut self.child;
        match try_eventually(deadline, || child.try_wait().transpose()) {
            Some(status) => Ok(status?),
            None => {
                self.kill()?;
                bail!(
                    "{} did not end within {:.0} s of SIGTERM and was killed; it said:\n{}",
                    self.name,
                    deadline.as_secs_f64(),
                    self.log()
                )
            }
        }
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    ///
    /// Where the system does not let it.
    pub fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .with_context(|| format!("killing {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("signalling {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running()
            && let Err(error) = self.kill()
        {
            eprintln!("{error:#}");
        }
    }
}

impl Log {
    fn collect(&self, stderr: ChildStderr) {
        // What is no text is no log line; the end of the file ends the loop.
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.ready.is_none() {
                lines.ready = parse_ready(&line);
            }
            if lines.kept.len() == LOG_LINES_MAX {
                lines.kept.pop_front();
            }
            lines.kept.push_back(line);
            self.changed.notify_all();
        }
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_over = true;
        self.changed.notify_all();
    }
}

/// Reads `… ready KEY=VALUE …`, whatever a logger put in front.
fn parse_ready(line: &str) -> Option<Ready> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "ready");
    words.next()?;
    Some(
        words
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    )
}

/// Lets the program be in the cgroup before its first instruction: a socket
/// belongs to the cgroup in which it was made, for all its life.
fn enter(command: &mut Command, cgroup: &Cgroup) -> Result<()> {
    let procs = cgroup.procs()?;
    let write = move || {
        rustix::io::write(&procs, b"0")?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes one write(2) to an open
    // descriptor, which is async-signal-safe; it neither allocates nor locks.
    unsafe { command.pre_exec(write) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("shell", command, None).unwrap()
    }

    #[test]
    fn the_ready_line_is_read_behind_a_loggers_prefix() {
        let ready =
            parse_ready("2026-01-01T00:00:00Z  INFO x: ready grpc=127.0.0.1:1 http=[::1]:2");
        let ready = ready.unwrap();
        assert_eq!(ready["grpc"], "127.0.0.1:1");
        assert_eq!(ready["http"], "[::1]:2");
        assert_eq!(parse_ready("not already=1"), None);
    }

    #[test]
    fn a_program_is_ready_when_it_says_so_and_ends_when_it_is_told() {
        let mut process = shell("echo ready listen=here >&2; exec sleep 60");
        assert_eq!(process.wait_ready(SOON).unwrap()["listen"], "here");
        assert!(process.is_running());
        assert!(!process.terminate(SOON).unwrap().success());
        assert!(!process.is_running());
    }

    #[test]
    fn a_program_that_ends_early_is_quoted() {
        let error = shell("echo no such file >&2; exit 1")
            .wait_ready(SOON)
            .unwrap_err();
        assert!(error.to_string().contains("no such file"), "{error}");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let mut process = shell("trap '' TERM; echo ready >&2; while :; do sleep 1; done");
        process.wait_ready(SOON).unwrap();
        let error = process.terminate(Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().contains("was killed"), "{error}");
        assert!(!process.is_running());
    }
}
