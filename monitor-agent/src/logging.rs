//! The agent's log, with what the kernel's programs were asked to log.

use bpf::KernelLog;
use daemon::log::{Line, LogFormat, start};

/// Starts the log; what the kernel's programs log comes as `speedmimi_bpf`.
pub fn init(format: LogFormat, kernel: KernelLog) {
    let programs: &[&str] = match kernel {
        KernelLog::Off => &[],
        KernelLog::Info => &["speedmimi_bpf=info"],
        KernelLog::Debug => &["speedmimi_bpf=debug"],
    };
    start(format, Line::Full, programs);
}
