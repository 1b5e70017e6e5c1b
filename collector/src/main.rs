//! `speedmimi-collector`.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::FromArgMatches as _;
use daemon::{complain, error_chain};
use settings::{Setting, SettingsError};

use collector::{
    app::{self, Daemon},
    args::{self, Args, Command, ConfigCommand, Output, TokenCommand, command_line, run_args},
    config::{Config, ConfigError},
    logging,
    tokens::{self, Right, TokensError},
};

/// sysexits.h: the command line or the configuration cannot be used.
const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let given: Vec<OsString> = std::env::args_os().collect();
    // First of all: until it is caught, SIGHUP ends a program.
    let daemon = given.get(1).filter(|command| *command == "run");
    let daemon = match daemon.map(|_| Daemon::new()).transpose() {
        Ok(daemon) => daemon,
        Err(error) => return failed(1, &error.into()),
    };
    let line = command_line(given);
    let loaded = line.load();
    let parsed = loaded.and_then(|loaded| {
        let args = Args::from_arg_matches(&loaded.matches)?;
        Ok((args, loaded.settings))
    });
    let (args, settings) = match parsed {
        Ok(parsed) => parsed,
        Err(SettingsError::Usage(error)) => {
            // Nothing is left to be done where even the terminal is gone.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { EX_USAGE } else { 0 });
        }
        Err(error) => return failed(EX_USAGE, &error.into()),
    };
    match args.command {
        Command::Run(run) => {
            logging::init(run.log_format);
            let config = match Config::try_new(&run, &settings) {
                Ok(config) => config,
                Err(error) => return failed(EX_USAGE, &error.into()),
            };
            let daemon = daemon.map_or_else(Daemon::new, Ok);
            match daemon.and_then(|daemon| daemon.run(config, line, settings)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(1, &error.into()),
            }
        }
        Command::Config { command } => match config(command, &settings) {
            Ok(text) => match io::stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failed(1, &error.into()),
            },
            Err(error) => failed(EX_USAGE, &error.into()),
        },
        Command::Backup { data_dir, file } => match app::backup(&data_dir, &file) {
            Ok(backup) => {
                eprintln!("{} has {} bytes", file.display(), backup.bytes);
                if backup.damaged > 0 {
                    eprintln!(
                        "warning: {} rows in it are damaged, as in the store: keep an older \
                         backup, and check the disk",
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
            args::print_completions(shell);
            ExitCode::SUCCESS
        }
        Command::Man { command, dir } => match args::man(command.as_deref(), dir.as_deref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(1, &error.into()),
        },
    }
}

fn config(command: ConfigCommand, settings: &[Setting]) -> Result<String, ConfigError> {
    match command {
        ConfigCommand::Check { file } => {
            let flag = file
                .iter()
                .flat_map(|file| ["--config".into(), file.into()]);
            let run = ["speedmimi-collector".into(), "run".into()];
            let line = command_line(run.into_iter().chain(flag).collect());
            let (args, settings) = run_args(&line)?;
            drop(Config::check(&args, &settings)?);
            Ok(settings::checked(&settings))
        }
        ConfigCommand::Example => Ok(args::example()),
        ConfigCommand::Reference => Ok(settings::reference(&command_line(Vec::new()).keys("run"))),
        ConfigCommand::Show { run, output } => {
            drop(Config::check(&run, settings)?);
            Ok(settings::shown(settings, output == Output::Json))
        }
    }
}

/// Only the token itself goes to stdout.
fn token(command: TokenCommand) -> Result<(), TokensError> {
    match command {
        TokenCommand::Add { host_id, store, .. } => {
            let odd = host_id.as_deref().filter(|id| !tokens::is_id_of_agent(id));
            if let Some(id) = odd {
                eprintln!(
                    "warning: {id:?} is not an agent's id, which has 32 hexadecimal digits: see \
                     `speedmimi hosts`; host names are not accepted"
                );
            }
            let right = host_id.map_or(Right::Read, |host_id| Right::Write { host_id });
            let (entry, secret) = tokens::add(&store.data_dir, right)?;
            println!("{secret}");
            eprintln!("created token {}; it cannot be shown again", entry.id);
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
            eprintln!("revoked token {}", entry.id);
        }
    }
    Ok(())
}

fn failed(code: u8, error: &anyhow::Error) -> ExitCode {
    complain("speedmimi-collector", error_chain(error.as_ref()));
    ExitCode::from(code)
}
