//! `speedmimi-collector`.

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;
use collector::{
    app,
    args::{Args, Command, RunArgs},
    config::Config,
    config_file, logging,
};

/// sysexits.h: the command line or the configuration cannot be used.
const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match parse(&std::env::args_os().collect::<Vec<_>>()) {
        Ok(args) => args,
        Err(code) => return code,
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

/// The arguments, with the flags of a configuration file before those that
/// were given.
fn parse(given: &[OsString]) -> Result<Args, ExitCode> {
    let args = Args::try_parse_from(given).map_err(|error| usage(&error))?;
    let Command::Run(RunArgs {
        config: Some(path), ..
    }) = &args.command
    else {
        return Ok(args);
    };
    let of_file = config_file::flags(path).map_err(|error| failed(EX_USAGE, &error.into()))?;
    // The first two are the program and `run`.
    let (program, flags) = given.split_at(2);
    let all = program
        .iter()
        .cloned()
        .chain(of_file)
        .chain(flags.iter().cloned());
    Args::try_parse_from(all).map_err(|error| {
        eprintln!("with the configuration file {}:", path.display());
        usage(&error)
    })
}

fn usage(error: &clap::Error) -> ExitCode {
    // Nothing is left to be done where even the terminal is gone.
    drop(error.print());
    ExitCode::from(if error.use_stderr() { EX_USAGE } else { 0 })
}

/// `{error:#}` gives the whole chain of causes on one line.
fn failed(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("speedmimi-collector: {error:#}");
    ExitCode::from(code)
}
