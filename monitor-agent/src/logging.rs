//! Log lines go to stderr: stdout is for JSON.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{
    EnvFilter,
    filter::{Directive, LevelFilter},
};

use bpf::KernelLog;

use crate::cli::LogFormat;

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
    fn what_the_kernel_s_programs_were_asked_to_log_is_shown() {
        assert!(!filter(KernelLog::Off).to_string().contains(KERNEL_PROGRAMS));
        let shown = filter(KernelLog::Debug).to_string();
        assert!(shown.contains("speedmimi_bpf=debug"), "{shown}");
    }
}
