//! `speedmimi-collector`.

use std::process::ExitCode;

use clap::Parser;
use collector::{
    app,
    args::{Args, Command},
    config::Config,
    logging,
};

/// sysexits.h: the command line or the configuration cannot be used.
const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { EX_USAGE } else { 0 };
            // Nothing is left to be done where even the terminal is gone.
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match args.command {
        Command::Run(run) => {
            logging::init(run.log_format);
            let config = match Config::try_new(&run) {
                Ok(config) => config,
                Err(error) => return failed(EX_USAGE, &error.into()),
            };
            match app::run(config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(1, &error),
            }
        }
        Command::Backup { data_dir, file } => match app::backup(&data_dir, &file) {
            Ok(bytes) => {
                eprintln!("{} has {bytes} bytes", file.display());
                ExitCode::SUCCESS
            }
            Err(error) => failed(1, &error),
        },
        Command::Completions { shell } => {
            collector::args::print_completions(shell);
            ExitCode::SUCCESS
        }
        Command::Man => match collector::args::print_man() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(1, &error.into()),
        },
    }
}

/// `{error:#}` gives the whole chain of causes on one line.
fn failed(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("speedmimi-collector: {error:#}");
    ExitCode::from(code)
}
