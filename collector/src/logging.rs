//! The log, on stderr.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// The target of the ready line, which no filter hides: scripts wait for it.
pub const READY_TARGET: &str = "speedmimi_collector";

/// Starts the log.  May be called once in a process; later calls are ignored,
/// so that tests may run several collectors.
pub fn init(format: LogFormat) {
    let always = format!("{READY_TARGET}=info")
        .parse()
        .expect("a constant directive that a test keeps valid");
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info"))
        .add_directive(always);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    drop(match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constant_directive_is_valid() {
        init(LogFormat::Text);
        init(LogFormat::Json);
    }
}
