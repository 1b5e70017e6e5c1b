//! The proxy's binary: parses, runs, and maps errors to exit codes.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::FromArgMatches as _;
use daemon::log::{Line, start};
use daemon::{complain, manual};
use proxy::backends_view;
use proxy::cli::{self, Cli, Command, ConfigCommand, Output, RunArgs, command_line};
use proxy::config::{ConfigError, Origin};
use proxy::table::Table;
use proxy::{explain, serve};
use settings::{Setting, SettingsError};

/// Bad usage or configuration.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let loaded = command_line(std::env::args_os().collect()).load();
    let parsed = loaded.and_then(|loaded| {
        let cli = Cli::from_arg_matches(&loaded.matches)?;
        Ok((cli.command, loaded.settings))
    });
    let (command, settings) = match parsed {
        Ok(parsed) => parsed,
        Err(SettingsError::Usage(error)) => {
            // Where it cannot be printed there is no one to tell.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
        Err(error) => return refused(&error.into()),
    };
    let mut out = Vec::new();
    let done = match command {
        Command::Run(args) => return run(&args),
        Command::Config { command } => config(command, settings, &mut out),
        Command::Check { config } => check(Some(config), &mut out),
        Command::ExampleConfig => config(ConfigCommand::Example, settings, &mut out),
        Command::Explain { config, output } => return explain_running(config, output),
        Command::Completions { shell } => {
            cli::completions(shell, &mut out);
            Ok(())
        }
        Command::Man { dir: Some(dir), .. } => {
            let written = manual::write_all(command_line(Vec::new()).documented(), &dir);
            if let Err(error) = written {
                eprintln!("cannot write manual pages to {}: {error}", dir.display());
                return ExitCode::FAILURE;
            }
            Ok(())
        }
        Command::Man { command, .. } => {
            let written = manual::write(
                command_line(Vec::new()).documented(),
                command.as_deref(),
                &mut out,
            );
            debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
            Ok(())
        }
    };
    match done {
        Ok(()) => match io::stdout().lock().write_all(&out) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => refused(&error),
    }
}

fn refused(error: &ConfigError) -> ExitCode {
    complain("speedmimi-proxy", error);
    ExitCode::from(EXIT_USAGE)
}

fn config(
    command: ConfigCommand,
    mut settings: Vec<Setting>,
    out: &mut Vec<u8>,
) -> Result<(), ConfigError> {
    match command {
        ConfigCommand::Check { file } => return check(file, out),
        ConfigCommand::Example => out.extend(cli::example().into_bytes()),
        ConfigCommand::Reference => out.extend(cli::reference().into_bytes()),
        ConfigCommand::Show { run, output } => {
            let (_, of_file) = run.origin()?.settings()?;
            settings.extend(of_file);
            out.extend(settings::shown(&settings, output == Output::Json).into_bytes());
        }
    }
    Ok(())
}

/// Names and certificates are part of what has to be right.
fn check(file: Option<PathBuf>, out: &mut Vec<u8>) -> Result<(), ConfigError> {
    let variable = || std::env::var_os("SPEEDMIMI_PROXY_CONFIG").map(Into::into);
    let origin = Origin {
        path: file.or_else(variable).ok_or(ConfigError::NoFile)?,
        overrides: cli::overrides(Vec::new()),
    };
    let config = origin.load()?;
    let text = explain::explain(&config);
    Table::build(config, None).map_err(|error| ConfigError::Unusable {
        path: origin.path,
        what: error.to_string(),
    })?;
    out.extend(text.into_bytes());
    Ok(())
}

fn explain_running(path: PathBuf, output: Output) -> ExitCode {
    let overrides = cli::overrides(Vec::new());
    let config = match (Origin { path, overrides }).load() {
        Ok(config) => config,
        Err(error) => return refused(&error),
    };
    let text = match backends_view::ask(&config) {
        Ok(answer) if output == Output::Json => format!("{answer}\n"),
        Ok(answer) => backends_view::table(&answer),
        Err(error) => {
            complain("speedmimi-proxy", error);
            return ExitCode::FAILURE;
        }
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(args: &RunArgs) -> ExitCode {
    start(args.log_format, Line::Short, &[]);
    match serve::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            if error.is_config() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
