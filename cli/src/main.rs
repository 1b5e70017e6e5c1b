//! `speedmimi`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::args::Args::try_parse() {
        Ok(args) => cli::run(&args),
        Err(error) => {
            let code = if error.use_stderr() { cli::EX_USAGE } else { 0 };
            // Nothing is left to be done where even the terminal is gone.
            drop(error.print());
            ExitCode::from(code)
        }
    }
}
