//! `speedmimi-collector`.

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;
use collector::{
    app,
    args::{Args, Command, TokenCommand},
    config::Config,
    config_file, logging,
    tokens::{self, Right, TokensError},
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
                Err(error) => failed(1, &error.into()),
            }
        }
        Command::Backup { data_dir, file } => match app::backup(&data_dir, &file) {
            Ok(backup) => {
                eprintln!("{} has {} bytes", file.display(), backup.bytes);
                if backup.damaged > 0 {
                    eprintln!(
                        "warning: {} reports in it are damaged, as they are in the store: keep \
                         an older backup, and check the disk",
                        backup.damaged
                    );
                }
                ExitCode::SUCCESS
            }
            Err(error) => failed(1, &error.into()),
        },
        Command::Token { command } => match token(command) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ TokensError::HostId) => failed(EX_USAGE, &error.into()),
            Err(error) => failed(1, &error.into()),
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

/// Only the token itself goes to stdout.
fn token(command: TokenCommand) -> Result<(), TokensError> {
    match command {
        TokenCommand::Add { host_id, store, .. } => {
            let odd = host_id.as_deref().filter(|id| !tokens::is_id_of_agent(id));
            if let Some(id) = odd {
                eprintln!(
                    "warning: {id:?} is no id of an agent, which has 32 hexadecimal digits: \
                     `speedmimi hosts` shows the ids, names do not count"
                );
            }
            let right = host_id.map_or(Right::Read, |host_id| Right::Write { host_id });
            let (entry, secret) = tokens::add(&store.data_dir, right)?;
            println!("{secret}");
            eprintln!("token {} was made; it is not shown again", entry.id);
        }
        TokenCommand::List { store } => {
            println!("{:<12}  {:<5}  {:<20}  HOST ID", "ID", "RIGHT", "CREATED");
            for entry in tokens::list(&store.data_dir)? {
                let (right, host_id) = match &entry.right {
                    Right::Write { host_id } => ("write", host_id.as_str()),
                    Right::Read => ("read", "-"),
                };
                println!(
                    "{:<12}  {right:<5}  {:.0}  {host_id}",
                    entry.id, entry.created
                );
            }
        }
        TokenCommand::Revoke { id, store } => {
            let entry = tokens::revoke(&store.data_dir, &id)?;
            eprintln!("token {} is taken back", entry.id);
        }
    }
    Ok(())
}

/// The arguments, with the flags of a configuration file before those that
/// were given.
fn parse(given: &[OsString]) -> Result<Args, ExitCode> {
    let args = Args::try_parse_from(given).map_err(|error| usage(&error))?;
    let Command::Run(run) = &args.command else {
        return Ok(args);
    };
    let Some(path) = &run.config else {
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
