//! Log lines go to stderr: stdout is for JSON.

use std::{
    collections::HashMap,
    io::{IsTerminal, stderr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing_subscriber::{
    EnvFilter,
    filter::{Directive, LevelFilter},
};

use crate::{cli::LogFormat, kernel::KernelLog};

/// What the kernel's programs log comes under this name.
const KERNEL_PROGRAMS: &str = "speedmimi_bpf";

/// Sets the process's logging up; `RUST_LOG` chooses what is logged, `info` and
/// above by default, and whatever the kernel's programs were asked to log.  Does
/// nothing where it is set up already.
pub fn init(format: LogFormat, kernel: KernelLog) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(kernel))
        .with_writer(stderr);
    let set = match format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).try_init(),
        // Fields are an object of their own: some are called as the line's own
        // keys are (level, target).
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = set {
        tracing::debug!(%error, "logging is set up already");
    }
}

/// What goes on failing is told this often.
const TOLD_AFTER: Duration = Duration::from_secs(60);

/// How many causes are told apart.
const CAUSES_MAX: usize = 256;

/// Whether a line about this cause may be written now: at most one a minute.
#[must_use]
pub fn once_a_minute(cause: &str) -> bool {
    static TOLD: Mutex<Option<HashMap<String, Instant>>> = Mutex::new(None);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    allows(told.get_or_insert_default(), cause, Instant::now())
}

fn allows(told: &mut HashMap<String, Instant>, cause: &str, now: Instant) -> bool {
    let recent = |at: &Instant| now.saturating_duration_since(*at) < TOLD_AFTER;
    if told.get(cause).is_some_and(recent) {
        return false;
    }
    if told.len() >= CAUSES_MAX {
        told.retain(|_, at| recent(at));
        if told.len() >= CAUSES_MAX {
            return false;
        }
    }
    told.insert(cause.to_owned(), now);
    true
}

fn filter(kernel: KernelLog) -> EnvFilter {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let level = match kernel {
        KernelLog::Off => return filter,
        KernelLog::Info => "info",
        KernelLog::Debug => "debug",
    };
    let directive = format!("{KERNEL_PROGRAMS}={level}").parse::<Directive>();
    match directive {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once_a_minute_and_beside_others() {
        let (mut told, start) = (HashMap::new(), Instant::now());
        let mut at = |cause: &str, seconds| {
            let now = start + Duration::from_secs(seconds);
            allows(&mut told, cause, now)
        };
        let asked = [("a", 0), ("a", 59), ("b", 59), ("a", 60), ("a", 61)];
        let answers = asked.map(|(cause, seconds)| at(cause, seconds));
        assert_eq!(answers, [true, false, true, true, false]);
        for n in 0..CAUSES_MAX * 2 {
            at(&n.to_string(), 100);
        }
        assert!(!at("one too many", 101));
        assert!(at("room again", 161));
        assert!(told.len() <= CAUSES_MAX);
    }

    #[test]
    fn what_the_kernel_s_programs_were_asked_to_log_is_shown() {
        assert!(!filter(KernelLog::Off).to_string().contains(KERNEL_PROGRAMS));
        let shown = filter(KernelLog::Debug).to_string();
        assert!(shown.contains("speedmimi_bpf=debug"), "{shown}");
    }
}
